use super::*;
use crate::wire::client::AclEntry;
use crate::wire::txn::Acl;

fn peer(address: &str) -> AuthIds {
    AuthIds::of_peer(address.parse().unwrap())
}

fn acl(perms: i32, scheme: &str, id: &str) -> Acl {
    Acl { perms, scheme: scheme.into(), id: id.into() }
}

fn entry<'a>(perms: i32, scheme: &'a str, id: &'a str) -> AclEntry<'a> {
    AclEntry { perms, scheme: Some(scheme.into()), id: Some(id.into()) }
}

fn fix(list: &[AclEntry<'_>], ids: &AuthIds) -> Result<Vec<Acl>, FixError> {
    fix_up(Some(list), ids, &AuthRules::default(), 1 << 20).map(|list| list.to_vec())
}

#[test]
fn digests_of_a_real_server() {
    assert_eq!(derive("u:p", DigestAlgorithm::Sha1), "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=");
    assert_eq!(derive("bob:pw", DigestAlgorithm::Sha1), "bob:ikIaKsbtGweaHnb/jKn7OHqbunM=");
    assert_eq!(derive("bob", DigestAlgorithm::Sha1).split(':').next(), Some("bob"));
    // Of the empty text; known values of the algorithms themselves.
    assert_eq!(derive("", DigestAlgorithm::Md5), ":1B2M2Y8AsgTpgAmY7PhCfg==");
    assert_eq!(derive("", DigestAlgorithm::Sha256), ":47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    assert_eq!(DigestAlgorithm::from_name("sha3-256"), Some(DigestAlgorithm::Sha3_256));
    assert_eq!(DigestAlgorithm::from_name("rot13"), None);
}

/// Surrogates, as `modified UTF-8` has them, are one U+FFFD each to Java: the hash is that of ef bf bd ef bf bd 3a 70 77.
#[test]
fn what_a_client_gives_is_read_as_java_reads_it() {
    let mut ids = peer("127.0.0.1");
    let auth = b"\xed\xa0\xbd\xed\xb8\x80:pw";
    assert_eq!(ids.authenticate(Some("digest"), Some(auth), &AuthRules::default()), Ok(()));
    assert_eq!(ids.iter().last().unwrap().id, "\u{fffd}\u{fffd}:F2E4i782FsuPaGBSfsCS6MLGvYM=");
}

#[test]
fn an_address_is_shown_as_java_shows_it() {
    assert_eq!(address_text("127.0.0.1".parse().unwrap()), "127.0.0.1");
    assert_eq!(address_text("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1");
    assert_eq!(address_text("::1".parse().unwrap()), "0:0:0:0:0:0:0:1");
}

#[test]
fn auth_packets_succeed_and_fail_as_upstream() {
    let rules = AuthRules { super_digest: Some(derive("super:secret", DigestAlgorithm::Sha1)), ..AuthRules::default() };
    let mut ids = peer("127.0.0.1");
    for (scheme, auth) in
        [(Some("world"), Some(&b"x"[..])), (Some("sasl"), Some(b"x")), (Some("digest"), None), (None, Some(b"x"))]
    {
        assert_eq!(ids.authenticate(scheme, auth, &rules), Err(ErrorCode::AUTH_FAILED), "{scheme:?}");
    }
    assert_eq!(ids, peer("127.0.0.1"));
    let before = ids.clone();
    assert_eq!(ids.authenticate(Some("ip"), None, &rules), Ok(()));
    for _ in 0..2 {
        assert_eq!(ids.authenticate(Some("digest"), Some(b"bob:pw"), &rules), Ok(()));
    }
    assert_eq!(ids.who_am_i().collect::<Vec<_>>(), [("ip", "127.0.0.1"), ("digest", "bob")]);
    assert!(!ids.is_super());
    assert_eq!(ids.authenticate(Some("digest"), Some(b"super:secret"), &rules), Ok(()));
    assert!(ids.is_super());
    assert_eq!(ids.who_am_i().skip(2).collect::<Vec<_>>(), [("super", ""), ("digest", "super")]);
    assert_eq!(before.iter().count(), 1, "a snapshot of the ids does not grow");

    let off = AuthRules { digest: None, ..AuthRules::default() };
    assert_eq!(ids.authenticate(Some("digest"), Some(b"bob:pw"), &off), Err(ErrorCode::AUTH_FAILED));
}

#[test]
fn a_connection_cannot_gather_ids_without_bound() {
    let mut ids = peer("127.0.0.1");
    let rules = AuthRules::default();
    let outcomes: Vec<_> = (0..=limits::CONNECTION_AUTH_IDS)
        .map(|n| ids.authenticate(Some("digest"), Some(format!("u{n}:p").as_bytes()), &rules))
        .collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), limits::CONNECTION_AUTH_IDS - 1);
}

#[test]
fn nor_can_it_gather_long_ones() {
    let mut ids = peer("127.0.0.1");
    let rules = AuthRules::default();
    // Without a colon all of it is the user. What is no text is longer than it came.
    for long in [vec![b'u'; limits::CONNECTION_AUTH_BYTES], vec![0xff; limits::CONNECTION_AUTH_BYTES / 2]] {
        assert_eq!(ids.authenticate(Some("digest"), Some(&long), &rules), Err(ErrorCode::AUTH_FAILED));
    }
    let mut user = vec![b'u'; limits::CONNECTION_AUTH_BYTES / 4];
    let mut outcomes = [(); 5].map(|()| {
        user[0] += 1;
        ids.authenticate(Some("digest"), Some(&user), &rules).is_ok()
    });
    assert_eq!(outcomes, [true, true, true, false, false]);
    outcomes[0] = ids.authenticate(Some("digest"), Some(b"bob:pw"), &rules).is_ok();
    assert!(outcomes[0], "a short one has room");
    // A character of four bytes is forwarded in six.
    let mut ids = AuthIds::default();
    let bytes_max = 2 * 8 + 2 * "digest".len() + 6 * 3;
    assert!(ids.add_within(bytes_max, "digest", "\u{1F600}\u{1F600}"));
    assert!(!ids.add_within(bytes_max, "digest", "\u{1F600}b"));
    assert!(ids.add_within(bytes_max, "digest", "\u{1F600}"));
    let small = AuthRules { bytes_max: 100, ..AuthRules::default() };
    let mut ids = peer("127.0.0.1");
    let outcomes = [b"u1:p", b"u2:p", b"u3:p"].map(|auth| ids.authenticate(Some("digest"), Some(auth), &small).is_ok());
    assert_eq!(outcomes, [true, false, false], "as many as a packet takes");
}

#[test]
fn access_is_decided_entry_by_entry() {
    let rules = AuthRules::default();
    let stranger = peer("10.1.2.3");
    let mut bob = stranger.clone();
    bob.authenticate(Some("digest"), Some(b"bob:pw"), &rules).unwrap();
    let mut root = stranger.clone();
    root.add("super", "");
    let bobs = acl(Acl::WRITE, "digest", "bob:ikIaKsbtGweaHnb/jKn7OHqbunM=");

    let table: &[(&[Acl], i32, &AuthIds, bool)] = &[
        (&[], Acl::ADMIN, &stranger, true),
        (&[Acl::world(Acl::READ)], Acl::READ, &stranger, true),
        (&[Acl::world(Acl::READ)], Acl::READ | Acl::ADMIN, &stranger, true),
        (&[Acl::world(Acl::READ)], Acl::WRITE, &stranger, false),
        (&[Acl::world(0)], Acl::WRITE, &root, true),
        (&[bobs.clone(), Acl::world(Acl::READ)], Acl::READ, &stranger, true),
        (std::slice::from_ref(&bobs), Acl::WRITE, &stranger, false),
        (std::slice::from_ref(&bobs), Acl::WRITE, &bob, true),
        (std::slice::from_ref(&bobs), Acl::READ, &bob, false),
        (&[acl(31, "world", "someone")], Acl::READ, &bob, false),
        (&[acl(31, "sasl", "bob")], Acl::READ, &bob, false),
        (&[acl(31, "ip", "10.1.2.3")], Acl::READ, &stranger, true),
        (&[acl(31, "ip", "10.1.0.0/16")], Acl::READ, &stranger, true),
        (&[acl(31, "ip", "10.1.3.0/23")], Acl::READ, &stranger, true),
        (&[acl(31, "ip", "10.1.3.0/24")], Acl::READ, &stranger, false),
        (&[acl(31, "ip", "0.0.0.0/0")], Acl::READ, &stranger, true),
        (&[acl(31, "ip", "::/0")], Acl::READ, &stranger, false),
    ];
    for (list, wanted, ids, expected) in table {
        assert_eq!(permits(list, *wanted, ids, &rules), *expected, "{list:?} {wanted} {ids:?}");
    }
    let six = peer("2001:db8::1");
    assert!(permits(&[acl(31, "ip", "2001:db8::/32")], 1, &six, &rules));
    assert!(!permits(&[acl(31, "ip", "2001:db9::/32")], 1, &six, &rules));
    assert!(permits(&[acl(31, "ip", "::/0")], 1, &six, &rules));
    assert!(!permits(&[acl(31, "ip", "0.0.0.0/0")], 1, &six, &rules));
    assert!(permits(&[Acl::world(0)], 31, &stranger, &AuthRules { skip_acl: true, ..AuthRules::default() }));
    assert!(!permits(&[bobs], Acl::WRITE, &bob, &AuthRules { digest: None, ..AuthRules::default() }));
}

#[test]
fn long_lists_and_many_ids_are_matched_as_few_are() {
    let rules = AuthRules::default();
    let mut ids = peer("10.1.2.3");
    (0..40).for_each(|n| assert!(ids.add("digest", &format!("user{n}:hash"))));
    let mut list: Vec<Acl> = (0..40).map(|n| acl(Acl::READ, "digest", &format!("other{n}:hash"))).collect();
    assert!(!permits(&list, Acl::READ, &ids, &rules));
    for (scheme, id, passes) in [
        ("digest", "user39:hash", true),
        ("digest", "user40:hash", false),
        ("ip", "10.0.0.0/8", true),
        ("ip", "11.0.0.0/8", false),
        ("world", "anyone", true),
        ("sasl", "user1:hash", false),
    ] {
        list.push(acl(Acl::WRITE, scheme, id));
        assert_eq!(permits(&list, Acl::WRITE, &ids, &rules), passes, "{scheme}:{id}");
        assert!(!permits(&list, Acl::READ, &ids, &rules));
        list.pop();
    }
}

#[test]
fn lists_are_fixed_up_in_order() {
    let mut ids = peer("127.0.0.1");
    assert_eq!(fix_up(None, &ids, &AuthRules::default(), 1 << 20), Err(FixError::Invalid));
    assert_eq!(fix(&[], &ids), Err(FixError::Invalid));
    let bad = [
        ("world", "somebody"),
        ("auth", ""),
        ("super", ""),
        ("sasl", "bob"),
        ("x509", "CN=a"),
        ("nope", "a"),
        ("digest", "a"),
        ("digest", "a:"),
        ("digest", ":"),
        ("digest", "a:b:c"),
        ("ip", "host"),
        ("ip", "1.2.3"),
        ("ip", "1.2.3.256"),
        ("ip", "1.2.3.4/"),
        ("ip", "1.2.3.4/-1"),
        ("ip", "1.2.3.4/33"),
        ("ip", "1.2.3.4/x"),
        ("ip", "::1/129"),
        ("ip", "::ffff:1.2.3.4"),
        ("ip", "1::2::3"),
        ("ip", "1:2:3:4:5:6:7:8::"),
        ("ip", "1:2:3:4::5:6:7:8"),
        ("ip", "00001::"),
        ("ip", "1::2:"),
        ("ip", ":::+1"),
        ("ip", "::00001"),
        ("ip", "::+0001"),
        ("ip", "1:2:3:4::5:6:7:8"),
        ("ip", "1.2.3.4/8/9"),
        ("digest", "::b"),
        ("digest", "a::b"),
    ];
    for (scheme, id) in bad {
        assert_eq!(fix(&[entry(31, scheme, id)], &ids), Err(FixError::Invalid), "{scheme}:{id}");
    }
    let good = [
        ("world", "anyone"),
        ("digest", "a:b"),
        ("digest", ":b"),
        ("digest", "a:b:"),
        ("ip", "001.2.3.4/0"),
        ("ip", "::1/128"),
        ("ip", "fe80::"),
        ("ip", "::2:3:4:5:6:7:8"),
        ("ip", "2:3:4:5:6:7:8::"),
        ("ip", "::1/+1"),
        ("ip", "::+1"),
        ("ip", "1::-1:0"),
        ("ip", "-0.0.0.0"),
        ("digest", ":a:"),
    ];
    for (scheme, id) in good {
        assert_eq!(fix(&[entry(255, scheme, id)], &ids), Ok(vec![acl(255, scheme, id)]), "{scheme}:{id}");
    }
    let null_world = AclEntry { perms: 1, scheme: Some("world".into()), id: None };
    assert_eq!(fix(&[null_world], &ids), Err(FixError::Undecodable));
    for scheme in ["digest", "ip"] {
        let null_id = AclEntry { perms: 1, scheme: Some(scheme.into()), id: None };
        assert_eq!(fix(&[null_id], &ids), Err(FixError::Undecodable), "{scheme}");
    }
    for scheme in ["sasl", "auth", "nope"] {
        let null_id = AclEntry { perms: 1, scheme: Some(scheme.into()), id: None };
        assert_eq!(fix(&[null_id], &ids), Err(FixError::Invalid), "{scheme}");
    }
    let null_scheme = AclEntry { perms: 1, scheme: None, id: None };
    assert_eq!(fix(std::slice::from_ref(&null_scheme), &ids), Err(FixError::Invalid));

    // Behind another entry it is compared, as far as that comes, and before that one is looked at.
    let null_id = AclEntry { perms: 1, scheme: Some("auth".into()), id: None };
    for others in [1, 20] {
        let behind = |perms: i32, scheme: &str, null: &AclEntry<'static>| {
            let texts: Vec<String> = (0..others).map(|at| format!("bad{at}")).collect();
            let mut list: Vec<_> = texts.iter().map(|id| entry(perms, scheme, id)).collect();
            list.push(null.clone());
            fix(&list, &ids)
        };
        assert_eq!(behind(1, "nope", &null_scheme), Err(FixError::Undecodable));
        assert_eq!(behind(2, "nope", &null_scheme), Err(FixError::Invalid));
        assert_eq!(behind(1, "auth", &null_id), Err(FixError::Undecodable));
        assert_eq!(behind(2, "auth", &null_id), Err(FixError::Invalid));
        assert_eq!(behind(1, "nope", &null_id), Err(FixError::Invalid));
    }

    ids.add("digest", "a:b");
    ids.add("digest", "c:d");
    let list = [
        entry(1, "auth", ""),
        entry(31, "world", "anyone"),
        entry(1, "auth", "other"),
        entry(1, "auth", ""),
        entry(31, "world", "anyone"),
    ];
    let (a, c) = (acl(1, "digest", "a:b"), acl(1, "digest", "c:d"));
    assert_eq!(fix(&list, &ids), Ok(vec![a.clone(), c.clone(), Acl::world(31), a, c]));
}

#[test]
fn a_long_list_is_fixed_up_like_a_short_one_and_within_its_bound() {
    let ids = peer("127.0.0.1");
    let names: Vec<String> = (0..50_000).map(|n| format!("{}:x", n % 25_000)).collect();
    let list: Vec<_> = names.iter().map(|name| entry(1, "digest", name)).collect();
    assert_eq!(fix(&list, &ids).unwrap().len(), 25_000);

    let mut many = ids.clone();
    for n in 0..limits::CONNECTION_AUTH_IDS - 1 {
        many.add("digest", &format!("{n}:x"));
    }
    let list: Vec<_> = names.iter().take(25_000).map(|name| entry(1, "auth", name)).collect();
    assert_eq!(fix(&list, &many), Err(FixError::TooLarge));
}

#[test]
fn a_digest_is_hidden_from_who_may_not_administer() {
    assert_eq!(redacted_id("digest", "u:abc="), "u:x");
    assert_eq!(redacted_id("digest", "u"), "u");
    assert_eq!(redacted_id("ip", "::1"), "::1");
}

#[test]
fn a_required_scheme_keeps_others_out() {
    let rules = AuthRules { required_schemes: vec!["digest".into()], ..AuthRules::default() };
    let mut ids = peer("127.0.0.1");
    assert!(!rules.admits(&ids));
    ids.add("digest", "a:b");
    assert!(rules.admits(&ids));
    assert!(AuthRules::default().admits(&AuthIds::default()));
}

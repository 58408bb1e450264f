use super::*;
use crate::ids::{OwnerRules, SessionId, Zxid};
use crate::snapshot::SessionRecord;
use crate::tree::{Misfit, Numbers, Tree, TreeOptions};
use crate::wire::writer::Jute;

/// What ZooKeeper 3.9.5 wrote when it had replayed tests/golden/zookeeper-3.9.5.log: 16 bytes of header, the tree, three
/// seals, the digest, the zxid (disk-formats 2).
const FILE: &[u8] = include_bytes!("../../../tests/golden/zookeeper-3.9.5.snapshot");
const HEADER: usize = 16;
/// Seal, digest section with its seal, zxid with its seal.
const TRAILER: usize = 13 + 33 + 21;
const ZXID: Zxid = Zxid(0x16a);
const DIGEST: u64 = 0x9_0449_267c;

fn options() -> TreeOptions {
    TreeOptions { owner_rules: OwnerRules { extended_types: true, emulate_353_ttl: false }, digest: true }
}

fn real() -> &'static [u8] {
    &FILE[HEADER..FILE.len() - TRAILER]
}

fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    decode_with(DecodeLimits::default(), bytes)
}

fn decode_with(limits: DecodeLimits, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder::new(options(), limits);
    let taken = decoder.push(bytes)?;
    if decoder.is_whole() {
        assert_eq!(taken, bytes.len(), "the tree ends where the bytes end");
    }
    decoder.finish(ZXID)
}

fn encode(tree: &Tree, sessions: &[SessionRecord]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = write_tree(tree, sessions, &mut bytes).unwrap();
    assert_eq!(written, bytes.len() as u64);
    bytes
}

/// Path, data, ACL, numbers.
type Znode = (String, Option<Vec<u8>>, Vec<Acl>, Numbers);

/// In the order of the paths.
fn contents(tree: &Tree) -> Vec<Znode> {
    let mut walk = crate::tree::Walk::sorted();
    let mut all = Vec::new();
    while let Some(node) = walk.next(tree) {
        all.push((walk.path().to_owned(), node.data().map(<[u8]>::to_vec), node.acl().to_vec(), node.numbers()));
    }
    all
}

#[test]
fn a_real_snapshot_has_the_digest_that_it_says_and_survives_its_own_bytes() {
    let decoded = decode(real()).unwrap();
    let tree = &decoded.tree;
    assert_eq!((tree.digest(), tree.zxid(), decoded.missing_acls), (DIGEST, ZXID, 0));
    let ids = [0x0100_005f_dfd8_0009, 0x0100_005f_dfd8_000a, 0x0100_005f_dfd8_000b];
    assert_eq!(decoded.sessions, ids.map(|id| (SessionId(id), 10_000)));
    let config = tree.lookup("/zookeeper/config").unwrap();
    assert_eq!(config.acl(), [Acl::world(Acl::READ)]);

    let bytes = encode(tree, &decoded.sessions);
    // Where a client asked for `world:anyone` with all permissions in words, ZooKeeper has a key for it: 35 bytes.
    assert_eq!(real().len() - bytes.len(), 35, "all else has the same length");
    let again = decode(&bytes).unwrap();
    assert_eq!(contents(&again.tree), contents(tree));
    assert_eq!((again.sessions, again.tree.digest()), (decoded.sessions, DIGEST));
    assert_eq!(again.tree.approximate_data_size(), tree.approximate_data_size());
    assert_eq!(again.tree.ephemeral_count(), tree.ephemeral_count());
}

/// A SNAP to a follower that had lost its data, as a leader of 3.9.5 sent it: its beginning and its end.
#[test]
fn the_bytes_of_a_real_snap() {
    let hex = "00000000 00000002
        0000000000000001 00000001 00000001 00000005 776f726c64 00000006 616e796f6e65
        0000000000000002 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65
        00000000 00000000 ffffffffffffffff 0000000000000000 0000000000000000 0000000000000000 0000000000000000
        00000000 00000009 00000000 0000000000000000 0000000100000010
        00000003 2f6434 00000005 6461746134 0000000000000002
        000000010000000a 000000010000000a 000001a202082627 000001a202082627
        00000000 00000000 00000000 0000000000000000 000000010000000a
        00000001 2f 0000000a 42656e57617348657265";
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    let zxid = Zxid(0x1_0000_0011);
    for piece in [1, 7, bytes.len()] {
        let mut decoder = Decoder::of_snap(options(), DecodeLimits::default());
        for piece in bytes.chunks(piece) {
            assert!(!decoder.is_whole());
            assert_eq!(decoder.push(piece), Ok(piece.len()));
        }
        assert!(decoder.is_whole());
        assert_eq!(decoder.push(b"the next packet"), Ok(0));
        let decoded = decoder.finish(zxid).unwrap();
        let node = decoded.tree.lookup("/d4").unwrap();
        assert_eq!((node.data(), node.acl()), (Some(&b"data4"[..]), &[Acl::world(Acl::ALL)][..]));
        let root = decoded.tree.lookup("/").unwrap();
        assert_eq!((root.stored_cversion(), root.pzxid(), decoded.tree.zxid()), (9, Zxid(0x1_0000_0010), zxid));

        let mut sent = Vec::new();
        write_snap(&decoded.tree, &[], &mut sent).unwrap();
        // Neither list comes back: one no znode has, the other needs no key.
        let root = 8 + 2 * 35;
        let mut expected = [&[0; 8], &bytes[root..]].concat();
        let key = 8 + 76 + 4 + 3 + 4 + 5;
        expected[key..key + 8].fill(0xff);
        assert_eq!(sent, expected);
    }
    let mut unsigned = bytes.clone();
    *unsigned.last_mut().unwrap() ^= 1;
    let mut decoder = Decoder::of_snap(options(), DecodeLimits::default());
    assert_eq!(decoder.push(&unsigned).unwrap_err().problem, "the signature is missing at the end");
}

#[test]
fn pieces_of_any_size_give_the_same_tree() {
    let whole = decode(real()).unwrap();
    for size in (1..40).chain([100, 333, 1000]) {
        let mut decoder = Decoder::new(options(), DecodeLimits::default());
        for piece in real().chunks(size) {
            assert_eq!(decoder.push(piece), Ok(piece.len()));
        }
        let decoded = decoder.finish(ZXID).unwrap();
        assert_eq!((decoded.tree.digest(), contents(&decoded.tree)), (DIGEST, contents(&whole.tree)));
        assert_eq!(decoded.sessions, whole.sessions);
    }
}

#[test]
fn slices_of_any_size_give_the_same_bytes() {
    let decoded = decode(real()).unwrap();
    let whole = encode(&decoded.tree, &decoded.sessions);
    for size in [1, 13, 100, 1000, 100_000] {
        let mut encoder = Encoder::new(decoded.sessions.clone());
        let mut bytes = Vec::new();
        while encoder.take(&decoded.tree, size, &mut bytes) == crate::tree::Progress::More {}
        assert_eq!(bytes, whole, "{size}");
    }
}

#[test]
fn no_truncation_is_a_tree_and_none_is_a_panic() {
    for len in 0..real().len() {
        assert!(decode(&real()[..len]).is_err(), "{len}");
    }
}

struct Bytes(Vec<u8>);

impl Bytes {
    /// Sessions and ACLs that are none, and a root.
    fn rooted() -> Bytes {
        Bytes(vec![0; 8]).node("", -1)
    }

    fn node(mut self, path: &str, acl: i64) -> Bytes {
        self.0.put_text(path);
        self.0.put_buffer(Some(b"x"));
        self.0.put_long(acl);
        self.0.extend_from_slice(&[0; NUMBERS]);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.put_text(END);
        self.0
    }
}

#[test]
fn what_no_server_writes_is_refused_with_its_place() {
    let refused = |bytes: Vec<u8>| decode(&bytes).map(|_| ()).unwrap_err();
    assert!(decode(&Bytes::rooted().node("/a", -1).node("/a/b", -1).end()).is_ok());
    let first = Bytes::rooted().0.len() as u64;
    for (bytes, problem) in [
        (Bytes::rooted().node("/a/b", -1), Misfit::Parent),
        (Bytes::rooted().node("", -1), Misfit::Twice),
        (Bytes::rooted().node("a", -1), Misfit::Path),
        (Bytes::rooted().node("/a/", -1), Misfit::Path),
        (Bytes::rooted().node("//", -1), Misfit::Path),
    ] {
        let error = refused(bytes.end());
        assert_eq!(error.offset, first);
        assert!(error.problem.ends_with(&problem.to_string()), "{error}");
    }
    assert!(refused(Bytes::rooted().node("/a", -1).node("/a", -1).end()).problem.contains("twice"));
    assert!(refused(Bytes(vec![0; 8]).node("/a", -1).end()).problem.contains("parent"), "no root");
    assert!(refused(Bytes(vec![0; 8]).end()).problem.contains("no root"));

    // Lengths and counts: of sessions, ACLs, entries, scheme, path, data.
    let acls = |count: i32, entries: i32, scheme: i32| {
        let mut bytes = vec![0; 4];
        bytes.put_int(count);
        bytes.put_long(7);
        bytes.put_int(entries);
        bytes.put_int(31);
        bytes.put_int(scheme);
        bytes
    };
    let after_root = |ints: &[i32]| {
        let mut bytes = Bytes::rooted().0;
        ints.iter().for_each(|&int| bytes.put_int(int));
        bytes
    };
    for (bytes, offset) in [
        (vec![0xff; 4], 0),
        (vec![0x80, 0, 0, 0], 0),
        (acls(-1, 1, 5), 4),
        (acls(1, -1, 5), 8),
        (acls(1, 1, -1), 20),
        (acls(1, 1, -2), 20),
        (acls(1, 1, i32::MAX), 20),
        (after_root(&[-1]), first),
        (after_root(&[-2]), first),
        (after_root(&[i32::MAX]), first),
        (after_root(&[0, -2]), first),
        (after_root(&[0, i32::MAX]), first),
    ] {
        assert_eq!(refused(bytes).offset, offset);
    }
    let mut twice = vec![0; 4];
    twice.put_int(2);
    for _ in 0..2 {
        twice.put_long(7);
        twice.put_int(0);
    }
    assert!(refused(twice).problem.contains("twice"));
    let mut sessions = Vec::new();
    sessions.put_int(2);
    for _ in 0..2 {
        sessions.put_long(5);
        sessions.put_int(4000);
    }
    sessions.extend_from_slice(&Bytes::rooted().end()[4..]);
    assert!(refused(sessions).problem.contains("session 0x5 is there twice"));
}

#[test]
fn limits_hold_for_one_item_and_for_all() {
    let bytes = Bytes::rooted().node("/a", -1).end();
    let limits = |item_bytes, total_bytes| DecodeLimits { item_bytes, total_bytes };
    assert!(decode_with(limits(2, bytes.len() as u64), &bytes).is_ok());
    assert!(decode_with(limits(1, bytes.len() as u64), &bytes).is_err(), "the path has two bytes");
    let error = decode_with(limits(2, bytes.len() as u64 - 1), &bytes).map(|_| ()).unwrap_err();
    assert_eq!(error.offset, bytes.len() as u64 - 5, "the end mark is too much");
    // An ACL is one item, however many entries it has.
    let mut acl = vec![0; 4];
    acl.put_int(1);
    acl.put_long(7);
    acl.put_int(100);
    for _ in 0..100 {
        Acl::world(1).write(&mut acl);
    }
    acl.extend_from_slice(&bytes[8..]);
    assert!(decode_with(limits(2300, u64::MAX), &acl).is_ok());
    assert!(decode_with(limits(2299, u64::MAX), &acl).is_err());
}

#[test]
fn a_znode_whose_acl_has_not_come_lets_nobody_in_until_replay_gives_it_one() {
    let decoded = decode(&Bytes::rooted().node("/a", 9).node("/b", 9).end()).unwrap();
    assert_eq!(decoded.missing_acls, 2);
    let acl = decoded.tree.lookup("/a").unwrap().acl();
    assert!(is_missing_acl(acl) && acl.iter().all(|entry| entry.perms == 0));
    assert!(!is_missing_acl(&[Acl::world(0)]) && !is_missing_acl(&[]));
}

#[test]
fn characters_outside_the_basic_plane_come_back() {
    let tree = decode(&Bytes::rooted().node("/\u{1f600}x\u{e4}", -1).end()).unwrap().tree;
    assert_eq!(contents(&tree)[1].0, "/\u{1f600}x\u{e4}");
    let mut lone = Bytes::rooted();
    lone.0.put_buffer(Some(b"/\xed\xa0\xbd"));
    lone.0.put_int(-1);
    lone.0.extend_from_slice(&[0; 8 + NUMBERS]);
    let tree = decode(&lone.end()).unwrap().tree;
    assert_eq!(contents(&tree)[1].0, "/\u{fffd}");
}

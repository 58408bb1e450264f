use super::*;

/// What server 3 of three sent to server 1 in the first election of a ZooKeeper 3.9.5 ensemble, its configuration shortened.
const CONFIG: &[u8] = b"server.1=127.0.0.1:23011:23021:participant\nversion=0";

fn vote() -> Notification<'static> {
    Notification {
        state: PeerState::Looking,
        leader: 3,
        zxid: 0,
        round: 1,
        peer_epoch: 0,
        version: Notification::VERSION,
        config: Some(CONFIG),
    }
}

#[test]
fn the_initial_message_of_a_real_server() {
    let mut wire = Vec::new();
    let message = InitialMessage { server: 3, addresses: vec!["127.0.0.1:23023".into()] };
    message.write(&mut wire);
    let expected = b"\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\x03\0\0\0\x0f127.0.0.1:23023";
    assert_eq!(wire, expected);
    for len in 0..wire.len() {
        assert_eq!(InitialMessage::read(&wire[..len]), Ok(None));
    }
    wire.extend([0, 0, 0, 40]);
    assert_eq!(InitialMessage::read(&wire), Ok(Some((message, expected.len()))));
}

#[test]
fn several_addresses_and_the_form_before_3_5_are_understood() {
    let mut wire = Vec::new();
    let message = InitialMessage { server: 2, addresses: vec!["a:1".into(), "[::1]:2".into()] };
    message.write(&mut wire);
    assert_eq!(wire[..8], SEVERAL_ADDRESSES.to_be_bytes());
    assert_eq!(InitialMessage::read(&wire).unwrap().unwrap().0, message);
    let old = InitialMessage { server: 5, addresses: Vec::new() };
    assert_eq!(InitialMessage::read(&5i64.to_be_bytes()), Ok(Some((old, 8))));
}

#[test]
fn an_initial_message_that_no_server_sends_is_refused_as_soon_as_it_shows() {
    let refused = |first: i64, length: i32, text: &str| {
        let mut wire = Vec::new();
        wire.put_long(first);
        wire.put_long(1);
        wire.put_int(length);
        wire.extend_from_slice(text.as_bytes());
        assert!(InitialMessage::read(&wire).is_err(), "{first} {length} {text}");
    };
    refused(-1, 3, "a:1");
    refused(i64::MIN, 3, "a:1");
    for length in [0, -1, ADDRESSES_MAX as i32 + 1, i32::MAX] {
        refused(ONE_ADDRESS, length, "");
    }
    refused(ONE_ADDRESS, 1, "a");
    refused(ONE_ADDRESS, 7, "a:70000");
    refused(ONE_ADDRESS, 3, "a:0");
    refused(SEVERAL_ADDRESSES, 4, "a:1|");
}

#[test]
fn a_notification_has_the_fields_of_a_real_one_at_their_places() {
    let mut wire = Vec::new();
    vote().write(&mut wire);
    let length = notification_length(wire[..4].try_into().unwrap()).unwrap();
    assert_eq!(length, 44 + CONFIG.len());
    assert_eq!(wire.len(), 4 + length);
    let body = &wire[4..];
    assert_eq!(body[..4], [0; 4], "looking");
    assert_eq!(body[4..12], 3i64.to_be_bytes());
    assert_eq!(body[20..28], 1i64.to_be_bytes(), "the round");
    assert_eq!(body[36..40], 2i32.to_be_bytes(), "the version");
    assert_eq!(Notification::read(body), Ok(vote()));
}

#[test]
fn old_forms_have_no_version_and_other_short_ones_are_dropped() {
    let mut wire = Vec::new();
    Notification { zxid: 0x7_0000_0002, ..vote() }.write(&mut wire);
    let body = &wire[4..];
    for len in 0..body.len() {
        let read = Notification::read(&body[..len]);
        match len {
            28 => assert_eq!(
                read.unwrap(),
                Notification { zxid: 0x7_0000_0002, peer_epoch: 7, version: 0, config: None, ..vote() }
            ),
            40 => assert_eq!(read.unwrap().version, 0),
            _ => assert!(read.is_err(), "{len}"),
        }
    }
}

#[test]
fn unknown_states_and_impossible_lengths_are_errors() {
    let mut wire = Vec::new();
    vote().write(&mut wire);
    let mut odd = wire[4..].to_vec();
    odd[3] = 4;
    assert_eq!(Notification::read(&odd), Err(Malformed::Unknown("state", 4)));
    let mut negative = wire[4..].to_vec();
    negative[40..44].copy_from_slice(&(-1i32).to_be_bytes());
    assert!(Notification::read(&negative).is_err());
    for raw in [0, -1, i32::MIN, NOTIFICATION_MAX as i32 + 1] {
        assert!(notification_length(raw.to_be_bytes()).is_err(), "{raw}");
    }
    assert_eq!(Notification { peer_epoch: -3, ..vote() }.epoch(), None);
}

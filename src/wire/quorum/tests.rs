use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const LIMIT: usize = 1 << 20;

/// From the wire between servers of ZooKeeper 3.9.5: a follower's handshake, a forwarded create, pings.
const CAPTURED: &[(&str, PacketType, i64, Option<usize>)] = &[
    (
        "0000000b 0000000100000000 00000014 0000000000000001 00010000 0000000000000000 ffffffff",
        PacketType::FollowerInfo,
        0x1_0000_0000,
        Some(20),
    ),
    ("00000011 0000000100000000 00000004 00010000 ffffffff", PacketType::LeaderInfo, 0x1_0000_0000, Some(4)),
    ("00000012 000000010000000a 00000004 ffffffff ffffffff", PacketType::AckEpoch, 0x1_0000_000a, Some(4)),
    ("0000000d 0000000100000011 ffffffff ffffffff", PacketType::Diff, 0x1_0000_0011, None),
    (
        "00000002 000000010000000b 00000030 0200001296e00000 00000000 000000010000000b 000001a202082627 fffffff6
         00001f40 00000002 00000001e1181dbd ffffffff",
        PacketType::Proposal,
        0x1_0000_000b,
        Some(48),
    ),
    ("00000004 000000010000000b ffffffff ffffffff", PacketType::Commit, 0x1_0000_000b, None),
    ("0000000c ffffffffffffffff ffffffff ffffffff", PacketType::UpToDate, -1, None),
    (
        "00000005 0000000100000007 0000000c 01000012968f0000 00001f40 ffffffff",
        PacketType::Ping,
        0x1_0000_0007,
        Some(12),
    ),
    ("00000005 0000000100000000 00000000 ffffffff", PacketType::Ping, 0x1_0000_0000, Some(0)),
    ("00000006 ffffffffffffffff 00000009 01000012968f0000 01 ffffffff", PacketType::Revalidate, -1, Some(9)),
    ("00000007 0000000000000000 ffffffff ffffffff", PacketType::Sync, 0, None),
    (
        "00000009 0000000100000005 00000008 0000000000000001 ffffffff",
        PacketType::CommitAndActivate,
        0x1_0000_0005,
        Some(8),
    ),
];

#[test]
fn packets_of_real_servers_are_read_and_written_back_to_the_byte() {
    for (hex, kind, zxid, data) in CAPTURED {
        let wire = bytes(hex);
        let (packet, taken) = QuorumPacket::read(&wire, LIMIT).unwrap().unwrap();
        assert_eq!(taken, wire.len());
        assert_eq!((packet.packet_type(), packet.zxid), (Some(*kind), *zxid));
        assert_eq!(packet.data.map(<[u8]>::len), *data);
        let mut out = Vec::new();
        packet.write(&mut out);
        assert_eq!(out, wire);
    }
}

#[test]
fn a_packet_is_waited_for_until_its_last_byte_and_takes_no_byte_of_the_next() {
    let mut wire = bytes(CAPTURED[0].0);
    let first = wire.len();
    wire.extend(bytes(CAPTURED[1].0));
    for len in 0..first {
        assert_eq!(QuorumPacket::read(&wire[..len], LIMIT), Ok(None));
    }
    for len in first..=wire.len() {
        assert_eq!(QuorumPacket::read(&wire[..len], LIMIT).unwrap().unwrap().1, first);
    }
}

#[test]
fn the_records_inside_real_packets_mean_what_they_should() {
    let wire = bytes(CAPTURED[0].0);
    let (packet, _) = QuorumPacket::read(&wire, LIMIT).unwrap().unwrap();
    let info = LearnerInfo { server: 1, protocol_version: PROTOCOL_VERSION, config_version: 0 };
    assert_eq!(LearnerInfo::read(packet.data.unwrap()), Ok(info));
    assert_eq!(LearnerInfo::read(&packet.data.unwrap()[..8]).unwrap().protocol_version, 0, "from before 3.4");

    let wire = bytes(CAPTURED[2].0);
    let (packet, _) = QuorumPacket::read(&wire, LIMIT).unwrap().unwrap();
    assert_eq!(read_current_epoch(packet.data.unwrap()), Ok(None));
    for epoch in [None, Some(Epoch(0)), Some(Epoch(7))] {
        let mut data = Vec::new();
        write_current_epoch(epoch, &mut data);
        assert_eq!(read_current_epoch(&data), Ok(epoch));
    }
    assert!(read_current_epoch(&(-2i32).to_be_bytes()).is_err());

    let wire = bytes(CAPTURED[7].0);
    let (packet, _) = QuorumPacket::read(&wire, LIMIT).unwrap().unwrap();
    let session = SessionId(0x0100_0012_968f_0000);
    let heard: Vec<_> = SessionTimeout::read_all(packet.data.unwrap()).collect();
    assert_eq!(heard, [Ok(SessionTimeout { session, timeout_ms: 8000 })]);

    let wire = bytes(CAPTURED[9].0);
    let (packet, _) = QuorumPacket::read(&wire, LIMIT).unwrap().unwrap();
    assert_eq!(SessionValid::read(packet.data.unwrap()), Ok(SessionValid { session, valid: true }));
}

#[test]
fn a_forwarded_create_of_a_real_follower_survives() {
    let wire = bytes(
        "00000001 ffffffffffffffff 0000003a 01000012968f0000 00000001 00000001 00000002 2f62 00000001 32
         00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000000
         00000001 00000002 6970 00000009 3132372e302e302e31",
    );
    let (packet, taken) = QuorumPacket::read(&wire, LIMIT).unwrap().unwrap();
    assert_eq!(taken, wire.len());
    assert_eq!(packet.auth, Some(vec![("ip".to_owned(), "127.0.0.1".to_owned())]));
    let request = Request::read(packet.data.unwrap()).unwrap();
    assert_eq!((request.session.0, request.cxid, request.op), (0x0100_0012_968f_0000, 1, 1));
    assert_eq!(request.record[..6], *b"\0\0\0\x02/b");
    let (mut data, mut out) = (Vec::new(), Vec::new());
    request.write(&mut data);
    QuorumPacket { data: Some(&data), ..packet }.write(&mut out);
    assert_eq!(out, wire);
}

#[test]
fn an_identity_outside_the_basic_plane_is_forwarded_as_surrogates_and_understood() {
    let auth = Some(vec![("digest".to_owned(), "\u{1f600}:x".to_owned())]);
    let packet = QuorumPacket { kind: 1, zxid: 0, data: Some(b""), auth: auth.clone() };
    let mut wire = Vec::new();
    packet.write(&mut wire);
    assert!(wire.ends_with(b"\xed\xa0\xbd\xed\xb8\x80:x"));
    assert_eq!(QuorumPacket::read(&wire, LIMIT).unwrap().unwrap().0.auth, auth);
}

#[test]
fn absurd_lengths_are_refused_when_they_are_announced_and_not_when_they_have_come() {
    let header = "00000002 0000000100000001";
    for length in ["00100001", "7fffffff", "80000000", "fffffffe"] {
        let wire = bytes(&format!("{header} {length}"));
        assert!(matches!(QuorumPacket::read(&wire, LIMIT), Err(Malformed::Length("data", _))), "{length}");
    }
    let many_ids = bytes(&format!("{header} ffffffff 7fffffff"));
    assert!(matches!(QuorumPacket::read(&many_ids, LIMIT), Err(Malformed::Length("authinfo", _))));
    let long_id = bytes(&format!("{header} ffffffff 00000001 00000002 6970 7fffffff"));
    assert!(matches!(QuorumPacket::read(&long_id, LIMIT), Err(Malformed::Length("id", _))));
    // Each short enough, all together not: refused at the length that is one too many, before its bytes have come.
    let mut ids = bytes(&format!("{header} ffffffff 00000003"));
    for _ in 0..6 {
        ids.extend([0, 0, 0, 20]);
        ids.extend([b'x'; 20]);
    }
    assert!(QuorumPacket::read(&ids, 6 * 24).unwrap().is_some());
    let upto = FIXED + 2 * 24;
    assert_eq!(QuorumPacket::read(&ids[..upto], 64), Ok(None));
    assert!(matches!(QuorumPacket::read(&ids[..upto + 4], 64), Err(Malformed::Length("scheme", 20))));
    assert!(QuorumPacket::read(&ids, 6 * 24 - 1).is_err());
}

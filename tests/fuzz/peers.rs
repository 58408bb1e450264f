//! Targets for what servers say to each other: the quorum port and the election port.

use ostler::wire::election::{InitialMessage, Notification, PeerState, notification_length};
use ostler::wire::quorum::{LearnerInfo, PacketType, QuorumPacket, Request, SessionTimeout, SessionValid};
use ostler::wire::txn::read_txn;

/// A stream of packets on the quorum port, and every meaning that their data may have.
pub fn quorum_packets(stream: &[u8]) {
    const LIMIT: usize = 1 << 16;
    let mut rest = stream;
    while let Ok(Some((packet, taken))) = QuorumPacket::read(rest, LIMIT) {
        let mut out = Vec::new();
        packet.write(&mut out);
        let again = QuorumPacket::read(&out, LIMIT * 3).expect("its own bytes").expect("all of them");
        assert_eq!((again.0, again.1), (packet.clone(), out.len()));
        let data = packet.data.unwrap_or_default();
        let _ = (LearnerInfo::read(data), SessionValid::read(data), read_txn(data));
        if let Ok(request) = Request::read(data) {
            let mut out = Vec::new();
            request.write(&mut out);
            assert_eq!(out, data, "a forwarded request is not changed");
        }
        let heard: usize = SessionTimeout::read_all(data).filter(Result::is_ok).count();
        assert_eq!(heard, data.len() / 12);
        rest = &rest[taken..];
    }
}

pub fn packet_seeds() -> Vec<Vec<u8>> {
    let info = LearnerInfo { server: 1, protocol_version: 0x10000, config_version: 0 };
    let (mut data, mut stream) = (Vec::new(), Vec::new());
    info.write(&mut data);
    QuorumPacket::new(PacketType::FollowerInfo, 1 << 32, Some(&data)).write(&mut stream);
    QuorumPacket::new(PacketType::Diff, 1 << 32, None).write(&mut stream);
    let mut seeds = vec![stream];
    for record in super::txns() {
        let mut stream = Vec::new();
        QuorumPacket::new(PacketType::Proposal, 1 << 32 | 1, Some(&record)).write(&mut stream);
        QuorumPacket::new(PacketType::Commit, 1 << 32 | 1, None).write(&mut stream);
        let mut request = QuorumPacket::new(PacketType::Request, -1, Some(&record));
        request.auth = Some(vec![("ip".into(), "127.0.0.1".into())]);
        request.write(&mut stream);
        seeds.push(stream);
    }
    seeds
}

/// A connection to the election port: the initial message, then notifications, each with its length.
pub fn election_messages(stream: &[u8]) {
    let Ok(Some((message, taken))) = InitialMessage::read(stream) else { return };
    if !message.addresses.is_empty() {
        let mut out = Vec::new();
        message.write(&mut out);
        // Text that was not UTF-8 has grown.
        if let Ok(again) = InitialMessage::read(&out) {
            assert_eq!(again, Some((message, out.len())));
        }
    }
    let mut rest = &stream[taken..];
    while let Some((prefix, after)) = rest.split_first_chunk::<4>()
        && let Ok(length) = notification_length(*prefix)
        && let Some((body, after)) = after.split_at_checked(length)
    {
        if let Ok(vote) = Notification::read(body)
            && vote.version > 1
        {
            let mut out = Vec::new();
            vote.write(&mut out);
            assert_eq!(Notification::read(&out[4..]), Ok(vote));
        }
        rest = after;
    }
}

pub fn election_seeds() -> Vec<Vec<u8>> {
    let several = ["127.0.0.1:3888".to_owned(), "[::1]:3888".to_owned()];
    let states = [PeerState::Looking, PeerState::Following, PeerState::Leading, PeerState::Observing];
    let seeds = states.into_iter().enumerate().map(|(at, state)| {
        let mut stream = Vec::new();
        InitialMessage { server: 3, addresses: several[at % 2..].to_vec() }.write(&mut stream);
        for version in [2, 1] {
            let config = (version == 2).then_some(&b"server.1=a:1:2:participant\nversion=0"[..]);
            let vote = Notification { state, leader: 3, zxid: 1 << 32, round: 1, peer_epoch: 1, version, config };
            vote.write(&mut stream);
        }
        stream
    });
    seeds.collect()
}

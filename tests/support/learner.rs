//! A follower that says what a test wants and when it wants it: the packets of `ostler::wire::quorum` over a socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use ostler::wire::quorum::{LearnerInfo, PROTOCOL_VERSION, PacketType, QuorumPacket, Request, write_current_epoch};

use super::ensemble::SOON;

pub struct Learner {
    stream: TcpStream,
    input: Vec<u8>,
}

/// A packet without identities.
#[derive(Debug)]
pub struct Packet {
    pub kind: PacketType,
    pub zxid: i64,
    pub data: Vec<u8>,
}

impl Learner {
    /// Follows a leader that has no history yet, as the server of that id, and says nothing more than it has to.
    pub fn join(leader: SocketAddr, server: i64) -> Learner {
        let stream = TcpStream::connect(leader).expect("the leader listens");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        let mut learner = Learner { stream, input: Vec::new() };
        let mut info = Vec::new();
        LearnerInfo { server, protocol_version: PROTOCOL_VERSION, config_version: 0 }.write(&mut info);
        learner.send(PacketType::FollowerInfo, 0, Some(&info));
        let epoch = learner.until(PacketType::LeaderInfo).zxid;
        let mut current = Vec::new();
        write_current_epoch(None, &mut current);
        // What it has: nothing.
        learner.send(PacketType::AckEpoch, 0, Some(&current));
        let begins = learner.until(PacketType::NewLeader).zxid;
        assert_eq!(begins, epoch);
        learner.ack(begins);
        learner.until(PacketType::UpToDate);
        learner.ack(begins);
        learner
    }

    /// Passes over everything before the next packet of that kind.
    pub fn until(&mut self, kind: PacketType) -> Packet {
        loop {
            let packet = self.next().expect("the leader goes on");
            if packet.kind == kind {
                return packet;
            }
        }
    }

    /// Acknowledges what is proposed from now on, until the leader is gone.
    pub fn follow(&mut self) {
        while let Some(packet) = self.next() {
            if packet.kind == PacketType::Proposal {
                self.ack(packet.zxid);
            }
        }
    }

    /// `None` if the leader is gone. Pings are answered.
    fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some((packet, taken)) = QuorumPacket::read(&self.input, 64 << 20).expect("a packet") {
                let kind = packet.packet_type().expect("a known one");
                let packet = Packet { kind, zxid: packet.zxid, data: packet.data.unwrap_or_default().to_vec() };
                self.input.drain(..taken);
                if packet.kind == PacketType::Ping {
                    self.send(PacketType::Ping, packet.zxid, Some(&[]));
                }
                return Some(packet);
            }
            let mut chunk = vec![0; 1 << 20];
            let count = self.stream.read(&mut chunk).unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.input.extend_from_slice(&chunk[..count]);
        }
    }

    pub fn ack(&mut self, zxid: i64) {
        self.send(PacketType::Ack, zxid, None);
    }

    /// A write of a client.
    pub fn request(&mut self, request: &Request<'_>) {
        let mut data = Vec::new();
        request.write(&mut data);
        self.send(PacketType::Request, -1, Some(&data));
    }

    fn send(&mut self, kind: PacketType, zxid: i64, data: Option<&[u8]>) {
        let mut bytes = Vec::new();
        QuorumPacket::new(kind, zxid, data).write(&mut bytes);
        // An error means that it is gone, and that is seen when something is waited for.
        let _ = self.stream.write_all(&bytes);
    }
}

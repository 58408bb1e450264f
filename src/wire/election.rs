//! What servers say to each other on the election port (upstream: `QuorumCnxManager`, `FastLeaderElection`).
//!
//! A connection begins with the dialler's initial message; after it, in both directions, come notifications, each with
//! its length in front. Who may connect to whom and what a vote is worth is not known here.

use super::reader::{Malformed, Reader};
use super::writer::Jute;
use crate::ids::{Epoch, Zxid};

/// Bytes that the addresses of an initial message may have.
pub const ADDRESSES_MAX: usize = 2048;
/// Bytes of the largest notification (`PACKETMAXSIZE`); a longer one ends the connection.
pub const NOTIFICATION_MAX: usize = 512 << 10;

const ONE_ADDRESS: i64 = -65536;
const SEVERAL_ADDRESSES: i64 = -65535;

/// Who is calling: the first bytes of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitialMessage {
    pub server: i64,
    /// `host:port` of the caller's election port, as configured there; none from a server older than 3.5. Only to be
    /// shown: names that come from a peer are not resolved.
    pub addresses: Vec<String>,
}

impl InitialMessage {
    /// In the form with one address, unless there are several. To be sent in one segment: ZooKeeper reads the addresses
    /// with a single read.
    pub fn write(&self, out: &mut Vec<u8>) {
        assert!(!self.addresses.is_empty(), "the form without addresses is only read");
        out.put_long(if self.addresses.len() > 1 { SEVERAL_ADDRESSES } else { ONE_ADDRESS });
        out.put_long(self.server);
        out.put_text(&self.addresses.join("|"));
    }

    /// Reads what is at the start of what has arrived, and how many bytes it took; `None` if it isn't all there.
    pub fn read(bytes: &[u8]) -> Result<Option<(InitialMessage, usize)>, Malformed> {
        match InitialMessage::read_whole(bytes) {
            Err(Malformed::Short(_)) => Ok(None),
            Err(other) => Err(other),
            Ok(read) => Ok(Some(read)),
        }
    }

    fn read_whole(bytes: &[u8]) -> Result<(InitialMessage, usize), Malformed> {
        let mut reader = Reader::new(bytes);
        let first = reader.long("protocol version")?;
        if first >= 0 {
            // Before 3.5 it was the caller's id, and all there was.
            return Ok((InitialMessage { server: first, addresses: Vec::new() }, 8));
        }
        if first != ONE_ADDRESS && first != SEVERAL_ADDRESSES {
            return Err(Malformed::Unknown("protocol version", first.clamp(i32::MIN as i64, -1) as i32));
        }
        let server = reader.long("sid")?;
        let length = Reader::new(reader.rest()).int("addresses")?;
        if !(1..=ADDRESSES_MAX as i32).contains(&length) {
            return Err(Malformed::Length("addresses", length));
        }
        let text = reader.string("addresses")?;
        let addresses: Vec<String> = text.split('|').map(str::to_owned).collect();
        for address in &addresses {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) {
                return Err(Malformed::Unknown("port in addresses", length));
            }
        }
        Ok((InitialMessage { server, addresses }, bytes.len() - reader.rest().len()))
    }
}

/// What a server is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerState {
    Looking,
    Following,
    Leading,
    Observing,
}

impl PeerState {
    /// `None` for a number that is no state: such a notification is ignored.
    pub fn from_wire(raw: i32) -> Option<PeerState> {
        Some(match raw {
            0 => PeerState::Looking,
            1 => PeerState::Following,
            2 => PeerState::Leading,
            3 => PeerState::Observing,
            _ => return None,
        })
    }
}

/// A server's vote, or how it voted. Who sends it is known from the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification<'a> {
    pub state: PeerState,
    /// Whom it would have lead.
    pub leader: i64,
    /// The last zxid of that one's log; -1 from a server that does not trust its own (it must not be counted).
    pub zxid: i64,
    /// The sender's election round.
    pub round: i64,
    /// The current epoch of the one proposed.
    pub peer_epoch: i64,
    /// 0 from a server older than 3.5, which tells nothing of its configuration.
    pub version: i32,
    /// The sender's configuration in force, as text; not decoded, since a vote counts whatever it says.
    pub config: Option<&'a [u8]>,
}

impl<'a> Notification<'a> {
    /// The format that 3.5 and later send.
    pub const VERSION: i32 = 2;

    /// Appends a whole message, length first.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_int(0);
        out.put_int(self.state as i32);
        out.put_long(self.leader);
        out.put_long(self.zxid);
        out.put_long(self.round);
        out.put_long(self.peer_epoch);
        out.put_int(self.version);
        if self.version > 1 {
            out.put_buffer(Some(self.config.unwrap_or_default()));
        }
        let length = (out.len() - start - 4) as i32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Reads a message without its length. `Err` means that this message is dropped, never the connection.
    pub fn read(body: &'a [u8]) -> Result<Notification<'a>, Malformed> {
        let mut reader = Reader::new(body);
        let state = reader.int("state")?;
        let leader = reader.long("leader")?;
        let zxid = reader.long("zxid")?;
        let round = reader.long("electionEpoch")?;
        let state = PeerState::from_wire(state).ok_or(Malformed::Unknown("state", state))?;
        // 28 bytes: no epoch. 40: an epoch, and a version that 3.4 does not mean.
        let old = matches!(body.len(), 28 | 40);
        let peer_epoch = match body.len() {
            28 => Zxid::from_wire(zxid).epoch().0 as i64,
            _ => reader.long("peerEpoch")?,
        };
        let version = if old { 0 } else { reader.int("version")? };
        let config = if version > 1 {
            let length = Reader::new(reader.rest()).int("config")?;
            if length < 0 {
                return Err(Malformed::Length("config", length));
            }
            reader.buffer("config")?
        } else {
            None
        };
        Ok(Notification { state, leader, zxid, round, peer_epoch, version, config })
    }

    /// The epoch as one; `None` where the number is none.
    pub fn epoch(&self) -> Option<Epoch> {
        u32::try_from(self.peer_epoch).ok().map(Epoch)
    }
}

/// The length in front of a notification, when four bytes have come. `Err` ends the connection.
pub fn notification_length(prefix: [u8; 4]) -> Result<usize, Malformed> {
    let raw = i32::from_be_bytes(prefix);
    match usize::try_from(raw) {
        Ok(length) if (1..=NOTIFICATION_MAX).contains(&length) => Ok(length),
        _ => Err(Malformed::Length("notification", raw)),
    }
}

#[cfg(test)]
mod tests;

//! What a learner and a leader say to each other on the quorum port (upstream: `QuorumPacket`, `LearnerInfo`).
//!
//! Packets have no length of their own in front: where one ends is known when it has been read. So reading works on
//! what has arrived so far and says whether more is needed; a length that no honest peer announces is refused at once, not
//! when its bytes have come. What a packet's data means depends on its type; each meaning has a record here.

use super::reader::{Malformed, Reader};
use super::writer::Jute;
use crate::ids::{Epoch, SessionId, Zxid};
use crate::limits;

macro_rules! packet_types {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a packet is. L is the learner, M its leader.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum PacketType { $($(#[$doc])* $name = $number,)* }

        impl PacketType {
            /// `None` for a number that is no type.
            pub fn from_wire(raw: i32) -> Option<PacketType> {
                match raw { $($number => Some(PacketType::$name),)* _ => None }
            }
        }
    };
}

packet_types! {
    /// L→M: a client's write (`Request`).
    Request = 1,
    /// M→L: a transaction, as `txn::write_txn` writes it.
    Proposal = 2,
    /// L→M: durable here.
    Ack = 3,
    /// M→L: durable on a quorum.
    Commit = 4,
    /// Both ways; the answer carries the sessions heard from (`SessionTimeout`, repeated).
    Ping = 5,
    /// Both ways: whether a session lives (`SessionTimeout`; back `SessionValid`).
    Revalidate = 6,
    /// M→L: everything committed before the sync was asked for is before this.
    Sync = 7,
    /// M→observer: proposal and commit in one.
    Inform = 8,
    /// M→L: the commit of a reconfig; data is the designated leader.
    CommitAndActivate = 9,
    /// M→L: the history ends here and is that of this epoch; data is the configuration.
    NewLeader = 10,
    /// L→M, first: who I am and what epoch I have accepted (`LearnerInfo`).
    FollowerInfo = 11,
    /// M→L: start serving.
    UpToDate = 12,
    /// M→L: proposals follow that begin where the learner's history ends.
    Diff = 13,
    /// M→L: forget everything after this zxid.
    Trunc = 14,
    /// M→L: a whole tree follows, outside of packets.
    Snap = 15,
    /// L→M, first, from an observer.
    ObserverInfo = 16,
    /// M→L: the new epoch; data is the protocol version.
    LeaderInfo = 17,
    /// L→M: the epoch is accepted; data is the learner's current epoch.
    AckEpoch = 18,
    /// M→observer: as `CommitAndActivate`, with the transaction behind it.
    InformAndActivate = 19,
}

/// The protocol version that both sides name since 3.4.
pub const PROTOCOL_VERSION: i32 = 0x10000;

/// One packet, borrowed from the bytes it came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumPacket<'a> {
    /// A number, not a `PacketType`: an unknown one is read like any other, and warned of.
    pub kind: i32,
    /// What it is depends on the type; -1 where it says nothing.
    pub zxid: i64,
    pub data: Option<&'a [u8]>,
    /// On requests: the client's identities, as scheme and id. Null on everything else.
    pub auth: Option<Vec<(String, String)>>,
}

impl<'a> QuorumPacket<'a> {
    pub fn new(kind: PacketType, zxid: i64, data: Option<&'a [u8]>) -> QuorumPacket<'a> {
        QuorumPacket { kind: kind as i32, zxid, data, auth: None }
    }

    pub fn packet_type(&self) -> Option<PacketType> {
        PacketType::from_wire(self.kind)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_int(self.kind);
        out.put_long(self.zxid);
        out.put_buffer(self.data);
        match &self.auth {
            None => out.put_null(),
            Some(ids) => {
                out.put_int(ids.len() as i32);
                for (scheme, id) in ids {
                    out.put_text(scheme);
                    out.put_text(id);
                }
            }
        }
    }

    /// Reads the packet at the start of what has arrived, and how many bytes it took; `None` if it isn't all there.
    ///
    /// `limit` is the most bytes that the data may have, and that all identities together may have; more is
    /// `Malformed::Length` as soon as it is announced, and the connection is to be closed. So a packet that is still
    /// waited for never has more than twice the limit and `FIXED` bytes. Nothing is decoded or allocated before the
    /// packet is whole: a peer that sends it byte by byte costs a look at its lengths each time.
    pub fn read(bytes: &'a [u8], limit: usize) -> Result<Option<(QuorumPacket<'a>, usize)>, Malformed> {
        let taken = match packet_length(bytes, limit) {
            Err(Malformed::Short(_)) => return Ok(None),
            other => other?,
        };
        let mut reader = Reader::new(&bytes[..taken]);
        let kind = reader.int("type")?;
        let zxid = reader.long("zxid")?;
        let data = reader.buffer("data")?;
        let auth = match reader.count("authinfo")? {
            None => None,
            Some(count) => {
                let mut ids = Vec::with_capacity(reader.capacity(count, 8));
                for _ in 0..count {
                    ids.push((reader.written("scheme")?.into_owned(), reader.written("id")?.into_owned()));
                }
                Some(ids)
            }
        };
        Ok(Some((QuorumPacket { kind, zxid, data, auth }, taken)))
    }
}

/// Bytes of a packet beside its data and its identities: type, zxid, and the length of each.
pub const FIXED: usize = 20;

/// How many bytes the packet at the start takes; `Malformed::Short` if that can't be said yet.
fn packet_length(bytes: &[u8], limit: usize) -> Result<usize, Malformed> {
    let mut reader = Reader::new(bytes);
    reader.int("type")?;
    reader.long("zxid")?;
    skip(&mut reader, "data", limit)?;
    let count = reader.int("authinfo")?;
    // A client has gathered no more than so many; each has two lengths.
    if count > limits::CONNECTION_AUTH_IDS as i32 {
        return Err(Malformed::Length("authinfo", count));
    }
    let before = reader.rest().len();
    for _ in 0..count.max(0) {
        for field in ["scheme", "id"] {
            let used = before - reader.rest().len();
            skip(&mut reader, field, limit.saturating_sub(used + 4))?;
        }
    }
    Ok(bytes.len() - reader.rest().len())
}

/// Passes over a buffer; one that announces more than `most` bytes is refused before they are waited for.
fn skip(reader: &mut Reader<'_>, field: &'static str, most: usize) -> Result<(), Malformed> {
    let announced = Reader::new(reader.rest()).int(field)?;
    if usize::try_from(announced).is_ok_and(|length| length > most) {
        return Err(Malformed::Length(field, announced));
    }
    reader.buffer(field).map(drop)
}

/// Who a learner is: the data of its first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LearnerInfo {
    /// As in its `myid`.
    pub server: i64,
    /// Below `PROTOCOL_VERSION` it expects a handshake from before 3.4, which is refused.
    pub protocol_version: i32,
    /// Zxid of the reconfig that made its configuration; 0 for one from a file.
    pub config_version: i64,
}

impl LearnerInfo {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_long(self.server);
        out.put_int(self.protocol_version);
        out.put_long(self.config_version);
    }

    /// Shorter forms end after the id or after the protocol version.
    pub fn read(data: &[u8]) -> Result<LearnerInfo, Malformed> {
        let mut reader = Reader::new(data);
        let server = reader.long("serverid")?;
        let protocol_version = if reader.rest().is_empty() { 0 } else { reader.int("protocolVersion")? };
        let config_version = if reader.rest().is_empty() { 0 } else { reader.long("configVersion")? };
        Ok(LearnerInfo { server, protocol_version, config_version })
    }
}

/// The data of ACKEPOCH: `None` is -1, "I have accepted this epoch before; do not count me".
pub fn read_current_epoch(data: &[u8]) -> Result<Option<Epoch>, Malformed> {
    match Reader::new(data).int("currentEpoch")? {
        -1 => Ok(None),
        epoch => u32::try_from(epoch).map(|epoch| Some(Epoch(epoch))).map_err(|_| Malformed::Unknown("epoch", epoch)),
    }
}

/// The dual of `read_current_epoch`.
pub fn write_current_epoch(epoch: Option<Epoch>, out: &mut Vec<u8>) {
    out.put_int(epoch.map_or(-1, |epoch| epoch.0 as i32));
}

/// The zxid that names an epoch: that of its NEWLEADER.
pub fn epoch_zxid(epoch: Epoch) -> i64 {
    Zxid::new(epoch, 0).to_wire()
}

/// A client's write on its way to the leader: the data of REQUEST. The record is the client's own, to the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    pub session: SessionId,
    pub cxid: i32,
    /// A number, as the client sent it.
    pub op: i32,
    pub record: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_long(self.session.0);
        out.put_int(self.cxid);
        out.put_int(self.op);
        out.extend_from_slice(self.record);
    }

    pub fn read(data: &'a [u8]) -> Result<Request<'a>, Malformed> {
        let mut reader = Reader::new(data);
        let session = SessionId(reader.long("sessionId")?);
        let cxid = reader.int("cxid")?;
        let op = reader.int("type")?;
        Ok(Request { session, cxid, op, record: reader.rest() })
    }
}

/// A session and its timeout: once in a REVALIDATE to the leader, any number of times in the answer to a PING.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionTimeout {
    pub session: SessionId,
    /// Milliseconds.
    pub timeout_ms: i32,
}

impl SessionTimeout {
    /// Of one in a packet.
    pub const BYTES: usize = 12;

    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_long(self.session.0);
        out.put_int(self.timeout_ms);
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<SessionTimeout, Malformed> {
        Ok(SessionTimeout { session: SessionId(reader.long("sessionId")?), timeout_ms: reader.int("timeout")? })
    }

    /// All that are in the answer to a PING; one that is cut off at the end is `Malformed::Short`.
    pub fn read_all(data: &[u8]) -> impl Iterator<Item = Result<SessionTimeout, Malformed>> {
        data.chunks(SessionTimeout::BYTES).map(|chunk| SessionTimeout::read(&mut Reader::new(chunk)))
    }
}

/// The leader's answer to REVALIDATE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionValid {
    pub session: SessionId,
    pub valid: bool,
}

impl SessionValid {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_long(self.session.0);
        out.put_bool(self.valid);
    }

    pub fn read(data: &[u8]) -> Result<SessionValid, Malformed> {
        let mut reader = Reader::new(data);
        Ok(SessionValid { session: SessionId(reader.long("sessionId")?), valid: reader.bool("valid")? })
    }
}

#[cfg(test)]
mod tests;

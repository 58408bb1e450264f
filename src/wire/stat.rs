//! What a client is told about a znode beside its data (upstream: `Stat`).

use super::reader::{Malformed, Reader};
use crate::ids::Zxid;

/// 68 bytes on the wire. Times are milliseconds since 1970 by the leader's wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    /// As reported: creations plus deletions of children, not the stored count of creations.
    pub cversion: i32,
    pub aversion: i32,
    /// The session of an ephemeral; 0 for every other kind.
    pub ephemeral_owner: i64,
    pub data_length: i32,
    pub num_children: i32,
    pub pzxid: Zxid,
}

impl Stat {
    pub const BYTES: usize = 68;

    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut bytes = [0u8; Self::BYTES];
        bytes[0..8].copy_from_slice(&self.czxid.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.mzxid.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.ctime.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.mtime.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.version.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.cversion.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.aversion.to_be_bytes());
        bytes[44..52].copy_from_slice(&self.ephemeral_owner.to_be_bytes());
        bytes[52..56].copy_from_slice(&self.data_length.to_be_bytes());
        bytes[56..60].copy_from_slice(&self.num_children.to_be_bytes());
        bytes[60..68].copy_from_slice(&self.pzxid.0.to_be_bytes());
        out.extend_from_slice(&bytes);
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<Stat, Malformed> {
        Ok(Stat {
            czxid: Zxid::from_wire(reader.long("czxid")?),
            mzxid: Zxid::from_wire(reader.long("mzxid")?),
            ctime: reader.long("ctime")?,
            mtime: reader.long("mtime")?,
            version: reader.int("version")?,
            cversion: reader.int("cversion")?,
            aversion: reader.int("aversion")?,
            ephemeral_owner: reader.long("ephemeralOwner")?,
            data_length: reader.int("dataLength")?,
            num_children: reader.int("numChildren")?,
            pzxid: Zxid::from_wire(reader.long("pzxid")?),
        })
    }
}

//! Session ids, and the password that belongs to each.

use super::SessionTable;
use crate::ids::{ServerId, SessionId};
use crate::wire::client::PASSWORD_BYTES;

/// Hands out session ids: the server's number in the top byte, then 40 bits of milliseconds, then a count.
///
/// ZooKeeper takes the milliseconds from a clock that starts anew with the machine; here it is the wall clock, so that a
/// reboot can't repeat what was given out before it.
#[derive(Debug)]
pub struct SessionIds {
    server: u64,
    /// The low 56 bits of the next id.
    next: u64,
}

const LOW: u64 = (1 << 56) - 1;

impl SessionIds {
    pub fn new(server: ServerId, wall_ms: i64) -> SessionIds {
        SessionIds { server: (server.0 as u64) << 56, next: (wall_ms as u64) << 24 >> 8 & LOW }
    }

    /// An id that no session of `table` has. Never 0, and never the owner of a container.
    pub fn next(&mut self, table: &SessionTable) -> SessionId {
        loop {
            let id = SessionId((self.server | self.next) as i64);
            self.next = (self.next + 1) & LOW;
            if id != SessionId::NONE && id.0 != i64::MIN && table.timeout_ms(id).is_none() {
                return id;
            }
        }
    }
}

/// The password of a session: what Java's `Random`, seeded with the id and a constant, gives as its first bytes. It is a
/// checksum and no secret; every server of a mixed ensemble derives the same.
pub fn password(id: SessionId) -> [u8; PASSWORD_BYTES] {
    const MULTIPLIER: u64 = 0x5_deec_e66d;
    const MASK: u64 = (1 << 48) - 1;
    let mut state = (id.0 as u64 ^ 0xb341_5c00 ^ MULTIPLIER) & MASK;
    let mut bytes = [0; PASSWORD_BYTES];
    for word in bytes.chunks_exact_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xb) & MASK;
        word.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    bytes
}

/// Whether a client's password is the session's. Never for session 0.
pub fn password_is(id: SessionId, given: Option<&[u8]>) -> bool {
    id != SessionId::NONE
        && given.is_some_and(|given| {
            let right = password(id);
            given.len() == right.len() && given.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
        })
}

//! What a turn has put into connections' buffers leaves: one `send` for each connection.
//!
//! A change that thousands watch puts something into thousands of buffers at once, and a `send` to a socket that no cache
//! holds is five microseconds of the kernel's: the last watcher hears of it tens of milliseconds after the first. So where a
//! processor is left (a machine with two has one core for clients), a second thread takes its part of such a turn. It is
//! made for the occasion: it costs some tens of microseconds, and a thread that waits would have to be woken too.

use super::{Connection, IoCore, State, Wait};
use crate::limits;
use crate::net::Pool;
use crate::net::buffers::Sent;
use parking_lot::Mutex;

/// From so many connections on their sends are shared: together they take milliseconds.
const SHARED_FROM: usize = 512;
/// Connections that a thread takes at a time: whoever is held up by others on its processor takes fewer.
const SHARE: usize = 64;

impl IoCore {
    /// Sends what this turn has for its clients.
    pub(super) fn send_all(&mut self) {
        let flush = std::mem::take(&mut self.parts.flush);
        if flush.len() >= SHARED_FROM && self.shared.settings.has_spare_processor {
            self.send_shared();
        }
        for &slot in &flush {
            self.send(slot);
        }
        self.parts.flush = flush;
        self.parts.flush.clear();
    }

    /// Sends what sockets take, on two threads. What comes of it is `send`'s to see, afterwards: it finds that nothing is left,
    /// or tries again and gets the same answer.
    fn send_shared(&mut self) {
        let waiting = self.parts.connections.iter_mut().map(|(_, connection)| connection);
        let mut waiting: Vec<&mut Connection> =
            waiting.filter(|connection| connection.to_flush && !connection.blocked).collect();
        let shares = Mutex::new(waiting.chunks_mut(SHARE));
        let work = |pool: &mut Pool| {
            loop {
                let Some(share) = shares.lock().next() else { return };
                for connection in share {
                    connection.output.send(&mut connection.socket, pool);
                }
            }
        };
        std::thread::scope(|scope| {
            let helper = std::thread::Builder::new().name("fan-out".into());
            // Without a second thread it takes longer, as it would have.
            let _ = helper.spawn_scoped(scope, || work(&mut Pool::default()));
            work(&mut self.parts.pool);
        });
    }

    pub(super) fn send(&mut self, slot: usize) {
        let Some(connection) = self.parts.connections.get_mut(slot) else { return };
        connection.to_flush = false;
        if connection.blocked {
            // One reply to a read may be larger; it is the client's to take its time.
            if connection.output.len().min(connection.pushed) > limits::CONNECTION_OUTPUT_MAX {
                tracing::warn!(
                    "{} does not read: {} bytes wait for it; closing its connection (session {} lives on)",
                    connection.address,
                    connection.output.len(),
                    connection.session
                );
                self.parts.doomed.push(slot);
            }
            return;
        }
        match connection.output.send(&mut connection.socket, &mut self.parts.pool) {
            Sent::All => connection.pushed = 0,
            Sent::Blocked => connection.blocked = true,
            Sent::Gone => {
                self.parts.doomed.push(slot);
                return;
            }
        }
        if connection.output.is_empty() && connection.state == State::Closing {
            self.parts.doomed.push(slot);
        } else if connection.output.len() < limits::CONNECTION_OUTPUT_PAUSE && connection.wait == Wait::Output {
            connection.wait = Wait::Nothing;
            self.parts.make_ready(slot);
            self.take_up(slot);
        }
    }

    /// A connection that goes on may have left bytes in its socket.
    pub(super) fn take_up(&mut self, slot: usize) {
        if self.parts.connections[slot].readable {
            self.readable.push(slot);
        }
    }
}

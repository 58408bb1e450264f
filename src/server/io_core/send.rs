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
        self.parts.told_bytes = 0;
        if self.parts.waiting > self.shared.settings.core_output_bytes {
            self.let_the_slowest_go();
        }
    }

    /// Too much waits for clients that don't read: those with most of it go until what is left may wait.
    #[cold]
    fn let_the_slowest_go(&mut self) {
        let connections = self.parts.connections.iter();
        let mut waiting: Vec<(usize, usize)> = connections.map(|(slot, it)| (it.waiting, slot)).collect();
        waiting.sort_unstable_by(|a, b| b.cmp(a));
        let mut too_much = self.parts.waiting.saturating_sub(self.shared.settings.core_output_bytes);
        for (bytes, slot) in waiting {
            if too_much == 0 {
                break;
            }
            too_much = too_much.saturating_sub(bytes);
            self.parts.doomed.push(slot);
            if self.parts.log_rate.allows(self.parts.now) {
                let connection = &self.parts.connections[slot];
                tracing::warn!(
                    "{} does not read: {bytes} bytes wait for it, and with those of others more than ostler.coreOutputBytes; \
                     closing its connection (session {} lives on)",
                    connection.address,
                    connection.session
                );
            }
        }
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
            return self.parts.count_waiting(slot);
        }
        match connection.output.send(&mut connection.socket, &mut self.parts.pool) {
            Sent::All => connection.pushed = 0,
            Sent::Blocked => connection.blocked = true,
            Sent::Gone => {
                self.parts.doomed.push(slot);
                return;
            }
        }
        self.parts.count_waiting(slot);
        let connection = &mut self.parts.connections[slot];
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

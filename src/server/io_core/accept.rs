//! Takes connections in: the first core accepts for all and deals them out, each to the core with the fewest.

use super::connection::{Connection, Facts, State, Wait};
use super::{IoCore, LISTENER};
use crate::auth::AuthIds;
use crate::clock::{self, Now};
use crate::ids::SessionId;
use crate::net::{Input, Output, descriptors};
use crate::server::queue::ConnId;
use mio::net::TcpListener;
use mio::{Interest, Poll, Token};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

/// Connections accepted in one turn before the others of the core get theirs.
const ACCEPTS_PER_TURN: usize = 256;
/// How long no connection is accepted after the process or the system ran out of something.
const PAUSE_MS: u64 = 100;

pub struct Acceptor {
    listener: TcpListener,
    paused_until: Option<Now>,
    /// A descriptor kept back: without it, a connection that can't be accepted for want of one could not be refused
    /// either, and would keep the listener readable.
    reserve: Option<File>,
    /// Sockets from this number on are refused: what is left is for the log, snapshots and other servers.
    end_of_clients: u64,
}

impl Acceptor {
    /// Accepted sockets have the listener's options on Linux: set once here, they cost nothing when thousands come back.
    pub fn new(
        listener: std::net::TcpListener,
        poll: &Poll,
        token: Token,
        keep_alive: bool,
    ) -> std::io::Result<Acceptor> {
        let options = socket2::SockRef::from(&listener);
        // Replies are small and whole; waiting to join them would only delay them.
        options.set_tcp_nodelay(true)?;
        options.set_keepalive(keep_alive)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, token, Interest::READABLE)?;
        let reserve = File::open("/dev/null").ok();
        Ok(Acceptor { listener, paused_until: None, reserve, end_of_clients: descriptors::end_of_clients() })
    }

    pub fn paused_until(&self) -> Option<Now> {
        self.paused_until
    }
}

impl IoCore {
    pub(super) fn accept(&mut self) {
        let Some(acceptor) = &mut self.acceptor else { return };
        acceptor.paused_until = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let (socket, address) = match acceptor.listener.accept() {
                Ok((socket, _)) if socket.as_raw_fd() as u64 >= acceptor.end_of_clients => {
                    drop(socket);
                    if self.parts.log_rate.allows(self.parts.now) {
                        tracing::error!(
                            "a connection was refused: too many files are open; raise the limit (ulimit -n)"
                        );
                    }
                    self.parts.tally.rejected();
                    acceptor.paused_until = Some(self.parts.now.plus_ms(PAUSE_MS));
                    return;
                }
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // That client has gone again.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
                Err(error) => {
                    if self.parts.log_rate.allows(self.parts.now) {
                        tracing::error!(
                            "cannot accept a connection: {error}; raise the limit of open files (ulimit -n)"
                        );
                    }
                    if acceptor.reserve.take().is_some() {
                        // With the reserve free one connection can be taken, and closed.
                        let _ = acceptor.listener.accept();
                        acceptor.reserve = File::open("/dev/null").ok();
                    }
                    acceptor.paused_until = Some(self.parts.now.plus_ms(PAUSE_MS));
                    return;
                }
            };
            let address = canonical(address);
            if !self.shared.admission.admit(address.ip()) {
                self.parts.tally.rejected();
                if self.parts.log_rate.allows(self.parts.now) {
                    tracing::warn!(
                        "Too many connections from {} - closed (see maxClientCnxns, maxCnxns)",
                        address.ip()
                    );
                }
                continue;
            }
            let cores = &self.shared.cores;
            let fewest = (0..cores.len()).min_by_key(|&core| cores[core].connections.load(Ordering::Relaxed));
            let core = &cores[fewest.expect("there is a core")];
            core.connections.fetch_add(1, Ordering::Relaxed);
            core.arrivals.push((socket, address));
            core.bell.ring();
        }
        // There may be more: look again in the next turn.
        acceptor.paused_until = Some(self.parts.now);
    }

    /// In each turn, and nearly always for nothing: that much is not worth a call.
    #[inline]
    pub(super) fn adopt_arrivals(&mut self) {
        if !self.link().arrivals.is_empty() {
            self.adopt();
        }
    }

    fn adopt(&mut self) {
        for (socket, address) in self.link().arrivals.take() {
            self.parts.generation = self.parts.generation.wrapping_add(1);
            let generation = self.parts.generation;
            let entry = self.parts.connections.vacant_entry();
            let slot = entry.key();
            entry.insert(Connection {
                id: ConnId::new(self.index, slot, generation),
                socket,
                address,
                state: State::Fresh,
                wait: Wait::Nothing,
                session: SessionId::NONE,
                timeout_ms: 0,
                input: Input::default(),
                output: Output::default(),
                auth: AuthIds::of_peer(address.ip()),
                pushed: 0,
                waiting: 0,
                in_flight: 0,
                readable: true,
                half_closed: false,
                received_in: self.parts.turn,
                blocked: false,
                to_flush: false,
                heard_round: self.parts.heard_round.wrapping_sub(1),
                last_heard: self.parts.now,
                is_let_go: false,
                is_kept: false,
                is_ready: false,
                spoke_late: false,
                facts: Facts::new(clock::wall_ms()),
            });
            if let Err(error) = self.register(slot) {
                tracing::warn!("cannot watch a connection: {error}; closing it");
                self.close(slot);
                continue;
            }
            // It may have sent before it was registered: an edge that nobody saw.
            self.readable.push(slot);
        }
        debug_assert_ne!(LISTENER, super::BELL);
    }
}

/// An IPv4 client of a dual-stack socket shows as IPv4, in ACLs and on every list.
fn canonical(address: std::net::SocketAddr) -> std::net::SocketAddr {
    std::net::SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn accepted_sockets_have_the_options_of_the_listener() {
        for keep_alive in [false, true] {
            let listener = crate::net::listen(Some([127, 0, 0, 1].into()), 0, 0).unwrap();
            let address = listener.local_addr().unwrap();
            let acceptor = Acceptor::new(listener, &Poll::new().unwrap(), LISTENER, keep_alive).unwrap();
            let _client = TcpStream::connect(address).unwrap();
            let (socket, _) = acceptor.listener.accept().unwrap();
            assert!(socket.nodelay().unwrap());
            assert_eq!(socket2::SockRef::from(&socket).keepalive().unwrap(), keep_alive);
        }
    }
}

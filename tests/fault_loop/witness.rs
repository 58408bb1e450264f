//! Clients of the servers that are cut off from their quorum, who say what those still do: nothing may be acknowledged,
//! and soon nobody may be served.
//!
//! Two for each server: as soon as the cut is complete one asks to write and to sync, the other reads for as long as it is
//! answered. When they have been dropped, the server must not give a new session either.
//!
//! Runs on: the test's thread.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use ostler::clock::{self, Now};

use crate::support::client::{self, Client, Refusal, op};
use crate::support::jute::Writer;

/// What they write to.
pub const PATH: &str = "/witness";

/// What they have seen, over all cuts.
#[derive(Default)]
pub struct Silence {
    /// Servers that were cut off, each cut by itself.
    pub servers: u64,
    /// How long after the cut each client was dropped, in ms.
    pub dropped_ms: Vec<u64>,
    /// Writes and syncs that were sent after a cut; none may have been answered.
    pub unanswered: u64,
    /// Reads that were answered before the drop.
    pub reads: u64,
    /// Sessions that were asked for after the drop; none may have been given.
    pub refused: u64,
    pub wrong: Vec<String>,
}

struct Witness {
    server: usize,
    address: SocketAddr,
    client: Client,
    /// The xids of what nobody may agree to.
    agreeing: Vec<i32>,
}

fn read(client: &mut Client) {
    // It may be gone; the next answer tells.
    let _ = client.send(op::GET, Writer::new().text(PATH).bool(false));
}

/// From the moment at which nothing passes any more until all have been dropped, or `limit` is over. `clients`: two on
/// each server, with its place and address.
pub fn watch(clients: Vec<(usize, SocketAddr, [Client; 2])>, cut: Now, limit: Duration, seen: &mut Silence) {
    let mut waiting = Vec::new();
    for (server, address, [mut writer, mut reader]) in clients {
        seen.servers += 1;
        // Of one that was dropped just now these fail.
        let write = writer.send(op::SET, client::set(PATH, b"not agreed"));
        let sync = writer.send(op::SYNC, Writer::new().text("/"));
        let agreeing: Vec<i32> = [write, sync].into_iter().flatten().collect();
        seen.unanswered += agreeing.len() as u64;
        read(&mut reader);
        waiting.push(Witness { server, address, client: writer, agreeing });
        waiting.push(Witness { server, address, client: reader, agreeing: Vec::new() });
    }
    waiting.iter_mut().for_each(|witness| witness.client.patience = Duration::from_millis(5));
    while !waiting.is_empty() {
        let late = clock::now().since(cut) > limit;
        waiting.retain_mut(|witness| {
            let (server, after_ms) = (witness.server + 1, clock::now().since(cut).as_millis() as u64);
            match witness.client.receive() {
                Ok(reply) if witness.agreeing.contains(&reply.xid) => {
                    seen.wrong.push(format!("server {server} answers {after_ms} ms after it was cut off: {reply:?}"));
                    false
                }
                Ok(_) if !late => {
                    seen.reads += 1;
                    read(&mut witness.client);
                    true
                }
                Err(error) if error.kind() == ErrorKind::TimedOut && !late => true,
                Err(error) if error.kind() != ErrorKind::TimedOut => {
                    seen.dropped_ms.push(after_ms);
                    refused(witness, seen);
                    false
                }
                _ => {
                    seen.wrong.push(format!("server {server} keeps a client {after_ms} ms after it was cut off"));
                    false
                }
            }
        });
    }
}

/// It gives nobody a session now.
fn refused(witness: &Witness, seen: &mut Silence) {
    let patience = Duration::from_millis(100);
    match Client::enter(witness.address, 4_000, 0, 0, &[0; 16], patience) {
        Err(Refusal::NotNow(_)) => seen.refused += 1,
        Err(Refusal::Expired) => {
            seen.wrong.push(format!("server {} tells a new session that it is over", witness.server + 1))
        }
        Ok(_) => seen.wrong.push(format!("server {} gives a session while it is cut off", witness.server + 1)),
    }
}

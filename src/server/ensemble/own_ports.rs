//! Where this server listens for the others of its ensemble.
//!
//! Runs on: the starting thread, which may wait for a port or a name.

use crate::config::servers::PeerAddress;
use crate::fatal::Fatal;
use crate::hosts;
use crate::net::{self, Port};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// What a member has its ports as.
pub struct OwnPorts {
    /// Taken, and to be listened on only while it leads.
    pub quorum: Vec<Port>,
    pub election: Vec<TcpListener>,
}

/// Takes the ports of each of this server's addresses, or of all that the machine has. Names are looked up now, and not
/// again. Tries again (`retries` times; 0: for ever), since who has the port may be about to end, and a name may not be
/// known yet.
pub fn take(addresses: &[PeerAddress], on_all: bool, retries: u32) -> Result<OwnPorts, Fatal> {
    for attempt in 0.. {
        match try_to_take(addresses, on_all) {
            Err(Fatal::Listen { address, source }) if retries == 0 || attempt < retries => {
                tracing::warn!("cannot listen for the other servers on {address}: {source}; again in a second");
                // Nobody wakes it; a little less than a second would do too.
                std::thread::park_timeout(Duration::from_secs(1));
            }
            done => return done,
        }
    }
    unreachable!("it ends with the last attempt")
}

fn try_to_take(addresses: &[PeerAddress], on_all: bool) -> Result<OwnPorts, Fatal> {
    let (mut quorum, mut election) = (Vec::new(), Vec::new());
    for PeerAddress { host, quorum_port, election_port } in addresses {
        let fail = |source| Fatal::Listen { address: format!("{host}:{election_port}"), source };
        let ip = match on_all {
            true => None,
            false => hosts::look_up(host, *election_port).map_err(fail)?.first().map(SocketAddr::ip),
        };
        for (places, port) in [(&mut quorum, *quorum_port), (&mut election, *election_port)] {
            if !places.contains(&(ip, port)) {
                places.push((ip, port));
            }
        }
    }
    let quorum = quorum.into_iter().map(|(ip, port)| net::take_port(ip, port)).collect::<Result<_, _>>()?;
    let election = election.into_iter().map(|(ip, port)| net::listen(ip, port, 0)).collect::<Result<_, _>>()?;
    Ok(OwnPorts { quorum, election })
}

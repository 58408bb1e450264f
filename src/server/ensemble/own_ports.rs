//! Where this server listens for the others of its ensemble.
//!
//! Runs on: the starting thread, which may wait for a port or a name.

use crate::config::Ensemble;
use crate::config::servers::PeerAddress;
use crate::fatal::Fatal;
use crate::hosts;
use crate::net::{self, Port};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Taken; connections are refused until somebody listens.
pub struct OwnPorts {
    /// Listened on only while the server leads.
    pub quorum: Vec<Port>,
    pub election: Vec<Port>,
}

/// Takes the ports of each of this server's addresses, or of all that the machine has. Names are looked up now, and not
/// again. Tries again (`electionPortBindRetry` times; 0: for ever), since who has a port may be about to end, and a name may
/// not be known yet. `client` is where this server's clients come, which can't be the same.
pub fn take(ensemble: &Ensemble, client: SocketAddr) -> Result<OwnPorts, Fatal> {
    let retries = ensemble.election_bind_retries;
    for attempt in 0.. {
        match try_to_take(&ensemble.my_line().addresses, ensemble.quorum_listen_on_all_ips) {
            Err(Fatal::Listen { address, source }) if retries == 0 || attempt < retries => {
                tracing::warn!("cannot listen for the other servers on {address}: {source}; again in a second");
                // Nobody wakes it; a little less than a second would do too.
                std::thread::park_timeout(Duration::from_secs(1));
            }
            done => {
                let ports = done?;
                let all = ports.quorum.iter().chain(&ports.election).map(Port::address);
                // As long as nobody listens, one port can be taken twice.
                return match all.into_iter().find(|own| is_same(*own, client)) {
                    Some(own) => {
                        let source =
                            std::io::Error::other("it is the client port too; give one of them another number");
                        Err(Fatal::Listen { address: own.to_string(), source })
                    }
                    None => Ok(ports),
                };
            }
        }
    }
    unreachable!("it ends with the last attempt")
}

fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (everywhere || one.ip() == other.ip())
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
    let take = |places: Vec<(Option<IpAddr>, u16)>| -> Result<Vec<Port>, Fatal> {
        places.into_iter().map(|(ip, port)| net::take_port(ip, port)).collect()
    };
    Ok(OwnPorts { quorum: take(quorum)?, election: take(election)? })
}

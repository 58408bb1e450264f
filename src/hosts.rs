//! Host names, in the order in which Java has their addresses (`java.net.preferIPv6Addresses` is false where nobody sets it):
//! what listens on the first address of `localhost` has to be where clients and peers on a JVM look for it.
//!
//! Runs on: a thread that may wait for a name server.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// All addresses of a name, or the address that it is; those of IPv4 first. Never none.
pub fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host}: no address for this name")));
    }
    Ok(ordered(found))
}

fn ordered(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_comes_first_and_else_the_order_stays() {
        let parsed = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let given = parsed(&["[::1]:1", "127.0.0.2:1", "[::2]:1", "127.0.0.1:1"]);
        assert_eq!(ordered(given), parsed(&["127.0.0.2:1", "127.0.0.1:1", "[::1]:1", "[::2]:1"]));
        assert_eq!(look_up("::1", 5).unwrap(), parsed(&["[::1]:5"]));
    }
}

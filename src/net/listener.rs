//! Opens a listening socket, in two steps: a port is taken first, and listened on when there is somebody to accept.
//!
//! Between the two the kernel refuses connections, and a client of an ensemble goes on to the next server at once. If it were
//! let in, it would wait here for as long as the server needs to read its data.
//!
//! One socket for all cores and no SO_REUSEPORT: a second server on the same port has to fail to start, and connections
//! that live for weeks have to be dealt out evenly, which the kernel's hash does not do.

use crate::fatal::Fatal;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener};
use std::path::Path;

/// A port that is taken; connections to it are refused.
pub struct Port {
    socket: Socket,
    address: SocketAddr,
}

/// Takes a port of an address of this machine, or of all of them; one on which somebody listens already is an error.
pub fn take_port(ip: Option<IpAddr>, port: u16) -> Result<Port, Fatal> {
    // Both families, but on a machine without IPv6.
    let everywhere = || if ipv6_exists() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let address = SocketAddr::new(ip.unwrap_or_else(everywhere), port);
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // As the JVM does on Linux: a restarted server must not wait for its own old connections to time out.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        let bound = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address of the internet"))?;
        Ok(Port { socket, address: bound })
    };
    open().map_err(|source| Fatal::Listen { address: address.to_string(), source })
}

fn ipv6_exists() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

impl Port {
    /// With the number that the kernel chose, if it was asked to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections wait to be accepted. `backlog` 0 or less means 50, the JDK's default.
    pub fn listen(self, backlog: i32) -> Result<TcpListener, Fatal> {
        self.begin(backlog)?;
        Ok(self.socket.into())
    }

    /// The same for a while; the caller closes what it has been given and calls `pause` at the end of it.
    pub fn listen_for_now(&self) -> Result<TcpListener, Fatal> {
        self.begin(0)?;
        let fail = |source| Fatal::Listen { address: self.address.to_string(), source };
        Ok(self.socket.try_clone().map_err(fail)?.into())
    }

    /// Connections are refused again, and those that were not accepted are reset. The port stays taken, if it was not the
    /// kernel that chose it. Only behind `listen_for_now`: of a socket that does not listen the connections of later would be
    /// shut down.
    pub fn pause(&self) {
        // Linux ends listening with that, and keeps the address.
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    fn begin(&self, backlog: i32) -> Result<(), Fatal> {
        let begun = self.socket.listen(if backlog > 0 { backlog } else { 50 });
        // Somebody else took it in the same moment, and was quicker.
        begun.map_err(|source| Fatal::Listen { address: self.address.to_string(), source })
    }
}

/// Both steps at once.
pub fn listen(ip: Option<IpAddr>, port: u16, backlog: i32) -> Result<TcpListener, Fatal> {
    take_port(ip, port)?.listen(backlog)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_port_that_is_taken_refuses_connections_until_somebody_listens_and_is_nobody_elses_then() {
        let port = take_port(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        let address = port.address();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let _listener = port.listen(0).unwrap();
        TcpStream::connect(address).unwrap();
        assert!(take_port(Some(address.ip()), address.port()).is_err());
        assert!(take_port(None, address.port()).is_err());
    }

    #[test]
    fn a_port_is_listened_on_again_and_again() {
        let ip = Some(Ipv4Addr::LOCALHOST.into());
        let chosen = take_port(ip, 0).unwrap();
        // One that the kernel chose is given back with each pause. Two may have it as long as nobody listens.
        let port = take_port(ip, chosen.address().port()).unwrap();
        for _ in 0..3 {
            let listener = port.listen_for_now().unwrap();
            TcpStream::connect(port.address()).unwrap();
            listener.accept().unwrap();
            drop(listener);
            port.pause();
            assert_eq!(TcpStream::connect(port.address()).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn a_port_of_all_addresses_is_one_of_both_families() {
        let port = take_port(None, 0).unwrap();
        let number = port.address().port();
        let _listener = port.listen(0).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, number)).unwrap();
        if ipv6_exists() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, number)).unwrap();
        }
    }
}

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
use std::net::{SocketAddr, TcpListener};

/// A port that is taken; connections to it are refused.
pub struct Port {
    socket: Socket,
    address: SocketAddr,
}

/// Takes a port; one on which somebody listens already is an error.
pub fn take_port(address: SocketAddr) -> Result<Port, Fatal> {
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

impl Port {
    /// With the number that the kernel chose, if it was asked to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections wait to be accepted. `backlog` 0 or less means 50, the JDK's default.
    pub fn listen(self, backlog: i32) -> Result<TcpListener, Fatal> {
        match self.socket.listen(if backlog > 0 { backlog } else { 50 }) {
            Ok(()) => Ok(self.socket.into()),
            // Somebody else took it in the same moment, and was quicker.
            Err(source) => Err(Fatal::Listen { address: self.address.to_string(), source }),
        }
    }
}

/// Both steps at once.
pub fn listen(address: SocketAddr, backlog: i32) -> Result<TcpListener, Fatal> {
    take_port(address)?.listen(backlog)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_port_that_is_taken_refuses_connections_until_somebody_listens_and_is_nobody_elses_then() {
        let port = take_port(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = port.address();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let _listener = port.listen(0).unwrap();
        TcpStream::connect(address).unwrap();
        assert!(take_port(address).is_err());
    }
}

//! Opens a listening socket.
//!
//! One socket for all cores and no SO_REUSEPORT: a second server on the same port has to fail to start, and connections
//! that live for weeks have to be dealt out evenly, which the kernel's hash does not do.

use crate::fatal::Fatal;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddr;

/// `backlog` 0 or less means 50, the JDK's default.
pub fn listen(address: SocketAddr, backlog: i32) -> Result<std::net::TcpListener, Fatal> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // As the JVM does on Linux: a restarted server must not wait for its own old connections to time out.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(if backlog > 0 { backlog } else { 50 })?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    open().map_err(|source| Fatal::Listen { address: address.to_string(), source })
}

//! Ports of the loopback interface that nobody else is given.
//!
//! A port that was merely found free may be taken at any time by the source of a connection; and
//! while a server is down, a client that keeps trying to reach it may even be given the server's
//! own port and connect to itself, after which the server cannot start again. So the port stays
//! bound here, by a socket that does not listen: the system gives it to nobody, and a server that
//! sets `SO_REUSEADDR`, as Java and Go do, may still listen on it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

use crate::Error;

/// A port of the system's choice; it is reserved until this is dropped.
#[derive(Debug)]
pub struct Reserved {
    address: SocketAddr,
    _socket: OwnedFd,
}

impl Reserved {
    /// Reserves one.
    ///
    /// # Errors
    /// [`Error::System`] if the system has none.
    pub fn new() -> Result<Self, Error> {
        Self::bind().map_err(Error::system("reserve a port of 127.0.0.1"))
    }

    fn bind() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = getsockname(&socket)?.try_into().map_err(io::Error::from)?;
        Ok(Self { address, _socket: socket })
    }

    /// Where a server may listen: `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

//! Stream sockets between a host and its virtual machines: vsock(7). What rustix has no address for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::sys;

/// The context id of the host, for a guest.
pub const HOST: u32 = 2;

/// Any context id, to listen on.
const ANY: u32 = u32::MAX;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 8;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// Whose: [`HOST`], or a machine's number.
    pub cid: u32,
    /// The port.
    pub port: u32,
}

/// Listens on a port, whoever may ask. The socket blocks.
///
/// # Errors
/// Where the kernel has no vsock, or somebody listens there.
pub fn listen(port: u32) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::CLOEXEC)?;
    rustix::net::bind(&socket, &Address { cid: ANY, port })?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Waits for a connection, and tells whose it is. The connection does not block.
///
/// # Errors
/// As accept(2), and where the peer has no vsock address.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Address)> {
    let (socket, peer) =
        rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let peer = peer.as_ref().and_then(sys::vsock_address).ok_or(io::ErrorKind::InvalidData)?;
    Ok((socket, peer))
}

/// Begins to connect, and does not block: once the socket can be written to, `SO_ERROR` tells what came of it.
///
/// # Errors
/// Where that is known at once: no vsock in this kernel, no machine of that number.
pub fn connect(to: Address) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn the_own_machine_is_reached_where_the_kernel_can() {
        // Not every kernel has vsock, or its loopback (context id 1).
        let Ok(listener) = listen(700_123) else { return };
        let Ok(client) = connect(Address { cid: 1, port: 700_123 }) else { return };
        poll(&mut [PollFd::new(&client, PollFlags::OUT)], None).unwrap();
        if rustix::net::sockopt::socket_error(&client).unwrap().is_err() {
            return;
        }
        let (server, peer) = accept(&listener).unwrap();
        assert_eq!(peer.cid, 1);
        rustix::io::write(&client, b"x").unwrap();
        poll(&mut [PollFd::new(&server, PollFlags::IN)], None).unwrap();
        assert_eq!(rustix::io::read(&server, &mut [0; 8]).unwrap(), 1);
    }
}

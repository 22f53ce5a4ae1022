//! Who listens on a socket.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

/// The user who called listen(2) on the socket at `path`; none where that may not be asked, or is not told as nobody takes
/// connections, which the kernel says of sockets alone that somebody listens on.
pub(super) fn of(path: &Path) -> io::Result<Option<u32>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(sockopt::socket_peercred(&socket)?.uid.as_raw())),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{bind, listen};

    use super::*;

    #[test]
    fn it_is_told_of_a_socket_that_somebody_listens_on_alone() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("s");
        assert_eq!(of(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, "").unwrap();
        of(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        let listener =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        assert_eq!(of(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        listen(&listener, 1).unwrap();
        let own = Some(rustix::process::geteuid().as_raw());
        // Until nobody gets in any more, as none of these is taken.
        assert_eq!([(); 5].map(|()| of(&path).unwrap()), [own, own, None, None, None]);
        drop(listener);
        assert_eq!(of(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}

//! vsock: a socket that the host connects to, and nobody else is let in.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use miharu_linux::vsock;

use crate::connection::{Connection, Served};
use crate::report::Reporter;

/// The most connections at once. The host needs one; others are there while it restarts.
const MAX_CONNECTIONS: usize = 4;

/// A connection on which nothing was asked for so long is closed: its other end may be gone without a word.
const IDLE: Duration = Duration::from_secs(600);

/// More than enough for a thread that makes a report.
const STACK: usize = 256 << 10;

/// Listens on `port`, and serves the host.
///
/// # Errors
/// Where the kernel has no vsock, the port is taken, or no more connections can be accepted.
pub fn serve(port: u32, reporter: &Arc<Reporter>) -> io::Result<()> {
    let listener = vsock::listen(port)?;
    // Each thread holds a clone, so their number is the number of connections.
    let connections = Arc::new(());
    loop {
        let (wire, peer) = match vsock::accept(&listener) {
            Ok(accepted) => accepted,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        // Anybody in the guest can connect through the loopback, and a guest's own virtual machines can, too.
        if peer.cid != vsock::HOST || Arc::strong_count(&connections) > MAX_CONNECTIONS {
            continue;
        }
        let (reporter, held) = (Arc::clone(reporter), Arc::clone(&connections));
        let thread = std::thread::Builder::new().name("vsock".to_owned()).stack_size(STACK);
        thread.spawn(move || {
            let _held = held;
            talk(wire, &reporter);
        })?;
    }
}

/// Serves one connection to its end, which may be an error: the host is gone, and connects again.
fn talk(wire: OwnedFd, reporter: &Reporter) {
    let mut connection = Connection::new(wire);
    while let Ok(Served::Yes) = connection.serve(reporter, IDLE) {}
}

/// Whether only this one connection failed.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidData
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use miharu_linux::Roots;

    use super::*;

    #[test]
    fn a_connection_is_served_until_the_host_leaves() {
        let (agent, mut host) = UnixStream::pair().unwrap();
        agent.set_nonblocking(true).unwrap();
        let served = std::thread::spawn(move || talk(agent.into(), &Reporter::new(Roots::default())));
        host.write_all(b"{\"request\":\"nothing\",\"id\":3}\n").unwrap();
        let mut answer = [0; 36];
        host.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"\n{\"id\":3,\"error\":\"unknown request\"}\n".first_chunk::<36>().unwrap());
        drop(host);
        served.join().unwrap();
    }
}

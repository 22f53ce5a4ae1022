//! A descriptor on whose other end the host is, whatever it is made of. It must not block.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::protocol::{self, Lines};
use crate::report::Reporter;

/// How long the host may take to read an answer before the rest of it is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// One end of the wire.
#[derive(Debug)]
pub struct Connection {
    wire: OwnedFd,
    lines: Lines,
    /// Whether half a line of ours may be on the wire already.
    is_dirty: bool,
}

/// What became of an attempt to serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Something was read, and answered if it was a request.
    Yes,
    /// Nothing has come in the time that was given.
    Idle,
    /// Nobody is on the other end (any more).
    Closed,
}

impl Connection {
    /// Takes a descriptor that does not block.
    #[must_use]
    pub fn new(wire: OwnedFd) -> Self {
        Self { wire, lines: Lines::default(), is_dirty: true }
    }

    /// Waits for bytes for at most `patience` and answers the request that they complete.
    ///
    /// # Errors
    /// Where the wire is broken.
    pub fn serve(&mut self, reporter: &Reporter, patience: Duration) -> io::Result<Served> {
        let mut bytes = [0; 4096];
        let length = match rustix::io::read(&self.wire, &mut bytes) {
            Ok(0) => return Ok(Served::Closed),
            Ok(length) => length,
            Err(Errno::INTR) => return Ok(Served::Yes),
            Err(Errno::AGAIN) => {
                let is_ready = self.wait(PollFlags::IN, patience)?;
                return Ok(if is_ready { Served::Yes } else { Served::Idle });
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(request) = self.lines.push(bytes.get(..length).unwrap_or_default()) {
            self.send(&protocol::answer(&request, reporter))?;
        }
        Ok(Served::Yes)
    }

    /// Forgets the beginning of a line: its sender is gone.
    pub fn reset(&mut self) {
        self.lines = Lines::default();
        self.is_dirty = true;
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + WRITE_PATIENCE;
        if self.is_dirty && self.write(b"\n", deadline)? > 0 {
            return Ok(());
        }
        self.is_dirty = self.write(line, deadline)? > 0;
        Ok(())
    }

    /// Writes until `deadline`; gives the number of bytes that were left.
    fn write(&self, mut rest: &[u8], deadline: Instant) -> io::Result<usize> {
        while !rest.is_empty() {
            match rustix::io::write(&self.wire, rest) {
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || !self.wait(PollFlags::OUT, left)? {
                        break;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(rest.len())
    }

    /// Whether the wire is ready for what is wanted within `patience`. For a read a hang-up counts, as the read tells it then.
    fn wait(&self, wanted: PollFlags, patience: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut wires = [PollFd::new(&self.wire, wanted)];
        match poll(&mut wires, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let counts = if wanted == PollFlags::IN { PollFlags::all() } else { wanted };
        Ok(wires.iter().any(|wire| wire.revents().intersects(counts)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    use miharu_api::Answer;
    use miharu_linux::Roots;

    use super::*;

    fn pair() -> (Connection, UnixStream) {
        let (agent, host) = UnixStream::pair().unwrap();
        agent.set_nonblocking(true).unwrap();
        (Connection::new(agent.into()), host)
    }

    #[test]
    fn a_host_asks_twice_and_leaves() {
        let (mut connection, mut host) = pair();
        let reporter = Reporter::new(Roots::default());
        let short = Duration::from_millis(10);
        assert_eq!(connection.serve(&reporter, short).unwrap(), Served::Idle);
        let mut answers = BufReader::new(host.try_clone().unwrap());
        let mut line = String::new();
        for id in [1, 2] {
            writeln!(host, "{{\"request\":\"metrics\",\"id\":{id}}}").unwrap();
            assert_eq!(connection.serve(&reporter, short).unwrap(), Served::Yes);
            if id == 1 {
                answers.read_line(&mut line).unwrap();
                assert_eq!(line, "\n", "what an earlier agent left ends here");
            }
            line.clear();
            answers.read_line(&mut line).unwrap();
            assert_eq!(serde_json::from_str::<Answer>(&line).unwrap().id, id);
        }
        drop((host, answers));
        assert_eq!(connection.serve(&reporter, short).unwrap(), Served::Closed);
    }

    #[test]
    fn a_host_that_does_not_read_is_given_up() {
        let (connection, host) = pair();
        let left =
            connection.write(&vec![b'x'; 4 << 20], Instant::now() + Duration::from_millis(20)).unwrap();
        assert!(left > 0);
        drop(host);
    }
}

//! Byte streams to a guest or its monitor, and lines on them that never get too long.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;

use miharu_instances::Vsock;
use miharu_linux::{Roots, vsock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::bounds::MAX_ANSWER;

/// The longest answer of a vhost-user vsock device to `CONNECT`.
const MAX_GREETING: usize = 64;

/// Connects to the unix socket at `path` of the host.
pub(crate) async fn unix(roots: &Roots, path: &Path) -> io::Result<UnixStream> {
    let place = roots.host_path(path).ok_or(io::ErrorKind::NotFound)?;
    UnixStream::connect(place).await
}

/// Connects to a guest's vsock port.
pub(crate) async fn guest_port(roots: &Roots, how: &Vsock, port: u32) -> io::Result<UnixStream> {
    match how {
        Vsock::Cid(cid) => {
            let socket = vsock::connect(vsock::Address { cid: *cid, port })?;
            // Once it is connected a stream socket of any family reads, writes and waits alike, and tokio's own type asks for
            // nothing else.
            let stream = StdUnixStream::from(socket);
            stream.set_nonblocking(true)?;
            let stream = UnixStream::from_std(stream)?;
            stream.writable().await?;
            match stream.take_error()? {
                Some(error) => Err(error),
                None => Ok(stream),
            }
        }
        Vsock::Unix(path) => {
            let mut stream = unix(roots, path).await?;
            stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
            let mut answer = Vec::new();
            while answer.last() != Some(&b'\n') {
                if answer.len() >= MAX_GREETING {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                answer.push(stream.read_u8().await?);
            }
            if !answer.starts_with(b"OK") {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(stream)
        }
    }
}

/// A stream read by lines.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: UnixStream,
    /// What came beyond the line that was last given out.
    pending: Vec<u8>,
    was_heard: bool,
}

impl Lines {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, pending: Vec::new(), was_heard: false }
    }

    /// Whether anything at all has come.
    pub(crate) fn was_heard(&self) -> bool {
        self.was_heard
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next bytes up to `end`, which is not given out. A line longer than 1 MiB is an error, as is the stream's end.
    pub(crate) async fn until(&mut self, end: u8) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let fresh = self.pending.get(searched..).unwrap_or_default();
            if let Some(place) = fresh.iter().position(|byte| *byte == end) {
                let rest = self.pending.split_off(searched + place + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.pop();
                return Ok(line);
            }
            searched = self.pending.len();
            if searched > MAX_ANSWER {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer longer than 1 MiB"));
            }
            if self.stream.read_buf(&mut self.pending).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.was_heard = true;
        }
    }

    pub(crate) async fn line(&mut self) -> io::Result<Vec<u8>> {
        self.until(b'\n').await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let writer = tokio::spawn(async move {
            far.write_all(b"one\ntw").await.unwrap();
            far.write_all(b"o\n\n").await.unwrap();
            let noise = vec![b'x'; 1 << 16];
            while far.write_all(&noise).await.is_ok() {}
        });
        let mut lines = Lines::new(near);
        assert_eq!(lines.line().await.unwrap(), b"one");
        assert_eq!(lines.line().await.unwrap(), b"two");
        assert_eq!(lines.line().await.unwrap(), b"");
        assert_eq!(lines.line().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(lines.pending.capacity() < 4 * MAX_ANSWER);
        drop(lines);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn the_end_is_an_error() {
        let (far, near) = UnixStream::pair().unwrap();
        drop(far);
        assert_eq!(Lines::new(near).line().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! One connection to a daemon's socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::is_trusted;

/// The longest answer: a project's row names everything in it, some 60 bytes each.
const MAX_ANSWER: usize = 16 << 20;

/// How long a daemon may take for one answer. The state of a project takes it about a millisecond an instance.
const DEADLINE: Duration = Duration::from_secs(10);

/// A connection that is asked one thing after the other.
#[derive(Debug)]
pub(super) struct Connection(SendRequest<Empty<Bytes>>);

impl Connection {
    /// Connects to the socket at `place`, and makes sure that root listens there: anybody who may write to a path can put a
    /// socket there.
    pub(super) async fn open(place: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(place).await?;
        let uid = stream.peer_cred()?.uid();
        if !is_trusted(uid) {
            return Err(io::Error::other(format!("user {uid} listens on {}, not root", place.display())));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // It ends with the stream, or once the sender is dropped.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// What the daemon answers to a GET of `path`.
    ///
    /// # Errors
    /// Where it does not answer in time, or not well.
    pub(super) async fn get(&mut self, path: &str) -> io::Result<Bytes> {
        match timeout(DEADLINE, self.exchange(path)).await {
            Ok(result) => result,
            Err(_) => Err(no_answer(DEADLINE)),
        }
    }

    async fn exchange(&mut self, path: &str) -> io::Result<Bytes> {
        let request =
            Request::get(path).header(header::HOST, "daemon").body(Empty::new()).map_err(io::Error::other)?;
        self.0.ready().await.map_err(io::Error::other)?;
        let response = self.0.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::NOT_FOUND => Err(io::ErrorKind::NotFound.into()),
            status => Err(io::Error::other(format!("{path} is answered with {status}"))),
        }
    }
}

/// The error of a question that was not answered within `limit`.
pub(super) fn no_answer(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs()))
}

//! The socket itself: a request goes in, an answer comes out.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{PATIENCE, Trace, unreachable};
use crate::error::Failure;

/// A daemon's unix socket.
#[derive(Debug, Clone)]
pub(crate) struct Socket {
    path: PathBuf,
    trace: Trace,
}

impl Socket {
    pub(super) fn new(path: PathBuf, trace: Trace) -> Self {
        Self { path, trace }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a request of somebody else's as it is, and returns the answer as it is.
    pub(crate) async fn relay(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Failure> {
        let answer = tokio::time::timeout(PATIENCE, self.deliver(request)).await;
        answer.unwrap_or_else(|_| Err(self.late(PATIENCE)))
    }

    /// That the daemon did not answer.
    pub(super) fn late(&self, patience: Duration) -> Failure {
        Failure::request(format!(
            "miharud took the request on {} and did not answer within {} s: look at its log, or restart it",
            self.path.display(),
            patience.as_secs()
        ))
    }

    pub(super) async fn deliver(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Failure> {
        let cut_off = |error: &dyn std::fmt::Display| {
            Failure::request(format!("miharud broke the connection off ({error}): look at its log"))
        };
        self.say(&format!("{} {}", request.method(), request.uri()));
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| cut_off(&error))?;
        // Its errors come back through `send_request` too, where they are told.
        let pump = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| cut_off(&error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| cut_off(&error))?.to_bytes();
        pump.abort();
        self.say(&format!("{} ({} bytes)", head.status, body.len()));
        Ok(Response::from_parts(head, body))
    }

    pub(super) async fn connect(&self) -> Result<UnixStream, Failure> {
        UnixStream::connect(&self.path).await.map_err(|error| unreachable::explain(&self.path, &error))
    }

    pub(super) fn say(&self, what: &str) {
        if self.trace == Trace::Requests {
            // What cannot be written to the standard error cannot be complained about either.
            let _ = writeln!(std::io::stderr(), "DEBUG: {what}");
        }
    }
}

//! Asks the daemon: HTTP/1.1 over its unix socket, one connection a request as the Incus and LXD clients do.

mod events;
mod socket;
mod unreachable;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, ETAG, HOST, IF_MATCH, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use miharu_api::{Envelope, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Failure;
use crate::progress::Progress;

pub(crate) use socket::Socket;

/// How long an answer is awaited. A collection has a deadline of its own (4 s by default), so this is only met when the
/// daemon itself is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// How chatty the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    /// Nothing is said.
    Off,
    /// Each request and the status of its answer go to the standard error.
    Requests,
}

/// The daemon behind one unix socket.
#[derive(Debug)]
pub(crate) struct Client {
    socket: Socket,
    progress: Progress,
}

/// A request.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    /// The method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: &'a str,
    /// The body, JSON.
    pub(crate) body: Option<Vec<u8>>,
    /// The ETag that the resource must still have.
    pub(crate) if_match: Option<&'a str>,
    /// What is said at a terminal where the answer takes long.
    pub(crate) words: &'static str,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The resource's ETag.
    pub(crate) etag: Option<String>,
    /// Whether the body says that it is JSON.
    pub(crate) is_json: bool,
    /// The body.
    pub(crate) body: Bytes,
}

impl<'a> Ask<'a> {
    /// A request without a body.
    pub(crate) fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, body: None, if_match: None, words: "Waiting for miharud" }
    }

    /// With `body` as JSON.
    pub(crate) fn json<T: Serialize>(self, body: &T) -> Result<Self, Failure> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Failure::request(format!("cannot write the request: {error}")))?;
        Ok(Self { body: Some(body), ..self })
    }

    /// Only if the resource still has this ETag.
    pub(crate) fn if_match(self, etag: Option<&'a str>) -> Self {
        Self { if_match: etag, ..self }
    }

    /// What to say at a terminal where the answer takes long.
    pub(crate) fn saying(self, words: &'static str) -> Self {
        Self { words, ..self }
    }
}

impl Client {
    /// A client of the daemon whose directory is `dir`.
    pub(crate) fn new(dir: &Path, trace: Trace, progress: Progress) -> Self {
        Self { socket: Socket::new(dir.join("unix.socket"), trace), progress }
    }

    /// What says that something takes long.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The daemon's directory, where its certificate is.
    pub(crate) fn dir(&self) -> &Path {
        self.socket.path().parent().unwrap_or(Path::new("."))
    }

    /// The way to it.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// GETs a resource and returns its metadata.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.send(Ask::new(Method::GET, path)).await?.metadata()
    }

    /// Sends a request and returns the answer, an error of the server's included.
    pub(crate) async fn send(&self, ask: Ask<'_>) -> Result<Reply, Failure> {
        self.send_within(PATIENCE, ask).await
    }

    /// As [`send`](Self::send), giving up after `patience`.
    pub(crate) async fn send_within(&self, patience: Duration, ask: Ask<'_>) -> Result<Reply, Failure> {
        let words = ask.words;
        let answer = tokio::time::timeout(patience, self.exchange(ask));
        match self.progress.during(words, answer).await {
            Ok(reply) => reply,
            Err(_) => Err(self.socket.late(patience)),
        }
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Reply, Failure> {
        let response = self.socket.deliver(request(ask)?).await?;
        let (head, body) = response.into_parts();
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        Ok(Reply {
            status: head.status,
            etag: text(ETAG).map(str::to_owned),
            is_json: text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json")),
            body,
        })
    }
}

fn request(ask: Ask<'_>) -> Result<Request<Full<Bytes>>, Failure> {
    let mut builder = Request::builder()
        .method(ask.method)
        .uri(ask.path)
        .header(HOST, "miharu")
        .header(USER_AGENT, concat!("miharu/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close");
    if let Some(etag) = ask.if_match {
        builder = builder.header(IF_MATCH, etag);
    }
    if ask.body.is_some() {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    builder
        .body(Full::new(Bytes::from(ask.body.unwrap_or_default())))
        .map_err(|error| Failure::usage(format!("'{}' cannot be asked for: {error}", ask.path)))
}

impl Reply {
    /// The metadata of a success, an error of the server's as a failure.
    pub(crate) fn metadata<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let envelope = self.envelope()?;
        serde_json::from_value(envelope.metadata.unwrap_or_default()).map_err(|error| {
            Failure::request(format!(
                "the server's answer is not understood ({error}); are miharu and miharud of one version?"
            ))
        })
    }

    /// Checks that the server did what it was asked.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.envelope().map(drop)
    }

    /// The envelope of a success, an error of the server's as a failure.
    pub(crate) fn envelope(&self) -> Result<Envelope<serde_json::Value>, Failure> {
        let envelope: Envelope<serde_json::Value> = match serde_json::from_slice(&self.body) {
            Ok(envelope) => envelope,
            Err(_) if self.status.is_success() => {
                return Err(Failure::request("the server's answer is not JSON: is this socket miharud's?"));
            }
            Err(_) => {
                let text = String::from_utf8_lossy(&self.body);
                return Err(Failure::request(format!("{} ({})", text.trim(), self.status)));
            }
        };
        if envelope.kind == Kind::Error || !self.status.is_success() {
            let words = if envelope.error.is_empty() { self.status.to_string() } else { envelope.error };
            return Err(Failure::request(words));
        }
        Ok(envelope)
    }
}

/// Percent-encodes what stands for one segment of a path or one value of a query: project names such as `docker/shop`
/// and `lxc:/srv/lxc` hold characters that would split it.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &'static str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            etag: None,
            is_json: true,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn names_of_projects_survive_a_query() {
        assert_eq!(encoded("docker/shop"), "docker%2Fshop");
        assert_eq!(encoded("lxc:/srv/a b"), "lxc%3A%2Fsrv%2Fa%20b");
        assert_eq!(encoded("c-1_2.3~4"), "c-1_2.3~4");
        assert_eq!(encoded("é"), "%C3%A9");
    }

    #[test]
    fn an_error_of_the_server_is_told_in_its_words() {
        let error =
            reply(403, r#"{"type":"error","error_code":403,"error":"not authorized","metadata":null}"#)
                .check()
                .unwrap_err();
        assert_eq!(error.to_string(), "not authorized");
    }

    #[test]
    fn an_answer_that_is_no_envelope_is_told_as_it_stands() {
        let error = reply(503, "overloaded\n").check().unwrap_err();
        assert_eq!(error.to_string(), "overloaded (503 Service Unavailable)");
        let error = reply(200, "<html>").metadata::<Vec<String>>().unwrap_err();
        assert!(error.to_string().contains("is this socket miharud's?"), "{error}");
    }

    #[test]
    fn metadata_is_read() {
        let body = r#"{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":["/1.0"]}"#;
        assert_eq!(reply(200, body).metadata::<Vec<String>>().unwrap(), ["/1.0"]);
    }
}

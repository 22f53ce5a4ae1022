//! A daemon for tests: answers on a real unix socket what it was told to, and keeps what it was asked.

use std::fs::Permissions as Mode;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser as _;

use crate::args::Cli;
use crate::client::{Client, Trace};
use crate::error::Failure;
use crate::progress::Progress;

/// An answer to give.
pub(crate) struct Canned {
    status: u16,
    kind: &'static str,
    etag: Option<&'static str>,
    body: String,
}

impl Canned {
    /// JSON as it stands.
    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        Self { status, kind: "application/json", etag: None, body: body.into() }
    }

    /// A success with this metadata, JSON.
    pub(crate) fn sync(metadata: &str) -> Self {
        Self::json(
            200,
            format!(
                r#"{{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":{metadata}}}"#
            ),
        )
    }

    /// A success without metadata.
    pub(crate) fn empty() -> Self {
        Self::sync("null")
    }

    /// An error of the server's.
    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self::json(
            status,
            format!(
                r#"{{"type":"error","status":"","status_code":0,"operation":"","error_code":{status},"error":"{message}","metadata":null}}"#
            ),
        )
    }

    /// An exposition.
    pub(crate) fn text(body: &str) -> Self {
        Self {
            status: 200,
            kind: "text/plain; version=0.0.4; charset=utf-8",
            etag: None,
            body: body.to_owned(),
        }
    }

    /// With an ETag.
    pub(crate) fn etag(self, etag: &'static str) -> Self {
        Self { etag: Some(etag), ..self }
    }
}

/// A request that was received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    head: String,
    /// The body, as text.
    pub(crate) body: String,
}

impl Received {
    /// Method and path.
    pub(crate) fn line(&self) -> String {
        let line = self.head.lines().next().unwrap_or_default();
        line.strip_suffix(" HTTP/1.1").unwrap_or(line).to_owned()
    }

    /// A header's value; `name` in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body, JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A daemon that answers each request with the next canned answer, and then listens no more.
pub(crate) struct Fake {
    dir: tempfile::TempDir,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Fake {
    /// Starts it in a directory of its own. One without answers has ended already, and left its socket.
    pub(crate) fn start(answers: Vec<Canned>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("unix.socket")).unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        if answers.is_empty() {
            drop(listener);
            return Self { dir, received };
        }
        let keep = Arc::clone(&received);
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let request = receive(&mut stream);
                keep.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                respond(&mut stream, &answer);
            }
        });
        Self { dir, received }
    }

    /// Runs `miharu` with these arguments against it: how it ended, and what it printed.
    pub(crate) fn miharu(&self, arguments: &[&str]) -> (Result<(), Failure>, String) {
        let dir = self.dir.path().to_str().unwrap();
        let mut line = vec!["miharu", "--dir", dir];
        line.extend_from_slice(arguments);
        let cli = Cli::try_parse_from(line).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut out = Vec::new();
        let result = runtime.block_on(crate::commands::run(&cli, &mut out));
        (result, String::from_utf8(out).unwrap())
    }

    /// Holds its directory as a daemon does, for as long as the file lives.
    pub(crate) fn lock(&self) -> std::fs::File {
        let dir = std::fs::File::open(self.dir.path()).unwrap();
        dir.lock().unwrap();
        std::fs::set_permissions(self.dir.path().join("unix.socket"), Mode::from_mode(0o660)).unwrap();
        dir
    }

    /// Puts a file into its directory.
    pub(crate) fn put(&self, name: &str, text: &str, mode: u32) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Mode::from_mode(mode)).unwrap();
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.dir.path(), Trace::Off, Progress::none())
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn receive(stream: &mut UnixStream) -> Received {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        bytes.push(byte[0]);
    }
    let mut received = Received { head: String::from_utf8(bytes).unwrap(), body: String::new() };
    let length = received.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    received.body = String::from_utf8(body).unwrap();
    received
}

fn respond(stream: &mut UnixStream, answer: &Canned) {
    let etag = answer.etag.map(|etag| format!("ETag: {etag}\r\n")).unwrap_or_default();
    write!(
        stream,
        "HTTP/1.1 {} X\r\nContent-Type: {}\r\n{etag}Content-Length: {}\r\nConnection: close\r\n\r\n{}",
        answer.status,
        answer.kind,
        answer.body.len(),
        answer.body
    )
    .unwrap();
}

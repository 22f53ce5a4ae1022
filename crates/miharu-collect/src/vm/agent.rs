//! Our own agent inside a guest, over a virtio-serial port or vsock: a line asks, a line answers.

use std::io;
use std::path::PathBuf;

use miharu_api::report::{Answer, Report, Request, VSOCK_PORT};
use miharu_instances::Vsock;
use miharu_linux::Roots;
use tokio::time::Instant;

use super::session::Source;
use super::stream::{self, Lines};

/// Lines that are read over in wait for an answer: answers that came too late, and what they were cut to.
const MAX_LINES: usize = 1024;

/// How the agent is reached.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// The host's end of its virtio-serial port.
    Port(PathBuf),
    /// A vsock port of the guest.
    Vsock(Vsock),
}

/// The agent of one guest.
#[derive(Debug)]
pub(crate) struct Agent {
    roots: Roots,
    place: Place,
    connection: Option<Lines>,
    pub(super) last_id: u64,
}

impl Agent {
    pub(crate) fn new(roots: &Roots, place: Place) -> Self {
        // Answers to who asked before this one started may still be under way.
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let first = u64::from(since.subsec_nanos()) << 20;
        Self { roots: roots.clone(), place, connection: None, last_id: first }
    }

    async fn connect(&self) -> io::Result<Lines> {
        let stream = match &self.place {
            Place::Port(socket) => stream::unix(&self.roots, socket).await?,
            Place::Vsock(how) => stream::guest_port(&self.roots, how, VSOCK_PORT).await?,
        };
        Ok(Lines::new(stream))
    }
}

impl Source for Agent {
    type Told = Report;

    async fn ask(&mut self, _until: Instant) -> io::Result<Report> {
        let lines = match self.connection.take() {
            Some(lines) => lines,
            None => self.connect().await?,
        };
        let lines = self.connection.insert(lines);
        self.last_id += 1;
        let id = self.last_id;
        let request = Request { request: "metrics".to_owned(), id };
        lines.write(format!("{}\n", serde_json::to_string(&request)?).as_bytes()).await?;
        for _ in 0..MAX_LINES {
            let line = lines.line().await?;
            // What is not an answer to this question was meant for another one.
            let Ok(answer) = serde_json::from_slice::<Answer>(&line) else { continue };
            if answer.id != id {
                continue;
            }
            return answer
                .metrics
                .ok_or_else(|| io::Error::other("the agent could not read its guest's figures"));
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "nothing but garbage"))
    }

    fn is_heard(&self) -> bool {
        // QEMU takes a connection to a port that nobody has opened in the guest; a vsock port is somebody's.
        let is_vsock = matches!(self.place, Place::Vsock(_));
        self.connection.as_ref().is_some_and(|lines| is_vsock || lines.was_heard())
    }

    fn reset(&mut self) {
        self.connection = None;
    }
}

//! qemu-guest-agent, asked through the socket of its virtio-serial port.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use miharu_linux::Roots;
use miharu_linux::block::Layers;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::backoff::{Backoff, LONGEST_PAUSE};
use super::qga;
use super::qmp::{self, Message};
use super::report::Guest;
use super::session::Source;
use super::stream::{self, Lines};

/// Answers to older questions that are read over.
const MAX_LINES: usize = 64;

/// Something that puts a command to a guest agent: its own socket, or libvirt.
pub(crate) trait Ask {
    /// The answer as JSON; nothing where the agent refused.
    async fn command(&mut self, execute: &str, until: Instant) -> io::Result<Option<Box<RawValue>>>;
}

/// What is remembered of an agent's commands: the one that can hang is asked less often once it did.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    file_systems: Backoff,
}

/// Asks for all that a guest agent can tell, file systems last. What hangs or fails costs its own families alone, and
/// ends the round, as the agent does one thing at a time.
///
/// # Errors
/// Where nothing at all was answered.
pub(crate) async fn ask_all(
    agent: &mut impl Ask,
    patience: &mut Patience,
    layers: Layers,
    until: Instant,
) -> io::Result<(Guest, Option<io::Error>)> {
    let mut guest = Guest::default();
    let mut answered = false;
    // The commands before it are done in no time, or not at all.
    let result = async {
        let figures = &mut guest.figures;
        if let Some(answer) = agent.command(qga::CPUS, until).await? {
            figures.cpus = qga::cpus(&answer).unwrap_or_default();
            figures.cpu_effective = Some(figures.cpus.len() as u64).filter(|count| *count > 0);
        }
        answered = true;
        if figures.cpus.is_empty()
            && let Some(answer) = agent.command(qga::VCPUS, until).await?
        {
            figures.cpu_effective = qga::online_vcpus(&answer).filter(|count| *count > 0);
        }
        if let Some(answer) = agent.command(qga::DISKS, until).await? {
            figures.disks = qga::disks(&answer, layers).unwrap_or_default();
        }
        if let Some(answer) = agent.command(qga::INTERFACES, until).await? {
            (figures.interfaces, guest.addresses) = qga::interfaces(&answer).unwrap_or_default();
        }
        let now = Instant::now();
        if !patience.file_systems.is_over(now.into_std()) {
            return Ok(());
        }
        match agent.command(qga::FILE_SYSTEMS, until).await {
            Ok(answer) => {
                patience.file_systems.answered();
                figures.filesystems =
                    answer.and_then(|answer| qga::file_systems(&answer)).unwrap_or_default();
                Ok(())
            }
            Err(error) => {
                patience.file_systems.failed(Instant::now().into_std(), LONGEST_PAUSE);
                Err(error)
            }
        }
    }
    .await;
    match result {
        Ok(()) => Ok((guest, None)),
        Err(error) if answered => Ok((guest, Some(error))),
        Err(error) => Err(error),
    }
}

/// The guest agent behind a socket.
#[derive(Debug)]
pub(crate) struct GuestAgent {
    roots: Roots,
    socket: PathBuf,
    layers: Layers,
    connection: Option<Lines>,
    patience: Patience,
    /// Whether anything came on the last connection.
    is_heard: bool,
    pub(super) last_id: u64,
}

impl GuestAgent {
    pub(crate) fn new(roots: &Roots, socket: PathBuf, layers: Layers) -> Self {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            roots: roots.clone(),
            socket,
            layers,
            connection: None,
            patience: Patience::default(),
            is_heard: false,
            // The agent takes numbers of 63 bits; a late answer to an earlier miharud's sync must not look like ours.
            last_id: u64::from(since.subsec_nanos()) << 20,
        }
    }

    /// Connects, and makes sure that what is read next answers what is asked next.
    async fn connect(&mut self, until: Instant) -> io::Result<Lines> {
        let mut lines = Lines::new(stream::unix(&self.roots, &self.socket).await?);
        self.last_id += 1;
        let synchronised = timeout_at(until, synchronise(&mut lines, self.last_id)).await;
        self.is_heard = lines.was_heard();
        synchronised.unwrap_or_else(|_| Err(super::session::late("guest-sync-delimited")))?;
        Ok(lines)
    }
}

async fn synchronise(lines: &mut Lines, id: u64) -> io::Result<()> {
    lines.write(&qga::sync(id)).await?;
    for _ in 0..MAX_LINES {
        lines.until(qga::DELIMITER).await?;
        let line = lines.line().await?;
        if let Some(Message::Answer(_, Ok(answer))) = qmp::parse(&line)
            && qmp::number(answer) == Some(id)
        {
            return Ok(());
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "nothing but old answers"))
}

impl Source for GuestAgent {
    type Told = (Guest, Option<io::Error>);

    async fn ask(&mut self, until: Instant) -> io::Result<Self::Told> {
        // The last moments are kept for what was answered to get out.
        let margin = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
        let until = until - margin;
        let lines = match self.connection.take() {
            Some(lines) => lines,
            None => self.connect(until).await?,
        };
        let mut link = Link(lines);
        let told = ask_all(&mut link, &mut self.patience, self.layers, until).await?;
        if told.1.is_none() {
            self.connection = Some(link.0);
        }
        Ok(told)
    }

    fn is_heard(&self) -> bool {
        self.is_heard
    }

    fn reset(&mut self) {
        self.connection = None;
        self.is_heard = false;
    }
}

/// A connection on which both ends are at the same place.
struct Link(Lines);

impl Ask for Link {
    async fn command(&mut self, execute: &str, until: Instant) -> io::Result<Option<Box<RawValue>>> {
        let exchange = async {
            self.0.write(qga::command(execute).as_bytes()).await?;
            let line = self.0.line().await?;
            match qmp::parse(&line) {
                Some(Message::Answer(_, Ok(answer))) => Ok(Some(answer.to_owned())),
                Some(Message::Answer(_, Err(_))) => Ok(None),
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no guest agent's answer")),
            }
        };
        match timeout_at(until, exchange).await {
            Ok(result) => result,
            Err(_) => Err(super::session::late(execute)),
        }
    }
}

//! A virtual machine's monitor, kept open and asked anew at each collection.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use miharu_linux::Roots;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::host::Monitor;
use super::qmp::{self, GuestMemory, Message};
use super::session::{Source, late};
use super::stream::{self, Lines};

/// Messages that are read over in wait for an answer: a guest can make its monitor send events.
const MAX_MESSAGES: usize = 4096;

/// How old the balloon's figures may be when the polling interval is not known, in seconds.
pub(crate) const MAX_AGE: u64 = 60;

/// What a monitor told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) monitor: Monitor,
    /// The guest's memory as its balloon driver tells it, while it does.
    pub(crate) memory: Option<GuestMemory>,
    /// The place of the socket that answered, among those that there are.
    pub(crate) socket: usize,
}

/// The monitors of one machine, of which one is talked to.
#[derive(Debug)]
pub(crate) struct Qmp {
    roots: Roots,
    sockets: Vec<PathBuf>,
    connection: Option<Connection>,
    /// How often the guest is told to report its memory where nobody told it yet; zero leaves that alone.
    pub(crate) interval: Duration,
}

#[derive(Debug)]
struct Connection {
    /// The place of its socket among those that there are.
    socket: usize,
    lines: Lines,
    last_id: u64,
    balloon: Option<String>,
}

impl Qmp {
    pub(crate) fn new(roots: &Roots, sockets: &[PathBuf]) -> Option<Self> {
        (!sockets.is_empty()).then(|| Self {
            roots: roots.clone(),
            sockets: sockets.to_vec(),
            connection: None,
            interval: Duration::ZERO,
        })
    }

    /// Connects to the first monitor that greets. One that somebody else holds takes the connection and says nothing; it is
    /// let go of in time for the others.
    async fn connect(&self, until: Instant) -> io::Result<Connection> {
        let mut problem = io::Error::from(io::ErrorKind::NotFound);
        for (index, socket) in self.sockets.iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(self.sockets.len() - index).unwrap_or(u32::MAX);
            let greeted = async {
                let mut lines = Lines::new(stream::unix(&self.roots, socket).await?);
                let first = lines.line().await?;
                if !matches!(qmp::parse(&first), Some(Message::Greeting)) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no monitor's greeting"));
                }
                let mut connection = Connection { socket: index, lines, last_id: 0, balloon: None };
                let _: Option<()> = connection.execute(qmp::CAPABILITIES, |_| Some(())).await?;
                connection.find_balloon().await?;
                Ok(connection)
            };
            match timeout_at(Instant::now() + share, greeted).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => problem = error,
                Err(_) => problem = late("no greeting, as if another client held the monitor"),
            }
        }
        Err(problem)
    }
}

impl Source for Qmp {
    type Told = Told;

    async fn ask(&mut self, until: Instant) -> io::Result<Told> {
        // The connection is put back only after a whole answer: what a broken one still says belongs to an older question.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect(until).await?,
        };
        let told = connection.ask(self.interval).await?;
        // The only monitor is let go of, as its machine's owner may want it at any moment.
        if self.sockets.len() > 1 {
            self.connection = Some(connection);
        }
        Ok(told)
    }

    fn reset(&mut self) {
        self.connection = None;
    }
}

impl Connection {
    async fn ask(&mut self, polling: Duration) -> io::Result<Told> {
        let vcpus = self.execute(qmp::CPUS, qmp::cpus).await?.unwrap_or_default();
        let disks = self.execute(qmp::BLOCK_STATISTICS, qmp::disks).await?.unwrap_or_default();
        let balloon = self.execute(qmp::BALLOON, qmp::balloon).await?;
        let total = match balloon {
            Some(actual) => Some(actual),
            None => self.execute(qmp::MEMORY_SIZE, qmp::memory_size).await?,
        };
        let monitor = Monitor {
            vcpus: vcpus.into_iter().map(|vcpu| (vcpu.cpu, vcpu.thread)).collect(),
            balloon: total,
            disks,
        };
        Ok(Told { monitor, memory: self.guest_memory(polling).await?, socket: self.socket })
    }

    async fn guest_memory(&mut self, polling: Duration) -> io::Result<Option<GuestMemory>> {
        let Some(path) = self.balloon.clone() else { return Ok(None) };
        let interval = self.property(&path, "guest-stats-polling-interval", qmp::number).await?;
        if interval.unwrap_or(0) == 0 {
            if interval.is_some() && !polling.is_zero() {
                let (seconds, id) = (polling.as_secs().max(1), self.next_id());
                let line = qmp::set(&path, "guest-stats-polling-interval", seconds, id);
                let _: Option<()> = self.exchange(&line, id, |_| Some(())).await?;
            }
            return Ok(None);
        }
        let memory = self.property(&path, "guest-stats", qmp::guest_memory).await?;
        Ok(memory.filter(|memory| is_fresh(memory.last_update, interval, SystemTime::now())))
    }

    async fn find_balloon(&mut self) -> io::Result<()> {
        for parent in qmp::DEVICES {
            let id = self.next_id();
            let line = qmp::of_object(qmp::LIST, parent, None, id);
            let found = self.exchange(&line, id, |answer| qmp::balloon_device(answer, parent)).await?;
            if found.is_some() {
                self.balloon = found;
                break;
            }
        }
        Ok(())
    }

    async fn property<T>(
        &mut self,
        path: &str,
        name: &str,
        parse: impl Fn(&RawValue) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let id = self.next_id();
        self.exchange(&qmp::of_object(qmp::GET, path, Some(name), id), id, parse).await
    }

    async fn execute<T>(
        &mut self,
        command: &str,
        parse: impl Fn(&RawValue) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let id = self.next_id();
        self.exchange(&qmp::command(command, id), id, parse).await
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends a command and waits for its answer; a refusal is no answer, and no error either.
    async fn exchange<T>(
        &mut self,
        line: &str,
        id: u64,
        parse: impl Fn(&RawValue) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.lines.write(line.as_bytes()).await?;
        for _ in 0..MAX_MESSAGES {
            let line = self.lines.line().await?;
            match qmp::parse(&line) {
                Some(Message::Answer(Some(number), answer)) if number == id => {
                    return Ok(answer.ok().and_then(parse));
                }
                Some(_) => {}
                None => return Err(io::Error::new(io::ErrorKind::InvalidData, "no monitor's answer")),
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "nothing but events"))
    }
}

/// Whether the balloon's driver still tells its figures: an answer that is older than two rounds of polling is a dead one's.
pub(crate) fn is_fresh(last_update: u64, interval: Option<u64>, now: SystemTime) -> bool {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let longest = interval.map_or(MAX_AGE, |seconds| seconds.saturating_mul(2).saturating_add(MAX_AGE / 2));
    last_update != 0 && now.saturating_sub(last_update) <= longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_balloon_count_while_they_move() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!(is_fresh(999_990, Some(1), now));
        assert!(is_fresh(999_970, Some(5), now));
        assert!(!is_fresh(999_950, Some(5), now));
        assert!(is_fresh(999_950, None, now));
        assert!(!is_fresh(0, None, now));
        assert!(!is_fresh(0, Some(u64::MAX), now));
    }
}

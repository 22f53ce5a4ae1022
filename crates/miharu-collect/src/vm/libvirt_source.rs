//! What libvirt holds of its own domains, asked through its socket: the figures of the monitor, and the guest agent.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use miharu_instances::Vm;
use miharu_linux::Roots;
use miharu_linux::block::Layers;
use miharu_metrics::figures::Disk;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::bounds::{self, MAX_ROWS};
use super::guest_agent::{Ask, Patience, ask_all};
use super::host::Monitor;
use super::monitor;
use super::qmp::{self, GuestMemory, Message};
use super::report::Guest;
use super::session::{GUEST_AGENT_PORT, Source, State, late};
use super::xdr::{self, Domain, Value};

/// The sockets of QEMU's own daemon, and of the one daemon of before.
const SOCKETS: [&str; 2] = ["/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"];

/// Messages that are read over in wait for an answer.
const MAX_MESSAGES: usize = 256;

/// Calls that may wait for guests at the same time. libvirtd has 20 workers for all its clients, and one stays with each guest
/// agent that hangs.
static GUEST_CALLS: Semaphore = Semaphore::const_new(6);

/// How long libvirt waits for an agent, in seconds; that is as short as it can be told to.
const AGENT_SECONDS: u32 = 1;

/// What libvirt told of a domain.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) machine: Option<monitor::Told>,
    pub(crate) guest: Option<(Guest, Option<io::Error>)>,
}

/// One domain of libvirt's.
#[derive(Debug)]
pub(crate) struct Libvirt {
    roots: Roots,
    name: String,
    layers: Layers,
    connection: Option<Connection>,
    patience: Patience,
    /// Whether the guest is asked, too.
    pub(crate) guest: Wanted,
    /// Whether the domain has a guest agent, and that has answered.
    channel: State,
}

/// Whether a better source answers for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Yes,
    No,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    serial: u32,
    domain: Domain,
}

impl Libvirt {
    pub(crate) fn new(roots: &Roots, domain: &str, vm: &Vm, layers: Layers) -> Self {
        Self {
            roots: roots.clone(),
            name: domain.to_owned(),
            layers,
            connection: None,
            patience: Patience::default(),
            guest: Wanted::Yes,
            channel: match vm.channels.iter().any(|channel| channel.port == GUEST_AGENT_PORT) {
                true => State::Silent,
                false => State::Absent,
            },
        }
    }

    /// What is known of the guest's agent.
    pub(crate) fn guest_state(&self) -> State {
        self.channel
    }

    async fn connect(&self) -> io::Result<Connection> {
        let mut problem = io::Error::from(io::ErrorKind::NotFound);
        for socket in SOCKETS {
            match stream_to(&self.roots, socket).await {
                Ok(stream) => {
                    let domain = Domain { name: String::new(), uuid: [0; 16], id: 0 };
                    let mut connection = Connection { stream, serial: 0, domain };
                    // For root this ends the authentication by its name alone.
                    connection.call(xdr::REMOTE, xdr::AUTH_LIST, &[]).await?.map_err(io::Error::other)?;
                    let open = xdr::open("qemu:///system");
                    connection
                        .call(xdr::REMOTE, xdr::CONNECT_OPEN, &open)
                        .await?
                        .map_err(io::Error::other)?;
                    let lookup = xdr::lookup(&self.name);
                    let found = connection.call(xdr::REMOTE, xdr::DOMAIN_LOOKUP_BY_NAME, &lookup).await?;
                    let found = found.map_err(io::Error::other)?;
                    connection.domain = xdr::domain(&found).ok_or(io::ErrorKind::InvalidData)?;
                    return Ok(connection);
                }
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }
}

async fn stream_to(roots: &Roots, socket: &str) -> io::Result<UnixStream> {
    super::stream::unix(roots, Path::new(socket)).await
}

impl Source for Libvirt {
    type Told = Told;

    async fn ask(&mut self, until: Instant) -> io::Result<Told> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        // A guest that hangs must not cost what libvirt itself knows: the figures come first and leave on their own.
        let margin = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
        let statistics = xdr::statistics_of(&connection.domain);
        let answer = connection.call(xdr::REMOTE, xdr::ALL_DOMAIN_STATS, &statistics).await?;
        let machine = answer
            .ok()
            .and_then(|result| xdr::statistics(&result))
            .map(|values| figures(&values, SystemTime::now()));
        let mut told = Told { machine, guest: None };
        if self.guest == Wanted::No || self.channel == State::Absent {
            self.connection = Some(connection);
            return Ok(told);
        }
        let Ok(Ok(_permit)) = timeout_at(until - margin, GUEST_CALLS.acquire()).await else {
            self.connection = Some(connection);
            return Ok(told);
        };
        // A guest agent that is not there is no failure of libvirt's; one that hangs costs the connection.
        let Ok(guest) = ask_all(&mut connection, &mut self.patience, self.layers, until - margin).await
        else {
            return Ok(told);
        };
        let is_whole = guest.1.is_none();
        if has_told(&guest.0) {
            self.channel = State::HasAnswered;
            told.guest = Some(guest);
        }
        if is_whole {
            self.connection = Some(connection);
        }
        Ok(told)
    }

    fn reset(&mut self) {
        self.connection = None;
    }
}

fn has_told(guest: &Guest) -> bool {
    let figures = &guest.figures;
    figures.cpu_effective.is_some() || !figures.interfaces.is_empty() || !figures.disks.is_empty()
}

impl Ask for Connection {
    async fn command(&mut self, execute: &str, until: Instant) -> io::Result<Option<Box<RawValue>>> {
        let command = super::qga::command(execute);
        let arguments = xdr::agent_command(&self.domain, command.trim_end(), AGENT_SECONDS);
        let called = timeout_at(until, self.call(xdr::QEMU, xdr::AGENT_COMMAND, &arguments));
        let Ok(answer) = called.await.map_err(|_| late(execute))?? else { return Ok(None) };
        let Some(text) = xdr::agent_answer(&answer) else { return Ok(None) };
        match qmp::parse(text.as_bytes()) {
            Some(Message::Answer(_, Ok(answer))) => Ok(Some(answer.to_owned())),
            _ => Ok(None),
        }
    }
}

impl Connection {
    /// Makes a call: its results, or what libvirt says against it.
    async fn call(
        &mut self,
        program: u32,
        procedure: u32,
        arguments: &[u8],
    ) -> io::Result<Result<Vec<u8>, String>> {
        self.serial = self.serial.wrapping_add(1);
        self.stream.write_all(&xdr::call(program, procedure, self.serial, arguments)).await?;
        for _ in 0..MAX_MESSAGES {
            let mut length = [0; xdr::LENGTH];
            self.stream.read_exact(&mut length).await?;
            let mut message = vec![0; xdr::following(length).ok_or(io::ErrorKind::InvalidData)?];
            self.stream.read_exact(&mut message).await?;
            if let Some(reply) = xdr::reply(&message)
                && reply.serial == self.serial
            {
                return Ok(reply.result.map(<[u8]>::to_vec));
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// What a domain's figures mean: `balloon.*` in KiB, `block.N.*` with the disk's name in the guest's bus order (`vda`).
pub(super) fn figures(values: &[(String, Value)], now: SystemTime) -> monitor::Told {
    let number = |name: &str| {
        values.iter().find_map(|(key, value)| match value {
            Value::Number(number) if key == name => Some(*number),
            _ => None,
        })
    };
    let bytes = |name: &str| number(name).and_then(|kib| kib.checked_mul(1024));
    let memory = GuestMemory {
        last_update: number("balloon.last-update").unwrap_or(0),
        total: bytes("balloon.available"),
        free: bytes("balloon.unused"),
        available: bytes("balloon.usable"),
        caches: bytes("balloon.disk_caches"),
    };
    let mut disks: BTreeMap<usize, Disk> = BTreeMap::new();
    for (key, value) in values {
        let Some((index, figure)) = key.strip_prefix("block.").and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        let Some(index) = index.parse().ok().filter(|index| *index < MAX_ROWS) else { continue };
        let disk = disks.entry(index).or_default();
        match (figure, value) {
            ("name", Value::Text(name)) => disk.device.clone_from(name),
            ("rd.reqs", Value::Number(count)) => disk.reads_completed = Some(*count),
            ("rd.bytes", Value::Number(count)) => disk.read_bytes = Some(*count),
            ("rd.times", Value::Number(ns)) => disk.read_time = Some(Duration::from_nanos(*ns)),
            ("wr.reqs", Value::Number(count)) => disk.writes_completed = Some(*count),
            ("wr.bytes", Value::Number(count)) => disk.written_bytes = Some(*count),
            ("wr.times", Value::Number(ns)) => disk.write_time = Some(Duration::from_nanos(*ns)),
            _ => {}
        }
    }
    let named = |mut disk: Disk| {
        disk.device = bounds::name(std::mem::take(&mut disk.device))?;
        Some(disk)
    };
    let monitor = Monitor {
        vcpus: Vec::new(),
        balloon: bytes("balloon.current"),
        disks: disks.into_values().filter_map(named).collect(),
    };
    let memory = monitor::is_fresh(memory.last_update, None, now).then_some(memory);
    monitor::Told { monitor, memory, socket: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domains_figures_are_put_together() {
        let number = |name: &str, value| (name.to_owned(), Value::Number(value));
        let values = [
            number("balloon.current", 1024),
            number("balloon.available", 900),
            number("balloon.unused", 500),
            number("balloon.last-update", 990),
            number("block.count", 2),
            ("block.1.name".to_owned(), Value::Text("vdb".to_owned())),
            number("block.1.rd.bytes", 5),
            number("block.1.wr.times", 1_500_000_000),
            number("block.0.rd.bytes", 5),
            number("block.99999999.rd.bytes", 5),
            number("block.x.rd.bytes", 5),
        ];
        let told = figures(&values, SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
        assert_eq!(told.monitor.balloon, Some(1 << 20));
        assert_eq!(told.monitor.disks.len(), 1, "a disk without a name is none");
        assert_eq!(
            (told.monitor.disks[0].device.as_str(), told.monitor.disks[0].read_bytes),
            ("vdb", Some(5))
        );
        assert_eq!(told.monitor.disks[0].write_time, Some(Duration::from_millis(1500)));
        let memory = told.memory.unwrap();
        assert_eq!((memory.total, memory.free, memory.caches), (Some(900 << 10), Some(500 << 10), None));
        assert_eq!(figures(&values, SystemTime::UNIX_EPOCH + Duration::from_secs(5000)).memory, None);
    }
}

//! All that can be asked about one virtual machine, best first, and what became of it.

use std::future::Future;
use std::io;
use std::time::Duration;

use miharu_api::report::PORT;
use miharu_instances::{Owner, Vm};
use miharu_linux::Roots;
use miharu_linux::block::Layers;
use miharu_metrics::figures::Figures;
use tokio::time::{Instant, timeout_at};

use super::agent::{Agent, Place};
use super::backoff::{Backoff, FIRST_PAUSE, LONGEST_PAUSE};
use super::bounds::MAX_ROWS;
use super::guard::Guard;
use super::guest_agent::GuestAgent;
use super::incus::IncusAgent;
use super::libvirt_source::{Libvirt, Wanted};
use super::monitor::{self, Qmp};
use super::origin::{GuestWay, MonitorWay};
use super::report::{self, Guest};

/// The virtio-serial port of qemu-guest-agent.
pub(crate) const GUEST_AGENT_PORT: &str = "org.qemu.guest_agent.0";

/// Something that can be asked, and keeps its connection from one question to the next.
pub(crate) trait Source {
    /// What it tells.
    type Told;

    /// Asks; given up at `until` by the caller.
    fn ask(&mut self, until: Instant) -> impl Future<Output = io::Result<Self::Told>> + Send;

    /// Whether something in the guest was heard on the connection, or something on the host keeps it from being asked. Where
    /// neither is so, there may be no agent.
    fn is_heard(&self) -> bool {
        false
    }

    /// Drops the connection.
    fn reset(&mut self);
}

/// An error of a source that did not answer in time.
pub(crate) fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what}: no answer in time"))
}

/// Who told the figures of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Teller {
    Agent,
    GuestAgent,
}

/// What was told about a machine in one collection.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) guest: Option<(Teller, Guest)>,
    pub(crate) monitor: monitor::Told,
    /// The ways in which the two were told.
    pub(crate) guest_way: Option<GuestWay>,
    pub(crate) monitor_way: Option<MonitorWay>,
    /// Whether there is a way to ask the guest that has never been answered yet.
    pub(crate) is_awaited: bool,
    /// What is missing: what answered not long ago and does not any more, or is not believed.
    pub(crate) problems: Vec<String>,
    /// What else an operator should know: an agent that never gave an answer and says something, lists that are too long.
    pub(crate) remarks: Vec<String>,
}

impl Told {
    fn tell(&mut self, way: GuestWay, guest: Guest) {
        self.guest = Some((way.teller(), guest));
        self.guest_way = Some(way);
    }
}

/// What is known of a way to ask the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// There is none.
    #[default]
    Absent,
    /// It has not been answered yet.
    Silent,
    /// It has been.
    HasAnswered,
}

/// A source with its failures.
#[derive(Debug)]
struct Slot<S> {
    source: Option<S>,
    backoff: Backoff,
    last_answer: Option<Instant>,
    problem: Option<Problem>,
}

/// What became of a source that is missed.
enum Lost {
    /// It answered not long ago.
    Gone(String),
    /// It never did, or long ago, and says something.
    Nonsense(String),
}

/// Why a source did not answer.
#[derive(Debug)]
struct Problem {
    why: String,
    /// Whether it was heard nevertheless.
    is_heard: bool,
}

impl<S: Source> Slot<S> {
    fn new(source: Option<S>) -> Self {
        Self { source, backoff: Backoff::default(), last_answer: None, problem: None }
    }

    fn state(&self) -> State {
        match (&self.source, self.last_answer) {
            (None, _) => State::Absent,
            (Some(_), None) => State::Silent,
            (Some(_), Some(_)) => State::HasAnswered,
        }
    }

    fn answered_last(&self) -> bool {
        self.last_answer.is_some() && self.problem.is_none()
    }

    async fn ask(&mut self, until: Instant, longest_pause: Duration) -> Option<S::Told> {
        let source = self.source.as_mut()?;
        if !self.backoff.is_over(Instant::now().into_std()) {
            return None;
        }
        let result = match timeout_at(until, source.ask(until)).await {
            Ok(result) => result,
            Err(_) => {
                let why =
                    if source.is_heard() { "no end of its answer in time" } else { "no answer in time" };
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        };
        match result {
            Ok(told) => {
                self.backoff.answered();
                self.problem = None;
                self.last_answer = Some(Instant::now());
                Some(told)
            }
            Err(error) => {
                self.fail(&error.to_string(), longest_pause);
                None
            }
        }
    }

    fn fail(&mut self, why: &str, longest_pause: Duration) {
        let is_heard = self.source.as_ref().is_some_and(Source::is_heard);
        if let Some(source) = &mut self.source {
            source.reset();
        }
        self.backoff.failed(Instant::now().into_std(), longest_pause);
        self.problem = Some(Problem { why: why.to_owned(), is_heard });
    }

    /// What is wrong, where it answered less than `memory` ago or says something that is no answer.
    fn lost(&self, name: &str, memory: Duration) -> Option<Lost> {
        let Problem { why, is_heard } = self.problem.as_ref()?;
        if self.last_answer.is_some_and(|answer| answer.elapsed() < memory) {
            return Some(Lost::Gone(format!("{name} does not answer any more: {why}")));
        }
        is_heard.then(|| Lost::Nonsense(format!("{name} does not answer as it should: {why}")))
    }
}

/// One machine's sources.
#[derive(Debug)]
pub(crate) struct Session {
    port: Slot<Agent>,
    vsock: Slot<Agent>,
    incus: Slot<IncusAgent>,
    guest_agent: Slot<GuestAgent>,
    libvirt: Slot<Libvirt>,
    monitor: Slot<Qmp>,
    guard: Guard,
    layers: Layers,
}

/// The limits of one round of questions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// When it ends.
    pub(crate) until: Instant,
    /// Whether the machine started so lately that its guest may still be booting.
    pub(crate) age: Age,
    /// For how long a source that has stopped answering is worth a word.
    pub(crate) memory: Duration,
    /// How often a guest is told to report its memory; zero for never.
    pub(crate) balloon_interval: Duration,
}

/// Whether a guest may still be booting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// It may; its sources are tried often.
    Young,
    /// It is up, or never will be.
    Grown,
}

impl Session {
    pub(crate) fn new(roots: &Roots, vm: &Vm, layers: Layers) -> Self {
        let channel = |port: &str| {
            vm.channels.iter().find(|channel| channel.port == port).map(|channel| channel.socket.clone())
        };
        let port = channel(PORT).map(|socket| Agent::new(roots, Place::Port(socket)));
        let vsock = vm.vsock.clone().map(|how| Agent::new(roots, Place::Vsock(how)));
        let incus = vm
            .vsock
            .clone()
            .zip(vm.certificates.clone())
            .map(|(how, place)| IncusAgent::new(roots, how, place));
        let libvirt = match &vm.owner {
            Owner::Libvirt { domain } => Some(Libvirt::new(roots, domain, vm, layers)),
            Owner::Incus | Owner::Lxd | Owner::Nobody => None,
        };
        // libvirt holds the agent's channel of its domains itself.
        let guest_agent = channel(GUEST_AGENT_PORT)
            .filter(|_| libvirt.is_none())
            .map(|socket| GuestAgent::new(roots, socket, layers));
        Self {
            port: Slot::new(port),
            vsock: Slot::new(vsock),
            incus: Slot::new(incus),
            guest_agent: Slot::new(guest_agent),
            libvirt: Slot::new(libvirt),
            monitor: Slot::new(Qmp::new(roots, &vm.monitors)),
            guard: Guard::default(),
            layers,
        }
    }

    /// Asks all sources at once, but qemu-guest-agent only where a better one does not answer: that costs the guest some work.
    pub(crate) async fn ask(&mut self, limits: Limits) -> Told {
        let Limits { until, age, memory, balloon_interval } = limits;
        let pause = match age {
            Age::Young => FIRST_PAUSE,
            Age::Grown => LONGEST_PAUSE,
        };
        let has_agent = self.port.answered_last() || self.vsock.answered_last() || self.incus.answered_last();
        let is_second = self.guest_agent.source.is_some() || self.libvirt.source.is_some();
        let now = Instant::now();
        // An agent that hangs leaves the next one time to answer in its place.
        let first = if is_second { now + until.saturating_duration_since(now) / 2 } else { until };
        if let Some(libvirt) = &mut self.libvirt.source {
            libvirt.guest = if has_agent { Wanted::No } else { Wanted::Yes };
        }
        if let Some(monitor) = &mut self.monitor.source {
            // A guest with an agent tells its memory without.
            monitor.interval = if has_agent { Duration::ZERO } else { balloon_interval };
        }
        let Self { port, vsock, incus, guest_agent, libvirt, monitor, .. } = self;
        let on_host = async { tokio::join!(monitor.ask(until, pause), libvirt.ask(until, pause)) };
        let of_guest = async { if has_agent { None } else { guest_agent.ask(until, pause).await } };
        let (by_port, by_vsock, by_incus, (from_monitor, from_libvirt), mut from_guest_agent) = tokio::join!(
            port.ask(first, pause),
            vsock.ask(first, pause),
            incus.ask(first, pause),
            on_host,
            of_guest,
        );
        let mut told = Told::default();
        let report = by_port
            .map(|report| (GuestWay::Port, report))
            .or(by_vsock.map(|report| (GuestWay::Vsock, report)))
            .or(by_incus.flatten().map(|report| (GuestWay::Managed, report)));
        let guest = report.and_then(|(way, report)| Some((way, report::guest(report, self.layers)?)));
        if let Some((way, guest)) = guest {
            told.remarks.extend(full(&guest.figures));
            match admit(&mut self.guard, guest) {
                Ok(guest) => told.tell(way, guest),
                Err(why) => told.problems.push(format!("the guest's agent is not believed: {why}")),
            }
        }
        if told.guest.is_none() && has_agent {
            from_guest_agent = self.guest_agent.ask(until, pause).await;
        }
        let (on_libvirt, of_libvirt) = from_libvirt.map_or((None, None), |told| (told.machine, told.guest));
        let by_guest_agent = from_guest_agent
            .map(|told| (GuestWay::GuestAgent, told))
            .or(of_libvirt.map(|told| (GuestWay::Libvirt, told)));
        if let Some((way, (guest, problem))) = by_guest_agent
            && told.guest.is_none()
        {
            told.problems.extend(problem.map(|error| format!("qemu-guest-agent did not tell all: {error}")));
            told.remarks.extend(full(&guest.figures));
            match admit(&mut self.guard, guest) {
                Ok(guest) => told.tell(way, guest),
                Err(why) => told.problems.push(format!("qemu-guest-agent is not believed: {why}")),
            }
        }
        told.is_awaited = self.is_awaited();
        let by_monitor = from_monitor.map(|told| (MonitorWay::Qmp(told.socket), told));
        let by_monitor = by_monitor.or(on_libvirt.map(|told| (MonitorWay::Libvirt, told)));
        if let Some((way, monitor)) = by_monitor {
            (told.monitor, told.monitor_way) = (monitor, Some(way));
        }
        for lost in self.lost(told.guest.as_ref().map(|(teller, _)| *teller), memory) {
            match lost {
                Lost::Gone(problem) => told.problems.push(problem),
                Lost::Nonsense(remark) => told.remarks.push(remark),
            }
        }
        told
    }

    /// Whether the guest can be asked, and never was with success.
    fn is_awaited(&self) -> bool {
        let states = [
            self.port.state(),
            self.vsock.state(),
            self.incus.state(),
            self.guest_agent.state(),
            self.libvirt.source.as_ref().map(|libvirt| libvirt.guest_state()).unwrap_or_default(),
        ];
        states.contains(&State::Silent) && !states.contains(&State::HasAnswered)
    }

    /// The sources that are missed: not those that a better one answers in place of.
    fn lost(&self, teller: Option<Teller>, memory: Duration) -> Vec<Lost> {
        let agent = || {
            let port = self.port.lost("the guest's agent on its virtio-serial port", memory);
            let vsock = self.vsock.lost("the guest's agent on its vsock port", memory);
            [port, vsock, self.incus.lost("the guest's Incus or LXD agent", memory)]
        };
        let mut lost = Vec::new();
        if teller != Some(Teller::Agent) {
            lost.extend(agent().into_iter().flatten());
            if teller.is_none() {
                lost.extend(self.guest_agent.lost("qemu-guest-agent", memory));
            }
        }
        lost.extend(self.monitor.lost("the machine's monitor", memory));
        lost.extend(self.libvirt.lost("libvirt", memory));
        lost
    }
}

/// Which lists of a guest's devices are as long as is taken of one guest; whether it had more is not known any more. What is in
/// them twice is told where they are sorted.
fn full(figures: &Figures) -> impl Iterator<Item = String> {
    let lengths = [
        ("disks", figures.disks.len()),
        ("network interfaces", figures.interfaces.len()),
        ("file systems", figures.filesystems.len()),
    ];
    lengths
        .into_iter()
        .filter(|(_, length)| *length >= MAX_ROWS)
        .map(|(kind, _)| format!("its guest tells of {MAX_ROWS} {kind} or more: further ones are left out"))
}

fn admit(guard: &mut Guard, mut guest: Guest) -> Result<Guest, super::guard::Fell> {
    let figures: Figures = std::mem::take(&mut guest.figures);
    guest.figures = guard.admit(figures, guest.boot.take(), std::time::Instant::now())?;
    Ok(guest)
}

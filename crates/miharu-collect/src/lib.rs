//! The figures of every instance, each with its own deadline, all within one.
//!
//! [`Collector::collect`] is synchronous and meant for one caller at a time. What an instance's own files do to it, hang,
//! vanish or lie, costs that instance its figures and no other.
#![forbid(unsafe_code)]

mod cgroups;
mod container;
mod cpu_sums;
mod datasets;
mod devices;
mod filesystems;
mod gpus;
mod hung;
mod jobs;
mod kept;
mod own_process;
mod round;
mod runtimes;
mod sources;
mod vm;
mod warning;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use miharu_instances::{Chosen, Incarnation, Instance};
use miharu_metrics::server::{Process, Runtime};
use miharu_metrics::{InstanceFigures, Wanted};

pub use devices::Excluded;
pub use filesystems::SharedFilesystems;
pub use gpus::Start;
pub use miharu_linux::Roots;
pub use miharu_linux::block::Layers;
pub use miharu_linux::mounts::RemoteFilesystems;
pub use own_process::own_process;
pub use sources::{CgroupPlace, Group, Question, Sources, sources};
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::runtimes::fuzzing::daemon;
    pub use crate::vm::fuzzing::{Liar, agent, guest_agent, libvirt, monitor};
}
pub use vm::{Addresses, Origin};
pub use warning::{InstanceName, Warning, WarningKind};

/// What the daemon asks of its host outside of a collection.
pub mod host {
    pub use miharu_linux::addresses::own_addresses;
    pub use miharu_linux::capability::{CAPABILITIES, Capabilities, Capability, Cost};
    pub use miharu_linux::cgroup::{Hierarchies, Version};
    pub use miharu_linux::confinement;
    pub use miharu_linux::heap::share as share_heap;
    pub use miharu_linux::opening::{Opening, open_below, openings};
    pub use miharu_linux::read::{Buffer, number_file};
    pub use miharu_linux::resources;
    pub use miharu_linux::socket::{Listener, listener};
    pub use miharu_linux::unix_sockets;
}

use cpu_sums::CpuSums;
use gpus::Gpus;
use hung::Hung;
use jobs::Runner;
use kept::{Instances, LastHostMounts};
use miharu_linux::kept::Budget;
use miharu_linux::networks::Networks;
use miharu_linux::statfs::Pool;
use miharu_linux::zfs::Datasets;
use runtimes::Runtimes;
use vm::Guests;

/// Threads that ask for the sizes of file systems: one does it all, unless some take long, as those that hang do at first.
const STATFS_THREADS: usize = 8;

/// What the server keys say about a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The instances that are served.
    pub chosen: Arc<Chosen>,
    /// The parts of the figures that somebody wants.
    pub wanted: Wanted,
    /// Devices that are left out.
    pub excluded: Excluded,
    /// Whether CPU time is told of each CPU.
    pub cpus: Cpus,
    /// Whether file systems are reported that an instance only has a directory on.
    pub shared_filesystems: SharedFilesystems,
    /// Whether file systems are asked that a process or another machine answers for.
    pub remote_filesystems: RemoteFilesystems,
    /// Which layers of stacked block devices are reported.
    pub disk_layers: Layers,
    /// The time that one instance is given.
    pub instance_timeout: Duration,
    /// The time that all are given together.
    pub collect_timeout: Duration,
    /// How long after the start of a virtual machine its guest is waited for before host figures are served.
    pub agent_grace: Duration,
    /// How many files of instances may be kept open between collections.
    pub kept_files: usize,
    /// How often a guest's balloon driver is told to report the guest's memory, where nobody told it yet; zero for never.
    pub balloon_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chosen: Arc::default(),
            wanted: Wanted::default(),
            excluded: Excluded::default(),
            cpus: Cpus::default(),
            shared_filesystems: SharedFilesystems::default(),
            remote_filesystems: RemoteFilesystems::default(),
            disk_layers: Layers::default(),
            instance_timeout: Duration::from_secs(2),
            collect_timeout: Duration::from_secs(4),
            agent_grace: Duration::from_secs(120),
            kept_files: 16384,
            balloon_interval: Duration::ZERO,
        }
    }
}

impl Options {
    /// Whether a collection under these options tells all that one under `other` would, and nothing of it otherwise.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let Self { wanted, .. } = self;
        wanted.covers(other.wanted) && *self == Self { wanted: *wanted, ..other.clone() }
    }
}

/// How CPU time is told (`metrics.per_cpu`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cpus {
    /// Of each CPU.
    #[default]
    Each,
    /// Of all together.
    Together,
}

/// What a collection found.
#[derive(Debug)]
pub struct Collection {
    /// The instances with their figures, in no particular order.
    pub instances: Vec<InstanceFigures>,
    /// What guests told of themselves that is no figure, for each virtual machine.
    pub guests: Vec<Guest>,
    /// What the daemons of Incus and LXD told.
    pub runtimes: Vec<Runtime>,
    /// What went wrong, sorted, nothing twice.
    pub warnings: Vec<Warning>,
    /// When it began.
    pub started: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// The figures of this process.
    pub process: Process,
    /// What the host has.
    pub host: HostSize,
}

/// What the host has for all of its instances together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostSize {
    /// CPUs that run.
    pub cpus: Option<u32>,
    /// Memory in bytes.
    pub memory: Option<u64>,
}

/// What the guest of a virtual machine told of itself, and who told the machine's figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guest {
    /// The project of its instance.
    pub project: String,
    /// The name of its instance.
    pub name: String,
    /// The addresses of its interfaces.
    pub addresses: Vec<Addresses>,
    /// What it calls itself.
    pub hostname: Option<String>,
    /// Who told its figures.
    pub origin: Origin,
}

/// Reads the figures of instances. It keeps what lasts from one collection to the next: the threads that may hang, and
/// which instances they hang on.
#[derive(Debug)]
pub struct Collector {
    roots: Roots,
    runner: Runner,
    statfs: Pool,
    hung: Hung<Incarnation>,
    guests: Guests,
    runtimes: Runtimes,
    gpus: Gpus,
    /// Locked for the one part of a collection that reads them.
    datasets: Mutex<Datasets>,
    cpu_sums: CpuSums,
    budget: Budget,
    kept: Instances,
    networks: Arc<Networks>,
    host_mounts: LastHostMounts,
    clock: fn() -> SystemTime,
}

impl Collector {
    /// A collector for the host behind `roots`.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self::with_clock(roots, SystemTime::now)
    }

    /// A collector that takes the time of day from `clock`, for a host that was recorded.
    #[must_use]
    pub fn with_clock(roots: Roots, clock: fn() -> SystemTime) -> Self {
        let statfs = Pool::new(roots.clone(), STATFS_THREADS);
        let guests = Guests::new(roots.clone());
        let runtimes = Runtimes::new(roots.clone());
        let gpus = Gpus::new(&roots);
        let datasets = Mutex::new(Datasets::new(&roots));
        let budget = Budget::default();
        let networks = Arc::new(Networks::new(roots.clone(), budget.clone()));
        Self {
            roots,
            runner: Runner::default(),
            statfs,
            hung: Hung::default(),
            guests,
            runtimes,
            gpus,
            datasets,
            cpu_sums: CpuSums::default(),
            kept: Instances::new(budget.clone()),
            budget,
            networks,
            host_mounts: LastHostMounts::default(),
            clock,
        }
    }

    /// With another way to start the thread that opens devices, where the caller's threads may not.
    #[must_use]
    pub fn starting(mut self, start: Start) -> Self {
        self.gpus.start_by(start);
        self
    }

    /// Collects the figures of `instances`. It comes back after `options.collect_timeout` at the latest; an instance that
    /// vanished is left out, one that could not be read in time is there with nothing but its failure.
    #[must_use]
    pub fn collect(&self, instances: &[Arc<Instance>], options: &Options) -> Collection {
        self.budget.set_limit(options.kept_files.min(spare_descriptors(instances.len())));
        if self.budget.used() > self.budget.limit() {
            // What is over the new limit is closed with the rest, and as much as fits is opened again.
            self.kept.clear();
        }
        round::collect(self, instances, options)
    }
}

/// Descriptors for connections and everything else that comes and goes.
const RESERVE: usize = 2048;

/// Descriptors that an instance takes whether or not its files are kept: its process' directory and pidfd, the pidfd that
/// ends a kept file of its network, and the connections to a guest.
const OF_AN_INSTANCE: usize = 5;

/// How many of the process' descriptors may hold kept files, in steps, so that one instance more does not close them all.
fn spare_descriptors(instances: usize) -> usize {
    const STEP: usize = 1024;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let taken = instances.saturating_mul(OF_AN_INSTANCE).saturating_add(RESERVE);
    limit.saturating_sub(taken) / STEP * STEP
}

//! The figures of one instance, as typed as the kernel tells them. Absent is not zero: what could not be read is
//! `None`, or a row that is not there.

use std::cmp::Ordering;
use std::time::Duration;

/// What an instance is, the value of the label `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstanceType {
    /// A container: processes of this host's kernel.
    Container,
    /// A virtual machine.
    VirtualMachine,
}

impl InstanceType {
    /// The label's value, as Incus and LXD write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::VirtualMachine => "virtual-machine",
        }
    }
}

/// One instance and what is known of it.
#[derive(Debug, Clone)]
pub struct InstanceFigures {
    /// The project that it belongs to, the label `project`.
    pub project: String,
    /// Its name, the label `name`.
    pub name: String,
    /// The label `type`.
    pub instance_type: InstanceType,
    /// What it costs and has.
    pub figures: Figures,
}

impl InstanceFigures {
    /// What makes this instance's series its own.
    #[must_use]
    pub fn key(&self) -> (&str, &str, InstanceType) {
        (&self.project, &self.name, self.instance_type)
    }
}

/// The figures of one instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// When it started, seconds since the epoch.
    pub boot_time_seconds: Option<f64>,
    /// CPU time used, a row a CPU.
    pub cpus: Vec<CpuTimes>,
    /// CPUs that it may run on.
    pub cpu_effective: Option<u64>,
    /// CPU bandwidth control.
    pub throttling: Throttling,
    /// CPU bandwidth granted, in CPUs.
    pub cpu_limit_cores: Option<f64>,
    /// Block devices, a row a device.
    pub disks: Vec<Disk>,
    /// File systems, a row a mount point.
    pub filesystems: Vec<Filesystem>,
    /// Memory.
    pub memory: Memory,
    /// Network interfaces, a row an interface.
    pub interfaces: Vec<Interface>,
    /// Tasks (containers) or processes (guests).
    pub procs: Option<u64>,
    /// The instance's own clock, seconds since the epoch.
    pub time_seconds: Option<f64>,
    /// Time lost in waiting for a resource.
    pub pressure: Pressure,
    /// What the virtual machine monitor itself takes from the host, for virtual machines only.
    pub hypervisor: Hypervisor,
    /// Graphics processors, a row each that it uses.
    pub gpus: Vec<Gpu>,
    /// What runs it and where its figures come from.
    pub info: Option<Info>,
    /// How its last collection went.
    pub scrape: Option<Scrape>,
}

impl Figures {
    /// Sorts every row into its stable order and drops the later of two rows that would be the same series. Tells how
    /// many it dropped.
    pub fn normalise(&mut self) -> usize {
        let before = self.rows();
        self.cpus.sort_by_key(|row| row.cpu);
        self.cpus.dedup_by_key(|row| row.cpu);
        unique(&mut self.disks, |a, b| a.device.cmp(&b.device));
        unique(&mut self.filesystems, |a, b| a.key().cmp(&b.key()));
        unique(&mut self.interfaces, |a, b| a.device.cmp(&b.device));
        unique(&mut self.gpus, |a, b| a.gpu.cmp(&b.gpu));
        before - self.rows()
    }

    /// Puts one row in the place of those of single CPUs: the sums over all of them.
    pub fn sum_cpus(&mut self) {
        self.cpus = CpuTimes::sum(&self.cpus).into_iter().collect();
    }

    fn rows(&self) -> usize {
        self.cpus.len() + self.disks.len() + self.filesystems.len() + self.interfaces.len() + self.gpus.len()
    }
}

/// Sorts rows and leaves each of several equal ones but the first out. Rows mostly come sorted, so that this only looks.
fn unique<T>(rows: &mut Vec<T>, order: impl Fn(&T, &T) -> Ordering) {
    rows.sort_by(&order);
    rows.dedup_by(|later, first| order(first, later).is_eq());
}

/// What CPU time was spent on: the values of the label `mode`. They never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CpuMode {
    /// User code, guest time included.
    User,
    /// User code of lowered priority.
    Nice,
    /// The kernel, for the instance.
    System,
    /// Nothing: not time used.
    Idle,
    /// Nothing, with input or output outstanding: not time used.
    Iowait,
    /// Interrupts.
    Irq,
    /// Soft interrupts.
    Softirq,
    /// Taken by the hypervisor: not time used.
    Steal,
    /// Guest code, seen from the host.
    VcpuUser,
    /// The host's kernel, for a vCPU.
    VcpuSystem,
}

impl CpuMode {
    /// Every mode, in the order in which they are written.
    pub const ALL: [Self; 10] = [
        Self::Idle,
        Self::Iowait,
        Self::Irq,
        Self::Nice,
        Self::Softirq,
        Self::Steal,
        Self::System,
        Self::User,
        Self::VcpuSystem,
        Self::VcpuUser,
    ];

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Nice => "nice",
            Self::System => "system",
            Self::Idle => "idle",
            Self::Iowait => "iowait",
            Self::Irq => "irq",
            Self::Softirq => "softirq",
            Self::Steal => "steal",
            Self::VcpuUser => "vcpu_user",
            Self::VcpuSystem => "vcpu_system",
        }
    }
}

/// The time that one CPU spent, or all together, a counter for each mode that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// The CPU's number; nothing for the sum over all CPUs, which has no label `cpu`.
    pub cpu: Option<u32>,
    /// Time by mode, in the order of [`CpuMode::ALL`].
    times: [Option<Duration>; CpuMode::ALL.len()],
}

impl CpuTimes {
    /// A CPU of which nothing is known yet.
    #[must_use]
    pub fn new(cpu: u32) -> Self {
        Self { cpu: Some(cpu), ..Self::default() }
    }

    /// What these CPUs spent together, in each mode that is known of one of them. Nothing without a CPU.
    #[must_use]
    pub fn sum(rows: &[Self]) -> Option<Self> {
        if rows.is_empty() {
            return None;
        }
        let mut sum = Self::default();
        for row in rows {
            for (slot, time) in sum.times.iter_mut().zip(row.times) {
                *slot = slot.map_or(time, |so_far| Some(so_far.saturating_add(time.unwrap_or_default())));
            }
        }
        Some(sum)
    }

    /// The same with `time` spent in `mode`.
    #[must_use]
    pub fn with(mut self, mode: CpuMode, time: Duration) -> Self {
        for (slot, _) in self.times.iter_mut().zip(CpuMode::ALL).filter(|(_, m)| *m == mode) {
            *slot = Some(time);
        }
        self
    }

    /// The modes that are known, in their stable order.
    pub fn known(&self) -> impl Iterator<Item = (CpuMode, Duration)> {
        CpuMode::ALL.into_iter().zip(self.times).filter_map(|(mode, time)| Some((mode, time?)))
    }
}

/// How often a CPU bandwidth limit held the instance back (`cpu.stat`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Enforcement periods that passed.
    pub periods: Option<u64>,
    /// Periods in which the instance was held back.
    pub throttled_periods: Option<u64>,
    /// Time for which it was held back.
    pub throttled_time: Option<Duration>,
}

/// The counters of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// The label `device`.
    pub device: String,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Reads that were completed.
    pub reads_completed: Option<u64>,
    /// Bytes written.
    pub written_bytes: Option<u64>,
    /// Writes that were completed.
    pub writes_completed: Option<u64>,
    /// Time that reads took.
    pub read_time: Option<Duration>,
    /// Time that writes took.
    pub write_time: Option<Duration>,
}

/// One mounted file system, seen from inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// What is mounted, the label `device`.
    pub device: String,
    /// The mount's own word for its type, the label `fstype`.
    pub fstype: String,
    /// Where it is mounted, the label `mountpoint`.
    pub mountpoint: String,
    /// Size in bytes.
    pub size_bytes: Option<u64>,
    /// Bytes free.
    pub free_bytes: Option<u64>,
    /// Bytes that an ordinary user may still take.
    pub avail_bytes: Option<u64>,
    /// Inodes.
    pub files: Option<u64>,
    /// Inodes free.
    pub files_free: Option<u64>,
    /// Whether the figures are those of a file system that others use too.
    pub sharing: Sharing,
}

impl Filesystem {
    /// What makes its series its own, in the order of the exposition.
    fn key(&self) -> (&str, &str, &str) {
        (&self.mountpoint, &self.device, &self.fstype)
    }
}

/// Whether a file system is an instance's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// It cannot be told.
    #[default]
    Unknown,
    /// A volume of its own, or a quota.
    Own,
    /// A directory on a file system that others use too.
    Shared,
}

/// Memory, in bytes unless said otherwise. The field names are those of the families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is documented by the HELP of the family of its name")]
pub struct Memory {
    pub active_anon: Option<u64>,
    pub active_file: Option<u64>,
    pub active: Option<u64>,
    pub inactive_anon: Option<u64>,
    pub inactive_file: Option<u64>,
    pub inactive: Option<u64>,
    pub unevictable: Option<u64>,
    pub cached: Option<u64>,
    pub dirty: Option<u64>,
    pub writeback: Option<u64>,
    pub mapped: Option<u64>,
    pub shmem: Option<u64>,
    pub sreclaimable: Option<u64>,
    pub rss: Option<u64>,
    pub hugepages_free: Option<u64>,
    pub hugepages_total: Option<u64>,
    pub mem_total: Option<u64>,
    pub mem_free: Option<u64>,
    pub mem_available: Option<u64>,
    pub oom_kills: Option<u64>,
    pub swap: Option<u64>,
    pub usage: Option<u64>,
    pub peak: Option<u64>,
    pub working_set: Option<u64>,
    pub major_faults: Option<u64>,
}

/// The counters of one direction of an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
    /// Errors.
    pub errs: Option<u64>,
    /// Packets dropped.
    pub drop: Option<u64>,
}

/// The counters of one network interface, from the instance's point of view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// The instance's own name for it, the label `device`.
    pub device: String,
    /// What came in.
    pub receive: Traffic,
    /// What went out.
    pub transmit: Traffic,
}

/// Time in which tasks waited for a resource (pressure stall information).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Some task waited for a CPU.
    pub cpu_waiting: Option<Duration>,
    /// Some task waited for memory.
    pub memory_waiting: Option<Duration>,
    /// All tasks waited for memory.
    pub memory_stalled: Option<Duration>,
    /// Some task waited for input or output.
    pub io_waiting: Option<Duration>,
    /// All tasks waited for input or output.
    pub io_stalled: Option<Duration>,
}

/// The virtual machine monitor's own memory on the host, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hypervisor {
    /// Resident, huge pages included.
    pub rss: Option<u64>,
    /// Swapped out.
    pub swap: Option<u64>,
}

/// What an instance takes of one graphics processor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gpu {
    /// The processor's UUID, the label `gpu`.
    pub gpu: String,
    /// The part of the time for which it computed for the instance, 0 to 1.
    pub utilization: Option<f64>,
    /// Bytes of its memory that the instance holds.
    pub memory_used_bytes: Option<u64>,
}

/// What runs an instance, and what answers for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The runtime, the label `runtime`.
    pub runtime: String,
    /// Where its figures come from, the label `source`.
    pub source: &'static str,
    /// The runtime's own identifier, the label `id`.
    pub id: String,
}

/// How the collection of an instance went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrape {
    /// Whether its figures could be read.
    pub success: bool,
    /// How long that took.
    pub duration: Duration,
}

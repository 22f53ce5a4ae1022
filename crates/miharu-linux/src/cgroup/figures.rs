//! The figures of one instance's cgroups: one result type for both cgroup versions. What the kernel does not tell is
//! absent, never 0.

use super::ancestors::{MemoryBounds, smaller};
use crate::error::Error;
use crate::host::HostFacts;

/// A limit as the kernel states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// At most so much, in the file's own unit (bytes for memory).
    Value(u64),
    /// No limit: `max` of cgroup v2, the largest page-rounded number of cgroup v1. Orders after every value.
    Max,
}

impl Limit {
    /// The limit in its unit, nothing where there is none.
    #[must_use]
    pub fn value(self) -> Option<u64> {
        match self {
            Self::Value(value) => Some(value),
            Self::Max => None,
        }
    }
}

/// Everything that an instance's cgroups tell. The fields keep cgroup v2's names where the kernel has one.
#[derive(Debug, Default)]
pub struct Figures {
    /// CPU time used, by CPU in numeric order on v1; one entry with `cpu: 0` for all CPUs together on v2.
    pub cpu_times: Vec<CpuTime>,
    /// How often and for how long the CPU limit held the instance back.
    pub throttling: Option<Throttling>,
    /// CPU bandwidth limit in cores, the smallest up the tree; absent where there is none.
    pub limit_cores: Option<f64>,
    /// How many CPUs the instance may run on, from the nearest cgroup up the tree that says so.
    pub cpus_effective: Option<u32>,
    /// Memory.
    pub memory: Memory,
    /// Block I/O by device, in the order of device numbers, no device twice. Partitions, loop and stacked devices are
    /// still in it: the caller knows the layers.
    pub io: Vec<Io>,
    /// Tasks, threads included: `pids.current`.
    pub tasks: Option<u64>,
    /// Pressure stall totals.
    pub pressure: Pressure,
    /// Files that are there and gave nothing (not readable, or not what they should hold), each with its path. Their
    /// figures are absent; the caller warns.
    pub problems: Vec<Error>,
}

/// CPU time that one CPU (v1) or all CPUs together (v2) spent on the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTime {
    /// The CPU's number, 0 for the one entry of v2.
    pub cpu: u32,
    /// Time in user mode, nanoseconds (exact on v1, from microseconds on v2).
    pub user_ns: u64,
    /// Time in the kernel, nanoseconds.
    pub system_ns: u64,
}

/// CFS bandwidth statistics, `cpu.stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttling {
    /// `nr_periods`: enforcement periods that have elapsed.
    pub periods: u64,
    /// `nr_throttled`: periods in which the instance was throttled.
    pub throttled_periods: u64,
    /// v2 `throttled_usec`, v1 `throttled_time`: how long, in nanoseconds.
    pub throttled_ns: u64,
}

/// Memory figures, in bytes unless they say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The smallest limit up the tree, this cgroup's own included. Absent when nothing could be read.
    pub limit: Option<Limit>,
    /// The smallest of the host's memory and `limit`: what the instance has in all.
    pub total: Option<u64>,
    /// `total` less `usage`.
    pub free: Option<u64>,
    /// The smallest, over the tree, of limit − usage + what is reclaimable (file − shmem + slab_reclaimable), and what is
    /// available on the host.
    pub available: Option<u64>,
    /// v2 `memory.current`, v1 `memory.usage_in_bytes`.
    pub usage: Option<u64>,
    /// v2 `memory.peak` (kernel 5.19), v1 `memory.max_usage_in_bytes`.
    pub peak: Option<u64>,
    /// `usage` less `inactive_file`.
    pub working_set: Option<u64>,
    /// v2 `memory.swap.current`, v1 `total_swap`.
    pub swap: Option<u64>,
    /// v2 `anon`, v1 `total_rss`.
    pub anon: Option<u64>,
    /// v2 `file`, v1 `total_cache`: the page cache, shmem included.
    pub file: Option<u64>,
    /// v2 `file_dirty`, v1 `total_dirty`.
    pub file_dirty: Option<u64>,
    /// v2 `file_writeback`, v1 `total_writeback`.
    pub file_writeback: Option<u64>,
    /// v2 `file_mapped`, v1 `total_mapped_file`.
    pub file_mapped: Option<u64>,
    /// v2 `shmem`, v1 `total_shmem`.
    pub shmem: Option<u64>,
    /// v2 `slab_reclaimable`; v1 has none.
    pub slab_reclaimable: Option<u64>,
    /// `active_anon`, v1 `total_active_anon`.
    pub active_anon: Option<u64>,
    /// `active_file`, v1 `total_active_file`.
    pub active_file: Option<u64>,
    /// `inactive_anon`, v1 `total_inactive_anon`.
    pub inactive_anon: Option<u64>,
    /// `inactive_file`, v1 `total_inactive_file`.
    pub inactive_file: Option<u64>,
    /// `unevictable`, v1 `total_unevictable`.
    pub unevictable: Option<u64>,
    /// `pgmajfault`, v1 `total_pgmajfault`: a count.
    pub pgmajfault: Option<u64>,
    /// `oom_kill` of `memory.events`, v1 of `memory.oom_control`: a count. On v1 it is the cgroup's own, so absent
    /// when the cgroup has children.
    pub oom_kills: Option<u64>,
    /// Huge pages that the instance may have: over the page sizes that are limited, Σ min(limit, the host's pool).
    /// Absent when no size is limited.
    pub hugetlb_total: Option<u64>,
    /// `hugetlb_total` less what is used of those sizes.
    pub hugetlb_free: Option<u64>,
}

impl Memory {
    /// `active_anon` and `active_file` together.
    #[must_use]
    pub fn active(&self) -> Option<u64> {
        Some(self.active_anon?.saturating_add(self.active_file?))
    }

    /// `inactive_anon` and `inactive_file` together.
    #[must_use]
    pub fn inactive(&self) -> Option<u64> {
        Some(self.inactive_anon?.saturating_add(self.inactive_file?))
    }
}

impl Memory {
    /// What a cgroup with this limit has left, with what it could give back, in bytes. Nothing where there is no limit
    /// or its use is unknown.
    pub(super) fn headroom(&self, limit: Option<Limit>) -> Option<u64> {
        let limit = limit?.value()?;
        let reclaimable = self
            .file?
            .saturating_sub(self.shmem.unwrap_or(0))
            .saturating_add(self.slab_reclaimable.unwrap_or(0));
        Some(limit.saturating_add(reclaimable).saturating_sub(self.usage?).min(limit))
    }

    /// Fills in what follows from the bounds up the tree and the host's memory.
    pub(super) fn within(self, bounds: MemoryBounds, host: &HostFacts) -> Self {
        let limit = bounds.limit.and_then(Limit::value);
        let total = smaller(limit, host.mem_total);
        // With a limit whose use is unknown, what the host has left would be far too much.
        let is_unknown = limit.is_some() && bounds.headroom.is_none();
        let less = |from: Option<u64>, what: Option<u64>| Some(from?.saturating_sub(what?));
        Self {
            limit: bounds.limit,
            total,
            free: less(total, self.usage),
            available: smaller(bounds.headroom, host.mem_available).filter(|_| !is_unknown),
            working_set: less(self.usage, self.inactive_file),
            ..self
        }
    }
}

/// What was read and written on one block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Io {
    /// Major device number.
    pub major: u32,
    /// Minor device number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Read operations completed.
    pub reads: Option<u64>,
    /// Bytes written.
    pub written_bytes: Option<u64>,
    /// Write operations completed.
    pub writes: Option<u64>,
}

/// Pressure stall totals in microseconds: *waiting* is the kernel's `some`, *stalled* its `full`. See
/// <https://docs.kernel.org/accounting/psi.html>.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// `cpu.pressure`, some.
    pub cpu_waiting_us: Option<u64>,
    /// `memory.pressure`, some.
    pub memory_waiting_us: Option<u64>,
    /// `memory.pressure`, full.
    pub memory_stalled_us: Option<u64>,
    /// `io.pressure`, some.
    pub io_waiting_us: Option<u64>,
    /// `io.pressure`, full.
    pub io_stalled_us: Option<u64>,
}

//! What is read of the host once a collection: memory, CPUs, huge pages, boot time.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::Error;
use crate::read::Buffer;
use crate::roots::Roots;

/// Facts of the host that several instances' figures need. What could not be read is absent.
#[derive(Debug, Default)]
pub struct HostFacts {
    /// MemTotal of `/proc/meminfo`, bytes.
    pub mem_total: Option<u64>,
    /// MemAvailable of `/proc/meminfo`, bytes.
    pub mem_available: Option<u64>,
    /// `btime` of `/proc/stat`: when the host booted, seconds since the epoch.
    pub boot_time: Option<u64>,
    /// `/proc/uptime`: how long the host has been up, time asleep included.
    pub uptime: Option<Duration>,
    /// Clock ticks a second, the unit of times in `/proc/PID/stat`: `sysconf(_SC_CLK_TCK)`.
    pub ticks_per_second: u64,
    /// CPUs that are plugged in: `/sys/devices/system/cpu/present`.
    pub cpus_present: Option<CpuList>,
    /// CPUs that run: `/sys/devices/system/cpu/online`.
    pub cpus_online: Option<CpuList>,
    /// Pools of huge pages, by size.
    pub huge_pages: Vec<HugePages>,
    /// Files that are there, or should be, and gave nothing.
    pub problems: Vec<Error>,
}

/// The host's pool of huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    /// Bytes a page.
    pub page_size: u64,
    /// `nr_hugepages`: pages in the pool.
    pub pages: u64,
}

/// A set of CPUs, as the kernel lists them: `0-3,7`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuList {
    ranges: Vec<RangeInclusive<u32>>,
}

impl CpuList {
    /// Parses the kernel's list format; an empty text is the empty set. Nothing when it is not a list.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let _ = text;
        None
    }

    /// How many CPUs are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        0
    }

    /// Whether `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.ranges.iter().any(|range| range.contains(&cpu))
    }
}

impl HostFacts {
    /// Reads them all.
    #[must_use]
    pub fn read(roots: &Roots, buffer: &mut Buffer) -> Self {
        let _ = (roots, buffer);
        Self { ticks_per_second: rustix::param::clock_ticks_per_second(), ..Self::default() }
    }
}

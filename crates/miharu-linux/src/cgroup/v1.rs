//! One instance's figures from v1 hierarchies, see <https://docs.kernel.org/admin-guide/cgroup-v1/>. Mirrors `v2`, file
//! by file.

pub mod parse;

use super::ancestors::{Ancestors, HugetlbLimits, Level, MemoryBounds, Place, smaller};
use super::cores;
use super::directory::{Directory, Reading};
use super::figures::{CpuTime, Io, Limit, Memory, Throttling};
use super::parts::Part;
use crate::host::{CpuList, HostFacts};
use crate::read::number_file;

/// CPU time of each CPU from `cpuacct.usage_all` (kernel 4.8).
pub(super) fn cpu_times(
    own: &mut Directory<'_>,
    host: &HostFacts,
    reading: &mut Reading<'_>,
) -> Vec<CpuTime> {
    let present = host.cpus_present.as_ref();
    own.parse("cpuacct.usage_all", reading, |text| parse::usage_all(text, present)).unwrap_or_default()
}

/// Throttling from the cpu controller's `cpu.stat`.
pub(super) fn throttling(own: &mut Directory<'_>, reading: &mut Reading<'_>) -> Option<Throttling> {
    own.parse("cpu.stat", reading, |text| Some(parse::cpu_stat(text))).flatten()
}

/// The CPU limit, `cpu.cfs_quota_us` and `cpu.cfs_period_us` of this cgroup and those above.
pub(super) fn bandwidth(
    own: &mut Directory<'_>,
    place: Place<'_>,
    reading: &mut Reading<'_>,
    ancestors: &mut Ancestors,
) -> Option<f64> {
    let above = ancestors
        .bandwidth
        .above(place, |above| read_bandwidth(&mut Directory::open_ancestor(above, reading)?, reading));
    read_bandwidth(own, reading).below(&above)
}

fn read_bandwidth(directory: &mut Directory<'_>, reading: &mut Reading<'_>) -> Option<f64> {
    let quota = directory.parse("cpu.cfs_quota_us", reading, parse::quota)?.value()?;
    cores(quota, directory.parse("cpu.cfs_period_us", reading, number_file)?)
}

/// How many CPUs there are for the cgroup, `cpuset.effective_cpus` of the nearest cgroup that has it.
pub(super) fn cpus_effective(
    own: &mut Directory<'_>,
    place: Place<'_>,
    reading: &mut Reading<'_>,
    ancestors: &mut Ancestors,
) -> Option<u32> {
    read_cpuset(own, reading).or_else(|| {
        ancestors
            .cpuset
            .above(place, |above| read_cpuset(&mut Directory::open_ancestor(above, reading)?, reading))
    })
}

fn read_cpuset(directory: &mut Directory<'_>, reading: &mut Reading<'_>) -> Option<u32> {
    let list = directory.parse("cpuset.effective_cpus", reading, CpuList::parse)?;
    Some(list.count()).filter(|count| *count > 0)
}

/// Memory: `memory.stat`, `memory.usage_in_bytes`, `.max_usage_in_bytes`, `.oom_control`, and the limits up the tree.
pub(super) fn memory(
    own: &mut Directory<'_>,
    place: Place<'_>,
    reading: &mut Reading<'_>,
    ancestors: &mut Ancestors,
) -> (Memory, MemoryBounds) {
    let parts = reading.parts;
    let (mut memory, mut hierarchical) = (Memory::default(), None);
    if parts.has_any(&[Part::Memory, Part::Swap]) {
        let stat = own.parse("memory.stat", reading, |text| Some(parse::memory_stat(text)));
        (memory, hierarchical) = stat.unwrap_or_default();
    }
    if parts.has(Part::MemoryPeak) {
        memory.peak = own.parse("memory.max_usage_in_bytes", reading, number_file);
    }
    // Kills in child cgroups are not in it: rather no figure than one that is too low.
    if parts.has(Part::OomKills) && own.has_children() == Some(false) {
        memory.oom_kills =
            own.parse("memory.oom_control", reading, |text| Some(parse::oom_kill(text))).flatten();
    }
    if !parts.has(Part::Memory) {
        return (memory, MemoryBounds::default());
    }
    memory.usage = own.parse("memory.usage_in_bytes", reading, number_file);
    // The kernel has already found the smallest limit up the tree; when there is none, nobody above need be asked.
    if hierarchical == Some(Limit::Max) {
        return (memory, MemoryBounds { limit: hierarchical, headroom: None });
    }
    let limit = own.parse("memory.limit_in_bytes", reading, parse::limit);
    let above = ancestors.memory.above(place, |above| read_memory_bounds(above, reading));
    let own_bounds = MemoryBounds { limit, headroom: memory.headroom(limit) };
    let bounds = own_bounds.below(&above);
    (memory, MemoryBounds { limit: smaller(bounds.limit, hierarchical), ..bounds })
}

/// What a cgroup above an instance's bounds; its use is read only where it is limited.
fn read_memory_bounds(place: Place<'_>, reading: &mut Reading<'_>) -> MemoryBounds {
    let Some(mut directory) = Directory::open_ancestor(place, reading) else {
        return MemoryBounds::default();
    };
    let limit = directory.parse("memory.limit_in_bytes", reading, parse::limit);
    if !matches!(limit, Some(Limit::Value(_))) {
        return MemoryBounds { limit, headroom: None };
    }
    let stat = directory.parse("memory.stat", reading, |text| Some(parse::memory_stat(text).0));
    let usage = directory.parse("memory.usage_in_bytes", reading, number_file);
    let memory = Memory { usage, ..stat.unwrap_or_default() };
    MemoryBounds { limit, headroom: memory.headroom(limit) }
}

/// Huge pages, total and free, from `hugetlb.SIZE.limit_in_bytes` up the tree and `hugetlb.SIZE.usage_in_bytes`.
pub(super) fn hugetlb(
    own: &mut Directory<'_>,
    place: Place<'_>,
    host: &HostFacts,
    reading: &mut Reading<'_>,
    ancestors: &mut Ancestors,
) -> (Option<u64>, Option<u64>) {
    let above = ancestors.hugetlb.above(place, |above| match Directory::open_ancestor(above, reading) {
        Some(mut directory) => read_hugetlb_limits(&mut directory, host, reading),
        None => HugetlbLimits::default(),
    });
    let limits = read_hugetlb_limits(own, host, reading).below(&above);
    limits.total_and_free(host, |size| {
        own.parse(&format!("hugetlb.{size}.usage_in_bytes"), reading, number_file)
    })
}

fn read_hugetlb_limits(
    directory: &mut Directory<'_>,
    host: &HostFacts,
    reading: &mut Reading<'_>,
) -> HugetlbLimits {
    HugetlbLimits::read(host, |size| {
        directory.parse(&format!("hugetlb.{size}.limit_in_bytes"), reading, parse::limit)
    })
}

/// Block I/O from the throttle policy's recursive files (kernel 4.16 has them recursive). Until a throttle limit is
/// set somewhere on the host the policy is off and they hold `Total 0` alone: no device, no figures.
pub(super) fn io(own: &mut Directory<'_>, reading: &mut Reading<'_>) -> Vec<Io> {
    let mut devices = Vec::new();
    let _ = own.parse("blkio.throttle.io_service_bytes_recursive", reading, |text| {
        parse::blkio(text, &mut devices, |io| (&mut io.read_bytes, &mut io.written_bytes));
        Some(())
    });
    let _ = own.parse("blkio.throttle.io_serviced_recursive", reading, |text| {
        parse::blkio(text, &mut devices, |io| (&mut io.reads, &mut io.writes));
        Some(())
    });
    devices
}

/// Tasks from `pids.current`.
pub(super) fn tasks(own: &mut Directory<'_>, reading: &mut Reading<'_>) -> Option<u64> {
    own.parse("pids.current", reading, number_file)
}

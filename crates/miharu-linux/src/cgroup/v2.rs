//! One instance's figures from a unified hierarchy, see <https://docs.kernel.org/admin-guide/cgroup-v2.html>. Mirrors
//! `v1`, file by file.

pub mod parse;

use super::ancestors::{Ancestors, HugetlbLimits, Level, MemoryBounds, Place};
use super::directory::{Directory, Reading};
use super::figures::{Figures, Io, Limit, Memory, Pressure};
use super::parts::Part;
use crate::host::{CpuList, HostFacts};
use crate::read::number_file;

/// CPU time from `cpu.stat`, which every cgroup has, with or without the cpu controller; throttling only with it.
pub(super) fn cpu(own: &mut Directory<'_>, reading: &mut Reading<'_>, figures: &mut Figures) {
    if let Some(stat) = own.parse("cpu.stat", reading, |text| Some(parse::CpuStat::parse(text))) {
        figures.cpu_times = stat.time().into_iter().collect();
        figures.throttling = stat.throttling();
    }
}

/// The CPU limit, `cpu.max` of this cgroup and those above.
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
    directory.parse("cpu.max", reading, parse::cpu_max).flatten()
}

/// How many CPUs there are for the cgroup, `cpuset.cpus.effective` of the nearest cgroup that has it.
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
    let list = directory.parse("cpuset.cpus.effective", reading, CpuList::parse)?;
    Some(list.count()).filter(|count| *count > 0)
}

/// Memory: `memory.stat`, `memory.current`, `.peak`, `.swap.current`, `.events`, and `memory.max` up the tree.
pub(super) fn memory(
    own: &mut Directory<'_>,
    place: Place<'_>,
    reading: &mut Reading<'_>,
    ancestors: &mut Ancestors,
) -> (Memory, MemoryBounds) {
    let parts = reading.parts;
    let mut memory = Memory::default();
    if parts.has(Part::Memory) {
        let stat = own.parse("memory.stat", reading, |text| Some(parse::memory_stat(text)));
        memory = stat.unwrap_or_default();
        memory.usage = own.parse("memory.current", reading, number_file);
    }
    if parts.has(Part::MemoryPeak) {
        memory.peak = own.parse("memory.peak", reading, number_file);
    }
    if parts.has(Part::Swap) {
        memory.swap = own.parse("memory.swap.current", reading, number_file);
    }
    if parts.has(Part::OomKills) {
        memory.oom_kills = own.parse("memory.events", reading, |text| Some(parse::oom_kill(text))).flatten();
    }
    if !parts.has(Part::Memory) {
        return (memory, MemoryBounds::default());
    }
    let limit = own.parse("memory.max", reading, parse::limit);
    let above = ancestors.memory.above(place, |above| read_memory_bounds(above, reading));
    let bounds = MemoryBounds { limit, headroom: memory.headroom(limit) }.below(&above);
    (memory, bounds)
}

/// What a cgroup above an instance's bounds; its use is read only where it is limited.
fn read_memory_bounds(place: Place<'_>, reading: &mut Reading<'_>) -> MemoryBounds {
    let Some(mut directory) = Directory::open_ancestor(place, reading) else {
        return MemoryBounds::default();
    };
    let limit = directory.parse("memory.max", reading, parse::limit);
    if !matches!(limit, Some(Limit::Value(_))) {
        return MemoryBounds { limit, headroom: None };
    }
    let stat = directory.parse("memory.stat", reading, |text| Some(parse::memory_stat(text)));
    let usage = directory.parse("memory.current", reading, number_file);
    let memory = Memory { usage, ..stat.unwrap_or_default() };
    MemoryBounds { limit, headroom: memory.headroom(limit) }
}

/// Huge pages, total and free, from `hugetlb.SIZE.max` up the tree and `hugetlb.SIZE.current`.
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
    limits.total_and_free(host, |size| own.parse(&format!("hugetlb.{size}.current"), reading, number_file))
}

fn read_hugetlb_limits(
    directory: &mut Directory<'_>,
    host: &HostFacts,
    reading: &mut Reading<'_>,
) -> HugetlbLimits {
    HugetlbLimits::read(host, |size| directory.parse(&format!("hugetlb.{size}.max"), reading, parse::limit))
}

/// Block I/O from `io.stat`.
pub(super) fn io(own: &mut Directory<'_>, reading: &mut Reading<'_>) -> Vec<Io> {
    own.parse("io.stat", reading, |text| Some(parse::io_stat(text))).unwrap_or_default()
}

/// Tasks from `pids.current`.
pub(super) fn tasks(own: &mut Directory<'_>, reading: &mut Reading<'_>) -> Option<u64> {
    own.parse("pids.current", reading, number_file)
}

/// Pressure from `cpu.pressure`, `memory.pressure`, `io.pressure` (kernel 4.20, `CONFIG_PSI`). There is none on v1, so
/// a hybrid host's v1 instances have theirs from here too.
pub(super) fn pressure(own: &mut Directory<'_>, reading: &mut Reading<'_>) -> Pressure {
    let mut stalls = |part, file| {
        let is_wanted = reading.parts.has(part);
        let stalls = is_wanted.then(|| own.parse(file, reading, |text| Some(parse::Stalls::parse(text))));
        stalls.flatten().unwrap_or_default()
    };
    let cpu = stalls(Part::PressureCpu, "cpu.pressure");
    let memory = stalls(Part::PressureMemory, "memory.pressure");
    let io = stalls(Part::PressureIo, "io.pressure");
    Pressure {
        cpu_waiting_us: cpu.some,
        memory_waiting_us: memory.some,
        memory_stalled_us: memory.full,
        io_waiting_us: io.some,
        io_stalled_us: io.full,
    }
}

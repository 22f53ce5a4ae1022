//! One instance's figures from a unified hierarchy, see <https://docs.kernel.org/admin-guide/cgroup-v2.html>. Mirrors
//! `v1`, file by file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::ancestors::{Ancestors, HugetlbLimits, Level, MemoryBounds, Place};
use super::directory::{Directory, Reading};
use super::figures::{CpuTime, Figures, Io, Limit, Memory, Pressure, Throttling};
use super::{cores, device_number, pair};
use crate::host::{CpuList, HostFacts};
use crate::read::{fields, lines, number, number_file};

/// CPU time from `cpu.stat`, which every cgroup has, with or without the cpu controller; throttling only with it.
pub(super) fn cpu(own: &mut Directory, reading: &mut Reading<'_>, figures: &mut Figures) {
    if let Some(stat) = own.parse("cpu.stat", reading, |text| Some(CpuStat::parse(text))) {
        figures.cpu_times = stat.time().into_iter().collect();
        figures.throttling = stat.throttling();
    }
}

/// The CPU limit, `cpu.max` of this cgroup and those above.
pub(super) fn bandwidth(
    own: &mut Directory,
    place: Place<'_>,
    reading: &mut Reading<'_>,
    ancestors: &mut Ancestors,
) -> Option<f64> {
    let above = ancestors.bandwidth.above(place, |path| read_bandwidth(&mut open(path)?, reading));
    read_bandwidth(own, reading).below(&above)
}

fn read_bandwidth(directory: &mut Directory, reading: &mut Reading<'_>) -> Option<f64> {
    directory.parse("cpu.max", reading, parse_cpu_max).flatten()
}

/// How many CPUs there are for the cgroup, `cpuset.cpus.effective` of the nearest cgroup that has it.
pub(super) fn cpus_effective(
    own: &mut Directory,
    place: Place<'_>,
    reading: &mut Reading<'_>,
    ancestors: &mut Ancestors,
) -> Option<u32> {
    read_cpuset(own, reading)
        .or_else(|| ancestors.cpuset.above(place, |path| read_cpuset(&mut open(path)?, reading)))
}

fn read_cpuset(directory: &mut Directory, reading: &mut Reading<'_>) -> Option<u32> {
    let list = directory.parse("cpuset.cpus.effective", reading, CpuList::parse)?;
    Some(list.count()).filter(|count| *count > 0)
}

/// Memory: `memory.stat`, `memory.current`, `.peak`, `.swap.current`, `.events`, and `memory.max` up the tree.
pub(super) fn memory(
    own: &mut Directory,
    place: Place<'_>,
    reading: &mut Reading<'_>,
    ancestors: &mut Ancestors,
) -> (Memory, MemoryBounds) {
    let mut memory =
        own.parse("memory.stat", reading, |text| Some(parse_memory_stat(text))).unwrap_or_default();
    memory.usage = own.parse("memory.current", reading, number_file);
    memory.peak = own.parse("memory.peak", reading, number_file);
    memory.swap = own.parse("memory.swap.current", reading, number_file);
    memory.oom_kills = own.parse("memory.events", reading, |text| Some(parse_oom_kill(text))).flatten();
    let limit = own.parse("memory.max", reading, parse_limit);
    let above = ancestors.memory.above(place, |path| read_memory_bounds(path, reading));
    let bounds = MemoryBounds { limit, headroom: memory.headroom(limit) }.below(&above);
    (memory, bounds)
}

/// What a cgroup above an instance's bounds; its use is read only where it is limited.
fn read_memory_bounds(path: PathBuf, reading: &mut Reading<'_>) -> MemoryBounds {
    let Some(mut directory) = open(path) else { return MemoryBounds::default() };
    let limit = directory.parse("memory.max", reading, parse_limit);
    if !matches!(limit, Some(Limit::Value(_))) {
        return MemoryBounds { limit, headroom: None };
    }
    let stat = directory.parse("memory.stat", reading, |text| Some(parse_memory_stat(text)));
    let usage = directory.parse("memory.current", reading, number_file);
    let memory = Memory { usage, ..stat.unwrap_or_default() };
    MemoryBounds { limit, headroom: memory.headroom(limit) }
}

/// Huge pages, total and free, from `hugetlb.SIZE.max` up the tree and `hugetlb.SIZE.current`.
pub(super) fn hugetlb(
    own: &mut Directory,
    place: Place<'_>,
    host: &HostFacts,
    reading: &mut Reading<'_>,
    ancestors: &mut Ancestors,
) -> (Option<u64>, Option<u64>) {
    let above = ancestors.hugetlb.above(place, |path| match open(path) {
        Some(mut directory) => read_hugetlb_limits(&mut directory, host, reading),
        None => HugetlbLimits::default(),
    });
    let limits = read_hugetlb_limits(own, host, reading).below(&above);
    limits.total_and_free(host, |size| own.parse(&format!("hugetlb.{size}.current"), reading, number_file))
}

fn read_hugetlb_limits(
    directory: &mut Directory,
    host: &HostFacts,
    reading: &mut Reading<'_>,
) -> HugetlbLimits {
    HugetlbLimits::read(host, |size| directory.parse(&format!("hugetlb.{size}.max"), reading, parse_limit))
}

/// Block I/O from `io.stat`.
pub(super) fn io(own: &mut Directory, reading: &mut Reading<'_>) -> Vec<Io> {
    own.parse("io.stat", reading, |text| Some(parse_io_stat(text))).unwrap_or_default()
}

/// Tasks from `pids.current`.
pub(super) fn tasks(own: &mut Directory, reading: &mut Reading<'_>) -> Option<u64> {
    own.parse("pids.current", reading, number_file)
}

/// Pressure from `cpu.pressure`, `memory.pressure`, `io.pressure` (kernel 4.20, `CONFIG_PSI`). There is none on v1, so
/// a hybrid host's v1 instances have theirs from here too.
pub(super) fn pressure(own: &mut Directory, reading: &mut Reading<'_>) -> Pressure {
    let cpu = own.parse("cpu.pressure", reading, |text| Some(Stalls::parse(text))).unwrap_or_default();
    let memory = own.parse("memory.pressure", reading, |text| Some(Stalls::parse(text))).unwrap_or_default();
    let io = own.parse("io.pressure", reading, |text| Some(Stalls::parse(text))).unwrap_or_default();
    Pressure {
        cpu_waiting_us: cpu.some,
        memory_waiting_us: memory.some,
        memory_stalled_us: memory.full,
        io_waiting_us: io.some,
        io_stalled_us: io.full,
    }
}

/// A cgroup above an instance's. One that cannot be opened says nothing: if it is gone the instance is too, and its own
/// directory tells so.
fn open(path: PathBuf) -> Option<Directory> {
    Directory::open(path).ok()
}

/// `cpu.stat`, times in microseconds.
#[derive(Debug, Default, PartialEq, Eq)]
struct CpuStat {
    user_usec: Option<u64>,
    system_usec: Option<u64>,
    nr_periods: Option<u64>,
    nr_throttled: Option<u64>,
    throttled_usec: Option<u64>,
}

impl CpuStat {
    fn parse(text: &[u8]) -> Self {
        let mut stat = Self::default();
        for (key, value) in lines(text).filter_map(pair) {
            match key {
                b"user_usec" => stat.user_usec = value,
                b"system_usec" => stat.system_usec = value,
                b"nr_periods" => stat.nr_periods = value,
                b"nr_throttled" => stat.nr_throttled = value,
                b"throttled_usec" => stat.throttled_usec = value,
                _ => {}
            }
        }
        stat
    }

    fn time(&self) -> Option<CpuTime> {
        let user_ns = self.user_usec?.checked_mul(1000)?;
        let system_ns = self.system_usec?.checked_mul(1000)?;
        Some(CpuTime { cpu: 0, user_ns, system_ns })
    }

    fn throttling(&self) -> Option<Throttling> {
        let throttled_ns = self.throttled_usec?.checked_mul(1000)?;
        Some(Throttling { periods: self.nr_periods?, throttled_periods: self.nr_throttled?, throttled_ns })
    }
}

/// `cpu.max` in cores: `50000 100000` is half a one, `max 100000` none.
fn parse_cpu_max(text: &[u8]) -> Option<Option<f64>> {
    let mut parts = fields(text.trim_ascii());
    let quota = parse_limit(parts.next()?)?;
    let period = number(parts.next()?)?;
    Some(quota.value().and_then(|quota| cores(quota, period)))
}

/// `max`, or a number.
fn parse_limit(text: &[u8]) -> Option<Limit> {
    match text.trim_ascii() {
        b"max" => Some(Limit::Max),
        other => number(other).map(Limit::Value),
    }
}

fn parse_memory_stat(text: &[u8]) -> Memory {
    let mut memory = Memory::default();
    for (key, value) in lines(text).filter_map(pair) {
        match key {
            b"anon" => memory.anon = value,
            b"file" => memory.file = value,
            b"file_dirty" => memory.file_dirty = value,
            b"file_writeback" => memory.file_writeback = value,
            b"file_mapped" => memory.file_mapped = value,
            b"shmem" => memory.shmem = value,
            b"slab_reclaimable" => memory.slab_reclaimable = value,
            b"active_anon" => memory.active_anon = value,
            b"active_file" => memory.active_file = value,
            b"inactive_anon" => memory.inactive_anon = value,
            b"inactive_file" => memory.inactive_file = value,
            b"unevictable" => memory.unevictable = value,
            b"pgmajfault" => memory.pgmajfault = value,
            _ => {}
        }
    }
    memory
}

fn parse_oom_kill(text: &[u8]) -> Option<u64> {
    lines(text).filter_map(pair).find(|(key, _)| key == b"oom_kill").and_then(|(_, value)| value)
}

/// `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`, a device a line. Kernels from 5.13 to 5.18 print a
/// device without figures and without a newline, so that the next device follows on the same line: figures belong to
/// the last device before them. A device without figures is left out; one that comes twice counts as it stands last.
fn parse_io_stat(text: &[u8]) -> Vec<Io> {
    let mut devices = BTreeMap::new();
    for line in lines(text) {
        let mut device = None;
        for field in fields(line) {
            let Some(at) = field.iter().position(|b| *b == b'=') else {
                device = device_number(field);
                continue;
            };
            let (Some((major, minor)), (key, Some(value))) = (device, split_value(field, at)) else {
                continue;
            };
            let new = || Io { major, minor, ..Io::default() };
            match key {
                b"rbytes" => devices.entry((major, minor)).or_insert_with(new).read_bytes = Some(value),
                b"rios" => devices.entry((major, minor)).or_insert_with(new).reads = Some(value),
                b"wbytes" => devices.entry((major, minor)).or_insert_with(new).written_bytes = Some(value),
                b"wios" => devices.entry((major, minor)).or_insert_with(new).writes = Some(value),
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

/// The key and the value of `key=value`, with `=` at `at`.
fn split_value(field: &[u8], at: usize) -> (&[u8], Option<u64>) {
    let (key, rest) = field.split_at_checked(at).unwrap_or((field, b""));
    (key, rest.strip_prefix(b"=").and_then(number))
}

/// A pressure file's totals, microseconds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stalls {
    some: Option<u64>,
    full: Option<u64>,
}

impl Stalls {
    /// `some avg10=0.00 avg60=0.00 avg300=0.00 total=27393495`, and a line `full …` of the same form.
    fn parse(text: &[u8]) -> Self {
        let mut stalls = Self::default();
        for line in lines(text) {
            let mut parts = fields(line);
            let kind = parts.next();
            let total = parts.find_map(|field| field.strip_prefix(b"total=")).and_then(number);
            match kind {
                Some(b"some") => stalls.some = total,
                Some(b"full") => stalls.full = total,
                _ => {}
            }
        }
        stalls
    }
}

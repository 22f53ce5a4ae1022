//! What one collection told of an instance, as far as rates need it, and the figures that follow from two of them.

use std::hash::{DefaultHasher, Hash, Hasher};

use miharu_api::usage::{FIGURES, Unit};
use miharu_metrics::Figures;
use miharu_metrics::figures::{CpuMode, Interface};

use crate::clock::Moment;

/// How many figures there are.
pub(super) const COUNT: usize = FIGURES.len();
/// How far apart two starts of an instance are at least: the start that the kernel tells moves by a second with the clock.
const SAME_START: f64 = 1.5;

/// A figure, in the order of [`FIGURES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Cpu,
    CpuUser,
    CpuSystem,
    CpuLimit,
    CpuThrottled,
    Memory,
    MemoryCached,
    MemoryLimit,
    Swap,
    DiskRead,
    DiskWritten,
    DiskReads,
    DiskWrites,
    NetworkReceived,
    NetworkSent,
    NetworkErrors,
    FilesystemUsed,
    FilesystemSize,
    Processes,
    PressureCpu,
    PressureMemory,
    PressureIo,
    OomKills,
}

/// What counts as the instance's own time, and as the kernel's for it. The other modes are no time used.
const USER: [CpuMode; 3] = [CpuMode::User, CpuMode::Nice, CpuMode::VcpuUser];
const SYSTEM: [CpuMode; 4] = [CpuMode::System, CpuMode::Irq, CpuMode::Softirq, CpuMode::VcpuSystem];

/// Figures that are levels: what one reading tells. All others are rates, over the time between two.
const LEVELS: [Figure; 8] = [
    Figure::CpuLimit,
    Figure::Memory,
    Figure::MemoryCached,
    Figure::MemoryLimit,
    Figure::Swap,
    Figure::FilesystemUsed,
    Figure::FilesystemSize,
    Figure::Processes,
];

/// Whether the figure at this place in [`FIGURES`] holds for the whole time between two readings.
pub(super) fn is_rate(place: usize) -> bool {
    !LEVELS.iter().any(|level| *level as usize == place)
}

/// A value for each figure; NaN where it is not known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Values([f64; COUNT]);

impl Values {
    /// Nothing is known.
    pub(super) const NONE: Self = Self([f64::NAN; COUNT]);

    /// The values, in the order of [`FIGURES`], NaN where there is none.
    pub(super) fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().copied()
    }

    /// The figures that are known: name, unit, value.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&'static str, Unit, f64)> + '_ {
        let named = FIGURES.iter().zip(self.iter());
        named.filter(|(_, value)| value.is_finite()).map(|((name, unit), value)| (*name, *unit, value))
    }

    fn set(&mut self, figure: Figure, value: Option<f64>) {
        if let (Some(place), Some(value)) = (self.0.get_mut(figure as usize), value) {
            *place = value;
        }
    }

    #[cfg(test)]
    pub(super) fn get(&self, figure: Figure) -> Option<f64> {
        Some(self.0[figure as usize]).filter(|value| value.is_finite())
    }
}

/// The counters of one moment, over all CPUs and devices, and what they were counted on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// When the collection began.
    pub(super) at: Moment,
    boot_time: Option<f64>,
    source: &'static str,
    /// Which CPUs, disks and interfaces were counted: a sum over others is no continuation.
    cpus: u64,
    disks: u64,
    interfaces: u64,
    cpu_user: Option<f64>,
    cpu_system: Option<f64>,
    periods: Option<u64>,
    throttled_periods: Option<u64>,
    disk_read: Option<u64>,
    disk_written: Option<u64>,
    disk_reads: Option<u64>,
    disk_writes: Option<u64>,
    received: Option<u64>,
    sent: Option<u64>,
    errors: Option<u64>,
    pressure_cpu: Option<f64>,
    pressure_memory: Option<f64>,
    pressure_io: Option<f64>,
    oom_kills: Option<u64>,
}

impl Reading {
    pub(super) fn of(figures: &Figures, at: Moment) -> Self {
        let used = |modes: &[CpuMode]| cpu_time(figures, modes);
        let disks = &figures.disks;
        let interfaces = || figures.interfaces.iter().filter(|interface| interface.device != "lo");
        let pressure = &figures.pressure;
        let seconds = |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64());
        Self {
            at,
            boot_time: figures.boot_time_seconds,
            source: figures.info.as_ref().map(|info| info.source).unwrap_or_default(),
            cpus: which(figures.cpus.iter().map(|cpu| cpu.cpu)),
            disks: which(disks.iter().map(|disk| &disk.device)),
            interfaces: which(interfaces().map(|interface| &interface.device)),
            cpu_user: used(&USER),
            cpu_system: used(&SYSTEM),
            periods: figures.throttling.periods,
            throttled_periods: figures.throttling.throttled_periods,
            disk_read: total(disks.iter().map(|disk| disk.read_bytes)),
            disk_written: total(disks.iter().map(|disk| disk.written_bytes)),
            disk_reads: total(disks.iter().map(|disk| disk.reads_completed)),
            disk_writes: total(disks.iter().map(|disk| disk.writes_completed)),
            received: total(interfaces().map(|interface| interface.receive.bytes)),
            sent: total(interfaces().map(|interface| interface.transmit.bytes)),
            errors: total(interfaces().flat_map(both_errors)),
            pressure_cpu: seconds(pressure.cpu_waiting),
            pressure_memory: seconds(pressure.memory_waiting),
            pressure_io: seconds(pressure.io_waiting),
            oom_kills: figures.memory.oom_kills,
        }
    }

    /// The rates between an earlier reading and this one. A counter that went back, or that is not the same one any more,
    /// gives none.
    pub(super) fn rates_since(&self, before: &Self, values: &mut Values) {
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        if seconds <= 0.0 || !self.continues(before) {
            return;
        }
        let count = |before: Option<u64>, now: Option<u64>| Some(now?.checked_sub(before?)? as f64);
        let time = |before: Option<f64>, now: Option<f64>| Some(now? - before?).filter(|grown| *grown >= 0.0);
        let rate = |grown: Option<f64>| grown.map(|grown| grown / seconds);
        let share = |grown: Option<f64>| rate(grown).map(|share| share.min(1.0));
        if self.cpus == before.cpus {
            let both = |reading: &Self| sum([reading.cpu_user, reading.cpu_system].into_iter());
            values.set(Figure::Cpu, rate(time(both(before), both(self))));
            values.set(Figure::CpuUser, rate(time(before.cpu_user, self.cpu_user)));
            values.set(Figure::CpuSystem, rate(time(before.cpu_system, self.cpu_system)));
        }
        let throttled = count(before.throttled_periods, self.throttled_periods);
        let throttled = throttled.zip(count(before.periods, self.periods));
        // Without a period that passed, none was one of waiting.
        values.set(
            Figure::CpuThrottled,
            throttled.map(|(throttled, periods)| (throttled / periods.max(1.0)).min(1.0)),
        );
        if self.disks == before.disks {
            values.set(Figure::DiskRead, rate(count(before.disk_read, self.disk_read)));
            values.set(Figure::DiskWritten, rate(count(before.disk_written, self.disk_written)));
            values.set(Figure::DiskReads, rate(count(before.disk_reads, self.disk_reads)));
            values.set(Figure::DiskWrites, rate(count(before.disk_writes, self.disk_writes)));
        }
        if self.interfaces == before.interfaces {
            values.set(Figure::NetworkReceived, rate(count(before.received, self.received)));
            values.set(Figure::NetworkSent, rate(count(before.sent, self.sent)));
            values.set(Figure::NetworkErrors, rate(count(before.errors, self.errors)));
        }
        values.set(Figure::PressureCpu, share(time(before.pressure_cpu, self.pressure_cpu)));
        values.set(Figure::PressureMemory, share(time(before.pressure_memory, self.pressure_memory)));
        values.set(Figure::PressureIo, share(time(before.pressure_io, self.pressure_io)));
        values.set(Figure::OomKills, rate(count(before.oom_kills, self.oom_kills)));
    }

    /// Whether it is of the same start of the instance, counted by the same teller.
    fn continues(&self, before: &Self) -> bool {
        let same_start = match (self.boot_time, before.boot_time) {
            (Some(now), Some(before)) => (now - before).abs() < SAME_START,
            (None, None) => true,
            _ => false,
        };
        same_start && self.source == before.source
    }
}

/// What one reading tells by itself.
pub(super) fn levels(figures: &Figures, values: &mut Values) {
    let memory = &figures.memory;
    let number = |value: Option<u64>| value.map(|value| value as f64);
    values.set(Figure::CpuLimit, figures.cpu_limit_cores.or(number(figures.cpu_effective)));
    // Of a container, what is charged to it less the page cache not used of late. Of a machine, what its guest could not give
    // to somebody: for a container without a limit that would be what the whole host uses.
    let less = |left: Option<u64>| memory.mem_total.zip(left).map(|(total, left)| total.saturating_sub(left));
    let used = memory.working_set.or_else(|| less(memory.mem_available)).or_else(|| less(memory.mem_free));
    values.set(Figure::Memory, number(used.or(memory.usage)));
    values.set(Figure::MemoryCached, number(memory.cached));
    values.set(Figure::MemoryLimit, number(memory.mem_total));
    values.set(Figure::Swap, number(memory.swap));
    if let Some(root) = figures.filesystems.iter().find(|filesystem| filesystem.mountpoint == "/") {
        let used = root.size_bytes.zip(root.free_bytes).map(|(size, free)| size.saturating_sub(free));
        values.set(Figure::FilesystemUsed, number(used));
        values.set(Figure::FilesystemSize, number(root.size_bytes));
    }
    values.set(Figure::Processes, number(figures.procs));
}

/// CPU time that was used since the instance's start, seconds.
pub(crate) fn cpu_seconds(figures: &Figures) -> Option<f64> {
    sum([cpu_time(figures, &USER), cpu_time(figures, &SYSTEM)].into_iter())
}

fn cpu_time(figures: &Figures, modes: &[CpuMode]) -> Option<f64> {
    let times = figures.cpus.iter().flat_map(|cpu| cpu.known());
    sum(times.filter(|(mode, _)| modes.contains(mode)).map(|(_, time)| Some(time.as_secs_f64())))
}

fn both_errors(interface: &Interface) -> [Option<u64>; 2] {
    [interface.receive.errs, interface.transmit.errs]
}

/// The sum of those that are known; nothing where none is.
fn total(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    values.flatten().fold(None, |sum: Option<u64>, value| Some(sum.unwrap_or(0).saturating_add(value)))
}

/// As [`total`].
fn sum(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values.flatten().fold(None, |sum: Option<f64>, value| Some(sum.unwrap_or(0.0) + value))
}

/// A fingerprint of what was counted.
fn which(names: impl Iterator<Item = impl Hash>) -> u64 {
    let mut hasher = DefaultHasher::new();
    names.for_each(|name| name.hash(&mut hasher));
    hasher.finish()
}

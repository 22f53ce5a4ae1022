//! No counter falls while a guest runs (metrics.md, rule 2): a report that would make one fall is not served.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use miharu_metrics::figures::{CpuTimes, Disk, Figures, Interface, Traffic};

/// A boot time moves a little where the guest's clock is set right; a reboot takes longer than this.
const CLOCK_SLACK: f64 = 5.0;

/// Seconds with a fraction lose their last digits on the way; no tick is as short as this.
const ROUNDING: Duration = Duration::from_micros(1);

/// What a guest's counters were when they were last believed.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    figures: Figures,
    /// The kernel's name for the boot, where it was told.
    boot: Option<String>,
    at: Instant,
}

/// Why a report is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its guest's counters fell, but the guest did not boot anew")]
pub(crate) struct Fell;

impl Guard {
    /// Lets a report through, less the devices of which some counter fell; those come back once they have passed what was
    /// told before, or have been away in between.
    ///
    /// All sources that tell the guest's own counters go through one guard, since they continue each other's series. `boot` is
    /// the kernel's name for the boot.
    ///
    /// # Errors
    /// [`Fell`] where the guest's CPU time or another counter of the whole guest fell without a reboot.
    pub(crate) fn admit(
        &mut self,
        mut figures: Figures,
        boot: Option<String>,
        now: Instant,
    ) -> Result<Figures, Fell> {
        let Some(last) = self.last.as_ref().filter(|last| !is_new_boot(last, &figures, boot.as_deref(), now))
        else {
            self.last = Some(Last { figures: figures.clone(), boot, at: now });
            return Ok(figures);
        };
        if has_fallen(&last.figures, &figures) {
            return Err(Fell);
        }
        // What is kept to compare with later is the higher of both, and what this source does not tell.
        let mut kept = figures.clone();
        let before = &last.figures;
        hold(&mut figures.disks, &mut kept.disks, &before.disks, disk_counters);
        hold(&mut figures.interfaces, &mut kept.interfaces, &before.interfaces, interface_counters);
        if kept.cpus.is_empty() {
            kept.cpus.clone_from(&before.cpus);
        }
        kept.boot_time_seconds = kept.boot_time_seconds.or(before.boot_time_seconds);
        let boot = boot.or_else(|| last.boot.clone());
        self.last = Some(Last { figures: kept, boot, at: now });
        Ok(figures)
    }
}

/// Whether the guest has booted since: the kernel says so or its boot time moved, or, where an agent tells neither, all CPUs
/// have run for less time than has passed.
fn is_new_boot(last: &Last, new: &Figures, boot: Option<&str>, now: Instant) -> bool {
    if let (Some(before), Some(after)) = (last.boot.as_deref(), boot) {
        return before != after;
    }
    if let (Some(before), Some(after)) = (last.figures.boot_time_seconds, new.boot_time_seconds) {
        return (after - before).abs() > CLOCK_SLACK;
    }
    let passed = now.saturating_duration_since(last.at);
    let longest = |figures: &Figures| figures.cpus.iter().map(total).max();
    match (longest(&last.figures), longest(new)) {
        (Some(before), Some(after)) => after < before && after <= passed + Duration::from_secs(5),
        _ => false,
    }
}

fn total(cpu: &CpuTimes) -> Duration {
    cpu.known().fold(Duration::ZERO, |sum, (_, time)| sum.saturating_add(time))
}

/// Whether a counter of the whole guest is lower than before. The kernel itself lets idle and iowait go back a little
/// (`Documentation/filesystems/proc.rst` on iowait), so these are judged by a CPU's sum.
fn has_fallen(last: &Figures, new: &Figures) -> bool {
    let before: HashMap<Option<u32>, &CpuTimes> = last.cpus.iter().map(|cpu| (cpu.cpu, cpu)).collect();
    let cpu_fell = new.cpus.iter().any(|cpu| {
        before.get(&cpu.cpu).is_some_and(|old| {
            let times: Vec<_> = old.known().collect();
            let mode_fell = cpu.known().any(|(mode, time)| {
                !matches!(mode.as_str(), "idle" | "iowait")
                    && times.iter().any(|(other, old)| *other == mode && time.saturating_add(ROUNDING) < *old)
            });
            mode_fell || total(cpu).saturating_add(Duration::from_secs(1)) < total(old)
        })
    });
    let fell = |old: Option<Duration>, new: Option<Duration>| {
        old.zip(new).is_some_and(|(old, new)| new.saturating_add(ROUNDING) < old)
    };
    let (was, is) = (&last.pressure, &new.pressure);
    let count_fell = |old: Option<u64>, new: Option<u64>| old.zip(new).is_some_and(|(old, new)| new < old);
    cpu_fell
        || count_fell(last.memory.oom_kills, new.memory.oom_kills)
        || count_fell(last.memory.major_faults, new.memory.major_faults)
        || fell(was.cpu_waiting, is.cpu_waiting)
        || fell(was.memory_waiting, is.memory_waiting)
        || fell(was.memory_stalled, is.memory_stalled)
        || fell(was.io_waiting, is.io_waiting)
        || fell(was.io_stalled, is.io_stalled)
}

/// Takes from `rows` those of which a counter is lower than in `last`, and keeps for these the older ones in `kept`.
fn hold<T: Clone, const N: usize>(
    rows: &mut Vec<T>,
    kept: &mut [T],
    last: &[T],
    counters: impl Fn(&T) -> (&str, [Option<u64>; N]),
) {
    let before: HashMap<&str, &T> = last.iter().map(|row| (counters(row).0, row)).collect();
    let fallen = |row: &T| {
        let (device, new) = counters(row);
        let old = before.get(device)?;
        let mut pairs = counters(old).1.into_iter().zip(new);
        let fell = pairs.any(|(old, new)| old.zip(new).is_some_and(|(old, new)| new < old));
        fell.then(|| (*old).clone())
    };
    for row in kept {
        if let Some(old) = fallen(row) {
            *row = old;
        }
    }
    rows.retain(|row| fallen(row).is_none());
}

fn disk_counters(disk: &Disk) -> (&str, [Option<u64>; 4]) {
    let counters = [disk.read_bytes, disk.reads_completed, disk.written_bytes, disk.writes_completed];
    (&disk.device, counters)
}

fn interface_counters(interface: &Interface) -> (&str, [Option<u64>; 8]) {
    let Traffic { bytes, packets, errs, drop } = interface.receive;
    let sent = interface.transmit;
    (&interface.device, [bytes, packets, errs, drop, sent.bytes, sent.packets, sent.errs, sent.drop])
}

#[cfg(test)]
mod tests {
    use super::*;
    use miharu_metrics::figures::CpuMode;

    fn figures(user: u64, idle: u64, boot: Option<f64>, read: u64) -> Figures {
        let cpu = CpuTimes::new(0)
            .with(CpuMode::User, Duration::from_secs(user))
            .with(CpuMode::Idle, Duration::from_secs(idle));
        let disk = Disk { device: "vda".into(), read_bytes: Some(read), ..Disk::default() };
        Figures { cpus: vec![cpu], boot_time_seconds: boot, disks: vec![disk], ..Figures::default() }
    }

    #[test]
    fn a_counter_that_falls_is_not_served_while_the_boot_time_stands() {
        let (mut guard, now) = (Guard::default(), Instant::now());
        assert!(guard.admit(figures(10, 10, Some(100.0), 5), None, now).is_ok());
        assert_eq!(guard.admit(figures(9, 20, Some(101.0), 6), None, now), Err(Fell));
        assert!(guard.admit(figures(10, 20, Some(100.5), 6), None, now).is_ok());
        assert!(guard.admit(figures(11, 19, Some(100.5), 6), None, now).is_ok(), "idle may go back a little");
        assert!(guard.admit(figures(1, 1, Some(500.0), 0), None, now).is_ok(), "a reboot");
        assert!(guard.admit(figures(2, 1, Some(500.0), 1), None, now).is_ok());
    }

    #[test]
    fn a_reboot_is_seen_without_a_boot_time() {
        let (mut guard, now) = (Guard::default(), Instant::now());
        assert!(guard.admit(figures(1000, 1000, None, 5), None, now).is_ok());
        let later = now + Duration::from_secs(60);
        assert_eq!(
            guard.admit(figures(900, 900, None, 5), None, later),
            Err(Fell),
            "it cannot have run that long"
        );
        assert!(guard.admit(figures(5, 30, None, 0), None, later).is_ok());
    }

    #[test]
    fn a_device_that_falls_is_left_out_alone() {
        let (mut guard, now) = (Guard::default(), Instant::now());
        let disks =
            |guard: &mut Guard, read| guard.admit(figures(1, 1, None, read), None, now).unwrap().disks.len();
        assert_eq!([5, 3, 4, 5, 6].map(|read| disks(&mut guard, read)), [1, 0, 0, 1, 1]);
        let mut without = figures(1, 1, None, 0);
        without.disks.clear();
        assert!(guard.admit(without, None, now).is_ok());
        assert_eq!(disks(&mut guard, 1), 1, "it was away and is another one now");
    }

    #[test]
    fn the_kernel_knows_a_boot_better_than_the_clock() {
        let (mut guard, now) = (Guard::default(), Instant::now());
        let boot = |name: &str| Some(name.to_owned());
        assert!(guard.admit(figures(10, 10, Some(100.0), 5), boot("a"), now).is_ok());
        let set = figures(9, 10, Some(9000.0), 5);
        assert_eq!(guard.admit(set, boot("a"), now), Err(Fell), "somebody set the guest's clock");
        assert!(guard.admit(figures(1, 1, Some(100.5), 0), boot("b"), now).is_ok());
    }

    #[test]
    fn one_source_continues_anothers_series() {
        let (mut guard, now) = (Guard::default(), Instant::now());
        assert!(guard.admit(figures(100, 100, Some(100.0), 5), Some("a".into()), now).is_ok());
        // qemu-guest-agent of an old guest tells no CPU time, and never the boot.
        let older = Figures { cpus: Vec::new(), ..figures(0, 0, None, 5) };
        assert!(guard.admit(older, None, now).is_ok());
        assert_eq!(guard.admit(figures(90, 100, None, 6), None, now), Err(Fell));
        assert_eq!(guard.admit(figures(90, 100, Some(100.0), 6), Some("a".into()), now), Err(Fell));
        assert!(guard.admit(figures(100, 101, Some(100.0), 6), Some("a".into()), now).is_ok());
    }
}

//! What a process costs: CPU time to the nanosecond, memory, open files; and samples of a figure with their median and spread.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cgroup;

/// CPU time, user and system, of a process with all its threads, those that have ended included, to the nanosecond; not of its
/// children. The ticks of `/proc/PID/stat` are 10 ms, too coarse for a scrape.
///
/// # Errors
/// When the process is gone.
pub fn cpu(pid: u32) -> Result<Duration> {
    let clock =
        clock_getcpuclockid(Pid::from_raw(pid.try_into()?)).with_context(|| format!("process {pid}"))?;
    read(clock).with_context(|| format!("process {pid}"))
}

fn read(clock: ClockId) -> Result<Duration> {
    let nanoseconds = clock.now()?.num_nanoseconds();
    Ok(Duration::from_nanos(nanoseconds.try_into()?))
}

/// CPU time of a process and of all below it: [`cpu`] of those that live, and what `/proc/PID/stat` says, in ticks, of children
/// that have ended.
///
/// # Errors
/// When the process itself is gone.
pub fn cpu_of_tree(pid: u32) -> Result<Duration> {
    let mut total = cpu(pid)?;
    for member in tree(pid) {
        total += reaped(member).unwrap_or_default();
        if member != pid {
            total += cpu(member).unwrap_or_default();
        }
    }
    Ok(total)
}

/// CPU time of several processes; one that has ended counts nothing.
#[must_use]
pub fn cpu_of_all(pids: &[u32]) -> Duration {
    pids.iter().filter_map(|pid| cpu(*pid).ok()).sum()
}

/// A process and all that descend from it.
#[must_use]
pub fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// `cutime` and `cstime` of `/proc/PID/stat`.
fn reaped(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 =
        fields.split_whitespace().skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // USER_HZ, which the kernel keeps at 100 for programs on x86-64 and aarch64.
    Some(Duration::from_millis(ticks * 10))
}

/// A line of `/proc/PID/status` in kB, as bytes: `VmRSS`, `RssAnon`, `VmHWM`.
///
/// # Errors
/// When the process is gone or there is no such line.
pub fn memory(pid: u32, name: &str) -> Result<u64> {
    kilobytes(&format!("/proc/{pid}/status"), name)
}

/// A line of `/proc/meminfo`, as bytes: `Slab`.
///
/// # Errors
/// When there is no such line.
pub fn host_memory(name: &str) -> Result<u64> {
    kilobytes("/proc/meminfo", name)
}

fn kilobytes(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.with_context(|| format!("no {name} in {path}"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().with_context(|| line.to_owned())?;
    Ok(kilobytes * 1024)
}

/// How many file descriptors a process has open.
///
/// # Errors
/// When it is gone.
pub fn open_files(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).context(path)?.count())
}

/// What one run of something cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time, microseconds.
    pub cpu_us: f64,
    /// Wall time, microseconds.
    pub wall_us: f64,
}

/// Does a thing `times` times and gives what one time cost, by a clock of CPU time such as [`cpu`] of the process that does it.
///
/// # Errors
/// When the thing or the clock fails.
pub fn cost(
    times: u32,
    clock: impl Fn() -> Result<Duration>,
    mut thing: impl FnMut() -> Result<()>,
) -> Result<Cost> {
    ensure!(times > 0, "nothing is measured in no time");
    let (cpu, wall) = (clock()?, Instant::now());
    for _ in 0..times {
        thing()?;
    }
    let wall = wall.elapsed();
    let cpu =
        clock()?.checked_sub(cpu).context("CPU time went backwards: a process of the tree has ended")?;
    let each = |total: Duration| total.as_secs_f64() * 1e6 / f64::from(times);
    Ok(Cost { cpu_us: each(cpu), wall_us: each(wall) })
}

/// Samples of one figure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// The middle one, or the mean of the two in the middle; nothing of no samples.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        if sorted.len() % 2 == 1 {
            return Some(upper);
        }
        Some(f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, upper))
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> Option<f64> {
        self.sorted().first().copied()
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        self.sorted().last().copied()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

/// CPU and wall time of several runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// CPU time of each, microseconds.
    pub cpu_us: Samples,
    /// Wall time of each, microseconds.
    pub wall_us: Samples,
}

impl FromIterator<Cost> for Costs {
    fn from_iter<I: IntoIterator<Item = Cost>>(costs: I) -> Self {
        let (cpu, wall) = costs.into_iter().map(|cost| (cost.cpu_us, cost.wall_us)).unzip();
        Self { cpu_us: Samples(cpu), wall_us: Samples(wall) }
    }
}

/// Where figures were measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// CPUs that this process may use.
    pub cores: usize,
    /// What `/proc/cpuinfo` calls them.
    pub cpu: String,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// `v1` or `v2`: where the controllers are.
    pub cgroup: String,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn this() -> Result<Self> {
        let models = fs::read_to_string("/proc/cpuinfo")?;
        let model = models.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            cpu: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            memory_bytes: host_memory("MemTotal")?,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cgroup: if cgroup::is_v2() { "v2" } else { "v1" }.to_owned(),
        })
    }
}

/// The processes with this as the beginning of their command line, such as LXC's monitors.
///
/// # Errors
/// When there is none.
pub fn processes(beginning: &str) -> Result<Vec<u32>> {
    let pids: BTreeSet<u32> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(beginning.as_bytes()))
        })
        .collect();
    if pids.is_empty() {
        bail!("no process whose command line begins with {beginning:?}");
    }
    Ok(pids.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_that_of_the_process_and_finer_than_a_tick() {
        let pid = std::process::id();
        let before = cpu(pid).unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(3) {
            std::hint::black_box(0);
        }
        let spent = cpu(pid).unwrap() - before;
        assert!(spent > Duration::from_micros(500), "{spent:?}");
        assert!(!spent.subsec_nanos().is_multiple_of(10_000_000), "{spent:?}");
        assert!(cpu_of_tree(pid).unwrap() >= before);
        // Past the largest number that the kernel gives to a process.
        assert!(cpu(1 << 22).is_err());
    }

    #[test]
    fn a_tree_counts_what_its_children_spent() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; read x"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let spent = crate::shell::wait_for("the grandchild's end", Duration::from_secs(20), || {
            let spent = cpu_of_tree(child.id()).unwrap();
            (tree(child.id()).len() == 1 && reaped(child.id()).unwrap() > Duration::ZERO).then_some(spent)
        });
        let own = cpu(child.id()).unwrap();
        let _ = child.kill();
        let _ = child.wait();
        assert!(spent.unwrap() >= own + Duration::from_millis(10));
    }

    #[test]
    fn medians() {
        assert_eq!(Samples(vec![3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(Samples::default().median(), None);
        assert_eq!((Samples(vec![3.0, 1.0]).min(), Samples(vec![3.0, 1.0]).max()), (Some(1.0), Some(3.0)));
    }

    #[test]
    fn memory_and_files_of_this_process() {
        let pid = std::process::id();
        assert!(memory(pid, "VmRSS").unwrap() > 1 << 20);
        assert!(memory(pid, "VmNothing").is_err());
        let before = open_files(pid).unwrap();
        let kept: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(open_files(pid).unwrap() >= before.min(3) + kept.len());
    }
}

//! What a host does to its daemon in two hours, at once and without a pause: several clients scrape every 5 seconds, over kept and
//! over new connections; containers come and go, half of them under a name that was there before; virtual machines are paused
//! and go on; the listener for metrics moves from port to port; certificates are trusted and forgotten again. Every scrape has
//! to be answered, in full, and what the daemon holds has to be as much at the end as it was after the warm-up.

mod containers;
mod load;
mod machines;
mod scrapes;
pub mod series;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use crate::measure::{self, Samples};
use crate::miharud::{Miharud, program};
use crate::scratch::{self, Entry, Note};
use crate::tls::Certificate;
use crate::{Lxc, Need, cgroup, interrupt};

use series::{Finding, Sample, Series, Verdict};

/// Two scrapes of one client are this far apart.
const INTERVAL: Duration = Duration::from_secs(5);
/// A collection is younger than that, so that every round of scrapes finds the last one too old.
const CACHE_SECONDS: &str = "4";
/// Containers that run all the time, whose counters may never fall.
const STAYING: usize = 5;
/// A container ends this often, unless it is wished otherwise.
const PACE: Duration = Duration::from_secs(2);
/// Kernel memory that is held at the end may be more than at the beginning by this, bytes.
const KERNEL_GROWTH: f64 = 4_194_304.0;
/// A series that is this long has to allow a verdict.
const CLEAR: Duration = Duration::from_secs(3600);

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// For how long, once everything runs.
    pub length: Duration,
    /// What is not looked at, from the beginning.
    pub warm_up: Duration,
    /// Time between two samples.
    pub sample: Duration,
    /// Containers that come and go.
    pub containers: usize,
    /// Time between the end of one of them and that of the next.
    pub pace: Duration,
    /// Clients that scrape, beside the one that follows the moved listener.
    pub clients: usize,
    /// How long a collection may take.
    pub deadlines: Deadlines,
}

/// How long the daemon may take for a collection, and for an instance of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadlines {
    /// What it is installed with.
    Installed,
    /// So long that only what hangs is late, on a machine whose processors others have.
    Generous,
}

impl Deadlines {
    /// Server keys and their values.
    fn keys(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Installed => &[],
            Self::Generous => &[("metrics.collect_timeout", "30"), ("metrics.instance_timeout", "20")],
        }
    }
}

impl Plan {
    /// One of that length. Warm is who has seen every container replaced about once, at two seconds each, or a quarter of the time.
    #[must_use]
    pub fn of(length: Duration, containers: usize, clients: usize) -> Self {
        let warm_up = Duration::from_secs(600).min(length / 4);
        let sample = Duration::from_secs(10).min(length / 60);
        let deadlines = Deadlines::Installed;
        Self { length, warm_up, sample, containers, pace: PACE, clients, deadlines }
    }
}

/// The daemon under load, and what is counted.
#[derive(Debug)]
struct Stage {
    daemon: Miharud,
    /// Where `core.https_address` listens all the time.
    https: String,
    /// The client whose certificate stays trusted.
    client: Certificate,
    staying: Vec<Lxc>,
    /// Names of the virtual machines.
    machines: Vec<String>,
    /// Where `core.metrics_address` listens, with the number of the move that took it there; nowhere in the middle of one.
    moving: Mutex<(u64, Option<String>)>,
    tally: Tally,
    started: Instant,
    ended: AtomicBool,
    /// The folder of the cgroup that the daemon has for itself, where there is one.
    cgroup: Option<PathBuf>,
    _note: Option<Note>,
}

/// What was done.
#[derive(Debug, Default)]
struct Tally {
    scrapes: AtomicU64,
    replaced: AtomicU64,
    pauses: AtomicU64,
    moves: AtomicU64,
    /// Requests that a move of the listener met, and that were sent again.
    met: AtomicU64,
    certificates: AtomicU64,
    /// Instances that the last scrape showed.
    instances: AtomicU64,
    /// How long scrapes took, in milliseconds.
    took: Mutex<Vec<f64>>,
    failed: Mutex<Vec<String>>,
    /// What went wrong on the side of this program.
    troubles: Mutex<Vec<String>>,
}

impl Stage {
    /// Waits, and says whether to go on.
    fn pause(&self, length: Duration) -> bool {
        let until = Instant::now() + length;
        while Instant::now() < until {
            if self.ended.load(Ordering::Relaxed) || interrupt::check().is_err() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        !self.ended.load(Ordering::Relaxed)
    }

    fn add(&self, to: &AtomicU64) {
        to.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, list: &Mutex<Vec<String>>, what: &str) {
        let line = format!("at {:.0} s: {what}", self.started.elapsed().as_secs_f64());
        if let Ok(mut list) = list.lock() {
            list.push(line);
        }
    }

    fn configure(&self, key: &str, value: &str) -> Result<()> {
        let body = json!({"config": {key: value}}).to_string();
        let reply = self.daemon.ask("PATCH", "/1.0", &[], &body)?;
        anyhow::ensure!(reply.status == 200, "{key}={value}: {}: {}", reply.status, reply.text());
        Ok(())
    }

    fn sample(&self) -> Result<Sample> {
        let pid = self.daemon.pid();
        #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
        let float = |number: u64| number as f64;
        let threads = fs::read_dir(format!("/proc/{pid}/task"))?.count();
        Ok(Sample {
            at: self.started.elapsed().as_secs_f64(),
            rss: float(measure::memory(pid, "VmRSS")?),
            anonymous: float(measure::memory(pid, "RssAnon")?),
            descriptors: float(measure::open_files(pid)? as u64),
            threads: float(threads as u64),
            kernel: self.cgroup.as_deref().and_then(kernel_memory).map(float),
            watches: float(watches(pid)?),
            instances: float(self.tally.instances.load(Ordering::Relaxed)),
        })
    }
}

/// What the kernel holds on account of a cgroup, bytes.
fn kernel_memory(dir: &Path) -> Option<u64> {
    if let Ok(text) = fs::read_to_string(dir.join("memory.kmem.usage_in_bytes")) {
        return text.trim().parse().ok();
    }
    let text = fs::read_to_string(dir.join("memory.stat")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("kernel ")?.trim().parse().ok())
}

/// The same after the kernel was asked to take back what it keeps without need, such as inodes of what is gone.
fn kernel_memory_reclaimed(dir: &Path) -> Option<u64> {
    // It gives up where it finds nothing more, which is no failure.
    for (file, value) in [("memory.force_empty", "0"), ("memory.reclaim", "1G")] {
        if dir.join(file).exists() {
            let _ = fs::write(dir.join(file), value);
        }
    }
    // What is freed is counted when the kernel has got to it.
    std::thread::sleep(Duration::from_secs(3));
    kernel_memory(dir)
}

/// Watches of all inotify descriptors of a process.
fn watches(pid: u32) -> Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        count += text.lines().filter(|line| line.starts_with("inotify wd:")).count() as u64;
    }
    Ok(count)
}

/// A cgroup for the daemon alone, where its kernel memory is counted; none where the host does not count it there.
fn own_cgroup() -> Option<(PathBuf, Note)> {
    let base = PathBuf::from("/sys/fs/cgroup").join(if cgroup::is_v2() { "" } else { "memory" });
    let name = scratch::unique("miharu-soak");
    let note = Entry::Leaf(&name).note().ok()?;
    let dir = base.join(&name);
    fs::create_dir(&dir).ok()?;
    kernel_memory(&dir).map(|_| (dir, note))
}

/// Runs it. `tell` gets a line for each sample.
///
/// # Errors
/// When it cannot be set up. What fails under load is in the report.
pub fn run(plan: &Plan, mut tell: impl FnMut(String)) -> Result<Report> {
    tell("making the containers".into());
    let mut coming = containers::Coming::new(plan.containers)?;
    let staying = (0..STAYING).map(|_| Lxc::start(&[])).collect::<Result<Vec<_>>>()?;
    let machines = match Need::Qemu.lacking() {
        None => machines::start()?,
        Some(reason) => {
            tell(format!("without virtual machines: {reason}"));
            Vec::new()
        }
    };
    let stage = set_up(staying, &machines, plan.deadlines)?;
    let (stage, mut series) = (&stage, Series::default());
    let (clients, pace) = (plan.clients, plan.pace);
    tell(series::heading());
    std::thread::scope(|scope| -> Result<()> {
        let coming = &mut coming;
        let mut threads = vec![
            scope.spawn(move || load::containers(stage, coming, pace)),
            scope.spawn(move || load::moves(stage)),
            scope.spawn(move || load::certificates(stage)),
            scope.spawn(move || scrapes::follow(stage)),
        ];
        threads.extend((0..clients).map(|number| scope.spawn(move || scrapes::client(stage, number))));
        let machines = &machines;
        threads.push(scope.spawn(move || load::machines(stage, machines)));
        let sampled = (|| -> Result<()> {
            while stage.started.elapsed() < plan.length && stage.pause(plan.sample) {
                let sample = stage.sample().with_context(|| stage.daemon.log())?;
                tell(sample.to_string());
                series.0.push(sample);
            }
            Ok(())
        })();
        stage.ended.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        sampled
    })?;
    let reclaimed = stage.cgroup.as_deref().and_then(kernel_memory_reclaimed);
    let log = stage.daemon.log();
    let list = |of: &Mutex<Vec<String>>| of.lock().map(|list| list.clone()).unwrap_or_default();
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let tally = &stage.tally;
    Ok(Report {
        plan: *plan,
        lasted: stage.started.elapsed(),
        findings: series.findings(plan.warm_up.as_secs_f64()),
        series,
        reclaimed,
        scrapes: count(&tally.scrapes),
        replaced: count(&tally.replaced),
        pauses: count(&tally.pauses),
        moves: count(&tally.moves),
        met: count(&tally.met),
        certificates: count(&tally.certificates),
        took: Samples(tally.took.lock().map(|took| took.clone()).unwrap_or_default()),
        failed: list(&tally.failed),
        troubles: list(&tally.troubles),
        panicked: log.contains("panicked"),
    })
}

fn set_up(staying: Vec<Lxc>, machines: &[crate::Vm], deadlines: Deadlines) -> Result<Stage> {
    let dir = scratch::dir("soak")?;
    let (daemon, cgroup, note) = match own_cgroup() {
        Some((own, note)) => {
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", "echo $$ >\"$0\"/cgroup.procs; exec \"$@\""])
                .arg(&own)
                .arg(program("miharud")?);
            (Miharud::launch(command, &dir, &[])?, Some(own), Some(note))
        }
        None => (Miharud::in_dir(&dir, &[])?, None, None),
    };
    let https = daemon.listen("core.https_address")?;
    let client = Certificate::create("soak")?;
    let crt = client.crt.to_str().context("a path that is no UTF-8")?;
    daemon.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    for (key, value) in [("metrics.cache_seconds", CACHE_SECONDS)].iter().chain(deadlines.keys()) {
        daemon.miharu(&["config", "set", key, value])?;
    }
    let first = daemon.listen("core.metrics_address")?;
    Ok(Stage {
        daemon,
        https,
        client,
        staying,
        machines: machines.iter().map(|vm| vm.name.clone()).collect(),
        moving: Mutex::new((0, Some(first))),
        tally: Tally::default(),
        started: Instant::now(),
        ended: AtomicBool::new(false),
        cgroup,
        _note: note,
    })
}

/// How it went.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    lasted: Duration,
    /// What was sampled.
    pub series: Series,
    /// What each figure did after the warm-up.
    pub findings: Vec<Finding>,
    /// Kernel memory, in bytes, that the kernel did not give back at the end when it was asked to.
    reclaimed: Option<u64>,
    /// Scrapes that were answered in full.
    pub scrapes: u64,
    /// Containers that ended and had a successor.
    pub replaced: u64,
    /// Times that a virtual machine was paused.
    pub pauses: u64,
    /// Times that the listener moved.
    pub moves: u64,
    met: u64,
    /// Certificates that were trusted and forgotten.
    pub certificates: u64,
    took: Samples,
    /// Scrapes that failed, and why.
    pub failed: Vec<String>,
    /// What went wrong on the side of this program.
    pub troubles: Vec<String>,
    panicked: bool,
}

impl Report {
    /// Whether no scrape failed and nothing grew; of a long run also whether that is certain.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let long = self.lasted >= CLEAR;
        let stays = |finding: &Finding| match finding.verdict() {
            Verdict::Flat => true,
            Verdict::Grows => false,
            Verdict::Unclear => !long,
        };
        !self.panicked
            && self.failed.is_empty()
            && self.scrapes > 0
            && self.findings.iter().all(stays)
            && self.kernel_growth().is_none_or(|growth| growth < KERNEL_GROWTH)
    }

    /// By how much the kernel memory that cannot be given back is more than all of it was at first, bytes.
    fn kernel_growth(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
        let left = self.reclaimed? as f64;
        Some(left - self.series.0.iter().find_map(|sample| sample.kernel)?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.1} minutes, {} containers at a time, {} clients every {} s; samples after {:.1} minutes count",
            self.lasted.as_secs_f64() / 60.0,
            self.plan.containers + STAYING,
            self.plan.clients + 1,
            INTERVAL.as_secs(),
            self.plan.warm_up.as_secs_f64() / 60.0
        )?;
        writeln!(
            f,
            "{} scrapes answered, {} failed; {} containers replaced, {} pauses, {} moves of the listener ({} requests met one \
             and were sent again), {} certificates",
            self.scrapes,
            self.failed.len(),
            self.replaced,
            self.pauses,
            self.moves,
            self.met,
            self.certificates
        )?;
        if let (Some(median), Some(most)) = (self.took.median(), self.took.max()) {
            writeln!(f, "a scrape took {median:.0} ms in the middle, {most:.0} ms at most")?;
        }
        write!(f, "\n{}\n", self.series.table(25))?;
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        if let (Some(left), Some(growth)) = (self.reclaimed, self.kernel_growth()) {
            let verdict = if growth < KERNEL_GROWTH { "flat" } else { "GROWS" };
            writeln!(
                f,
                "kernel memory that was not given back at the end: {} kB, {:+.0} kB to the first sample: {verdict}",
                left >> 10,
                growth / 1024.0
            )?;
        }
        if self.panicked {
            writeln!(f, "something panicked: see the daemon's log")?;
        }
        for (what, list) in [("failed", &self.failed), ("trouble of this program", &self.troubles)] {
            for line in list.iter().take(20) {
                writeln!(f, "{what} {line}")?;
            }
        }
        write!(f, "{}", if self.is_well() { "well" } else { "NOT well" })
    }
}

//! The floor: what the kernel takes for the figures of containers, and nothing else. A process of its own reads the files that
//! miharud needs of each container the cheapest way there is, into one buffer, and does nothing with them.
//!
//! The cheapest way is to keep a file open and to read it again with `pread`. `mountinfo` is opened each time all the same, as an
//! open one pins the container's mounts, and so is the root of the container for `statfs`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use miharu_e2e::cgroup::{self, Cgroups};
use miharu_e2e::measure::{self, Cost};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// How the files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Kept open; the floor that counts.
    Kept,
    /// The same without `mountinfo`: as others measure who take the mounts for known.
    Bare,
    /// Of those, only what moves by itself: the floor of who watches the rest instead of reading it.
    Moving,
    /// Opened and closed each time.
    Opened,
}

impl Way {
    /// What it is called in the list of figures.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Kept => "kept open",
            Self::Bare => "kept open, without mountinfo",
            Self::Moving => "kept open, only what moves by itself",
            Self::Opened => "opened and closed each time",
        }
    }

    fn argument(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Bare => "bare",
            Self::Moving => "moving",
            Self::Opened => "opened",
        }
    }
}

/// The files of each controller's folder that the figures of a container come from, on version 1.
const V1: &[(&str, &[&str])] = &[
    ("cpuacct", &["cpuacct.usage_all"]),
    ("cpu", &["cpu.stat", "cpu.cfs_quota_us"]),
    ("cpuset", &["cpuset.effective_cpus"]),
    ("memory", &["memory.stat", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"]),
    ("hugetlb", &["hugetlb.2MB.limit_in_bytes"]),
    ("blkio", &["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"]),
    ("pids", &["pids.current"]),
];

/// The same on version 2, without pressure.
const V2: &[&str] = &[
    "cpu.stat",
    "cpu.max",
    "cpuset.cpus.effective",
    "memory.stat",
    "memory.current",
    "memory.peak",
    "memory.max",
    "memory.swap.current",
    "memory.events",
    "hugetlb.2MB.max",
    "io.stat",
    "pids.current",
];

/// Pressure, in the unified hierarchy, also where the controllers are on version 1.
const PRESSURE: &[&str] = &["cpu.pressure", "io.pressure", "memory.pressure"];

/// Those that change only when somebody writes to a control file, of the container or of one above it.
const WRITTEN: &[&str] = &[
    "cpu.cfs_quota_us",
    "cpuset.effective_cpus",
    "hugetlb.2MB.limit_in_bytes",
    "cpu.max",
    "cpuset.cpus.effective",
    "memory.max",
    "hugetlb.2MB.max",
];

/// Larger than any of the files.
const BUFFER: usize = 64 * 1024;

/// A process that reads on demand, killed on drop.
#[derive(Debug)]
pub(crate) struct Floor {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// How many files a round reads.
    pub(crate) files: u32,
}

impl Floor {
    /// Starts it for the containers of these inits.
    ///
    /// # Errors
    /// When it cannot open their files.
    pub(crate) fn start(way: Way, inits: &[u32]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.args(["floor", way.argument()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the floor")?;
        let to = child.stdin.take().context("the floor's input")?;
        let from = BufReader::new(child.stdout.take().context("the floor's output")?);
        let mut floor = Self { child, to, from, files: 0 };
        let inits: Vec<String> = inits.iter().map(u32::to_string).collect();
        floor.files = floor.say(&inits.join(" "))?.trim().parse().context("the floor did not start")?;
        Ok(floor)
    }

    /// What one round costs, of so many.
    ///
    /// # Errors
    /// When the process has ended.
    pub(crate) fn sample(&mut self, rounds: u32) -> Result<Cost> {
        let pid = self.child.id();
        let all = measure::cost(1, || measure::cpu(pid), || self.say(&rounds.to_string()).map(drop))?;
        let rounds = f64::from(rounds);
        Ok(Cost { cpu_us: all.cpu_us / rounds, wall_us: all.wall_us / rounds })
    }

    fn say(&mut self, line: &str) -> Result<String> {
        self.to.write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        if self.from.read_line(&mut answer)? == 0 {
            bail!("the floor's process has ended");
        }
        Ok(answer)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One file: where it is, and itself where it is kept.
struct Item {
    dir: Rc<OwnedFd>,
    name: &'static str,
    kept: Option<File>,
}

/// The process: the first line names the inits, each further one how many rounds to make.
///
/// # Errors
/// When a container is gone, or the line is no number.
pub(crate) fn work(way: Way) -> Result<()> {
    let mut lines = std::io::stdin().lines();
    let inits = lines.next().context("no containers")??;
    let inits: Vec<u32> =
        inits.split_whitespace().map(str::parse).collect::<Result<_, _>>().context("the inits")?;
    let mut items = Vec::new();
    let mut roots = Vec::new();
    for init in &inits {
        let folder = PathBuf::from(format!("/proc/{init}"));
        find(*init, &folder, way, &mut items)?;
        roots.push(folder.join("root/"));
    }
    println!("{}", items.len());
    let mut buffer = vec![0; BUFFER];
    for line in lines {
        let rounds: u32 = line?.parse().context("how many rounds")?;
        for _ in 0..rounds {
            for item in &items {
                item.read(&mut buffer);
            }
            for root in &roots {
                let _ = std::hint::black_box(nix::sys::statfs::statfs(root));
            }
        }
        println!("ok");
    }
    Ok(())
}

fn find(init: u32, folder: &Path, way: Way, items: &mut Vec<Item>) -> Result<()> {
    let cgroups = Cgroups::of(init)?;
    if cgroup::is_v2() {
        add(&cgroups.dir("")?, V2.iter().chain(PRESSURE), way, items)?;
    } else {
        for (controller, files) in V1 {
            if let Ok(dir) = cgroups.dir(controller) {
                add(&dir, files.iter(), way, items)?;
            }
        }
        if let Ok(path) = cgroups.path("") {
            let dir = Path::new("/sys/fs/cgroup/unified").join(path.trim_start_matches('/'));
            add(&dir, PRESSURE.iter(), way, items)?;
        }
    }
    add(folder, ["net/dev"].iter(), way, items)?;
    if matches!(way, Way::Kept | Way::Opened) {
        add(folder, ["mountinfo"].iter(), Way::Opened, items)?;
    }
    Ok(())
}

/// The files of a folder that are there.
fn add<'a>(
    dir: &Path,
    names: impl Iterator<Item = &'a &'static str>,
    way: Way,
    items: &mut Vec<Item>,
) -> Result<()> {
    let Ok(opened) = File::open(dir) else { return Ok(()) };
    let opened = Rc::new(OwnedFd::from(opened));
    let wanted = |name: &&&str| way != Way::Moving || !WRITTEN.contains(*name);
    for name in names.filter(|name| wanted(name) && dir.join(name).exists()) {
        let kept = match way {
            Way::Opened => None,
            Way::Kept | Way::Bare | Way::Moving => Some(File::open(dir.join(name))?),
        };
        items.push(Item { dir: Rc::clone(&opened), name, kept });
    }
    Ok(())
}

impl Item {
    /// Reads it from its beginning; that a container is gone is not its concern.
    fn read(&self, buffer: &mut [u8]) {
        if let Some(file) = &self.kept {
            let _ = std::hint::black_box(file.read_at(buffer, 0));
            return;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let Ok(opened) = openat(&*self.dir, self.name, flags, Mode::empty()) else { return };
        // The mounts of a container are given out in pieces of a page.
        let mut file = File::from(opened);
        while self.name == "mountinfo" && file.read(buffer).is_ok_and(|read| read > 0) {}
        if self.name != "mountinfo" {
            let _ = std::hint::black_box(file.read(buffer));
        }
    }
}

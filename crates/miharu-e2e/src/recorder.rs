//! Copies what miharu reads of a live host into a small tree that `miharud --root TREE` serves: text only, of the given
//! instances only. Golden tests and the demo without root run on such trees.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{cgroup, shell};

/// The host's own files.
const HOST: [&str; 6] = [
    "proc/meminfo",
    "proc/stat",
    "proc/uptime",
    "proc/sys/kernel/osrelease",
    "sys/devices/system/cpu/present",
    "sys/devices/system/cpu/online",
];

/// A process' files; `mountinfo` and `net/dev` are read of an init alone.
const PROCESS: [&str; 4] = ["stat", "status", "cgroup", "cmdline"];
const INIT: [&str; 2] = ["mountinfo", "net/dev"];

/// A cgroup's files, of both versions.
const CGROUP: [&str; 27] = [
    "cgroup.controllers",
    "cgroup.procs",
    "cpu.stat",
    "cpu.max",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpuacct.usage_all",
    "cpuset.cpus.effective",
    "cpuset.effective_cpus",
    "io.stat",
    "blkio.throttle.io_service_bytes_recursive",
    "blkio.throttle.io_serviced_recursive",
    "memory.current",
    "memory.peak",
    "memory.max",
    "memory.stat",
    "memory.events",
    "memory.swap.current",
    "memory.usage_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.limit_in_bytes",
    "memory.oom_control",
    "pids.current",
    "cpu.pressure",
    "memory.pressure",
    "io.pressure",
    "hugetlb.2MB.max",
];

/// What is to be recorded, and how.
#[derive(Debug)]
pub struct Recording<'a> {
    /// The tree to make.
    pub out: &'a Path,
    /// The instances' cgroups, such as `lxc.payload.u1`, the same in every hierarchy.
    pub cgroups: &'a [String],
    /// Names of hierarchies that are left out, such as `unified` to make a host of version 1 alone.
    pub without: &'a [&'a str],
    /// Texts of this machine, and what to write instead of them.
    pub replace: &'a [(String, String)],
}

impl Recording<'_> {
    /// Copies everything.
    ///
    /// # Errors
    /// When the tree cannot be written. A file that this kernel does not have is left out.
    pub fn make(&self) -> Result<()> {
        for file in HOST {
            self.copy(&Path::new("/").join(file))?;
        }
        for pool in list(Path::new("/sys/kernel/mm/hugepages")) {
            self.copy(&pool.join("nr_hugepages"))?;
        }
        let mut pids = BTreeSet::new();
        for hierarchy in cgroup::hierarchies() {
            if hierarchy.file_name().is_some_and(|name| self.without.iter().any(|without| name == *without)) {
                continue;
            }
            self.cgroup(&hierarchy, "cgroup.controllers")?;
            self.write(&hierarchy.join("cgroup.procs"), "1\n")?;
            for below in self.cgroups {
                self.instance(&hierarchy, below, &mut pids)?;
            }
        }
        self.host_init()?;
        pids.remove(&1);
        pids.remove(&std::process::id());
        for pid in &pids {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            for file in PROCESS {
                self.copy(&proc.join(file))?;
            }
            for file in INIT.iter().filter(|_| is_init(*pid)) {
                self.copy(&proc.join(file))?;
            }
        }
        self.devices()
    }

    /// Process 1, without what it says of the machine beyond its network counters and its own root.
    fn host_init(&self) -> Result<()> {
        let proc = Path::new("/proc/1");
        self.copy(&proc.join("net/dev"))?;
        self.write(&proc.join("cmdline"), "/sbin/init\0")?;
        self.write(&proc.join("cgroup"), "0::/\n")?;
        let text = fs::read_to_string(proc.join("mountinfo"))?;
        let root = text.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
        self.write(&proc.join("mountinfo"), &root.map(|line| format!("{line}\n")).collect::<String>())?;
        let comm = fs::read_to_string(proc.join("comm"))?;
        for file in ["stat", "status"] {
            let text = fs::read_to_string(proc.join(file))?;
            self.write(&proc.join(file), &text.replacen(comm.trim(), "init", 1))?;
        }
        Ok(())
    }

    /// An instance's cgroup, what is above it and what is below it.
    fn instance(&self, hierarchy: &Path, below: &str, pids: &mut BTreeSet<u32>) -> Result<()> {
        let own = hierarchy.join(below);
        if !own.is_dir() {
            return Ok(());
        }
        for above in
            own.ancestors().skip(1).take_while(|above| above.starts_with(hierarchy) && *above != hierarchy)
        {
            for file in CGROUP {
                self.cgroup(above, file)?;
            }
        }
        let mut waiting = vec![own];
        while let Some(dir) = waiting.pop() {
            for file in CGROUP {
                self.cgroup(&dir, file)?;
            }
            for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
                let Ok(pid) = pid.parse() else { continue };
                pids.insert(pid);
                // The monitor or supervisor.
                pids.extend(parent(pid));
            }
            waiting.extend(list(&dir).into_iter().filter(|path| path.is_dir()));
        }
        Ok(())
    }

    fn cgroup(&self, dir: &Path, file: &str) -> Result<()> {
        self.copy(&dir.join(file))
    }

    /// The block devices that the recorded I/O files name: the link, and the number of the device and its disk.
    fn devices(&self) -> Result<()> {
        let text = shell::run(
            "grep",
            ["-rhoE", "^[0-9]+:[0-9]+", &self.out.join("sys/fs/cgroup").display().to_string()],
        );
        let numbers: BTreeSet<_> = text.unwrap_or_default().lines().map(str::to_owned).collect();
        for number in numbers {
            let link = Path::new("/sys/dev/block").join(&number);
            let Ok(target) = fs::read_link(&link) else { continue };
            let place = self.place(&link);
            fs::create_dir_all(place.parent().context("parent")?)?;
            symlink(&target, &place).with_context(|| place.display().to_string())?;
            let device = fs::canonicalize(&link)?;
            for file in ["dev", "partition", "../dev"] {
                if let Ok(file) = fs::canonicalize(device.join(file)) {
                    self.copy(&file)?;
                }
            }
        }
        Ok(())
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.out.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn copy(&self, path: &Path) -> Result<()> {
        let Ok(bytes) = fs::read(path) else { return Ok(()) };
        self.write(path, &String::from_utf8_lossy(&bytes))
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let place = self.place(path);
        let text = self.replace.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        fs::create_dir_all(place.parent().context("parent")?)?;
        fs::write(&place, text).with_context(|| place.display().to_string())
    }
}

fn list(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn is_init(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = status.lines().filter_map(|line| line.strip_prefix("NSpid:"));
    lines.next().is_some_and(|pids| {
        pids.split_whitespace().count() > 1 && pids.split_whitespace().last() == Some("1")
    })
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

//! Machines of `systemd-nspawn`, with and without machined, each in the cgroup that systemd would give it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cgroup::{self, Cgroups};
use crate::machined::Machined;
use crate::scratch::{self, Entry, Note, unique};
use crate::{rootfs, shell};

/// A running machine, killed on drop.
#[derive(Debug)]
pub struct Nspawn {
    /// Its name.
    pub name: String,
    /// Its init, as the host numbers it.
    pub pid: u32,
    supervisor: Child,
    _process: Note,
    _cgroup: Note,
}

/// Whether a machine is registered with machined.
#[derive(Debug, Clone, Copy)]
pub enum Registration<'m> {
    /// It is not.
    None,
    /// It is, with this one.
    With(&'m Machined),
}

impl Registration<'_> {
    fn option(self) -> &'static str {
        match self {
            Self::None => "--register=no",
            Self::With(_) => "--register=yes",
        }
    }

    /// What stands before the program, so that it sees that machined's bus.
    fn prefix(self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::With(machined) => std::iter::once("nsenter".to_owned()).chain(machined.inside()).collect(),
        }
    }
}

impl Nspawn {
    /// Starts one with a busybox root and a network namespace of its own.
    ///
    /// # Errors
    /// When it does not come up; the error carries what it wrote.
    pub fn start() -> Result<Self> {
        let name = unique("mh");
        Self::with(&name, &format!("machine-{name}.scope"), Registration::None)
    }

    /// Starts one in the cgroup of `unit`.
    ///
    /// # Errors
    /// As [`Nspawn::start`].
    pub fn with(name: &str, unit: &str, registration: Registration<'_>) -> Result<Self> {
        let home = scratch::dir("nspawn")?;
        let root = home.join("rootfs");
        rootfs::make(&root)?;
        let slice = format!("machine.slice/{unit}");
        let cgroup_note = Entry::Cgroup(&slice).note()?;
        // The shell joins the cgroup of every hierarchy first and then becomes nspawn.
        let mut join = String::new();
        for hierarchy in cgroup::hierarchies() {
            let dir = hierarchy.join(&slice);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            prepare_cpuset(&hierarchy, &dir);
            delegate(&hierarchy)?;
            join += &format!("echo $$ >'{}/cgroup.procs'; ", dir.display());
        }
        let log = home.join("log");
        let out = fs::File::create(&log)?;
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(join + "exec \"$@\"")
            .arg("sh")
            .args(registration.prefix())
            .args(["systemd-nspawn", "-q", "-D"])
            .arg(&root)
            .args([
                "-M",
                name,
                registration.option(),
                "--keep-unit",
                "--private-network",
                "--link-journal=no",
                "--console=pipe",
                "/sbin/init",
            ]);
        if cgroup::is_v2() {
            command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        }
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let mut supervisor = command.spawn()?;
        let process = Entry::Process(supervisor.id()).note()?;
        let pid = shell::wait_for("the machine's init", Duration::from_secs(15), || {
            if supervisor.try_wait().ok()?.is_some() {
                return Some(None);
            }
            init_of(supervisor.id()).map(Some)
        })?;
        let Some(pid) = pid else { bail!("systemd-nspawn ended: {}", fs::read_to_string(&log)?) };
        Ok(Self { name: name.to_owned(), pid, supervisor, _process: process, _cgroup: cgroup_note })
    }

    /// Runs a shell line inside and gives what it wrote. It runs in the machine's namespaces, in the cgroups of the caller.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec(&self, line: &str) -> Result<String> {
        shell::run(
            "nsenter",
            ["-t", &self.pid.to_string(), "-m", "-u", "-i", "-n", "-p", "-r", "/bin/sh", "-c", line],
        )
    }

    /// The cgroups of its init.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cgroups(&self) -> Result<Cgroups> {
        Cgroups::of(self.pid)
    }
}

impl Drop for Nspawn {
    fn drop(&mut self) {
        // The init first: its end takes the namespaces along, and the supervisor ends by itself.
        let _ = shell::run("kill", ["-KILL", &self.pid.to_string()]);
        let _ = shell::wait_for("nspawn's end", Duration::from_secs(5), || {
            self.supervisor.try_wait().ok()?.map(|_| ())
        });
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

/// The supervisor's child that runs as process 1 of a namespace of its own.
fn init_of(supervisor: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let is_init = status
            .lines()
            .any(|line| line.starts_with("NSpid:") && line.split_whitespace().last() == Some("1"));
        // Before its exec it still goes by its parent's name and has not yet set the host name.
        is_init && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "init")
    })
}

/// As systemd does for its slices on version 2: the scopes below get the controllers that the root gives away.
fn delegate(hierarchy: &Path) -> Result<()> {
    if !cgroup::is_v2() {
        return Ok(());
    }
    for controller in fs::read_to_string(hierarchy.join("cgroup.subtree_control"))?.split_whitespace() {
        fs::write(hierarchy.join("machine.slice/cgroup.subtree_control"), format!("+{controller}"))?;
    }
    Ok(())
}

/// A cpuset of version 1 takes no process before it has CPUs and memory nodes.
fn prepare_cpuset(hierarchy: &Path, dir: &Path) {
    if !hierarchy.ends_with("cpuset") {
        return;
    }
    let Ok(below) = dir.strip_prefix(hierarchy) else { return };
    let mut at = hierarchy.to_owned();
    for part in below {
        let parent = at.clone();
        at.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // Not fs::copy, which would try to set a length and a mode.
            if let Ok(text) = fs::read(parent.join(file)) {
                let _ = fs::write(at.join(file), text);
            }
        }
    }
}

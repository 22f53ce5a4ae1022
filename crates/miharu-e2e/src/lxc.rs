//! Plain LXC containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup::{self, Cgroups};
use crate::netns::Netns;
use crate::scratch::{self, Entry, Note, unique};
use crate::{inside, measure, rootfs, shell};

/// How a container is to be made. The default is a busybox root in a folder, no network but `lo`.
#[derive(Debug, Default)]
pub struct Config {
    /// Its name; one that nobody else has when empty.
    pub name: String,
    /// Further lines of its configuration.
    pub lines: Vec<String>,
    /// Another root than a folder of its own, as `lxc.rootfs.path` takes it.
    pub rootfs: Option<String>,
}

/// A running container, stopped on drop.
#[derive(Debug)]
pub struct Lxc {
    /// Its name.
    pub name: String,
    /// Its LXCPATH.
    pub path: PathBuf,
    /// Its init, as the host numbers it.
    pub pid: u32,
    note: Option<Note>,
}

impl Lxc {
    /// Starts one with the defaults and these further lines of configuration.
    ///
    /// # Errors
    /// When LXC cannot; the error carries its log.
    pub fn start(lines: &[&str]) -> Result<Self> {
        Self::with(&Config {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            ..Config::default()
        })
    }

    /// Starts one as described.
    ///
    /// # Errors
    /// As [`Lxc::start`].
    pub fn with(config: &Config) -> Result<Self> {
        let path = scratch::dir("lxc")?;
        let name = if config.name.is_empty() { unique("mh") } else { config.name.clone() };
        let home = path.join(&name);
        let rootfs = match &config.rootfs {
            Some(rootfs) => rootfs.clone(),
            None => {
                rootfs::make(&home.join("rootfs"))?;
                format!("dir:{}", home.join("rootfs").display())
            }
        };
        fs::create_dir_all(&home)?;
        let mut lines = vec![
            format!("lxc.rootfs.path = {rootfs}"),
            format!("lxc.uts.name = {name}"),
            "lxc.tty.max = 0".into(),
            "lxc.pty.max = 16".into(),
            "lxc.init.cmd = /sbin/init".into(),
            "lxc.mount.auto = cgroup:mixed proc:mixed sys:ro".into(),
        ];
        if !config.lines.iter().any(|line| line.starts_with("lxc.net.")) {
            lines.push("lxc.net.0.type = empty".into());
        }
        lines.extend(config.lines.iter().cloned());
        fs::write(home.join("config"), lines.join("\n") + "\n")?;
        let mut lxc = Self { name, path, pid: 0, note: None };
        lxc.boot()?;
        Ok(lxc)
    }

    /// Starts it again after [`Lxc::stop`].
    ///
    /// # Errors
    /// As [`Lxc::start`].
    pub fn boot(&mut self) -> Result<()> {
        self.note = Some(Entry::Lxc(&self.path, &self.name).note()?);
        let mut command = Command::new("lxc-start");
        let log = self.path.join("log");
        command.args(["-n", &self.name, "-l", "WARN"]).arg("-P").arg(&self.path).arg("-o").arg(&log);
        shell::output(&mut command)
            .with_context(|| format!("lxc-start: {}", fs::read_to_string(&log).unwrap_or_default()))?;
        self.pid = shell::wait_for("the container's init", Duration::from_secs(10), || {
            self.tool("lxc-info", &["-p", "-H"]).ok()?.trim().parse().ok()
        })?;
        Ok(())
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// When it stays.
    pub fn stop(&mut self) -> Result<()> {
        self.note = None;
        let pid = self.pid;
        shell::wait_for("the container's end", Duration::from_secs(10), || {
            (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        })
    }

    /// Runs a shell line inside, in all its namespaces and cgroups, and gives what it wrote.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec(&self, line: &str) -> Result<String> {
        shell::output(Command::new("lxc-attach").arg("-P").arg(&self.path).args([
            "-n",
            &self.name,
            "--clear-env",
            "-v",
            "PATH=/bin:/sbin",
            "--",
            "/bin/sh",
            "-c",
            line,
        ]))
    }

    /// Gives it an interface with an address of a /24, up; the other end, called `outer`, goes up in the namespace. LXC itself
    /// does not do it, as its command socket lives in the network namespace that `lxc-start` ran in.
    ///
    /// # Errors
    /// When `ip` cannot.
    pub fn connect(&self, netns: &Netns, inner: &str, address: &str, outer_address: &str) -> Result<()> {
        inside::connect(self.pid, netns, "outer", inner, (address, outer_address))
    }

    /// Its cgroups.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cgroups(&self) -> Result<Cgroups> {
        Cgroups::of(self.pid)
    }

    /// A file of its root, seen from the host.
    #[must_use]
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid)).join(path.trim_start_matches('/'))
    }

    fn tool(&self, program: &str, args: &[&str]) -> Result<String> {
        shell::output(Command::new(program).arg("-P").arg(&self.path).args(["-n", &self.name]).args(args))
    }
}

/// Kills all containers of an LXCPATH at once and waits for the ends of their monitors, which remove the cgroups: one
/// `lxc-stop` after the other would take minutes for thousands.
pub fn end_all(path: &Path) {
    let monitors = || measure::processes(&format!("[lxc monitor] {} ", path.display())).unwrap_or_default();
    let inits: Vec<String> = monitors()
        .into_iter()
        .flat_map(|monitor| measure::tree(monitor).into_iter().skip(1))
        .map(|pid| pid.to_string())
        .collect();
    for some in inits.chunks(500) {
        let _ = shell::run("kill", ["-KILL".to_owned()].iter().chain(some));
    }
    let _ = shell::wait_for("the containers' end", Duration::from_secs(60), || {
        monitors().is_empty().then_some(())
    });
}

/// A configuration line that makes the kernel count disk traffic: on cgroup v1 it does so only from the first throttle limit
/// on; version 2 needs none, so that the line is a generous limit there too. `None` where no block device carries the folder.
#[must_use]
pub fn disk_accounting(dir: &Path) -> Option<String> {
    let (_, device) = block_device(dir)?;
    Some(if cgroup::is_v2() {
        format!("lxc.cgroup2.io.max = {device} rbps=10737418240")
    } else {
        format!("lxc.cgroup.blkio.throttle.read_bps_device = {device} 10737418240")
    })
}

/// The whole disk under a folder: its name and `MAJOR:MINOR`.
#[must_use]
pub fn block_device(dir: &Path) -> Option<(String, String)> {
    use std::os::unix::fs::MetadataExt;
    let dev = fs::metadata(dir).ok()?.dev();
    let (major, minor) = ((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xfff00));
    let mut sys = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    if sys.join("partition").exists() {
        sys.pop();
    }
    let number = fs::read_to_string(sys.join("dev")).ok()?;
    Some((sys.file_name()?.to_str()?.to_owned(), number.trim().to_owned()))
}

//! What a test does to a container of any runtime, by nothing but the process id of its init.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cgroup::Cgroups;
use crate::lxc::block_device;
use crate::netns::Netns;
use crate::{cgroup, guest, shell};

/// A command that runs a shell line in the namespaces, under the root and in the cgroups of a process.
///
/// # Errors
/// When it is gone.
pub fn command(pid: u32, line: &str) -> Result<Command> {
    let mut join = String::new();
    for dir in Cgroups::of(pid)?.dirs() {
        join += &format!("echo $$ >'{}/cgroup.procs' && ", dir.display());
    }
    let mut command = Command::new("/bin/sh");
    // By its path: a busybox shell, as in the guests, would take its own one, which knows less.
    let nsenter = guest::find("nsenter").context("nsenter is not installed")?;
    command.args(["-c", &format!("{join}exec \"$@\""), "sh"]).arg(nsenter).args(["-t", &pid.to_string()]);
    if is_in_other_user_namespace(pid)? {
        command.arg("-U");
    }
    command.args(["-m", "-u", "-i", "-n", "-p", "-r", "-w", "/bin/sh", "-c", line]);
    command.env("PATH", "/bin:/sbin");
    Ok(command)
}

/// Runs such a command and gives what it wrote. It is quicker than what runtimes have for it, and the same for all.
///
/// # Errors
/// When it fails.
pub fn run(pid: u32, line: &str) -> Result<String> {
    shell::output(&mut command(pid, line)?)
}

/// Gives a container an interface with an address of a /24, up; the other end, called `outer`, goes up in the namespace.
/// `addresses` are those of the inner and of the outer end.
///
/// # Errors
/// When `ip` cannot.
pub fn connect(pid: u32, netns: &Netns, outer: &str, inner: &str, addresses: (&str, &str)) -> Result<()> {
    let pid = pid.to_string();
    netns.ip(&["link", "add", outer, "type", "veth", "peer", "name", inner, "netns", &pid])?;
    netns.ip(&["addr", "add", &format!("{}/24", addresses.1), "dev", outer])?;
    netns.ip(&["link", "set", outer, "up"])?;
    let within = |args: &[&str]| shell::run("nsenter", ["-t", &pid, "-n", "ip"].iter().chain(args));
    within(&["addr", "add", &format!("{}/24", addresses.0), "dev", inner])?;
    within(&["link", "set", inner, "up"])?;
    Ok(())
}

/// Makes the kernel count what a container reads from and writes to the disk under a folder: version 1 does so only from the
/// first throttle limit on, so that it gets one that nothing reaches.
///
/// # Errors
/// When no block device carries the folder or the kernel refuses.
pub fn count_disk(pid: u32, dir: &Path) -> Result<()> {
    if cgroup::is_v2() {
        return Ok(());
    }
    let (_, device) = block_device(dir).context("the folder is on no block device")?;
    let file = Cgroups::of(pid)?.dir("blkio")?.join("blkio.throttle.read_bps_device");
    fs::write(&file, format!("{device} 10737418240")).with_context(|| file.display().to_string())
}

/// A file of its root, seen from the host.
#[must_use]
pub fn path(pid: u32, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root")).join(path.trim_start_matches('/'))
}

fn is_in_other_user_namespace(pid: u32) -> Result<bool> {
    let of =
        |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).with_context(|| format!("process {pid}"));
    Ok(of(&pid.to_string())? != of("self")?)
}

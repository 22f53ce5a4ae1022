//! systemd-nspawn, with and without machined: a supervisor process, and the machine's init as its child.
//!
//! The machine's cgroup is `machine-NAME.scope` or `systemd-nspawn@NAME.service`, with `payload` and `supervisor` in it
//! where nspawn divides it. A machine that was started without a cgroup of its own (`--keep-unit` in a shell, on a host
//! without systemd) leaves a trace in `/run/systemd/nspawn` alone, and its processes are in the caller's cgroup.

pub(crate) mod machine;
mod unclaimed;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miharu_linux::cgroup::CgroupPaths;

use crate::driver::{Claim, Driver, Host, Unidentified};
use crate::supervisor::Supervisor;
use crate::tree::{self, Climber, Top};
use crate::{Incarnation, Instance, Kind};

/// The name of a supervisor's process.
const SUPERVISOR: &str = "systemd-nspawn";

/// The driver of systemd-nspawn.
#[derive(Debug, Default)]
pub(crate) struct Nspawn {
    unclaimed: unclaimed::Memory,
}

impl Driver for Nspawn {
    fn name(&self) -> &'static str {
        "nspawn"
    }

    fn claims(&self, name: &OsStr, _parent: &OsStr) -> bool {
        machine::of_unit(name).is_some()
    }

    fn identify(&mut self, host: &mut Host<'_>, claim: &Claim) -> Result<Instance, Unidentified> {
        let supervisor = Supervisor::of(host, claim, "supervisor", SUPERVISOR)?;
        let mut climber = Climber::new(host.roots, &claim.path);
        for directory in &claim.directories {
            let payload = directory.join("payload");
            let start = if payload.is_dir() { &payload } else { directory };
            for pid in tree::pids_below(start, host.buffer) {
                let Some(init) = supervisor.init_above(host, &mut climber, pid) else { continue };
                let unit = claim.path.file_name().unwrap_or_default();
                let Some(machine) = machine::name(host.roots, &supervisor.process, Some(unit), &init) else {
                    return Err(supervisor.doubt(claim, "does not tell the machine's name"));
                };
                let cgroup =
                    tree::cgroup_paths(&init.memberships, |_, path| machine_cgroup(path, &claim.path));
                return Ok(instance(machine, init, cgroup, claim.inode));
            }
        }
        Err(Unidentified::Nothing)
    }

    fn without_cgroup(&mut self, host: &mut Host<'_>, found: &[Arc<Instance>]) -> Vec<Arc<Instance>> {
        self.unclaimed.scan(host, found)
    }
}

/// The machine's part of its init's path in one hierarchy: `payload` if there is one, else the scope; systemd inside
/// moves itself further down.
fn machine_cgroup(path: &Path, claimed: &Path) -> Option<PathBuf> {
    let unit = claimed.file_name()?;
    let mut own = PathBuf::new();
    let mut parts = path.components();
    for part in parts.by_ref() {
        own.push(part);
        if part.as_os_str() == unit {
            if parts.next().is_some_and(|next| next.as_os_str() == "payload") {
                own.push("payload");
            }
            return Some(own);
        }
    }
    None
}

/// A machine's name, and what its directory is called.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Machine {
    name: String,
    directory: OsString,
}

fn instance(machine: Machine, init: Top, cgroup: CgroupPaths, cgroup_inode: u64) -> Instance {
    let incarnation =
        Incarnation { cgroup_inode, init_pid: init.process.pid(), init_start: init.stat.starttime };
    Instance {
        project: "nspawn".to_owned(),
        id: machine.name.clone(),
        name: machine.name,
        kind: Kind::Container,
        runtime: "nspawn",
        init: Arc::new(init.process),
        cgroup,
        incarnation,
        directory: machine.directory,
        image: None,
        is_sandbox: false,
        vm: None,
    }
}

/// The last component of a path, without the ending of a disk image.
fn base_name(path: &[u8]) -> Option<&OsStr> {
    let name = Path::new(OsStr::from_bytes(path)).file_name()?;
    let bytes = name.as_bytes();
    Some(OsStr::from_bytes(bytes.strip_suffix(b".raw").unwrap_or(bytes)))
}

#[cfg(test)]
mod tests;

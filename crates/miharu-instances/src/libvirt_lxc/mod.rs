//! Containers of libvirt (`virsh -c lxc:///system`): a controller process each, and the container's init as its child.
//!
//! The controller, `libvirt_lxc --name NAME`, is in the container's cgroup itself, so the little that it uses counts as the
//! container's. The cgroup is `lxc-PID-NAME.libvirt-lxc`, or systemd's `machine-lxc…scope`; libvirt shortens and escapes the name
//! in both, so it is taken from the controller's command line.

pub(crate) mod state;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miharu_linux::process::arguments;

use crate::driver::{Claim, Driver, Host, Unidentified};
use crate::supervisor::Supervisor;
use crate::tree::{self, Climber, Top};
use crate::{Incarnation, Instance, Kind};

/// The name of a controller's process.
const CONTROLLER: &str = "libvirt_lxc";

/// Where a controller and its container are below a scope of systemd's on cgroup v2.
const NESTED: &str = "libvirt";

/// The longest name that is taken.
const MAX_NAME: usize = 255;

/// The most controllers that are remembered to have had no state yet.
const MAX_UNSTATED: usize = 1024;

/// The driver of libvirt's containers.
#[derive(Debug, Default)]
pub(crate) struct LibvirtLxc {
    /// Controllers, by number and start, whose state was not there at the first look: libvirtd writes it a moment after the
    /// container's start, and an id that is learned later would be another one.
    unstated: HashSet<(u32, u64)>,
}

impl Driver for LibvirtLxc {
    fn name(&self) -> &'static str {
        "libvirt-lxc"
    }

    fn claims(&self, name: &OsStr, _parent: &OsStr) -> bool {
        is_container(name)
    }

    fn identify(&mut self, host: &mut Host<'_>, claim: &Claim) -> Result<Instance, Unidentified> {
        let controller = Supervisor::of(host, claim, NESTED, CONTROLLER)?;
        let mut climber = Climber::new(host.roots, &claim.path);
        let pids: Vec<u32> = claim
            .directories
            .iter()
            .flat_map(|directory| tree::pids_below(directory, host.buffer))
            .filter(|pid| *pid != controller.process.pid())
            .collect();
        let init = pids.into_iter().find_map(|pid| controller.init_above(host, &mut climber, pid));
        let Some(init) = init else { return Err(Unidentified::Nothing) };
        self.container(host, claim, &controller, init)
    }
}

impl LibvirtLxc {
    fn container(
        &mut self,
        host: &mut Host<'_>,
        claim: &Claim,
        controller: &Supervisor,
        init: Top,
    ) -> Result<Instance, Unidentified> {
        let pid = controller.process.pid();
        let command_line = controller.process.command_line()?;
        let Some(name) = name(&command_line) else {
            return Err(controller.doubt(claim, "does not tell the container's name"));
        };
        let state = state::read(host.roots, &name, pid, host.buffer);
        let life = (pid, controller.stat.starttime);
        if state.is_none() && self.unstated.len() < MAX_UNSTATED && self.unstated.insert(life) {
            return Err(Unidentified::Nothing);
        }
        self.unstated.remove(&life);
        let state = state.unwrap_or_default();
        let cgroup = tree::cgroup_paths(&init.memberships, |_, path| container_cgroup(path));
        let incarnation = Incarnation {
            cgroup_inode: claim.inode,
            init_pid: init.process.pid(),
            init_start: init.stat.starttime,
        };
        Ok(Instance {
            project: "libvirt".to_owned(),
            id: state.uuid.unwrap_or_else(|| name.clone()),
            directory: state.root.unwrap_or_else(|| name.clone().into()),
            name,
            kind: Kind::Container,
            runtime: "libvirt",
            init: Arc::new(init.process),
            cgroup,
            incarnation,
            image: None,
            is_sandbox: false,
            vm: None,
        })
    }
}

/// Whether a cgroup is called as libvirt, or systemd on its behalf, calls a container's.
fn is_container(name: &OsStr) -> bool {
    let between = |start: &[u8], end: &[u8]| {
        let rest = name.as_bytes().strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
        rest.is_some_and(|rest| !rest.is_empty())
    };
    between(b"lxc-", b".libvirt-lxc") || between(br"machine-lxc\x2d", b".scope")
}

/// The part of a path down to the container's own cgroup: what is below is the container's, too.
fn container_cgroup(path: &Path) -> Option<PathBuf> {
    let depth = path.iter().position(is_container)?;
    Some(path.iter().take(depth + 1).collect())
}

/// The container's name among a controller's arguments, `--name NAME`.
pub(crate) fn name(command_line: &[u8]) -> Option<String> {
    let mut arguments = arguments(command_line).skip(1);
    while let Some(argument) = arguments.next() {
        let name = match argument {
            b"--name" | b"-n" => arguments.next()?,
            other => match other.strip_prefix(b"--name=") {
                Some(name) => name,
                None => continue,
            },
        };
        let is_name = !name.is_empty() && name.len() <= MAX_NAME && !name.contains(&b'/');
        return is_name.then(|| String::from_utf8_lossy(name).into_owned());
    }
    None
}

#[cfg(test)]
mod tests;

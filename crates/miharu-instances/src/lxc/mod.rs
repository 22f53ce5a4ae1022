//! LXC, and with it LXD and Incus: each container has a monitor process, whose command line tells its directory and
//! name.
//!
//! A container's cgroup is `lxc.payload.NAME`, with `-1` and so on behind it where that was taken; so the name comes
//! from the monitor, the parent of the container's init.

pub(crate) mod monitor;
mod state;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miharu_linux::process::ProcDir;

use crate::discovery::{disguised, doubtful};
use crate::driver::{Claim, Driver, Host, Unidentified, is_set_user_id, is_trusted};
use crate::patience::{NotTheSystems, Patience, Worth};
use crate::tree::{self, Climber, Top};
use crate::{Incarnation, Instance, Kind};

pub(crate) use state::daemon_of;

/// The driver of the LXC family.
#[derive(Debug, Default)]
pub(crate) struct Lxc {
    patience: Patience,
}

impl Driver for Lxc {
    fn name(&self) -> &'static str {
        "lxc"
    }

    fn claims(&self, name: &OsStr, parent: &OsStr) -> bool {
        is_payload(name, parent)
    }

    fn identify(&mut self, host: &mut Host<'_>, claim: &Claim) -> Result<Instance, Unidentified> {
        let mut climber = Climber::new(host.roots, &claim.path);
        let mut doubt = Unidentified::Nothing;
        for directory in &claim.directories {
            // Most have a process in the cgroup itself; only with systemd inside are all of them below.
            for pids in [tree::pids_in, tree::pids_below] {
                let pids = pids(directory, host.buffer);
                match self.first_of(pids, host, claim, &mut climber) {
                    Ok(instance) => return Ok(instance),
                    Err(Unidentified::Nothing) => {}
                    Err(other) => doubt = other,
                }
            }
        }
        Err(doubt)
    }
}

impl Lxc {
    /// The container that the first of these processes to tell belongs to.
    fn first_of(
        &mut self,
        pids: Vec<u32>,
        host: &mut Host<'_>,
        claim: &Claim,
        climber: &mut Climber<'_>,
    ) -> Result<Instance, Unidentified> {
        let mut doubt = Unidentified::Nothing;
        for pid in pids {
            let Some(top) = climber.climb(pid, host.buffer) else { continue };
            match from_top(host, claim, top, &mut self.patience) {
                Ok(instance) => return Ok(instance),
                // A process that came in another way, such as by lxc-attach, has no monitor for a parent.
                Err(Unidentified::Nothing) => {}
                Err(other) => doubt = other,
            }
        }
        Err(doubt)
    }
}

/// `lxc.payload.NAME`, or `NAME` in `lxc.payload` (LXC 3.1 and 3.2).
fn is_payload(name: &OsStr, parent: &OsStr) -> bool {
    let is_named = name.as_bytes().strip_prefix(b"lxc.payload.").is_some_and(|rest| !rest.is_empty());
    is_named || parent == "lxc.payload"
}

/// The container whose init `top` is, if its parent is a monitor that may be believed.
fn from_top(
    host: &mut Host<'_>,
    claim: &Claim,
    top: Top,
    patience: &mut Patience,
) -> Result<Instance, Unidentified> {
    let monitor = ProcDir::open(host.roots, top.stat.ppid)?;
    let started = monitor.stat(host.buffer)?.starttime;
    let status = monitor.status(host.buffer)?;
    // A monitor inside another container belongs to that; it cannot have begun after its child, either.
    if status.pid_namespace_depth != 1 || started > top.stat.starttime {
        return Err(Unidentified::Nothing);
    }
    // A user is believed about nothing but what is that user's own, whatever the program.
    if is_trusted(status.uid) && is_set_user_id(&monitor) {
        return Err(Unidentified::Nothing);
    }
    let command_line = if is_trusted(status.uid) {
        monitor.command_line()?
    } else {
        is_systems_lxc(host, claim, &monitor, status.uid, started, patience)?;
        let answer = patience.command_line(host.roots, status.uid, monitor.pid(), started, Worth::Instance);
        let why = "does not show its command line";
        answer.ok_or_else(|| unanswered(claim, &monitor, status.uid, patience, why))??
    };
    let Some(container) = monitor::parse(&command_line, is_trusted(status.uid)) else {
        return Err(Unidentified::Nothing);
    };
    let places = state::places(status.uid, &container);
    let Some(owners) = patience.owners(host.roots, status.uid, places.clone()) else {
        let why = format!("speaks for {}, where nothing answers", container.path.display());
        return Err(unanswered(claim, &monitor, status.uid, patience, &why));
    };
    let mut owners: BTreeMap<PathBuf, io::Result<u32>> = places.into_iter().zip(owners).collect();
    let directory = container.path.join(&container.name);
    let owner = owners.remove(&directory).unwrap_or_else(|| Err(ErrorKind::NotFound.into()));
    check_owner(claim, &monitor, status.uid, &directory, owner)?;
    let identity = state::identity(&monitor, status.uid, &container, &owners);
    let cgroup = tree::cgroup_paths(&top.memberships, |_, path| payload_of(path, &claim.path));
    let incarnation = Incarnation {
        cgroup_inode: claim.inode,
        init_pid: top.process.pid(),
        init_start: top.stat.starttime,
    };
    Ok(Instance {
        project: identity.project,
        name: identity.name,
        kind: Kind::Container,
        runtime: identity.runtime,
        id: container.name.to_string_lossy().into_owned(),
        init: Arc::new(top.process),
        cgroup,
        incarnation,
        directory: container.name,
        image: None,
        is_sandbox: false,
        vm: None,
    })
}

/// Whether a user's process runs a program of LXC's that root installed: anybody can give a process a monitor's title, and gets
/// nothing by it but a warning.
fn is_systems_lxc(
    host: &Host<'_>,
    claim: &Claim,
    monitor: &ProcDir,
    uid: u32,
    started: u64,
    patience: &mut Patience,
) -> Result<(), Unidentified> {
    let is_named = |path: &Path| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"lxc-"));
    if !is_named(&monitor.program()?) {
        let line = patience.command_line(host.roots, uid, monitor.pid(), started, Worth::Warning);
        let has_title = line.is_some_and(|line| line.is_ok_and(|line| monitor::parse(&line, true).is_some()));
        return Err(if has_title {
            disguised(claim, monitor.pid(), uid, "a monitor of LXC")
        } else {
            Unidentified::Nothing
        });
    }
    match patience.systems_program(host.roots, uid, monitor.pid(), started, Worth::Instance) {
        Some(Ok(path)) if is_named(&path) => Ok(()),
        Some(Ok(_)) => Err(Unidentified::Nothing),
        Some(Err(NotTheSystems::Unseen(error))) => Err(error.into()),
        Some(Err(why)) => Err(doubtful(claim, monitor.pid(), uid, why.to_string())),
        None => Err(unanswered(claim, monitor, uid, patience, "does not show its program")),
    }
}

/// What is made of a question without an answer.
fn unanswered(
    claim: &Claim,
    monitor: &ProcDir,
    uid: u32,
    patience: &mut Patience,
    why: &str,
) -> Unidentified {
    if patience.is_used_up() { Unidentified::Nothing } else { doubtful(claim, monitor.pid(), uid, why) }
}

/// Believes root, and a user about what is that user's own: anybody can call a process `[lxc monitor] …`.
fn check_owner(
    claim: &Claim,
    monitor: &ProcDir,
    uid: u32,
    directory: &Path,
    owner: io::Result<u32>,
) -> Result<(), Unidentified> {
    let doubt = |why: String| Err(doubtful(claim, monitor.pid(), uid, why));
    match owner {
        Ok(owner) if is_trusted(uid) || owner == uid => Ok(()),
        Ok(_) => doubt(format!("of user {uid} speaks for {}, which is not that user's", directory.display())),
        Err(error) if error.kind() == ErrorKind::PermissionDenied && is_trusted(uid) => Ok(()),
        Err(error) => doubt(format!("speaks for {}: {error}", directory.display())),
    }
}

/// The part of a cgroup's path down to the container's own: systemd inside moves itself further down.
fn payload_of(path: &Path, claimed: &Path) -> Option<PathBuf> {
    if path.starts_with(claimed) {
        return Some(claimed.to_owned());
    }
    let mut parent = OsString::new();
    let mut payload = PathBuf::new();
    for part in path {
        payload.push(part);
        if is_payload(part, &parent) {
            return Some(payload);
        }
        parent = part.to_owned();
    }
    None
}

#[cfg(test)]
mod tests;

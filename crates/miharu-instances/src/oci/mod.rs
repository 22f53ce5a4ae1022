//! What podman, Docker, containerd and Kubernetes share: a container is a cgroup with its id in its name, an init, and a
//! monitor process of the runtime's as the parent of that.
//!
//! Anybody can name a cgroup and write a command line, so only a monitor that root runs in the host's pid namespace is
//! believed, or, of a user whom `instances.rootless` names, that very user's. What a user calls a container is learned in
//! a thread of its own: see [`names`].

pub(crate) mod conmon;
pub(crate) mod conversation;
pub(crate) mod files;
pub(crate) mod names;
pub(crate) mod sockets;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miharu_linux::process::{Memberships, ProcDir, arguments};

use crate::discovery::disguised;
use crate::driver::{Claim, Host, Unidentified, is_set_user_id, is_trusted};
use crate::patience::{NotTheSystems, Patience, Worth};
use crate::tree::{self, Climber, Top};
use crate::{Incarnation, Instance, Kind};

use names::Identity;

/// Digits of a container's id.
const ID: usize = 64;

/// Digits of it that people use.
const SHORT_ID: usize = 12;

/// The longest name that is taken, bytes.
const MAX_NAME: usize = 255;

/// The longest name of an image that is taken, bytes.
const MAX_IMAGE: usize = 512;

/// Whether this is the id of a container: 64 digits, as podman, Docker and Kubernetes' runtimes give out.
pub(crate) fn is_id(text: &[u8]) -> bool {
    text.len() == ID && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The id in a cgroup's name: `PREFIX-ID.scope` or `PREFIX-ID`.
pub(crate) fn id_of(name: &OsStr, prefix: &str) -> Option<String> {
    let rest = name.as_bytes().strip_prefix(prefix.as_bytes())?.strip_prefix(b"-")?;
    let id = rest.strip_suffix(b".scope").unwrap_or(rest);
    is_id(id).then(|| String::from_utf8_lossy(id).into_owned())
}

/// Whether this may be the name of a container, pod or Compose project: what podman, Docker and Compose allow in theirs.
/// State files, labels and command lines could hold anything.
pub(crate) fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(is_allowed)
}

/// Whether this may be what an image is called.
pub(crate) fn is_image(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_IMAGE && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The first digits of an id, which name a container whose name cannot be learned.
pub(crate) fn short(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}

/// A process that watches over a container: conmon, or a shim of containerd's.
#[derive(Debug)]
pub(crate) struct Monitor {
    /// The process.
    pub(crate) process: ProcDir,
    /// When it started, ticks after boot.
    pub(crate) started: u64,
    /// Who runs it, as the host counts.
    pub(crate) uid: u32,
    /// Its arguments, NUL between them: see [`miharu_linux::process::arguments`].
    pub(crate) command_line: Vec<u8>,
}

/// A container's init, and its monitor.
#[derive(Debug)]
pub(crate) struct Found {
    /// The first process of the container.
    pub(crate) init: Arc<ProcDir>,
    /// When that started, ticks after boot.
    pub(crate) started: u64,
    /// Where it is in each hierarchy.
    pub(crate) memberships: Memberships,
    /// Who watches over it.
    pub(crate) monitor: Monitor,
}

/// Whose monitors are believed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Believed<'b> {
    /// The system's.
    System,
    /// The system's, and those of these users; each of them only about what is its own, which the caller looks after.
    AlsoUsers(&'b [u32]),
}

impl Believed<'_> {
    fn contains(self, uid: u32) -> bool {
        is_trusted(uid) || matches!(self, Self::AlsoUsers(users) if users.contains(&uid))
    }
}

/// The container of a claimed cgroup: the oldest of the processes in it that a monitor started. What `docker exec` or
/// `podman exec` started came later. `is_monitor` looks at a command line: whether it is one of this very container's.
///
/// # Errors
/// [`Unidentified`] where there is none.
pub(crate) fn find(
    host: &mut Host<'_>,
    claim: &Claim,
    believed: Believed<'_>,
    patience: &mut Patience,
    is_monitor: &dyn Fn(&[u8]) -> bool,
) -> Result<Found, Unidentified> {
    let mut climber = Climber::new(host.roots, &claim.path);
    let mut tops: Vec<Top> = Vec::new();
    for directory in &claim.directories {
        for pid in tree::pids_below(directory, host.buffer) {
            tops.extend(climber.climb(pid, host.buffer));
        }
        // The others hold the same processes, or none.
        if !tops.is_empty() {
            break;
        }
    }
    tops.sort_by_key(|top| (top.stat.starttime, top.process.pid()));
    let mut doubt = Unidentified::Nothing;
    for top in tops {
        let Some(monitor) = parent(host, &top, believed, patience) else { continue };
        if !is_monitor(&monitor.command_line) {
            continue;
        }
        let pid = monitor.process.pid();
        if believed.contains(monitor.uid) {
            let Top { process, stat, memberships } = top;
            return Ok(Found { init: Arc::new(process), started: stat.starttime, memberships, monitor });
        }
        if let Some(called) = disguise(host, &monitor, patience) {
            doubt = disguised(claim, pid, monitor.uid, &called);
        }
    }
    Err(doubt)
}

/// The parent of a process, if it may be a monitor. One inside another container belongs to that.
fn parent(
    host: &mut Host<'_>,
    top: &Top,
    believed: Believed<'_>,
    patience: &mut Patience,
) -> Option<Monitor> {
    let process = ProcDir::open(host.roots, top.stat.ppid).ok()?;
    let started = process.stat(host.buffer).ok()?.starttime;
    let status = process.status(host.buffer).ok()?;
    if status.pid_namespace_depth != 1 || started > top.stat.starttime || is_set_user_id(&process) {
        return None;
    }
    let command_line = if is_trusted(status.uid) {
        process.command_line().ok()?
    } else {
        let worth = if believed.contains(status.uid) { Worth::Instance } else { Worth::Warning };
        patience.command_line(host.roots, status.uid, process.pid(), started, worth)?.ok()?
    };
    Some(Monitor { process, started, uid: status.uid, command_line })
}

/// What a user's process is called that has a monitor's command line and runs another program. The monitors of users whom
/// `instances.rootless` does not name are nobody's disguise; some have theirs in a directory of their own.
fn disguise(host: &Host<'_>, monitor: &Monitor, patience: &mut Patience) -> Option<String> {
    let Monitor { process, started, uid, command_line } = monitor;
    let called = Path::new(OsStr::from_bytes(arguments(command_line).next()?)).file_name()?;
    // One that was upgraded since it started is still called so.
    let is_so_called = |path: &Path| {
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        name.strip_suffix(b" (deleted)").unwrap_or(name) == called.as_bytes()
    };
    match patience.systems_program(host.roots, *uid, process.pid(), *started, Worth::Warning)? {
        Ok(path) | Err(NotTheSystems::Anybodys { path, .. }) if is_so_called(&path) => None,
        Err(NotTheSystems::Unseen(_)) => None,
        Ok(_) | Err(NotTheSystems::Anybodys { .. }) => Some(called.to_string_lossy().into_owned()),
    }
}

impl Found {
    /// What tells this life of the container from others.
    pub(crate) fn incarnation(&self, claim: &Claim) -> Incarnation {
        Incarnation { cgroup_inode: claim.inode, init_pid: self.init.pid(), init_start: self.started }
    }

    /// The instance, once its identity is known.
    pub(crate) fn instance(
        self,
        claim: &Claim,
        runtime: &'static str,
        id: String,
        identity: Identity,
    ) -> Instance {
        let incarnation = self.incarnation(claim);
        let cgroup = tree::cgroup_paths(&self.memberships, |_, path| whole(path, &claim.path));
        Instance {
            project: identity.project,
            name: identity.name,
            kind: Kind::Container,
            runtime,
            directory: id.clone().into(),
            id,
            init: self.init,
            cgroup,
            incarnation,
            image: identity.image,
            is_sandbox: identity.is_sandbox,
            vm: None,
        }
    }
}

/// The part of a path down to the claimed cgroup's name, which holds all of the container and its limits: crun and a
/// systemd inside put the processes further down.
fn whole(path: &Path, claimed: &Path) -> Option<PathBuf> {
    // A namespace of containerd may be called like a container in it.
    if path.starts_with(claimed) {
        return Some(claimed.to_owned());
    }
    let name = claimed.file_name()?;
    let mut own = PathBuf::new();
    for part in path {
        own.push(part);
        if part == name {
            return Some(own);
        }
    }
    None
}

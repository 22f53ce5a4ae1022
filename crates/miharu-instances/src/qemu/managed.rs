//! Virtual machines of Incus and LXD: their QEMU writes its pid into the instance's run or log directory, which the daemon
//! keeps, so the file vouches for the process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use miharu_linux::Roots;
use miharu_linux::read::number_file;

use super::watch::Process;
use crate::driver::{is_trusted, owner};
use crate::oci::files::read_systems;
use crate::vm::Owner;
use crate::{lxc, users};

/// Where the daemons keep run state and logs that are not in their state directory, and that directory.
const PLACES: &[(&str, &str)] = &[
    ("/run/incus", "/var/lib/incus"),
    ("/var/run/incus", "/var/lib/incus"),
    ("/var/log/incus", "/var/lib/incus"),
    ("/run/lxd", "/var/lib/lxd"),
    ("/var/run/lxd", "/var/lib/lxd"),
    ("/var/log/lxd", "/var/lib/lxd"),
];

/// The users, besides root, as which the daemons run QEMU. None of them is a tenant.
const USERS: &[&str] = &["incus", "lxd", "nobody"];

/// A virtual machine's place with its daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Managed {
    pub(super) project: String,
    pub(super) name: String,
    /// `project_name`, or the name alone in the project `default`.
    pub(super) directory: OsString,
    pub(super) owner: Owner,
    pub(super) certificates: PathBuf,
}

impl Managed {
    pub(super) fn runtime(&self) -> &'static str {
        if self.owner == Owner::Lxd { "lxd" } else { "incus" }
    }
}

/// The instance of a process that says that it writes its number into `pidfile`, if that is `…/INSTANCE/qemu.pid` of a daemon
/// and holds that number.
pub(super) fn find(roots: &Roots, process: &Process, pidfile: &Path) -> Option<Managed> {
    if pidfile.file_name()? != "qemu.pid" {
        return None;
    }
    // First of all: what a tenant named is not even looked at, as it may lie on a file system that never answers.
    if !may_vouch(roots, process.uid) {
        return None;
    }
    let instance = pidfile.parent()?;
    let (base, directory) = (instance.parent()?, instance.file_name()?.to_owned());
    let state = state_directory(base)?;
    let runtime = lxc::daemon_of(roots, &state, None)?;
    if !vouches(roots, instance, pidfile, process.dir.pid()) {
        return None;
    }
    let text = directory.to_str()?;
    // Neither a project's nor an instance's name can hold an underscore.
    let (project, name) = text.split_once('_').unwrap_or(("default", text));
    Some(Managed {
        project: project.to_owned(),
        name: name.to_owned(),
        owner: if runtime == "lxd" { Owner::Lxd } else { Owner::Incus },
        certificates: state.join("virtual-machines").join(&directory),
        directory,
    })
}

/// The state directory that run state in `base` belongs to: `DIR/run` and `DIR/logs` are in it.
fn state_directory(base: &Path) -> Option<PathBuf> {
    if let Some((_, state)) = PLACES.iter().find(|(place, _)| base == Path::new(place)) {
        return Some(PathBuf::from(state));
    }
    let name = base.file_name()?;
    (name == "run" || name == "logs").then(|| base.parent().map(Path::to_owned)).flatten()
}

/// A tenant's process could hold a number that a machine which is no more has left in its file.
fn may_vouch(roots: &Roots, uid: u32) -> bool {
    is_trusted(uid) || users::name(roots, uid).is_some_and(|name| USERS.contains(&name.as_str()))
}

/// Whether the file and what it is in are root's, and it holds `pid`.
fn vouches(roots: &Roots, instance: &Path, pidfile: &Path, pid: u32) -> bool {
    let is_roots = |path: &Path| owner(roots, path).is_ok_and(is_trusted);
    if !instance.parent().is_some_and(is_roots) || !is_roots(instance) {
        return false;
    }
    let Some(place) = roots.host_path(pidfile) else { return false };
    read_systems(&place).is_ok_and(|text| number_file(&text) == Some(u64::from(pid)))
}

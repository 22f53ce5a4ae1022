//! Whose container it is: LXD's, Incus' or LXC's own, told by what stands beside the directory that it is in.

use std::path::Path;

use miharu_linux::Roots;
use miharu_linux::process::ProcDir;

use super::monitor::Container;
use crate::driver::{is_trusted, owner};

/// LXC's own directory; its project has the short name.
const SYSTEM_PATH: &str = "/var/lib/lxc";

/// The project that LXD and Incus put nothing in front of a name for.
const DEFAULT_PROJECT: &str = "default";

/// What an instance is called to the user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) project: String,
    pub(super) name: String,
    pub(super) runtime: &'static str,
}

/// Names a container by where it is, and who runs its monitor.
pub(super) fn identity(roots: &Roots, monitor: &ProcDir, uid: u32, container: &Container) -> Identity {
    let name = container.name.to_string_lossy();
    if let Some(runtime) = daemon(roots, monitor, uid, &container.path) {
        // Neither a project's nor an instance's name can hold an underscore.
        let (project, name) = name.split_once('_').unwrap_or((DEFAULT_PROJECT, &name));
        return Identity { project: project.to_owned(), name: name.to_owned(), runtime };
    }
    let project = if container.path == Path::new(SYSTEM_PATH) {
        "lxc".to_owned()
    } else {
        format!("lxc:{}", container.path.display())
    };
    Identity { project, name: name.into_owned(), runtime: "lxc" }
}

/// Whose state directory `DIR/containers` is in, `lxd` or `incus`.
fn daemon(roots: &Roots, monitor: &ProcDir, uid: u32, path: &Path) -> Option<&'static str> {
    let directory = path.parent().filter(|_| path.file_name().is_some_and(|name| name == "containers"))?;
    if is_trusted(uid) { daemon_of(roots, directory, Some(monitor)) } else { None }
}

/// Whose state directory this is, `lxd` or `incus`; `monitor` is a process that the daemon became. A daemon's socket or
/// database has to stand there, and all of it has to be root's: a user who makes such a directory does not get into a
/// project of theirs.
pub(crate) fn daemon_of(roots: &Roots, directory: &Path, monitor: Option<&ProcDir>) -> Option<&'static str> {
    let is_roots = |path: &Path| owner(roots, path).is_ok_and(is_trusted);
    let has = |name: &str| is_roots(&directory.join(name));
    if !is_roots(directory) || !(has("unix.socket") || has("database")) {
        return None;
    }
    // The directory of the socket that a guest gets at /dev/incus or /dev/lxd.
    match (has("guestapi"), has("devlxd")) {
        (true, false) => Some("incus"),
        (false, true) => Some("lxd"),
        _ => Some(monitor.and_then(by_program).unwrap_or_else(|| by_name(directory))),
    }
}

/// By the program that became the monitor.
fn by_program(monitor: &ProcDir) -> Option<&'static str> {
    let program = rustix::fs::readlinkat(monitor.as_fd(), "exe", Vec::new()).ok()?;
    let program = program.to_str().ok()?.trim_end_matches(" (deleted)");
    match Path::new(program).file_name()?.to_str()? {
        "incusd" => Some("incus"),
        "lxd" => Some("lxd"),
        _ => None,
    }
}

/// By what the directory is called.
fn by_name(directory: &Path) -> &'static str {
    if directory.to_string_lossy().contains("lxd") { "lxd" } else { "incus" }
}

//! Whose container it is: LXD's, Incus' or LXC's own, told by what stands beside the directory that it is in.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

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

/// What has to be known of a container's place: who owns its directory, and where a daemon may stand behind it, what is there.
pub(super) fn places(uid: u32, container: &Container) -> Vec<PathBuf> {
    let mut places = vec![container.path.join(&container.name)];
    if let Some(directory) = daemons_directory(uid, &container.path) {
        places.push(directory.to_owned());
        places.extend(MARKS.iter().map(|mark| directory.join(mark)));
    }
    places
}

/// Names a container by where it is, and who runs its monitor. `owners` has what is to be known of [`places`].
pub(super) fn identity(
    monitor: &ProcDir,
    uid: u32,
    container: &Container,
    owners: &BTreeMap<PathBuf, io::Result<u32>>,
) -> Identity {
    let name = container.name.to_string_lossy();
    let is_roots = |path: &Path| matches!(owners.get(path), Some(Ok(owner)) if is_trusted(*owner));
    let directory = daemons_directory(uid, &container.path);
    let daemon = directory.and_then(|directory| daemon(&is_roots, directory, Some(monitor)));
    if let Some(runtime) = daemon {
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

/// The directory that may be a daemon's, for a container in `DIR/containers` of root's.
fn daemons_directory(uid: u32, path: &Path) -> Option<&Path> {
    let is_named = path.file_name().is_some_and(|name| name == "containers");
    path.parent().filter(|_| is_named && is_trusted(uid))
}

/// What a daemon leaves in its state directory.
const MARKS: [&str; 4] = ["unix.socket", "database", "guestapi", "devlxd"];

/// Whose state directory this is, `lxd` or `incus`; `monitor` is a process that the daemon became. A daemon's socket or
/// database has to stand there, and all of it has to be root's: a user who makes such a directory does not get into a
/// project of theirs.
pub(crate) fn daemon_of(roots: &Roots, directory: &Path, monitor: Option<&ProcDir>) -> Option<&'static str> {
    daemon(&|path| owner(roots, path).is_ok_and(is_trusted), directory, monitor)
}

fn daemon(
    is_roots: &dyn Fn(&Path) -> bool,
    directory: &Path,
    monitor: Option<&ProcDir>,
) -> Option<&'static str> {
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

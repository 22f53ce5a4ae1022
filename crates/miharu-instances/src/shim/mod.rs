//! What Docker, containerd and Kubernetes share: a shim of containerd's as the parent of a container's init, and a bundle
//! that tells how the container was started.
//!
//! No path is taken for granted: the shim works in the bundle of its first container, and those of its others are beside
//! it. So a containerd or a Docker is found wherever it keeps its state.

pub(crate) mod bundle;
pub(crate) mod command;
pub(crate) mod name;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use miharu_linux::Roots;
use miharu_linux::process::ProcDir;

use crate::oci::{Found, files};

pub(crate) use command::Command;

/// The namespace of containerd in which the CRI plugin, so Kubernetes, keeps its containers.
pub(crate) const KUBERNETES: &str = "k8s.io";

/// The one in which Docker does, unless it is told otherwise.
pub(crate) const DOCKER: &str = "moby";

/// The directory of a containerd's state that has a bundle for each running container, `NAMESPACE/ID`.
pub(crate) const TASKS: &str = "io.containerd.runtime.v2.task";

/// The state directories of the system's containerd, and of the one that Docker starts where there is none.
const STATES: &[&str] = &["/run/containerd", "/run/docker/containerd/daemon"];

/// A shim that watches over a container.
#[derive(Debug)]
pub(crate) struct Shim {
    /// What it says of itself.
    pub(crate) command: Command,
    /// Where the bundles of its namespace are, as the host calls it.
    bundles: Vec<PathBuf>,
}

impl Shim {
    /// The shim that was found as a container's monitor; `None` where it is another kind of monitor.
    pub(crate) fn of(found: &Found) -> Option<Self> {
        let command = command::parse(&found.monitor.command_line)?;
        let bundles = match bundles(&found.monitor.process, &command.namespace) {
            Some(bundles) => vec![bundles],
            // It cannot be seen, for want of a capability.
            None => {
                STATES.iter().map(|state| Path::new(state).join(TASKS).join(&command.namespace)).collect()
            }
        };
        Some(Self { command, bundles })
    }

    /// The directories in which the bundle of container `id` may be, as this process sees them.
    pub(crate) fn bundle(&self, roots: &Roots, id: &str) -> Vec<PathBuf> {
        self.bundles.iter().filter_map(|bundles| roots.host_path(&bundles.join(id))).collect()
    }
}

/// Where the bundles are among which a shim works, as the host calls it.
pub(crate) fn bundles(shim: &ProcDir, namespace: &str) -> Option<PathBuf> {
    let directory = rustix::fs::readlinkat(shim.as_fd(), "cwd", Vec::new()).ok()?;
    let directory = directory.as_bytes();
    // One whose bundle was removed is ending, or was left behind by a containerd that was killed.
    let directory = directory.strip_suffix(b" (deleted)").unwrap_or(directory);
    let bundles = Path::new(OsStr::from_bytes(directory)).parent()?;
    (bundles.is_absolute() && bundles.file_name() == Some(OsStr::new(namespace))).then(|| bundles.to_owned())
}

/// The configuration in the first of these bundles that has one.
pub(crate) fn config(bundles: &[PathBuf]) -> Option<bundle::Config> {
    bundles
        .iter()
        .find_map(|bundle| bundle::Config::parse(&files::read_systems(&bundle.join("config.json")).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Process, Tree};

    #[test]
    fn bundles_are_where_the_shim_works() {
        let tree = Tree::v2();
        let process = Process {
            pid: 7,
            ppid: 1,
            comm: "containerd-shim",
            command_line: "x",
            uid: 0,
            depth: 1,
            cgroup: "s",
        };
        tree.process(&process);
        let roots = Roots::at(&tree.path("/"));
        let at = |directory: &str| {
            let link = tree.path("proc/7/cwd");
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(directory, link).unwrap();
            bundles(&ProcDir::open(&roots, 7).unwrap(), "moby").map(|path| path.display().to_string())
        };
        assert_eq!(at("/d/moby/f58f").as_deref(), Some("/d/moby"));
        assert_eq!(at("/d/moby/f58f (deleted)").as_deref(), Some("/d/moby"));
        for other in ["/d/other/f58f", "/", "moby/f58f", "/moby"] {
            assert_eq!(at(other), None, "{other}");
        }
    }
}

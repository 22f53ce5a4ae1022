//! What the starters of podman, Docker and containerd share: the image, a container's handle, and cleaning up after them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::cgroup::Cgroups;
use crate::{inside, measure, rootfs, scratch, shell};

/// Programs that stay while containers run.
const MONITORS: [&str; 6] =
    ["conmon", "containerd-shim-runc-v2", "dockerd", "containerd", "podman", "docker-proxy"];

/// What these runtimes leave behind empty, by their defaults.
const PARENTS: [&str; 3] = ["/libpod_parent/conmon", "/libpod_parent", "/docker"];

/// A running container of podman, Docker or containerd. Its runtime's starter ends it.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its name, as it was when it was started.
    pub name: String,
    /// The runtime's own id of it.
    pub id: String,
    /// Its init, as the host numbers it.
    pub pid: u32,
}

impl Container {
    /// Runs a shell line inside, in all its namespaces and cgroups, and gives what it wrote.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec(&self, line: &str) -> Result<String> {
        inside::run(self.pid, line)
    }

    /// Its cgroups.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cgroups(&self) -> Result<Cgroups> {
        Cgroups::of(self.pid)
    }
}

/// The image of all test containers as a tar of its root, made once for a test program.
///
/// # Errors
/// When it cannot be made.
pub fn image() -> Result<&'static Path> {
    static TAR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let make = || -> Result<PathBuf> {
        let dir = scratch::dir("image")?;
        rootfs::make(&dir.join("rootfs"))?;
        let tar = dir.join("rootfs.tar");
        let (root, to) = (dir.join("rootfs"), tar.clone());
        shell::run("tar", ["-C".as_ref(), root.as_os_str(), "-cf".as_ref(), to.as_os_str(), ".".as_ref()])?;
        Ok(tar)
    };
    let made = TAR.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    made.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// Kills the daemons and monitors whose command line names a folder, and all that runs below them, and waits for their ends.
pub fn end_all(home: &Path) {
    let found = || -> Vec<u32> { monitors(home).unwrap_or_default() };
    // A monitor first: it would clean up after its container in its own way, with files that are just being removed.
    let all: BTreeSet<u32> = found().into_iter().flat_map(measure::tree).collect();
    let (first, then): (Vec<u32>, Vec<u32>) = {
        let monitors = found();
        all.into_iter().partition(|pid| monitors.contains(pid))
    };
    for pid in first.into_iter().chain(then) {
        let _ = shell::run("kill", ["-KILL".to_owned(), pid.to_string()]);
    }
    let _ = shell::wait_for("the monitors' end", std::time::Duration::from_secs(10), || {
        found().is_empty().then_some(())
    });
}

/// Daemons and monitors whose command line names a folder.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn monitors(home: &Path) -> Result<Vec<u32>> {
    let home = home.to_str().context("a path that is no UTF-8")?;
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids
        .filter(|pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let program =
                line.split('\0').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            MONITORS.contains(&program) && names(&line, home)
        })
        .collect())
}

/// Whether a command line names a folder or something below it, and not one whose name only begins alike.
fn names(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(at, _)| {
        let rest = line.get(at + home.len()..).unwrap_or_default();
        rest.is_empty() || rest.starts_with(['/', '\0'])
    })
}

/// Held by everyone who has containers below the cgroups that all containers of these runtimes share; the last to let go
/// removes them.
#[derive(Debug)]
pub struct Shared(fs::File);

impl Shared {
    /// Joins the others.
    ///
    /// # Errors
    /// When the lock's file cannot be made.
    pub fn join() -> Result<Self> {
        let file = scratch::lock_file("oci")?;
        file.lock_shared()?;
        Ok(Self(file))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.0.unlock().is_err() || self.0.try_lock().is_err() {
            return;
        }
        for hierarchy in crate::cgroup::hierarchies() {
            for parent in PARENTS {
                // The kernel refuses where something is left in it.
                let _ = fs::remove_dir(hierarchy.join(parent.trim_start_matches('/')));
            }
        }
    }
}

/// The id or name that a command wrote in its last line.
pub(crate) fn last_line(output: &str) -> Result<String> {
    match output.trim().lines().last() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!("no id in {output:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_as_a_whole() {
        let line = "/usr/bin/conmon\0-b\0/s/run-1/podman1n2/storage\0";
        assert!(names(line, "/s/run-1/podman1n2"));
        assert!(!names(line, "/s/run-1/podman1n"), "another folder, whose name only begins alike");
        assert!(names("/usr/bin/dockerd\0--data-root\0/s/d", "/s/d"));
    }

    #[test]
    fn nobodys_monitors_are_nobodys_business() {
        assert_eq!(monitors(Path::new("/no/such/folder")).unwrap(), Vec::<u32>::new());
    }
}

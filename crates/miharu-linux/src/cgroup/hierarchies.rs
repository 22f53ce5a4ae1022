//! Which cgroup hierarchies a host has mounted, and where.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::roots::Roots;

/// The version of a host's resource controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Controllers in v1 hierarchies, with or without a unified one beside them (hybrid).
    V1,
    /// One unified hierarchy.
    V2,
}

/// A host's cgroup hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    unified: Option<PathBuf>,
    v1: BTreeMap<String, PathBuf>,
    version: Version,
}

/// The key of systemd's named v1 hierarchy, as in `/proc/PID/cgroup`.
pub(super) const SYSTEMD: &str = "name=systemd";

impl Hierarchies {
    /// Looks the hierarchies up by what their directories hold rather than in mountinfo, so that this works on a
    /// recorded tree too: `cgroup.controllers` marks a unified hierarchy, `cgroup.procs` alone a v1 one, whose directory
    /// is named after its controllers (`cpu,cpuacct`).
    ///
    /// # Errors
    /// [`Error::Gone`] when there is no such directory, [`Error::Parse`] when no cgroup hierarchy is mounted in it, and
    /// the others as they say.
    pub fn find(roots: &Roots) -> Result<Self> {
        let top = &roots.cgroup;
        if top.join("cgroup.controllers").exists() {
            return Ok(Self { unified: Some(top.clone()), v1: BTreeMap::new(), version: Version::V2 });
        }
        let (mut unified, mut v1) = (None, BTreeMap::new());
        for directory in directories(top)? {
            if directory.join("cgroup.controllers").exists() {
                unified.get_or_insert(directory);
            } else if directory.join("cgroup.procs").exists() {
                for controller in controllers(&directory) {
                    v1.entry(controller).or_insert_with(|| directory.clone());
                }
            }
        }
        if unified.is_none() && v1.is_empty() {
            return Err(Error::Parse { path: top.clone(), what: "a mounted cgroup hierarchy" });
        }
        // A unified hierarchy that is mounted somewhere else than at the top, and alone, is still version 2.
        let version = if v1.is_empty() { Version::V2 } else { Version::V1 };
        Ok(Self { unified, v1, version })
    }

    /// The version of the resource controllers.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The directory of the v1 hierarchy that has `controller` (`memory`, `cpuacct`, `name=systemd`, …).
    #[must_use]
    pub fn v1(&self, controller: &str) -> Option<&Path> {
        self.v1.get(controller).map(PathBuf::as_path)
    }

    /// The directory of the unified hierarchy: version 2's one, or the one beside v1 hierarchies on a hybrid host.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// The hierarchies in which discovery looks for instances by the names of cgroups. On version 2 that is the one. Else
    /// it is `memory`, then systemd's, whichever of them exist (a runtime makes its cgroup in each, but
    /// systemd-nspawn only in systemd's), else any other.
    #[must_use]
    pub fn walk_roots(&self) -> Vec<&Path> {
        if self.version == Version::V2 {
            return self.unified().into_iter().collect();
        }
        let mut walked: Vec<&Path> = ["memory", SYSTEMD].iter().filter_map(|name| self.v1(name)).collect();
        if walked.is_empty() {
            walked.extend(self.v1.values().next().map(PathBuf::as_path));
        }
        walked
    }
}

/// The directories in `top`, links to directories after real ones, so that `cpu,cpuacct` and not the link `cpu` names
/// a hierarchy; each in alphabetical order.
fn directories(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(top).map_err(|e| Error::io(top, e))? {
        let entry = entry.map_err(|e| Error::io(top, e))?;
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() || kind.is_symlink() {
            found.push((kind.is_symlink(), entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The controllers that a v1 hierarchy's directory is named after.
fn controllers(directory: &Path) -> Vec<String> {
    let name = directory.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if name == "systemd" {
        return vec![SYSTEMD.to_owned()];
    }
    name.split(',').filter(|controller| !controller.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A host whose cgroup file systems hold these files, all empty.
    fn host(files: &[&str]) -> (tempfile::TempDir, Roots) {
        let base = tempfile::tempdir().unwrap();
        let roots = Roots::at(base.path());
        fs::create_dir_all(&roots.cgroup).unwrap();
        for file in files {
            let path = roots.cgroup.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        (base, roots)
    }

    #[test]
    fn pure_v2() {
        // A v2 cgroup that is called like a v1 hierarchy is no hierarchy.
        let (_base, roots) = host(&["cgroup.controllers", "cgroup.procs", "memory/cgroup.procs"]);
        let found = Hierarchies::find(&roots).unwrap();
        assert_eq!(found.version(), Version::V2);
        assert_eq!(found.unified(), Some(roots.cgroup.as_path()));
        assert_eq!(found.v1("memory"), None);
        assert_eq!(found.walk_roots(), [roots.cgroup.as_path()]);
    }

    #[test]
    fn hybrid_with_joined_controllers_and_links() {
        let (_base, roots) = host(&[
            "cpu,cpuacct/cgroup.procs",
            "memory/cgroup.procs",
            "systemd/cgroup.procs",
            "unified/cgroup.procs",
            "unified/cgroup.controllers",
            "empty/readme",
        ]);
        symlink("cpu,cpuacct", roots.cgroup.join("cpu")).unwrap();
        symlink("cpu,cpuacct", roots.cgroup.join("cpuacct")).unwrap();
        symlink("nowhere", roots.cgroup.join("blkio")).unwrap();
        let found = Hierarchies::find(&roots).unwrap();
        assert_eq!(found.version(), Version::V1);
        let joined = roots.cgroup.join("cpu,cpuacct");
        assert_eq!((found.v1("cpu"), found.v1("cpuacct")), (Some(joined.as_path()), Some(joined.as_path())));
        assert_eq!(found.unified(), Some(roots.cgroup.join("unified").as_path()));
        assert_eq!((found.v1("blkio"), found.v1("empty"), found.v1("unified")), (None, None, None));
        let walked = [roots.cgroup.join("memory"), roots.cgroup.join("systemd")];
        assert_eq!(found.walk_roots(), walked.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        assert_eq!(found.v1("name=systemd"), Some(walked[1].as_path()));
    }

    #[test]
    fn without_memory_and_systemd_any_hierarchy_is_walked() {
        let (_base, roots) = host(&["pids/cgroup.procs"]);
        assert_eq!(Hierarchies::find(&roots).unwrap().walk_roots(), [roots.cgroup.join("pids").as_path()]);
    }

    #[test]
    fn no_hierarchy_is_an_error_that_says_so() {
        let (_base, roots) = host(&["memory/readme"]);
        assert!(Hierarchies::find(&roots).unwrap_err().to_string().contains("a mounted cgroup hierarchy"));
        let nowhere = Roots::at(Path::new("/nonexistent"));
        assert!(Hierarchies::find(&nowhere).unwrap_err().is_gone());
    }
}

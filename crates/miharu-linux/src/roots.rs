//! Where the host's file trees are mounted: the only place that names `/proc`, `/sys` and their like.

use std::path::{Path, PathBuf};

/// The places of a host that miharu reads. Every reader takes one, so each runs on a recorded tree as well, and the
/// daemon can run in a container that has its host mounted elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// procfs, `/proc`.
    pub proc: PathBuf,
    /// sysfs, `/sys`.
    pub sys: PathBuf,
    /// The cgroup file systems, `/sys/fs/cgroup`.
    pub cgroup: PathBuf,
    /// Run-time state, `/run`.
    pub run: PathBuf,
    /// Lasting state, `/var/lib`.
    pub var_lib: PathBuf,
    /// What every other path of the host is below.
    base: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self::at(Path::new("/"))
    }
}

impl Roots {
    /// The roots of a host whose `/` is mounted at `base`.
    #[must_use]
    pub fn at(base: &Path) -> Self {
        Self {
            proc: base.join("proc"),
            sys: base.join("sys"),
            cgroup: base.join("sys/fs/cgroup"),
            run: base.join("run"),
            var_lib: base.join("var/lib"),
            base: base.to_owned(),
        }
    }

    /// Where an absolute path of the host is found from here: `/var/lib/lxc` below `var_lib`, `/run/x` below `run`,
    /// all else below the host's root. A path with `..` in it is not translated but refused.
    #[must_use]
    pub fn host_path(&self, path: &Path) -> Option<PathBuf> {
        if path.components().any(|part| matches!(part, std::path::Component::ParentDir))
            || !path.is_absolute()
        {
            return None;
        }
        let placed = [("/var/lib", &self.var_lib), ("/run", &self.run), ("/var/run", &self.run)];
        for (prefix, root) in placed {
            if let Ok(rest) = path.strip_prefix(prefix) {
                return Some(root.join(rest));
            }
        }
        path.strip_prefix("/").ok().map(|rest| self.base.join(rest))
    }
}

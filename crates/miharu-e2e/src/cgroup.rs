//! Readings of cgroup files that owe nothing to miharu's own readers: tests compare with these.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The cgroups of one process.
#[derive(Clone, Debug)]
pub struct Cgroups {
    lines: Vec<(String, String)>,
}

/// Whether the controllers of this machine are on version 2.
#[must_use]
pub fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

impl Cgroups {
    /// Those of a process, from `/proc/PID/cgroup`.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&path).context(path)?;
        let lines = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((controllers.to_owned(), path.to_owned()))
        });
        Ok(Self { lines: lines.collect() })
    }

    /// The same, of the instance's own cgroup, where its init sits in one below it.
    #[must_use]
    pub fn parent(mut self) -> Self {
        for (_, path) in &mut self.lines {
            if let Some((parent, _)) = path.rsplit_once('/') {
                *path = parent.to_owned();
            }
        }
        self
    }

    /// All of them: the folder of each hierarchy that the process is in.
    #[must_use]
    pub fn dirs(&self) -> Vec<PathBuf> {
        let base = Path::new("/sys/fs/cgroup");
        let folder = |controllers: &str| match controllers {
            "" if is_v2() => base.to_owned(),
            "" => base.join("unified"),
            _ => base.join(controllers.trim_start_matches("name=")),
        };
        let dirs = self.lines.iter().map(|(names, path)| folder(names).join(path.trim_start_matches('/')));
        dirs.filter(|dir| dir.join("cgroup.procs").exists()).collect()
    }

    /// The path below the hierarchy of a version 1 controller, or in the version 2 tree where that holds the controllers.
    ///
    /// # Errors
    /// When the process is in no such hierarchy.
    pub fn path(&self, controller: &str) -> Result<&str> {
        let wanted = if is_v2() { "" } else { controller };
        let (_, path) = self
            .lines
            .iter()
            .find(|(names, _)| names.split(',').any(|name| name == wanted))
            .with_context(|| format!("no hierarchy with {controller}"))?;
        Ok(path)
    }

    /// The folder of a controller.
    ///
    /// # Errors
    /// As [`Cgroups::path`].
    pub fn dir(&self, controller: &str) -> Result<PathBuf> {
        let base = Path::new("/sys/fs/cgroup").join(if is_v2() { "" } else { controller });
        Ok(base.join(self.path(controller)?.trim_start_matches('/')))
    }

    /// The text of the file that this machine's version has.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, controller: &str, v1: &str, v2: &str) -> Result<String> {
        let path = self.dir(controller)?.join(if is_v2() { v2 } else { v1 });
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The one number of a file.
    ///
    /// # Errors
    /// When it cannot be read or is no number.
    pub fn number(&self, controller: &str, v1: &str, v2: &str) -> Result<f64> {
        let text = self.read(controller, v1, v2)?;
        text.trim().parse().with_context(|| format!("{v1} or {v2}: {text}"))
    }

    /// The number behind a key of a file such as `memory.stat`.
    ///
    /// # Errors
    /// When it cannot be read or has no such key.
    pub fn key(&self, controller: &str, v1: (&str, &str), v2: (&str, &str)) -> Result<f64> {
        let text = self.read(controller, v1.0, v2.0)?;
        let wanted = if is_v2() { v2.1 } else { v1.1 };
        text.lines()
            .find_map(|line| line.strip_prefix(wanted)?.strip_prefix(' ')?.trim().parse().ok())
            .with_context(|| format!("no {wanted} in\n{text}"))
    }
}

/// The hierarchies of this machine.
#[must_use]
pub fn hierarchies() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    if is_v2() {
        return vec![base.to_owned()];
    }
    let Ok(entries) = fs::read_dir(base) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// Removes a cgroup and those below it from every hierarchy; nothing may run in them any more.
pub fn remove(path: &str) {
    remove_leaf(path);
    // A slice that was made for it goes too; where others use it, the kernel refuses.
    let Some((parent, _)) = path.trim_matches('/').rsplit_once('/') else { return };
    for hierarchy in hierarchies() {
        let _ = fs::remove_dir(hierarchy.join(parent));
    }
}

/// The same, without a look at its parent.
pub fn remove_leaf(path: &str) {
    fn below(dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                below(&entry.path());
            }
        }
        let _ = fs::remove_dir(dir);
    }
    for hierarchy in hierarchies() {
        let dir = hierarchy.join(path.trim_start_matches('/'));
        if dir.is_dir() {
            below(&dir);
        }
    }
}

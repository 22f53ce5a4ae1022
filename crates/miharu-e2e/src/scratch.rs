//! One scratch folder a test process, and a journal in it of everything that outlives a file: processes, containers, network
//! namespaces. A run that was killed leaves its journal, and the next run cleans up by it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::shell;

/// The folder of this process, made on first use, after what dead runs left behind was cleaned up.
///
/// # Errors
/// When it cannot be made.
pub fn run_dir() -> Result<&'static Path> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = DIR.get_or_init(|| {
        sweep();
        let pid = std::process::id();
        let dir = base().join(format!("run-{pid}"));
        let make = || -> Result<()> {
            fs::create_dir_all(dir.join("journal"))?;
            fs::write(dir.join("owner"), start_time(pid).unwrap_or_default())?;
            Ok(())
        };
        make()
            .map(|()| dir.clone())
            .map_err(|error| format!("{}: {error} (TMPDIR can name another place)", dir.display()))
    });
    made.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// A new folder below the run's own.
///
/// # Errors
/// When it cannot be made.
pub fn dir(what: &str) -> Result<PathBuf> {
    let dir = run_dir()?.join(unique(what));
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// A name that no other test, and no other process, uses: short enough for a network interface and a container.
#[must_use]
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}{}n{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until no other test, of any process, holds what this gives, and keeps the others waiting for as long as it is held.
///
/// # Errors
/// When the lock's file cannot be made.
pub fn alone() -> Result<fs::File> {
    turn("alone")
}

/// As [`alone`], among those who wait for a turn of the same name.
///
/// # Errors
/// As [`alone`].
pub fn turn(name: &str) -> Result<fs::File> {
    let file = lock_file(name)?;
    file.lock()?;
    Ok(file)
}

/// A file that all test processes of this machine share, to be locked.
///
/// # Errors
/// As [`alone`].
pub fn lock_file(name: &str) -> Result<fs::File> {
    fs::create_dir_all(base())?;
    Ok(fs::File::options().create(true).truncate(false).write(true).open(base().join(name))?)
}

/// What the journal can hold.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A process and, through its start time, no other that gets its number later.
    Process(u32),
    /// A container NAME of an LXCPATH.
    Lxc(&'a Path, &'a str),
    /// All containers of an LXCPATH.
    LxcPath(&'a Path),
    /// A network namespace of that name.
    Netns(&'a str),
    /// A mount outside of the scratch folder; those inside are found.
    Mount(&'a str),
    /// A loop device.
    Loop(&'a str),
    /// A cgroup's path in every hierarchy.
    Cgroup(&'a str),
    /// The same, but never its parent, which others are just about to use.
    Leaf(&'a str),
    /// A folder outside of the scratch folder, with all that is in it.
    Folder(&'a str),
    /// Container runtimes' daemons and monitors whose command line names this folder, with all that runs below them.
    Monitors(&'a Path),
}

impl Entry<'_> {
    fn line(self) -> String {
        match self {
            Self::Process(pid) => format!("process\n{pid}\n{}", start_time(pid).unwrap_or_default()),
            Self::Lxc(path, name) => format!("lxc\n{}\n{name}", path.display()),
            Self::LxcPath(path) => format!("lxcpath\n{}\n", path.display()),
            Self::Netns(name) => format!("netns\n{name}\n"),
            Self::Mount(path) => format!("mount\n{path}\n"),
            Self::Loop(device) => format!("loop\n{device}\n"),
            Self::Cgroup(path) => format!("cgroup\n{path}\n"),
            Self::Leaf(path) => format!("leaf\n{path}\n"),
            Self::Folder(path) => format!("folder\n{path}\n"),
            Self::Monitors(path) => format!("monitors\n{}\n", path.display()),
        }
    }

    /// Writes it down, before or just after the thing is made.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn note(self) -> Result<Note> {
        let path = run_dir()?.join("journal").join(unique("e"));
        fs::write(&path, self.line()).with_context(|| path.display().to_string())?;
        Ok(Note { path })
    }
}

/// An entry of the journal: undone and struck out when dropped.
#[derive(Debug)]
pub struct Note {
    path: PathBuf,
}

impl Drop for Note {
    fn drop(&mut self) {
        undo(&self.path);
    }
}

/// `/var/tmp` rather than `/tmp`, which is a tmpfs on many machines: containers there would have no disk to write to.
fn base() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from).join("miharu-e2e")
}

/// Field 22 of `/proc/PID/stat`: with the pid it names one process for ever.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

/// Cleans up after runs whose process is gone.
pub fn sweep() {
    let Ok(runs) = fs::read_dir(base()) else { return };
    for run in runs.flatten() {
        let name = run.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix("run-")?.parse().ok()) else {
            continue;
        };
        let owner = fs::read_to_string(run.path().join("owner")).unwrap_or_default();
        if start_time(pid).is_some_and(|now| now == owner || owner.is_empty()) {
            continue;
        }
        clean(&run.path());
    }
}

/// Undoes a run's whole journal and removes its folder.
pub fn clean(run: &Path) {
    if let Ok(notes) = fs::read_dir(run.join("journal")) {
        let mut notes: Vec<_> = notes.flatten().map(|note| note.path()).collect();
        // Containers first, while the namespaces and folders that they use are still there; cgroups last.
        notes.sort_by_key(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            ["lxc", "monitors", "process", "mount", "netns", "loop", "folder", "cgroup", "leaf"]
                .iter()
                .position(|kind| text.starts_with(kind))
        });
        for note in notes {
            undo(&note);
        }
    }
    unmount_below(run);
    let _ = fs::remove_dir_all(run);
}

/// Nothing may be mounted in a folder that is about to be removed: an LXD that was killed leaves such mounts.
pub(crate) fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(dir)).collect();
    points.sort_unstable();
    for point in points.into_iter().rev() {
        let _ = shell::run("umount", ["-l".as_ref(), point.as_os_str()]);
    }
}

fn undo(note: &Path) {
    let text = fs::read_to_string(note).unwrap_or_default();
    let mut lines = text.lines();
    let (kind, first, second) = (lines.next(), lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    match kind {
        Some("process") => {
            let alive = || first.parse().ok().and_then(start_time).is_some_and(|now| now == second);
            if alive() {
                let _ = shell::run("kill", ["-KILL", first]);
            }
        }
        Some("lxc") => {
            let _ = shell::run("lxc-stop", ["-P", first, "-n", second, "-k"]);
        }
        Some("lxcpath") => crate::lxc::end_all(Path::new(first)),
        Some("netns") => {
            let _ = shell::run("ip", ["netns", "delete", first]);
        }
        Some("mount") => {
            let _ = shell::run("umount", ["-l", first]);
        }
        Some("loop") => {
            let _ = shell::run("losetup", ["--detach", first]);
        }
        Some("cgroup") => crate::cgroup::remove(first),
        Some("leaf") => crate::cgroup::remove_leaf(first),
        Some("folder") => {
            let _ = fs::remove_dir_all(first);
        }
        Some("monitors") => crate::oci::end_all(Path::new(first)),
        _ => {}
    }
    let _ = fs::remove_file(note);
}

/// Removes the folder of this process. Test processes have no end of their own to do it from, so that the next run's sweep
/// does; a program such as the demo calls it.
pub fn finish() {
    if let Ok(dir) = run_dir() {
        clean(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_ends_the_process_it_names_and_no_other() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let note = Entry::Process(child.id()).note().unwrap();
        let path = note.path.clone();
        assert!(path.exists());
        // A journal whose start time is another one means a process that is gone and whose number was given away.
        let stale = run_dir().unwrap().join("journal/stale");
        fs::write(&stale, format!("process\n{}\n1", child.id())).unwrap();
        undo(&stale);
        assert!(child.try_wait().unwrap().is_none(), "another process of the same number was killed");
        drop(note);
        assert!(!child.wait().unwrap().success());
        assert!(!path.exists());
    }
}

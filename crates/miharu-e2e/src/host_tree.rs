//! Made-up hosts: trees of `/proc`, `/sys` and `/var/lib` with as many LXC containers as wanted, each a copy of one that was recorded
//! on a real host of cgroup v2. `miharud --root TREE` serves them, so that a cluster of many hosts fits on one machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The recorded container that is copied: its name, its monitor and its init.
const NAME: &str = "u1";
const MONITOR: &str = "128";
const INIT: &str = "129";

/// What is copied as it is; all else in the recording belongs to an instance.
const HOST: [&str; 4] = ["proc/1", "proc/sys", "sys/devices", "sys/kernel"];
const HOST_FILES: [&str; 6] = [
    "proc/meminfo",
    "proc/stat",
    "proc/uptime",
    "sys/fs/cgroup/cgroup.controllers",
    "sys/fs/cgroup/cgroup.procs",
    "sys/dev/block/254:32",
];

/// The files of a container's cgroup that differ between containers; the others are one file with many names, so that who changes
/// the first container's figures changes all.
const OWN: [&str; 1] = ["cgroup.procs"];

/// Where LXC keeps its containers by default: their project is `lxc`.
const DEFAULT_PATH: &str = "/var/lib/lxc";

/// Makes a host with a container of each name, in a new folder.
///
/// # Errors
/// When the folder cannot be written.
pub fn make(tree: &Path, containers: &[String]) -> Result<()> {
    let containers: Vec<_> = containers.iter().map(|name| (DEFAULT_PATH, name.as_str())).collect();
    make_at(tree, &containers)
}

/// As [`make`], each container below a path of LXC's of its own: those in another one than `/var/lib/lxc` are in the project `lxc:PATH`.
///
/// # Errors
/// As [`make`].
pub fn make_at(tree: &Path, containers: &[(&str, &str)]) -> Result<()> {
    let recorded = recording();
    for folder in HOST {
        copy_all(&recorded.join(folder), &tree.join(folder))?;
    }
    for file in HOST_FILES {
        copy(&recorded.join(file), &tree.join(file))?;
    }
    let mut first = None;
    for (number, &(path, name)) in containers.iter().enumerate() {
        ensure!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{name}");
        let container = Container { recorded: &recorded, tree, path, name, number };
        container.processes()?;
        container.cgroup(first)?;
        let own = tree.join(path.trim_start_matches('/')).join(name);
        copy_all(&recorded.join("var/lib/lxc").join(NAME), &own)?;
        first = first.or(Some(name));
    }
    Ok(())
}

struct Container<'a> {
    recorded: &'a Path,
    tree: &'a Path,
    path: &'a str,
    name: &'a str,
    number: usize,
}

impl Container<'_> {
    fn processes(&self) -> Result<()> {
        let monitor = (1000 + 2 * self.number).to_string();
        let init = (1001 + 2 * self.number).to_string();
        for (recorded, mine) in [(MONITOR, &monitor), (INIT, &init)] {
            let from = self.recorded.join("proc").join(recorded);
            let to = self.tree.join("proc").join(mine);
            for file in files_below(&from)? {
                let text = fs::read_to_string(from.join(&file))?;
                let text = match file.to_str() {
                    Some("stat" | "status") => numbers(&text, &monitor, &init),
                    _ => named(&text, self.path, self.name),
                };
                write(&to.join(&file), &text)?;
            }
        }
        Ok(())
    }

    fn cgroup(&self, linked_to: Option<&str>) -> Result<()> {
        let cgroups = Path::new("sys/fs/cgroup");
        let from = self.recorded.join(cgroups).join(format!("lxc.payload.{NAME}"));
        let of = |name: &str| self.tree.join(cgroups).join(format!("lxc.payload.{name}"));
        for file in files_below(&from)? {
            let to = of(self.name).join(&file);
            let is_own = file.to_str().is_some_and(|file| OWN.contains(&file));
            match linked_to {
                _ if is_own => write(&to, &format!("{}\n", 1001 + 2 * self.number))?,
                Some(first) => {
                    parent(&to)?;
                    fs::hard_link(of(first).join(&file), &to)?;
                }
                None => copy(&from.join(&file), &to)?,
            }
        }
        Ok(())
    }
}

/// A text in which the recorded container is named, with another path and name.
fn named(text: &str, path: &str, name: &str) -> String {
    text.replace(&format!("payload.{NAME}"), &format!("payload.{name}"))
        .replace(&format!("monitor.{NAME}"), &format!("monitor.{name}"))
        .replace(&format!("/{NAME}/"), &format!("/{name}/"))
        .replace(&format!("{DEFAULT_PATH} {NAME}\0"), &format!("{path} {name}\0"))
}

/// A `stat` or `status` with other process numbers. The recorded ones are no other field's value.
fn numbers(text: &str, monitor: &str, init: &str) -> String {
    let lines = text.split_inclusive(['\n', ' ', '\t']).map(|word| {
        let end = word.len() - usize::from(word.ends_with(['\n', ' ', '\t']));
        match word.split_at(end) {
            (MONITOR, rest) => format!("{monitor}{rest}"),
            (INIT, rest) => format!("{init}{rest}"),
            (word, rest) => format!("{word}{rest}"),
        }
    });
    lines.collect()
}

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v2")
}

fn parent(path: &Path) -> Result<()> {
    fs::create_dir_all(path.parent().context("a path without a parent")?)?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    parent(path)?;
    fs::write(path, text).with_context(|| path.display().to_string())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    parent(to)?;
    if from.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
        return Ok(());
    }
    if from.is_dir() {
        return copy_all(from, to);
    }
    fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(())
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The files in a folder and one level below it, relative to it.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        if entry.file_type()?.is_dir() {
            for inner in fs::read_dir(entry.path())? {
                files.push(name.join(inner?.file_name()));
            }
        } else {
            files.push(name);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch;

    #[test]
    fn a_made_up_host_has_processes_and_figures_of_its_own() -> Result<()> {
        let tree = scratch::dir("tree")?;
        make(&tree, &["web".to_owned(), "db-1".to_owned()])?;
        let read = |path: &str| fs::read_to_string(tree.join(path)).with_context(|| path.to_owned());
        assert!(read("proc/1003/stat")?.starts_with("1003 (init) S 1002 1003 1003 "));
        assert!(read("proc/1003/status")?.contains("NSpid:\t1003\t1\n"));
        assert_eq!(read("proc/1003/cgroup")?, "0::/lxc.payload.db-1\n");
        assert_eq!(read("proc/1002/cmdline")?, "[lxc monitor] /var/lib/lxc db-1\0");
        assert_eq!(read("sys/fs/cgroup/lxc.payload.db-1/cgroup.procs")?, "1003\n");
        fs::write(tree.join("sys/fs/cgroup/lxc.payload.web/pids.current"), "7\n")?;
        assert_eq!(read("sys/fs/cgroup/lxc.payload.db-1/pids.current")?, "7\n");
        assert!(make(&scratch::dir("tree")?, &["../x".to_owned()]).is_err());
        let tree = scratch::dir("tree")?;
        make_at(&tree, &[("/srv/a", "web"), ("/srv/b", "web-2")])?;
        assert_eq!(fs::read(tree.join("proc/1002/cmdline"))?, b"[lxc monitor] /srv/b web-2\0");
        assert!(tree.join("srv/b/web-2").is_dir());
        Ok(())
    }
}

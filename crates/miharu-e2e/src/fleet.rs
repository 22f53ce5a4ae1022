//! Many plain LXC containers at once, for benchmarks: they share one root folder, are started a few at a time, and are
//! killed all together.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::measure::{self, tree};
use crate::scratch::{self, Entry, Note};
use crate::{lxc, rootfs, shell};

/// Running containers `b1` to `bN` of an LXCPATH of their own; killed on drop.
#[derive(Debug)]
pub struct Fleet {
    /// Their LXCPATH.
    pub path: PathBuf,
    /// Their inits, as the host numbers them, in the order of their names.
    pub inits: Vec<u32>,
    /// Further lines of the configuration of those that are started from now on.
    pub lines: Vec<String>,
    note: Option<Note>,
}

/// Where LXC keeps root's containers unless it is told otherwise.
const USUAL: &str = "/var/lib/lxc";

impl Fleet {
    /// Makes the folder that they share, and starts none.
    ///
    /// # Errors
    /// When the root cannot be made.
    pub fn new() -> Result<Self> {
        let path = scratch::dir("fleet")?;
        rootfs::make(&path.join("rootfs"))?;
        let note = Entry::LxcPath(&path).note()?;
        Ok(Self { path, inits: Vec::new(), lines: Vec::new(), note: Some(note) })
    }

    /// As [`Fleet::new`], on LXC's own path, which is in every label of their figures and is as long there as in life. That can be
    /// had only under `scripts/alone.sh`, where a mount is seen by nobody else; elsewhere the path is a longer one.
    ///
    /// # Errors
    /// When the root cannot be made or mounted.
    pub fn on_usual_path() -> Result<Self> {
        if std::env::var_os("MIHARU_ALONE").is_none() || !Path::new(USUAL).is_dir() {
            return Self::new();
        }
        let folder = scratch::dir("fleet")?;
        rootfs::make(&folder.join("rootfs"))?;
        shell::run("mount", ["--bind".as_ref(), folder.as_os_str(), USUAL.as_ref()])?;
        // Nothing for the journal, which could be read outside: all of it ends with the namespaces.
        Ok(Self { path: USUAL.into(), inits: Vec::new(), lines: Vec::new(), note: None })
    }

    /// Starts more until there are `wanted`.
    ///
    /// # Errors
    /// When one does not start; the error carries LXC's log. What has started is killed on drop all the same.
    pub fn grow(&mut self, wanted: u32) -> Result<()> {
        let numbers: Vec<u32> = (u32::try_from(self.inits.len())? + 1..=wanted).collect();
        shell::side_by_side(&numbers, |number| self.start(*number))?;
        self.inits = shell::wait_for("the containers' inits", Duration::from_secs(20), || {
            Some(inits(&self.path)).filter(|inits| inits.len() >= wanted as usize)
        })?;
        Ok(())
    }

    /// Starts the one of that number.
    pub(crate) fn start(&self, number: u32) -> Result<()> {
        let name = format!("b{number}");
        let home = self.path.join(&name);
        fs::create_dir_all(&home)?;
        let mut lines = vec![
            format!("lxc.rootfs.path = dir:{}", self.path.join("rootfs").display()),
            format!("lxc.uts.name = {name}"),
            "lxc.tty.max = 0".into(),
            "lxc.pty.max = 16".into(),
            "lxc.init.cmd = /sbin/init".into(),
            "lxc.mount.auto = cgroup:mixed proc:mixed sys:ro".into(),
            "lxc.net.0.type = empty".into(),
        ];
        lines.extend(self.lines.iter().cloned());
        // One is enough for the kernel to count the disk traffic of all.
        if number == 1 {
            lines.extend(lxc::disk_accounting(&self.path));
        }
        fs::write(home.join("config"), lines.join("\n") + "\n")?;
        let log = self.path.join("log");
        let mut command = Command::new("lxc-start");
        // A group of its own: Ctrl-C is for the benchmark, which then ends all of them in good order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.args(["-n", &name, "-l", "WARN", "-P"]).arg(&self.path).arg("-o").arg(&log);
        shell::output(&mut command)
            .with_context(|| format!("lxc-start: {}", fs::read_to_string(&log).unwrap_or_default()))?;
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if self.note.is_none() {
            lxc::end_all(&self.path);
            let _ = shell::run("umount", ["-l".as_ref(), self.path.as_os_str()]);
        }
    }
}

/// The monitors of an LXCPATH's containers, those of LXD and Incus too, by name of the container.
#[must_use]
pub fn monitors(path: &Path) -> Vec<(String, u32)> {
    let beginning = format!("[lxc monitor] {} ", path.display());
    let named = measure::processes(&beginning).unwrap_or_default().into_iter().filter_map(|pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        Some((line.strip_prefix(&beginning)?.trim_end_matches('\0').to_owned(), pid))
    });
    named.collect()
}

/// The inits of an LXCPATH's containers in the order of their numbers: the children of their monitors.
fn inits(path: &Path) -> Vec<u32> {
    let mut monitors = monitors(path);
    monitors
        .sort_by_key(|(name, _)| name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok());
    monitors.into_iter().filter_map(|(_, monitor)| tree(monitor).get(1).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_grows_and_leaves_nothing() -> Result<()> {
        crate::need!(Lxc);
        let mut fleet = Fleet::new()?;
        fleet.grow(2)?;
        let first = fleet.inits.clone();
        fleet.grow(4)?;
        assert_eq!(fleet.inits.len(), 4);
        assert_eq!(fleet.inits.get(..2), Some(first.as_slice()), "those that ran go on running");
        let (path, inits) = (fleet.path.clone(), fleet.inits.clone());
        drop(fleet);
        assert!(monitors(&path).is_empty());
        assert!(inits.iter().all(|init| !Path::new(&format!("/proc/{init}")).exists()));
        let cgroups = crate::cgroup::hierarchies();
        assert!(cgroups.iter().all(|dir| !dir.join("lxc.payload.b1").exists()), "{cgroups:?}");
        Ok(())
    }
}

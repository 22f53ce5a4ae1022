//! One container, read through the kernel.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use miharu_instances::Instance;
use miharu_linux::block::{BlockDevices, Layers};
use miharu_linux::cgroup::{self, Ancestors, Hierarchies};
use miharu_linux::host::HostFacts;
use miharu_linux::mounts::{HostMounts, LeftOut, RemoteFilesystems};
use miharu_linux::networks::Networks;
use miharu_linux::process::{self, ProcDir};
use miharu_linux::read::Buffer;
use miharu_linux::statfs::Whose;
use miharu_linux::{Error, Roots, zfs};
use miharu_metrics::figures::{Figures, Interface, Traffic};
use miharu_metrics::{Part, Wanted};

use crate::filesystems::{self, Found};
use crate::kept::{Kept, LastHostMounts};
use crate::own_process::start_time;
use crate::warning::WarningKind;
use crate::{Options, vm};

/// The process whose mounts and network namespace are the host's.
pub(crate) const HOST_INIT: u32 = 1;

/// What every instance's figures need of the host, read once a collection.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) facts: HostFacts,
    pub(crate) hierarchies: Option<Hierarchies>,
    mounts: Arc<HostMounts>,
    /// Which of them are not looked at.
    pub(crate) mounts_left_out: Vec<LeftOut>,
    roots: Roots,
    layers: Layers,
    /// The host's own network namespace; unknown where it may not be looked at.
    pub(crate) network: Option<u64>,
    remote: RemoteFilesystems,
    wanted: Wanted,
    parts: cgroup::Parts,
    /// Whether instances may be on ZFS.
    has_zfs: bool,
}

impl Host {
    pub(crate) fn new(
        roots: &Roots,
        facts: HostFacts,
        hierarchies: Option<Hierarchies>,
        options: &Options,
        last_mounts: &LastHostMounts,
        buffer: &mut Buffer,
    ) -> Self {
        let init = ProcDir::open(roots, HOST_INIT).ok();
        let mounts = init.as_ref().and_then(|init| last_mounts.read(init, buffer).ok());
        let (mounts, mounts_left_out) = mounts.unwrap_or_default();
        Self {
            facts,
            hierarchies,
            mounts,
            mounts_left_out,
            roots: roots.clone(),
            layers: options.disk_layers,
            network: init.and_then(|init| init.network().ok()),
            remote: options.remote_filesystems,
            wanted: options.wanted,
            parts: crate::cgroups::parts(options.wanted),
            has_zfs: options.wanted.has(Part::Disks) && zfs::is_there(roots),
        }
    }
}

/// What a reader thread keeps from one instance to the next of a collection.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) buffer: Buffer,
    ancestors: Ancestors,
    blocks: Option<BlockDevices>,
}

/// What was read of a container, before what needs other instances or may block.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    pub(crate) figures: Figures,
    pub(crate) found: Found,
    /// The ZFS datasets that it is on.
    pub(crate) datasets: Vec<String>,
    /// Its network namespace; nothing where that is the host's or unknown.
    pub(crate) network: Option<u64>,
    /// What should have been readable and was not.
    pub(crate) problems: Vec<Error>,
    /// What else makes its collection a failure, in words.
    pub(crate) complaints: Vec<(WarningKind, String)>,
    /// What is worth a word and no failure.
    pub(crate) remarks: Vec<String>,
    /// What was spent on it before its turn came.
    pub(crate) waited: Duration,
    /// The label `source`, where it is not the cgroups'.
    pub(crate) source: Option<&'static str>,
    /// What its guest told that is no figure.
    pub(crate) facts: vm::Facts,
    /// What is kept of it.
    pub(crate) kept: Option<Arc<Mutex<Kept>>>,
}

/// Reads a container.
///
/// # Errors
/// [`Error::Gone`] when it has stopped. Any other failure is one of [`Raw::problems`].
pub(crate) fn read(
    instance: &Instance,
    host: &Host,
    networks: &Networks,
    kept: &mut Kept,
    reader: &mut Reader,
) -> miharu_linux::Result<Raw> {
    let mut raw = Raw::default();
    raw.figures.boot_time_seconds = start_time(instance.incarnation.init_start, &host.facts);
    if let Some(hierarchies) = &host.hierarchies {
        let Reader { buffer, ancestors, blocks } = reader;
        let blocks = blocks.get_or_insert_with(|| BlockDevices::new(&host.roots));
        let mut read = cgroup::read(
            hierarchies,
            &instance.cgroup,
            &host.facts,
            host.parts,
            ancestors,
            &mut kept.cgroups,
            buffer,
        )?;
        raw.problems.append(&mut read.problems);
        crate::cgroups::fill(&mut raw.figures, &read, &host.facts);
        raw.figures.disks = crate::cgroups::disks(&read.io, blocks, host.layers);
    }
    let buffer = &mut reader.buffer;
    if host.wanted.has(Part::Network) {
        // Without the host's own namespace to compare with, these could be the host's interfaces.
        let seen = networks.read(&instance.init, &mut kept.network, host.network, buffer);
        if let Some(seen) = raw.keep(seen)? {
            raw.network = host.network.is_some_and(|host| host != seen.inode).then_some(seen.inode);
            raw.figures.interfaces = seen.interfaces.into_iter().map(interface).collect();
        }
    }
    // What is left of an instance without a process has no figures, however long its cgroup stays.
    let has_filesystems = host.wanted.has(Part::Filesystems);
    if has_filesystems || host.has_zfs {
        let (init, mounts, remote) = (&instance.init, &host.mounts, host.remote);
        // Where the end of the process is watched, nothing needs be read to tell that it is still there.
        let is_watched = kept.network.is_watched();
        let same = if is_watched { kept.choice.unchanged(init, mounts, remote) } else { None };
        raw.found = match same {
            Some(found) => found,
            None => {
                let (directory, choice) = (&instance.directory, &mut kept.choice);
                let found =
                    filesystems::find(init, whose(instance), directory, mounts, remote, choice, buffer);
                raw.keep(found)?.unwrap_or_default()
            }
        };
        if host.has_zfs {
            raw.datasets = raw.found.datasets();
        }
        if !has_filesystems {
            raw.found = Found::default();
        }
    } else if !instance.init.stat(buffer)?.is_alive() {
        return Err(Error::Gone(instance.init.path().to_owned()));
    }
    if !raw.problems.is_empty() {
        // A process that ends answers some of its files with other errors than that it is gone (EINVAL of mountinfo).
        let has_ended = match instance.init.stat(buffer) {
            Ok(stat) => stat.is_exiting || !stat.is_alive(),
            Err(error) => error.is_gone(),
        };
        if has_ended {
            return Err(Error::Gone(instance.init.path().to_owned()));
        }
    }
    Ok(raw)
}

/// In whose view an instance's paths are looked up.
pub(crate) fn whose(instance: &Instance) -> Whose {
    Whose::Process { pid: instance.init.pid(), start_ticks: instance.incarnation.init_start }
}

impl Raw {
    /// Whether the end of its first process is watched.
    pub(crate) fn is_watched(&self) -> bool {
        let kept = self.kept.as_ref().map(|kept| kept.try_lock());
        kept.is_some_and(|kept| kept.is_ok_and(|kept| kept.network.is_watched()))
    }

    /// Whether its first process has not ended, where that is watched.
    pub(crate) fn is_running(&self) -> Option<bool> {
        self.kept.as_ref()?.try_lock().ok()?.network.is_running()
    }

    /// What was read, or nothing and a problem more; an instance that is gone is the caller's end.
    fn keep<T>(&mut self, result: miharu_linux::Result<T>) -> miharu_linux::Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_gone() => Err(error),
            Err(error) => {
                self.problems.push(error);
                Ok(None)
            }
        }
    }
}

pub(crate) fn interface(read: process::Interface) -> Interface {
    Interface { device: read.name, receive: traffic(read.receive), transmit: traffic(read.transmit) }
}

fn traffic(read: process::Counters) -> Traffic {
    Traffic {
        bytes: Some(read.bytes),
        packets: Some(read.packets),
        errs: Some(read.errs),
        drop: Some(read.drop),
    }
}

#[cfg(test)]
mod tests {
    use miharu_instances::{Incarnation, Kind};
    use miharu_linux::kept::Budget;
    use miharu_metrics::FamilySet;
    use std::fs;

    use super::*;

    /// What is read of a process whose mountinfo gives an error; its state and the fields up to its flags.
    fn with_state(state: &str, wanted: Wanted) -> miharu_linux::Result<Raw> {
        let base = tempfile::tempdir().unwrap();
        let proc = base.path().join("proc/77");
        fs::create_dir_all(proc.join("net")).unwrap();
        fs::write(proc.join("net/dev"), "").unwrap();
        fs::write(proc.join("stat"), format!("77 (init) {state} 0 0 0 0 1 2 3 4 5 6 1 0 99 0\n")).unwrap();
        // A directory in a file's place is an error that is not that the file is gone.
        fs::create_dir(proc.join("mountinfo")).unwrap();
        let roots = Roots::at(base.path());
        let instance = Instance {
            project: "lxc".into(),
            name: "c1".into(),
            kind: Kind::Container,
            runtime: "lxc",
            id: "c1".into(),
            init: Arc::new(ProcDir::open(&roots, 77).unwrap()),
            cgroup: cgroup::CgroupPaths::default(),
            incarnation: Incarnation { cgroup_inode: 0, init_pid: 77, init_start: 99 },
            vm: None,
            directory: "c1".into(),
            image: None,
            is_sandbox: false,
        };
        let options = Options { wanted, ..Options::default() };
        let last = LastHostMounts::default();
        let host = Host::new(&roots, HostFacts::default(), None, &options, &last, &mut Buffer::new());
        let networks = Networks::new(roots.clone(), Budget::default());
        read(&instance, &host, &networks, &mut Kept::default(), &mut Reader::default())
    }

    #[test]
    fn a_process_that_ends_in_mid_read_is_gone_without_noise() {
        assert!(with_state("Z 1 0 0 0 0 0", Wanted::all()).unwrap_err().is_gone());
        // It waits for the others of its namespace, with nothing of its own any more.
        let exiting = with_state("S 1 0 0 0 -1 4194564", Wanted::all());
        assert!(exiting.unwrap_err().is_gone());
        assert_eq!(with_state("S 1 0 0 0 -1 4194560", Wanted::all()).unwrap().problems.len(), 1);
    }

    #[test]
    fn mounts_are_not_read_for_nobody_and_a_process_that_ended_is_gone_all_the_same() {
        let wanted = Wanted::by(FamilySet::all().without(|name| name.starts_with("filesystem_")));
        assert!(with_state("Z 1 0 0 0 0 0", wanted).unwrap_err().is_gone());
        assert_eq!(with_state("S 1 0 0 0 0 0", wanted).unwrap().problems.len(), 0);
    }
}

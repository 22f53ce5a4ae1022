//! One container, read through the kernel.

use std::time::Duration;

use miharu_instances::Instance;
use miharu_linux::block::{BlockDevices, Layers};
use miharu_linux::cgroup::{self, Ancestors, Hierarchies};
use miharu_linux::host::HostFacts;
use miharu_linux::mounts::{HostMounts, RemoteFilesystems};
use miharu_linux::process::{self, ProcDir};
use miharu_linux::read::Buffer;
use miharu_linux::{Error, Roots};
use miharu_metrics::figures::{Figures, Interface, Traffic};

use crate::filesystems::{self, Found};
use crate::own_process::start_time;
use crate::warning::WarningKind;
use crate::{Options, vm};

/// The process whose mounts and network namespace are the host's.
const HOST_INIT: u32 = 1;

/// What every instance's figures need of the host, read once a collection.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) facts: HostFacts,
    pub(crate) hierarchies: Option<Hierarchies>,
    mounts: HostMounts,
    roots: Roots,
    layers: Layers,
    /// The host's own network namespace; unknown where it may not be looked at.
    pub(crate) network: Option<u64>,
    remote: RemoteFilesystems,
}

impl Host {
    pub(crate) fn new(
        roots: &Roots,
        facts: HostFacts,
        hierarchies: Option<Hierarchies>,
        options: &Options,
        buffer: &mut Buffer,
    ) -> Self {
        let init = ProcDir::open(roots, HOST_INIT).ok();
        let mounts =
            init.as_ref().and_then(|init| init.read(buffer, "mountinfo").ok().map(HostMounts::parse));
        Self {
            facts,
            hierarchies,
            mounts: mounts.unwrap_or_default(),
            roots: roots.clone(),
            layers: options.disk_layers,
            network: init.and_then(|init| init.network().ok()),
            remote: options.remote_filesystems,
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
    /// Its network namespace; nothing where that is the host's or unknown.
    pub(crate) network: Option<u64>,
    /// What should have been readable and was not.
    pub(crate) problems: Vec<Error>,
    /// What else makes its collection a failure, in words.
    pub(crate) complaints: Vec<(WarningKind, String)>,
    /// What was spent on it before its turn came.
    pub(crate) waited: Duration,
    /// The label `source`, where it is not the cgroups'.
    pub(crate) source: Option<&'static str>,
    /// What its guest told that is no figure.
    pub(crate) facts: vm::Facts,
}

/// Reads a container.
///
/// # Errors
/// [`Error::Gone`] when it has stopped. Any other failure is one of [`Raw::problems`].
pub(crate) fn read(instance: &Instance, host: &Host, reader: &mut Reader) -> miharu_linux::Result<Raw> {
    let mut raw = Raw::default();
    raw.figures.boot_time_seconds = start_time(instance.incarnation.init_start, &host.facts);
    if let Some(hierarchies) = &host.hierarchies {
        let Reader { buffer, ancestors, blocks } = reader;
        let blocks = blocks.get_or_insert_with(|| BlockDevices::new(&host.roots));
        let mut read = cgroup::read(hierarchies, &instance.cgroup, &host.facts, ancestors, buffer)?;
        raw.problems.append(&mut read.problems);
        crate::cgroups::fill(&mut raw.figures, &read, &host.facts);
        raw.figures.disks = crate::cgroups::disks(&read.io, blocks, host.layers);
    }
    let buffer = &mut reader.buffer;
    if let Some(network) = raw.keep(instance.init.network())? {
        // Without the host's own namespace to compare with, these could be the host's interfaces.
        if host.network.is_some_and(|host| host != network) {
            raw.network = Some(network);
            let interfaces = raw.keep(instance.init.net_dev(buffer))?;
            raw.figures.interfaces = interfaces.unwrap_or_default().into_iter().map(interface).collect();
        }
    }
    let directory = &instance.directory;
    let found = filesystems::find(&instance.init, directory, &host.mounts, host.remote, buffer);
    raw.found = raw.keep(found)?.unwrap_or_default();
    if !raw.problems.is_empty() {
        // A process that ends answers some of its files with other errors than that it is gone (EINVAL of mountinfo).
        let has_ended = match instance.init.stat(buffer) {
            Ok(stat) => !stat.is_alive(),
            Err(error) => error.is_gone(),
        };
        if has_ended {
            return Err(Error::Gone(instance.init.path().to_owned()));
        }
    }
    Ok(raw)
}

impl Raw {
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
    use std::fs;
    use std::sync::Arc;

    use miharu_instances::{Incarnation, Kind};

    use super::*;

    /// What is read of a process in this state whose mountinfo gives an error.
    fn with_state(state: char) -> miharu_linux::Result<Raw> {
        let base = tempfile::tempdir().unwrap();
        let proc = base.path().join("proc/77");
        fs::create_dir_all(proc.join("net")).unwrap();
        fs::write(proc.join("net/dev"), "").unwrap();
        fs::write(proc.join("stat"), format!("77 (init) {state} 1 0 0 0 0 0 0 0 0 0 1 2 3 4 5 6 1 0 99 0\n"))
            .unwrap();
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
        };
        let options = Options::default();
        let host = Host::new(&roots, HostFacts::default(), None, &options, &mut Buffer::new());
        read(&instance, &host, &mut Reader::default())
    }

    #[test]
    fn a_process_that_ends_in_mid_read_is_gone_without_noise() {
        assert!(with_state('Z').unwrap_err().is_gone());
        assert_eq!(with_state('S').unwrap().problems.len(), 1);
    }
}

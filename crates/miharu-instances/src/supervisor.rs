//! Processes of runtimes that watch one machine each, and the machine's init as a child of theirs.

use std::path::Path;

use miharu_linux::Roots;
use miharu_linux::process::{ProcDir, Stat};
use miharu_linux::read::Buffer;

use crate::driver::{Host, is_set_user_id, is_trusted};
use crate::tree::{self, Climber, Top};

/// A process that watches a machine.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) process: ProcDir,
    pub(crate) stat: Stat,
}

impl Supervisor {
    /// The process `pid`, if it is a supervisor that goes by `name`. Those of a machine are in pid namespaces further down, and
    /// users' processes are not root's, so neither can pass for one.
    pub(crate) fn open(roots: &Roots, pid: u32, name: &[u8], buffer: &mut Buffer) -> Option<Self> {
        let process = ProcDir::open(roots, pid).ok()?;
        let stat = process.stat(buffer).ok()?;
        if stat.comm != name || !tree::is_alive(&stat) {
            return None;
        }
        let status = process.status(buffer).ok()?;
        let is_supervisor =
            is_trusted(status.uid) && status.pid_namespace_depth == 1 && !is_set_user_id(&process);
        is_supervisor.then_some(Self { process, stat })
    }

    /// The supervisor of that name among the processes of a cgroup, or of one of these right below it.
    pub(crate) fn in_cgroup(
        host: &mut Host<'_>,
        directory: &Path,
        below: &[&str],
        name: &[u8],
    ) -> Option<Self> {
        let mut pids: Vec<u32> = Vec::new();
        for below in below {
            pids.extend(tree::pids_in(&directory.join(below), host.buffer));
        }
        pids.extend(tree::pids_in(directory, host.buffer));
        pids.into_iter().find_map(|pid| Self::open(host.roots, pid, name, host.buffer))
    }

    /// The machine's init: the ancestor of `pid` that is this one's child and in a pid namespace of its own.
    pub(crate) fn init_above(&self, host: &mut Host<'_>, climber: &mut Climber<'_>, pid: u32) -> Option<Top> {
        let top = climber.climb_to_child_of(pid, self.process.pid(), host.buffer)?;
        let depth = top.process.pid_namespace_depth(host.buffer).ok()?;
        (depth > 1).then_some(top)
    }
}

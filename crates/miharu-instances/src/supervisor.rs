//! Processes of runtimes that watch one machine each, and the machine's init as a child of theirs.

use miharu_linux::Roots;
use miharu_linux::process::{ProcDir, Stat};
use miharu_linux::read::Buffer;

use crate::discovery::{disguised, doubtful};
use crate::driver::{Claim, Host, Unidentified, is_set_user_id, is_trusted};
use crate::tree::{self, Climber, Top};

/// A process that watches a machine.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) process: ProcDir,
    pub(crate) stat: Stat,
    uid: u32,
}

/// A process of a user's that goes by a supervisor's name.
#[derive(Debug)]
pub(crate) struct Disguised {
    uid: u32,
}

impl Supervisor {
    /// The process `pid`, if it goes by the name of a supervisor. Those of a machine are in pid namespaces further down, and
    /// users' processes are not root's, so neither can pass for one.
    pub(crate) fn open(
        roots: &Roots,
        pid: u32,
        name: &str,
        buffer: &mut Buffer,
    ) -> Option<Result<Self, Disguised>> {
        let process = ProcDir::open(roots, pid).ok()?;
        let stat = process.stat(buffer).ok()?;
        if stat.comm != name.as_bytes() || !tree::is_alive(&stat) {
            return None;
        }
        let status = process.status(buffer).ok()?;
        if status.pid_namespace_depth != 1 {
            return None;
        }
        if !is_trusted(status.uid) {
            return Some(Err(Disguised { uid: status.uid }));
        }
        (!is_set_user_id(&process)).then_some(Ok(Self { process, stat, uid: status.uid }))
    }

    /// The supervisor of that name among the processes of a claimed cgroup, or of the one called `below` in it.
    ///
    /// # Errors
    /// [`Unidentified`] where there is none.
    pub(crate) fn of(
        host: &mut Host<'_>,
        claim: &Claim,
        below: &str,
        name: &str,
    ) -> Result<Self, Unidentified> {
        let mut doubt = Unidentified::Nothing;
        for directory in &claim.directories {
            let mut pids = tree::pids_in(&directory.join(below), host.buffer);
            pids.extend(tree::pids_in(directory, host.buffer));
            for pid in pids {
                match Self::open(host.roots, pid, name, host.buffer) {
                    Some(Ok(supervisor)) => return Ok(supervisor),
                    Some(Err(Disguised { uid })) => doubt = disguised(claim, pid, uid, name),
                    None => {}
                }
            }
        }
        Err(doubt)
    }

    /// A warning about it; `why` is read after the process' number.
    pub(crate) fn doubt(&self, claim: &Claim, why: &str) -> Unidentified {
        doubtful(claim, self.process.pid(), self.uid, why)
    }

    /// The machine's init: the ancestor of `pid` that is this one's child and in a pid namespace of its own.
    pub(crate) fn init_above(&self, host: &mut Host<'_>, climber: &mut Climber<'_>, pid: u32) -> Option<Top> {
        let top = climber.climb_to_child_of(pid, self.process.pid(), host.buffer)?;
        let depth = top.process.pid_namespace_depth(host.buffer).ok()?;
        (depth > 1).then_some(top)
    }
}

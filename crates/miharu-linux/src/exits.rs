//! Which processes have ended, told by the kernel instead of looked up one by one: an epoll set of pidfds.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use crate::process::{ProcDir, parse_status};
use crate::read::Buffer;
use crate::roots::Roots;

/// How many ends the kernel is asked for in one call.
const BATCH: usize = 256;

/// A set of processes whose end is told.
#[derive(Debug)]
pub struct Exits {
    /// Nothing where process numbers cannot be trusted to be those of this process' own namespace, or the kernel has no
    /// pidfds (before 5.3).
    epoll: Option<OwnedFd>,
    ended: Vec<u64>,
}

/// A process in the set, as long as this lives.
#[derive(Debug)]
pub struct Watched {
    pidfd: OwnedFd,
}

impl Watched {
    /// Whether the process has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(rustix::event::poll(&mut ended, Some(&now)), Ok(0))
    }
}

/// How long [`Exits::ended`] waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Never,
    UntilOneEnds,
}

impl Exits {
    /// An empty set for the processes behind `roots`. Where these are of another pid namespace than this process' own, or of a
    /// recorded tree, nothing can be watched.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let epoll =
            speaks_of_own_namespace(roots).then(|| epoll::create(CreateFlags::CLOEXEC).ok()).flatten();
        Self { epoll, ended: Vec::new() }
    }

    /// Watches a process; nothing where that cannot be, and the caller has to look by itself. `token` is what
    /// [`Exits::ended`] will tell.
    #[must_use]
    pub fn watch(&self, process: &ProcDir, token: u64) -> Option<Watched> {
        let epoll = self.epoll.as_ref()?;
        let pid = Pid::from_raw(i32::try_from(process.pid()).ok()?)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The number was that process' own all the time if it still is: the directory answers for no other.
        process.open_file("stat").ok()?;
        epoll::add(epoll, &pidfd, EventData::new_u64(token), EventFlags::IN | EventFlags::ONESHOT).ok()?;
        Some(Watched { pidfd })
    }

    /// The tokens of all processes that have ended since the last time; each is told once.
    pub fn ended(&mut self) -> impl Iterator<Item = u64> {
        let mut all = Vec::new();
        loop {
            self.wait(Wait::Never);
            all.extend_from_slice(&self.ended);
            if self.ended.len() < BATCH {
                return all.into_iter();
            }
        }
    }

    fn wait(&mut self, wait: Wait) {
        self.ended.clear();
        let Some(epoll) = &self.epoll else { return };
        let mut space = [MaybeUninit::uninit(); BATCH];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = match wait {
            Wait::Never => Some(&now),
            Wait::UntilOneEnds => None,
        };
        // An interrupted call has told nothing; the next one will.
        if let Ok((events, _)) = epoll::wait(epoll, &mut space, timeout) {
            self.ended.extend(events.iter().map(|event| event.data.u64()));
        }
    }

    /// As [`Exits::ended`], but comes back only when there is one.
    pub(crate) fn next_ended(&mut self) -> impl Iterator<Item = u64> {
        self.wait(Wait::UntilOneEnds);
        self.ended.iter().copied()
    }

    /// Something that [`Exits::ended`] tells as `token` once it is [woken](Waker::wake).
    pub(crate) fn waker(&self, token: u64) -> Option<Waker> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        epoll::add(self.epoll.as_ref()?, &event, EventData::new_u64(token), EventFlags::IN).ok()?;
        Some(Waker { event })
    }

    /// A second handle on the same set.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        let epoll = self.epoll.as_ref()?.try_clone().ok()?;
        Some(Self { epoll: Some(epoll), ended: Vec::new() })
    }
}

/// Makes a set tell something that is no process.
#[derive(Debug)]
pub(crate) struct Waker {
    event: OwnedFd,
}

impl Waker {
    pub(crate) fn wake(&self) {
        // It can only fail where it was woken 2^64 times before.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

/// Whether a number in that `/proc` means the same process as in a system call of this process.
fn speaks_of_own_namespace(roots: &Roots) -> bool {
    let mut buffer = Buffer::new();
    let own = roots.proc.join("self");
    let is_self = std::fs::read_link(&own)
        .is_ok_and(|target| target.as_os_str() == std::process::id().to_string().as_str());
    let status = buffer.read(&own.join("status")).ok().and_then(parse_status);
    is_self && status.is_some_and(|status| status.pid_namespace_depth == 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A process that does nothing for a minute.
    #[expect(clippy::disallowed_methods, reason = "the end of a process needs one that ends")]
    pub(crate) fn sleeper() -> (Child, ProcDir) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = ProcDir::open(&Roots::default(), child.id()).unwrap();
        (child, process)
    }

    #[test]
    fn an_end_is_told_once() {
        let roots = Roots::default();
        let mut exits = Exits::new(&roots);
        let (mut child, process) = sleeper();
        let watched = exits.watch(&process, 7).unwrap();
        assert_eq!(exits.ended().count(), 0);
        assert!(watched.is_running());
        child.kill().unwrap();
        assert_eq!(exits.next_ended().collect::<Vec<_>>(), [7], "also before it is waited for");
        assert!(!watched.is_running());
        assert_eq!(exits.ended().count(), 0);
        child.wait().unwrap();
        assert!(exits.watch(&process, 8).is_none(), "it has ended");
    }

    #[test]
    fn a_recorded_tree_has_no_processes() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("proc/1")).unwrap();
        let roots = Roots::at(base.path());
        let exits = Exits::new(&roots);
        let process = ProcDir::open(&roots, 1).unwrap();
        assert!(exits.watch(&process, 1).is_none(), "number 1 is there, but it is another process");
    }
}

//! Sizes of an instance's file systems, asked by threads that may hang without harm.
//!
//! Here is what is asked; `asking` does it, and `pool` has the threads.

mod asking;
mod pool;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::mounts::{Device, FileSystem, Kind, Mount};

use asking::{Lookup, answer};
pub use pool::Pool;

/// The sizes of a file system, as `df` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes in all.
    pub size: u64,
    /// Bytes not used.
    pub free: u64,
    /// Bytes that an ordinary user can still use.
    pub avail: u64,
    /// Inodes in all; absent where the file system does not count them.
    pub files: Option<u64>,
    /// Inodes not used.
    pub files_free: Option<u64>,
}

/// In whose view of the file tree a path is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// The host's: that of process 1.
    Host,
    /// That of a process, an instance's init. The thread that asks opens it by itself, hence the start time.
    Process {
        /// Its number.
        pid: u32,
        /// Its start, in clock ticks, so that a reused number is not mistaken for it.
        start_ticks: u64,
    },
}

/// A question for the size of one file system. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Request {
    whose: Whose,
    device: Device,
    targets: Arc<[Target]>,
    identity: Identity,
    kind: Kind,
    /// The remote file system that answers in its place, where that is known.
    behind: Option<Device>,
}

/// Who makes sure that the process of a [`Request`] is the one that is meant, and no later one with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The thread that asks, by the start time.
    Asked,
    /// The caller, who looks whether that process still runs once the answer is there: until then nobody else has its
    /// number.
    SeenAfterwards,
}

#[derive(Debug, Clone)]
struct Target {
    mountpoint: PathBuf,
    mount_id: u64,
    /// The number of the mount that no other one ever gets, where it is known.
    unique: Option<u64>,
    device: Device,
}

impl Request {
    /// Asks for a file system that [`crate::mounts::select`] chose, in the view of an instance's init.
    #[must_use]
    pub fn new(whose: Whose, file_system: &FileSystem) -> Self {
        let targets = targets(file_system);
        let device = targets.first().map_or(Device { major: 0, minor: 0 }, |target| target.device);
        let kind = file_system.mounts.first().map_or(Kind::Unsure, Mount::kind);
        Self { whose, device, targets, identity: Identity::Asked, kind, behind: None }
    }

    /// The same question for what lies on a remote file system, which has to answer.
    #[must_use]
    pub fn behind(self, device: Device) -> Self {
        Self { kind: Kind::Remote, behind: Some(device), ..self }
    }

    /// The same question with those numbers of its mounts that no other mount ever gets, by mountinfo's: so none is taken for another one
    /// that has its number by now.
    #[must_use]
    pub fn of_mounts(self, numbers: &HashMap<u64, u64>) -> Self {
        let named =
            |target: &Target| Target { unique: numbers.get(&target.mount_id).copied(), ..target.clone() };
        Self { targets: self.targets.iter().map(named).collect(), ..self }
    }

    /// The same question for some of its mounts alone.
    #[must_use]
    pub fn fewer(&self, file_system: &FileSystem) -> Self {
        let is_kept = |target: &&Target| file_system.mounts.iter().any(|mount| mount.id == target.mount_id);
        Self { targets: self.targets.iter().filter(is_kept).cloned().collect(), ..self.clone() }
    }

    /// In whose view it is asked.
    #[must_use]
    pub fn whose(&self) -> Whose {
        self.whose
    }

    /// The same question with this way to know the process.
    #[must_use]
    pub fn with(&self, identity: Identity) -> Self {
        Self { identity, ..self.clone() }
    }

    /// Asks for a mount of the host.
    #[must_use]
    pub fn host(mount: &Mount) -> Self {
        let targets = [Target::new(mount)].into();
        let (whose, identity) = (Whose::Host, Identity::Asked);
        Self { whose, device: mount.device, targets, identity, kind: mount.kind(), behind: None }
    }

    fn key(&self) -> Key {
        Key { whose: self.whose, device: self.device }
    }
}

/// One file system of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    whose: Whose,
    device: Device,
}

fn targets(file_system: &FileSystem) -> Arc<[Target]> {
    file_system.mounts.iter().map(Target::new).collect()
}

impl Target {
    fn new(mount: &Mount) -> Self {
        Self { mountpoint: mount.mountpoint.clone(), mount_id: mount.id, unique: None, device: mount.device }
    }
}

/// What came of a [`Request`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reply {
    /// The sizes.
    Sizes(Answer),
    /// There are none: no such mount is seen there (any more), or its file system has no size.
    Nothing,
    /// This process may not look into the instance's file tree.
    Denied,
    /// No answer in time, or not asked as it hung before.
    #[default]
    Late,
}

impl Reply {
    /// The sizes, if there are any.
    #[must_use]
    pub fn answer(self) -> Option<Answer> {
        match self {
            Self::Sizes(answer) => Some(answer),
            Self::Nothing | Self::Denied | Self::Late => None,
        }
    }
}

impl From<Result<Option<Answer>>> for Reply {
    fn from(result: Result<Option<Answer>>) -> Self {
        match result {
            Ok(Some(answer)) => Self::Sizes(answer),
            Err(Error::Denied { .. }) => Self::Denied,
            // What is gone has no size, and what the kernel cannot tell is absent.
            Ok(None) | Err(_) => Self::Nothing,
        }
    }
}

/// The sizes of a file system, and where they were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Which of the file system's mounts answered: the first that is a directory and not hidden.
    pub mount: usize,
    /// Its sizes.
    pub sizes: Sizes,
}

/// A call that has not come back, or came back too late, for a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// In whose view.
    pub whose: Whose,
    /// The mount point asked for.
    pub mountpoint: PathBuf,
    /// Since when it hangs, or when it began to.
    pub since: Instant,
    /// Where it has come back: until when it is left alone.
    pub paused_until: Option<Instant>,
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use super::asking::{Failure, look_up};
    use super::*;
    use crate::mounts::{MAX_MOUNTS, RemoteFilesystems, parse, select};
    use crate::process::ProcDir;
    use crate::read::Buffer;
    use crate::roots::Roots;
    use std::time::Duration;

    fn own() -> Whose {
        let pid = std::process::id();
        let stat = ProcDir::open(&Roots::default(), pid).unwrap().stat(&mut Buffer::new()).unwrap();
        Whose::Process { pid, start_ticks: stat.starttime }
    }

    /// The file systems of this process.
    fn own_chosen() -> Vec<FileSystem> {
        let mut buffer = Buffer::new();
        let own = ProcDir::open(&Roots::default(), std::process::id()).unwrap();
        let text = own.read(&mut buffer, "mountinfo").unwrap();
        select(&parse(text, MAX_MOUNTS), RemoteFilesystems::Ask)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn the_root_of_this_process_as_statvfs_shows_it() {
        let chosen = own_chosen();
        let pool = Pool::new(Roots::default(), 2);
        let requests = vec![Request::new(own(), chosen.first().unwrap()); 40];
        let answers = pool.ask(requests, soon());
        let expected = rustix::fs::statvfs("/").unwrap();
        assert_eq!(answers.len(), 40);
        for answer in answers {
            assert_eq!(answer.answer().unwrap().sizes.size, expected.f_blocks * expected.f_frsize);
        }
        assert!(pool.stuck().is_empty());
    }

    #[test]
    fn what_may_not_be_looked_at_is_told_from_what_is_not_there() {
        let error = |code: rustix::io::Errno| Reply::from(Err(Error::io(Path::new("root"), code.into())));
        assert_eq!(error(rustix::io::Errno::ACCESS), Reply::Denied);
        assert_eq!(error(rustix::io::Errno::NOENT), Reply::Nothing);
        assert_eq!(Reply::from(Ok(None)), Reply::Nothing);
    }

    #[test]
    fn a_mount_of_the_host() {
        let mut buffer = Buffer::new();
        let init = ProcDir::open(&Roots::default(), 1).unwrap();
        let mounts = parse(init.read(&mut buffer, "mountinfo").unwrap(), MAX_MOUNTS);
        let root = &select(&mounts, RemoteFilesystems::Skip).remove(0).mounts[0];
        let answers = Pool::new(Roots::default(), 1).ask(vec![Request::host(root)], soon());
        // Without any right to look at process 1, a mount namespace of its own hides its sizes.
        if own_chosen()[0].mounts[0].id == root.id {
            assert!(answers[0].answer().is_some());
        }
    }

    #[test]
    fn a_reused_pid_and_another_mount_are_not_asked() {
        let chosen = own_chosen();
        let pool = Pool::new(Roots::default(), 1);
        let Whose::Process { pid, start_ticks } = own() else { panic!("a process") };
        let reused = Whose::Process { pid, start_ticks: start_ticks + 1 };
        let mut hidden = chosen[0].clone();
        hidden.mounts[0].id += 1_000_000;
        let mut file = chosen[0].clone();
        file.mounts[0].mountpoint = "/etc/passwd".into();
        let requests =
            vec![Request::new(reused, &chosen[0]), Request::new(own(), &hidden), Request::new(own(), &file)];
        assert_eq!(pool.ask(requests, soon()), [Reply::Nothing; 3]);
        let late = pool.ask(vec![Request::new(own(), &chosen[0])], Instant::now());
        assert_eq!(late, [Reply::Late]);
    }

    #[test]
    fn what_is_not_known_by_heart_is_looked_up_with_patience() {
        let base = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(base.path()).unwrap();
        std::fs::create_dir(base.path().join("known")).unwrap();
        let look = |path: &str, lookup| look_up(dir.as_fd(), Path::new(path), lookup);
        // Other tests mount and unmount, which may break it off.
        assert!((0..1000).any(|_| matches!(look("known", Lookup::Cached), Ok(Some(_)))));
        // Nobody has asked for it yet, so the disk would have to say that it is not there.
        let absent = look("absent", Lookup::Cached);
        assert!(matches!(absent, Err(Failure::Uncached) | Ok(None)), "{absent:?}");
        assert!(look("absent", Lookup::Patient).unwrap().is_none());
        // The answer is the same either way.
        let pool = Pool::new(Roots::default(), 2);
        let chosen = own_chosen();
        let requests: Vec<_> = chosen.iter().map(|one| Request::new(own(), one)).collect();
        let patient = requests.iter().map(|one| Request { kind: Kind::Unsure, ..one.clone() }).collect();
        let is_answered = |reply: &Reply| reply.answer().is_some();
        let count = |replies: Vec<Reply>| replies.iter().filter(|reply| is_answered(reply)).count();
        assert_eq!(count(pool.ask(requests, soon())), count(pool.ask(patient, soon())));
    }

    #[test]
    fn threads_hold_no_file_of_the_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pool = Pool::new(Roots::default(), 1);
        let chosen = own_chosen();
        assert!(pool.ask(vec![Request::new(own(), &chosen[0])], soon())[0].answer().is_some());
        drop(listener);
        // The thread lives on; were the socket in its table, the port would still answer.
        assert!(std::net::TcpStream::connect(address).is_err());
        drop(pool);
    }
}

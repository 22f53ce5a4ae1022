//! Sizes of an instance's file systems, asked by threads that may hang without harm.
//!
//! statfs(2) can block for ever, and no signal ends it. So it is done by a few threads that have a descriptor table of
//! their own; a caller waits until its deadline and then goes on without what has not been answered. A file system that
//! hangs is not asked again while it hangs, and with growing pauses after that.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};

use crate::error::{Error, Result};
use crate::mounts::{Device, FileSystem, Mount};
use crate::process::ProcDir;
use crate::read::Buffer;
use crate::roots::Roots;
use crate::sys;

/// How long a call may take before its thread counts as stuck and another one takes its place.
const STUCK_AFTER: Duration = Duration::from_millis(250);

/// The most stuck threads; past that nothing more is asked until one of them comes back.
const MAX_STUCK: usize = 8;

/// The most stuck threads that one instance can cause.
const MAX_STUCK_EACH: usize = 2;

/// The pause after a file system came back too late, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The longest such pause.
const LAST_PAUSE: Duration = Duration::from_secs(15 * 60);

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

/// A question for the size of one file system.
#[derive(Debug, Clone)]
pub struct Request {
    whose: Whose,
    device: Device,
    targets: Vec<Target>,
}

#[derive(Debug, Clone)]
struct Target {
    mountpoint: PathBuf,
    mount_id: u64,
    device: Device,
}

impl Request {
    /// Asks for a file system that [`crate::mounts::select`] chose, in the view of an instance's init.
    #[must_use]
    pub fn new(whose: Whose, file_system: &FileSystem) -> Self {
        let targets: Vec<Target> = file_system.mounts.iter().map(Target::new).collect();
        let device = targets.first().map_or(Device { major: 0, minor: 0 }, |target| target.device);
        Self { whose, device, targets }
    }

    /// Asks for a mount of the host.
    #[must_use]
    pub fn host(mount: &Mount) -> Self {
        Self { whose: Whose::Host, device: mount.device, targets: vec![Target::new(mount)] }
    }

    fn key(&self) -> Key {
        Key { whose: self.whose, device: self.device }
    }
}

impl Target {
    fn new(mount: &Mount) -> Self {
        Self { mountpoint: mount.mountpoint.clone(), mount_id: mount.id, device: mount.device }
    }
}

/// What came of a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Which of the file system's mounts answered: the first that is a directory and not hidden.
    pub mount: usize,
    /// Its sizes.
    pub sizes: Sizes,
}

/// A call that has not come back, for a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// In whose view.
    pub whose: Whose,
    /// The mount point asked for.
    pub mountpoint: PathBuf,
    /// Since when it hangs.
    pub since: Instant,
}

/// The threads that ask. Dropping it lets the idle ones end and waits for none.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: usize,
}

impl Pool {
    /// A pool of at most `threads` threads that work; they are started when there is work.
    #[must_use]
    pub fn new(roots: Roots, threads: usize) -> Self {
        let shared = Shared { state: Mutex::default(), work: Condvar::new(), done: Condvar::new(), roots };
        Self { shared: Arc::new(shared), threads: threads.max(1) }
    }

    /// Asks for all of `requests` and waits until they are answered or `deadline` has come. The answers stand in the
    /// order of the requests; `None` where there is no size, it cannot be had, or not in time.
    #[must_use]
    pub fn ask(&self, requests: Vec<Request>, deadline: Instant) -> Vec<Option<Answer>> {
        let mut state = self.shared.lock();
        let batch = state.add(requests, Instant::now());
        loop {
            self.staff(&mut state);
            let now = Instant::now();
            let left = state.batches.get(&batch).map_or(0, |batch| batch.left);
            if left == 0 || now >= deadline {
                break;
            }
            let pause = STUCK_AFTER.min(deadline - now);
            state = self.shared.done.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.queue.retain(|job| job.batch != batch);
        state.batches.remove(&batch).map(|batch| batch.answers).unwrap_or_default()
    }

    /// The calls that hang now.
    #[must_use]
    pub fn stuck(&self) -> Vec<Stuck> {
        let now = Instant::now();
        let state = self.shared.lock();
        let mut stuck: Vec<Stuck> =
            state.running.values().filter(|run| run.is_stuck(now)).map(Stuck::from).collect();
        stuck.sort_by_key(|stuck| stuck.since);
        stuck
    }

    /// Starts threads where there is work and too few of them are free to do it.
    fn staff(&self, state: &mut State) {
        let stuck = state.stuck(Instant::now(), None);
        let able = state.threads.saturating_sub(stuck);
        let wanted = self.threads.min(state.queue.len()).saturating_sub(able);
        if stuck < MAX_STUCK && !state.apart_is_denied {
            for _ in 0..wanted {
                let worker = Worker { shared: Arc::clone(&self.shared), threads: self.threads };
                if sys::spawn_apart(worker).is_err() {
                    break;
                }
                state.threads += 1;
            }
        }
        self.shared.work.notify_all();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.work.notify_all();
    }
}

/// What callers and threads share. The lock guards bookkeeping alone and is never held over a system call that could
/// block.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was queued, or the pool was dropped.
    work: Condvar,
    /// Something was answered.
    done: Condvar,
    roots: Roots,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Job>,
    running: HashMap<u64, Running>,
    batches: HashMap<u64, Batch>,
    pauses: HashMap<Key, Pause>,
    threads: usize,
    last_id: u64,
    is_closed: bool,
    /// The kernel gives a thread no descriptor table of its own, so nothing is asked.
    apart_is_denied: bool,
}

/// One file system of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    whose: Whose,
    device: Device,
}

#[derive(Debug)]
struct Job {
    batch: u64,
    index: usize,
    request: Request,
}

#[derive(Debug)]
struct Batch {
    answers: Vec<Option<Answer>>,
    left: usize,
}

#[derive(Debug)]
struct Running {
    key: Key,
    mountpoint: PathBuf,
    since: Instant,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl Running {
    fn is_stuck(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= STUCK_AFTER
    }
}

impl From<&Running> for Stuck {
    fn from(run: &Running) -> Self {
        Self { whose: run.key.whose, mountpoint: run.mountpoint.clone(), since: run.since }
    }
}

impl State {
    /// Queues what may be asked now; the rest of the batch is answered with `None` at once.
    fn add(&mut self, requests: Vec<Request>, now: Instant) -> u64 {
        // A pause that ended a long time ago belongs to something that is not asked for any more.
        self.pauses.retain(|_, pause| now.saturating_duration_since(pause.until) < LAST_PAUSE);
        let batch = self.next_id();
        let mut answers = Vec::with_capacity(requests.len());
        let mut left = 0;
        for (index, request) in requests.into_iter().enumerate() {
            answers.push(None);
            let key = request.key();
            let is_running = self.running.values().any(|run| run.key == key && run.is_stuck(now));
            let is_paused = self.pauses.get(&key).is_some_and(|pause| now < pause.until);
            if is_running || is_paused || self.apart_is_denied {
                continue;
            }
            left += 1;
            self.queue.push_back(Job { batch, index, request });
        }
        self.batches.insert(batch, Batch { answers, left });
        batch
    }

    /// Takes the next job that may run: one of an instance that has none running in its first moments, so that no
    /// instance can occupy all threads at once.
    fn take(&mut self, now: Instant) -> Option<(u64, Job)> {
        let running = &self.running;
        let may_run = |job: &Job| {
            let of_same = running.values().filter(|run| run.key.whose == job.request.whose);
            let (mut stuck, mut fresh) = (0, 0);
            for run in of_same {
                if run.key.device == job.request.device {
                    return false;
                }
                if run.is_stuck(now) { stuck += 1 } else { fresh += 1 }
            }
            fresh == 0 && stuck < MAX_STUCK_EACH
        };
        let position = self.queue.iter().position(may_run)?;
        let job = self.queue.remove(position)?;
        let id = self.next_id();
        let mountpoint =
            job.request.targets.first().map(|target| target.mountpoint.clone()).unwrap_or_default();
        self.running.insert(id, Running { key: job.request.key(), mountpoint, since: now });
        Some((id, job))
    }

    /// Notes what came of a job, for its caller if that still waits.
    fn finish(&mut self, id: u64, job: &Job, answer: Option<Answer>, now: Instant) {
        let Some(run) = self.running.remove(&id) else { return };
        if let Some(batch) = self.batches.get_mut(&job.batch) {
            if let Some(place) = batch.answers.get_mut(job.index) {
                *place = answer;
            }
            batch.left = batch.left.saturating_sub(1);
            self.pauses.remove(&run.key);
        } else if run.is_stuck(now) {
            let length =
                self.pauses.get(&run.key).map_or(FIRST_PAUSE, |pause| pause.length * 2).min(LAST_PAUSE);
            self.pauses.insert(run.key, Pause { until: now + length, length });
        }
    }

    /// How many calls hang, of everybody or of one.
    fn stuck(&self, now: Instant, whose: Option<Whose>) -> usize {
        self.running
            .values()
            .filter(|run| run.is_stuck(now) && whose.is_none_or(|w| w == run.key.whose))
            .count()
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// What one thread does. It holds no descriptor (see [`sys::spawn_apart`]).
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    threads: usize,
}

impl Worker {
    /// Answers jobs until the pool is gone or others do this thread's work.
    pub(crate) fn run(self) {
        let mut buffer = Buffer::new();
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            let able = state.threads.saturating_sub(state.stuck(now, None));
            if state.is_closed || able > self.threads {
                state.threads -= 1;
                return;
            }
            let Some((id, job)) = state.take(now) else {
                state = self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let answer = answer(&self.shared.roots, &job.request, &mut buffer).ok().flatten();
            state = self.shared.lock();
            state.finish(id, &job, answer, Instant::now());
            self.shared.done.notify_all();
            // Another job of this instance may have waited for this one.
            self.shared.work.notify_one();
        }
    }

    /// Notes that this kernel gives no thread a descriptor table of its own.
    pub(crate) fn give_up(self) {
        let mut state = self.shared.lock();
        state.threads = state.threads.saturating_sub(1);
        state.apart_is_denied = true;
        state.queue.clear();
        for batch in state.batches.values_mut() {
            batch.left = 0;
        }
        self.shared.done.notify_all();
    }
}

/// Opens, checks and asks, in the calling thread.
fn answer(roots: &Roots, request: &Request, buffer: &mut Buffer) -> Result<Option<Answer>> {
    let root = match request.whose {
        Whose::Host => host_root(roots)?,
        Whose::Process { pid, start_ticks } => {
            let process = ProcDir::open(roots, pid)?;
            if process.stat(buffer)?.starttime != start_ticks {
                return Ok(None);
            }
            root_of(&process)?
        }
    };
    for (mount, target) in request.targets.iter().enumerate() {
        if let Some(sizes) = sizes_of(root.as_fd(), target)? {
            return Ok(Some(Answer { mount, sizes }));
        }
    }
    Ok(None)
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What a process sees as `/`.
fn root_of(process: &ProcDir) -> Result<OwnedFd> {
    rustix::fs::openat(process.as_fd(), "root", DIRECTORY, Mode::empty())
        .map_err(|e| Error::io(&process.path().join("root"), e.into()))
}

/// The host's `/`: that of process 1, or, where even root may not look into that, the one that miharu sees. The
/// comparison of mount numbers shows whether these are the same.
fn host_root(roots: &Roots) -> Result<OwnedFd> {
    let denied = match ProcDir::open(roots, 1).and_then(|process| root_of(&process)) {
        Err(error @ Error::Denied { .. }) => error,
        other => return other,
    };
    let Some(base) = roots.host_path(Path::new("/")) else { return Err(denied) };
    rustix::fs::open(&base, DIRECTORY, Mode::empty()).map_err(|e| Error::io(&base, e.into()))
}

/// The sizes at one mount point below `root`; `None` where something else than that mount is seen there, it is no
/// directory, or its file system has no size.
fn sizes_of(root: BorrowedFd<'_>, target: &Target) -> Result<Option<Sizes>> {
    let error = |e: rustix::io::Errno| Error::io(&target.mountpoint, e.into());
    let relative = match target.mountpoint.strip_prefix("/") {
        Ok(rest) if rest != Path::new("") => rest,
        _ => Path::new("."),
    };
    // O_PATH opens nothing yet, so no device or FIFO can do harm, and without O_DIRECTORY no automount is started.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Ok(place) = rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) else {
        return Ok(None);
    };
    let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let seen = rustix::fs::statx(&place, "", at, StatxFlags::TYPE | StatxFlags::MNT_ID).map_err(error)?;
    if FileType::from_raw_mode(seen.stx_mode.into()) != FileType::Directory {
        return Ok(None);
    }
    let is_that_mount = if StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::MNT_ID) {
        seen.stx_mnt_id == target.mount_id
    } else {
        // Before Linux 5.8 only the device tells.
        Device { major: seen.stx_dev_major, minor: seen.stx_dev_minor } == target.device
    };
    if !is_that_mount {
        return Ok(None);
    }
    let figures = rustix::fs::fstatfs(&place).map_err(error)?;
    let unit = match u64::try_from(figures.f_frsize) {
        Ok(0) | Err(_) => u64::try_from(figures.f_bsize).unwrap_or(0),
        Ok(unit) => unit,
    };
    if figures.f_blocks == 0 || unit == 0 {
        return Ok(None);
    }
    let bytes = |blocks: u64| blocks.saturating_mul(unit);
    let counts_files = figures.f_files > 0;
    Ok(Some(Sizes {
        size: bytes(figures.f_blocks),
        free: bytes(figures.f_bfree),
        avail: bytes(figures.f_bavail),
        files: counts_files.then_some(figures.f_files),
        files_free: counts_files.then_some(figures.f_ffree),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{MAX_MOUNTS, RemoteFilesystems, parse, select};

    fn own() -> Whose {
        let pid = std::process::id();
        let stat = ProcDir::open(&Roots::default(), pid).unwrap().stat(&mut Buffer::new()).unwrap();
        Whose::Process { pid, start_ticks: stat.starttime }
    }

    fn own_mounts() -> Vec<Mount> {
        let mut buffer = Buffer::new();
        let own = ProcDir::open(&Roots::default(), std::process::id()).unwrap();
        parse(own.read(&mut buffer, "mountinfo").unwrap(), MAX_MOUNTS)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn the_root_of_this_process_as_statvfs_shows_it() {
        let chosen = select(&own_mounts(), RemoteFilesystems::Ask);
        let pool = Pool::new(Roots::default(), 2);
        let requests = vec![Request::new(own(), chosen.first().unwrap()); 40];
        let answers = pool.ask(requests, soon());
        let expected = rustix::fs::statvfs("/").unwrap();
        assert_eq!(answers.len(), 40);
        for answer in answers {
            assert_eq!(answer.unwrap().sizes.size, expected.f_blocks * expected.f_frsize);
        }
        assert!(pool.stuck().is_empty());
    }

    #[test]
    fn a_mount_of_the_host() {
        let mut buffer = Buffer::new();
        let init = ProcDir::open(&Roots::default(), 1).unwrap();
        let mounts = parse(init.read(&mut buffer, "mountinfo").unwrap(), MAX_MOUNTS);
        let root = &select(&mounts, RemoteFilesystems::Skip).remove(0).mounts[0];
        let answers = Pool::new(Roots::default(), 1).ask(vec![Request::host(root)], soon());
        // Without any right to look at process 1, a mount namespace of its own hides its sizes.
        if own_mounts().iter().any(|mount| mount.id == root.id) {
            assert!(answers[0].is_some());
        }
    }

    #[test]
    fn a_reused_pid_and_another_mount_are_not_asked() {
        let chosen = select(&own_mounts(), RemoteFilesystems::Ask);
        let pool = Pool::new(Roots::default(), 1);
        let Whose::Process { pid, start_ticks } = own() else { panic!("a process") };
        let reused = Whose::Process { pid, start_ticks: start_ticks + 1 };
        let mut hidden = chosen[0].clone();
        hidden.mounts[0].id += 1_000_000;
        let mut file = chosen[0].clone();
        file.mounts[0].mountpoint = "/etc/passwd".into();
        let requests =
            vec![Request::new(reused, &chosen[0]), Request::new(own(), &hidden), Request::new(own(), &file)];
        assert_eq!(pool.ask(requests, soon()), [None, None, None]);
    }

    fn request(pid: u32, minor: u32) -> Request {
        let device = Device { major: 1, minor };
        Request { whose: Whose::Process { pid, start_ticks: 1 }, device, targets: Vec::new() }
    }

    #[test]
    fn what_hangs_is_skipped_and_then_paused() {
        let mut state = State::default();
        let start = Instant::now();
        let first = state.add(vec![request(1, 1), request(1, 2), request(2, 1)], start);
        let (stuck, job) = state.take(start).unwrap();
        assert_eq!(job.request.device.minor, 1);
        // The second job of that instance waits as long as the first is fresh; another instance's does not.
        assert_eq!(state.take(start).unwrap().1.request.whose, request(2, 1).whose);
        assert!(state.take(start).is_none());
        let later = start + STUCK_AFTER;
        assert_eq!(state.take(later).unwrap().1.request.device.minor, 2);
        state.batches.remove(&first);
        let second = state.add(vec![request(1, 1)], later);
        assert_eq!(state.batches[&second].left, 0, "it hangs");
        let late = start + Duration::from_secs(60);
        state.finish(stuck, &job, None, late);
        let third = state.add(vec![request(1, 1)], late);
        assert_eq!(state.batches[&third].left, 0, "it came back too late");
        let fourth = state.add(vec![request(1, 1)], late + FIRST_PAUSE);
        assert_eq!(state.batches[&fourth].left, 1);
        let (again, job) = state.take(late + FIRST_PAUSE).unwrap();
        state.batches.remove(&fourth);
        state.finish(again, &job, None, late + FIRST_PAUSE * 2);
        assert_eq!(state.pauses.values().next().unwrap().length, FIRST_PAUSE * 2);
    }

    #[test]
    fn threads_hold_no_file_of_the_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pool = Pool::new(Roots::default(), 1);
        let chosen = select(&own_mounts(), RemoteFilesystems::Ask);
        assert!(pool.ask(vec![Request::new(own(), &chosen[0])], soon())[0].is_some());
        drop(listener);
        // The thread lives on; were the socket in its table, the port would still answer.
        assert!(std::net::TcpStream::connect(address).is_err());
        drop(pool);
    }
}

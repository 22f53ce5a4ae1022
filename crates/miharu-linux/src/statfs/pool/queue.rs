//! What is to be asked, what runs, hangs or is left alone for a while, and who takes what next.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::{Key, Lookup, Reply, Request, Stuck, Whose};
use crate::mounts::{Device, Kind};

/// How long a call may take before its thread counts as stuck and another one takes its place.
pub(super) const STUCK_AFTER: Duration = Duration::from_millis(250);

/// How long a call may take before another thread goes on with those that wait.
pub(super) const SLOW: Duration = Duration::from_millis(10);

/// The most threads that are stuck on disks of this host; past that no more of these are asked until one of them comes back.
const MAX_STUCK: usize = 8;

/// The same of those that may be stacked on a remote one, as the roots of most containers of Docker and podman are stacked on disks. No
/// kind counts against the others: whatever hangs there, disks are asked.
const MAX_STUCK_UNSURE: usize = 32;

/// The same of remote ones.
const MAX_STUCK_REMOTE: usize = 32;

/// The most of all.
pub(super) const MAX_THREADS_STUCK: usize = MAX_STUCK + MAX_STUCK_UNSURE + MAX_STUCK_REMOTE;

/// The most stuck threads of each kind that one instance can cause, and one remote file system that any number of them have mounted.
const MAX_STUCK_EACH: usize = 2;

/// The pause after a file system came back too late, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The longest such pause.
const LAST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// The book. Whoever has it makes no system call that could block.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) queue: VecDeque<Job>,
    running: HashMap<u64, Running>,
    pub(super) batches: HashMap<u64, Batch>,
    pauses: HashMap<Key, Pause>,
    pub(super) threads: usize,
    /// Threads that wait for work.
    pub(super) idle: usize,
    last_id: u64,
    pub(super) is_closed: bool,
    /// The kernel gives a thread no descriptor table of its own, so nothing is asked.
    pub(super) apart_is_denied: bool,
}

/// A question of a caller's, who waits for all of its batch.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: u64,
    index: usize,
    pub(super) request: Request,
    class: Class,
}

/// Among what a job counts while it runs or hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    kind: Kind,
    /// What has to answer, where that may be gone for all who have it mounted.
    fate: Option<Device>,
}

impl Class {
    fn of(request: &Request) -> Self {
        let fate = (request.kind != Kind::Disk).then(|| request.behind.unwrap_or(request.device));
        Self { kind: request.kind, fate }
    }

    /// That of a disk whose place has to be looked up with patience: whoever stands on the way there may be anybody.
    const ON_THE_WAY: Self = Self { kind: Kind::Remote, fate: None };
}

impl Job {
    /// How its mounts are looked up.
    pub(super) fn lookup(&self) -> Lookup {
        match self.class.kind {
            Kind::Disk => Lookup::Cached,
            Kind::Unsure | Kind::Remote => Lookup::Patient,
        }
    }
}

/// What a caller waits for.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) answers: Vec<Reply>,
    pub(super) left: usize,
}

#[derive(Debug)]
struct Running {
    key: Key,
    class: Class,
    mountpoint: PathBuf,
    since: Instant,
}

#[derive(Debug)]
struct Pause {
    mountpoint: PathBuf,
    since: Instant,
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
        let mountpoint = run.mountpoint.clone();
        Self { whose: run.key.whose, mountpoint, since: run.since, paused_until: None }
    }
}

impl State {
    /// Queues what may be asked now; for the rest of the batch nobody waits.
    pub(super) fn add(&mut self, requests: Vec<Request>, now: Instant) -> u64 {
        // A pause that ended a long time ago belongs to something that is not asked for any more.
        self.pauses.retain(|_, pause| now.saturating_duration_since(pause.until) < LAST_PAUSE);
        let batch = self.next_id();
        let mut answers = Vec::with_capacity(requests.len());
        let (mut left, mut unsure, mut remote) = (0, Vec::new(), Vec::new());
        for (index, request) in requests.into_iter().enumerate() {
            answers.push(if self.apart_is_denied { Reply::Nothing } else { Reply::Late });
            let key = request.key();
            let is_running = self.running.values().any(|run| run.key == key && run.is_stuck(now));
            let is_paused = self.pauses.get(&key).is_some_and(|pause| now < pause.until);
            // What no thread will take while others hang is not waited for either.
            let class = Class::of(&request);
            let has_too_many = !self.has_room(key.whose, class, |run| run.is_stuck(now));
            if is_running || is_paused || has_too_many || self.apart_is_denied {
                continue;
            }
            left += 1;
            let job = Job { batch, index, request, class };
            match class.kind {
                Kind::Disk => self.queue.push_back(job),
                Kind::Unsure => unsure.push(job),
                Kind::Remote => remote.push(job),
            }
        }
        // Disks first: they answer.
        self.queue.extend(unsure);
        self.queue.extend(remote);
        self.batches.insert(batch, Batch { answers, left });
        batch
    }

    /// Whether one more thread may ask something of this class in that view, where those that count are lost.
    fn has_room(&self, whose: Whose, class: Class, counts: impl Fn(&Running) -> bool) -> bool {
        let (mut of_kind, mut of_instance, mut of_fate) = (0, 0, 0);
        for run in self.running.values().filter(|run| run.class.kind == class.kind && counts(run)) {
            of_kind += 1;
            of_instance += usize::from(run.key.whose == whose);
            of_fate += usize::from(class.fate.is_some() && run.class.fate == class.fate);
        }
        let most = match class.kind {
            Kind::Disk => MAX_STUCK,
            Kind::Unsure => MAX_STUCK_UNSURE,
            Kind::Remote => MAX_STUCK_REMOTE,
        };
        of_kind < most && of_instance < MAX_STUCK_EACH && of_fate < MAX_STUCK_EACH
    }

    /// Takes the next job that may run: one of an instance that has none running in its first moments, so that no
    /// instance can occupy all threads at once.
    pub(super) fn take(&mut self, now: Instant) -> Option<(u64, Job)> {
        let running = &self.running;
        let may_run = |job: &Job| {
            let of_same = running.values().filter(|run| run.key.whose == job.request.whose);
            for run in of_same {
                if run.key.device == job.request.device || !run.is_stuck(now) {
                    return false;
                }
            }
            // Any of those that run may hang.
            self.has_room(job.request.whose, job.class, |_| true)
        };
        let position = self.queue.iter().position(may_run)?;
        let job = self.queue.remove(position)?;
        let id = self.next_id();
        let mountpoint =
            job.request.targets.first().map(|target| target.mountpoint.clone()).unwrap_or_default();
        self.running.insert(id, Running { key: job.request.key(), class: job.class, mountpoint, since: now });
        Some((id, job))
    }

    /// Has a job done by one of the threads that may wait for whoever is on the way, if one is to be had.
    pub(super) fn put_off(&mut self, id: u64, job: Job, now: Instant) {
        let job = Job { class: Class::ON_THE_WAY, ..job };
        if !self.has_room(job.request.whose, job.class, |run| run.is_stuck(now)) {
            return self.finish(id, &job, Reply::Late, now);
        }
        self.running.remove(&id);
        if self.batches.contains_key(&job.batch) {
            self.queue.push_back(job);
        }
    }

    /// Notes what came of a job, for its caller if that still waits.
    pub(super) fn finish(&mut self, id: u64, job: &Job, reply: Reply, now: Instant) {
        let Some(run) = self.running.remove(&id) else { return };
        if let Some(batch) = self.batches.get_mut(&job.batch) {
            if let Some(place) = batch.answers.get_mut(job.index) {
                *place = reply;
            }
            batch.left = batch.left.saturating_sub(1);
            self.pauses.remove(&run.key);
        } else if run.is_stuck(now) {
            let length =
                self.pauses.get(&run.key).map_or(FIRST_PAUSE, |pause| pause.length * 2).min(LAST_PAUSE);
            let (mountpoint, since) = (run.mountpoint, run.since);
            self.pauses.insert(run.key, Pause { mountpoint, since, until: now + length, length });
        }
    }

    /// How many calls hang.
    pub(super) fn stuck(&self, now: Instant) -> usize {
        self.running.values().filter(|run| run.is_stuck(now)).count()
    }

    /// How many calls take long or hang.
    pub(super) fn slow(&self, now: Instant) -> usize {
        self.running.values().filter(|run| now.saturating_duration_since(run.since) >= SLOW).count()
    }

    /// What is not asked because it hangs or did, the oldest first.
    pub(super) fn left_out(&self, now: Instant) -> Vec<Stuck> {
        let paused = self.pauses.iter().filter(|(_, pause)| now < pause.until).map(|(key, pause)| Stuck {
            whose: key.whose,
            mountpoint: pause.mountpoint.clone(),
            since: pause.since,
            paused_until: Some(pause.until),
        });
        let mut stuck: Vec<Stuck> =
            self.running.values().filter(|run| run.is_stuck(now)).map(Stuck::from).chain(paused).collect();
        stuck.sort_by(|a, b| (a.since, &a.mountpoint).cmp(&(b.since, &b.mountpoint)));
        stuck
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mounts::Device;
    use crate::statfs::Whose;

    fn request(pid: u32, minor: u32) -> Request {
        let device = Device { major: 1, minor };
        Request {
            whose: Whose::Process { pid, start_ticks: 1 },
            device,
            targets: Arc::default(),
            identity: crate::statfs::Identity::Asked,
            kind: Kind::Disk,
            behind: None,
        }
    }

    fn remote(pid: u32, minor: u32) -> Request {
        Request { kind: Kind::Remote, ..request(pid, minor) }
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
        state.finish(stuck, &job, Reply::Nothing, late);
        let third = state.add(vec![request(1, 1)], late);
        assert_eq!(state.batches[&third].left, 0, "it came back too late");
        let paused = |at| state.left_out(at).into_iter().filter(|s| s.paused_until.is_some()).count();
        assert_eq!((paused(late), paused(late + FIRST_PAUSE)), (1, 0), "and that is told");
        let fourth = state.add(vec![request(1, 1)], late + FIRST_PAUSE);
        assert_eq!(state.batches[&fourth].left, 1);
        let (again, job) = state.take(late + FIRST_PAUSE).unwrap();
        state.batches.remove(&fourth);
        state.finish(again, &job, Reply::Nothing, late + FIRST_PAUSE * 2);
        assert_eq!(state.pauses.values().next().unwrap().length, FIRST_PAUSE * 2);
    }

    #[test]
    fn nobody_waits_for_what_no_thread_will_take() {
        let mut state = State::default();
        let start = Instant::now();
        let later = start + STUCK_AFTER;
        let hang = |state: &mut State, pid: u32, minor: u32, at: Instant| {
            let batch = state.add(vec![request(pid, minor)], at);
            state.take(at).unwrap();
            state.threads += 1;
            state.batches.remove(&batch);
        };
        hang(&mut state, 1, 1, start);
        hang(&mut state, 1, 2, later);
        let now = later + STUCK_AFTER;
        let batch = state.add(vec![request(1, 3), request(2, 1)], now);
        assert_eq!(state.batches[&batch].left, 1, "that instance has hung enough threads, others may ask");
        state.take(now).unwrap();
        for pid in 3..8 {
            hang(&mut state, pid, 1, now);
        }
        let full = state.add(vec![request(20, 1), remote(20, 1)], now + STUCK_AFTER);
        assert_eq!(state.batches[&full].left, 1, "all threads for disks hang");
    }

    #[test]
    fn a_server_that_is_gone_costs_two_threads_however_many_mount_it_and_no_disk() {
        let mut state = State::default();
        let start = Instant::now();
        let mut of_server: Vec<_> = (0..50).map(|pid| remote(pid, 9)).collect();
        of_server.extend((0..50).map(|pid| request(pid, 1)));
        state.add(of_server.clone(), start);
        let taken: Vec<_> = std::iter::from_fn(|| state.take(start)).collect();
        let (disks, hung): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|(_, job)| job.class.kind == Kind::Disk);
        assert_eq!((disks.len(), hung.len()), (MAX_STUCK, MAX_STUCK_EACH));
        for (id, job) in disks {
            state.finish(id, &job, Reply::Nothing, start);
        }
        state.queue.retain(|job| job.class.kind == Kind::Remote);
        let later = start + STUCK_AFTER;
        assert!(state.take(later).is_none());
        let next = state.add(of_server, later);
        assert_eq!(state.batches[&next].left, 50, "the disks of all, and no more of that server");
        // Servers of everybody's own: some threads, and disks all the same.
        let others: Vec<_> = (100..200).map(|pid| remote(pid, pid)).collect();
        state.add(others, later);
        state.queue.retain(|job| job.class.kind == Kind::Remote);
        assert_eq!(std::iter::from_fn(|| state.take(later)).count(), MAX_STUCK_REMOTE - MAX_STUCK_EACH);
        let last = state.add(vec![request(300, 1), remote(300, 300)], later + STUCK_AFTER);
        assert_eq!(state.batches[&last].left, 1);
    }

    #[test]
    fn roots_stacked_on_what_hangs_cost_no_disk_and_those_of_one_server_two_threads() {
        let unsure = |pid, minor| Request { kind: Kind::Unsure, ..request(pid, minor) };
        let mut state = State::default();
        let start = Instant::now();
        let later = start + STUCK_AFTER;
        let of_server = |pid: u32| unsure(pid, pid).behind(Device { major: 0, minor: 9 });
        state.add((0..100).map(of_server).collect(), start);
        assert_eq!(std::iter::from_fn(|| state.take(start)).count(), MAX_STUCK_EACH);
        state.queue.clear();
        state.add((100..200).map(|pid| unsure(pid, pid)).collect(), start);
        assert_eq!(std::iter::from_fn(|| state.take(start)).count(), MAX_STUCK_UNSURE);
        state.queue.clear();
        let next =
            state.add(vec![unsure(300, 300), of_server(301), remote(302, 302), request(303, 1)], later);
        assert_eq!(state.batches[&next].left, 2, "a disk, and another server");
        // What answers is asked in this order.
        let kinds = |state: &State| state.queue.iter().map(|job| job.class.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&state), [Kind::Disk, Kind::Remote]);
        let mut state = State::default();
        state.add(vec![remote(1, 1), unsure(2, 2), request(3, 3)], start);
        assert_eq!(kinds(&state), [Kind::Disk, Kind::Unsure, Kind::Remote]);
    }

    #[test]
    fn a_disk_that_has_to_be_looked_up_with_patience_takes_no_thread_of_disks() {
        let mut state = State::default();
        let start = Instant::now();
        let later = start + STUCK_AFTER;
        let batch = state.add((0..50).map(|pid| request(pid, 1)).collect(), start);
        let mut hung = 0;
        while let Some((id, job)) = state.take(start) {
            match job.lookup() {
                Lookup::Cached => state.put_off(id, job, start),
                Lookup::Patient => hung += 1,
            }
        }
        assert_eq!(hung, MAX_STUCK_REMOTE, "whatever disk it is");
        assert!(state.running.values().all(|run| run.class == Class::ON_THE_WAY));
        // From now on that is known at once.
        state.queue.clear();
        let next = state.add(vec![request(70, 1)], later);
        let (id, job) = state.take(later).unwrap();
        state.put_off(id, job, later);
        assert_eq!((state.batches[&next].left, state.batches[&next].answers[0]), (0, Reply::Late));
        state.batches.remove(&batch);
        // Who does not wait any more is not asked for.
        let last = state.add(vec![request(71, 1)], later);
        let (id, job) = state.take(later).unwrap();
        state.batches.remove(&last);
        state.put_off(id, job, later);
        assert!(state.queue.is_empty());
    }
}

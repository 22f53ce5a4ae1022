//! Work on many instances by few threads, with a deadline for each and one for all.
//!
//! The kernel takes a lock for each cgroup hierarchy, so more readers do not read faster; there is one, or two where there is
//! much to read or one is held up, whatever the number of cores. A job that does not come back in time is given up: its thread is left to itself and replaced, and
//! nobody waits for it again, at shutdown neither.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Threads that read at the same time. One costs less than two, which wait for each other's locks in the kernel, and takes hardly
/// longer.
const READERS: usize = 1;

/// With this much to read there are two, for whoever waits.
const MANY: usize = 1000;

/// How many readings of an instance a first one, which opens its files, counts for.
pub(crate) const FIRST: usize = 5;

/// How long a job may take before another thread goes on with those that wait.
const STALL: Duration = Duration::from_millis(25);

/// Threads that may be lost to jobs that never come back before no more are started.
const MAX_LOST: usize = 8;

/// What became of a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    /// It is done; how long it took.
    Done(T, Duration),
    /// It did not come back within the time that it was given.
    TimedOut {
        /// How long that was.
        given: Duration,
    },
    /// It was under way, and within its own time, when the time for all was over.
    CutOff,
    /// It panicked, which is a defect; the others go on.
    Failed,
    /// Its turn did not come before the time for all was over.
    NotStarted,
}

/// The times that jobs are given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For each.
    pub(crate) each: Duration,
    /// From when on each has a quarter of that: what comes after the jobs needs some of the time for all.
    pub(crate) soon: Instant,
    /// When all must be done.
    pub(crate) all: Instant,
}

impl Limits {
    /// When a job that began then has taken too long.
    pub(crate) fn end_of(&self, started: Instant) -> Instant {
        (started + self.each).min(self.soon.max(started + self.each / 4))
    }
}

/// Starts threads and knows how many of them never came back.
#[derive(Debug, Default)]
pub(crate) struct Runner {
    alive: Arc<AtomicUsize>,
}

impl Runner {
    /// Does `work` on each item, on a state of each thread's own, and tells what became of each, in their order.
    /// `load` is about how many readings of kept files that is.
    pub(crate) fn run<J, S, T>(
        &self,
        items: Vec<J>,
        load: usize,
        limits: Limits,
        work: impl Fn(J, &mut S) -> T + Send + Sync + 'static,
    ) -> Vec<Outcome<T>>
    where
        J: Send + 'static,
        S: Default,
        T: Send + 'static,
    {
        let count = items.len();
        let run = Arc::new(Run {
            state: Mutex::new(State {
                waiting: items.into_iter().enumerate().collect(),
                running: Vec::with_capacity(READERS),
                outcomes: (0..count).map(|_| None).collect(),
                done: 0,
                readers: 0,
            }),
            changed: Condvar::new(),
        });
        let work = Arc::new(work);
        for _ in 0..(READERS + load / MANY).min(2).min(count) {
            self.start(&run, &work);
        }
        let outcomes = self.wait(&run, &work, limits);
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::NotStarted)).collect()
    }

    fn wait<J, S, T, W>(&self, run: &Arc<Run<J, T>>, work: &Arc<W>, limits: Limits) -> Vec<Option<Outcome<T>>>
    where
        J: Send + 'static,
        S: Default,
        T: Send + 'static,
        W: Fn(J, &mut S) -> T + Send + Sync + 'static,
    {
        let mut state = run.lock();
        loop {
            let now = Instant::now();
            let is_late =
                |(_, started): &(usize, Instant)| now >= limits.all || now >= limits.end_of(*started);
            let (late, running): (Vec<_>, Vec<_>) = state.running.drain(..).partition(is_late);
            state.running = running;
            for (index, started) in &late {
                let end = limits.end_of(*started);
                let given = end.saturating_duration_since(*started);
                state.finish(*index, if now >= end { Outcome::TimedOut { given } } else { Outcome::CutOff });
                state.readers = state.readers.saturating_sub(1);
            }
            if now >= limits.all || state.is_done() {
                state.waiting.clear();
                return std::mem::take(&mut state.outcomes);
            }
            if !late.is_empty() {
                drop(state);
                for _ in &late {
                    self.start(run, work);
                }
                state = run.lock();
            }
            if state.readers == 0 && !state.waiting.is_empty() {
                // No thread is left and none may be started: what waits cannot be had this time.
                state.waiting.clear();
                return std::mem::take(&mut state.outcomes);
            }
            let stalled = state.running.iter().filter(|(_, started)| now >= *started + STALL).count();
            if stalled > 0 && stalled == state.readers && !state.waiting.is_empty() {
                drop(state);
                self.start(run, work);
                state = run.lock();
            }
            // No job that begins while this thread sleeps can be late or stall before so much time has passed.
            let next = state.running.iter().map(|(_, started)| limits.end_of(*started)).min();
            let until = next.unwrap_or(limits.end_of(now)).min(limits.all);
            let until = if state.waiting.is_empty() { until } else { until.min(now + STALL) };
            let pause = until.saturating_duration_since(now);
            state = run.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn start<J, S, T, W>(&self, run: &Arc<Run<J, T>>, work: &Arc<W>)
    where
        J: Send + 'static,
        S: Default,
        T: Send + 'static,
        W: Fn(J, &mut S) -> T + Send + Sync + 'static,
    {
        if self.alive.fetch_add(1, Ordering::Relaxed) >= READERS + MAX_LOST {
            self.alive.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let alive = Alive(Arc::clone(&self.alive));
        run.lock().readers += 1;
        let (run, work) = (Arc::clone(run), Arc::clone(work));
        let of_run = Arc::clone(&run);
        let started = std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
            let _alive = alive;
            read(&of_run, &*work);
        });
        if let Err(error) = started {
            tracing::error!(%error, "no thread can be started to read instances");
            run.lock().readers -= 1;
        }
    }
}

fn read<J, S: Default, T>(run: &Run<J, T>, work: &impl Fn(J, &mut S) -> T) {
    let mut own = S::default();
    let mut state = run.lock();
    loop {
        let Some((index, item)) = state.waiting.pop_front() else {
            state.readers = state.readers.saturating_sub(1);
            return;
        };
        let started = Instant::now();
        state.running.push((index, started));
        drop(state);
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| work(item, &mut own)));
        let outcome = result.map_or(Outcome::Failed, |result| Outcome::Done(result, started.elapsed()));
        state = run.lock();
        let Some(place) = state.running.iter().position(|(running, _)| *running == index) else {
            // Given up in the meantime, and replaced.
            return;
        };
        state.running.swap_remove(place);
        state.finish(index, outcome);
        // Whoever waits sleeps until all is done: waking it for each job would cost more than some jobs do.
        if state.is_done() {
            run.changed.notify_one();
        }
    }
}

/// Counts a thread as long as it lives.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Run<J, T> {
    /// Held for moments only, to take a job or to hand one back; never while one is done.
    state: Mutex<State<J, T>>,
    changed: Condvar,
}

impl<J, T> Run<J, T> {
    fn lock(&self) -> MutexGuard<'_, State<J, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State<J, T> {
    waiting: VecDeque<(usize, J)>,
    /// The jobs under way and when they began, one of each thread.
    running: Vec<(usize, Instant)>,
    /// What became of each job, nothing yet where it waits or runs.
    outcomes: Vec<Option<Outcome<T>>>,
    /// How many outcomes there are.
    done: usize,
    /// Threads that take jobs; those given up do not count.
    readers: usize,
}

impl<J, T> State<J, T> {
    fn finish(&mut self, index: usize, outcome: Outcome<T>) {
        if let Some(place) = self.outcomes.get_mut(index)
            && place.replace(outcome).is_none()
        {
            self.done += 1;
        }
    }

    fn is_done(&self) -> bool {
        self.done == self.outcomes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(each: u64, all: u64) -> Limits {
        let all = Instant::now() + Duration::from_millis(all);
        Limits { each: Duration::from_millis(each), soon: all, all }
    }

    fn done<T: Copy>(outcomes: &[Outcome<T>]) -> Vec<Option<T>> {
        outcomes.iter().map(|o| if let Outcome::Done(value, _) = o { Some(*value) } else { None }).collect()
    }

    #[test]
    fn all_are_done_in_their_order() {
        let outcomes =
            Runner::default().run((0..100).collect(), 100, limits(1000, 5000), |n: u32, calls: &mut u32| {
                *calls += 1;
                n * 2
            });
        assert_eq!(done(&outcomes), (0..100).map(|n| Some(n * 2)).collect::<Vec<_>>());
    }

    #[test]
    fn jobs_that_hang_cost_nobody_else() {
        let runner = Runner::default();
        let began = Instant::now();
        let outcomes = runner.run((0..20).collect(), 20, limits(1000, 60_000), |n: u32, (): &mut ()| {
            if n < 4 {
                std::thread::sleep(Duration::from_secs(30));
            }
            n
        });
        assert!(began.elapsed() < Duration::from_secs(20));
        assert_eq!(done(&outcomes), (0..20).map(|n| (n >= 4).then_some(n)).collect::<Vec<_>>());
        assert!(matches!(outcomes.first(), Some(Outcome::TimedOut { .. })));
    }

    #[test]
    fn the_time_for_all_is_kept() {
        let began = Instant::now();
        let outcomes =
            Runner::default().run((0..1000).collect(), 100, limits(60_000, 2_000), |n: u32, (): &mut ()| {
                std::thread::sleep(Duration::from_millis(200));
                n
            });
        assert!(began.elapsed() < Duration::from_secs(15), "all of them would have taken longer");
        assert!(outcomes.iter().any(|o| matches!(o, Outcome::NotStarted)));
        assert!(outcomes.iter().any(|o| matches!(o, Outcome::CutOff)), "no fault of that job");
        assert!(!outcomes.iter().any(|o| matches!(o, Outcome::TimedOut { .. })));
        assert!(matches!(outcomes.first(), Some(Outcome::Done(0, _))));
    }

    #[test]
    fn the_last_ones_leave_time_for_what_comes_after_them() {
        let began = Instant::now();
        let limits = Limits {
            each: Duration::from_secs(4),
            soon: began + Duration::from_millis(500),
            ..limits(0, 60_000)
        };
        let outcomes = Runner::default().run((0..3).collect(), 3, limits, |n: u32, (): &mut ()| {
            if n == 2 {
                std::thread::sleep(Duration::from_secs(120));
            }
            n
        });
        assert!(began.elapsed() < Duration::from_secs(30));
        assert_eq!(done(&outcomes), [Some(0), Some(1), None]);
        let Some(Outcome::TimedOut { given }) = outcomes.last() else { panic!("{:?}", outcomes.last()) };
        assert!((Duration::from_secs(1)..limits.each).contains(given), "{given:?}");
    }

    #[test]
    fn lost_threads_are_bounded_and_the_rest_is_told_at_once() {
        let runner = Runner::default();
        let hang = |n: u32, (): &mut ()| {
            std::thread::sleep(Duration::from_secs(120));
            n
        };
        let outcomes = runner.run((0..50).collect(), 50, limits(30, 60_000), hang);
        assert_eq!(
            outcomes.iter().filter(|o| matches!(o, Outcome::TimedOut { .. })).count(),
            READERS + MAX_LOST
        );
        assert!(outcomes.iter().any(|o| matches!(o, Outcome::NotStarted)));
        assert!(runner.alive.load(Ordering::Relaxed) <= READERS + MAX_LOST);
    }

    #[test]
    fn a_panic_costs_one_job() {
        let outcomes = Runner::default().run(vec![1, 2, 3], 3, limits(1000, 5000), |n: u32, (): &mut ()| {
            assert_ne!(n, 2);
            n
        });
        assert_eq!(done(&outcomes), [Some(1), None, Some(3)]);
    }
}

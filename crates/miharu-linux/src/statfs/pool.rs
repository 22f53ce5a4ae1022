//! The threads that ask, and what they do when one of them hangs.
//!
//! statfs(2) can block for ever, and no signal ends it. So it is done by a few threads that have a descriptor table of
//! their own; a caller waits until its deadline and then goes on without what has not been answered. A file system that
//! hangs is not asked again while it hangs, and with growing pauses after that: `queue` keeps the book on it.

mod queue;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use queue::{MAX_THREADS_STUCK, SLOW, STUCK_AFTER, State};

use super::{Reply, Request, Stuck, answer};
use crate::apart::{self, Apart};
use crate::read::Buffer;
use crate::roots::Roots;

/// So many threads wait for the next question. Further ones, which were there because some took long, end.
const KEPT: usize = 2;

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
    /// order of the requests.
    #[must_use]
    pub fn ask(&self, requests: Vec<Request>, deadline: Instant) -> Vec<Reply> {
        let mut state = self.shared.lock();
        let batch = state.add(requests, Instant::now());
        loop {
            self.staff(&mut state);
            let now = Instant::now();
            let left = state.batches.get(&batch).map_or(0, |batch| batch.left);
            if left == 0 || now >= deadline {
                break;
            }
            let pause = if state.queue.is_empty() { STUCK_AFTER } else { SLOW };
            let pause = pause.min(deadline - now);
            state = self.shared.done.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.queue.retain(|job| job.batch != batch);
        state.batches.remove(&batch).map(|batch| batch.answers).unwrap_or_default()
    }

    /// The calls that hang now, and those that did and are not made again yet.
    #[must_use]
    pub fn stuck(&self) -> Vec<Stuck> {
        self.shared.lock().left_out(Instant::now())
    }

    /// Starts threads where there is work and too few of them are free to do it.
    fn staff(&self, state: &mut State) {
        let now = Instant::now();
        let stuck = state.stuck(now);
        let able = state.threads.saturating_sub(stuck);
        // One does it all as fast as several that wait for each other, unless it is held up.
        let slow = state.slow(now);
        let useful = self.threads.min(state.queue.len()).min(1 + slow.saturating_sub(stuck));
        let wanted = useful.saturating_sub(able);
        if stuck < MAX_THREADS_STUCK && !state.apart_is_denied {
            for _ in 0..wanted {
                let worker = Worker { shared: Arc::clone(&self.shared), threads: self.threads };
                if apart::spawn(worker).is_err() {
                    break;
                }
                state.threads += 1;
            }
        }
        for _ in 0..useful {
            self.shared.work.notify_one();
        }
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

/// What one thread does. It has a queue of numbers and paths, which it shares.
#[derive(Debug)]
struct Worker {
    shared: Arc<Shared>,
    threads: usize,
}

impl Apart for Worker {
    const NAME: &'static str = "statfs";

    fn run(self, table: std::io::Result<()>) {
        match table {
            Ok(()) => self.work(),
            Err(_) => self.give_up(),
        }
    }
}

impl Worker {
    /// Answers jobs until the pool is gone or others do this thread's work.
    fn work(self) {
        let mut buffer = Buffer::new();
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            let able = state.threads.saturating_sub(state.stuck(now));
            if state.is_closed || able > self.threads {
                state.threads -= 1;
                return;
            }
            let Some((id, job)) = state.take(now) else {
                if state.idle >= KEPT {
                    state.threads -= 1;
                    return;
                }
                state.idle += 1;
                state = self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            let reply = answer(&self.shared.roots, &job.request, job.lookup(), &mut buffer);
            state = self.shared.lock();
            let batch = job.batch;
            match reply {
                Some(reply) => state.finish(id, &job, reply, Instant::now()),
                None => state.put_off(id, job, Instant::now()),
            }
            // A caller sleeps until all of its answers are there: each waking would cost more than an answer.
            if state.batches.get(&batch).is_none_or(|batch| batch.left == 0) {
                self.shared.done.notify_all();
            }
            // Another job of this instance may have waited for this one.
            if state.idle > 0 && !state.queue.is_empty() {
                self.shared.work.notify_one();
            }
        }
    }

    /// Notes that this kernel gives no thread a descriptor table of its own.
    fn give_up(self) {
        let mut state = self.shared.lock();
        state.threads = state.threads.saturating_sub(1);
        state.apart_is_denied = true;
        state.queue.clear();
        for batch in state.batches.values_mut() {
            batch.left = 0;
            batch.answers.fill(Reply::Nothing);
        }
        self.shared.done.notify_all();
    }
}

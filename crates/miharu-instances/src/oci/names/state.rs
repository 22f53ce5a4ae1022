//! What the threads of names share with the scans: paths, numbers and text, and nothing that is open.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::super::short;
use super::{
    FIRST_PAUSE, Identity, LAST_PAUSE, LOOK, OVERDUE, Question, STUCK_AFTER, USED, Unlearned, Warning,
};
use crate::Incarnation;
use crate::driver::Renamed;

/// The lock is held for look-ups only, never while a runtime is asked.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Something is to be asked, or all is over.
    pub(super) work: Condvar,
    /// A question has been answered.
    pub(super) answered: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) entries: HashMap<Incarnation, Entry>,
    pub(super) places: BTreeMap<Arc<Path>, Place>,
    /// How many questions have been queued.
    queued: u64,
    pub(super) threads: usize,
    /// Whether something was asked that no scan has waited for.
    pub(super) is_new: bool,
    pub(super) renamed: Vec<Renamed>,
    /// What is served under its short id, and why.
    pub(super) unlearned: BTreeMap<Incarnation, Warning>,
    pub(super) used: Option<Instant>,
    /// When a question was answered last.
    pub(super) progress: Option<Instant>,
    pub(super) is_over: bool,
}

pub(super) struct Entry {
    runtime: &'static str,
    id: String,
    /// The directory of the container's init, `/proc/PID`.
    pub(super) process: PathBuf,
    pub(super) place: Arc<Path>,
    /// Nothing while it is being asked.
    pub(super) question: Option<Box<dyn Question>>,
    pub(super) asked: Instant,
    project: String,
    /// What it is served as, from the first answer on.
    pub(super) served: Option<Identity>,
    /// When it is asked again after an error.
    pub(super) again: Option<Instant>,
    pause: Duration,
    pub(super) mark: Option<Mark>,
}

/// What tells a file that was changed or replaced.
pub(super) type Mark = (u64, SystemTime, u64);

/// Where the files of some containers lie. One thread at a time reads there, as another would hang as well.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// What is to be asked, in this order, with numbers that tell the order of all.
    queue: VecDeque<(u64, Incarnation)>,
    /// When the names were looked after last.
    pub(super) looked: Option<Instant>,
    /// Since when a thread is at it.
    pub(super) held: Option<Instant>,
    /// Whether that thread asks.
    is_asking: bool,
}

/// What a thread does next.
#[derive(Debug)]
pub(super) enum Job {
    /// Asks the question of a container.
    Ask(Incarnation),
    /// Looks whether the containers of a place are there, and called as before.
    Look,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(super) fn new(
        runtime: &'static str,
        id: &str,
        process: PathBuf,
        question: Box<dyn Question>,
        now: Instant,
    ) -> Self {
        Self {
            runtime,
            id: id.to_owned(),
            process,
            place: Arc::from(question.place().unwrap_or(Path::new(""))),
            project: question.project(),
            question: Some(question),
            asked: now,
            served: None,
            again: None,
            pause: FIRST_PAUSE,
            mark: None,
        }
    }
}

impl Place {
    fn is_stuck(&self, now: Instant) -> bool {
        self.held.is_some_and(|since| now.saturating_duration_since(since) >= STUCK_AFTER)
    }

    /// How long it is until the names are looked after.
    fn until_look(&self, now: Instant) -> Duration {
        self.looked
            .map_or(Duration::ZERO, |looked| LOOK.saturating_sub(now.saturating_duration_since(looked)))
    }
}

impl State {
    /// Adds a container, and queues its question.
    pub(super) fn add(&mut self, incarnation: Incarnation, entry: Entry) {
        let place = Arc::clone(&entry.place);
        self.entries.insert(incarnation, entry);
        self.queue(place, incarnation);
        self.is_new = true;
    }

    pub(super) fn queue(&mut self, place: Arc<Path>, incarnation: Incarnation) {
        self.queued += 1;
        self.places.entry(place).or_default().queue.push_back((self.queued, incarnation));
    }

    /// What a thread is to do, at a place that it holds from now on.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Arc<Path>, Job)> {
        let is_used = self.is_used(now);
        let free = || self.places.iter().filter(|(_, place)| place.held.is_none());
        let first = free().filter_map(|(path, place)| Some((place.queue.front()?.0, path))).min();
        let due = || free().find(|(_, place)| is_used && place.until_look(now).is_zero());
        let path = first.map(|(_, path)| path).or_else(|| Some(due()?.0)).cloned()?;
        let place = self.places.get_mut(&path)?;
        place.held = Some(now);
        let job = match place.queue.pop_front() {
            Some((_, incarnation)) => Job::Ask(incarnation),
            None => Job::Look,
        };
        place.is_asking = matches!(job, Job::Ask(_));
        Some((path, job))
    }

    /// Lets go of a place; one that nobody has anything in any more is forgotten.
    pub(super) fn release(&mut self, path: &Path) {
        let Some(place) = self.places.get_mut(path) else { return };
        (place.held, place.is_asking) = (None, false);
        if place.queue.is_empty() && !self.entries.values().any(|entry| *entry.place == *path) {
            self.places.remove(path);
        }
    }

    /// Whether there is something for a thread that is free.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        let is_used = self.is_used(now);
        let mut free = self.places.values().filter(|place| place.held.is_none());
        free.any(|place| !place.queue.is_empty() || is_used && place.until_look(now).is_zero())
    }

    /// How long it is until something is due by itself; nothing where nobody looks any more.
    pub(super) fn until_work(&self, now: Instant) -> Option<Duration> {
        let free = self.places.values().filter(|place| place.held.is_none());
        free.map(|place| place.until_look(now)).min().filter(|_| self.is_used(now))
    }

    fn is_used(&self, now: Instant) -> bool {
        self.used.is_some_and(|used| now.saturating_duration_since(used) < USED)
    }

    /// Whether a question has no answer yet that may still come in a moment.
    pub(super) fn is_awaited(&self, now: Instant) -> bool {
        let mut moving = self.places.values().filter(|place| !place.is_stuck(now));
        moving.any(|place| place.is_asking || !place.queue.is_empty())
    }

    /// How many threads hang.
    pub(super) fn stuck(&self, now: Instant) -> usize {
        self.places.values().filter(|place| place.is_stuck(now)).count()
    }

    /// Whether a thread that is free is to end: all is over, or it was stuck and has found another in its place when it came back.
    /// It is not counted from then on, so that of two that are free one stays.
    pub(super) fn dismiss(&mut self, now: Instant) -> bool {
        let is_needed = !self.is_over && self.threads.saturating_sub(self.stuck(now)) <= 1;
        if !is_needed {
            self.threads = self.threads.saturating_sub(1);
        }
        !is_needed
    }

    /// Whether a container has waited long enough for a thread that does not move.
    pub(super) fn is_overdue(&self, entry: &Entry, now: Instant) -> bool {
        let is_long = |since: Instant| now.saturating_duration_since(since) >= OVERDUE;
        let held = self.places.get(&entry.place).and_then(|place| place.held);
        is_long(entry.asked) && (self.progress.is_none_or(is_long) || held.is_some_and(is_long))
    }

    /// Serves a container under its short id, unless it is served already.
    pub(super) fn give_up(&mut self, incarnation: Incarnation, why: &str) -> Option<Identity> {
        let entry = self.entries.get_mut(&incarnation)?;
        let identity = entry.served.get_or_insert_with(|| Identity {
            project: entry.project.clone(),
            name: short(&entry.id),
            image: None,
            is_sandbox: false,
        });
        let warning = Warning::Unnamed {
            runtime: entry.runtime,
            project: identity.project.clone(),
            name: identity.name.clone(),
            why: why.to_owned(),
        };
        let identity = identity.clone();
        self.unlearned.insert(incarnation, warning);
        Some(identity)
    }

    /// Notes an answer.
    pub(super) fn note(&mut self, incarnation: Incarnation, answer: Result<Identity, Unlearned>) {
        let Some(entry) = self.entries.get_mut(&incarnation) else { return };
        match answer {
            Ok(identity) => {
                entry.again = None;
                entry.pause = FIRST_PAUSE;
                let before = entry.served.replace(identity.clone());
                self.unlearned.remove(&incarnation);
                if before.is_some_and(|before| before != identity) {
                    self.renamed.push(Renamed { incarnation, identity });
                }
            }
            Err(why) => {
                entry.again = Some(Instant::now() + entry.pause);
                entry.pause = (entry.pause * 2).min(LAST_PAUSE);
                // Who had a name keeps it.
                if entry.served.is_none() || self.unlearned.contains_key(&incarnation) {
                    self.give_up(incarnation, &why.0);
                }
            }
        }
    }

    pub(super) fn forget(&mut self, incarnation: Incarnation) {
        self.entries.remove(&incarnation);
        self.unlearned.remove(&incarnation);
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).field("served", &self.served).finish_non_exhaustive()
    }
}

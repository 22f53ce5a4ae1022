//! Who a container is to its user: learned from a runtime's socket or state files in a thread of its own, so that no
//! scan ever waits for a runtime.
//!
//! A driver has one [`Names`]. For a container that it has found it calls [`Names::learn`] with a [`Question`]; until
//! that is answered the container is [`Unidentified::Asked`], so not there yet. An identity that was learned is kept for
//! as long as the container's init lives, and looked after in the background: a container that is renamed is told by
//! [`Names::changes`]. The thread begins with the first question.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use miharu_linux::process::ProcDir;
use miharu_linux::read::Buffer;

use super::files::UsersFile;
use super::sockets::Sockets;
use super::{Found, short};
use crate::Incarnation;
use crate::discovery::{Warning, is_running};
use crate::driver::{Claim, Renamed, Unidentified};

/// The most containers whose names are kept; more cgroups are not claimed, either.
const MAX_NAMES: usize = 20_000;

/// How long a container is left out because its name was asked for and the thread, which is stuck in a file system that hangs,
/// answers nothing. Many questions before it are no reason to call it otherwise than it is called.
const OVERDUE: Duration = Duration::from_secs(10);

/// How often it is looked whether containers were renamed.
const LOOK: Duration = Duration::from_secs(5);

/// For how long that goes on where nobody scans.
const USED: Duration = Duration::from_secs(60);

/// The pause after a question that could not be answered, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest such pause.
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// What a container is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The project, as design.md names them for each runtime.
    pub project: String,
    /// The name.
    pub name: String,
    /// The image, as the runtime calls it.
    pub image: Option<String>,
    /// Whether it only holds the namespaces of a pod.
    pub is_sandbox: bool,
}

/// Why nobody could tell who a container is, to be read after "its name could not be learned: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unlearned(pub(crate) String);

/// How it shows that a container may be called otherwise by now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Renames {
    /// It keeps its name for life.
    Never,
    /// This file of the system's changes. A path as this process sees it.
    Change(PathBuf),
    /// This file of a user's changes.
    ChangeOfUsers(UsersFile),
    /// Only an answer shows it, so it is asked anew each time; for sockets that are cheap to ask.
    Anybody,
}

/// One container whose identity is to be learned. It holds whatever its source needs to know (paths, ids), and is asked
/// in the thread of names only.
pub(crate) trait Question: Send {
    /// Learns who the container is: from the runtime's socket where that answers (through [`Sockets`], which keeps to the
    /// deadline and leaves a hung one alone), else from its state files. Asked again after an error, and when
    /// [`Question::renames`] says so.
    ///
    /// # Errors
    /// [`Unlearned`] where nobody can tell. The container is then called as [`Question::project`] and its short id say.
    fn ask(&mut self, sockets: &mut Sockets) -> Result<Identity, Unlearned>;

    /// The project of the container while its name cannot be learned.
    fn project(&self) -> String;

    /// How a new name would show.
    fn renames(&self) -> Renames {
        Renames::Never
    }
}

/// The names of one driver's containers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The lock is held for look-ups only, never while a runtime is asked.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is to be asked, or all is over.
    work: Condvar,
    /// A question has been answered.
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Incarnation, Entry>,
    /// What is to be asked, in this order.
    queue: VecDeque<Incarnation>,
    /// Whether the thread is asking.
    is_asking: bool,
    /// Whether something was asked that no scan has waited for.
    is_new: bool,
    renamed: Vec<Renamed>,
    /// What is served under its short id, and why.
    unlearned: BTreeMap<Incarnation, Warning>,
    used: Option<Instant>,
    /// When the names were looked after last.
    looked: Option<Instant>,
    /// When a question was answered last.
    progress: Option<Instant>,
    is_over: bool,
}

struct Entry {
    runtime: &'static str,
    id: String,
    init: Arc<ProcDir>,
    /// Nothing while it is being asked.
    question: Option<Box<dyn Question>>,
    asked: Instant,
    project: String,
    /// What it is served as, from the first answer on.
    served: Option<Identity>,
    /// When it is asked again after an error.
    again: Option<Instant>,
    pause: Duration,
    mark: Option<Mark>,
}

/// What tells a file that was changed or replaced.
type Mark = (u64, SystemTime, u64);

impl Names {
    /// The identity of a container; `question` is made where it was not asked for yet.
    ///
    /// # Errors
    /// [`Unidentified::Asked`] while there is no answer.
    pub(crate) fn learn(
        &mut self,
        found: &Found,
        claim: &Claim,
        runtime: &'static str,
        id: &str,
        question: impl FnOnce() -> Box<dyn Question>,
    ) -> Result<Identity, Unidentified> {
        let incarnation = found.incarnation(claim);
        let now = Instant::now();
        let mut state = self.shared.lock();
        if let Some(entry) = state.entries.get(&incarnation) {
            let (served, is_overdue) = (entry.served.clone(), state.is_overdue(entry, now));
            return match served {
                Some(identity) => Ok(identity),
                None if is_overdue => {
                    Ok(state.give_up(incarnation, "nobody answers in time").ok_or(Unidentified::Asked)?)
                }
                None => Err(Unidentified::Asked),
            };
        }
        if state.entries.len() >= MAX_NAMES {
            return Err(Unidentified::Asked);
        }
        let question = question();
        let entry = Entry {
            runtime,
            id: id.to_owned(),
            init: Arc::clone(&found.init),
            project: question.project(),
            question: Some(question),
            asked: now,
            served: None,
            again: None,
            pause: FIRST_PAUSE,
            mark: None,
        };
        state.entries.insert(incarnation, entry);
        state.queue.push_back(incarnation);
        state.is_new = true;
        state.used = Some(now);
        drop(state);
        self.shared.work.notify_one();
        self.ensure_thread();
        Err(Unidentified::Asked)
    }

    /// Waits until all that was asked since the last time is answered, until `end` at most.
    pub(crate) fn wait(&mut self, end: Instant) {
        let mut state = self.shared.lock();
        if !std::mem::take(&mut state.is_new) {
            return;
        }
        while state.is_asking || !state.queue.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = match self.shared.answered.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// The containers that are called otherwise since the last time; those whose name could not be learned are warned of.
    pub(crate) fn changes(&mut self, warnings: &mut Vec<Warning>) -> Vec<Renamed> {
        // Without a thread there is nothing.
        if self.thread.is_none() {
            return Vec::new();
        }
        let mut state = self.shared.lock();
        let is_first = state.used.replace(Instant::now()).is_none_or(|used| used.elapsed() >= USED);
        warnings.extend(state.unlearned.values().cloned());
        let renamed = std::mem::take(&mut state.renamed);
        drop(state);
        if is_first {
            self.shared.work.notify_one();
        }
        renamed
    }

    /// Begins the thread, also in place of one that has ended.
    fn ensure_thread(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("names".to_owned());
        // Without a thread the containers are overdue some time, and served under their short ids.
        self.thread = thread.spawn(move || answer(&shared)).ok();
    }
}

impl Drop for Names {
    /// The thread ends by itself; one that hangs is left to itself.
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a container has waited long enough for a thread that does not move.
    fn is_overdue(&self, entry: &Entry, now: Instant) -> bool {
        let is_long = |since: Instant| now.duration_since(since) >= OVERDUE;
        is_long(entry.asked) && self.progress.is_none_or(is_long)
    }

    /// Serves a container under its short id, unless it is served already.
    fn give_up(&mut self, incarnation: Incarnation, why: &str) -> Option<Identity> {
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
    fn note(&mut self, incarnation: Incarnation, answer: Result<Identity, Unlearned>) {
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

    fn forget(&mut self, incarnation: Incarnation) {
        self.entries.remove(&incarnation);
        self.unlearned.remove(&incarnation);
    }
}

/// The thread: answers questions, and looks after what was answered.
fn answer(shared: &Shared) {
    let mut sockets = Sockets::default();
    let mut buffer = Buffer::new();
    let mut state = shared.lock();
    while !state.is_over {
        if let Some(incarnation) = state.queue.pop_front() {
            let Some(entry) = state.entries.get_mut(&incarnation) else { continue };
            let Some(mut question) = entry.question.take() else { continue };
            let init = Arc::clone(&entry.init);
            state.is_asking = true;
            drop(state);
            // Many are gone again by the time it is their turn.
            let answer = is_running(&init, &mut buffer).then(|| {
                let mark = mark_of(&question.renames());
                (question.ask(&mut sockets), mark)
            });
            state = shared.lock();
            state.is_asking = false;
            state.progress = Some(Instant::now());
            match answer {
                Some((answer, mark)) => {
                    if let Some(entry) = state.entries.get_mut(&incarnation) {
                        entry.question = Some(question);
                        entry.mark = mark;
                    }
                    state.note(incarnation, answer);
                }
                None => state.forget(incarnation),
            }
            shared.answered.notify_all();
            continue;
        }
        let is_used = state.used.is_some_and(|used| used.elapsed() < USED) && !state.entries.is_empty();
        let left = state.looked.map_or(Duration::ZERO, |looked| LOOK.saturating_sub(looked.elapsed()));
        if is_used && left.is_zero() {
            state = look_after(shared, state, &mut buffer);
            state.looked = Some(Instant::now());
            continue;
        }
        let waiting = if is_used {
            shared.work.wait_timeout(state, left).map(|(state, _)| state).map_err(|e| e.into_inner().0)
        } else {
            shared.work.wait(state).map_err(PoisonError::into_inner)
        };
        state = waiting.unwrap_or_else(|state| state);
    }
}

/// Forgets the containers that are gone, and queues those that may be called otherwise or are to be asked again.
fn look_after<'s>(
    shared: &'s Shared,
    state: MutexGuard<'s, State>,
    buffer: &mut Buffer,
) -> MutexGuard<'s, State> {
    let now = Instant::now();
    let rows: Vec<_> = state
        .entries
        .iter()
        .filter(|(_, entry)| entry.question.is_some())
        .map(|(incarnation, entry)| {
            let renames = entry.question.as_ref().map_or(Renames::Never, |question| question.renames());
            (*incarnation, Arc::clone(&entry.init), renames, entry.mark, entry.again)
        })
        .collect();
    drop(state);
    let mut marks: HashMap<Renames, Option<Mark>> = HashMap::new();
    let (mut gone, mut due) = (Vec::new(), Vec::new());
    for (incarnation, init, renames, before, again) in rows {
        if !is_running(&init, buffer) {
            gone.push(incarnation);
            continue;
        }
        let is_due = match (again, renames) {
            (Some(again), _) => now >= again,
            (None, Renames::Never) => false,
            (None, Renames::Anybody) => true,
            (None, change) => *marks.entry(change).or_insert_with_key(mark_of) != before,
        };
        if is_due {
            due.push(incarnation);
        }
    }
    let mut state = shared.lock();
    for incarnation in gone {
        state.forget(incarnation);
    }
    state.queue.extend(due);
    state
}

/// The mark of the file that shows new names.
fn mark_of(renames: &Renames) -> Option<Mark> {
    let metadata = match renames {
        Renames::Change(path) => std::fs::symlink_metadata(path).ok()?,
        Renames::ChangeOfUsers(file) => file.metadata().ok()?,
        Renames::Never | Renames::Anybody => return None,
    };
    Some((metadata.ino(), metadata.modified().ok()?, metadata.len()))
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).field("served", &self.served).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! Who a container is to its user: learned from a runtime's socket or state files in a thread of its own, so that no
//! scan ever waits for a runtime. That thread has its own descriptor table: a file system that hangs may keep it in the kernel for
//! ever, and then nothing but what it has opened itself. Another thread then goes on with what lies elsewhere.
//!
//! A driver has one [`Names`]. For a container that it has found it calls [`Names::learn`] with a [`Question`]; until
//! that is answered the container is [`Unidentified::Asked`], so not there yet. An identity that was learned is kept for
//! as long as the container's init lives, and looked after in the background: a container that is renamed is told by
//! [`Names::changes`]. The thread begins with the first question.

mod state;
#[cfg(test)]
mod tests;
mod thread;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Found;
use super::files::UsersFile;
use super::sockets::Sockets;
use crate::discovery::Warning;
use crate::driver::{Claim, Renamed, Unidentified};

use state::{Entry, Shared, State};

/// The most containers whose names are kept; more cgroups are not claimed, either.
const MAX_NAMES: usize = 20_000;

/// How long a container is left out because its name was asked for and the thread, which is stuck in a file system that hangs,
/// answers nothing. Many questions before it are no reason to call it otherwise than it is called.
const OVERDUE: Duration = Duration::from_secs(10);

/// How long one question may take before its thread counts as stuck and another one goes on: some requests of a second each.
const STUCK_AFTER: Duration = Duration::from_secs(4);

/// The most stuck threads; past that nothing more is learned until one of them comes back.
const MAX_STUCK: usize = 3;

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
/// in the thread of names only. As that has a descriptor table of its own, a question keeps nothing open: it opens what it needs whenever it
/// is asked (see [`miharu_linux::apart::Apart`]).
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

    /// Where the files lie that are read, where containers of one driver may have them in several places: while one place hangs, its
    /// other containers wait, and those of other places do not.
    fn place(&self) -> Option<&Path> {
        None
    }
}

/// The names of one driver's containers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    shared: Arc<Shared>,
}

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
        let process = found.init.path().to_owned();
        state.add(incarnation, Entry::new(runtime, id, process, question(), now));
        state.used = Some(now);
        self.staff(&mut state, now);
        drop(state);
        self.shared.work.notify_one();
        Err(Unidentified::Asked)
    }

    /// Waits until all that was asked since the last time is answered, until `end` at most.
    pub(crate) fn wait(&mut self, end: Instant) {
        let mut state = self.shared.lock();
        if !std::mem::take(&mut state.is_new) {
            return;
        }
        while state.is_awaited(Instant::now()) {
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
        let now = Instant::now();
        let mut state = self.shared.lock();
        if state.entries.is_empty() {
            return Vec::new();
        }
        let is_first = state.used.replace(now).is_none_or(|used| now.duration_since(used) >= USED);
        warnings.extend(state.unlearned.values().cloned());
        let renamed = std::mem::take(&mut state.renamed);
        self.staff(&mut state, now);
        drop(state);
        if is_first {
            self.shared.work.notify_one();
        }
        renamed
    }

    /// Starts a thread where there is something to do and none that could: all are stuck, or have ended.
    fn staff(&self, state: &mut State, now: Instant) {
        let stuck = state.stuck(now);
        if state.threads > stuck || stuck >= MAX_STUCK || !state.has_work(now) {
            return;
        }
        // Without a thread the containers are overdue some time, and served under their short ids.
        if thread::start(&self.shared).is_ok() {
            state.threads += 1;
        }
    }
}

impl Drop for Names {
    /// The threads end by themselves; one that hangs is left to itself.
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.work.notify_all();
    }
}

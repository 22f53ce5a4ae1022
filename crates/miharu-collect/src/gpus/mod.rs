//! What instances take of NVIDIA's graphics processors.
//!
//! The library is loaded and asked by a thread of its own, which ends when nobody has scraped for a while, so that the
//! processors are let go. A library that hangs keeps that thread and nothing else.

mod library;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use miharu_instances::Instance;
use miharu_linux::Roots;
use miharu_linux::process::Memberships;
use miharu_metrics::figures::Gpu;
use miharu_metrics::{Part, Wanted};

use crate::container::Raw;
use crate::vm::backoff::{Backoff, LONGEST_PAUSE};
use crate::warning::{Warning, WarningKind};

/// How long a collection waits for an answer, from its beginning; in tests so long that a busy machine gives one in time.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 3_000 } else { 250 });

/// An answer that came too late for its collection serves the next ones while it is younger than this.
const TOO_OLD: Duration = Duration::from_secs(60);

/// After so long without an answer the library hangs.
const HANGS: Duration = Duration::from_secs(10);

/// How long the thread waits for the next question before it lets the processors go: as long as they are held, no driver
/// can be exchanged.
const IDLE: Duration = Duration::from_secs(120);

/// How often it is looked whether a library has been installed.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// What one process takes of one processor.
#[derive(Debug, Clone)]
struct Use {
    /// The processor's UUID.
    gpu: String,
    pid: u32,
    /// The cgroups of the process.
    memberships: Memberships,
    /// The part of the time for which the processor worked for it; nothing where that cannot be told.
    utilization: Option<f64>,
    /// Bytes of the processor's memory.
    memory: Option<u64>,
}

/// What tells the uses: the library, or a test.
trait Source {
    /// # Errors
    /// Why it cannot; it is loaded anew then.
    fn uses(&mut self) -> Result<Vec<Use>, String>;
}

/// Why there is no source.
#[derive(Debug)]
enum Unavailable {
    /// It is not installed, or there is nothing to tell of.
    Absent,
    /// It does not work.
    Broken(String),
}

/// Makes the source, on the thread that will ask it.
type Load = dyn Fn() -> Result<Box<dyn Source>, Unavailable> + Send + Sync;

/// Starts the thread that asks.
pub type Start = fn(Box<dyn FnOnce() + Send>);

/// Where it is not started its channels are closed, which is seen.
fn start_here(work: Box<dyn FnOnce() + Send>) {
    drop(std::thread::Builder::new().name("gpus".to_owned()).spawn(work));
}

/// The graphics processors of this host.
pub(crate) struct Gpus {
    load: Arc<Load>,
    start: Start,
    /// Held for a look, and for the short wait for an answer; collections come one at a time.
    state: Mutex<State>,
}

impl std::fmt::Debug for Gpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gpus")
    }
}

#[derive(Default)]
struct State {
    thread: Option<Thread>,
    /// When it is looked again whether there is a library.
    look_again: Option<Instant>,
    /// The failures of one that is there.
    backoff: Backoff,
    /// What was told last, and when that was asked for.
    last: Option<(Instant, Vec<Use>)>,
    problem: Option<String>,
}

/// The thread that asks.
struct Thread {
    questions: SyncSender<()>,
    answers: Receiver<Answer>,
    /// When the question was put that it has not answered yet.
    asked: Option<Instant>,
}

type Answer = Result<Vec<Use>, Unavailable>;

impl Gpus {
    pub(crate) fn new(roots: &Roots) -> Self {
        let roots = roots.clone();
        Self::with(Arc::new(move || library::load(OsStr::new(library::LIBRARY), &roots)))
    }

    fn with(load: Arc<Load>) -> Self {
        Self { load, start: start_here, state: Mutex::default() }
    }

    pub(crate) fn start_by(&mut self, start: Start) {
        self.start = start;
    }

    /// Begins to ask, where somebody wants to know.
    pub(crate) fn ask(&self, wanted: Wanted) {
        if !wanted.has(Part::Gpus) {
            return;
        }
        let now = Instant::now();
        let mut state = lock(&self.state);
        if let Some(asked) = state.thread.as_ref().and_then(|thread| thread.asked) {
            let answer = state.thread.as_ref().map(|thread| thread.answers.try_recv());
            match answer {
                Some(Err(TryRecvError::Empty)) => return,
                Some(Ok(answer)) => state.take(answer, asked, now),
                Some(Err(TryRecvError::Disconnected)) | None => state.thread = None,
            }
        }
        if state.look_again.is_some_and(|moment| now < moment) || !state.backoff.is_over(now) {
            return;
        }
        // The thread of before may have ended for want of questions.
        let is_asked = state.thread.as_ref().is_some_and(|thread| thread.questions.try_send(()).is_ok());
        if !is_asked {
            state.thread = self.start_thread();
        }
        if let Some(thread) = &mut state.thread {
            thread.asked = Some(now);
        }
    }

    /// A thread that has been asked.
    fn start_thread(&self) -> Option<Thread> {
        let (questions, to_answer) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let load = Arc::clone(&self.load);
        questions.try_send(()).ok()?;
        let work = move || serve(&*load, &to_answer, &answer);
        (self.start)(Box::new(work));
        Some(Thread { questions, answers, asked: None })
    }

    /// Waits a moment for the answer to what [`Gpus::ask`] asked, and gives it to the instances whose processes it is about.
    pub(crate) fn add(&self, rows: &mut [(Arc<Instance>, Raw)], wanted: Wanted) -> Vec<Warning> {
        if !wanted.has(Part::Gpus) {
            return Vec::new();
        }
        let mut state = lock(&self.state);
        let waiting = state.thread.as_ref().and_then(|thread| Some((thread.asked?, thread)));
        if let Some((asked, thread)) = waiting {
            let left = (asked + PATIENCE).saturating_duration_since(Instant::now());
            match thread.answers.recv_timeout(left) {
                Ok(answer) => state.take(answer, asked, Instant::now()),
                Err(RecvTimeoutError::Disconnected) => state.thread = None,
                Err(RecvTimeoutError::Timeout) if asked.elapsed() >= HANGS => {
                    state.problem = Some("it does not answer".to_owned());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        if let Some((asked, uses)) = &state.last
            && asked.elapsed() < TOO_OLD
        {
            give(rows, uses);
        }
        let warning = |problem: &String| Warning {
            kind: WarningKind::SourceSilent,
            instance: None,
            message: format!("NVIDIA's management library: {problem}; figures of GPUs are not served"),
        };
        state.problem.as_ref().map(warning).into_iter().collect()
    }
}

impl State {
    /// Takes what the thread answered to a question.
    fn take(&mut self, answer: Answer, asked: Instant, now: Instant) {
        match answer {
            Ok(uses) => {
                self.last = Some((asked, uses));
                self.problem = None;
                self.backoff.answered();
                if let Some(thread) = &mut self.thread {
                    thread.asked = None;
                }
            }
            // The thread has ended with that.
            Err(unavailable) => {
                self.thread = None;
                self.last = None;
                match unavailable {
                    Unavailable::Absent => {
                        self.problem = None;
                        self.look_again = Some(now + LOOK_AGAIN);
                    }
                    Unavailable::Broken(problem) => {
                        self.problem = Some(problem);
                        self.backoff.failed(now, LONGEST_PAUSE);
                    }
                }
            }
        }
    }
}

/// Loads the source with the first question and answers until it fails, or nobody asks any more.
fn serve(load: &Load, questions: &Receiver<()>, answers: &SyncSender<Answer>) {
    let mut source = None;
    while questions.recv_timeout(IDLE).is_ok() {
        let loaded = match source.take() {
            Some(source) => Ok(source),
            None => load(),
        };
        let answer = loaded.and_then(|mut loaded| {
            let uses = loaded.uses().map_err(Unavailable::Broken)?;
            source = Some(loaded);
            Ok(uses)
        });
        let has_failed = answer.is_err();
        if answers.send(answer).is_err() || has_failed {
            return;
        }
    }
}

/// Adds what the processes of each instance take together.
fn give(rows: &mut [(Arc<Instance>, Raw)], uses: &[Use]) {
    let mut owners: HashMap<(&str, &Path), usize> = HashMap::new();
    let mut processes: HashMap<u32, usize> = HashMap::new();
    for (index, (instance, _)) in rows.iter().enumerate() {
        processes.insert(instance.init.pid(), index);
        let unified = instance.cgroup.unified.iter().map(|path| ("", path));
        let v1 = instance.cgroup.v1.iter().map(|(controller, path)| (controller.as_str(), path));
        owners.extend(unified.chain(v1).map(|(hierarchy, path)| ((hierarchy, path.as_path()), index)));
    }
    let mut taken: HashMap<(usize, &str), Gpu> = HashMap::new();
    for one in uses {
        let by_process = || processes.get(&one.pid).copied();
        let Some(index) = owner(&owners, &one.memberships).or_else(by_process) else { continue };
        let gpu = taken.entry((index, &one.gpu)).or_insert_with(|| Gpu {
            gpu: one.gpu.clone(),
            utilization: None,
            memory_used_bytes: None,
        });
        if let Some(utilization) = one.utilization {
            gpu.utilization = Some((gpu.utilization.unwrap_or(0.0) + utilization).min(1.0));
        }
        if let Some(memory) = one.memory {
            gpu.memory_used_bytes = Some(gpu.memory_used_bytes.unwrap_or(0).saturating_add(memory));
        }
    }
    let taken: Vec<_> = taken.into_iter().map(|((index, _), gpu)| (index, gpu)).collect();
    drop((owners, processes));
    for (index, gpu) in taken {
        if let Some((_, raw)) = rows.get_mut(index) {
            raw.figures.gpus.push(gpu);
        }
    }
}

/// Whose cgroup the process is in, or below, in any hierarchy.
fn owner(owners: &HashMap<(&str, &Path), usize>, memberships: &Memberships) -> Option<usize> {
    let unified = memberships.unified.iter().map(|path| ("", path));
    let v1 = memberships.v1.iter().map(|(controller, path)| (controller.as_str(), path));
    unified.chain(v1).find_map(|(hierarchy, path)| {
        path.ancestors().find_map(|above| owners.get(&(hierarchy, above)).copied())
    })
}

fn lock(mutex: &Mutex<State>) -> MutexGuard<'_, State> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

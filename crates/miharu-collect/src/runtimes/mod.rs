//! Projects and storage pools, as the daemons of Incus and LXD on this host tell them.
//!
//! They are asked on a thread of its own, about once a minute while somebody scrapes. A collection takes what was told last
//! and never waits, so a daemon that hangs costs nothing but its own figures, which are withdrawn when they are too old.

mod ask;
mod connection;
mod find;
pub(crate) mod fuzzing;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use miharu_linux::Roots;
use miharu_linux::read::Buffer;
use miharu_metrics::server::{Project, Runtime, StoragePool};
use miharu_metrics::{Part, Wanted};

use crate::vm::backoff::Backoff;
use crate::warning::{Warning, WarningKind};
use find::Finder;

/// How often the daemons are asked.
const INTERVAL: Duration = Duration::from_secs(60);

/// How often they are asked at least, however long that takes them: more seldom and the figures would be too old.
const LONGEST_INTERVAL: Duration = Duration::from_secs(240);

/// Between two rounds lies so many times the time that a round took, so that a daemon with very many instances spends a
/// small part of its time on this. LXD 5.0 and Incus 6.0 with 60 projects and 60 instances need 0.2 s of CPU for a round.
const REST: u32 = 50;

/// Figures that are older are not served.
const TOO_OLD: Duration = Duration::from_secs(300);

/// For how long a daemon that has ended is spoken of.
const MISSED: Duration = Duration::from_secs(3600);

/// The state directories that daemons have by default, in the order in which the first of several is chosen.
const DEFAULTS: [&str; 3] = ["/var/lib/incus", "/var/lib/lxd", "/var/snap/lxd/common/lxd"];

/// The daemons of this host.
#[derive(Debug)]
pub(crate) struct Runtimes {
    roots: Roots,
    /// Held for a look, never while a daemon is asked.
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What asks, between two rounds.
    asker: Option<Asker>,
    /// When the next round may begin.
    not_before: Option<Instant>,
    /// What the last round left.
    servers: BTreeMap<PathBuf, Server>,
    /// Why daemons cannot be found.
    problem: Option<String>,
}

/// What asks, and what it knows of each daemon, by its state directory.
#[derive(Debug)]
struct Asker {
    finder: Finder,
    servers: BTreeMap<PathBuf, Server>,
    buffer: Buffer,
    problem: Option<String>,
}

/// What is known of one daemon.
#[derive(Debug, Clone)]
struct Server {
    runtime: &'static str,
    /// What it told last, and when it was asked for that.
    answer: Option<(Answer, Instant)>,
    /// When it was last seen to listen.
    seen: Instant,
    backoff: Backoff,
    /// Rounds in a row in which it did not answer.
    failures: u32,
    /// Pools that did not tell their size.
    pools: BTreeMap<String, Backoff>,
    /// What is wrong.
    problems: Vec<String>,
}

/// What a daemon told.
#[derive(Debug, Clone, Default)]
struct Answer {
    projects: Vec<Project>,
    pools: Vec<StoragePool>,
}

impl Runtimes {
    pub(crate) fn new(roots: Roots) -> Self {
        let state = State { asker: Some(Asker::new(&roots)), ..State::default() };
        Self { roots, state: Arc::new(Mutex::new(state)) }
    }

    /// What the daemons told last, and what is wrong with them. Where that was a while ago they are asked anew, for the next
    /// collection.
    pub(crate) fn figures(&self, wanted: Wanted) -> (Vec<Runtime>, Vec<Warning>) {
        if !wanted.has(Part::Projects) && !wanted.has(Part::StoragePools) {
            return Default::default();
        }
        let now = Instant::now();
        let mut state = lock(&self.state);
        if state.not_before.is_none_or(|moment| now >= moment)
            && let Some(asker) = state.asker.take()
            && let Err(error) = self.begin(asker, wanted)
        {
            state.asker = Some(Asker::new(&self.roots));
            state.not_before = Some(now + INTERVAL);
            state.problem = Some(format!("no thread can be started to ask Incus and LXD: {error}"));
        }
        (state.figures(wanted, now), state.warnings())
    }

    /// Asks all daemons on a thread that ends with that.
    fn begin(&self, mut asker: Asker, wanted: Wanted) -> std::io::Result<()> {
        let (roots, state) = (self.roots.clone(), Arc::clone(&self.state));
        let round = move || {
            let begun = Instant::now();
            asker.round(&roots, wanted);
            let rest = (begun.elapsed() * REST).clamp(INTERVAL, LONGEST_INTERVAL);
            let mut state = lock(&state);
            state.servers.clone_from(&asker.servers);
            state.problem.clone_from(&asker.problem);
            state.not_before = Some(begun + rest);
            state.asker = Some(asker);
        };
        std::thread::Builder::new().name("runtimes".to_owned()).spawn(round).map(drop)
    }
}

impl Asker {
    fn new(roots: &Roots) -> Self {
        let finder = Finder::new(roots);
        Self { finder, servers: BTreeMap::new(), buffer: Buffer::new(), problem: None }
    }

    fn round(&mut self, roots: &Roots, wanted: Wanted) {
        let now = Instant::now();
        let Self { finder, servers, buffer, .. } = self;
        match finder.running(roots, buffer, |directory| servers.contains_key(directory)) {
            Ok(running) => {
                let mut unknown =
                    self.finder.hung().filter(|directory| !self.servers.contains_key(*directory));
                self.problem = unknown.next().map(|directory| {
                    let path = directory.display();
                    if DEFAULTS.iter().any(|default| directory == Path::new(default)) {
                        return format!(
                            "the directory {path} of Incus or LXD does not answer: its projects and storage pools are missing"
                        );
                    }
                    format!(
                        "somebody listens as if {path} were the directory of Incus or LXD, and that does not answer: it is left alone"
                    )
                });
                for (directory, runtime) in running {
                    let server = self.servers.entry(directory).or_insert_with(|| Server::new(runtime, now));
                    (server.runtime, server.seen) = (runtime, now);
                }
            }
            Err(error) if error.is_gone() => self.problem = None,
            Err(error) => self.problem = Some(format!("daemons of Incus and LXD cannot be found: {error}")),
        }
        self.servers.retain(|directory, server| {
            if server.seen < now {
                let (title, path) = (server.title(), directory.display());
                let what = if self.finder.hung().any(|hung| hung == directory) {
                    format!("the directory {path} of the {title} daemon does not answer")
                } else {
                    format!("the {title} daemon of {path} has ended")
                };
                server.problems = vec![format!(
                    "{what}; what it told of its projects and storage pools is served until it is too old"
                )];
            }
            let was_of_use = server.answer.is_some() && now.duration_since(server.seen) < MISSED;
            server.seen == now || was_of_use
        });
        let mut asked: Vec<_> = self.servers.iter_mut().filter(|(_, server)| server.seen == now).collect();
        if !asked.is_empty() {
            ask::all(roots, &mut asked, wanted);
        }
    }
}

impl Server {
    fn new(runtime: &'static str, now: Instant) -> Self {
        Self {
            runtime,
            answer: None,
            seen: now,
            backoff: Backoff::default(),
            failures: 0,
            pools: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// How people call it.
    fn title(&self) -> &'static str {
        if self.runtime == "incus" { "Incus" } else { "LXD" }
    }
}

impl State {
    fn figures(&self, wanted: Wanted, now: Instant) -> Vec<Runtime> {
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|(directory, _)| (rank(directory), *directory));
        let row = |(place, (directory, server)): (usize, &(&PathBuf, &Server))| {
            let (answer, told) = server.answer.as_ref()?;
            let age = now.saturating_duration_since(*told);
            (age < TOO_OLD).then(|| Runtime {
                runtime: server.runtime,
                server: (place > 0).then(|| directory.to_string_lossy().into_owned()),
                age,
                projects: if wanted.has(Part::Projects) { answer.projects.clone() } else { Vec::new() },
                pools: if wanted.has(Part::StoragePools) { answer.pools.clone() } else { Vec::new() },
            })
        };
        servers.iter().enumerate().filter_map(row).collect()
    }

    fn warnings(&self) -> Vec<Warning> {
        let of_servers = self.servers.values().flat_map(|server| &server.problems);
        let warning = |message: &String| Warning {
            kind: WarningKind::SourceSilent,
            instance: None,
            message: message.clone(),
        };
        of_servers.chain(&self.problem).map(warning).collect()
    }
}

/// The place of a state directory among others.
fn rank(directory: &Path) -> usize {
    DEFAULTS.iter().position(|default| directory == Path::new(default)).unwrap_or(DEFAULTS.len())
}

/// Whether what this user does is as good as the administrator's: root, and the user that this process runs as.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || rustix::process::geteuid().as_raw() == uid
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

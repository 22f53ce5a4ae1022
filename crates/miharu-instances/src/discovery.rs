//! A scan of the host: cgroup names, drivers, and what was known before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use miharu_linux::cgroup::Hierarchies;
use miharu_linux::exits::{Exits, Watched};
use miharu_linux::process::ProcDir;
use miharu_linux::read::Buffer;
use miharu_linux::{Result, Roots};

use crate::driver::{Claim, Driver, Host, Renamed, Unidentified, is_trusted};
use crate::failures::Failures;
use crate::walk::{Claimed, News, Walk};
use crate::{Identity, Instance, tree};

/// The most warnings of one scan; nobody reads more.
const MAX_WARNINGS: usize = 100;

/// The most of them about one user's processes, of which there can be any number.
const MAX_OF_A_USER: usize = 8;

/// How long one scan spends on cgroups that were nobody's several times before.
const SECOND_LOOKS: Duration = Duration::from_millis(50);

/// How long one scan waits for the names of containers that it has found for the first time. Unit tests run on machines that are busy for
/// longer, and in none does a name never come.
const NAMES: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 100 });

/// Finds the instances of a host, again and again.
pub struct Discovery {
    roots: Roots,
    drivers: Vec<Box<dyn Driver>>,
    walk: Walk,
    exits: Exits,
    /// What each claimed cgroup turned out to be.
    known: BTreeMap<PathBuf, Known>,
    failed: Failures,
    /// Counts scans.
    number: u64,
    last_token: u64,
    buffer: Buffer,
}

/// What one scan found.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// The running instances by project and name, each once in its kind.
    pub instances: Vec<Arc<Instance>>,
    /// What a person should know of, as it is now.
    pub warnings: Vec<Warning>,
}

/// Something that keeps an instance from being served, and that a person can do something about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Two instances have one name; the older is served.
    #[error(
        "two instances are called {name} in project {project}: the older, with process {kept}, is served, \
         the one with process {left_out} is not"
    )]
    Duplicate {
        /// Their project.
        project: String,
        /// Their name.
        name: String,
        /// The init of the one that is served.
        kept: u32,
        /// The init of the other.
        left_out: u32,
    },
    /// A process says that it runs an instance, and cannot be believed.
    #[error("{} is not served: process {pid} {why}", cgroup.display())]
    Doubtful {
        /// The cgroup.
        cgroup: PathBuf,
        /// The process.
        pid: u32,
        /// Whose it is.
        uid: u32,
        /// What is wrong with it, to be read after its number.
        why: String,
    },
    /// A file could not be read.
    #[error("{what} is not served: {problem}")]
    Unreadable {
        /// The cgroup or process it is about.
        what: String,
        /// The error, with the file's path.
        problem: String,
    },
    /// A process of a user's that looks like a machine.
    #[error("{what} is not served: {problem}")]
    Refused {
        /// The user.
        uid: u32,
        /// What it looks like.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There are more warnings than are told.
    #[error("{0} more warnings about what is not served are left out")]
    LeftOut(usize),
    /// A directory of cgroups could not be listed.
    #[error("{} cannot be listed: {problem}; instances that were started in it since are not served", directory.display())]
    Unlisted {
        /// The directory.
        directory: PathBuf,
        /// What the kernel says.
        problem: String,
    },
    /// A container is served under its id.
    #[error(
        "{runtime} container {name} in project {project} is served under its id, as its name could not be learned: {why}"
    )]
    Unnamed {
        /// What runs it.
        runtime: &'static str,
        /// The project that it is served in.
        project: String,
        /// The first digits of its id.
        name: String,
        /// What went wrong.
        why: String,
    },
    /// There are more cgroups than are looked at.
    #[error("there are too many cgroups on this host to look at all of them; some instances are not served")]
    TooManyCgroups,
}

/// The instance of a claimed cgroup, as long as neither the directory nor its first process changes.
pub(crate) struct Known {
    inode: u64,
    instance: Arc<Instance>,
    /// Tells the end of its first process under this number; nothing where that has to be looked at.
    exit: Option<(u64, Watched)>,
}

impl Discovery {
    /// A discovery by these drivers on the host behind `roots`.
    #[must_use]
    pub fn new(roots: Roots, drivers: Vec<Box<dyn Driver>>) -> Self {
        Self {
            walk: Walk::default(),
            exits: Exits::new(&roots),
            roots,
            drivers,
            known: BTreeMap::new(),
            failed: Failures::default(),
            number: 0,
            last_token: 0,
            buffer: Buffer::new(),
        }
    }

    /// Finds who runs now. On a host where nothing has changed this looks at no instance: the kernel tells what has.
    ///
    /// # Errors
    /// Where no cgroup hierarchy is mounted.
    pub fn scan(&mut self) -> Result<Scan> {
        let hierarchies = Hierarchies::find(&self.roots)?;
        let mut warnings = Vec::new();
        for (place, driver) in self.drivers.iter_mut().enumerate() {
            if let Some(places) = driver.places(&self.roots, &mut self.buffer) {
                self.walk.place(place, &places);
            }
        }
        let news = self.walk.look(&hierarchies, &self.drivers, &mut warnings);
        self.drop_ended(news);
        let mut host = Host {
            roots: &self.roots,
            hierarchies: &hierarchies,
            buffer: &mut self.buffer,
            warnings: &mut warnings,
        };
        self.number += 1;
        let end = Instant::now() + SECOND_LOOKS;
        let mut above = Vec::new();
        let mut looks = self.failed.in_order(self.walk.claims(), &self.known);
        for wait in [true, false] {
            let mut asked = Vec::new();
            for (path, claimed) in looks {
                if self.failed.is_old(path) && Instant::now() >= end {
                    continue;
                }
                let warned = host.warnings.len();
                match identify(&mut self.drivers, &mut host, claimed) {
                    Identified::As(instance) => {
                        self.failed.forget(path);
                        self.last_token += 1;
                        let token = self.last_token;
                        let exit = self.exits.watch(&instance.init, token).map(|watched| (token, watched));
                        self.known.insert(path.clone(), Known { inode: claimed.0.inode, instance, exit });
                    }
                    Identified::Asked => asked.push((path, claimed)),
                    Identified::Nobody => {
                        if is_above_others(&self.drivers, claimed, host.buffer) {
                            above.push(path.clone());
                        }
                        let warnings = host.warnings.split_off(warned);
                        self.failed.note(path.clone(), claimed.0.inode, self.number, warnings);
                    }
                }
            }
            if asked.is_empty() || !wait {
                break;
            }
            let end = Instant::now() + NAMES;
            self.drivers.iter_mut().for_each(|driver| driver.wait_for_names(end));
            looks = asked;
        }
        above.into_iter().for_each(|path| self.walk.open(path));
        host.warnings.extend(self.failed.warnings());
        for driver in &mut self.drivers {
            let renamed = driver.renamed(host.warnings);
            call_otherwise(&mut self.known, renamed);
        }
        let mut instances: Vec<Arc<Instance>> =
            self.known.values().map(|known| Arc::clone(&known.instance)).collect();
        for driver in &mut self.drivers {
            let more = driver.without_cgroup(&mut host, &instances);
            instances.extend(more);
        }
        leave_out_duplicates(&mut instances, &mut warnings);
        Ok(Scan { instances, warnings: most_worth(warnings) })
    }

    /// Forgets the instances whose first process or cgroup is gone.
    fn drop_ended(&mut self, news: News) {
        let ended: HashSet<u64> = self.exits.ended().collect();
        let claims = self.walk.claims();
        let buffer = &mut self.buffer;
        self.known.retain(|path, known| {
            let runs = match &known.exit {
                Some((token, _)) => !ended.contains(token),
                None => is_running(&known.instance.init, buffer),
            };
            let is_claimed = || claims.get(path).is_some_and(|(claim, _)| claim.inode == known.inode);
            runs && (news == News::None || is_claimed())
        });
    }
}

/// Gives instances their new names.
fn call_otherwise(known: &mut BTreeMap<PathBuf, Known>, renamed: Vec<Renamed>) {
    for Renamed { incarnation, identity } in renamed {
        let Some(known) = known.values_mut().find(|known| known.instance.incarnation == incarnation) else {
            continue;
        };
        let Identity { project, name, image, is_sandbox } = identity;
        let before = Instance::clone(&known.instance);
        known.instance = Arc::new(Instance { project, name, image, is_sandbox, ..before });
    }
}

/// Whether a claimed cgroup without a process of its own has others in it that another driver claims by their names: podman
/// calls a pod's cgroup as Docker calls a container's.
fn is_above_others(drivers: &[Box<dyn Driver>], claimed: &Claimed, buffer: &mut Buffer) -> bool {
    let (claim, claimants) = claimed;
    let Some(directory) = claim.directories.first() else { return false };
    let others = || drivers.iter().enumerate().filter(|(place, _)| !claimants.contains(place));
    let name = claim.path.file_name().unwrap_or_default();
    let is_others = |child: &OsStr| others().any(|(_, driver)| driver.claims(child, name));
    let children = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut children = children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    children.any(|entry| is_others(&entry.file_name())) && tree::pids_in(directory, buffer).is_empty()
}

/// What became of a look at a claimed cgroup.
enum Identified {
    As(Arc<Instance>),
    /// One whose name is not known yet.
    Asked,
    Nobody,
}

/// Asks the drivers that claim a cgroup, in their order.
fn identify(drivers: &mut [Box<dyn Driver>], host: &mut Host<'_>, claimed: &Claimed) -> Identified {
    let (claim, claimants) = claimed;
    let warned = host.warnings.len();
    for place in claimants {
        let Some(driver) = drivers.get_mut(*place) else { continue };
        match driver.identify(host, claim) {
            Ok(instance) => return Identified::As(Arc::new(instance)),
            Err(Unidentified::Asked) => return Identified::Asked,
            Err(Unidentified::Nothing) => {}
            // Two drivers may say the same.
            Err(Unidentified::Doubtful(warning)) => {
                if !host.warnings.iter().skip(warned).any(|other| *other == warning) {
                    host.warnings.push(warning);
                }
            }
            Err(Unidentified::Unreadable(error)) => host.warnings.push(unreadable(&claim.path, &error)),
        }
    }
    Identified::Nobody
}

fn unreadable(cgroup: &Path, error: &miharu_linux::Error) -> Warning {
    Warning::Unreadable { what: cgroup.display().to_string(), problem: error.to_string() }
}

/// Whether the first process is still there. The open directory answers for that very process alone.
pub(crate) fn is_running(init: &ProcDir, buffer: &mut Buffer) -> bool {
    match init.stat(buffer) {
        Ok(stat) => tree::is_alive(&stat),
        // Any other error, such as that no descriptor is left, says nothing of the process.
        Err(error) => !error.is_gone(),
    }
}

/// Sorts by project and name, and keeps the oldest of those that are called the same.
fn leave_out_duplicates(instances: &mut Vec<Arc<Instance>>, warnings: &mut Vec<Warning>) {
    instances.sort_by(|a, b| {
        let key = |i: &Instance| (i.incarnation.init_start, i.incarnation.init_pid);
        (&a.project, &a.name, a.kind).cmp(&(&b.project, &b.name, b.kind)).then_with(|| key(a).cmp(&key(b)))
    });
    instances.dedup_by(|later, first| {
        let is_same = (&later.project, &later.name, later.kind) == (&first.project, &first.name, first.kind);
        // The same process found twice, by two claims, is nothing to warn of.
        if is_same && later.init.pid() != first.init.pid() {
            warnings.push(Warning::Duplicate {
                project: first.project.clone(),
                name: first.name.clone(),
                kept: first.init.pid(),
                left_out: later.init.pid(),
            });
        }
        is_same
    });
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discovery").field("roots", &self.roots).field("known", &self.known.len()).finish()
    }
}

/// The warnings that are told: what users' processes look like comes last, and of each user a little.
fn most_worth(warnings: Vec<Warning>) -> Vec<Warning> {
    let all = warnings.len();
    let user = |warning: &Warning| match warning {
        Warning::Doubtful { uid, .. } | Warning::Refused { uid, .. } if !is_trusted(*uid) => Some(*uid),
        _ => None,
    };
    let (mut last, mut told): (Vec<_>, Vec<_>) =
        warnings.into_iter().partition(|warning| user(warning).is_some());
    let mut of_users: HashMap<Option<u32>, usize> = HashMap::new();
    last.retain(|warning| {
        let of_this = of_users.entry(user(warning)).or_default();
        *of_this += 1;
        *of_this <= MAX_OF_A_USER
    });
    told.append(&mut last);
    told.truncate(MAX_WARNINGS);
    if told.len() < all {
        told.push(Warning::LeftOut(all - told.len()));
    }
    told
}

/// A warning about a user's process that is called as the one that runs the claim's instance.
pub(crate) fn disguised(claim: &Claim, pid: u32, uid: u32, called: &str) -> Unidentified {
    doubtful(claim, pid, uid, format!("of user {uid} calls itself {called}, and only root's is believed"))
}

/// A warning about a claim's process, which is user `uid`'s.
pub(crate) fn doubtful(claim: &Claim, pid: u32, uid: u32, why: impl Into<String>) -> Unidentified {
    Unidentified::Doubtful(Warning::Doubtful { cgroup: claim.path.clone(), pid, uid, why: why.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_keeps_others_warnings_from_being_told() {
        let doubtful = |uid: u32, pid: u32| Warning::Doubtful {
            cgroup: format!("lxc.payload.{pid}").into(),
            pid,
            uid,
            why: String::new(),
        };
        let own = rustix::process::geteuid().as_raw();
        let (ann, bob) = (own + 4242, own + 4243);
        let mut warnings: Vec<_> = (0..200).map(|pid| doubtful(ann, pid)).collect();
        warnings.extend([doubtful(bob, 300), Warning::TooManyCgroups, doubtful(own, 400)]);
        let told = most_worth(warnings);
        assert_eq!(told[..2], [Warning::TooManyCgroups, doubtful(own, 400)]);
        assert_eq!(told[2..10], (0..8).map(|pid| doubtful(ann, pid)).collect::<Vec<_>>());
        assert_eq!(told[10..], [doubtful(bob, 300), Warning::LeftOut(192)]);
        let refused =
            |user: u32| Warning::Refused { uid: own + user, what: user.to_string(), problem: String::new() };
        let mut many: Vec<_> = (1..=200).map(refused).collect();
        many.push(Warning::TooManyCgroups);
        let told = most_worth(many);
        assert_eq!((told.len(), &told[0]), (MAX_WARNINGS + 1, &Warning::TooManyCgroups));
        assert_eq!(told.last(), Some(&Warning::LeftOut(101)));
        assert_eq!(most_worth(vec![refused(1)]), [refused(1)]);
    }
}

//! From a cgroup to the process that began it, by way of parents.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use miharu_linux::Roots;
use miharu_linux::cgroup::CgroupPaths;
use miharu_linux::process::{Memberships, ProcDir, Stat};
use miharu_linux::read::{Buffer, lines, number};

/// The most processes of one cgroup that are looked at; an instance's init is among the first, unless somebody hides it.
const MAX_PIDS: usize = 256;

/// The most cgroups below a claimed one in which processes are looked for.
const MAX_DIRECTORIES: usize = 256;

/// The most parents that are followed from one process.
const MAX_CLIMB: usize = 256;

/// The processes of a cgroup and of those below it, at most [`MAX_PIDS`] of them. With systemd inside, all are below.
pub(crate) fn pids_below(directory: &Path, buffer: &mut Buffer) -> Vec<u32> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    let mut visited = 0;
    while let Some(directory) = waiting.pop() {
        visited += 1;
        if found.len() >= MAX_PIDS || visited > MAX_DIRECTORIES {
            break;
        }
        found.extend(pids_in(&directory, buffer));
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let start = waiting.len();
        waiting.extend(below.take(MAX_DIRECTORIES).map(|entry| entry.path()));
        // init.scope, where systemd keeps itself, is visited first.
        if let Some(rest) = waiting.get_mut(start..) {
            rest.sort_by_key(|path| path.file_name().is_some_and(|name| name == "init.scope"));
        }
    }
    found.truncate(MAX_PIDS);
    found
}

/// The processes of one cgroup. One that has no number in this pid namespace shows as 0 and is left out.
pub(crate) fn pids_in(directory: &Path, buffer: &mut Buffer) -> Vec<u32> {
    let Ok(text) = buffer.read(&directory.join("cgroup.procs")) else { return Vec::new() };
    let pids = lines(text).filter_map(number).filter_map(|pid| u32::try_from(pid).ok());
    pids.filter(|pid| *pid != 0).take(MAX_PIDS).collect()
}

/// A process whose parent is not in the cgroup that it is in.
#[derive(Debug)]
pub(crate) struct Top {
    pub(crate) process: ProcDir,
    pub(crate) stat: Stat,
    pub(crate) memberships: Memberships,
}

/// Climbs from one of a cgroup's processes to the one that came into the cgroup from outside.
#[derive(Debug)]
pub(crate) struct Climber<'c> {
    roots: &'c Roots,
    path: &'c Path,
    seen: HashSet<u32>,
}

impl<'c> Climber<'c> {
    /// For the cgroup at `path`.
    pub(crate) fn new(roots: &'c Roots, path: &'c Path) -> Self {
        Self { roots, path, seen: HashSet::new() }
    }

    /// The top of the tree that `pid` is in; `None` where an earlier climb came along here, or something has gone.
    pub(crate) fn climb(&mut self, pid: u32, buffer: &mut Buffer) -> Option<Top> {
        let mut top = self.step(pid, buffer)?;
        for _ in 0..MAX_CLIMB {
            if top.stat.ppid == 0 || !self.is_inside(top.stat.ppid, buffer) {
                return Some(top);
            }
            top = self.step(top.stat.ppid, buffer)?;
        }
        None
    }

    /// As [`Climber::climb`], but to the child of `parent`, which may be in the cgroup itself.
    pub(crate) fn climb_to_child_of(&mut self, pid: u32, parent: u32, buffer: &mut Buffer) -> Option<Top> {
        let mut top = self.step(pid, buffer)?;
        for _ in 0..MAX_CLIMB {
            if top.stat.ppid == parent {
                return Some(top);
            }
            top = self.step(top.stat.ppid, buffer)?;
        }
        None
    }

    fn step(&mut self, pid: u32, buffer: &mut Buffer) -> Option<Top> {
        if !self.seen.insert(pid) {
            return None;
        }
        let process = ProcDir::open(self.roots, pid).ok()?;
        let stat = process.stat(buffer).ok().filter(is_alive)?;
        let memberships = process.memberships(buffer).ok()?;
        is_member(&memberships, self.path).then_some(Top { process, stat, memberships })
    }

    fn is_inside(&self, pid: u32, buffer: &mut Buffer) -> bool {
        ProcDir::open(self.roots, pid).and_then(|parent| parent.is_in(self.path, buffer)).unwrap_or(false)
    }
}

/// Whether `pid` is `ancestor` or comes from it.
pub(crate) fn descends(roots: &Roots, pid: u32, ancestor: u32, buffer: &mut Buffer) -> bool {
    let mut pid = pid;
    for _ in 0..MAX_CLIMB {
        if pid == ancestor {
            return true;
        }
        match ProcDir::open(roots, pid).and_then(|process| process.stat(buffer)) {
            Ok(stat) if stat.ppid != 0 => pid = stat.ppid,
            _ => return false,
        }
    }
    false
}

/// Whether a process is in the cgroup at `path`, or below it, in any hierarchy.
pub(crate) fn is_member(memberships: &Memberships, path: &Path) -> bool {
    memberships.unified.iter().chain(memberships.v1.values()).any(|place| place.starts_with(path))
}

/// Neither a zombie nor dead.
pub(crate) fn is_alive(stat: &Stat) -> bool {
    stat.is_alive()
}

/// An instance's cgroup in each hierarchy: `own` finds it in its init's; a hierarchy for which it gives nothing is left
/// out.
pub(crate) fn cgroup_paths(
    memberships: &Memberships,
    own: impl Fn(&str, &Path) -> Option<PathBuf>,
) -> CgroupPaths {
    let not_root = |path: PathBuf| Some(path).filter(|path| path != Path::new(""));
    let unified = memberships.unified.as_deref().and_then(|path| own("", path)).and_then(not_root);
    let v1 = memberships
        .v1
        .iter()
        .filter_map(|(controller, path)| Some((controller.clone(), not_root(own(controller, path)?)?)))
        .collect();
    CgroupPaths { unified, v1 }
}

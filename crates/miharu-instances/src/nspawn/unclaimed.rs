//! Machines without a cgroup of their own.
//!
//! nspawn makes a directory for each machine under `/run/systemd/nspawn`. Only a name there that no machine found by its
//! cgroup explains makes miharu look through the process table, and what came of that is remembered.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use miharu_linux::Roots;
use miharu_linux::cgroup::CgroupPaths;
use miharu_linux::process::{ProcDir, pids};
use miharu_linux::read::Buffer;

use super::{SUPERVISOR, instance, machine};
use crate::Instance;
use crate::discovery::{Warning, is_running};
use crate::driver::Host;
use crate::supervisor::Supervisor;
use crate::tree::{self, Top};

/// Where nspawn leaves a machine's name.
const TRACES: &[&str] = &["systemd/nspawn/propagate", "systemd/nspawn/unix-export"];

/// The most names that are looked at.
const MAX_NAMES: usize = 4096;

/// The pause after a look that explained not every name, doubled each time: nspawn that was killed leaves its name behind.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest such pause.
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// What the last look through the process table found.
#[derive(Debug, Default)]
pub(super) struct Memory {
    found: Vec<Arc<Instance>>,
    /// The names that it did not explain.
    unexplained: BTreeSet<OsString>,
    next_look: Option<Instant>,
    pause: Duration,
}

impl Memory {
    /// The machines besides `found` that run.
    pub(super) fn scan(&mut self, host: &mut Host<'_>, found: &[Arc<Instance>]) -> Vec<Arc<Instance>> {
        self.found.retain(|instance| is_running(&instance.init, host.buffer));
        // One that has a claimed cgroup by now is in `found`.
        let is_found = |pid: u32| found.iter().any(|other| other.init.pid() == pid);
        self.found.retain(|instance| !is_found(instance.init.pid()));
        let known = |name: &OsString| {
            let is_name =
                |instance: &Arc<Instance>| instance.runtime == "nspawn" && name == instance.name.as_str();
            found.iter().chain(&self.found).any(is_name)
        };
        let unexplained: BTreeSet<OsString> =
            names(host.roots).into_iter().filter(|name| !known(name)).collect();
        if unexplained.is_empty() {
            self.unexplained.clear();
            return self.found.clone();
        }
        let now = Instant::now();
        let is_news = !unexplained.is_subset(&self.unexplained);
        if is_news || self.next_look.is_none_or(|next| now >= next) {
            self.look(host, &is_found);
            self.pause = if is_news { FIRST_PAUSE } else { (self.pause * 2).min(LAST_PAUSE) };
            self.next_look = Some(now + self.pause);
        }
        self.unexplained = unexplained;
        self.found.clone()
    }

    /// Looks through the process table once.
    fn look(&mut self, host: &mut Host<'_>, is_found: &dyn Fn(u32) -> bool) {
        let pids = match pids(host.roots) {
            Ok(pids) => pids,
            Err(error) => {
                let what = "systemd-nspawn without a cgroup of its own".to_owned();
                host.warnings.push(Warning::Unreadable { what, problem: error.to_string() });
                return;
            }
        };
        let mut supervisors = Vec::new();
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for pid in pids {
            let Ok(process) = ProcDir::open(host.roots, pid) else { continue };
            let Ok(stat) = process.stat(host.buffer) else { continue };
            children.entry(stat.ppid).or_default().push(pid);
            if let Some(Ok(supervisor)) = Supervisor::open(host.roots, pid, SUPERVISOR, host.buffer) {
                supervisors.push(supervisor);
            }
        }
        // All of them are looked at anew: a machine that was alone in its cgroup may have company now.
        self.found.clear();
        for supervisor in supervisors {
            let children = children.get(&supervisor.process.pid()).map(Vec::as_slice).unwrap_or_default();
            let Some(init) = init_among(host.roots, children, host.buffer) else { continue };
            if is_found(init.process.pid()) {
                continue;
            }
            if let Some(machine) = machine::name(host.roots, &supervisor.process, None, &init) {
                let cgroup = own_cgroups(host, &supervisor, &init);
                self.found.push(Arc::new(instance(machine, init, cgroup, 0)));
            }
        }
    }
}

/// The names of machines that nspawn has left.
fn names(roots: &Roots) -> BTreeSet<OsString> {
    let entries = TRACES.iter().filter_map(|trace| std::fs::read_dir(roots.run.join(trace)).ok()).flatten();
    entries.flatten().take(MAX_NAMES).map(|entry| entry.file_name()).collect()
}

/// The child that is the first process of a pid namespace.
fn init_among(roots: &Roots, children: &[u32], buffer: &mut Buffer) -> Option<Top> {
    children.iter().find_map(|pid| {
        let process = ProcDir::open(roots, *pid).ok()?;
        if process.pid_namespace_depth(buffer).ok()? < 2 {
            return None;
        }
        let stat = process.stat(buffer).ok().filter(tree::is_alive)?;
        let memberships = process.memberships(buffer).ok()?;
        Some(Top { process, stat, memberships })
    })
}

/// The cgroups of a machine that it shares with nobody but its supervisor: the `payload` that nspawn makes, or one in
/// which there is no other process. The figures of a shared one would be somebody else's.
fn own_cgroups(host: &mut Host<'_>, supervisor: &Supervisor, init: &Top) -> CgroupPaths {
    let (roots, hierarchies) = (host.roots, host.hierarchies);
    let above = supervisor.process.memberships(host.buffer).unwrap_or_default();
    let buffer = std::cell::RefCell::new(&mut *host.buffer);
    tree::cgroup_paths(&init.memberships, |controller, path| {
        let root = if controller.is_empty() { hierarchies.unified() } else { hierarchies.v1(controller) }?;
        let watched = if controller.is_empty() {
            above.unified.as_deref()
        } else {
            above.v1.get(controller).map(PathBuf::as_path)
        };
        let payload = watched
            .filter(|place| place.ends_with("supervisor"))
            .map(|place| place.with_file_name("payload"));
        let own = payload.filter(|payload| path.starts_with(payload)).unwrap_or_else(|| path.to_owned());
        // No machine is the root cgroup, so the host's processes need no look.
        let is_root = own == Path::new("");
        let mut buffer = buffer.borrow_mut();
        let (supervisor, init) = (supervisor.process.pid(), init.process.pid());
        (!is_root && is_own(roots, &root.join(&own), supervisor, init, &mut buffer)).then_some(own)
    })
}

/// Whether all processes of a cgroup are the machine's, or its supervisor. Two machines that one shell started share
/// even the `payload` that nspawn made.
fn is_own(roots: &Roots, directory: &Path, supervisor: u32, init: u32, buffer: &mut Buffer) -> bool {
    let pids = tree::pids_below(directory, buffer);
    !pids.is_empty()
        && pids.into_iter().all(|pid| pid == supervisor || tree::descends(roots, pid, init, buffer))
}

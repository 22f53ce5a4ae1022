//! What lasts from one collection of an instance to the next: open files, and what was made of files that have not changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use miharu_instances::{Incarnation, Instance};
use miharu_linux::cgroup;
use miharu_linux::kept::Budget;
use miharu_linux::mounts::{self, HostLines, HostMounts, LeftOut};
use miharu_linux::networks::Network;
use miharu_linux::process::ProcDir;
use miharu_linux::read::Buffer;

use crate::filesystems::Choice;

/// What is kept of one instance.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Whether it was read before.
    pub(crate) is_known: bool,
    /// How long that took the last time.
    pub(crate) took: Duration,
    pub(crate) cgroups: cgroup::Kept,
    pub(crate) network: Network,
    pub(crate) choice: Choice,
}

/// What is kept of all instances, each by its incarnation, so that nothing is taken over by another one.
#[derive(Debug)]
pub(crate) struct Instances {
    budget: Budget,
    /// Held for look-ups only.
    kept: Mutex<HashMap<Incarnation, Arc<Mutex<Kept>>>>,
}

impl Instances {
    /// Files that are kept count against `budget`.
    pub(crate) fn new(budget: Budget) -> Self {
        Self { budget, kept: Mutex::default() }
    }

    /// What is kept of each of these instances, in their order. What was kept of others is dropped.
    pub(crate) fn of(&self, instances: &[Arc<Instance>]) -> Vec<Arc<Mutex<Kept>>> {
        let mut kept = lock(&self.kept);
        let mut before = std::mem::take(&mut *kept);
        let mut all = Vec::with_capacity(instances.len());
        kept.reserve(instances.len());
        for instance in instances {
            let one = before.remove(&instance.incarnation).unwrap_or_else(|| {
                let cgroups = cgroup::Kept::new(self.budget.clone());
                Arc::new(Mutex::new(Kept { cgroups, ..Kept::default() }))
            });
            kept.insert(instance.incarnation, Arc::clone(&one));
            all.push(one);
        }
        all
    }

    /// Closes all files.
    pub(crate) fn clear(&self) {
        lock(&self.kept).clear();
    }
}

/// The host's mounts, parsed anew only when they have changed.
#[derive(Debug, Default)]
pub(crate) struct LastHostMounts {
    last: Mutex<(Vec<u8>, Arc<HostMounts>)>,
}

impl LastHostMounts {
    /// What the host's mountinfo says, and what of it is left out; the same `Arc` as long as it says the same.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(crate) fn read(
        &self,
        init: &ProcDir,
        buffer: &mut Buffer,
    ) -> miharu_linux::Result<(Arc<HostMounts>, Vec<LeftOut>)> {
        let mut lines = HostLines::default();
        let (text, extent) =
            init.read_lines(buffer, "mountinfo", mounts::MAX_HOST_TEXT, |line| lines.sort(line))?;
        let left_out = lines.left_out(extent);
        let mut last = lock(&self.last);
        if last.0 != text {
            *last = (text.to_owned(), Arc::new(HostMounts::parse(text)));
        }
        Ok((Arc::clone(&last.1), left_out))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

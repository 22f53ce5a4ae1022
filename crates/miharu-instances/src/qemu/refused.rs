//! Users' processes that call themselves QEMUs and run a program of anybody's: they are remembered, so that no scan asks for them again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::watch::Process;
use crate::discovery::Warning;

/// How long such a process is not asked again: it may become another program.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The processes, by number.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<u32, One>);

#[derive(Debug)]
struct One {
    /// When it started, ticks after boot.
    start: u64,
    since: Instant,
    warning: Warning,
}

impl Refused {
    /// Forgets those that have ended, or were refused long ago, and warns of the others.
    pub(super) fn look(&mut self, processes: &BTreeMap<u32, Process>, warnings: &mut Vec<Warning>) {
        self.0.retain(|pid, one| {
            let is_there = processes.get(pid).is_some_and(|process| process.start == one.start);
            is_there && one.since.elapsed() < REMEMBERED
        });
        self.0.values().for_each(|one| tell(warnings, &one.warning));
    }

    pub(super) fn contains(&self, pid: u32) -> bool {
        self.0.contains_key(&pid)
    }

    pub(super) fn add(&mut self, pid: u32, start: u64, warning: Warning) {
        self.0.insert(pid, One { start, since: Instant::now(), warning });
    }
}

/// Warns of a user's processes, one of each user's.
pub(super) fn tell(warnings: &mut Vec<Warning>, warning: &Warning) {
    let what = |warning: &Warning| match warning {
        Warning::Refused { what, .. } => Some(what.clone()),
        _ => None,
    };
    let of_this = what(warning);
    if !warnings.iter().any(|told| what(told) == of_this) {
        warnings.push(warning.clone());
    }
}

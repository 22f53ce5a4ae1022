//! Claimed cgroups that turned out to be nobody's.
//!
//! Users can make as many cgroups with an instance's name as they like, with nothing in them. One that was looked at in
//! vain several times is looked at again only in the time that is left, the one that waits longest first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::discovery::{Known, Warning};
use crate::walk::Claimed;

/// After so many looks in vain a cgroup has to wait: one is normal while an instance starts.
const OLD: u32 = 3;

/// The cgroups that gave no instance, by path.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    failures: BTreeMap<PathBuf, Failure>,
}

#[derive(Debug)]
struct Failure {
    inode: u64,
    times: u32,
    /// The number of the scan that looked last.
    scan: u64,
    warnings: Vec<Warning>,
}

impl Failures {
    /// The claims that are not known yet, in the order in which they are looked at: new ones first. What is not claimed
    /// any more is forgotten.
    pub(crate) fn in_order<'c>(
        &mut self,
        claims: &'c BTreeMap<PathBuf, Claimed>,
        known: &BTreeMap<PathBuf, Known>,
    ) -> Vec<(&'c PathBuf, &'c Claimed)> {
        self.failures
            .retain(|path, failure| claims.get(path).is_some_and(|(claim, _)| claim.inode == failure.inode));
        // What is known is claimed.
        if known.len() == claims.len() {
            return Vec::new();
        }
        let mut pending: Vec<_> = claims.iter().filter(|(path, _)| !known.contains_key(*path)).collect();
        pending.sort_by_key(|(path, _)| {
            (self.is_old(path), self.failures.get(*path).map(|failure| failure.scan))
        });
        pending
    }

    /// Whether this cgroup was looked at in vain several times.
    pub(crate) fn is_old(&self, path: &Path) -> bool {
        self.failures.get(path).is_some_and(|failure| failure.times >= OLD)
    }

    /// Notes a look in vain, and what there was to warn of.
    pub(crate) fn note(&mut self, path: PathBuf, inode: u64, scan: u64, warnings: Vec<Warning>) {
        let times = self.failures.get(&path).map_or(0, |failure| failure.times).saturating_add(1);
        self.failures.insert(path, Failure { inode, times, scan, warnings });
    }

    /// An instance was found there after all.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.failures.remove(path);
    }

    /// The warnings of the last look at each.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = Warning> {
        self.failures.values().flat_map(|failure| failure.warnings.iter().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Claim;

    fn claims(paths: &[&str]) -> BTreeMap<PathBuf, Claimed> {
        let claim = |path: &&str| Claim { path: path.into(), directories: Vec::new(), inode: 1 };
        paths.iter().map(|path| (PathBuf::from(path), (claim(path), vec![0]))).collect()
    }

    #[test]
    fn new_ones_come_before_those_that_were_seen_in_vain() {
        let mut failures = Failures::default();
        for scan in 0..3 {
            failures.note("a".into(), 1, scan, vec![Warning::TooManyCgroups]);
            failures.note("b".into(), 1, scan - scan.min(1), Vec::new());
        }
        failures.note("d".into(), 2, 9, Vec::new());
        let all = claims(&["a", "b", "c", "d"]);
        let order = failures.in_order(&all, &BTreeMap::new());
        let order: Vec<_> = order.iter().map(|(path, _)| path.to_str().unwrap()).collect();
        assert_eq!(order, ["c", "d", "b", "a"], "d is another cgroup than the one that failed");
        assert!(failures.is_old(Path::new("a")) && !failures.is_old(Path::new("d")));
        assert_eq!(failures.warnings().count(), 1);
        failures.in_order(&claims(&["b"]), &BTreeMap::new());
        assert_eq!(failures.warnings().count(), 0);
    }
}

//! The walk over the names of cgroups: no file is opened, and nothing below a claimed cgroup is looked at.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use miharu_linux::cgroup::Hierarchies;

use crate::discovery::Warning;
use crate::driver::{Claim, Driver};

/// The most cgroups that are visited. A host's users may make cgroups of their own, as many as they like.
const MAX_CGROUPS: usize = 100_000;

/// The most cgroups that are claimed.
const MAX_CLAIMS: usize = 20_000;

/// A claim and the drivers (by their place in the list) that made it.
pub(crate) type Claimed = (Claim, Vec<usize>);

/// All claimed cgroups, by their path.
pub(crate) fn claims(
    hierarchies: &Hierarchies,
    drivers: &[Box<dyn Driver>],
    warnings: &mut Vec<Warning>,
) -> BTreeMap<PathBuf, Claimed> {
    let mut claimed = BTreeMap::new();
    let mut visited = 0;
    for root in hierarchies.walk_roots() {
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            visited += 1;
            if visited > MAX_CGROUPS || claimed.len() > MAX_CLAIMS {
                warnings.push(Warning::TooManyCgroups);
                return claimed;
            }
            visit(root, &path, drivers, &mut claimed, &mut waiting);
        }
    }
    claimed
}

fn visit(
    root: &Path,
    path: &Path,
    drivers: &[Box<dyn Driver>],
    claimed: &mut BTreeMap<PathBuf, Claimed>,
    waiting: &mut Vec<PathBuf>,
) {
    let directory = root.join(path);
    // A cgroup that has just gone, or one that only its owner may list, has nothing to tell.
    let Ok(entries) = std::fs::read_dir(&directory) else { return };
    let parent = path.file_name().unwrap_or_default();
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        let claimants = claimants(drivers, &name, parent);
        if claimants.is_empty() {
            // A directory with two links has no other in it.
            if entry.metadata().is_ok_and(|metadata| metadata.nlink() != 2) {
                waiting.push(path.join(name));
            }
            continue;
        }
        let path = path.join(&name);
        let claim = Claim { path: path.clone(), directories: Vec::new(), inode: entry.ino() };
        let (claim, _) = claimed.entry(path).or_insert((claim, claimants));
        claim.directories.push(entry.path());
    }
}

fn claimants(drivers: &[Box<dyn Driver>], name: &OsStr, parent: &OsStr) -> Vec<usize> {
    drivers
        .iter()
        .enumerate()
        .filter(|(_, driver)| driver.claims(name, parent))
        .map(|(place, _)| place)
        .collect()
}

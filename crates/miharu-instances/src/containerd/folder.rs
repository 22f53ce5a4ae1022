//! A directory that is listed again only once something has come or gone in it.

use std::ffi::OsString;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The most names that are taken from one directory.
const MAX_NAMES: usize = 20_000;

/// A directory that changed less than this ago is listed once more: the clock of a file system stands still for some
/// milliseconds, in which more may come.
const TICK: Duration = Duration::from_secs(1);

/// What was listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Folder {
    /// Inode and time of change; nothing where it has to be listed in any case.
    stamp: Option<(u64, SystemTime)>,
}

impl Folder {
    /// The names in it and their inode numbers, if they may be others than the last time; none where it is gone or cannot be
    /// seen.
    pub(super) fn look(&mut self, path: &Path) -> Option<Vec<(OsString, u64)>> {
        let before = self.stamp.take();
        let Ok(stamp) = std::fs::metadata(path).and_then(|found| Ok((found.ino(), found.modified()?))) else {
            return Some(Vec::new());
        };
        if Some(stamp) == before {
            self.stamp = before;
            return None;
        }
        let is_settled = |(_, changed): &(u64, SystemTime)| changed.elapsed().is_ok_and(|age| age >= TICK);
        self.stamp = Some(stamp).filter(is_settled);
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten().take(MAX_NAMES);
        Some(entries.map(|entry| (entry.file_name(), entry.ino())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_listed_when_it_has_changed() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("s");
        let mut folder = Folder::default();
        assert!(folder.look(&path).unwrap().is_empty(), "there is none");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("a"), "").unwrap();
        assert_eq!(folder.look(&path).unwrap().len(), 1);
        assert_eq!(folder.look(&path).unwrap().len(), 1, "it has only just changed");
        let old = SystemTime::now() - Duration::from_secs(60);
        std::fs::File::open(&path).unwrap().set_modified(old).unwrap();
        assert_eq!(folder.look(&path).unwrap().len(), 1);
        assert_eq!(folder.look(&path), None);
        std::fs::write(path.join("b"), "").unwrap();
        assert_eq!(folder.look(&path).unwrap().len(), 2);
        std::fs::remove_dir_all(&path).unwrap();
        assert!(folder.look(&path).unwrap().is_empty());
    }
}

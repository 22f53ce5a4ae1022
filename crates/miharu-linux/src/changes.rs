//! Which directories have gained or lost a directory, told by the kernel instead of found by listing them: inotify(7).
//!
//! cgroups are made with mkdir(2) and removed with rmdir(2), by whoever, so a watched directory of a hierarchy says when
//! it has to be listed again. What is done through another mount of the hierarchy in another cgroup namespace is not told,
//! so a caller lists everything anew now and then.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Watched directories.
#[derive(Debug)]
pub struct Changes {
    /// Nothing where the kernel gives none: the user has too many already (`fs.inotify.max_user_instances`).
    inotify: Option<OwnedFd>,
}

/// A watched directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(i32);

/// What has happened since the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Directories came to this one or went from it.
    In(WatchId),
    /// This directory is gone, and is not watched any more.
    Gone(WatchId),
    /// More has happened than the kernel noted: everything may have changed.
    Everything,
}

impl Changes {
    /// Nothing watched yet.
    #[must_use]
    pub fn new() -> Self {
        Self { inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok() }
    }

    /// What a kernel without a watch to give makes: nothing can be watched.
    #[must_use]
    pub fn none() -> Self {
        Self { inotify: None }
    }

    /// Watches a directory from now on, so it is to be listed after this; nothing where that cannot be
    /// (`fs.inotify.max_user_watches` is used up, or it is gone).
    #[must_use]
    pub fn watch(&self, directory: &Path) -> Option<WatchId> {
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        inotify::add_watch(self.inotify.as_ref()?, directory, flags).ok().map(WatchId)
    }

    /// Ends a watch.
    pub fn forget(&self, id: WatchId) {
        if let Some(inotify) = &self.inotify {
            // One that has ended by itself is no error.
            let _ = inotify::remove_watch(inotify, id.0);
        }
    }

    /// Tells what has happened since the last time, oldest first.
    pub fn drain(&self, mut tell: impl FnMut(Change)) {
        let Some(inotify) = &self.inotify else { return };
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(inotify.as_fd(), &mut space);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Err(_) => return tell(Change::Everything),
            };
            let (id, what) = (WatchId(event.wd()), event.events());
            if what.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT) {
                tell(Change::Everything);
            } else if what.intersects(ReadFlags::IGNORED) {
                tell(Change::Gone(id));
            } else if what.intersects(ReadFlags::ISDIR | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                tell(Change::In(id));
            }
        }
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(changes: &Changes) -> Vec<Change> {
        let mut all = Vec::new();
        changes.drain(|change| all.push(change));
        all
    }

    #[test]
    fn directories_that_come_and_go_are_told_and_files_are_not() {
        let base = tempfile::tempdir().unwrap();
        let changes = Changes::new();
        let top = changes.watch(base.path()).unwrap();
        let inner = base.path().join("a");
        std::fs::create_dir(&inner).unwrap();
        assert_eq!(drained(&changes), [Change::In(top)]);
        std::fs::write(base.path().join("file"), "").unwrap();
        assert_eq!(drained(&changes), []);
        let below = changes.watch(&inner).unwrap();
        assert_eq!(changes.watch(&inner), Some(below), "twice is once");
        std::fs::remove_dir(&inner).unwrap();
        let told = drained(&changes);
        assert!(told.contains(&Change::In(top)) && told.contains(&Change::Gone(below)), "{told:?}");
        changes.forget(top);
        assert_eq!(drained(&changes), [Change::Gone(top)]);
        assert_eq!(changes.watch(&base.path().join("no such")), None);
    }
}

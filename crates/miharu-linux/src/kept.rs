//! Files that stay open from one reading to the next, within a budget of descriptors.
//!
//! `pread` of an open control file costs a sixth of opening, reading and closing it. But a kept file takes a descriptor and
//! about 4.5 kB of the kernel's memory (`seq_file`'s buffer), so how many are kept is counted. What is beyond the budget
//! is opened each time.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many files may be kept open, and how many are. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    count: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    limit: AtomicUsize,
    used: AtomicUsize,
    /// What the files and the hierarchies are called that they are in: the same for every instance, so it is held once.
    names: Mutex<BTreeSet<Arc<OsStr>>>,
}

impl Budget {
    /// A budget of so many files; with 0 nothing is kept.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let budget = Self::default();
        budget.set_limit(limit);
        budget
    }

    /// Changes the limit. Files over it stay open until their holders drop them.
    pub fn set_limit(&self, limit: usize) {
        self.count.limit.store(limit, Ordering::Relaxed);
    }

    /// How many files may be kept.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.count.limit.load(Ordering::Relaxed)
    }

    /// How many files are kept.
    #[must_use]
    pub fn used(&self) -> usize {
        self.count.used.load(Ordering::Relaxed)
    }

    /// This name, held in common with all who have asked for it. Only names that do not depend on instances belong here.
    pub(crate) fn name(&self, name: &OsStr) -> Arc<OsStr> {
        let mut names = self.count.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Arc::clone(known);
        }
        let name = Arc::from(name);
        names.insert(Arc::clone(&name));
        name
    }

    /// Keeps a file, or gives it back where the budget is used up.
    pub(crate) fn keep(&self, file: OwnedFd) -> Result<KeptFile, OwnedFd> {
        let limit = self.limit();
        let taken = self
            .count
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < limit).then_some(used + 1));
        match taken {
            Ok(_) => Ok(KeptFile { file, count: Arc::clone(&self.count) }),
            Err(_) => Err(file),
        }
    }
}

/// An open file that counts against a [`Budget`] until it is dropped.
#[derive(Debug)]
pub(crate) struct KeptFile {
    file: OwnedFd,
    count: Arc<Count>,
}

impl AsFd for KeptFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        self.count.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_file_makes_room_and_a_lower_limit_keeps_no_more() {
        let open = || OwnedFd::from(tempfile::tempfile().unwrap());
        let budget = Budget::new(2);
        let first = budget.keep(open()).unwrap();
        let second = budget.clone().keep(open()).unwrap();
        assert!(budget.keep(open()).is_err());
        drop(first);
        assert_eq!(budget.used(), 1);
        budget.set_limit(1);
        assert!(budget.keep(open()).is_err());
        drop(second);
        assert!(budget.keep(open()).is_ok());
        assert!(Budget::default().keep(open()).is_err());
    }

    #[test]
    fn who_asks_for_the_same_name_gets_the_same() {
        let budget = Budget::new(0);
        let name = budget.name(OsStr::new("cpu.stat"));
        assert!(Arc::ptr_eq(&name, &budget.clone().name(OsStr::new("cpu.stat"))));
        assert_eq!(budget.name(OsStr::new("memory.stat")).as_ref(), "memory.stat");
    }
}

//! The interface counters of instances, in files that stay open while the instances run.
//!
//! An open `/proc/PID/net/dev` keeps the network namespace alive, with its interfaces, so one is kept only beside a pidfd
//! that a thread watches, and closed the moment the process ends, scrape or not.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::Result;
use crate::exits::{Exits, Waker, Watched};
use crate::kept::{Budget, KeptFile};
use crate::process::{Interface, ProcDir, parse_net_dev};
use crate::read::{Buffer, Ends};
use crate::roots::Roots;

/// After so many readings of a kept file it is made sure that the process is still in that namespace.
const AGAIN: u8 = 8;

/// The longest line of `net/dev`: a name of 15 bytes and 16 numbers of up to 20 digits with a blank each.
const LONGEST_LINE: usize = 16 + 16 * 21;

/// A token that no file has.
const STOP: u64 = u64::MAX;

/// Keeps files of network namespaces.
#[derive(Debug)]
pub struct Networks {
    roots: Roots,
    budget: Budget,
    /// Started when the first file is kept; nothing where ends of processes cannot be watched.
    watch: OnceLock<Option<Watch>>,
}

/// An instance's network namespace between two readings.
#[derive(Debug, Default)]
pub struct Network {
    /// As of [`ProcDir::network`].
    inode: Option<u64>,
    kept: Option<Handle>,
    readings: u8,
}

/// What a network namespace told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// A number for the namespace, as of [`ProcDir::network`].
    pub inode: u64,
    /// Its interfaces; none where it is the host's own, or where nobody knows which is.
    pub interfaces: Vec<Interface>,
}

impl Network {
    /// Whether the end of the process is watched since the last reading.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether the process has not ended; nothing where that was not watched since the last reading.
    #[must_use]
    pub fn is_running(&self) -> Option<bool> {
        self.kept.as_ref().map(|kept| kept.watched.is_running())
    }
}

impl Networks {
    /// Files of processes behind `roots`, kept within `budget`.
    #[must_use]
    pub fn new(roots: Roots, budget: Budget) -> Self {
        Self { roots, budget, watch: OnceLock::new() }
    }

    /// Reads the namespace of an instance whose first process is `init`. `host` is the number of the host's own, whose
    /// interfaces are nobody's.
    ///
    /// # Errors
    /// As [`ProcDir::read`].
    pub fn read(
        &self,
        init: &ProcDir,
        network: &mut Network,
        host: Option<u64>,
        buffer: &mut Buffer,
    ) -> Result<Seen> {
        network.readings = network.readings.wrapping_add(1);
        let is_due = network.readings >= AGAIN;
        let (inode, changed) = match network.inode {
            Some(inode) if !is_due && network.kept.is_some() => (inode, false),
            before => {
                network.readings = 0;
                let inode = init.network()?;
                (inode, before != Some(inode))
            }
        };
        network.inode = Some(inode);
        if changed {
            network.kept = None;
        }
        if host.is_none_or(|host| host == inode) {
            network.kept = None;
            return Ok(Seen { inode, interfaces: Vec::new() });
        }
        if let Some(interfaces) = network.kept.as_ref().and_then(|kept| kept.read(buffer)) {
            return Ok(Seen { inode, interfaces });
        }
        network.kept = self.keep(init, inode);
        if let Some(interfaces) = network.kept.as_ref().and_then(|kept| kept.read(buffer)) {
            return Ok(Seen { inode, interfaces });
        }
        Ok(Seen { inode, interfaces: init.net_dev(buffer)? })
    }

    /// Opens the file to keep it; nothing where the budget is used up or the process' end cannot be watched.
    fn keep(&self, init: &ProcDir, inode: u64) -> Option<Handle> {
        if self.budget.used() >= self.budget.limit() {
            return None;
        }
        self.watch.get_or_init(|| Watch::start(&self.roots)).as_ref()?.keep(init, inode, &self.budget)
    }
}

/// An instance's kept file, forgotten by the thread as well when it is dropped.
#[derive(Debug)]
struct Handle {
    file: Slot,
    watched: Watched,
    token: u64,
    shared: Arc<Shared>,
}

/// Where the file is until the process ends. Held for one read of it, which waits for nobody.
type Slot = Arc<Mutex<Option<KeptFile>>>;

impl Handle {
    /// Nothing once the process has ended.
    fn read(&self, buffer: &mut Buffer) -> Option<Vec<Interface>> {
        let slot = lock(&self.file);
        let ends = Ends::InLines { longest: LONGEST_LINE };
        buffer.reread(slot.as_ref()?.as_fd(), ends).ok().map(parse_net_dev)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let kept = lock(&self.shared.kept).remove(&self.token);
        drop(kept);
    }
}

/// The thread that closes files.
#[derive(Debug)]
struct Watch {
    exits: Exits,
    shared: Arc<Shared>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Shared {
    /// Held for a look-up, never across a system call that waits.
    kept: Mutex<HashMap<u64, Slot>>,
    last_token: Mutex<u64>,
}

impl Watch {
    fn start(roots: &Roots) -> Option<Self> {
        let exits = Exits::new(roots);
        let waker = exits.waker(STOP)?;
        let shared = Arc::new(Shared::default());
        let (mut of_thread, shared_with_thread) = (exits.try_clone()?, Arc::clone(&shared));
        let run = move || close_ended(&mut of_thread, &shared_with_thread);
        std::thread::Builder::new().name("exits".to_owned()).stack_size(64 << 10).spawn(run).ok()?;
        Some(Self { exits, shared, waker })
    }

    fn keep(&self, init: &ProcDir, inode: u64, budget: &Budget) -> Option<Handle> {
        let token = {
            let mut last = lock(&self.shared.last_token);
            *last += 1;
            *last
        };
        let file = init.open_file("net/dev").ok()?;
        // The process may have gone to another namespace, the host's even, since it was asked.
        if rustix::fs::fstat(&file).ok()?.st_ino != inode {
            return None;
        }
        let file = budget.keep(file).ok()?;
        let slot: Slot = Arc::new(Mutex::new(Some(file)));
        let mut kept = lock(&self.shared.kept);
        // Under the lock, so that the thread finds the entry of a process that ends at once.
        let watched = self.exits.watch(init, token)?;
        kept.insert(token, Arc::clone(&slot));
        drop(kept);
        Some(Handle { file: slot, watched, token, shared: Arc::clone(&self.shared) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.waker.wake();
    }
}

fn close_ended(exits: &mut Exits, shared: &Shared) {
    loop {
        for token in exits.next_ended() {
            if token == STOP {
                return;
            }
            let ended = lock(&shared.kept).remove(&token);
            if let Some(slot) = ended {
                drop(lock(&slot).take());
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::exits::tests::sleeper;

    #[test]
    fn a_kept_file_is_closed_when_its_process_ends_without_a_reading() {
        let budget = Budget::new(10);
        let networks = Networks::new(Roots::default(), budget.clone());
        let (mut child, init) = sleeper();
        let (mut network, mut buffer) = (Network::default(), Buffer::new());
        let first = networks.read(&init, &mut network, Some(0), &mut buffer).unwrap();
        assert!(first.interfaces.iter().any(|interface| interface.name == "lo"));
        assert_eq!(budget.used(), 1);
        for _ in 0..20 {
            let again = networks.read(&init, &mut network, Some(0), &mut buffer).unwrap();
            assert_eq!(again.inode, first.inode);
        }
        assert_eq!(budget.used(), 1, "one file all the time");
        child.kill().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while budget.used() > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(budget.used(), 0);
        child.wait().unwrap();
        assert!(networks.read(&init, &mut network, Some(0), &mut buffer).unwrap_err().is_gone());
    }

    #[test]
    fn the_hosts_own_interfaces_are_neither_read_nor_kept() {
        let budget = Budget::new(10);
        let networks = Networks::new(Roots::default(), budget.clone());
        let (mut child, init) = sleeper();
        let own = init.network().unwrap();
        let mut network = Network::default();
        for host in [Some(own), None] {
            let seen = networks.read(&init, &mut network, host, &mut Buffer::new()).unwrap();
            assert_eq!((seen.inode, seen.interfaces.len(), budget.used()), (own, 0, 0));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn without_room_the_file_is_opened_each_time() {
        let networks = Networks::new(Roots::default(), Budget::default());
        let (mut child, init) = sleeper();
        let mut network = Network::default();
        for _ in 0..3 {
            let seen = networks.read(&init, &mut network, Some(0), &mut Buffer::new()).unwrap();
            assert!(!seen.interfaces.is_empty() && network.kept.is_none());
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

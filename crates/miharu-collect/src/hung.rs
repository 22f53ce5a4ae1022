//! Instances whose last reading never came back: skipped while it hangs, then tried again with a growing pause.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The pause after the first failure; it doubles with each one that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// What is known of readings that did not come back, by what they read.
#[derive(Debug)]
pub(crate) struct Hung<K> {
    /// Held for a look-up only.
    entries: Arc<Mutex<HashMap<K, Entry>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// Whether a reading is under way.
    running: bool,
    /// Readings in a row that were given up.
    failures: u32,
    /// Not to be tried before this moment.
    not_before: Option<Instant>,
}

impl<K> Default for Hung<K> {
    fn default() -> Self {
        Self { entries: Arc::default() }
    }
}

/// One reading under way; dropped when it comes back, however late.
#[derive(Debug)]
pub(crate) struct Reading<K: Eq + Hash> {
    key: K,
    entries: Arc<Mutex<HashMap<K, Entry>>>,
}

impl<K: Eq + Hash + Clone> Hung<K> {
    /// Begins a reading, unless one still hangs or its pause is not over.
    pub(crate) fn begin(&self, key: &K, now: Instant) -> Option<Reading<K>> {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(key.clone()).or_default();
        if entry.running || entry.not_before.is_some_and(|moment| now < moment) {
            return None;
        }
        entry.running = true;
        Some(Reading { key: key.clone(), entries: Arc::clone(&self.entries) })
    }

    /// Notes that a reading was given up.
    pub(crate) fn gave_up(&self, key: &K, now: Instant) {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(key.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1u32.checked_shl(entry.failures).unwrap_or(u32::MAX));
        entry.failures = entry.failures.saturating_add(1);
        entry.not_before = Some(now + pause.min(LONGEST_PAUSE));
    }

    /// Notes that a reading came back in time.
    pub(crate) fn came_back(&self, key: &K) {
        lock(&self.entries).remove(key);
    }

    /// Forgets what is no longer there and does not hang either.
    pub(crate) fn retain(&self, is_there: impl Fn(&K) -> bool) {
        lock(&self.entries).retain(|key, entry| entry.running || is_there(key));
    }
}

impl<K: Eq + Hash> Drop for Reading<K> {
    fn drop(&mut self) {
        if let Some(entry) = lock(&self.entries).get_mut(&self.key) {
            entry.running = false;
        }
    }
}

fn lock<K>(entries: &Mutex<HashMap<K, Entry>>) -> MutexGuard<'_, HashMap<K, Entry>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hanging_reading_is_not_begun_twice_and_the_pause_grows() {
        let hung = Hung::default();
        let start = Instant::now();
        let reading = hung.begin(&"c1", start).unwrap();
        assert!(hung.begin(&"c1", start).is_none());
        assert!(hung.begin(&"c2", start).is_some());
        hung.gave_up(&"c1", start);
        assert!(hung.begin(&"c1", start + LONGEST_PAUSE).is_none(), "it still hangs");
        drop(reading);
        assert!(hung.begin(&"c1", start + Duration::from_secs(9)).is_none());
        drop(hung.begin(&"c1", start + Duration::from_secs(10)).unwrap());
        hung.gave_up(&"c1", start);
        assert!(hung.begin(&"c1", start + Duration::from_secs(19)).is_none());
        drop(hung.begin(&"c1", start + Duration::from_secs(20)).unwrap());
        hung.came_back(&"c1");
        assert!(hung.begin(&"c1", start).is_some());
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let hung = Hung::default();
        let now = Instant::now();
        for _ in 0..100 {
            hung.gave_up(&1, now);
        }
        assert!(hung.begin(&1, now + LONGEST_PAUSE).is_some());
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let hung = Hung::default();
        let now = Instant::now();
        hung.gave_up(&1, now);
        hung.retain(|_| false);
        assert!(hung.begin(&1, now).is_some());
    }
}

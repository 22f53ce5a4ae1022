//! What is wrong now: one entry a cause, logged when it appears and when it goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Warnings of one group beyond so many are left out: an instance can cause some, and no instance may fill the memory.
const GROUP_LIMIT: usize = 500;

/// The warnings that stand, by cause. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings {
    /// Held for a look-up or an assignment.
    standing: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Warnings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is wrong; it is logged unless it was said before.
    pub(crate) fn set(&self, cause: &str, message: String) {
        let mut standing = self.lock();
        if standing.get(cause) != Some(&message) {
            tracing::warn!("{message}");
            standing.insert(cause.to_owned(), message);
        }
    }

    /// It is well again.
    pub(crate) fn clear(&self, cause: &str) {
        if let Some(message) = self.lock().remove(cause) {
            tracing::info!("no longer: {message}");
        }
    }

    /// Exactly these warnings stand in a group, whatever stood in it before.
    pub(crate) fn replace(&self, group: &str, messages: Vec<String>) {
        let causes: BTreeMap<String, String> = messages
            .into_iter()
            .take(GROUP_LIMIT)
            .map(|message| (format!("{group}: {message}"), message))
            .collect();
        let prefix = format!("{group}: ");
        let gone: Vec<String> = self
            .lock()
            .keys()
            .filter(|cause| cause.starts_with(&prefix) && !causes.contains_key(*cause))
            .cloned()
            .collect();
        for cause in gone {
            self.clear(&cause);
        }
        for (cause, message) in causes {
            self.set(&cause, message);
        }
    }

    /// How many warnings stand.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_replaced_as_a_whole() {
        let warnings = Warnings::default();
        warnings.set("listener", "port taken".to_owned());
        warnings.replace("collection", vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(warnings.count(), 3);
        warnings.replace("collection", vec!["b".to_owned()]);
        assert_eq!(warnings.count(), 2);
    }

    #[test]
    fn a_cause_has_one_warning() {
        let warnings = Warnings::default();
        warnings.set("a", "broken".to_owned());
        warnings.clone().set("a", "still broken".to_owned());
        assert_eq!(warnings.count(), 1);
        warnings.clear("a");
        warnings.clear("a");
        assert_eq!(warnings.count(), 0);
    }
}

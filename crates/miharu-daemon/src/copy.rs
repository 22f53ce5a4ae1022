//! The copy of the database beside it: a warning while it cannot be written, and another try from time to time.

use std::sync::Arc;
use std::time::Duration;

use miharu_store::Store;
use tokio::time::{Instant, interval_at};

use crate::warnings::{Kind, Problem, Warnings};

/// How often a copy that could not be written is tried again; the warning says so.
const PAUSE: Duration = Duration::from_secs(60);

/// Tells of the copy, whichever change could not be copied. Ends with the daemon.
pub(crate) async fn watch(store: Arc<Store>, warnings: Warnings) {
    let mut uncopied = store.uncopied();
    // What was wrong at the start is told of at once.
    uncopied.mark_changed();
    let mut ticks = interval_at(Instant::now() + PAUSE, PAUSE);
    loop {
        tokio::select! {
            changed = uncopied.changed() => if changed.is_err() { return },
            _ = ticks.tick() => try_again(&store).await,
        }
        match uncopied.borrow_and_update().clone() {
            Some(message) => warnings.set(Problem::of_server(Kind::Copy, "", message)),
            None => warnings.clear(Kind::Copy, ""),
        }
    }
}

async fn try_again(store: &Arc<Store>) {
    let store = Arc::clone(store);
    match tokio::task::spawn_blocking(move || store.copy_again()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("the database is not copied: {error}"),
        Err(error) => tracing::error!("the database was not copied: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use miharu_store::Change;

    use super::*;

    fn set(store: &Store, value: &str) {
        let values = BTreeMap::from([("user.word".to_owned(), value.to_owned())]);
        let config = store.load().config.merge(&values).unwrap();
        store.commit(&Change::Config(config), None).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_cannot_be_written_is_warned_of_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let backup = dir.path().join("miharu.db.backup");
        let store = Arc::new(Store::open(&dir.path().join("miharu.db")).unwrap());
        let warnings = Warnings::default();
        let watching = tokio::spawn(watch(Arc::clone(&store), warnings.clone()));
        let told = async || {
            tokio::time::sleep(Duration::from_millis(1)).await;
            warnings.count()
        };
        assert_eq!(told().await, 0);

        std::fs::remove_file(&backup).unwrap();
        std::fs::create_dir(&backup).unwrap();
        set(&store, "one");
        assert_eq!(told().await, 1);
        let warning = warnings.list().remove(0);
        assert_eq!(warning.warning_type, "Database cannot be copied");
        for words in ["miharu.db.backup cannot be written", "move the directory", "tried again"] {
            assert!(warning.last_message.contains(words), "{}", warning.last_message);
        }
        // A change that can be copied ends it.
        std::fs::remove_dir(&backup).unwrap();
        set(&store, "two");
        assert_eq!(told().await, 0);
        assert!(backup.is_file());

        // Without one it is tried again.
        std::fs::remove_file(&backup).unwrap();
        std::fs::create_dir(&backup).unwrap();
        set(&store, "three");
        assert_eq!(told().await, 1);
        std::fs::remove_dir(&backup).unwrap();
        assert_eq!(told().await, 1, "nobody has looked yet");
        tokio::time::sleep(PAUSE).await;
        while warnings.count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(backup.is_file());
        watching.abort();
    }
}

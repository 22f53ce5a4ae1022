//! What instances use, and used within the last hour: rates between collections, and rings that are filled from every collection
//! that happens anyway.

mod book;
mod reading;
mod ring;
mod track;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::app::App;
use crate::cache::{Collected, Wish, epoch_seconds};
use book::Book;

pub(crate) use book::{Keep, Recorded};
pub(crate) use reading::{Values, cpu_seconds};
pub(crate) use ring::SLOTS;
pub(crate) use track::{RECENT_SLOTS, Rings, STEP};

/// After how long without a collection one is made for the history alone. It is more than a minute, so that it never comes just
/// before the scrape of a Prometheus that asks once a minute, and makes that one old.
pub(crate) const UNASKED: Duration = Duration::from_secs(65);
/// How long figures are kept for who looks, where no history is.
const ASKED: Duration = Duration::from_secs(300);
/// The shortest pause of the keeper.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of the use of instances.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Held while a collection is entered or an answer is taken from it, never across a wait.
    book: Mutex<Book>,
}

impl Default for Usage {
    fn default() -> Self {
        Self { book: Mutex::new(Book::new(Instant::now())) }
    }
}

impl Usage {
    /// Enters a collection, unless it or a later one was entered before, and looks at the book.
    pub(crate) fn look<T>(&self, collected: &Collected, keep: Keep, look: impl FnOnce(&Book) -> T) -> T {
        let mut book = self.lock();
        book.enter(collected, keep);
        book.asked(Instant::now());
        look(&book)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the server keys say of histories.
pub(crate) fn keep(app: &App) -> Keep {
    if app.plan().settings.history { Keep::History } else { Keep::Rates }
}

/// Keeps histories, and sees to it that they have no holes. Ends with the daemon.
pub(crate) async fn watch(app: Arc<App>) {
    let mut asked = Instant::now();
    loop {
        let last = app.cache.last().map_or(asked, |last| last.begun().max(asked));
        let due = (last + UNASKED).saturating_duration_since(Instant::now());
        let is_renewed = tokio::time::timeout(due.max(PAUSE), app.cache.renewed()).await.is_ok();
        match keep(&app) {
            Keep::Rates => {
                app.usage.lock().rest(Instant::now(), ASKED);
                // What others collect is not looked at, so there is nothing to wait for but the key.
                asked = Instant::now();
            }
            Keep::History if is_renewed => {
                let Some(collected) = app.cache.last() else { continue };
                let of_entry = Arc::clone(&app);
                let enter = move || of_entry.usage.lock().enter(&collected, Keep::History);
                // Broken off only when the daemon stops.
                let _ = tokio::task::spawn_blocking(enter).await;
            }
            Keep::History => {
                asked = Instant::now();
                let options = Arc::clone(&app.plan().scrape);
                // Why there are no figures was logged. Those that there are come around as renewed.
                let _ = app.cache.get(Wish { options, max_age: UNASKED, patience: None }).await;
            }
        }
    }
}

/// The moment `at` by the clock on the wall, seconds since the epoch.
pub(crate) fn wall(at: Instant) -> f64 {
    let (now, clock) = (Instant::now(), epoch_seconds(SystemTime::now()).unwrap_or_default());
    let (past, to_come) = (now.saturating_duration_since(at), at.saturating_duration_since(now));
    clock - past.as_secs_f64() + to_come.as_secs_f64()
}

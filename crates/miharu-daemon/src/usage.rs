//! What instances use, and used within the last hour: rates between collections, and rings that are filled from every collection
//! that happens anyway.

mod book;
mod reading;
mod ring;
mod track;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::app::App;
use crate::cache::{Collected, Wish, epoch_seconds};
use crate::clock::Moment;
use book::Book;

pub(crate) use book::{Keep, Recorded};
pub(crate) use reading::{Values, cpu_seconds};
pub(crate) use ring::SLOTS;
pub(crate) use track::{RECENT_SLOTS, Rings, STEP};

/// After how long without a collection one is made for the history alone. It is more than a minute, so that it never comes just
/// before the scrape of a Prometheus that asks once a minute, and makes that one old.
pub(crate) const UNASKED: Duration = Duration::from_secs(65);
/// The part of a CPU that collections for the history alone may take, one in so many, so that with all else an idle server stays below
/// a thousandth. Of 500 containers one that comes a minute after the last costs 130 ms, three times one whose files the caches still know.
const SHARE: u32 = 1500;
/// The longest time without one, however much it costs.
const RAREST: Duration = Duration::from_secs(600);
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
        Self { book: Mutex::new(Book::new(Moment::now())) }
    }
}

impl Usage {
    /// Enters a collection, unless it or a later one was entered before, and looks at the book.
    pub(crate) fn look<T>(&self, collected: &Collected, keep: Keep, look: impl FnOnce(&Book) -> T) -> T {
        let mut book = self.lock();
        book.enter(collected, keep);
        book.asked(Moment::now());
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
    let mut asked = Moment::now();
    let mut pause = UNASKED;
    loop {
        let last = app.cache.last().map_or(asked, |last| last.begun().max(asked));
        let due = (last + pause).saturating_duration_since(Moment::now());
        let is_renewed = tokio::time::timeout(due.max(PAUSE), app.cache.renewed()).await.is_ok();
        match keep(&app) {
            Keep::Rates => {
                app.usage.lock().rest(Moment::now(), ASKED);
                // What others collect is not looked at, so there is nothing to wait for but the key.
                asked = Moment::now();
            }
            Keep::History if is_renewed => {
                let Some(collected) = app.cache.last() else { continue };
                let of_entry = Arc::clone(&app);
                let enter = move || of_entry.usage.lock().enter(&collected, Keep::History);
                // Broken off only when the daemon stops.
                let _ = tokio::task::spawn_blocking(enter).await;
            }
            Keep::History => {
                asked = Moment::now();
                let options = Arc::clone(&app.plan().scrape);
                let before = cpu_time();
                // Why there are no figures was logged. Those that there are come around as renewed.
                let _ = app.cache.get(Wish { options, max_age: UNASKED, patience: None }).await;
                pause = pause_after(cpu_time().saturating_sub(before));
            }
        }
    }
}

/// CPU time that this process has used.
fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

/// How long nobody has to have asked after a collection that cost so much. Requests that were answered meanwhile are counted with it,
/// which makes it longer where there is more to do.
fn pause_after(cost: Duration) -> Duration {
    cost.saturating_mul(SHARE).clamp(UNASKED, RAREST)
}

/// The moment `at` by the clock on the wall, seconds since the epoch.
pub(crate) fn wall(at: Moment) -> f64 {
    let (now, clock) = (Moment::now(), epoch_seconds(SystemTime::now()).unwrap_or_default());
    let (past, to_come) = (now.saturating_duration_since(at), at.saturating_duration_since(now));
    clock - past.as_secs_f64() + to_come.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collections_that_cost_much_are_made_seldom() {
        let seconds = Duration::from_secs;
        assert_eq!(pause_after(Duration::from_millis(5)), UNASKED);
        assert_eq!(pause_after(Duration::from_millis(130)), seconds(195));
        assert_eq!(pause_after(seconds(3)), RAREST);
        assert_eq!(pause_after(Duration::MAX), RAREST);
        let before = cpu_time();
        assert!(before > Duration::ZERO && cpu_time() >= before);
    }
}

//! The cache between scrapes and collections: one collection at a time, shared by everybody who waits, and rendered
//! answers that are kept with it, so that a cached scrape formats nothing again and is byte for byte the same.

mod rendered;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use miharu_collect::{Guest, HostSize, Options};
use miharu_metrics::{InstanceFigures, InstanceType, Snapshot};
use tokio::sync::{Notify, watch};

use crate::clock::Moment;
use crate::respond::ApiError;
use crate::sandbox;
use crate::unread::{Made, Recipient};

pub(crate) use rendered::{Rendered, Rendering};

/// How long a collection may be late on its own deadline before it is given up.
const GRACE: Duration = Duration::from_secs(1);
/// Collections that were given up and whose threads still hang; beyond so many, no other one is begun.
const ABANDONED_LIMIT: usize = 4;

/// An instance as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) project: String,
    pub(crate) name: String,
    pub(crate) instance_type: InstanceType,
    pub(crate) runtime: String,
    pub(crate) id: String,
    /// The image that it was made of, where that is known.
    pub(crate) image: Option<String>,
    /// The host's process id of its init.
    pub(crate) pid: Option<u32>,
}

/// What one collection gave.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) snapshot: Snapshot,
    pub(crate) found: Vec<Found>,
    /// What guests told of themselves.
    pub(crate) guests: Vec<Guest>,
    /// What the host has.
    pub(crate) host: HostSize,
}

/// Where figures come from: the host, or a test's fake. It blocks, for about `options.collect_timeout` at most.
pub(crate) trait Source: Send {
    fn collect(&mut self, options: &Options) -> Result<Gathered, String>;
}

/// Makes another source when the one in use hangs.
pub(crate) type MakeSource = Box<dyn Fn() -> Box<dyn Source> + Send + Sync>;

/// A collection's result, and the answers that were rendered from it.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) gathered: Gathered,
    options: Arc<Options>,
    begun: Moment,
    rendered: Rendered,
}

impl Collected {
    /// When its collection began.
    pub(crate) fn begun(&self) -> Moment {
        self.begun
    }

    /// Whether it tells what the wish wants to be told, and in the way in which it wants it.
    fn covers(&self, wish: &Wish) -> bool {
        Arc::ptr_eq(&self.options, &wish.options) || self.options.covers(&wish.options)
    }

    /// The answer in that form, rendered at most once where it is kept, and whether it is.
    ///
    /// # Errors
    /// When the rendering was broken off, or the recipient asks for too much at a time.
    pub(crate) async fn render(
        self: &Arc<Self>,
        rendering: Rendering,
        recipient: &Recipient,
    ) -> Result<(bytes::Bytes, Made), ApiError> {
        rendered::render(self, rendering, recipient).await
    }

    /// The figures of this instance, if it was there.
    pub(crate) fn figures_of(&self, found: &Found) -> Option<&InstanceFigures> {
        let wanted = (found.project.as_str(), found.name.as_str(), found.instance_type);
        let instances = &self.gathered.snapshot.instances;
        let at = instances.binary_search_by(|instance| instance.key().cmp(&wanted)).ok()?;
        instances.get(at)
    }

    /// What the guest of this instance told of itself.
    pub(crate) fn guest_of(&self, found: &Found) -> Option<&Guest> {
        let is_its = |guest: &&Guest| guest.project == found.project && guest.name == found.name;
        let is_machine = found.instance_type == InstanceType::VirtualMachine;
        self.gathered.guests.iter().filter(|_| is_machine).find(is_its)
    }

    /// Of the projects named, those in which an instance was found: all others make no difference to an answer.
    pub(crate) fn known_projects(
        &self,
        projects: impl Iterator<Item = String>,
    ) -> std::collections::BTreeSet<String> {
        let instances = &self.gathered.snapshot.instances;
        let is_known = |project: &String| {
            // They are in the order of their projects first.
            let at = instances.partition_point(|instance| instance.project < *project);
            instances.get(at).is_some_and(|instance| instance.project == *project)
        };
        projects.filter(is_known).collect()
    }
}

/// What a client asks of the cache.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// How the figures are to be collected.
    pub(crate) options: Arc<Options>,
    /// How old they may be.
    pub(crate) max_age: Duration,
    /// How long the client waits; `None` for as long as a collection may take.
    pub(crate) patience: Option<Duration>,
}

type Outcome = Result<Arc<Collected>, String>;

#[derive(Default)]
struct Inner {
    last: Option<Arc<Collected>>,
    /// What the collection that runs will give.
    running: Option<watch::Receiver<Option<Outcome>>>,
    /// The source between two collections; a running one has it, and a hanging one keeps it.
    source: Option<Box<dyn Source>>,
    /// Collections that were given up and did not come back.
    abandoned: usize,
}

/// The cache.
pub(crate) struct Cache {
    make_source: Arc<MakeSource>,
    /// Held for a few assignments, never across a wait or a collection.
    inner: Mutex<Inner>,
    /// Told when a collection has given figures; one waits for it, and learns of several as of one.
    renewed: Notify,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

impl Cache {
    pub(crate) fn new(make_source: MakeSource) -> Arc<Self> {
        Arc::new(Self { make_source: Arc::new(make_source), inner: Mutex::default(), renewed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last collection, however old.
    pub(crate) fn last(&self) -> Option<Arc<Collected>> {
        self.lock().last.clone()
    }

    /// Waits until a collection has given figures since the last time that this was waited for.
    pub(crate) async fn renewed(&self) {
        self.renewed.notified().await;
    }

    /// Figures that are young enough: those at hand, those of the collection that runs, or those of a new one. A client
    /// whose patience ends, or whose collection fails, gets the last ones if they are at most twice as old as asked.
    ///
    /// # Errors
    /// Why there are none, for people.
    pub(crate) async fn get(self: &Arc<Self>, wish: Wish) -> Outcome {
        let longest = wish.options.collect_timeout + GRACE * 2;
        let until = Instant::now() + wish.patience.unwrap_or(longest).min(longest);
        let mut given = self.wait(&wish, until).await;
        if given.as_ref().is_ok_and(|collected| !collected.covers(&wish)) {
            // It was begun under other server keys, or tells less; one that begins now does not.
            given = self.wait(&wish, until).await.or(given);
        }
        given.or_else(|failed| self.last().filter(|last| fresh(last, &wish, 2)).ok_or(failed))
    }

    /// Figures that are young enough, or what the next collection to end gives, whatever its options.
    async fn wait(self: &Arc<Self>, wish: &Wish, until: Instant) -> Outcome {
        let mut outcome = {
            let mut inner = self.lock();
            if let Some(last) = inner.last.as_ref().filter(|last| fresh(last, wish, 1)) {
                return Ok(Arc::clone(last));
            }
            match &inner.running {
                Some(outcome) => outcome.clone(),
                None => self.begin(&mut inner, Arc::clone(&wish.options))?,
            }
        };
        let begun = Instant::now();
        match tokio::time::timeout_at(until.into(), outcome.wait_for(Option::is_some)).await {
            Ok(Ok(result)) => match result.clone() {
                Some(outcome) => outcome,
                None => Err("the collection ended without a result".to_owned()),
            },
            Ok(Err(_)) => Err("the collection ended without a result".to_owned()),
            Err(_) => Err(format!(
                "the collection was not done after {:.2} s, and no earlier figures are young enough",
                begun.elapsed().as_secs_f64()
            )),
        }
    }

    fn begin(
        self: &Arc<Self>,
        inner: &mut Inner,
        options: Arc<Options>,
    ) -> Result<watch::Receiver<Option<Outcome>>, String> {
        if inner.source.is_none() && inner.abandoned >= ABANDONED_LIMIT {
            return Err(format!("{} collections hang and did not come back", inner.abandoned));
        }
        let source = inner.source.take();
        let (sender, receiver) = watch::channel(None);
        inner.running = Some(receiver.clone());
        tokio::spawn(Arc::clone(self).run(source, options, sender));
        Ok(receiver)
    }

    async fn run(
        self: Arc<Self>,
        source: Option<Box<dyn Source>>,
        options: Arc<Options>,
        sender: watch::Sender<Option<Outcome>>,
    ) {
        let begun = Moment::now();
        let asked = Arc::clone(&options);
        let make_source = Arc::clone(&self.make_source);
        let mut work = sandbox::look(move || {
            // It is made here, as what it starts is to be restricted like this thread.
            let mut source = source.unwrap_or_else(|| make_source());
            let result = source.collect(&asked);
            (source, result)
        });
        let result = match tokio::time::timeout(options.collect_timeout + GRACE, &mut work).await {
            Ok(Ok((source, result))) => {
                let result = result.map(|gathered| {
                    let rendered = Rendered::default();
                    Arc::new(Collected { gathered, options, begun, rendered })
                });
                let mut inner = self.lock();
                inner.source = Some(source);
                result
            }
            Ok(Err(panicked)) => {
                tracing::error!("a collection failed: {panicked}");
                Err("the collection failed, see the server's log".to_owned())
            }
            Err(_) => {
                self.abandon(work);
                Err("the collection did not end in time".to_owned())
            }
        };
        if let Err(error) = &result {
            tracing::warn!("no figures: {error}");
        }
        {
            let mut inner = self.lock();
            if let Ok(collected) = &result {
                inner.last = Some(Arc::clone(collected));
            }
            inner.running = None;
        }
        let is_new = result.is_ok();
        // Nobody may be waiting any more.
        let _ = sender.send(Some(result));
        if is_new {
            self.renewed.notify_one();
        }
    }

    /// Leaves a hanging collection to itself; its source comes back with it, if ever.
    fn abandon(self: &Arc<Self>, work: tokio::task::JoinHandle<(Box<dyn Source>, Result<Gathered, String>)>) {
        self.lock().abandoned += 1;
        tracing::warn!("a collection hangs; the next one goes on without it");
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            let back = work.await;
            let mut inner = cache.lock();
            inner.abandoned -= 1;
            if let (Ok((source, _)), None, None) = (back, &inner.source, &inner.running) {
                inner.source = Some(source);
            }
        });
    }
}

fn fresh(last: &Collected, wish: &Wish, times: u32) -> bool {
    last.covers(wish) && last.begun.elapsed() < wish.max_age * times
}

/// How long a client with this scrape timeout waits: a little less, so that the answer still reaches it.
pub(crate) fn patience(scrape_timeout_seconds: f64) -> Option<Duration> {
    let timeout =
        Duration::try_from_secs_f64(scrape_timeout_seconds).ok().filter(|timeout| !timeout.is_zero())?;
    let margin = (timeout / 10).clamp(Duration::from_millis(50), Duration::from_millis(500));
    Some(timeout.saturating_sub(margin).max(Duration::from_millis(10)))
}

/// Seconds since the epoch.
pub(crate) fn epoch_seconds(time: SystemTime) -> Option<f64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;

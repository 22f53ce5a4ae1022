//! What happens, told to whoever listens: a bounded hub that no reader can hold up.
//!
//! Nothing is written down while nobody listens, so that publishing costs next to nothing then.

mod instances;
mod log;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use miharu_api::{Event, Lifecycle, Logging};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};

pub(crate) use instances::watch;
pub(crate) use log::LogEvents;

/// Events that a reader may lag behind before it loses the oldest of them.
const BACKLOG: usize = 512;
/// Readers at once.
const READERS: usize = 64;
/// Readers of one client at once, so that one alone cannot keep all others out.
const READERS_OF_ONE: usize = 16;
/// Places that the network leaves to the unix socket.
const LOCAL: usize = 16;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    Lifecycle,
    Logging,
    Operation,
}

impl Topic {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Lifecycle, Self::Logging, Self::Operation];

    /// Its name in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Lifecycle => "lifecycle",
            Self::Logging => "logging",
            Self::Operation => "operation",
        }
    }

    /// The topic of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_str() == name)
    }
}

/// An event on its way to the readers, written down once for all of them.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) topic: Topic,
    /// The project that it belongs to, if it belongs to one.
    pub(crate) project: Option<String>,
    /// The event as JSON.
    pub(crate) text: String,
}

/// The hub. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    sender: broadcast::Sender<Arc<Published>>,
    /// A permit a reader.
    readers: Arc<Semaphore>,
    /// How many each client of the network has, by its certificate. Held for one look-up.
    places: Arc<Mutex<HashMap<String, usize>>>,
    /// How many read about [`Topic::Lifecycle`]: instances are looked for only while somebody does.
    watching: Arc<watch::Sender<usize>>,
    /// How many read about [`Topic::Logging`].
    logging: Arc<AtomicUsize>,
    /// Becomes true when the daemon stops.
    closing: Arc<watch::Sender<bool>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(BACKLOG),
            readers: Arc::new(Semaphore::new(READERS)),
            places: Arc::default(),
            watching: Arc::default(),
            logging: Arc::default(),
            closing: Arc::default(),
        }
    }
}

impl Events {
    /// A resource came, changed or went: `action` is the originals' word for it, such as `certificate-created`,
    /// `source` its path.
    pub(crate) fn lifecycle(&self, project: Option<&str>, lifecycle: &Lifecycle) {
        self.publish(Topic::Lifecycle, project, lifecycle);
    }

    /// An operation began, changed or ended; `operation` is its body in the API, without secrets that its readers must
    /// not see: who listens may see all of it.
    #[allow(dead_code, reason = "operations are on their way")]
    pub(crate) fn operation(&self, project: Option<&str>, operation: &impl Serialize) {
        self.publish(Topic::Operation, project, operation);
    }

    fn logging(&self, line: &Logging) {
        self.publish(Topic::Logging, None, line);
    }

    /// Never waits: with the backlog full, the oldest event is lost to those who have not read it.
    fn publish(&self, topic: Topic, project: Option<&str>, metadata: &impl Serialize) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        // Texts and numbers can always be written; were it otherwise, the log would be the wrong place to tell, as it
        // comes this way itself.
        let Ok(text) = text(topic, project, metadata) else { return };
        let project = project.map(str::to_owned);
        // Nobody may be listening any more.
        let _ = self.sender.send(Arc::new(Published { topic, project, text }));
    }

    /// Begins to listen; `None` when too many do already.
    pub(crate) fn subscribe(&self, topics: &[Topic]) -> Option<Subscription> {
        self.subscribe_in(topics, None)
    }

    fn subscribe_in(&self, topics: &[Topic], place: Option<Place>) -> Option<Subscription> {
        let permit = Arc::clone(&self.readers).try_acquire_owned().ok()?;
        let topics = topics.to_vec();
        let receiver = self.sender.subscribe();
        if topics.contains(&Topic::Lifecycle) {
            self.watching.send_modify(|readers| *readers += 1);
        }
        if topics.contains(&Topic::Logging) {
            self.logging.fetch_add(1, Ordering::Relaxed);
        }
        let closing = self.closing.subscribe();
        Some(Subscription { receiver, topics, hub: self.clone(), closing, _place: place, _permit: permit })
    }

    /// As [`Self::subscribe`], for a client of the network with this certificate; `None` when it listens too often already, too.
    pub(crate) fn subscribe_client(&self, topics: &[Topic], fingerprint: &str) -> Option<Subscription> {
        if self.readers.available_permits() <= LOCAL {
            return None;
        }
        let place = Place::take(&self.places, fingerprint)?;
        self.subscribe_in(topics, Some(place))
    }

    /// How many read about lifecycles, and when that changes.
    pub(crate) fn watching(&self) -> watch::Receiver<usize> {
        self.watching.subscribe()
    }

    /// Whether somebody reads the log.
    fn is_log_read(&self) -> bool {
        self.logging.load(Ordering::Relaxed) > 0
    }

    /// Tells every reader to go, and comes back when all have gone.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        let all = u32::try_from(READERS).unwrap_or(u32::MAX);
        let _gone = self.readers.acquire_many(all).await;
    }
}

/// What a reader gets next.
#[derive(Debug)]
pub(crate) enum Next {
    Event(Arc<Published>),
    /// The reader was too slow, and lost so many events.
    Lost(u64),
    /// The daemon stops.
    Closing,
}

/// Somebody who listens.
#[derive(Debug)]
pub(crate) struct Subscription {
    receiver: broadcast::Receiver<Arc<Published>>,
    topics: Vec<Topic>,
    hub: Events,
    closing: watch::Receiver<bool>,
    /// What it takes of its client's share, where it has one.
    _place: Option<Place>,
    _permit: OwnedSemaphorePermit,
}

/// One of the readers of a client.
#[derive(Debug)]
struct Place {
    places: Arc<Mutex<HashMap<String, usize>>>,
    fingerprint: String,
}

impl Place {
    fn take(places: &Arc<Mutex<HashMap<String, usize>>>, fingerprint: &str) -> Option<Self> {
        let mut held = places.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(fingerprint).copied().unwrap_or_default();
        if count >= READERS_OF_ONE {
            return None;
        }
        held.insert(fingerprint.to_owned(), count + 1);
        Some(Self { places: Arc::clone(places), fingerprint: fingerprint.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.fingerprint) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.fingerprint)),
        }
    }
}

impl Subscription {
    /// Waits for the next event on one of its topics. May be given up at any point without losing one.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            let received = tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => return Next::Closing,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(event) if self.topics.contains(&event.topic) => return Next::Event(event),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(lost)) => return Next::Lost(lost),
                Err(broadcast::error::RecvError::Closed) => return Next::Closing,
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.topics.contains(&Topic::Lifecycle) {
            self.hub.watching.send_modify(|readers| *readers = readers.saturating_sub(1));
        }
        if self.topics.contains(&Topic::Logging) {
            self.hub.logging.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What a reader of the log is told when it was too slow.
pub(crate) fn loss(lost: u64) -> String {
    let line = Logging {
        level: "warning".to_owned(),
        message: format!("{lost} events were lost: this reader is too slow"),
        ..Logging::default()
    };
    text(Topic::Logging, None, &line).unwrap_or_default()
}

fn text(topic: Topic, project: Option<&str>, metadata: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(&Event {
        event_type: topic.as_str().to_owned(),
        timestamp: now(),
        metadata: serde_json::to_value(metadata)?,
        location: "none".to_owned(),
        project: project.unwrap_or_default().to_owned(),
    })
}

/// Now, as clients read it.
pub(crate) fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(source: &str) -> Lifecycle {
        Lifecycle {
            action: "certificate-created".to_owned(),
            source: source.to_owned(),
            ..Lifecycle::default()
        }
    }

    #[tokio::test]
    async fn readers_get_the_topics_that_they_asked_for() {
        let events = Events::default();
        events.lifecycle(None, &created("before anybody listened"));
        let mut lifecycle = events.subscribe(&[Topic::Lifecycle]).unwrap();
        events.operation(Some("default"), &serde_json::json!({"id": "1"}));
        events.lifecycle(Some("lxc"), &created("/1.0/certificates/ab"));
        let Next::Event(event) = lifecycle.next().await else { panic!("no event") };
        assert_eq!(event.project.as_deref(), Some("lxc"));
        let read: Event = serde_json::from_str(&event.text).unwrap();
        assert_eq!((read.event_type.as_str(), read.location.as_str()), ("lifecycle", "none"));
        assert_eq!(read.metadata, serde_json::to_value(created("/1.0/certificates/ab")).unwrap());
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_events_and_holds_nobody_up() {
        let events = Events::default();
        let mut slow = events.subscribe(&Topic::ALL).unwrap();
        for at in 0..BACKLOG + 10 {
            events.lifecycle(None, &created(&at.to_string()));
        }
        let Next::Lost(lost) = slow.next().await else { panic!("nothing was lost") };
        assert_eq!(lost, 10);
        let Next::Event(event) = slow.next().await else { panic!("no event") };
        assert!(event.text.contains("\"source\":\"10\""), "{}", event.text);
    }

    #[tokio::test]
    async fn readers_are_bounded_counted_and_sent_away_at_the_end() {
        let events = Events::default();
        let mut readers: Vec<_> =
            std::iter::from_fn(|| events.subscribe(&[Topic::Lifecycle])).take(READERS + 1).collect();
        assert_eq!((readers.len(), *events.watching().borrow()), (READERS, READERS));
        let mut last = readers.pop().unwrap();
        drop(readers);
        assert_eq!(*events.watching().borrow(), 1);
        let closing = events.clone();
        let closed = tokio::spawn(async move { closing.close().await });
        assert!(matches!(last.next().await, Next::Closing));
        assert!(!closed.is_finished());
        drop(last);
        closed.await.unwrap();
    }

    #[test]
    fn no_client_takes_the_places_of_others_and_none_those_of_the_socket() {
        let events = Events::default();
        let take = |who: &str| {
            std::iter::from_fn(|| events.subscribe_client(&[Topic::Operation], who))
                .take(READERS)
                .collect::<Vec<_>>()
        };
        let first = take("a");
        assert_eq!(first.len(), READERS_OF_ONE);
        let others: Vec<_> = ["b", "c", "d", "e"].into_iter().flat_map(take).collect();
        assert_eq!(first.len() + others.len(), READERS - LOCAL);
        assert!(events.subscribe(&[Topic::Operation]).is_some());
        drop((first, others));
        assert_eq!(take("a").len(), READERS_OF_ONE);
        assert!(events.places.lock().unwrap().is_empty(), "nothing is kept of who has gone");
    }
}

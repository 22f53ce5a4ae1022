//! Who may connect while many want to: limits for each address beside those of the listener, and room for those who are trusted
//! whatever strangers do.
//!
//! Who is trusted is known only after its first request, so a newcomer is never kept out by those who came before it: where there
//! is no room, the stranger that is the least loss goes. That is one whose address was never trusted, of the address that holds
//! most, and of these one that is idle, for longest.

mod bucket;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use miharu_store::Settings;
use rustix::process::Resource;
use tokio::sync::Notify;
use tokio::time::Instant;

use bucket::Bucket;

/// How long an address is remembered from which somebody trusted came.
const KNOWN: Duration = Duration::from_secs(3600);
/// Addresses that are remembered without a connection, beyond which those are forgotten that need not be remembered.
const REMEMBERED: usize = 4096;
/// How often the log tells of connections that were turned away.
const TELL: Duration = Duration::from_secs(60);

/// What the server keys allow, on each listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections of those who are trusted, and again as many of strangers.
    half: usize,
    /// Connections of strangers from one address.
    of_address: usize,
    /// TLS handshakes a second with addresses that nobody trusted came from.
    handshakes: u32,
    /// TLS handshakes a second with one address.
    handshakes_of_address: u32,
    /// Requests a second of strangers from one address.
    requests: u32,
}

impl Limits {
    pub(crate) fn of(settings: &Settings) -> Self {
        // Connections of all three listeners leave half of the descriptors to what is measured.
        let descriptors = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = usize::try_from(descriptors / 6).unwrap_or(usize::MAX);
        Self {
            half: (settings.connections.min(most) / 2).max(1),
            of_address: settings.connections_per_address,
            handshakes: settings.handshakes_per_second,
            handshakes_of_address: settings.handshakes_per_address,
            requests: settings.requests_per_second,
        }
    }
}

impl Limits {
    /// How many connections there may be of those who are trusted, and how many of others. On the unix socket nobody is a stranger
    /// for longer than until the first request.
    fn most(&self, source: Source) -> usize {
        if matches!(source, Source::User(_)) { 2 * self.half } else { self.half }
    }
}

/// The limits as they are now, shared by all listeners.
pub(crate) type SharedLimits = Arc<ArcSwap<Limits>>;

/// Whom connections are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first half of an IPv6 address: whoever has one address has all of its network.
    V6(u64),
    /// A user, on the unix socket.
    User(u32),
}

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(u64::try_from(address.to_bits() >> 64).unwrap_or_default()),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(network) => {
                write!(f, "{}/64", std::net::Ipv6Addr::from_bits(u128::from(*network) << 64))
            }
            Self::User(uid) => write!(f, "user {uid}"),
        }
    }
}

/// What lets connections of one listener in.
pub(crate) struct Gate {
    limits: SharedLimits,
    /// Held for a few look-ups when a connection comes, goes, or is trusted for the first time, and, where a stranger has to make
    /// room, for one look at all of them; by requests of strangers too.
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

struct Inner {
    /// The number of the last connection.
    last: u64,
    open: BTreeMap<u64, Arc<Line>>,
    strangers: usize,
    trusted: usize,
    sources: HashMap<Source, Seen>,
    /// Handshakes with addresses that are not known.
    handshakes: Bucket,
    turned_away: u64,
    told: Option<Instant>,
}

/// What is known of an address.
struct Seen {
    strangers: usize,
    trusted: usize,
    handshakes: Bucket,
    requests: Bucket,
    known_until: Option<Instant>,
}

impl Seen {
    fn is_known(&self, now: Instant) -> bool {
        self.trusted > 0 || self.known_until.is_some_and(|until| until > now)
    }
}

/// Where a connection stands.
const ARRIVING: u8 = 0;
const STRANGER: u8 = 1;
const TRUSTED: u8 = 2;

/// A connection, as the gate and its requests see it.
struct Line {
    gate: Arc<Gate>,
    id: u64,
    source: Source,
    stands: AtomicU8,
    /// Whether it has given its handshake back.
    gave_back: AtomicBool,
    in_flight: AtomicUsize,
    /// Since when it does what it does.
    since: Mutex<Instant>,
    /// Told once when it is to end.
    leave: Notify,
}

impl Line {
    fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_trusted(&self) -> bool {
        self.stands.load(Ordering::Relaxed) == TRUSTED
    }
}

/// A connection's right to be there; it ends with it.
#[derive(Debug)]
pub(crate) struct Ticket(Standing);

/// What is thought of a connection. Every request carries it.
#[derive(Clone)]
pub(crate) struct Standing(Arc<Line>);

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Standing({}, {})", self.0.id, self.0.source)
    }
}

/// Whose connections may be ended to make room.
#[derive(Clone, Copy)]
enum Among {
    Strangers,
    StrangersOf(Source),
    Trusted,
}

impl Gate {
    pub(crate) fn new(limits: SharedLimits) -> Arc<Self> {
        let handshakes = Bucket::full(Instant::now(), limits.load().handshakes);
        let inner = Inner {
            last: 0,
            open: BTreeMap::new(),
            strangers: 0,
            trusted: 0,
            sources: HashMap::new(),
            handshakes,
            turned_away: 0,
            told: None,
        };
        Arc::new(Self { limits, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in, if need be in the place of another one; nothing where it is to be turned away.
    pub(crate) fn admit(self: &Arc<Self>, source: Source) -> Option<Ticket> {
        let (now, limits) = (Instant::now(), self.limits.load());
        let mut inner = self.lock();
        inner.forget(now, &limits);
        if let Err(key) = inner.find_room(source, now, &limits) {
            inner.turn_away(source, key, now);
            return None;
        }
        inner.last += 1;
        let line = Arc::new(Line {
            gate: Arc::clone(self),
            id: inner.last,
            source,
            stands: AtomicU8::new(ARRIVING),
            gave_back: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            since: Mutex::new(now),
            leave: Notify::new(),
        });
        inner.open.insert(line.id, Arc::clone(&line));
        inner.strangers += 1;
        inner.seen(source, now, &limits).strangers += 1;
        Some(Ticket(Standing(line)))
    }

    /// Ends a stranger's connection, for what it holds: the system has nothing left.
    pub(crate) fn make_room(&self) {
        let now = Instant::now();
        self.lock().end_one(Among::Strangers, now);
    }
}

impl Inner {
    fn seen(&mut self, source: Source, now: Instant, limits: &Limits) -> &mut Seen {
        self.sources.entry(source).or_insert_with(|| Seen {
            strangers: 0,
            trusted: 0,
            handshakes: Bucket::full(now, limits.handshakes_of_address),
            requests: Bucket::full(now, limits.requests),
            known_until: None,
        })
    }

    /// Makes room for a newcomer; as an error, the server key that keeps it out.
    fn find_room(&mut self, source: Source, now: Instant, limits: &Limits) -> Result<(), &'static str> {
        // There are no handshakes on the unix socket, and whoever may open it may do everything.
        if !matches!(source, Source::User(_)) {
            let seen = self.seen(source, now, limits);
            if !seen.handshakes.take(now, limits.handshakes_of_address) {
                return Err("core.handshakes_per_address");
            }
            let (is_known, held) = (seen.is_known(now), seen.strangers);
            if !is_known && !self.handshakes.take(now, limits.handshakes) {
                return Err("core.handshakes_per_second");
            }
            if held >= limits.of_address && !self.end_one(Among::StrangersOf(source), now) {
                return Err("core.connections_per_address");
            }
        }
        if self.strangers >= limits.most(source) && !self.end_one(Among::Strangers, now) {
            return Err("core.connections");
        }
        Ok(())
    }

    /// Ends the connection that is the least loss; false where all of them are being answered.
    fn end_one(&mut self, among: Among, now: Instant) -> bool {
        let candidates = self.open.values().filter(|line| {
            let belongs = match among {
                Among::Strangers => !line.is_trusted(),
                Among::StrangersOf(source) => !line.is_trusted() && line.source == source,
                Among::Trusted => line.is_trusted(),
            };
            belongs && line.in_flight.load(Ordering::Relaxed) == 0
        });
        let loss = |line: &&Arc<Line>| {
            let seen = self.sources.get(&line.source);
            let is_known = seen.is_some_and(|seen| seen.is_known(now));
            let held = seen.map_or(0, |seen| seen.strangers + seen.trusted);
            (is_known, Reverse(held), line.stands.load(Ordering::Relaxed) == ARRIVING, line.since())
        };
        let Some(line) = candidates.min_by_key(loss).cloned() else { return false };
        self.remove(&line, now);
        line.leave.notify_one();
        true
    }

    /// Takes a connection out of the counts, if it is in them.
    fn remove(&mut self, line: &Line, now: Instant) {
        if self.open.remove(&line.id).is_none() {
            return;
        }
        let seen = self.sources.get_mut(&line.source);
        if line.is_trusted() {
            self.trusted = self.trusted.saturating_sub(1);
            if let Some(seen) = seen {
                seen.trusted = seen.trusted.saturating_sub(1);
                seen.known_until = Some(now + KNOWN);
            }
        } else {
            self.strangers = self.strangers.saturating_sub(1);
            if let Some(seen) = seen {
                seen.strangers = seen.strangers.saturating_sub(1);
            }
        }
    }

    /// Forgets addresses, where there are many, that have no connection and of which nothing need be known; all such where
    /// that is not enough.
    fn forget(&mut self, now: Instant, limits: &Limits) {
        let most = REMEMBERED + 2 * self.open.len();
        if self.sources.len() <= most {
            return;
        }
        self.sources.retain(|_, seen| {
            seen.strangers + seen.trusted > 0
                || seen.is_known(now)
                || !seen.handshakes.is_full(now, limits.handshakes_of_address)
                || !seen.requests.is_full(now, limits.requests)
        });
        if self.sources.len() > most {
            self.sources.retain(|_, seen| seen.strangers + seen.trusted > 0 || seen.is_known(now));
        }
        if self.sources.len() > most {
            self.sources.retain(|_, seen| seen.strangers + seen.trusted > 0);
        }
    }

    fn turn_away(&mut self, source: Source, key: &str, now: Instant) {
        self.turned_away += 1;
        if self.told.is_some_and(|told| now < told + TELL) {
            return;
        }
        tracing::warn!(
            "connections turned away: {} until now, the last of {source}, by {key}",
            self.turned_away
        );
        self.told = Some(now);
    }
}

impl Ticket {
    pub(crate) fn standing(&self) -> &Standing {
        &self.0
    }

    /// The handshake is over.
    pub(crate) fn arrived(&self) {
        let line = &self.0.0;
        let _ = line.stands.compare_exchange(ARRIVING, STRANGER, Ordering::Relaxed, Ordering::Relaxed);
        *line.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Comes back when the connection is to make room for another one.
    pub(crate) async fn revoked(&self) {
        self.0.0.leave.notified().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let line = &self.0.0;
        line.gate.lock().remove(line, Instant::now());
    }
}

impl Standing {
    /// Whoever is at the other end has shown that it is trusted.
    pub(crate) fn trusted(&self) {
        let line = &self.0;
        // Only what changes anything takes the lock: nearly every request of a scraper changes nothing.
        if line.is_trusted() {
            return;
        }
        let (now, limits) = (Instant::now(), line.gate.limits.load());
        let mut inner = line.gate.lock();
        if !inner.open.contains_key(&line.id) || line.stands.swap(TRUSTED, Ordering::Relaxed) == TRUSTED {
            return;
        }
        inner.strangers = inner.strangers.saturating_sub(1);
        inner.trusted += 1;
        let is_over = inner.trusted > limits.most(line.source);
        let seen = inner.seen(line.source, now, &limits);
        seen.strangers = seen.strangers.saturating_sub(1);
        seen.trusted += 1;
        // Those who are trusted connect as often as they like.
        if !line.gave_back.swap(true, Ordering::Relaxed) {
            seen.handshakes.give(limits.handshakes_of_address);
        }
        if is_over {
            inner.end_one(Among::Trusted, now);
        }
    }

    /// Whoever is at the other end is not trusted, or no longer.
    pub(crate) fn untrusted(&self) {
        let line = &self.0;
        if !line.is_trusted() {
            return;
        }
        let (now, limits) = (Instant::now(), line.gate.limits.load());
        let mut inner = line.gate.lock();
        if !inner.open.contains_key(&line.id) || line.stands.swap(STRANGER, Ordering::Relaxed) != TRUSTED {
            return;
        }
        inner.trusted = inner.trusted.saturating_sub(1);
        inner.strangers += 1;
        let seen = inner.seen(line.source, now, &limits);
        seen.trusted = seen.trusted.saturating_sub(1);
        seen.strangers += 1;
    }

    /// Whether one more request may be asked: strangers may not ask more than so often.
    pub(crate) fn may_ask(&self) -> bool {
        let line = &self.0;
        if line.is_trusted() || matches!(line.source, Source::User(_)) {
            return true;
        }
        let (now, limits) = (Instant::now(), line.gate.limits.load());
        let mut inner = line.gate.lock();
        inner.seen(line.source, now, &limits).requests.take(now, limits.requests)
    }

    /// Whether whoever is at the other end has shown that it is trusted.
    pub(crate) fn is_trusted(&self) -> bool {
        self.0.is_trusted()
    }

    /// Where it comes from.
    pub(crate) fn source(&self) -> Source {
        self.0.source
    }

    /// A request is being answered for as long as the guard lives.
    pub(crate) fn asks(&self) -> Asking {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        Asking(Arc::clone(&self.0))
    }
}

/// A request that is being answered.
pub(crate) struct Asking(Arc<Line>);

impl Drop for Asking {
    fn drop(&mut self) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

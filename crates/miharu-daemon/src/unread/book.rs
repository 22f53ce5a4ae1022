//! The book of unread answers: what each client, all strangers and all who are trusted hold, each buffer once; and what is read from
//! other members.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Client, Full, Made};

/// What the unread answers to one client may hold.
const OF_CLIENT: Share = Share { bytes: 16 << 20, beside: 1 };
/// Those to everybody who is not trusted, together: with `core.metrics_authentication` off they may read metrics.
const OF_STRANGERS: Share = Share { bytes: 32 << 20, beside: 2 };
/// Those to everybody who is: nothing that strangers hold takes anything of it.
const OF_TRUSTED: Share = Share { bytes: 64 << 20, beside: 4 };
/// What is being read from other members, for whoever asks, together. How long that is is up to them: one that is very long leaves room for
/// what others are asked, and takes none of that for answers.
const OF_GATHERED: Share = Share { bytes: 64 << 20, beside: 1 };
/// How much more room there is for an answer that is kept with its collection: others read the same bytes.
const FOR_KEPT: usize = 2;
/// What an answer takes beside its bytes, about.
const OVERHEAD: usize = 512;
/// How often the log tells of answers that were refused.
const TELL: Duration = Duration::from_secs(60);

/// So many bytes beside so many answers as large as the largest: on a host of ten thousand instances one alone is tens of megabytes,
/// and no reason to refuse the next one.
#[derive(Debug, Clone, Copy)]
struct Share {
    bytes: usize,
    beside: usize,
}

impl Share {
    /// Whether there is room for more, of which nothing is room enough, beside what is held.
    fn has_room(self, held: usize, more: usize, largest: usize, made: Made) -> bool {
        let times = if made == Made::ForAll { FOR_KEPT } else { 1 };
        let beside = self.beside.saturating_mul(largest.max(more));
        more == 0 || held.saturating_add(more) <= self.bytes.saturating_mul(times).saturating_add(beside)
    }
}

/// What has a share of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// Answers to who is trusted, at the moment.
    Trusted,
    /// Answers to anybody else.
    Strangers,
    /// What is no answer yet.
    Gathered,
}

impl Group {
    fn share(self) -> Share {
        match self {
            Self::Trusted => OF_TRUSTED,
            Self::Strangers => OF_STRANGERS,
            Self::Gathered => OF_GATHERED,
        }
    }
}

/// Something of each group.
#[derive(Debug, Default)]
struct Each {
    trusted: usize,
    strangers: usize,
    gathered: usize,
}

impl Each {
    fn of(&mut self, group: Group) -> &mut usize {
        match group {
            Group::Trusted => &mut self.trusted,
            Group::Strangers => &mut self.strangers,
            Group::Gathered => &mut self.gathered,
        }
    }

    fn is_nothing(&self) -> bool {
        self.trusted + self.strangers + self.gathered == 0
    }
}

/// What is unread.
#[derive(Debug, Default)]
pub(super) struct Book {
    clients: HashMap<Client, Account>,
    /// By their place in memory, which is nobody else's while they are held.
    buffers: HashMap<usize, Buffer>,
    /// What the groups hold.
    held: Each,
    /// The largest answer of each group since it held none.
    largest: Each,
    refused: u64,
    told: Option<Instant>,
}

/// A buffer that is being sent.
#[derive(Debug)]
struct Buffer {
    weight: usize,
    /// How many clients read it.
    readers: Each,
}

/// What is held for a client.
#[derive(Debug)]
struct Account {
    bytes: usize,
    /// The largest answer since there was none to it.
    largest: usize,
    /// How often each buffer is being sent to it, and what it was when that began.
    buffers: HashMap<usize, (usize, Group)>,
    /// Whether an answer was refused, and nothing was read since.
    is_full: bool,
    turn: Arc<Semaphore>,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            bytes: 0,
            largest: 0,
            buffers: HashMap::new(),
            is_full: false,
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Book {
    /// One more answer to this client, of so many bytes at this place in memory.
    pub(super) fn enter(
        &mut self,
        client: &Client,
        group: Group,
        place: usize,
        bytes: usize,
        made: Made,
    ) -> Result<(), Full> {
        let weight = bytes.saturating_add(OVERHEAD);
        let account = self.clients.entry(client.clone()).or_default();
        if let Some((times, _)) = account.buffers.get_mut(&place) {
            *times += 1;
            return Ok(());
        }
        let is_read = self.buffers.get_mut(&place).is_some_and(|buffer| *buffer.readers.of(group) > 0);
        let more = if is_read { 0 } else { weight };
        let (held, largest) = (self.held.of(group), self.largest.of(group));
        let fits = OF_CLIENT.has_room(account.bytes, weight, account.largest, made);
        if !fits || !group.share().has_room(*held, more, *largest, made) {
            account.is_full = !fits;
            return Err(self.refuse(client, if fits { Full::OfAll } else { Full::OfClient }));
        }
        account.bytes += weight;
        account.largest = account.largest.max(weight);
        *largest = (*largest).max(weight);
        account.buffers.insert(place, (1, group));
        let buffer = self.buffers.entry(place).or_insert(Buffer { weight, readers: Each::default() });
        *buffer.readers.of(group) += 1;
        *held += more;
        Ok(())
    }

    /// What is being gathered has become so long. It has one reader, and one place of its own.
    pub(super) fn grow(&mut self, client: &Client, place: usize, bytes: usize) -> Result<(), Full> {
        let (Some(account), Some(buffer)) = (self.clients.get_mut(client), self.buffers.get_mut(&place))
        else {
            return Ok(());
        };
        let weight = bytes.saturating_add(OVERHEAD);
        let held = self.held.of(Group::Gathered);
        let (own, all) = (account.bytes.saturating_sub(buffer.weight), held.saturating_sub(buffer.weight));
        let fits = OF_CLIENT.has_room(own, weight, account.largest, Made::ForOne);
        let largest = self.largest.of(Group::Gathered);
        if !fits || !OF_GATHERED.has_room(all, weight, *largest, Made::ForOne) {
            account.is_full = !fits;
            return Err(self.refuse(client, if fits { Full::OfAll } else { Full::OfClient }));
        }
        buffer.weight = weight;
        account.bytes = own + weight;
        account.largest = account.largest.max(weight);
        *largest = (*largest).max(weight);
        *held = all + weight;
        Ok(())
    }

    /// An answer was sent, or thrown away.
    pub(super) fn leave(&mut self, client: &Client, place: usize) {
        let Some(account) = self.clients.get_mut(client) else { return };
        let Some((times, group)) = account.buffers.get_mut(&place) else { return };
        *times -= 1;
        account.is_full = false;
        if *times > 0 {
            return;
        }
        let group = *group;
        account.buffers.remove(&place);
        if let Some(buffer) = self.buffers.get_mut(&place) {
            account.bytes = account.bytes.saturating_sub(buffer.weight);
            let readers = buffer.readers.of(group);
            *readers = readers.saturating_sub(1);
            if *readers == 0 {
                let held = self.held.of(group);
                *held = held.saturating_sub(buffer.weight);
                if *held == 0 {
                    *self.largest.of(group) = 0;
                }
            }
            if buffer.readers.is_nothing() {
                self.buffers.remove(&place);
            }
        }
        self.tidy(client);
    }

    /// What a client waits for before something is made for it that costs much; a refusal where it reads too little of what it has
    /// asked for.
    pub(super) fn turn(&mut self, client: &Client) -> Result<Arc<Semaphore>, Full> {
        let account = self.clients.entry(client.clone()).or_default();
        if account.is_full {
            return Err(self.refuse(client, Full::OfClient));
        }
        Ok(Arc::clone(&account.turn))
    }

    /// Forgets a client of whom there is nothing to know.
    pub(super) fn tidy(&mut self, client: &Client) {
        let is_idle = |account: &Account| account.buffers.is_empty() && Arc::strong_count(&account.turn) == 1;
        if self.clients.get(client).is_some_and(is_idle) {
            self.clients.remove(client);
        }
    }

    /// Counts a refusal, and tells of it.
    pub(super) fn refuse(&mut self, client: &Client, full: Full) -> Full {
        self.refused += 1;
        self.tidy(client);
        let now = Instant::now();
        if self.told.is_none_or(|told| now >= told + TELL) {
            tracing::warn!("answers refused: {} until now, the last to {client}: {full}", self.refused);
            self.told = Some(now);
        }
        full
    }

    /// What is held by those who are trusted and by strangers, and how many clients are known.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize, usize) {
        (self.held.trusted, self.held.strangers, self.clients.len())
    }

    /// What is being gathered.
    #[cfg(test)]
    pub(super) fn gathered(&self) -> usize {
        self.held.gathered
    }
}

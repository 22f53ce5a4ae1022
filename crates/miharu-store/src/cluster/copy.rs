//! The local copy: the database, what is in memory of it, and what readers are shown.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::client::{Failure, Listing};
use super::codec;
use super::local::Local;
use super::mirror::{Entry, Membership, Mirror, Row};
use super::rpc::Event;
use super::settings::EtcdAccess;
use super::{BadKey, MemberStatus, Presence, SyncStatus};
use crate::database::{Database, Whole};
use crate::{Error, State};

/// How long a member's lease lasts without being kept, in seconds.
pub(crate) const LEASE_SECONDS: i64 = 10;
/// How often the database is told that the copy is in step, when nothing changes.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

/// What the database knows of this server's being a member.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) membership: Membership,
    pub(crate) access: EtcdAccess,
    /// Whether it was about to become one, and how that went is not known.
    pub(crate) pending: bool,
    pub(crate) removed: bool,
    /// In seconds since 1970.
    pub(crate) synced_at: i64,
}

/// What the readers and the writers of a store share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What readers see; replaced only after a change is on a disk, this server's or etcd's.
    pub(crate) state: ArcSwap<State>,
    /// The database: held for as long as the disk takes, by threads that may block. Who needs both takes this one before
    /// `local`.
    disk: Mutex<Database>,
    /// What is in memory beside the state; held for a moment, and only by [`take_own`](Self::take_own) while the disk is
    /// written.
    local: Mutex<Local>,
    /// Tells that there is something to be written.
    unwritten: Notify,
    /// Tells that the state is another one; it holds the state's revision.
    pub(crate) changed: watch::Sender<u64>,
    /// How the copy stands to etcd; held to read or set a few words.
    sync: Mutex<Sync>,
}

#[derive(Debug)]
struct Sync {
    /// When it was last known to be in step, in this run.
    last: Option<Instant>,
    /// How old it was when this run began, and when that was.
    before: (Option<Duration>, Instant),
    trouble: Option<String>,
    bad_keys: Vec<BadKey>,
}

/// Whether the state is another one by a change, as those who give a revision that they expect understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advance {
    Stay,
    Grow,
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Shared {
    /// Opens the copy as it was left.
    pub(crate) fn open(mut database: Database, stored: Option<&Stored>) -> Result<Self, Error> {
        let member = stored.filter(|stored| !stored.pending);
        let (state, mirror, own) = match member {
            None => (database.load()?, None, BTreeMap::new()),
            Some(stored) => {
                let (mirror, revision, own) = database.copy(stored)?;
                (mirror.state(revision, &own), Some(mirror), own)
            }
        };
        let age =
            member.and_then(|stored| u64::try_from(now() - stored.synced_at).ok()).map(Duration::from_secs);
        let sync = Sync {
            last: None,
            before: (age, Instant::now()),
            trouble: member.map(|_| "etcd was not reached yet".to_owned()),
            bad_keys: mirror.as_ref().map(Mirror::bad_keys).unwrap_or_default(),
        };
        let (changed, _) = watch::channel(state.revision);
        let pending = stored.is_some_and(|stored| stored.pending);
        let local = Local::stored(pending, mirror, own, state.revision);
        Ok(Self {
            state: ArcSwap::from_pointee(state),
            disk: Mutex::new(database),
            local: Mutex::new(local),
            unwritten: Notify::new(),
            changed,
            sync: Mutex::new(sync),
        })
    }

    /// The database's lock. A panic in the middle of a transaction rolls it back, so a poisoned lock guards a sound database.
    pub(crate) fn disk(&self) -> MutexGuard<'_, Database> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync(&self) -> MutexGuard<'_, Sync> {
        self.sync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows readers a state. The lock of `local` is held, so that none is shown after a later one.
    pub(crate) fn show(&self, state: State) {
        let revision = state.revision;
        self.state.store(std::sync::Arc::new(state));
        self.changed.send_replace(revision);
    }

    /// Notes that this server is about to become a member.
    pub(crate) fn begin_joining(&self, stored: &Stored) -> Result<(), Error> {
        self.disk().begin_joining(stored)?;
        self.local().pending = true;
        Ok(())
    }

    /// It did not become one.
    pub(crate) fn give_up_joining(&self) -> Result<(), Error> {
        self.disk().give_up_joining()?;
        self.local().pending = false;
        Ok(())
    }

    /// Becomes a member: everything that was read is the copy from now on.
    pub(crate) fn adopt(&self, stored: &Stored, listing: Listing) -> Result<(), Error> {
        let mut disk = self.disk();
        let mut mirror = Mirror::new(stored.membership.clone());
        let rows = fill(&mut mirror, listing, stored);
        let at = now();
        let revision = disk.finish_joining(&rows, at)?;
        let mut local = self.local();
        local.revision = revision;
        local.own = self.state.load().config.values().clone();
        local.own.retain(|key, _| super::is_member_key(key));
        self.sync().bad_keys = mirror.bad_keys();
        self.show(mirror.state(local.revision, &local.own));
        local.mirror = Some(mirror);
        local.pending = false;
        drop(local);
        self.in_step(Instant::now());
        Ok(())
    }

    /// Is one of its own again, with this for its state.
    pub(crate) fn leave(&self, last: &State) -> Result<(), Error> {
        let mut disk = self.disk();
        let alone = disk.leave(last)?;
        let mut local = self.local();
        local.mirror = None;
        local.own.clear();
        local.rows.clear();
        local.is_written = true;
        local.revision = alone.revision;
        self.show(alone);
        Ok(())
    }

    /// Everything that etcd holds now takes the place of the copy.
    pub(crate) fn take_listing(&self, stored: &Stored, listing: Listing) -> Result<(), Failure> {
        let mut local = self.local();
        let Some(before) = local.mirror.take() else { return Ok(()) };
        let mut mirror = before.successor();
        let rows = fill(&mut mirror, listing, stored);
        if let Err(failure) = is_ours(&mirror) {
            // An etcd that was emptied, or is another's, takes nothing from the last copy.
            local.mirror = Some(before);
            return Err(failure);
        }
        let changes = mirror.base() != before.base() || mirror.removed != before.removed;
        local.mirror = Some(mirror);
        self.keep(local, rows, Whole::Replaced, if changes { Advance::Grow } else { Advance::Stay });
        Ok(())
    }

    /// What has changed since, all of one revision or of several. Whether this member is still one.
    pub(crate) fn take_events(&self, prefix: &str, revision: i64, events: Vec<Event>) -> Result<(), Failure> {
        let mut local = self.local();
        let Some(mirror) = local.mirror.as_mut() else { return Ok(()) };
        still_ours(mirror, prefix, &events)?;
        let (base, removed, at) = (mirror.base(), mirror.removed, now());
        let mut rows = Vec::new();
        for event in events {
            let Some(kv) = event.kv else { continue };
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let Some(key) = key.strip_prefix(prefix) else { continue };
            let entry = (event.kind == 0).then(|| Entry::from(kv));
            rows.extend(mirror.apply(key, entry, at));
        }
        mirror.revision = mirror.revision.max(revision);
        let changes = mirror.base() != base || mirror.removed != removed;
        self.keep(local, rows, Whole::Added, if changes { Advance::Grow } else { Advance::Stay });
        Ok(())
    }

    /// A change that was made here, at `revision`: it is shown, if the watch has not brought it already, and on the disk when
    /// this returns.
    pub(crate) fn take_made(
        &self,
        revision: i64,
        writes: &[(String, Option<Vec<u8>>)],
    ) -> Result<(), Failure> {
        let mut local = self.local();
        if let Some(mirror) = local.mirror.as_mut().filter(|mirror| mirror.revision < revision) {
            let (mut rows, at) = (Vec::new(), now());
            for (key, value) in writes {
                let created = Some(mirror.stamp(key).0).filter(|created| *created != 0).unwrap_or(revision);
                let entry = value.clone().map(|value| Entry { value, created, modified: revision });
                rows.extend(mirror.apply(key, entry, at));
            }
            self.keep(local, rows, Whole::Added, Advance::Grow);
        } else {
            drop(local);
        }
        self.flush()
    }

    /// This member's own keys become these. They are nowhere but here, so that they are on the disk before anybody sees them.
    pub(crate) fn take_own(&self, own: BTreeMap<String, String>) -> Result<(), Failure> {
        let mut disk = self.disk();
        let mut local = self.local();
        let before = std::mem::replace(&mut local.own, own);
        local.revision += 1;
        if let Err(failure) = local.pay(&mut disk, self.age()) {
            local.own = before;
            return Err(failure);
        }
        if let Some(mirror) = local.mirror.as_ref() {
            self.show(mirror.state(local.revision, &local.own));
        }
        Ok(())
    }

    /// Shows what has changed, and has it stored: etcd has it on its disks already, and a certificate that was revoked is not
    /// trusted for as long as the disk here takes, or because it is full.
    fn keep(&self, mut guard: MutexGuard<'_, Local>, rows: Vec<Row>, whole: Whole, revision: Advance) {
        let local = &mut *guard;
        let Some(mirror) = local.mirror.as_ref() else { return };
        self.sync().bad_keys = mirror.bad_keys();
        if rows.is_empty() && whole == Whole::Added && revision == Advance::Stay {
            return;
        }
        local.revision += u64::from(revision == Advance::Grow);
        self.show(mirror.state(local.revision, &local.own));
        local.owe(rows, whole);
        self.unwritten.notify_one();
    }

    /// Writes what the database does not have yet. Blocks for as long as the disk takes.
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        let mut disk = self.disk();
        let debt = {
            let mut local = self.local();
            let is_due = local.noted.is_none_or(|noted| noted.elapsed() >= NOTE_INTERVAL);
            if local.is_written && !is_due { None } else { local.debt(self.age()) }
        };
        let Some(debt) = debt else { return Ok(()) };
        let written = debt.write(&mut disk);
        self.local().paid(written)
    }

    /// Waits until there is something to be written, or to be noted.
    pub(crate) async fn owes(&self) {
        let _ = tokio::time::timeout(NOTE_INTERVAL, self.unwritten.notified()).await;
    }

    /// What this copy has seen of which etcd, up to which revision: from there a watch can go on.
    pub(crate) fn seen(&self) -> (u64, i64) {
        self.local().mirror.as_ref().map_or((0, 0), |mirror| (mirror.etcd, mirror.revision))
    }

    /// Everything has to be read again.
    pub(crate) fn read_anew(&self) {
        if let Some(mirror) = self.local().mirror.as_mut() {
            mirror.revision = 0;
        }
    }

    /// What the members said of themselves last.
    pub(crate) fn take_statuses(&self, prefix: &str, listing: Listing) {
        let mut statuses = BTreeMap::new();
        for kv in listing.entries {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let Some(name) = key.strip_prefix(prefix) else { continue };
            // What cannot be read is not shown; it is of no other consequence.
            if let Ok(status) = codec::read_status(&kv.value) {
                statuses.insert(name.to_owned(), status);
            }
        }
        let mut local = self.local();
        let Some(mirror) = local.mirror.as_mut() else { return };
        mirror.take_statuses(statuses);
    }

    /// The copy was known to be what etcd held at this moment.
    pub(crate) fn in_step(&self, at: Instant) {
        let mut sync = self.sync();
        sync.last = Some(at);
        sync.trouble = None;
    }

    /// etcd cannot be read or changed, for this reason.
    pub(crate) fn trouble(&self, words: &str) {
        self.sync().trouble = Some(words.to_owned());
    }

    /// For how long the copy has not been known to be in step, by a clock that nobody sets.
    pub(crate) fn age(&self) -> Option<Duration> {
        let sync = self.sync();
        match (sync.last, sync.before) {
            (Some(last), _) => Some(last.elapsed()),
            (None, (age, start)) => age.map(|age| age + start.elapsed()),
        }
    }

    pub(crate) fn sync_status(&self) -> SyncStatus {
        let age = self.age();
        let sync = self.sync();
        SyncStatus { age, trouble: sync.trouble.clone(), bad_keys: sync.bad_keys.clone() }
    }

    /// Who is there; of a copy that is older than a lease nobody else can be told to be.
    pub(crate) fn presence(&self) -> Presence {
        let age = self.age();
        // Who kept its lease was there when the copy was last in step.
        let at = age.map(|age| now() - i64::try_from(age.as_secs()).unwrap_or_default());
        let mut presence = self
            .local()
            .mirror
            .as_ref()
            .map(|mirror| mirror.presence(at.unwrap_or_default()))
            .unwrap_or_default();
        let lease = Duration::from_secs(LEASE_SECONDS.unsigned_abs());
        let known = age.is_some_and(|age| age <= lease);
        let own = self.state.load().cluster.as_ref().map(|cluster| cluster.member.clone());
        for (name, member) in &mut presence.members {
            if Some(name) == own.as_ref() {
                (member.status, member.last_seen) = (MemberStatus::Online, Some(now()));
            } else if !known {
                member.last_seen = member.last_seen.filter(|_| at.is_some());
                member.status = MemberStatus::Unknown;
            }
        }
        presence
    }
}

/// Takes all that was read.
fn fill(mirror: &mut Mirror, listing: Listing, stored: &Stored) -> Vec<Row> {
    let prefix = &stored.access.prefix;
    let at = now();
    let mut rows = Vec::new();
    for kv in listing.entries {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        if let Some(key) = key.strip_prefix(prefix.as_str()) {
            rows.extend(mirror.apply(key, Some(Entry::from(kv)), at));
        }
    }
    for key in listing.too_long {
        let key = String::from_utf8_lossy(&key).into_owned();
        mirror.too_long(key.strip_prefix(prefix.as_str()).unwrap_or(&key));
    }
    (mirror.revision, mirror.etcd) = (listing.revision, listing.etcd);
    mirror.settle();
    rows
}

/// Whether news leave the cluster what it is. They are looked at before anything is taken from them: who empties etcd takes
/// nothing from the last copy.
fn still_ours(mirror: &Mirror, prefix: &str, events: &[Event]) -> Result<(), Failure> {
    for event in events {
        let Some(kv) = event.kv.as_ref() else { continue };
        if kv.key.strip_prefix(prefix.as_bytes()) != Some(b"cluster") {
            continue;
        }
        let found = codec::read_cluster(&kv.value).ok().filter(|_| event.kind == 0);
        if found.is_none_or(|found| found.id != mirror.membership.cluster) {
            return Err(Failure::Unexpected(
                "the cluster was taken out of etcd, or another put there".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Whether what is there is the cluster that this server is a member of.
fn is_ours(mirror: &Mirror) -> Result<(), Failure> {
    match mirror.found_cluster() {
        Some(found) if found.id == mirror.membership.cluster => Ok(()),
        Some(found) => Err(Failure::Unexpected(format!(
            "etcd holds another cluster here ({}) than the one this server is in ({})",
            found.id.chars().filter(|c| !c.is_control()).take(40).collect::<String>(),
            mirror.membership.cluster
        ))),
        None => Err(Failure::Unexpected(
            "etcd holds no cluster here any more; was it emptied, or does a later version run it?".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests;

//! Keeps the copy in step with etcd: read everything, watch from there, make sure now and then that nothing was missed, and begin
//! anew with the next endpoint when anything fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::Streaming;

use super::Report;
use super::client::{Client, Failure, Outcome, created_at, failure, put};
use super::codec::{self, StatusDoc};
use super::copy::{LEASE_SECONDS, Shared, Stored, now};
use super::engine::Link;
use super::rpc::WatchResponse;
use super::seal;

/// How often it is made sure that the copy is in step, and the lease is kept.
const TICK: Duration = Duration::from_secs(3);
/// How long the watch may be behind what a read has found.
const WATCH_LIMIT: Duration = Duration::from_secs(2);
/// How long the first look over a new connection may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// The pauses between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A connection that held for so long is no reason for a longer pause.
const GOOD_WHILE: Duration = Duration::from_secs(30);
/// How often the log is told that etcd is away.
const WARN_INTERVAL: Duration = Duration::from_secs(600);
/// How often a member says that it is there, when it has nothing else to say; and how often at most how many instances it has.
const STATUS_INTERVAL: Duration = Duration::from_secs(60);
const STATUS_PAUSE: Duration = Duration::from_secs(10);
/// How long it is waited for the daemon's first report.
const REPORT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a server that stops may take to end its lease.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// The wires to the thread.
#[derive(Debug)]
pub(crate) struct Wires {
    pub(crate) link: watch::Sender<Link>,
    pub(crate) report: watch::Receiver<Report>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) broken: watch::Receiver<u64>,
}

/// Why there is nothing left to keep in step.
enum End {
    /// The server stops, or leaves.
    Stopped,
    /// It never became a member.
    NeverJoined,
    /// Another member took it out.
    Removed,
}

/// Keeps the copy in step until there is no more reason to.
pub(crate) async fn run(shared: &Arc<Shared>, stored: &Stored, mut wires: Wires) {
    let mut stored = stored.clone();
    let endpoints = stored.access.endpoints().to_vec();
    // Members of one cluster begin with different endpoints.
    let start = seal::random::<8>().map_or(0, usize::from_le_bytes);
    let mut turn = start % endpoints.len().max(1);
    let mut pause = PAUSES.0;
    let (mut lease, mut warned) = (None, None);
    loop {
        let Some(endpoint) = endpoints.get(turn % endpoints.len().max(1)) else { return };
        let begin = Instant::now();
        let mut stop = wires.stop.clone();
        let ended = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => Ok(End::Stopped),
            ended = session(shared, &mut stored, endpoint, &mut wires, &mut lease) => ended,
        };
        let mut client = None;
        wires.link.send_modify(|link| {
            client = link.client.take();
            link.number += 1;
            link.failed += 1;
        });
        // What the connection brought last.
        if let Err(failure) = shared.flush() {
            tracing::warn!("{failure}");
        }
        if let (Ok(End::Stopped), Some(client), Some(lease)) = (&ended, client, lease) {
            // The others see at once that this member is away.
            let _ = timeout(GOODBYE_LIMIT, client.revoke(lease)).await;
        }
        match ended {
            Ok(End::Stopped) => return,
            Ok(End::NeverJoined) => {
                tracing::warn!("this server did not become a member of the cluster: it goes on alone");
                let _ = stop.wait_for(|stop| *stop).await;
                return;
            }
            Ok(End::Removed) => {
                let words = "this server was removed from the cluster by another member; `miharu cluster leave` makes it \
                             one of its own again";
                tracing::error!("{words}");
                shared.trouble(words);
                let _ = stop.wait_for(|stop| *stop).await;
                return;
            }
            Err(failure) => {
                if !matches!(failure, Failure::Away(_)) {
                    // A watch that goes on where it stopped would meet the same again.
                    shared.read_anew();
                }
                let words = format!("{endpoint}: {failure}");
                // An outage of hours is not to fill the log.
                if warned.is_none_or(|warned: Instant| warned.elapsed() >= WARN_INTERVAL) {
                    warned = Some(Instant::now());
                    tracing::warn!("the cluster's store cannot be reached: {words}");
                } else {
                    tracing::debug!("the cluster's store cannot be reached: {words}");
                }
                shared.trouble(&words);
            }
        }
        if begin.elapsed() >= GOOD_WHILE {
            pause = PAUSES.0;
            warned = None;
        }
        // Members that lost the same etcd do not come back all at once.
        let part = seal::random::<1>().map_or(128, |[byte]| u32::from(byte));
        let wait = pause * (128 + part) / 256;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(wait) => {}
        }
        turn += 1;
        // Every endpoint gets its turn before the next pause is a longer one.
        if turn % endpoints.len().max(1) == start % endpoints.len().max(1) {
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// One connection's life.
async fn session(
    shared: &Arc<Shared>,
    stored: &mut Stored,
    endpoint: &str,
    wires: &mut Wires,
    lease: &mut Option<i64>,
) -> Result<End, Failure> {
    let client = Client::connect(&stored.access, endpoint).await?;
    // One that is cut off from the others takes connections, but reads nothing; the next is better soon asked.
    let first = [format!("{}cluster", stored.access.prefix)];
    let looking = timeout(LOOK_LIMIT, client.get_all(&first));
    let (_, found) = looking
        .await
        .unwrap_or_else(|_| Err(Failure::Away("no answer: it may have no leader".to_owned())))?;
    let read_at = Instant::now();
    let (etcd, seen) = shared.seen();
    // Where a watch can go on from what was seen last, not every member reads everything because etcd was away a moment.
    let goes_on = !stored.pending
        && seen > 0
        && etcd == found.cluster_id
        && found.revision >= seen
        && is_same_history(shared, &client, &stored.access.prefix, seen).await;
    let revision = if goes_on { seen } else { read_everything(shared, stored, &client).await? };
    if revision == 0 {
        return Ok(End::NeverJoined);
    }
    if is_removed(shared) {
        return Ok(End::Removed);
    }
    let watch = client.watch(&stored.access.prefix, revision + 1).await?;
    if !goes_on {
        shared.in_step(read_at);
    }
    tracing::info!(endpoint, revision, "connected to the cluster's store");
    wires.link.send_modify(|link| {
        *link = Link { client: Some(client.clone()), number: link.number + 1, failed: 0 };
    });
    wires.broken.mark_unchanged();
    let (prefix, mut report, mut broken) =
        (stored.access.prefix.clone(), wires.report.clone(), wires.broken.clone());
    let link = &wires.link;
    tokio::select! {
        ended = watching(shared, &prefix, watch) => ended,
        ended = tending(shared, PresenceKeys::new(stored, lease), &client, &mut report) => ended,
        ended = writing(shared) => ended,
        // Who found the connection broken says so; a look of one's own tells whether it is.
        ended = async {
            loop {
                if broken.changed().await.is_err() {
                    return Ok(End::Stopped);
                }
                let first = format!("{prefix}revision");
                let looking = timeout(LOOK_LIMIT, client.get(&first)).await;
                looking.unwrap_or_else(|_| Err(Failure::Away("no answer any more".to_owned())))?;
                // It was etcd's majority that was missing; who waits for another connection may go on with this one.
                link.send_modify(|link| link.number += 1);
            }
        } => ended,
    }
}

/// Whether the last change that this copy knows is the one that etcd had at that revision. An etcd that was restored from a
/// snapshot can be the same by its id, and have come as far again by other changes: what was lost would stay here for good.
async fn is_same_history(shared: &Shared, client: &Client, prefix: &str, seen: i64) -> bool {
    let known = {
        let local = shared.local();
        local.mirror.as_ref().map(|mirror| (mirror.base(), mirror.mark.clone()))
    };
    // What cannot be read, because it is no longer in the history, is read anew.
    let found = client.get_at(&format!("{prefix}revision"), seen).await.ok().flatten();
    known.is_some() && found.map(|kv| (kv.mod_revision, kv.value)) == known
}

/// Reads everything; the revision of that, or 0 when this server turns out not to have become a member.
async fn read_everything(shared: &Arc<Shared>, stored: &mut Stored, client: &Client) -> Result<i64, Failure> {
    let listing = client.list(&stored.access.prefix).await?;
    let revision = listing.revision;
    if !stored.pending {
        shared.take_listing(stored, listing)?;
        return Ok(revision);
    }
    let own = format!("{}members/{}", stored.access.prefix, stored.membership.member);
    let own = listing.entries.iter().find(|kv| kv.key == own.as_bytes());
    let joined = own.and_then(|kv| codec::read_member(&stored.membership.member, &kv.value).ok());
    let disk = |error: crate::Error| Failure::Unexpected(error.to_string());
    if joined.is_none_or(|member| member.id != stored.membership.member_id) {
        shared.give_up_joining().map_err(disk)?;
        return Ok(0);
    }
    shared.adopt(stored, listing).map_err(disk)?;
    stored.pending = false;
    Ok(revision)
}

fn is_removed(shared: &Shared) -> bool {
    shared.local().mirror.as_ref().is_some_and(|mirror| mirror.removed)
}

/// Writes to the database, beside all else, as a disk can be slow.
async fn writing(shared: &Arc<Shared>) -> Result<End, Failure> {
    loop {
        shared.owes().await;
        let shared = Arc::clone(shared);
        let written = tokio::task::spawn_blocking(move || shared.flush()).await;
        written.map_err(|error| Failure::Unexpected(error.to_string()))??;
    }
}

/// Takes what the watch brings.
async fn watching(
    shared: &Shared,
    prefix: &str,
    mut watch: Streaming<WatchResponse>,
) -> Result<End, Failure> {
    loop {
        let Some(news) = watch.message().await.map_err(failure)? else {
            return Err(Failure::Away("etcd ended the watch".to_owned()));
        };
        if news.compact_revision > 0 {
            shared.read_anew();
            return Err(Failure::Away(
                "what was missed is no longer in etcd's history: everything is read again".to_owned(),
            ));
        }
        if news.canceled {
            shared.read_anew();
            let reason: String = news.cancel_reason.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(Failure::Away(format!("etcd ended the watch: {reason}")));
        }
        let revision = news.header.map_or(0, |header| header.revision);
        // The answer to the watch's making brings no events, and its revision may be ahead of events that are still to come.
        if news.events.is_empty() {
            continue;
        }
        let last = news.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision).max();
        shared.take_events(prefix, last.unwrap_or(revision), news.events)?;
        if is_removed(shared) {
            return Ok(End::Removed);
        }
    }
}

/// What a member does now and then.
async fn tending(
    shared: &Shared,
    mut presence: PresenceKeys<'_>,
    client: &Client,
    report: &mut watch::Receiver<Report>,
) -> Result<End, Failure> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, begin) = (None::<Instant>, Instant::now());
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                verify(shared, &presence.prefix, client).await?;
                presence.keep(shared, client).await?;
            }
            // Its sender lives as long as the engine.
            _ = report.changed() => {}
        }
        let due = told.is_none_or(|told: Instant| told.elapsed() >= STATUS_INTERVAL);
        let now = report.borrow_and_update().clone();
        // The daemon says what this member is soon after the store was opened; there is nothing to tell before.
        let is_known = now != Report::default() || begin.elapsed() >= REPORT_PATIENCE;
        let worth = presence.worth(&now, told);
        if presence.lease.is_some() && is_known && (due || worth) {
            presence.tell(shared, client, now).await?;
            told = Some(Instant::now());
            if due {
                ask_statuses(shared, &presence.prefix, client).await?;
            }
        }
    }
}

/// Makes sure, by a read through etcd's majority, that the copy is what etcd holds.
async fn verify(shared: &Shared, prefix: &str, client: &Client) -> Result<(), Failure> {
    let (_, before) = shared.seen();
    let asked_at = Instant::now();
    let (found, header) = client.get_all(&[format!("{prefix}revision"), format!("{prefix}cluster")]).await?;
    let [number, cluster] = found.as_slice() else {
        return Err(Failure::Unexpected("an answer that is none".to_owned()));
    };
    if header.revision < before {
        shared.read_anew();
        return Err(Failure::Unexpected("etcd has gone back in time: everything is read again".to_owned()));
    }
    if cluster.is_none() {
        shared.read_anew();
        return Err(Failure::Unexpected("etcd holds no cluster here any more".to_owned()));
    }
    let wanted = number.as_ref().map_or(0, |kv| kv.mod_revision);
    let caught_up = async {
        while shared.local().mirror.as_ref().is_some_and(|mirror| mirror.base() < wanted) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(WATCH_LIMIT, caught_up).await {
        Ok(()) => {
            shared.in_step(asked_at);
            Ok(())
        }
        Err(_) => {
            shared.read_anew();
            Err(Failure::Away("the watch has fallen behind: everything is read again".to_owned()))
        }
    }
}

/// Reads what the members said of themselves last.
pub(crate) async fn ask_statuses(shared: &Shared, prefix: &str, client: &Client) -> Result<(), Failure> {
    let prefix = format!("{prefix}~status/");
    let listing = client.list_all(&prefix).await?;
    shared.take_statuses(&prefix, listing);
    Ok(())
}

/// What this member keeps in etcd of its being there.
struct PresenceKeys<'a> {
    prefix: String,
    name: String,
    /// It outlives a connection.
    lease: &'a mut Option<i64>,
    said: Option<Report>,
}

impl<'a> PresenceKeys<'a> {
    fn new(stored: &Stored, lease: &'a mut Option<i64>) -> Self {
        let (prefix, name) = (stored.access.prefix.clone(), stored.membership.member.clone());
        Self { prefix, name, lease, said: None }
    }

    fn key(&self, kind: &str) -> String {
        format!("{}{kind}/{}", self.prefix, self.name)
    }

    /// The member's own entry, which all of this hangs on: who was removed leaves no trace.
    fn own(&self, shared: &Shared) -> (i64, i64) {
        let local = shared.local();
        local.mirror.as_ref().map_or((0, 0), |mirror| mirror.stamp(&format!("members/{}", self.name)))
    }

    /// Keeps the lease, or takes one.
    async fn keep(&mut self, shared: &Shared, client: &Client) -> Result<(), Failure> {
        if let Some(lease) = *self.lease {
            if client.keep(lease).await? {
                return Ok(());
            }
            *self.lease = None;
        }
        let lease = client.grant(LEASE_SECONDS).await?;
        let compare = vec![created_at(&self.key("members"), self.own(shared).0)];
        let here = vec![put(&self.key("alive"), now().to_string(), lease)];
        if let Outcome::Done(_) = client.transact(compare, here, &[]).await? {
            *self.lease = Some(lease);
        }
        Ok(())
    }

    /// Whether this is worth telling before its time: where the member is and what it runs at once, how many instances after a
    /// pause.
    fn worth(&self, now: &Report, told: Option<Instant>) -> bool {
        let Some(said) = &self.said else { return true };
        let elsewhere = Report { instances: now.instances, ..said.clone() } != *now;
        elsewhere || (said != now && told.is_none_or(|told| told.elapsed() >= STATUS_PAUSE))
    }

    /// Tells the others what is to be told.
    async fn tell(&mut self, shared: &Shared, client: &Client, report: Report) -> Result<(), Failure> {
        let own = self.own(shared).0;
        let compare = || vec![created_at(&self.key("members"), own)];
        let status =
            StatusDoc { version: report.version.clone(), instances: report.instances, seen_at: now() };
        let mut writes = vec![put(&self.key("~status"), codec::write_status(&status), 0)];
        let member = {
            let local = shared.local();
            local.mirror.as_ref().and_then(|mirror| mirror.members().get(&self.name).cloned())
        };
        // Until the daemon has said where it is, what is known stays.
        if let Some(member) = member.filter(|_| report != Report::default()) {
            let mut next = super::Member::clone(&member);
            next.address.clone_from(&report.address);
            next.metrics_address.clone_from(&report.metrics_address);
            if next != *member {
                writes.push(put(&self.key("members"), codec::write_member(&next), 0));
            }
        }
        client.transact(compare(), writes, &[]).await?;
        self.said = Some(report);
        Ok(())
    }
}

//! What is wrong now: an entry a cause, which comes and goes by itself, and is logged when it does.
//!
//! What is well again is remembered for a day: when it goes wrong once more it is the same warning, and one that was
//! acknowledged still is.

mod problem;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use miharu_api::{Lifecycle, Warning};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::events::Events;
use crate::respond::path;
pub(crate) use problem::{Counted, Kind, Problem};

/// Warnings of one group beyond so many are left out: an instance can cause some, and no instance may fill the memory.
const GROUP_LIMIT: usize = 500;
/// How long what is well again is remembered, and how much of it.
const REMEMBERED: (Duration, usize) = (Duration::DAY, 500);

/// What is looked at together: a look tells all that is wrong in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Each tells of itself.
    Single,
    /// A collection.
    Collection,
    /// Certificates, the server's own and trusted ones.
    Certificates,
    /// The server's being a member of a cluster.
    Cluster,
}

/// What people said to a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    New,
    Acknowledged,
}

#[derive(Debug)]
struct Entry {
    problem: Problem,
    group: Group,
    status: Status,
    count: u64,
    first_seen: OffsetDateTime,
    last_seen: OffsetDateTime,
    /// When it was seen to be well again, if it is.
    resolved: Option<OffsetDateTime>,
}

/// The warnings, by their identifiers. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings {
    /// Held for a look-up or an assignment each.
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    events: Events,
}

impl Warnings {
    pub(crate) fn new(events: Events) -> Self {
        Self { entries: Arc::default(), events }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is wrong; it is logged unless it was said before.
    pub(crate) fn set(&self, problem: Problem) {
        self.seen(Group::Single, problem);
    }

    /// It is well again.
    pub(crate) fn clear(&self, kind: Kind, cause: &str) {
        self.resolve(&uuid(kind, cause));
    }

    /// Exactly these things are wrong in a group, whatever was before.
    pub(crate) fn replace(&self, group: Group, problems: Vec<Problem>) {
        let problems: Vec<Problem> = problems.into_iter().take(GROUP_LIMIT).collect();
        let wrong: BTreeSet<String> = problems.iter().map(Problem::uuid).collect();
        let standing = |(uuid, entry): (&String, &Entry)| {
            let is_gone = entry.group == group && entry.resolved.is_none() && !wrong.contains(uuid);
            is_gone.then(|| uuid.clone())
        };
        let gone: Vec<String> = self.lock().iter().filter_map(standing).collect();
        for uuid in gone {
            self.resolve(&uuid);
        }
        for problem in problems {
            self.seen(group, problem);
        }
        self.forget();
    }

    fn seen(&self, group: Group, problem: Problem) {
        let now = OffsetDateTime::now_utc();
        let uuid = problem.uuid();
        let mut entries = self.lock();
        let is_news = match entries.get_mut(&uuid) {
            Some(entry) => {
                let is_news = entry.resolved.take().is_some();
                if is_news || entry.problem.message != problem.message {
                    tracing::warn!("{}", problem.message);
                }
                entry.problem = problem;
                entry.count = entry.count.saturating_add(1);
                entry.last_seen = now;
                is_news
            }
            None => {
                tracing::warn!("{}", problem.message);
                let entry = Entry {
                    problem,
                    group,
                    status: Status::New,
                    count: 1,
                    first_seen: now,
                    last_seen: now,
                    resolved: None,
                };
                entries.insert(uuid.clone(), entry);
                true
            }
        };
        if is_news {
            self.tell("warning-created", &uuid, &entries);
        }
    }

    fn resolve(&self, uuid: &str) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uuid).filter(|entry| entry.resolved.is_none()) else { return };
        entry.resolved = Some(OffsetDateTime::now_utc());
        tracing::info!("no longer: {}", entry.problem.message);
        self.tell("warning-resolved", uuid, &entries);
    }

    /// Drops what has been well for long, and the oldest of too much.
    fn forget(&self) {
        let now = OffsetDateTime::now_utc();
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.resolved.is_none_or(|resolved| now - resolved < REMEMBERED.0));
        let mut resolved: Vec<_> = entries
            .iter()
            .filter_map(|(uuid, entry)| entry.resolved.map(|resolved| (resolved, uuid.clone())))
            .collect();
        resolved.sort();
        let excess = resolved.len().saturating_sub(REMEMBERED.1);
        for (_, uuid) in resolved.into_iter().take(excess) {
            entries.remove(&uuid);
        }
    }

    fn tell(&self, action: &str, uuid: &str, entries: &BTreeMap<String, Entry>) {
        let project = entries.get(uuid).and_then(|entry| entry.problem.project.as_deref());
        let source = path("warnings", uuid);
        self.events
            .lifecycle(project, &Lifecycle { action: action.to_owned(), source, ..Lifecycle::default() });
    }

    /// How many stand that this server counts.
    pub(crate) fn count(&self) -> usize {
        let counts = |entry: &&Entry| entry.resolved.is_none() && entry.problem.counted == Counted::Here;
        self.lock().values().filter(counts).count()
    }

    /// All of them, those that are well again too.
    pub(crate) fn list(&self) -> Vec<Warning> {
        self.forget();
        self.lock().iter().map(|(uuid, entry)| entry.shown(uuid)).collect()
    }

    /// One of them.
    pub(crate) fn get(&self, uuid: &str) -> Option<Warning> {
        self.lock().get(uuid).map(|entry| entry.shown(uuid))
    }

    /// What people say to it; whether there is such a warning.
    #[must_use]
    pub(crate) fn put_status(&self, uuid: &str, status: Status) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uuid) else { return false };
        entry.status = status;
        let action = match status {
            Status::New => "warning-reset",
            Status::Acknowledged => "warning-acknowledged",
        };
        self.tell(action, uuid, &entries);
        true
    }

    /// Takes one away; what is still wrong is seen again as a new one. Says whether there was such a warning.
    #[must_use]
    pub(crate) fn remove(&self, uuid: &str) -> bool {
        let mut entries = self.lock();
        let is_there = entries.contains_key(uuid);
        if is_there {
            self.tell("warning-deleted", uuid, &entries);
            entries.remove(uuid);
        }
        is_there
    }
}

impl Entry {
    fn shown(&self, uuid: &str) -> Warning {
        let written = |moment: OffsetDateTime| moment.format(&Rfc3339).unwrap_or_default();
        let status = match (self.resolved, self.status) {
            (Some(_), _) => "resolved",
            (None, Status::New) => "new",
            (None, Status::Acknowledged) => "acknowledged",
        };
        Warning {
            status: status.to_owned(),
            uuid: uuid.to_owned(),
            location: "none".to_owned(),
            project: self.problem.project.clone().unwrap_or_default(),
            warning_type: self.problem.kind.name().to_owned(),
            count: self.count,
            first_seen_at: written(self.first_seen),
            last_seen_at: written(self.last_seen),
            last_message: self.problem.message.clone(),
            severity: self.problem.kind.severity().to_owned(),
            entity_url: self.problem.entity.clone(),
        }
    }
}

impl Problem {
    fn uuid(&self) -> String {
        uuid(self.kind, &self.cause)
    }
}

/// An identifier that depends on nothing but what is wrong, so that it outlives the daemon: a UUID of version 8 (RFC
/// 9562, section 5.8).
fn uuid(kind: Kind, cause: &str) -> String {
    let digest = miharu_store::fingerprint(format!("{}\0{cause}", kind.name()).as_bytes());
    let mut uuid = String::with_capacity(36);
    for (at, digit) in digest.chars().take(32).enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            uuid.push('-');
        }
        uuid.push(match at {
            12 => '8',
            16 => '8',
            _ => digit,
        });
    }
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(cause: &str, message: &str) -> Problem {
        Problem::of_server(Kind::Incomplete, cause, message.to_owned())
    }

    fn statuses(warnings: &Warnings) -> Vec<(String, String, u64)> {
        let mut list: Vec<_> = warnings
            .list()
            .into_iter()
            .map(|warning| (warning.last_message, warning.status, warning.count))
            .collect();
        list.sort();
        list
    }

    fn row(message: &str, status: &str, count: u64) -> (String, String, u64) {
        (message.to_owned(), status.to_owned(), count)
    }

    #[test]
    fn a_group_is_replaced_as_a_whole_and_what_is_well_again_is_remembered() {
        let warnings = Warnings::default();
        warnings.set(Problem::of_server(Kind::Listener, "core.https_address", "port taken".to_owned()));
        warnings.replace(Group::Collection, vec![problem("a", "a"), problem("b", "b")]);
        assert_eq!(warnings.count(), 3);
        warnings.replace(Group::Collection, vec![problem("b", "b again")]);
        assert_eq!(warnings.count(), 2);
        let expected = [row("a", "resolved", 1), row("b again", "new", 2), row("port taken", "new", 1)];
        assert_eq!(statuses(&warnings), expected);
        warnings.replace(Group::Collection, vec![problem("a", "a")]);
        assert_eq!(statuses(&warnings).first(), Some(&row("a", "new", 2)));
    }

    #[test]
    fn a_cause_has_one_warning_with_one_identifier() {
        let warnings = Warnings::default();
        warnings.set(problem("a", "broken"));
        let uuid = warnings.list().first().unwrap().uuid.clone();
        warnings.clone().set(problem("a", "still broken"));
        assert_eq!((warnings.count(), warnings.get(&uuid).unwrap().count), (1, 2));
        warnings.clear(Kind::Incomplete, "a");
        warnings.clear(Kind::Incomplete, "a");
        assert_eq!((warnings.count(), warnings.get(&uuid).unwrap().status.as_str()), (0, "resolved"));
        let bytes = uuid.as_bytes();
        assert_eq!((uuid.len(), bytes[8], bytes[14], bytes[19]), (36, b'-', b'8', b'8'));
    }

    #[test]
    fn what_was_acknowledged_stays_so_and_what_was_deleted_comes_anew() {
        let warnings = Warnings::default();
        warnings.replace(Group::Collection, vec![problem("a", "a")]);
        let uuid = warnings.list().first().unwrap().uuid.clone();
        assert!(warnings.put_status(&uuid, Status::Acknowledged));
        warnings.replace(Group::Collection, Vec::new());
        warnings.replace(Group::Collection, vec![problem("a", "a")]);
        assert_eq!(statuses(&warnings), [row("a", "acknowledged", 2)]);
        assert!(warnings.put_status(&uuid, Status::New));
        assert_eq!(statuses(&warnings), [row("a", "new", 2)]);
        assert!(warnings.remove(&uuid));
        assert!(!warnings.remove(&uuid) && !warnings.put_status(&uuid, Status::New));
        warnings.replace(Group::Collection, vec![problem("a", "a")]);
        assert_eq!(statuses(&warnings), [row("a", "new", 1)]);
    }

    #[test]
    fn no_group_fills_the_memory() {
        let warnings = Warnings::default();
        for round in 0..3 {
            let many = (0..GROUP_LIMIT + 50).map(|at| problem(&format!("{round}.{at}"), "wrong"));
            warnings.replace(Group::Collection, many.collect());
        }
        assert_eq!(warnings.count(), GROUP_LIMIT);
        assert_eq!(warnings.list().len(), GROUP_LIMIT + REMEMBERED.1);
    }

    #[tokio::test]
    async fn who_listens_is_told() {
        let warnings = Warnings::default();
        let mut reader = warnings.events.subscribe(&[crate::events::Topic::Lifecycle]).unwrap();
        warnings.replace(Group::Collection, vec![problem("a", "a")]);
        warnings.replace(Group::Collection, vec![problem("a", "a")]);
        warnings.replace(Group::Collection, Vec::new());
        for action in ["warning-created", "warning-resolved"] {
            let crate::events::Next::Event(event) = reader.next().await else { panic!("no event") };
            assert!(event.text.contains(action), "{}", event.text);
        }
    }
}

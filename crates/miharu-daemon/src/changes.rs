//! How a change of the store is told: to the log, and to those who listen to events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use miharu_api::Lifecycle;
use miharu_store::{Certificate, Change, State};

use crate::app::App;
use crate::respond::path;

/// How long the cluster's echo of a change that was made here is waited for.
const ECHO: Duration = Duration::from_secs(20);

/// What is told of something: a word for what happened, and the path of what it happened to.
type News = (&'static str, String);

/// What was told of changes that were made here: the cluster's watch brings them once more.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<VecDeque<(Instant, News)>>);

impl Told {
    /// A change is about to be made here.
    pub(crate) fn expect(&self, change: &Change) {
        let mut expected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        expected.retain(|(since, _)| since.elapsed() < ECHO);
        expected.extend(lifecycle_of(change).into_iter().map(|news| (Instant::now(), news)));
    }

    /// It was not made.
    pub(crate) fn forget(&self, change: &Change) {
        for news in lifecycle_of(change) {
            self.take(&news);
        }
    }

    /// Whether this was told already; it is for once.
    fn take(&self, news: &News) -> bool {
        let mut expected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = expected.iter().position(|(since, known)| known == news && since.elapsed() < ECHO);
        at.and_then(|at| expected.remove(at)).is_some()
    }
}

/// Tells of a change that was made; `before` is what it was made to.
pub(crate) fn tell(app: &App, before: &State, change: &Change) {
    log(before, change);
    for news in lifecycle_of(change) {
        publish(app, news);
    }
}

fn publish(app: &App, (action, source): News) {
    let lifecycle = Lifecycle { action: action.to_owned(), source, ..Lifecycle::default() };
    app.events.lifecycle(None, &lifecycle);
}

/// Tells of what other members have changed, between two states of the cluster.
pub(crate) fn tell_others(app: &App, before: &State, after: &State) {
    for news in differences(before, after) {
        if !app.told.take(&news) {
            tracing::info!("another member of the cluster: {} {}", news.0, news.1);
            publish(app, news);
        }
    }
}

fn differences(before: &State, after: &State) -> Vec<News> {
    let mut news = Vec::new();
    if before.config != after.config {
        news.push(("config-updated", "/1.0".to_owned()));
    }
    let words = ["certificate-created", "certificate-updated", "certificate-deleted"];
    compare(&before.certificates, &after.certificates, |what, fingerprint| {
        news.push((what.of(words), path("certificates", fingerprint)));
    });
    compare(&before.join_tokens, &after.join_tokens, |what, id| {
        if what == Fate::Gone {
            news.push(("operation-cancelled", path("operations", id)));
        }
    });
    let words = ["project-created", "project-updated", "project-deleted"];
    compare(&before.projects, &after.projects, |what, name| {
        news.push((what.of(words), path("projects", name)));
    });
    if let (Some(before), Some(after)) = (&before.cluster, &after.cluster) {
        if before.certificate != after.certificate && after.certificate.is_some() {
            news.push(("cluster-certificate-updated", "/1.0/cluster/certificate".to_owned()));
        }
        let words = ["cluster-member-added", "cluster-member-updated", "cluster-member-removed"];
        compare(&before.members, &after.members, |what, name| {
            news.push((what.of(words), path("cluster/members", name)));
        });
    }
    news
}

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    New,
    Changed,
    Gone,
}

impl Fate {
    fn of(self, [new, changed, gone]: [&'static str; 3]) -> &'static str {
        match self {
            Self::New => new,
            Self::Changed => changed,
            Self::Gone => gone,
        }
    }
}

fn compare<T: PartialEq>(
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
    mut tell: impl FnMut(Fate, &str),
) {
    for (name, value) in after {
        match before.get(name) {
            None => tell(Fate::New, name),
            Some(known) if known != value => tell(Fate::Changed, name),
            Some(_) => {}
        }
    }
    before.keys().filter(|name| !after.contains_key(*name)).for_each(|name| tell(Fate::Gone, name));
}

/// The join tokens that other members have used or revoked.
pub(crate) fn tokens_gone(before: &State, after: &State) -> Vec<Arc<miharu_store::JoinToken>> {
    let gone = before.join_tokens.iter().filter(|(id, _)| !after.join_tokens.contains_key(*id));
    gone.map(|(_, token)| Arc::clone(token)).collect()
}

/// A change as those who listen to events know it.
fn lifecycle_of(change: &Change) -> Vec<News> {
    let certificate = |entry: &Certificate| path("certificates", entry.certificate.fingerprint());
    match change {
        Change::Config(_) => vec![("config-updated", "/1.0".to_owned())],
        Change::AddCertificate(entry) => vec![("certificate-created", certificate(entry))],
        Change::UpdateCertificate(entry) => vec![("certificate-updated", certificate(entry))],
        Change::RemoveCertificate(fingerprint) => {
            vec![("certificate-deleted", path("certificates", fingerprint))]
        }
        // The API shows a join token as an operation.
        Change::AddJoinToken(_) => Vec::new(),
        Change::RemoveJoinToken(id) => vec![("operation-cancelled", path("operations", id))],
        Change::Redeem(id, entry) => {
            vec![("operation-cancelled", path("operations", id)), ("certificate-created", certificate(entry))]
        }
        Change::AddProject(name, _) => vec![("project-created", path("projects", name))],
        Change::RemoveProject(name) => vec![("project-deleted", path("projects", name))],
        Change::ClusterCertificate(_) => {
            vec![("cluster-certificate-updated", "/1.0/cluster/certificate".to_owned())]
        }
        Change::RemoveMember(name) => vec![("cluster-member-removed", path("cluster/members", name))],
    }
}

/// Tells the log who and what is trusted and which keys changed; values and secrets may be nobody's business.
fn log(before: &State, change: &Change) {
    match change {
        Change::Config(config) => {
            let (before, after) = (before.config.values(), config.values());
            let keys: BTreeSet<&String> =
                before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key)).collect();
            tracing::info!(?keys, "changed the configuration");
        }
        Change::AddCertificate(entry) | Change::UpdateCertificate(entry) => trusts(entry),
        Change::RemoveCertificate(fingerprint) => {
            tracing::info!(fingerprint, "no longer trusts a certificate");
        }
        Change::AddJoinToken(token) => tracing::info!(
            id = token.id,
            name = token.name,
            r#type = token.certificate_type.as_str(),
            projects = ?token.projects,
            "made a join token"
        ),
        Change::RemoveJoinToken(id) => tracing::info!(id, "revoked a join token"),
        Change::Redeem(id, entry) => {
            tracing::info!(id, "a join token was used");
            trusts(entry);
        }
        Change::AddProject(name, _) => tracing::info!(name, "declared a project"),
        Change::RemoveProject(name) => tracing::info!(name, "took the declaration of a project back"),
        Change::ClusterCertificate(_) => tracing::info!("replaced the cluster's certificate"),
        Change::RemoveMember(name) => tracing::info!(name, "removed a member from the cluster"),
    }
}

fn trusts(entry: &Certificate) {
    tracing::info!(
        name = entry.name,
        fingerprint = entry.certificate.fingerprint(),
        r#type = entry.certificate_type.as_str(),
        projects = ?entry.projects,
        "trusts a {}",
        if entry.token.is_some() { "bearer token" } else { "certificate" }
    );
}

#[cfg(test)]
mod tests {
    use miharu_store::DeclaredProject;

    use super::*;

    #[test]
    fn what_others_changed_is_told_and_an_echo_is_not() {
        let before = State::default();
        let mut after = State::default();
        after.projects.insert("shop".to_owned(), DeclaredProject::default());
        let expected = ("project-created", "/1.0/projects/shop".to_owned());
        assert_eq!(differences(&before, &after), std::slice::from_ref(&expected));
        assert_eq!(differences(&after, &before)[0].0, "project-deleted");
        assert_eq!(differences(&after, &after.clone()), []);
        let told = Told::default();
        let change = Change::AddProject("shop".to_owned(), DeclaredProject::default());
        told.expect(&change);
        assert!(told.take(&expected) && !told.take(&expected));
        told.expect(&change);
        told.forget(&change);
        assert!(!told.take(&expected));
    }
}

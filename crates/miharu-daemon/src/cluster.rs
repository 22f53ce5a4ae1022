//! What a member of a cluster does on the side: it shows the cluster's certificate, puts in force and tells what others have
//! changed, tells the others what it is, and warns when it is out of step.

mod place;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use miharu_store::{Cluster, Report, State, SyncStatus};
use tokio::time::{Instant, interval};

use crate::app::App;
use crate::changes;
use crate::respond::path;
use crate::routes;
use crate::tls::Versions;
use crate::warnings::{Group, Kind, Problem};

/// How often a member looks how it stands.
const TICK: Duration = Duration::from_secs(1);
/// How often it counts its instances for the others to see, and says again what is wrong.
const ROUND: Duration = Duration::from_secs(30);
/// A copy that is older is out of step; younger ones are usual.
const OUT_OF_STEP: Duration = Duration::from_secs(10);

/// Follows the store, whoever changes it. Ends with the daemon.
pub(crate) async fn watch(app: Arc<App>) {
    let mut changes = app.store.changes();
    let mut ticks = interval(TICK);
    let mut seen = app.store.load();
    let mut watcher = Watcher::default();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            _ = ticks.tick() => {}
        }
        changes.borrow_and_update();
        let state = app.store.load();
        if !Arc::ptr_eq(&state, &seen) {
            let of_follow = (Arc::clone(&app), Arc::clone(&seen), Arc::clone(&state));
            let followed =
                tokio::task::spawn_blocking(move || follow(&of_follow.0, &of_follow.1, &of_follow.2));
            if let Err(error) = followed.await {
                tracing::error!("a change of the cluster could not be followed: {error}");
            }
            for token in changes::tokens_gone(&seen, &state) {
                routes::tell_cancelled(&app, &token).await;
            }
            watcher.due = None;
            seen = state;
        }
        watcher.look(&app, &seen).await;
    }
}

/// Puts in force what is another than before, and tells of it where that was not done here. May block for the disk.
fn follow(app: &App, before: &State, after: &State) {
    show_certificate(app, after);
    let (old, new) = (before.config.settings(), after.config.settings());
    if let Some(listeners) = app.listeners.get() {
        listeners.limit(&new);
    }
    if old.tls12 != new.tls12
        && let Err(error) = app.tls.set_versions(Versions::of(&new))
    {
        tracing::error!("TLS versions could not be set: {error:#}");
    }
    if !new.metrics_authentication && old.metrics_authentication {
        tracing::warn!("metrics are now served to anybody: core.metrics_authentication is off");
    }
    // Who joins or leaves has another trust store from then on, of which nobody has changed anything.
    if before.cluster.is_some() && after.cluster.is_some() {
        changes::tell_others(app, before, after);
    }
}

/// Shows the cluster's certificate on every listener while this server is a member, and its own one else.
pub(crate) fn show_certificate(app: &App, state: &State) {
    let identity = app.tls.identity();
    let served = state.cluster.as_ref().and_then(|cluster| cluster.certificate.as_ref());
    match served {
        Some(served) => {
            let shown = identity.show_cluster(&served.certificate_pem, served.key_pem.reveal());
            if let Err(error) = shown {
                tracing::error!("the cluster's certificate cannot be shown: {error:#}");
            }
        }
        None if identity.shows_cluster() => identity.forget_cluster(),
        None => {}
    }
}

/// Whether something that all members of the cluster share, such as a join token or a trusted certificate, is counted by this
/// one: exactly one of them does it, so that sums over members are right.
pub(crate) fn counts_here(cluster: Option<&Cluster>, what: &str) -> bool {
    let Some(cluster) = cluster.filter(|cluster| !cluster.removed) else { return true };
    let digits: String = miharu_store::fingerprint(what.as_bytes()).chars().take(8).collect();
    let number = usize::from_str_radix(&digits, 16).unwrap_or_default();
    let place = number % cluster.members.len().max(1);
    cluster.members.keys().nth(place).is_none_or(|name| *name == cluster.member)
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
struct Watcher {
    /// When the next round is due; `None` for now.
    due: Option<Instant>,
    instances: u64,
    /// What was wrong at the last look.
    wrong: Vec<Problem>,
}

impl Watcher {
    async fn look(&mut self, app: &Arc<App>, state: &State) {
        let round = self.due.is_none_or(|due| Instant::now() >= due);
        if round {
            self.due = Some(Instant::now() + ROUND);
        }
        let problems = problems(app, state, &self.wrong);
        if round || problems != self.wrong {
            app.warnings.replace(Group::Cluster, problems.clone());
            self.wrong = problems;
        }
        if let Some(cluster) = state.cluster.as_ref().filter(|_| round) {
            if let Ok(found) = app.found().await {
                self.instances = found.len() as u64;
            }
            app.store.cluster_report(Report {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                instances: self.instances,
                address: place::address(&app.plan().settings, &cluster.endpoints, &app.roots).await,
                metrics_address: routes::own_target(app),
            });
        }
    }
}

/// What is wrong with this server's being a member. Words that told of it before stay as they are, while it lasts.
fn problems(app: &App, state: &State, before: &[Problem]) -> Vec<Problem> {
    if app.store.is_joining() {
        let message = "this server was about to make or join a cluster, and etcd has not said yet how that went: it looks again by itself, \
                       and refuses changes meanwhile; 'miharu cluster leave --force' gives it up";
        return vec![Problem::of_server(Kind::ClusterOutOfStep, "joining", message.to_owned())];
    }
    let Some(cluster) = &state.cluster else { return Vec::new() };
    if cluster.removed {
        let message = format!(
            "this server was removed from the cluster {} by another member: it trusts nobody but who may open its unix socket; \
             'miharu cluster leave --force' makes it one of its own again",
            cluster.name
        );
        return vec![Problem::of_server(Kind::ClusterRemoved, "", message)];
    }
    let status = app.store.sync_status().unwrap_or_default();
    let mut problems = Vec::new();
    if status.age.is_none_or(|age| age > OUT_OF_STEP) {
        // Its beginning and the end of trust are two things to say.
        let cause = if app.trust_has_ended(state) { "trust" } else { "" };
        let said = before.iter().find(|told| told.kind == Kind::ClusterOutOfStep && told.cause == cause);
        problems.push(said.cloned().unwrap_or_else(|| out_of_step(cluster, &status, cause)));
    }
    let mut keys = BTreeSet::new();
    for bad in status.bad_keys.into_iter().filter(|bad| keys.insert(bad.key.clone())) {
        let message = format!(
            "the cluster's key {} in etcd cannot be read and counts for nothing: {}; was it changed by hand, or by a later \
             version?",
            bad.key, bad.reason
        );
        let problem = Problem::of_server(Kind::ClusterKey, &bad.key, message);
        problems.push(if counts_here(Some(cluster), &bad.key) { problem } else { problem.elsewhere() });
    }
    let own = app.tls.identity().own_der();
    let known = cluster.members.get(&cluster.member);
    if known.is_some_and(|member| member.certificate.der() != own) {
        let message = "this server's own server.crt is another than the one by which the cluster knows it: other members do not \
                       answer it; put the old one back, or leave the cluster and join it again"
            .to_owned();
        let entity = path("cluster/members", &cluster.member);
        problems.push(Problem { entity, ..Problem::of_server(Kind::ClusterCertificate, "", message) });
    }
    problems
}

fn out_of_step(cluster: &Cluster, status: &SyncStatus, cause: &str) -> Problem {
    let consequence = if cause.is_empty() {
        "it goes on with its last copy, and refuses changes"
    } else {
        "its copy is older than cluster.trust_max_age allows, or nobody can tell how old, so nobody is trusted but who may open the \
         unix socket"
    };
    let reason = status.trouble.as_deref().unwrap_or("the copy could not be made sure of");
    let message = format!(
        "this member is out of step with the cluster {}: {consequence}; etcd at {}: {reason}",
        cluster.name,
        cluster.endpoints.join(", ")
    );
    Problem::of_server(Kind::ClusterOutOfStep, cause, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use miharu_store::{Member, ParsedCertificate};

    use super::*;

    /// A member's view of a cluster of these.
    fn cluster(member: &str, names: &[&str]) -> Cluster {
        let pair = rcgen::generate_simple_self_signed(vec!["m".to_owned()]).unwrap();
        let certificate = ParsedCertificate::parse(pair.cert.der()).unwrap();
        let of = |name: &&str| {
            let member = Member {
                name: (*name).to_owned(),
                id: String::new(),
                certificate: certificate.clone(),
                joined_at: 0,
                address: None,
                metrics_address: None,
            };
            ((*name).to_owned(), Arc::new(member))
        };
        Cluster {
            id: "id".to_owned(),
            name: "hdc".to_owned(),
            member: member.to_owned(),
            endpoints: Vec::new(),
            members: names.iter().map(of).collect(),
            certificate: None,
            invitations: BTreeMap::new(),
            removed: false,
        }
    }

    #[test]
    fn what_is_shared_is_counted_by_exactly_one() {
        let names = ["a", "b", "c"];
        let mut by: BTreeSet<&str> = BTreeSet::new();
        for what in 0..100 {
            let what = what.to_string();
            let counting: Vec<_> =
                names.iter().filter(|name| counts_here(Some(&cluster(name, &names)), &what)).collect();
            assert_eq!(counting.len(), 1, "{what}");
            by.extend(counting);
        }
        assert_eq!(by.len(), 3, "one counts everything");
        assert!(counts_here(None, "x"));
    }
}

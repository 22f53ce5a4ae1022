//! How a change of the store is told: to the log, and to those who listen to events.

use std::collections::BTreeSet;

use miharu_api::Lifecycle;
use miharu_store::{Certificate, Change, State};

use crate::app::App;
use crate::respond::path;

/// Tells of a change that was made; `before` is what it was made to.
pub(crate) fn tell(app: &App, before: &State, change: &Change) {
    log(before, change);
    for (action, source) in lifecycle_of(change) {
        let lifecycle = Lifecycle { action: action.to_owned(), source, ..Lifecycle::default() };
        app.events.lifecycle(None, &lifecycle);
    }
}

/// A change as those who listen to events know it.
fn lifecycle_of(change: &Change) -> Vec<(&'static str, String)> {
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

//! `/1.0/cluster`: the cluster that this server is a member of. A lone one says so, and may become a member of one.

mod certificate;
mod membership;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use http::{Method, StatusCode, Uri};
use miharu_api::{ClusterInvitation, ClusterMember, ClusterMembersPost, Operation};
use miharu_store::cluster::{Invitation, MemberPresence, MemberStatus, PendingInvitation};
use miharu_store::{Change, Cluster, Expiry, Member, Presence};
use serde_json::json;

use crate::app::App;
use crate::auth::FullAccess;
use crate::clock::rfc3339;
use crate::respond::{Answer, ApiError, Json, Name, Parameters, accepted, done, ok, ok_tagged, path, tag};
use crate::secrets;

pub(super) use certificate::replace as replace_certificate;
pub(super) use membership::update;

/// How long the cluster's watch may take to bring a token back.
const ECHO: Duration = Duration::from_secs(1);
/// How long a join token is valid where no server key says otherwise, in hours.
const LIFETIME: &str = "3H";

/// The cluster, for whoever needs one. Incus and LXD answer 500 for what is no failure of theirs; clients print the words
/// alone.
fn clustered(app: &App) -> Result<Arc<Cluster>, ApiError> {
    let none = || ApiError::new(StatusCode::BAD_REQUEST, "Server is not clustered");
    app.store.load().cluster.clone().ok_or_else(none)
}

/// `GET /1.0/cluster`.
pub(super) async fn show(State(app): State<Arc<App>>, _: FullAccess) -> Answer {
    let shown = match app.store.load().cluster.as_deref() {
        None => miharu_api::Cluster::default(),
        Some(cluster) => miharu_api::Cluster {
            server_name: cluster.member.clone(),
            enabled: true,
            member_config: Vec::new(),
            cluster_name: cluster.name.clone(),
            store: cluster.endpoints.clone(),
            removed: cluster.removed,
            invitations: cluster
                .invitations
                .iter()
                .map(|(name, invitation)| ClusterInvitation {
                    id: invitation.id.clone(),
                    server_name: name.clone(),
                    created_at: rfc3339(invitation.created_at),
                    expires_at: rfc3339(invitation.expires_at),
                })
                .collect(),
        },
    };
    let tag = tag(&shown)?;
    ok_tagged(shown, &tag)
}

/// `GET /1.0/cluster/members`.
pub(super) async fn members(State(app): State<Arc<App>>, _: FullAccess, parameters: Parameters) -> Answer {
    let cluster = clustered(&app)?;
    if parameters.recursion() == 0 {
        return ok(cluster.members.keys().map(|name| path("cluster/members", name)).collect::<Vec<_>>());
    }
    let presence = presence(&app).await?;
    let shown = |member: &Arc<Member>| shown(&app, &cluster, member, presence.members.get(&member.name));
    ok(cluster.members.values().map(shown).collect::<Vec<_>>())
}

/// `GET /1.0/cluster/members/NAME`.
pub(super) async fn member(State(app): State<Arc<App>>, _: FullAccess, Name(name): Name) -> Answer {
    let cluster = clustered(&app)?;
    let member = cluster.members.get(&name).ok_or_else(no_such_member)?;
    let shown = shown(&app, &cluster, member, presence(&app).await?.members.get(&name));
    let tag = tag(&shown.config)?;
    ok_tagged(shown, &tag)
}

/// Who is there, with what they said last, which etcd is asked for.
async fn presence(app: &Arc<App>) -> Result<Presence, ApiError> {
    Ok(app.blocking(|app| Ok(app.store.cluster_presence())).await?)
}

fn no_such_member() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Cluster member not found")
}

fn shown(app: &App, cluster: &Cluster, member: &Member, presence: Option<&MemberPresence>) -> ClusterMember {
    let presence = presence.cloned().unwrap_or_default();
    let last_seen = presence.last_seen.map(rfc3339).unwrap_or_default();
    let (status, message) = match presence.status {
        _ if cluster.removed => ("Unknown", "This server was removed from the cluster".to_owned()),
        MemberStatus::Online => ("Online", "Fully operational".to_owned()),
        MemberStatus::Offline if last_seen.is_empty() => ("Offline", "It was never seen".to_owned()),
        MemberStatus::Offline => ("Offline", format!("No sign of life since {last_seen}")),
        MemberStatus::Unknown => {
            ("Unknown", "The server that was asked is out of step with the cluster's etcd".to_owned())
        }
    };
    let is_own = member.name == cluster.member;
    let address = member.address.as_ref().or(member.metrics_address.as_ref());
    ClusterMember {
        roles: Vec::new(),
        failure_domain: "default".to_owned(),
        server_name: member.name.clone(),
        url: address.map(|address| format!("https://{address}")).unwrap_or_default(),
        database: true,
        status: status.to_owned(),
        message,
        architecture: if is_own { app.machine.architecture.clone() } else { String::new() },
        version: presence.version.unwrap_or_default(),
        instances: presence.instances,
        last_seen_at: last_seen,
        joined_at: rfc3339(member.joined_at),
        metrics_address: member.metrics_address.clone().unwrap_or_default(),
        certificate_fingerprint: member.certificate.fingerprint().to_owned(),
        ..ClusterMember::default()
    }
}

/// `POST /1.0/cluster/members`: makes a join token. It is told once, here.
pub(super) async fn invite(
    State(app): State<Arc<App>>,
    _: FullAccess,
    Json(body): Json<ClusterMembersPost>,
) -> Answer {
    clustered(&app)?;
    let (operation, invitation) = App::change(async move {
        let expiry = app.plan().settings.join_token_expiry.or_else(|| Expiry::parse(LIFETIME).ok());
        let lifetime = expiry.map(Expiry::length).unwrap_or_default();
        let name = body.server_name.trim().to_owned();
        let invitation = app.blocking(move |app| app.store.cluster_invite(&name, lifetime)).await?;
        tracing::info!(name = invitation.member, "made a join token for a member of the cluster");
        let secret = invitation.to_token();
        let waiting = waiting(&app, &invitation).await?;
        let operation = operation(&app, &invitation.member, &waiting, &secret).await;
        Ok((path("operations", &operation.id), operation))
    })
    .await?;
    accepted(&operation, invitation)
}

/// A token that was just made, as the cluster's watch brings it back in a moment.
async fn waiting(app: &App, made: &Invitation) -> Result<PendingInvitation, ApiError> {
    let end = tokio::time::Instant::now() + ECHO;
    while tokio::time::Instant::now() < end {
        let mut all = invitations(app).into_iter();
        let is_it = |(name, known): &(String, PendingInvitation)| {
            *name == made.member && known.expires_at == made.expires_at
        };
        if let Some((_, invitation)) = all.find(is_it) {
            return Ok(invitation);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It is good all the same.
    let id = secrets::uuid().map_err(ApiError::internal)?;
    Ok(PendingInvitation { id, created_at: crate::clock::seconds_now(), expires_at: made.expires_at })
}

/// A join token as the operation that clients know it as. What it is worth is told once, to who has it made.
pub(super) async fn operation(
    app: &App,
    name: &str,
    invitation: &PendingInvitation,
    secret: &str,
) -> Operation {
    let metadata = BTreeMap::from([
        ("serverName".to_owned(), json!(name)),
        ("secret".to_owned(), json!(secret)),
        ("fingerprint".to_owned(), json!(app.tls.identity().fingerprint())),
        ("addresses".to_owned(), json!(super::server::https_addresses(app).await)),
        ("expiresAt".to_owned(), json!(rfc3339(invitation.expires_at))),
    ]);
    let created_at = rfc3339(invitation.created_at);
    Operation {
        id: invitation.id.clone(),
        class: "token".to_owned(),
        description: "Executing operation".to_owned(),
        updated_at: created_at.clone(),
        created_at,
        status: "Running".to_owned(),
        status_code: 103,
        metadata: Some(metadata),
        may_cancel: true,
        location: app.location(),
        ..Operation::default()
    }
}

/// The join tokens that were not used yet, by the name of the member to be.
pub(super) fn invitations(app: &App) -> Vec<(String, PendingInvitation)> {
    let state = app.store.load();
    let cluster = state.cluster.iter().filter(|cluster| !cluster.removed);
    let all = cluster.flat_map(|cluster| &cluster.invitations);
    all.map(|(name, invitation)| (name.clone(), invitation.clone())).collect()
}

/// `DELETE /1.0/cluster/members/NAME`: takes a member out, whether it is there or not.
pub(super) async fn remove(State(app): State<Arc<App>>, _: FullAccess, Name(name): Name) -> Answer {
    clustered(&app)?;
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        match app.commit(Change::RemoveMember(name)).await {
            Err(miharu_store::Error::NotFound(_)) => Err(no_such_member()),
            result => result.map(drop).map_err(ApiError::from),
        }
    })
    .await?;
    done()
}

/// What Incus and LXD do with members and miharu does not.
pub(super) async fn refuse(State(app): State<Arc<App>>, _: FullAccess, method: Method, uri: Uri) -> Answer {
    clustered(&app)?;
    let message = format!(
        "not implemented: {method} {}: members of miharu's clusters are added, listed, shown and removed, and have nothing to set; \
         roles, groups, evacuation and names that change are the runtimes' own",
        uri.path()
    );
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, message))
}

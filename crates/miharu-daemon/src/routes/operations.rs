//! `/1.0/operations`: what goes on in the background. That is the join tokens that wait for their user; everything else is
//! done when its request is answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use miharu_api::Operation;
use miharu_store::cluster::PendingInvitation;
use miharu_store::{Change, Error, JoinToken};
use serde_json::{Value, json};

use super::{cluster, server};
use crate::app::{App, DEFAULT_PROJECT};
use crate::auth::{FullAccess, Reader};
use crate::clock::{rfc3339, seconds_now};
use crate::events::{Next, Topic};
use crate::respond::{Answer, ApiError, Name, Parameters, done, ok, path};

/// A state of an operation: its name and number in the API.
type Status = (&'static str, u16);
const RUNNING: Status = ("Running", 103);
const CANCELLED: Status = ("Cancelled", 401);

/// The longest that somebody who waits is made to; clients ask again.
const PATIENCE: Duration = Duration::from_secs(3600);

/// `GET /1.0/operations`: by their state.
pub(super) async fn list(State(app): State<Arc<App>>, reader: Reader, parameters: Parameters) -> Answer {
    // Tokens are secrets, and belong to no project that a client could be restricted to.
    let shown =
        reader.0.is_none() && parameters.projects().is_none_or(|names| names.contains(DEFAULT_PROJECT));
    let tokens = if shown { live(&app) } else { Vec::new() };
    let mut running = Vec::with_capacity(tokens.len());
    for token in tokens {
        running.push(match parameters.recursion() {
            0 => Value::from(path("operations", &token.id)),
            _ => serde_json::to_value(self::running(&app, &token).await).map_err(ApiError::internal)?,
        });
    }
    for (name, invitation) in if shown { cluster::invitations(&app) } else { Vec::new() } {
        running.push(match parameters.recursion() {
            0 => Value::from(path("operations", &invitation.id)),
            _ => serde_json::to_value(cluster::operation(&app, &name, &invitation, "").await)
                .map_err(ApiError::internal)?,
        });
    }
    let by_state = if running.is_empty() { json!({}) } else { json!({ "running": running }) };
    ok(by_state)
}

/// `GET /1.0/operations/ID`.
pub(super) async fn show(State(app): State<Arc<App>>, reader: Reader, Name(id): Name) -> Answer {
    if let Some((name, invitation)) = invitation(&app, &reader, &id) {
        return ok(cluster::operation(&app, &name, &invitation, "").await);
    }
    let token = find(&app, &reader, &id)?;
    ok(running(&app, &token).await)
}

/// The token of this id by which a server may join the cluster.
fn invitation(app: &App, reader: &Reader, id: &str) -> Option<(String, PendingInvitation)> {
    let mut all = cluster::invitations(app).into_iter().filter(|_| reader.0.is_none());
    all.find(|(_, invitation)| invitation.id == id)
}

/// `DELETE /1.0/operations/ID`: revokes a token.
pub(super) async fn cancel(State(app): State<Arc<App>>, access: FullAccess, Name(id): Name) -> Answer {
    let FullAccess = access;
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        if let Some((name, _)) = invitation(&app, &Reader(None), &id) {
            tracing::info!(name, "revoked the join token of a member to be");
            return app
                .blocking(move |app| app.store.cluster_revoke_invitation(&name))
                .await
                .map_err(ApiError::from);
        }
        let token = find(&app, &Reader(None), &id)?;
        match app.commit(Change::RemoveJoinToken(id)).await {
            Ok(_) => {}
            Err(Error::NotFound(_)) => return Err(no_such_operation()),
            Err(error) => return Err(error.into()),
        }
        tell_cancelled(&app, &token).await;
        Ok(())
    })
    .await?;
    done()
}

/// `GET /1.0/operations/ID/wait?timeout=SECONDS`: comes back when the token was used or revoked or has expired, or after that
/// time. Without one, or with -1, it waits as long as it can.
pub(super) async fn wait(
    State(app): State<Arc<App>>,
    reader: Reader,
    Name(id): Name,
    parameters: Parameters,
) -> Answer {
    let timeout = match parameters.get("timeout").filter(|text| !text.is_empty()).map(str::parse::<i64>) {
        None => PATIENCE,
        Some(Ok(seconds)) => u64::try_from(seconds).map_or(PATIENCE, Duration::from_secs).min(PATIENCE),
        Some(Err(_)) => return Err(ApiError::bad_request("invalid timeout, expected whole seconds or -1")),
    };
    let too_many =
        || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many clients wait already, ask again later");
    // Before the look at what there is, so that no end is missed.
    let mut events = app.events.subscribe(&[Topic::Operation]).ok_or_else(too_many)?;
    let token = find(&app, &reader, &id)?;
    let left = token.expires_at.and_then(|end| u64::try_from(end - seconds_now()).ok());
    let end =
        tokio::time::Instant::now() + left.map_or(timeout, |left| timeout.min(Duration::from_secs(left)));
    loop {
        if find(&app, &reader, &id).is_err() {
            return ok(operation(&app, &token, CANCELLED).await);
        }
        match tokio::time::timeout_at(end, events.next()).await {
            Ok(Next::Event(_) | Next::Lost(_)) => {}
            Ok(Next::Closing) => break,
            Err(_) => break,
        }
    }
    let status = if find(&app, &reader, &id).is_ok() { RUNNING } else { CANCELLED };
    ok(operation(&app, &token, status).await)
}

fn no_such_operation() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Operation not found")
}

/// The tokens that hold now, the oldest first.
fn live(app: &App) -> Vec<Arc<JoinToken>> {
    let now = seconds_now();
    let state = app.store.load();
    let mut tokens: Vec<_> = state.usable_join_tokens(now).map(Arc::clone).collect();
    tokens.sort_by_key(|token| token.created_at);
    tokens
}

fn find(app: &App, reader: &Reader, id: &str) -> Result<Arc<JoinToken>, ApiError> {
    let state = app.store.load();
    let token = state.join_tokens.get(id).filter(|token| !token.has_expired(seconds_now()));
    token.filter(|_| reader.0.is_none()).map(Arc::clone).ok_or_else(no_such_operation)
}

/// Tells those who listen that a token is used or revoked.
pub(crate) async fn tell_cancelled(app: &App, token: &JoinToken) {
    app.events.operation(None, &operation(app, token, CANCELLED).await);
}

/// A token that waits for its user.
pub(super) async fn running(app: &App, token: &JoinToken) -> Operation {
    operation(app, token, RUNNING).await
}

/// A token as the operation that clients know it as.
async fn operation(app: &App, token: &JoinToken, status: Status) -> Operation {
    let request = json!({
        "name": token.name,
        "description": token.description,
        "type": token.certificate_type.as_str(),
        "restricted": token.projects.is_some(),
        "projects": token.projects.iter().flatten().collect::<Vec<_>>(),
        "certificate": "",
        "password": "",
        "trust_token": "",
        "token": true,
    });
    let mut metadata = BTreeMap::from([
        ("addresses".to_owned(), json!(server::https_addresses(app).await)),
        ("fingerprint".to_owned(), json!(app.tls.identity().fingerprint())),
        ("request".to_owned(), request),
        ("secret".to_owned(), json!(token.secret.reveal())),
    ]);
    if let Some(end) = token.expires_at {
        metadata.insert("expiresAt".to_owned(), json!(rfc3339(end)));
    }
    let created_at = rfc3339(token.created_at);
    Operation {
        id: token.id.clone(),
        class: "token".to_owned(),
        description: "Executing operation".to_owned(),
        updated_at: created_at.clone(),
        created_at,
        status: status.0.to_owned(),
        status_code: status.1,
        resources: None,
        metadata: Some(metadata),
        may_cancel: true,
        err: String::new(),
        location: app.location(),
    }
}

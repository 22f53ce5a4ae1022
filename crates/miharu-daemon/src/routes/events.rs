//! `/1.0/events`: what happens, over a WebSocket, to those who may know.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use http::StatusCode;

use crate::app::App;
use crate::auth::Caller;
use crate::events::{Next, Published, Subscription, Topic};
use crate::listen::Peer;
use crate::respond::{Answer, ApiError, Parameters};

/// How often a reader is asked whether it is still there; one that did not say so by the next time is gone.
const PING: Duration = Duration::from_secs(30);
/// How long a message may take: who does not read for longer is gone.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// The longest message of a reader, who has nothing to say at all.
const MESSAGE_LIMIT: usize = 16 * 1024;

/// `GET /1.0/events`.
pub(super) async fn listen(
    State(app): State<Arc<App>>,
    caller: Caller,
    peer: Option<Extension<Peer>>,
    parameters: Parameters,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let Some(Extension(peer)) = peer.filter(|_| right(&caller).is_some()) else {
        return Err(ApiError::forbidden());
    };
    let topics = topics(&caller, parameters.get("type").unwrap_or_default())?;
    let upgrade = upgrade.map_err(|_| {
        ApiError::bad_request("/1.0/events is a WebSocket: ask for it with one, or with 'monitor'")
    })?;
    let subscription = match &peer.certificate {
        Some(certificate) => app.events.subscribe_client(&topics, &certificate.fingerprint),
        None => app.events.subscribe(&topics),
    };
    let subscription = subscription.ok_or_else(|| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many listen to events already, try again later")
    })?;
    let reader = Listener { app, peer, asked: parameters.projects(), told_of_losses: topics };
    Ok(upgrade
        .max_message_size(MESSAGE_LIMIT)
        .max_frame_size(MESSAGE_LIMIT)
        .on_upgrade(move |socket| reader.serve(socket, subscription)))
}

/// The projects whose events a caller may see: `Some(None)` for everything, `None` for nothing at all.
fn right(caller: &Caller) -> Option<Option<&BTreeSet<String>>> {
    match caller {
        Caller::Local | Caller::Client => Some(None),
        Caller::RestrictedClient(projects) => Some(Some(projects)),
        _ => None,
    }
}

/// The topics asked for; without any, all that the caller may see.
pub(crate) fn topics(caller: &Caller, types: &str) -> Result<Vec<Topic>, ApiError> {
    // The log tells of every project, and of who asks.
    let may_read_log = matches!(right(caller), Some(None));
    let may = |topic: &Topic| *topic != Topic::Logging || may_read_log;
    if types.is_empty() {
        return Ok(Topic::ALL.into_iter().filter(may).collect());
    }
    let topic = |name: &str| {
        Topic::parse(name).ok_or_else(|| {
            ApiError::bad_request(format!(
                "'{name}' is no type of events: expected lifecycle, logging or operation"
            ))
        })
    };
    let topics = types.split(',').map(topic).collect::<Result<Vec<_>, _>>()?;
    if topics.iter().all(may) { Ok(topics) } else { Err(ApiError::forbidden()) }
}

/// Who listens, and to what.
struct Listener {
    app: Arc<App>,
    peer: Peer,
    /// The projects asked for; `None` for all.
    asked: Option<BTreeSet<String>>,
    told_of_losses: Vec<Topic>,
}

impl Listener {
    async fn serve(self, mut socket: WebSocket, mut subscription: Subscription) {
        let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
        let mut is_there = true;
        loop {
            let message = tokio::select! {
                next = subscription.next() => match self.message(next) {
                    Ok(Some(message)) => message,
                    Ok(None) => continue,
                    Err(last) => {
                        let _ = tokio::time::timeout(SEND_LIMIT, socket.send(last)).await;
                        return;
                    }
                },
                received = socket.recv() => match received {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {
                        is_there = true;
                        continue;
                    }
                },
                _ = ping.tick() => {
                    if !is_there {
                        return;
                    }
                    is_there = false;
                    Message::Ping(bytes::Bytes::new())
                }
            };
            if !matches!(tokio::time::timeout(SEND_LIMIT, socket.send(message)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// What the reader is told next, if anything; as an error, the last thing that it is told.
    fn message(&self, next: Next) -> Result<Option<Message>, Message> {
        match next {
            Next::Event(event) => {
                // Trust may have been taken back since the last one.
                let caller = Caller::again(&self.peer, &self.app);
                let Some(right) = right(&caller) else {
                    return Err(goodbye(close_code::POLICY, "not authorized"));
                };
                Ok(self.is_for(&event, right).then(|| Message::text(event.text.clone())))
            }
            Next::Lost(lost) => {
                let reads_log = self.told_of_losses.contains(&Topic::Logging);
                Ok(reads_log.then(|| Message::text(crate::events::loss(lost))))
            }
            Next::Closing => Err(goodbye(close_code::AWAY, "the server stops")),
        }
    }

    fn is_for(&self, event: &Published, right: Option<&BTreeSet<String>>) -> bool {
        match (&event.project, right) {
            (Some(project), right) => {
                right.is_none_or(|own| own.contains(project))
                    && self.asked.as_ref().is_none_or(|asked| asked.contains(project))
            }
            // What belongs to no project is the whole server's.
            (None, right) => right.is_none(),
        }
    }
}

fn goodbye(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_for_those_who_may_see_everything() {
        let restricted = Caller::RestrictedClient(BTreeSet::from(["lxc".to_owned()]));
        assert_eq!(topics(&Caller::Client, "").unwrap(), Topic::ALL);
        assert_eq!(topics(&restricted, "").unwrap(), [Topic::Lifecycle, Topic::Operation]);
        assert_eq!(topics(&restricted, "logging").unwrap_err().status, StatusCode::FORBIDDEN);
        assert_eq!(topics(&Caller::Local, "operation,logging").unwrap(), [Topic::Operation, Topic::Logging]);
        assert_eq!(topics(&Caller::Local, "ovn").unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}

//! The service manager's watchdog: told that the daemon lives only when the daemon has just answered.
//!
//! A timer alone would go on while every thread that does work hangs. So each sign of life is a request of the daemon's own, on the
//! way of everybody's: through the routes, the store, and a thread for what blocks. It takes no connection, so that a caller
//! who holds all of them does not get the daemon restarted.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use sd_notify::NotifyState;
use tower::ServiceExt as _;

use crate::daemon::notify;
use crate::listen::{Entrance, Peer};

/// Asks twice in each `limit`, within which the service manager wants to hear something, and tells it of every answer.
pub(crate) async fn watch(router: Router, limit: Duration) {
    let pause = limit / 2;
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match tokio::time::timeout(pause, answers(router.clone())).await {
            Ok(Ok(())) => notify(NotifyState::Watchdog),
            Ok(Err(why)) => tracing::error!("the daemon does not answer itself: {why}"),
            Err(_) => tracing::error!("the daemon did not answer itself within {pause:?}"),
        }
    }
}

/// Whether a request is answered and a thread for what blocks is to be had.
async fn answers(router: Router) -> Result<(), String> {
    let mut request = Request::get("/1.0").body(Body::empty()).map_err(|error| error.to_string())?;
    request.extensions_mut().insert(Peer { entrance: Entrance::Unix, certificate: None });
    // A task of its own: any worker may take it, and one of them must.
    let asked = tokio::spawn(router.oneshot(request));
    let Ok(response) = asked.await.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(response.status().to_string());
    }
    tokio::task::spawn_blocking(|| ()).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_a_sign_of_life_and_a_refusal_is_not() {
        let local = get(|peer: axum::Extension<Peer>| async move {
            if peer.entrance == Entrance::Unix { StatusCode::OK } else { StatusCode::FORBIDDEN }
        });
        answers(Router::new().route("/1.0", local)).await.unwrap();
        let broken = Router::new().route("/1.0", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }));
        assert!(answers(broken).await.unwrap_err().starts_with("500"));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_none() {
        let silent = Router::new().route("/1.0", get(std::future::pending::<StatusCode>));
        let asked = tokio::time::timeout(Duration::from_secs(30), answers(silent)).await;
        assert!(asked.is_err(), "{asked:?}");
    }
}

//! `/internal`: what only the command line needs, on the unix socket alone.

use std::sync::Arc;

use axum::extract::State;

use crate::app::App;
use crate::auth::LocalOnly;
use crate::respond::{Answer, done};

/// `GET /internal/ready`: the socket is served only once everything else is, so an answer is all there is to it.
pub(super) async fn ready(_: LocalOnly) -> Answer {
    done()
}

/// `POST /internal/reload`: reads the server's certificate again, as SIGHUP does.
pub(super) async fn reload(_: LocalOnly, State(app): State<Arc<App>>) -> Answer {
    let reload = tokio::task::spawn_blocking(move || app.tls.identity().reload());
    reload.await.map_err(crate::respond::ApiError::internal)?;
    done()
}

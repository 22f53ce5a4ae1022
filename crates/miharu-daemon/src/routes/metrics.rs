//! `/1.0/metrics`: the exposition.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use miharu_metrics::Scope;
use miharu_metrics::encode::ServerWide;
use miharu_store::Settings;

use crate::app::App;
use crate::auth::{Caller, MetricsRight, ShownCertificate};
use crate::cache::{Collected, Rendering, Wish, patience};
use crate::forward::Wanted;
use crate::negotiate;
use crate::respond::{Answer, ApiError, Parameters};
use crate::unread::Recipient;

/// The scrape timeout that Prometheus tells.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// `GET /1.0/metrics`.
pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    shown: Option<ShownCertificate>,
    recipient: Recipient,
    parameters: Parameters,
    headers: HeaderMap,
) -> Answer {
    let plan = app.plan();
    let right = right(&plan.settings, &caller);
    if right == MetricsRight::None {
        let fingerprint = shown.as_ref().map(|shown| shown.0.fingerprint.as_str());
        tracing::debug!(fingerprint, "metrics refused: no certificate, or one that is not trusted");
        return Err(ApiError::forbidden());
    }
    if let Some(member) = elsewhere(&app, &caller, parameters.get("target"))? {
        let (path, projects) = ("/1.0/metrics", parameters.projects());
        let wanted = Wanted { path, query: &[], right, projects, headers: &headers };
        return app.forward.ask(app.tls.identity(), &member, wanted, &recipient).await;
    }
    let timeout = headers.get(&SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let wish = Wish {
        options: Arc::clone(&plan.scrape),
        max_age: plan.settings.cache,
        patience: timeout.and_then(patience),
    };
    let collected =
        app.cache.get(wish).await.map_err(|reason| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason))?;

    let format = negotiate::format(&headers);
    let encoding = negotiate::encoding(&headers);
    let scope = Scope { families: plan.families, ..scope(&collected, right, parameters.projects()) };
    let rendering = Rendering { format, prefix: plan.prefix, scope, encoding };
    let (body, made) = collected.render(rendering, &recipient).await?;

    let mut response = Response::new(Body::from(body));
    response.extensions_mut().insert(made);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Some(encoding) = encoding.header() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Ok(response)
}

/// The member that is to answer, unless it is this server.
pub(super) fn elsewhere(
    app: &App,
    caller: &Caller,
    target: Option<&str>,
) -> Result<Option<Arc<miharu_store::Member>>, ApiError> {
    let Some(target) = target.filter(|target| !target.is_empty()) else { return Ok(None) };
    if matches!(caller, Caller::Member(_)) {
        return Err(ApiError::bad_request(
            "a member of a cluster that is asked by another answers for itself alone",
        ));
    }
    if target == app.server_name() {
        return Ok(None);
    }
    let state = app.store.load();
    let cluster = state.cluster.as_ref().filter(|cluster| !cluster.removed);
    let shown: String = target.chars().filter(|c| !c.is_control()).take(80).collect();
    let unknown = |reason: String| ApiError::new(StatusCode::NOT_FOUND, reason);
    let cluster = cluster
        .ok_or_else(|| unknown(format!("there is no member '{shown}': this server is in no cluster")))?;
    let member = cluster.members.get(target).cloned();
    member.map(Some).ok_or_else(|| unknown(format!("the cluster has no member '{shown}'")))
}

/// What the caller may read of metrics; everybody everything where nobody is asked who he is.
pub(super) fn right(settings: &Settings, caller: &Caller) -> MetricsRight {
    if settings.metrics_authentication { caller.metrics() } else { MetricsRight::All }
}

/// What of the figures is shown: what was asked for, as far as the rights go. The unrestricted get the server's own
/// families with any projects, as in Incus.
fn scope(collected: &Collected, right: MetricsRight, asked: Option<BTreeSet<String>>) -> Scope {
    let (projects, server_wide) = match (right, asked) {
        (MetricsRight::All, None) => return Scope::all(),
        (MetricsRight::All, Some(asked)) => (asked, ServerWide::Included),
        (MetricsRight::Projects(own), None) => (own, ServerWide::LeftOut),
        (MetricsRight::Projects(own), Some(asked)) => (&own & &asked, ServerWide::LeftOut),
        (MetricsRight::None, _) => (BTreeSet::new(), ServerWide::LeftOut),
    };
    // Only projects with instances make a difference, so that made-up ones do not fill the store of answers.
    Scope { projects: Some(collected.known_projects(projects.into_iter())), server_wide, ..Scope::all() }
}

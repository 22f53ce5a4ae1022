//! `/1.0/discovery/prometheus`: where Prometheus scrapes this server, as its `http_sd_configs` wants to be told.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use miharu_store::Settings;
use miharu_store::address::{Host, ListenAddress};
use serde::Serialize;

use crate::app::App;
use crate::auth::{Caller, MetricsRight};
use crate::respond::{Answer, ApiError};

/// One entry of the array, which is no envelope.
#[derive(Debug, Serialize)]
struct TargetGroup {
    targets: Vec<String>,
    labels: Labels,
}

#[derive(Debug, Serialize)]
struct Labels {
    /// What the cluster is called, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    /// The server's name.
    member: String,
}

/// `GET /1.0/discovery/prometheus`, for whoever may read metrics: this server, or every member of its cluster. One that is away
/// stays listed, so that Prometheus shows it as down, until it is removed.
pub(super) async fn prometheus(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    let plan = app.plan();
    if super::metrics::right(&plan.settings, &caller) == MetricsRight::None {
        return Err(ApiError::forbidden());
    }
    let state = app.store.load();
    let own = target(&plan.settings, &app.machine.name);
    let groups = match state.cluster.as_ref().filter(|cluster| !cluster.removed) {
        None => own.map(|target| group(target, None, &app.machine.name)).into_iter().collect(),
        Some(cluster) => cluster
            .members
            .values()
            .filter_map(|member| {
                // Its own listeners it knows best.
                let is_own = member.name == cluster.member;
                let target = if is_own { own.clone() } else { None };
                let target = target.or_else(|| member.metrics_address.clone())?;
                Some(group(target, Some(&cluster.name), &member.name))
            })
            .collect::<Vec<_>>(),
    };
    let body = serde_json::to_vec(&groups).map_err(|error| ApiError::internal(error.to_string()))?;
    let mut response = Response::new(axum::body::Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn group(target: String, cluster: Option<&str>, member: &str) -> TargetGroup {
    let labels = Labels { cluster: cluster.map(str::to_owned), member: member.to_owned() };
    TargetGroup { targets: vec![target], labels }
}

/// Where Prometheus scrapes this server, if anywhere: what other members tell it.
pub(crate) fn own_target(app: &App) -> Option<String> {
    target(&app.plan().settings, &app.machine.name)
}

/// Where metrics are served over the network: by the listener for them alone, else by the one for everything. On every
/// interface it is told under `core.metrics_advertise`, else under the host's name.
fn target(settings: &Settings, host_name: &str) -> Option<String> {
    let listener = settings.metrics_address.as_ref().or(settings.https_address.as_ref())?;
    let is_any = match &listener.host {
        Host::Any => true,
        Host::Ip(ip) => ip.is_unspecified(),
        Host::Name(_) => false,
    };
    if !is_any {
        return Some(listener.to_string());
    }
    let advertised = settings.metrics_advertise.as_deref();
    let advertised = advertised.and_then(|text| ListenAddress::parse(text, listener.port).ok());
    Some(advertised.map_or_else(|| format!("{host_name}:{}", listener.port), |address| address.to_string()))
}

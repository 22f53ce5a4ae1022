//! `/1.0`: the server, its configuration and its surroundings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use http::HeaderMap;
use miharu_api::{Environment, Server, ServerPut};
use miharu_collect::Roots;
use miharu_collect::host::own_addresses;
use miharu_store::{Change, Config, Error, Settings};

use crate::app::{ATTEMPTS, App, DEFAULT_PROJECT};
use crate::auth::{Caller, FullAccess, ShownCertificate};
use crate::plan::check_families;
use crate::respond::{Answer, ApiError, Json, Parameters, check_match, done, ok, ok_tagged, tag};
use crate::tls::Versions;

/// What the API can do beyond version 1.0, under the names that clients ask for; only what is really served.
const API_EXTENSIONS: &[&str] = &[
    "etag",
    "patch",
    "projects",
    "instances",
    "instance_all_projects",
    "instance_get_full",
    "api_filtering",
    "api_os",
    "clustering",
    "clustering_join_token",
    "clustering_update_cert",
    "container_cpu_time",
    "container_full",
    "container_last_used_at",
    "entity_description",
    "event_lifecycle",
    "event_location",
    "event_project",
    "network_counters_errors_dropped",
    "project_usage",
    "resources",
    "resources_v2",
    "resources_cpu_core_die",
    "resources_cpu_socket",
    "resources_cpu_threads_numa",
    "resources_disk_address",
    "resources_load",
    "resources_numa",
    "resources_system",
    "usedby_consistency",
    "virtual-machines",
    "warnings",
    "metrics",
    "metrics_cpu_seconds",
    "metrics_authentication",
    "metrics_memory_oom_total",
    "metrics_cpu_effective_total",
    "internal_metrics",
    "certificate_project",
    "certificate_update",
    "certificate_token",
    "remote_token_expiry",
    "explicit_trust_token",
    "auth_pki",
    "trust_ca_certificates",
    "operation_description",
    "metrics_bearer_token",
    "certificate_description",
];

/// `GET /1.0`.
pub(super) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    certificate: Option<ShownCertificate>,
    parameters: Parameters,
) -> Answer {
    let mut server = Server {
        api_extensions: API_EXTENSIONS.iter().map(|name| (*name).to_owned()).collect(),
        api_status: "stable".to_owned(),
        api_version: "1.0".to_owned(),
        auth: "untrusted".to_owned(),
        public: false,
        auth_methods: vec!["tls".to_owned()],
        ..Server::default()
    };
    let full = match caller {
        Caller::Local | Caller::Client => true,
        Caller::RestrictedClient(_) => false,
        Caller::Metrics(_) | Caller::Member(_) | Caller::Untrusted => return ok(server),
    };
    "trusted".clone_into(&mut server.auth);
    if caller == Caller::Local {
        "unix".clone_into(&mut server.auth_user_method);
    } else {
        "tls".clone_into(&mut server.auth_user_method);
        server.auth_user_name = certificate.map(|shown| shown.0.fingerprint.clone()).unwrap_or_default();
    }
    let project = parameters.get("project").filter(|name| !name.is_empty()).unwrap_or(DEFAULT_PROJECT);
    server.environment = Some(environment(&app, project).await);
    let config = app.store.load().config.clone();
    if full {
        server.config = Some(config.values().clone());
        return ok_tagged(server, &tag(config.values())?);
    }
    ok(server)
}

/// `PUT /1.0`: the whole configuration.
pub(super) async fn replace(
    State(app): State<Arc<App>>,
    _: FullAccess,
    headers: HeaderMap,
    Json(body): Json<ServerPut>,
) -> Answer {
    change(app, headers, body, |_, values| Config::replace(values)).await
}

/// `PATCH /1.0`: some keys.
pub(super) async fn merge(
    State(app): State<Arc<App>>,
    _: FullAccess,
    headers: HeaderMap,
    Json(body): Json<ServerPut>,
) -> Answer {
    change(app, headers, body, Config::merge).await
}

type Compose = fn(&Config, &BTreeMap<String, String>) -> Result<Config, miharu_store::ConfigError>;

async fn change(app: Arc<App>, headers: HeaderMap, body: ServerPut, compose: Compose) -> Answer {
    let values = texts(body)?;
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        let mut attempts = ATTEMPTS;
        loop {
            let state = app.store.load();
            let before = &state.config;
            check_match(&headers, &tag(before.values())?)?;
            let after = compose(before, &values).map_err(|error| ApiError::bad_request(error.to_string()))?;
            if after == *before {
                return Ok(());
            }
            check(before, &after)?;
            // In force first, stored then: what cannot be put in force is not kept.
            put_in_force(&app, before, &after).await?;
            let Err(error) = app.commit_from(Change::Config(after), &state).await else { return Ok(()) };
            // To what holds now: others of the cluster may have changed it.
            take_back(&app, &app.store.load().config.settings()).await;
            match error {
                // Something else has changed in the cluster; if it was the configuration, its tag tells.
                Error::Conflict { .. } if attempts > 1 => attempts -= 1,
                error => return Err(error.into()),
            }
        }
    })
    .await?;
    done()
}

/// Checks what the store cannot know. A value that was set before is not asked again.
fn check(before: &Config, after: &Config) -> Result<(), ApiError> {
    const FAMILIES: &str = "metrics.families.exclude";
    if before.get(FAMILIES) == after.get(FAMILIES) {
        return Ok(());
    }
    check_families(&after.settings().excluded_families).map_err(|reason| {
        ApiError::bad_request(format!("cannot set '{FAMILIES}' to '{}': {reason}", after.get(FAMILIES)))
    })
}

/// Values as texts. Clients that know a key's type send it as JSON knows it.
fn texts(body: ServerPut) -> Result<BTreeMap<String, String>, ApiError> {
    let text = |(key, value): (String, serde_json::Value)| match value {
        serde_json::Value::Null => Ok((key, String::new())),
        serde_json::Value::String(text) => Ok((key, text)),
        serde_json::Value::Bool(value) => Ok((key, value.to_string())),
        serde_json::Value::Number(value) => Ok((key, value.to_string())),
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            Err(ApiError::bad_request(format!("cannot set '{key}': the value is no text")))
        }
    };
    body.config.into_iter().map(text).collect()
}

async fn put_in_force(app: &Arc<App>, before: &Config, after: &Config) -> Result<(), ApiError> {
    let (old, new) = (before.settings(), after.settings());
    if let Some(listeners) = app.listeners.get() {
        listeners.apply(&new).await.map_err(|error| {
            let value = after.get(error.key);
            ApiError::bad_request(format!("cannot set '{}' to '{value}': {error}", error.key))
        })?;
    }
    if old.tls12 != new.tls12
        && let Err(error) = app.tls.set_versions(Versions::of(&new))
    {
        take_back(app, &old).await;
        return Err(ApiError::internal(format!("{error:#}")));
    }
    if !new.metrics_authentication && old.metrics_authentication {
        tracing::warn!("metrics are now served to anybody: core.metrics_authentication is off");
    }
    Ok(())
}

async fn take_back(app: &Arc<App>, settings: &Settings) {
    if let Some(listeners) = app.listeners.get()
        && let Err(error) = listeners.apply(settings).await
    {
        tracing::error!("a listener could not be put back: {error}");
    }
    if let Err(error) = app.tls.set_versions(Versions::of(settings)) {
        tracing::error!("TLS versions could not be put back: {error:#}");
    }
}

/// Under which addresses clients reach the listener: all of the host's where it is on a wildcard; the loopback ones among
/// them only where there are no others.
fn addresses(listener: SocketAddr, roots: &Roots) -> Vec<String> {
    if !listener.ip().is_unspecified() {
        return vec![listener.to_string()];
    }
    let own = own_addresses(roots).into_iter().filter(|ip| ip.is_ipv4() || listener.is_ipv6());
    let (loopback, others): (Vec<_>, Vec<_>) = own.partition(|ip| ip.is_loopback());
    let reachable = if others.is_empty() { loopback } else { others };
    reachable.into_iter().map(|ip| SocketAddr::new(ip, listener.port()).to_string()).collect()
}

/// Under which addresses clients reach the API over HTTPS; none while it is not served there.
pub(super) async fn https_addresses(app: &App) -> Vec<String> {
    let address = match app.listeners.get() {
        Some(listeners) => listeners.https_address().await,
        None => None,
    };
    address.map(|address| addresses(address, &app.roots)).unwrap_or_default()
}

async fn environment(app: &App, project: &str) -> Environment {
    let machine = &app.machine;
    let identity = app.tls.identity();
    // A client that learns the fingerprint here is to meet it at its next handshake.
    identity.reload_if_changed();
    let text = str::to_owned;
    let runtimes = app.cache.last().map(|last| {
        let names = last.gathered.found.iter().map(|instance| instance.runtime.clone());
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" | ")
    });
    Environment {
        addresses: https_addresses(app).await,
        architectures: machine.architectures(),
        certificate: identity.pem(),
        certificate_fingerprint: identity.fingerprint(),
        driver: runtimes.unwrap_or_default(),
        kernel: machine.kernel.clone(),
        kernel_architecture: machine.architecture.clone(),
        kernel_version: machine.kernel_version.clone(),
        os_name: machine.os_name.clone(),
        os_version: machine.os_version.clone(),
        project: text(project),
        server: text("miharu"),
        server_clustered: app.store.load().cluster.is_some(),
        server_event_mode: text("full-mesh"),
        server_name: app.server_name(),
        server_pid: std::process::id(),
        server_version: text(env!("CARGO_PKG_VERSION")),
        ..Environment::default()
    }
}

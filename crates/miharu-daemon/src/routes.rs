//! Every route of the API: one resource, one file.

mod certificates;
mod cluster;
mod discovery;
pub(crate) mod events;
pub(crate) mod foreign;
pub(crate) mod instances;
mod internal;
mod metrics;
mod operations;
mod projects;
mod resources;
mod root;
mod server;
mod ui;
mod unmanaged;
mod usage;
mod warnings;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use http::HeaderValue;
use http::header::X_CONTENT_TYPE_OPTIONS;

use crate::app::App;
use crate::respond::ApiError;
use crate::unread::Recipient;

pub(crate) use discovery::own_target;
pub(crate) use instances::{instance_path, instance_path_of};
pub(crate) use operations::tell_cancelled;

/// The routes of the unix socket and of `core.https_address`.
pub(crate) fn all(app: &Arc<App>) -> Router {
    let instance = get(instances::show).merge(unmanaged::changes());
    let instance_state = get(instances::state).merge(unmanaged::changes());
    let certificate = get(certificates::show)
        .put(certificates::replace)
        .patch(certificates::amend)
        .delete(certificates::remove);
    let project = get(projects::show)
        .delete(projects::remove)
        .put(projects::refuse)
        .patch(projects::refuse)
        .post(projects::refuse);
    let warning = get(warnings::show).put(warnings::update).patch(warnings::update).delete(warnings::remove);
    let member = get(cluster::member)
        .delete(cluster::remove)
        .put(cluster::refuse)
        .patch(cluster::refuse)
        .post(cluster::refuse);
    let router = Router::new()
        .route("/", get(root::show))
        .route("/1.0", get(server::show).put(server::replace).patch(server::merge))
        .route("/ui", get(ui::redirect))
        .route("/ui/", get(ui::index))
        .route("/ui/{*path}", get(ui::file))
        .route("/1.0/metrics", get(metrics::show))
        .route("/1.0/discovery/prometheus", get(discovery::prometheus))
        .route("/1.0/usage", get(usage::show))
        .route("/1.0/events", get(events::listen))
        .route("/1.0/resources", get(resources::show))
        .route("/1.0/warnings", get(warnings::list))
        .route("/1.0/warnings/{uuid}", warning)
        .route("/1.0/certificates", get(certificates::list).post(certificates::add))
        .route("/1.0/certificates/{fingerprint}", certificate)
        .route("/1.0/operations", get(operations::list))
        .route("/1.0/operations/{id}", get(operations::show).delete(operations::cancel))
        .route("/1.0/operations/{id}/wait", get(operations::wait))
        .route("/1.0/projects", get(projects::list).post(projects::add))
        .route("/1.0/projects/{name}", project)
        .route("/1.0/projects/{name}/state", get(projects::state))
        .route("/1.0/cluster", get(cluster::show).put(cluster::update))
        .route("/1.0/cluster/certificate", put(cluster::replace_certificate))
        .route("/1.0/cluster/members", get(cluster::members).post(cluster::invite))
        .route("/1.0/cluster/members/{name}", member)
        .route("/1.0/cluster/members/{name}/{*rest}", any(cluster::refuse))
        .route("/1.0/cluster/groups", any(cluster::refuse))
        .route("/1.0/cluster/groups/{*rest}", any(cluster::refuse))
        .route("/1.0/instances", get(instances::list).merge(unmanaged::changes()))
        .route("/1.0/instances/{name}", instance.clone())
        .route("/1.0/instances/{name}/state", instance_state.clone())
        .route("/1.0/instances/{name}/sources", get(instances::sources::show))
        .route("/1.0/instances/{name}/history", get(usage::history))
        .route("/1.0/containers", get(instances::list_containers).merge(unmanaged::changes()))
        .route("/1.0/containers/{name}", instance.clone())
        .route("/1.0/containers/{name}/state", instance_state.clone())
        .route("/1.0/virtual-machines", get(instances::list_virtual_machines).merge(unmanaged::changes()))
        .route("/1.0/virtual-machines/{name}", instance)
        .route("/1.0/virtual-machines/{name}/state", instance_state)
        .route("/internal/ready", get(internal::ready))
        .route("/internal/build", get(internal::build))
        .route("/internal/doctor", get(internal::doctor))
        .route("/internal/reload", post(internal::reload))
        .route("/internal/renew-certificate", post(internal::renew_certificate))
        .method_not_allowed_fallback(|| async { ApiError::not_implemented() });
    finish(unmanaged::routes(router), app)
}

/// The routes of `core.metrics_address`; for who is no member of the cluster nothing else exists there.
pub(crate) fn metrics_only(app: &Arc<App>) -> Router {
    let router = Router::new()
        .route("/", get(root::show))
        .route("/1.0", get(server::show))
        .route("/1.0/metrics", get(metrics::show))
        .route("/1.0/discovery/prometheus", get(discovery::prometheus))
        // A member that listens nowhere else is asked here by the others.
        .route("/1.0/usage", get(usage::show_to_member))
        .route("/1.0/instances/{name}/history", get(usage::history_to_member))
        .method_not_allowed_fallback(|| async { ApiError::not_found() });
    finish(router, app)
}

fn finish(router: Router<Arc<App>>, app: &Arc<App>) -> Router {
    router
        .fallback(|| async { ApiError::not_found() })
        .layer(from_fn_with_state(Arc::clone(app), around))
        .with_state(Arc::clone(app))
}

/// What surrounds every request: it is counted, refused when another site's page made a browser send it, and its answer
/// is counted until it was read, and never taken for something else than it says.
async fn around(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let ongoing = app.requests.begin(request.uri().path());
    let recipient = Recipient::of(&app.unread, request.extensions());
    request.extensions_mut().insert(recipient.clone());
    let mut response = match foreign::is_foreign(&request) {
        true => ApiError::forbidden().into_response(),
        false => next.run(request).await,
    };
    response = recipient.counted(response).await;
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    ongoing.completed(response.status());
    response
}

#[cfg(test)]
mod tests;

//! `/1.0/instances`: who runs here, and how it does.

pub(crate) mod filter;
pub(super) mod sources;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use miharu_api::{Instance, InstanceFull};
use miharu_metrics::InstanceType;

use crate::app::{App, DEFAULT_PROJECT};
use crate::auth::Reader;
use crate::cache::{Collected, Found};
use crate::respond::{Answer, ApiError, Name, Parameters, ok, ok_tagged, path, tag};
use crate::unread::Recipient;
use filter::Filter;

/// The key of an instance's configuration under which Incus and LXD tell what its image is.
const IMAGE: &str = "image.description";

/// The status of everything that miharu sees, and its code.
const RUNNING: (&str, u16) = ("Running", 103);

/// `GET /1.0/instances`.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    recipient: Recipient,
    parameters: Parameters,
) -> Answer {
    list_of(&app, &reader, &recipient, &parameters, None).await
}

/// `GET /1.0/containers`.
pub(super) async fn list_containers(
    State(app): State<Arc<App>>,
    reader: Reader,
    recipient: Recipient,
    parameters: Parameters,
) -> Answer {
    list_of(&app, &reader, &recipient, &parameters, Some(InstanceType::Container)).await
}

/// `GET /1.0/virtual-machines`.
pub(super) async fn list_virtual_machines(
    State(app): State<Arc<App>>,
    reader: Reader,
    recipient: Recipient,
    parameters: Parameters,
) -> Answer {
    list_of(&app, &reader, &recipient, &parameters, Some(InstanceType::VirtualMachine)).await
}

async fn list_of(
    app: &Arc<App>,
    reader: &Reader,
    recipient: &Recipient,
    parameters: &Parameters,
    only: Option<InstanceType>,
) -> Answer {
    let filter =
        Filter::parse(parameters.get("filter").unwrap_or_default()).map_err(ApiError::bad_request)?;
    // A list is long, and may wait for a collection.
    let _turn = recipient.turn().await?;
    let mut found = visible(app, reader, parameters).await?;
    found.retain(|instance| only.is_none_or(|only| instance.instance_type == only));
    found.retain(|instance| filter.matches(instance));
    match parameters.recursion() {
        0 => ok(paths(&found, parameters)),
        1 => {
            let collected = app.cache.last();
            ok(found.iter().map(|instance| plain(app, instance, collected.as_deref())).collect::<Vec<_>>())
        }
        _ => {
            // Without figures the list is still worth having.
            let collected = app.figures_of(&found).await.ok();
            ok(found.iter().map(|instance| full(app, instance, collected.as_deref())).collect::<Vec<_>>())
        }
    }
}

/// `GET /1.0/instances/NAME`.
pub(super) async fn show(
    State(app): State<Arc<App>>,
    reader: Reader,
    Name(name): Name,
    parameters: Parameters,
) -> Answer {
    let found = one(&app, &reader, &parameters, &name).await?;
    if parameters.recursion() == 0 {
        let shown = plain(&app, &found, app.cache.last().as_deref());
        // What clients could change of it, in Incus and LXD.
        let tag =
            tag(&(&shown.architecture, &shown.config, &shown.devices, shown.ephemeral, &shown.profiles))?;
        return ok_tagged(shown, &tag);
    }
    let collected = app.figures_of(std::slice::from_ref(&found)).await.ok();
    ok(full(&app, &found, collected.as_deref()))
}

/// `GET /1.0/instances/NAME/state`.
pub(super) async fn state(
    State(app): State<Arc<App>>,
    reader: Reader,
    Name(name): Name,
    parameters: Parameters,
) -> Answer {
    let found = one(&app, &reader, &parameters, &name).await?;
    let unavailable = |reason: String| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason);
    let collected = app.figures_of(std::slice::from_ref(&found)).await.map_err(unavailable)?;
    let figures = collected
        .figures_of(&found)
        .ok_or_else(|| unavailable("the instance has not been collected yet, try again".to_owned()))?;
    ok(state::state(&found, &figures.figures, collected.guest_of(&found)))
}

/// The paths of these. A request that names no project means those of all, and a path without one is as good as long as one
/// instance alone has the name: clients such as `pylxd` take what follows the last `/` for the name.
fn paths(found: &[Found], parameters: &Parameters) -> Vec<String> {
    let names_projects = ["project", "all-projects"].iter().any(|name| parameters.get(name).is_some());
    let mut names = BTreeMap::<&str, usize>::new();
    for instance in found {
        *names.entry(&instance.name).or_default() += 1;
    }
    let is_enough = |name: &str| !names_projects && names.get(name) == Some(&1);
    let path_of = |instance: &Found| match is_enough(&instance.name) {
        true => path("instances", &instance.name),
        false => instance_path(instance),
    };
    found.iter().map(path_of).collect()
}

/// The path of an instance, with its project unless that is the one that clients leave out.
pub(crate) fn instance_path(instance: &Found) -> String {
    instance_path_of(&instance.project, &instance.name)
}

/// The path of the instance of this name in this project.
pub(crate) fn instance_path_of(project: &str, name: &str) -> String {
    let path_of_name = path("instances", name);
    if project == DEFAULT_PROJECT {
        return path_of_name;
    }
    let project = path("projects", project);
    let project = project.strip_prefix("/1.0/projects/").unwrap_or_default();
    format!("{path_of_name}?project={project}")
}

/// The instances that the caller may see and asked for. Without a `project` those of every project are meant.
async fn visible(app: &Arc<App>, reader: &Reader, parameters: &Parameters) -> Result<Vec<Found>, ApiError> {
    let asked = parameters.projects();
    let mut found = app.found().await?;
    found.retain(|instance| {
        reader.sees(&instance.project) && asked.as_ref().is_none_or(|asked| asked.contains(&instance.project))
    });
    Ok(found)
}

async fn one(
    app: &Arc<App>,
    reader: &Reader,
    parameters: &Parameters,
    name: &str,
) -> Result<Found, ApiError> {
    let mut found = visible(app, reader, parameters).await?;
    found.retain(|instance| instance.name == name);
    match found.as_slice() {
        [] => Err(ApiError::new(StatusCode::NOT_FOUND, "Instance not found")),
        [only] => Ok(only.clone()),
        several => {
            let projects: Vec<_> = several.iter().map(|instance| instance.project.as_str()).collect();
            Err(ApiError::new(
                StatusCode::CONFLICT,
                format!("Instance '{name}' is in several projects, name one of: {}", projects.join(", ")),
            ))
        }
    }
}

fn plain(app: &App, found: &Found, collected: Option<&Collected>) -> Instance {
    let figures = collected.and_then(|collected| collected.figures_of(found));
    let started = figures.and_then(|instance| instance.figures.boot_time_seconds);
    let started = state::rfc3339(started);
    Instance {
        name: found.name.clone(),
        status: RUNNING.0.to_owned(),
        status_code: RUNNING.1,
        created_at: state::rfc3339(None),
        last_used_at: started,
        location: app.location(),
        instance_type: found.instance_type.as_str().to_owned(),
        project: found.project.clone(),
        architecture: app.machine.architecture.clone(),
        runtime: found.runtime.clone(),
        id: found.id.clone(),
        config: found.image.iter().map(|image| (IMAGE.to_owned(), image.clone())).collect(),
        ..Instance::default()
    }
}

fn full(app: &App, found: &Found, collected: Option<&Collected>) -> InstanceFull {
    let figures = collected.and_then(|collected| collected.figures_of(found));
    InstanceFull {
        instance: plain(app, found, collected),
        state: figures.map(|instance| {
            let guest = collected.and_then(|collected| collected.guest_of(found));
            state::state(found, &instance.figures, guest)
        }),
        ..InstanceFull::default()
    }
}

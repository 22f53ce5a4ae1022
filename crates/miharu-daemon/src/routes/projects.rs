//! `/1.0/projects`: projects found on the host, and ones declared for certificates.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use miharu_api::{Project, ProjectState, ProjectUsage, ProjectsPost};
use miharu_metrics::InstanceType;
use miharu_store::{Change, DeclaredProject, Error};

use crate::app::{App, DEFAULT_PROJECT};
use crate::auth::{FullAccess, Reader};
use crate::respond::{Answer, ApiError, Json, Name, Parameters, created, done, ok, ok_tagged, path, tag};

/// The longest name of a project, in bytes.
const NAME_LIMIT: usize = 256;

fn no_such_project() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Project not found")
}

/// `GET /1.0/projects`.
pub(super) async fn list(State(app): State<Arc<App>>, reader: Reader, parameters: Parameters) -> Answer {
    let projects = projects(&app, &reader).await;
    if parameters.recursion() == 0 {
        return ok(projects.keys().map(|name| path("projects", name)).collect::<Vec<_>>());
    }
    ok(projects.into_values().collect::<Vec<_>>())
}

/// `GET /1.0/projects/NAME`.
pub(super) async fn show(State(app): State<Arc<App>>, reader: Reader, Name(name): Name) -> Answer {
    let project = projects(&app, &reader).await.remove(&name).ok_or_else(no_such_project)?;
    let tag = tag(&(&project.description, &project.config))?;
    ok_tagged(project, &tag)
}

/// `GET /1.0/projects/NAME/state`: how much runs in it. miharu sets no limits.
pub(super) async fn state(State(app): State<Arc<App>>, reader: Reader, Name(name): Name) -> Answer {
    let project = projects(&app, &reader).await.remove(&name).ok_or_else(no_such_project)?;
    let found = app.found().await.unwrap_or_default();
    let count = |wanted: Option<InstanceType>| {
        let of_project = found.iter().filter(|instance| instance.project == project.name);
        let count = of_project.filter(|it| wanted.is_none_or(|wanted| it.instance_type == wanted)).count();
        ProjectUsage { limit: -1, usage: i64::try_from(count).unwrap_or(i64::MAX) }
    };
    let rows = [
        ("containers", count(Some(InstanceType::Container))),
        ("instances", count(None)),
        ("virtual-machines", count(Some(InstanceType::VirtualMachine))),
    ];
    let resources = rows.map(|(name, usage)| (name.to_owned(), usage)).into();
    ok(ProjectState { resources })
}

/// `POST /1.0/projects`: declares one.
pub(super) async fn add(
    State(app): State<Arc<App>>,
    _: FullAccess,
    Json(body): Json<ProjectsPost>,
) -> Answer {
    let ProjectsPost { name, description, config } = body;
    check_name(&name)?;
    if let Some(key) = config.and_then(|config| config.into_keys().next()) {
        return Err(ApiError::bad_request(format!(
            "a project has no configuration here: unknown key '{key}'"
        )));
    }
    let location = path("projects", &name);
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        let exists = || ApiError::new(StatusCode::CONFLICT, format!("Project '{name}' already exists"));
        if name == DEFAULT_PROJECT {
            return Err(exists());
        }
        match app.commit(Change::AddProject(name.clone(), DeclaredProject { description })).await {
            Ok(_) => Ok(()),
            Err(Error::Exists(_)) => Err(exists()),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    created(&location)
}

/// What Incus and LXD change of a project: its configuration, and its name.
pub(super) async fn refuse(_: FullAccess) -> Answer {
    let message = "not implemented: a project of miharu has no configuration, and keeps its name and description; \
                   delete it and create another";
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, message))
}

/// `DELETE /1.0/projects/NAME`: the declaration goes, what was found stays.
pub(super) async fn remove(State(app): State<Arc<App>>, _: FullAccess, Name(name): Name) -> Answer {
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        if name == DEFAULT_PROJECT {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "The 'default' project cannot be deleted"));
        }
        let found = app.projects().await;
        let state = app.store.load();
        if !state.projects.contains_key(&name) {
            return Err(if found.contains(&name) {
                ApiError::bad_request(format!("Project '{name}' was found on this host, not declared"))
            } else {
                no_such_project()
            });
        }
        let user = state
            .certificates
            .values()
            .find(|entry| entry.projects.as_ref().is_some_and(|projects| projects.contains(&name)));
        if let Some(entry) = user {
            return Err(ApiError::bad_request(format!(
                "Project '{name}' is in use: the certificate '{}' is restricted to it",
                entry.name
            )));
        }
        app.commit(Change::RemoveProject(name)).await?;
        Ok(())
    })
    .await?;
    done()
}

async fn projects(app: &Arc<App>, reader: &Reader) -> BTreeMap<String, Project> {
    let found = app.found().await.unwrap_or_default();
    let state = app.store.load();
    let mut projects: BTreeMap<String, Project> = BTreeMap::new();
    for (name, declared) in &state.projects {
        let project = projects.entry(name.clone()).or_default();
        project.description.clone_from(&declared.description);
        project.declared = true;
    }
    for instance in &found {
        let used_by = super::instances::instance_path(instance);
        projects.entry(instance.project.clone()).or_default().used_by.push(used_by);
    }
    projects.entry(DEFAULT_PROJECT.to_owned()).or_default();
    projects.retain(|name, _| reader.sees(name));
    for (name, project) in &mut projects {
        project.name.clone_from(name);
        project.used_by.sort();
    }
    projects
}

/// Names are those that instances can have: `docker/shop`, `lxc:/srv/lxc`, `podman@alice`.
fn check_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::bad_request("No name provided"));
    }
    if name.len() > NAME_LIMIT || name.chars().any(|c| c.is_control() || c.is_whitespace() || c == ',') {
        return Err(ApiError::bad_request(format!(
            "Invalid project name: up to {NAME_LIMIT} bytes, no blanks, commas or control characters"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_instances_can_have() {
        for name in ["default", "docker/shop", "lxc:/srv/lxc", "podman@alice", "日本"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "a b", "a,b", "a\n", &"x".repeat(257)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}

//! `/1.0/instances/NAME/sources`: where an instance's figures come from. The files are read for the answer, so nobody else pays
//! for it.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use miharu_api::{InstanceSources, SourceCgroup, SourceGroup};
use miharu_collect::{CgroupPlace, Group, Question, Sources, sources};
use miharu_instances::Instance;
use tokio::sync::Semaphore;

use super::one;
use crate::app::App;
use crate::auth::{FullAccess, Reader};
use crate::cache::{Collected, Found};
use crate::plan::Plan;
use crate::respond::{Answer, ApiError, Name, Parameters, ok};
use crate::source::is_found;

/// Answers that are read at the same time; one that hangs on a file keeps its place.
static READERS: Semaphore = Semaphore::const_new(2);

/// `GET /1.0/instances/NAME/sources`. It tells of the host's own files, so a client that sees some projects alone is refused.
pub(in crate::routes) async fn show(
    State(app): State<Arc<App>>,
    _: FullAccess,
    reader: Reader,
    Name(name): Name,
    parameters: Parameters,
) -> Answer {
    let found = one(&app, &reader, &parameters, &name).await?;
    let plan = app.plan();
    let collected = app.figures_of(std::slice::from_ref(&found)).await.ok();
    let all = app.finder.instances(Arc::clone(&plan.whole.chosen)).await.map_err(unavailable)?;
    let limit = plan.settings.instance_timeout;
    let work = async {
        let place = READERS.acquire().await.map_err(ApiError::internal)?;
        let read = crate::sandbox::look(move || {
            let answer = read(&app, &plan, &found, &all, collected.as_deref());
            drop(place);
            answer
        });
        read.await.map_err(ApiError::internal)?
    };
    let late =
        |_| Err(unavailable("its files could not be read in time (metrics.instance_timeout)".to_owned()));
    ok(tokio::time::timeout(limit, work).await.unwrap_or_else(late)?)
}

fn unavailable(why: String) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)
}

fn read(
    app: &App,
    plan: &Plan,
    found: &Found,
    all: &[Arc<Instance>],
    collected: Option<&Collected>,
) -> Result<InstanceSources, ApiError> {
    let gone = || ApiError::new(StatusCode::NOT_FOUND, "Instance not found");
    let instance = all.iter().find(|instance| is_found(instance, found)).ok_or_else(gone)?;
    let question = Question {
        roots: &app.roots,
        instance,
        all,
        options: &plan.whole,
        families: plan.families,
        prefix: plan.prefix,
        figures: collected.and_then(|collected| collected.figures_of(found)),
        guest: collected.and_then(|collected| collected.guest_of(found)),
    };
    match sources(&question) {
        Ok(sources) => Ok(body(sources)),
        Err(error) if error.is_gone() => Err(gone()),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

fn body(sources: Sources) -> InstanceSources {
    let cgroup = |place: CgroupPlace| SourceCgroup {
        hierarchy: place.hierarchy,
        directory: place.directory.display().to_string(),
    };
    let group = |group: Group| {
        let Group { what, families, from, lacks } = group;
        SourceGroup { what: what.to_owned(), families, from, lacks }
    };
    InstanceSources {
        cgroups: sources.cgroups.into_iter().map(cgroup).collect(),
        figures: sources.groups.into_iter().map(group).collect(),
    }
}

//! `/1.0/warnings`: what is wrong, acknowledged or not.

use std::sync::Arc;

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use miharu_api::{Warning, WarningPut};

use crate::app::App;
use crate::auth::{FullAccess, Reader};
use crate::respond::{Answer, ApiError, Json, Name, Parameters, check_match, done, ok, ok_tagged, path, tag};
use crate::warnings::Status;

fn no_such_warning() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Warning not found")
}

/// `GET /1.0/warnings`.
pub(super) async fn list(State(app): State<Arc<App>>, reader: Reader, parameters: Parameters) -> Answer {
    // What was wrong at the last scrape may be well by now. Without figures the list is still worth having.
    let _ = app.figures_of(&[]).await;
    crate::expiry::check(&app);
    let asked = parameters.projects();
    let mut warnings = app.warnings.list();
    let location = app.location();
    warnings.iter_mut().for_each(|warning| warning.location.clone_from(&location));
    warnings.retain(|warning| {
        may_see(&reader, warning) && asked.as_ref().is_none_or(|asked| asked.contains(&warning.project))
    });
    if parameters.recursion() == 0 {
        return ok(warnings.iter().map(|warning| path("warnings", &warning.uuid)).collect::<Vec<_>>());
    }
    ok(warnings)
}

/// `GET /1.0/warnings/UUID`.
pub(super) async fn show(State(app): State<Arc<App>>, reader: Reader, Name(uuid): Name) -> Answer {
    let warning = app.warnings.get(&uuid).filter(|warning| may_see(&reader, warning));
    let warning = warning.ok_or_else(no_such_warning)?;
    let tag = tag(&warning.status)?;
    ok_tagged(warning, &tag)
}

/// `PUT` and `PATCH /1.0/warnings/UUID`.
pub(super) async fn update(
    State(app): State<Arc<App>>,
    _: FullAccess,
    Name(uuid): Name,
    headers: HeaderMap,
    Json(body): Json<WarningPut>,
) -> Answer {
    let status = match body.status.as_str() {
        "acknowledged" => Status::Acknowledged,
        "new" => Status::New,
        other => {
            return Err(ApiError::bad_request(format!(
                "a warning cannot be set to '{other}': expected acknowledged or new"
            )));
        }
    };
    let before = app.warnings.get(&uuid).ok_or_else(no_such_warning)?;
    check_match(&headers, &tag(&before.status)?)?;
    if app.warnings.put_status(&uuid, status) { done() } else { Err(no_such_warning()) }
}

/// `DELETE /1.0/warnings/UUID`.
pub(super) async fn remove(State(app): State<Arc<App>>, _: FullAccess, Name(uuid): Name) -> Answer {
    if app.warnings.remove(&uuid) { done() } else { Err(no_such_warning()) }
}

/// What belongs to no project is the whole server's.
fn may_see(reader: &Reader, warning: &Warning) -> bool {
    if warning.project.is_empty() { reader.0.is_none() } else { reader.sees(&warning.project) }
}

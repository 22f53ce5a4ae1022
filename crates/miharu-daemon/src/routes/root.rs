//! `/`: the versions of the API.

use crate::respond::{Answer, ok};

/// `GET /`.
pub(super) async fn show() -> Answer {
    ok(["/1.0"])
}

//! `/1.0/cluster`: a lone server says that it is one.

use http::StatusCode;
use miharu_api::Cluster;

use crate::auth::FullAccess;
use crate::respond::{Answer, ApiError, ok_tagged, tag};

/// `GET /1.0/cluster`.
pub(super) async fn show(_: FullAccess) -> Answer {
    let cluster = Cluster::default();
    let tag = tag(&cluster)?;
    ok_tagged(cluster, &tag)
}

/// `/1.0/cluster/members` and what is below. Incus and LXD answer 500 for what is no failure of theirs; clients print the
/// words alone.
pub(super) async fn members(_: FullAccess) -> Answer {
    Err(ApiError::new(StatusCode::BAD_REQUEST, "Server is not clustered"))
}

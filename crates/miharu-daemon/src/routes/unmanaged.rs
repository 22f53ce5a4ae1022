//! What Incus and LXD do and miharu does not: it measures instances, and manages none. Their clients are told so.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, any, delete};
use http::{Method, StatusCode, Uri};

use crate::app::App;
use crate::auth::Reader;
use crate::respond::{Answer, ApiError};

/// Resources of Incus and LXD that miharu has not at all, nor anything below them.
const COLLECTIONS: &[&str] = &[
    "images",
    "network-acls",
    "network-address-sets",
    "network-allocations",
    "network-integrations",
    "network-zones",
    "networks",
    "profiles",
    "storage-pools",
    "storage-volumes",
];

/// What there is below an instance with them.
const PARTS: &[&str] = &[
    "access",
    "backups",
    "bitmaps",
    "console",
    "debug",
    "exec",
    "files",
    "logs",
    "metadata",
    "rebuild",
    "sftp",
    "snapshots",
];

/// The names that instances go by in paths.
const INSTANCES: [&str; 3] = ["instances", "containers", "virtual-machines"];

/// Adds the routes of all of them.
pub(super) fn routes(mut router: Router<Arc<App>>) -> Router<Arc<App>> {
    for collection in COLLECTIONS {
        router = router
            .route(&format!("/1.0/{collection}"), any(refuse))
            .route(&format!("/1.0/{collection}/{{*rest}}"), any(refuse));
    }
    for instances in INSTANCES {
        for part in PARTS {
            router = router
                .route(&format!("/1.0/{instances}/{{name}}/{part}"), any(refuse))
                .route(&format!("/1.0/{instances}/{{name}}/{part}/{{*rest}}"), any(refuse));
        }
    }
    router
}

/// The methods that would change a resource which miharu only shows.
pub(super) fn changes() -> MethodRouter<Arc<App>> {
    delete(refuse).patch(refuse).post(refuse).put(refuse)
}

/// Who may not see anything learns nothing here either.
async fn refuse(_: Reader, method: Method, uri: Uri) -> Answer {
    let message = format!(
        "not implemented: {method} {}: miharu measures instances and does not manage them; ask the runtime that runs them",
        uri.path()
    );
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, message))
}

//! What Incus and LXD do and miharu does not: it measures instances, and manages none. Their clients are told so.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::routing::{MethodRouter, any, delete};
use http::{Method, StatusCode, Uri};

use crate::app::App;
use crate::auth::Reader;
use crate::respond::{Answer, ApiError};

/// How long a client that is still sending has time to notice the answer.
const LINGER: Duration = Duration::from_secs(3);

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
async fn refuse(_: Reader, method: Method, uri: Uri, body: Body) -> Answer {
    linger(body);
    let message = format!(
        "not implemented: {method} {}: miharu measures instances and does not manage them; ask the runtime that runs them",
        uri.path()
    );
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, message))
}

/// Keeps a body that nobody reads, an image maybe, for a moment: dropped at once it would take the connection along, and a
/// client that is still sending would show its broken pipe instead of the answer.
fn linger(body: Body) {
    if !body.is_end_stream() {
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            drop(body);
        });
    }
}

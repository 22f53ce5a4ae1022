//! Counts of API requests, for the families `api_requests_completed_total` and `api_requests_ongoing`.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use miharu_metrics::server::ApiRequests;

/// What requests are about: the values of the label `entity_type`, in the order in which they are served.
const ENTITIES: [&str; 7] =
    ["certificate", "instance", "metrics", "operation", "project", "server", "warning"];

/// The counts. Each is a counter of its own, so a snapshot may fall between two of them; none of them ever goes back.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    counts: [Count; ENTITIES.len()],
}

#[derive(Debug, Default)]
struct Count {
    succeeded: AtomicU64,
    error_client: AtomicU64,
    error_server: AtomicU64,
    ongoing: AtomicU64,
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Ongoing<'a>(Option<&'a Count>);

impl Requests {
    /// A request for this path begins.
    pub(crate) fn begin(&self, path: &str) -> Ongoing<'_> {
        let entity = entity(path);
        let count = ENTITIES.iter().position(|known| *known == entity).and_then(|at| self.counts.get(at));
        if let Some(count) = count {
            count.ongoing.fetch_add(1, Ordering::Relaxed);
        }
        Ongoing(count)
    }

    /// The counts as of now.
    pub(crate) fn figures(&self) -> Vec<ApiRequests> {
        ENTITIES
            .iter()
            .zip(&self.counts)
            .map(|(entity_type, count)| ApiRequests {
                entity_type,
                succeeded: count.succeeded.load(Ordering::Relaxed),
                error_client: count.error_client.load(Ordering::Relaxed),
                error_server: count.error_server.load(Ordering::Relaxed),
                ongoing: count.ongoing.load(Ordering::Relaxed),
            })
            .collect()
    }
}

impl Ongoing<'_> {
    /// It was answered with this status.
    pub(crate) fn completed(self, status: StatusCode) {
        if let Some(count) = self.0 {
            let counter = match status {
                status if status.is_server_error() => &count.error_server,
                status if status.is_client_error() => &count.error_client,
                _ => &count.succeeded,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Ongoing<'_> {
    // Also for a client that went away before its answer.
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.ongoing.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

pub(crate) fn entity(path: &str) -> &'static str {
    let resource = path.strip_prefix("/1.0/").unwrap_or_default();
    match resource.split('/').next() {
        Some("certificates") => "certificate",
        Some("instances" | "containers" | "virtual-machines") => "instance",
        Some("metrics") => "metrics",
        Some("operations") => "operation",
        Some("projects") => "project",
        Some("warnings") => "warning",
        _ => "server",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_are_about_and_how_they_end() {
        let requests = Requests::default();
        requests.begin("/1.0/metrics").completed(StatusCode::OK);
        requests.begin("/1.0/metrics").completed(StatusCode::FORBIDDEN);
        drop(requests.begin("/1.0/instances/u1/state"));
        let ongoing = requests.begin("/1.0");
        let figures = requests.figures();
        let of = |entity| figures.iter().find(|row| row.entity_type == entity).unwrap();
        assert_eq!((of("metrics").succeeded, of("metrics").error_client, of("metrics").ongoing), (1, 1, 0));
        assert_eq!((of("instance").succeeded, of("instance").ongoing), (0, 0));
        assert_eq!(of("server").ongoing, 1);
        drop(ongoing);
    }
}

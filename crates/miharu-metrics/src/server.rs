//! The figures of the server itself.

use std::time::Duration;

/// What the server says of itself; they are taken with the collection, so that a cached answer stays the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerFigures {
    /// How long the server has been running.
    pub uptime: Option<Duration>,
    /// Operations in progress.
    pub operations: Option<u64>,
    /// Warnings that stand.
    pub warnings: Option<u64>,
    /// For how long this member of a cluster has not known its copy to be what the cluster holds.
    pub cluster_sync_age: Option<Duration>,
    /// Requests by the kind of thing that they were about.
    pub api_requests: Vec<ApiRequests>,
    /// How long the collection took.
    pub collect_duration: Option<Duration>,
    /// When the figures were collected, seconds since the epoch.
    pub collect_timestamp_seconds: Option<f64>,
    /// The server's own process.
    pub process: Process,
}

/// Requests about one kind of thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiRequests {
    /// The label `entity_type`.
    pub entity_type: &'static str,
    /// Requests that were answered well.
    pub succeeded: u64,
    /// Requests refused for the client's fault (4xx).
    pub error_client: u64,
    /// Requests that failed for the server's fault (5xx).
    pub error_server: u64,
    /// Requests being answered.
    pub ongoing: u64,
}

/// The standard figures of a process, as every Prometheus client library tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    /// User and system CPU time.
    pub cpu: Option<Duration>,
    /// Descriptors that may be open (the soft limit).
    pub max_fds: Option<u64>,
    /// Descriptors that are open.
    pub open_fds: Option<u64>,
    /// Resident memory in bytes.
    pub resident_memory_bytes: Option<u64>,
    /// When it started, seconds since the epoch.
    pub start_time_seconds: Option<f64>,
    /// Virtual memory in bytes.
    pub virtual_memory_bytes: Option<u64>,
}

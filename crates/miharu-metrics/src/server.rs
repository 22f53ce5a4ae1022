//! The figures of the server itself.

use std::collections::BTreeMap;
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
    /// When the certificates end on which scrapes depend, each kind once.
    pub certificates: Vec<CertificateEnd>,
    /// Requests by the kind of thing that they were about.
    pub api_requests: Vec<ApiRequests>,
    /// How long the collection took.
    pub collect_duration: Option<Duration>,
    /// When the figures were collected, seconds since the epoch.
    pub collect_timestamp_seconds: Option<f64>,
    /// The server's own process.
    pub process: Process,
    /// What the daemons of Incus and LXD on this host tell.
    pub runtimes: Vec<Runtime>,
}

/// When the first certificate of a kind ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateEnd {
    /// The label `certificate`.
    pub certificate: &'static str,
    /// Seconds since the epoch.
    pub end_seconds: u64,
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

/// What one daemon of Incus or LXD tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runtime {
    /// `incus` or `lxd`.
    pub runtime: &'static str,
    /// The label `server`, which the series of all but the first daemon of a host carry: two may have projects and pools of
    /// one name.
    pub server: Option<String>,
    /// How old these figures are.
    pub age: Duration,
    /// Its projects, each once.
    pub projects: Vec<Project>,
    /// Its storage pools, each once.
    pub pools: Vec<StoragePool>,
}

/// A project of a daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Project {
    /// Its name, the label `project`.
    pub name: String,
    /// How many of each kind it has; the kind is the label `resource`.
    pub counts: BTreeMap<String, u64>,
    /// What is limited, or could be, by the label `resource`.
    pub resources: BTreeMap<String, Resource>,
}

/// One thing that a project may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// How much it may take.
    pub limit: Limit,
    /// How much it takes.
    pub usage: Option<u64>,
}

/// How much may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// As much as there is; written as -1, as Incus does.
    Unlimited,
    /// So much.
    At(u64),
}

/// A storage pool of a daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoragePool {
    /// Its name, the label `pool`.
    pub name: String,
    /// What keeps it: `dir`, `zfs`, ….
    pub driver: String,
    /// Its size in bytes.
    pub size_bytes: Option<u64>,
    /// Bytes that are used.
    pub used_bytes: Option<u64>,
}

//! The bodies of the REST API as they go over the wire, for the daemon that writes them and the command line that
//! reads them. Shapes and field names are those of the Incus and LXD API, so that their clients understand miharu.
//!
//! Types only: a field that an older or newer peer leaves out takes its default, one that it adds is ignored.
#![forbid(unsafe_code)]

pub mod certificates;
pub mod cluster;
pub mod envelope;
pub mod events;
pub mod instances;
pub mod internal;
pub mod operations;
pub mod projects;
pub mod report;
pub mod resources;
pub mod server;
pub mod sources;
pub mod usage;
pub mod warnings;

pub use certificates::{
    BearerToken, Certificate, CertificatePatch, CertificatePut, CertificatesPost, JoinToken,
};
pub use cluster::{
    Cluster, ClusterCertificatePut, ClusterInvitation, ClusterJoinToken, ClusterMember, ClusterMembersPost,
    ClusterPut, ClusterStore,
};
pub use envelope::{Envelope, Kind};
pub use events::{Event, Lifecycle, Logging, Requestor};
pub use instances::{
    Instance, InstanceFull, InstanceState, StateCpu, StateDisk, StateMemory, StateNetwork,
    StateNetworkAddress, StateNetworkCounters,
};
pub use internal::{Build, CertificateRenewal, Check, Diagnosis, Finding, RenewedCertificate};
pub use operations::Operation;
pub use projects::{Project, ProjectState, ProjectUsage, ProjectsPost};
pub use report::{Answer, Report, Request};
pub use server::{Environment, Server, ServerPut};
pub use sources::{InstanceSources, SourceCgroup, SourceGroup};
pub use usage::{History, InstanceUsage, Usage};
pub use warnings::{Warning, WarningPut};

/// Go clients write an empty list or map as `null`.
pub(crate) fn null_is_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: serde::Deserialize<'de> + Default,
    D: serde::Deserializer<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

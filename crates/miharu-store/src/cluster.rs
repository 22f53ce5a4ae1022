//! The cluster side of the store: etcd is the source, the database the last known copy of it.
//!
//! A member reads everything under one prefix, watches it from there on, and keeps what it saw in its own database, so that it
//! goes on with the last copy when etcd is away. A change is one etcd transaction that compares the key `revision`; only then
//! is it stored here. All of it is done by one thread with one connection, see [`engine`].

mod attempt;
mod client;
pub(crate) mod codec;
pub(crate) mod commit;
pub(crate) mod copy;
pub(crate) mod engine;
mod founding;
mod invitation;
mod joining;
pub(crate) mod lifecycle;
mod local;
pub(crate) mod mirror;
mod rpc;
pub(crate) mod seal;
mod settings;
pub(crate) mod sync;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::certificate::ParsedCertificate;
use crate::token::Secret;

pub use invitation::Invitation;
pub use lifecycle::{Enable, Join, Leave};
pub use settings::{EtcdAccess, SettingsError};

/// The server keys that each member has for itself; all others are the cluster's.
pub const MEMBER_KEYS: [&str; 3] = ["core.https_address", "core.metrics_address", "core.metrics_advertise"];

/// Whether each member has a value of its own for this server key.
#[must_use]
pub fn is_member_key(key: &str) -> bool {
    MEMBER_KEYS.contains(&key)
}

/// What a member of a cluster knows of it.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// A UUID, made when the cluster was.
    pub id: String,
    /// What people call it: the last part of its prefix in etcd.
    pub name: String,
    /// What this server is called in it.
    pub member: String,
    /// Where etcd is.
    pub endpoints: Vec<String>,
    /// Its members by name, this server among them, away or not. Who is not in it is not trusted as a member.
    pub members: BTreeMap<String, Arc<Member>>,
    /// The certificate that every member serves with.
    pub certificate: Option<Arc<ClusterCertificate>>,
    /// The tokens of [`Store::cluster_invite`](crate::Store::cluster_invite) that wait for their use, by the name of the
    /// member to be.
    pub invitations: BTreeMap<String, PendingInvitation>,
    /// Whether this server was taken out of the cluster by another member: it is to trust and to serve nothing of it.
    pub removed: bool,
}

impl Cluster {
    /// The member with exactly this certificate, if the cluster has it.
    #[must_use]
    pub fn member_with(&self, der: &[u8]) -> Option<&Arc<Member>> {
        if self.removed {
            return None;
        }
        self.members.values().find(|member| member.certificate.der() == der)
    }
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it is called.
    pub name: String,
    /// A UUID, made when it joined: one that is removed and joins again has another.
    pub id: String,
    /// The certificate that it shows to other members, its `server.crt`.
    pub certificate: ParsedCertificate,
    /// When it joined, in seconds since 1970.
    pub joined_at: i64,
    /// Where the others and clients reach its API, `host:port`, if anywhere.
    pub address: Option<String>,
    /// Where Prometheus scrapes it, `host:port`, if anywhere.
    pub metrics_address: Option<String>,
}

/// The certificate that every member serves with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterCertificate {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub key_pem: Secret,
}

/// A token for a new member that was not used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingInvitation {
    /// A UUID.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// From when on it is worth nothing, in seconds since 1970. etcd takes it away by its own clock.
    pub expires_at: i64,
}

/// What a member tells of itself, for the others to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Its version.
    pub version: String,
    /// How many instances run there.
    pub instances: u64,
    /// As [`Member::address`].
    pub address: Option<String>,
    /// As [`Member::metrics_address`].
    pub metrics_address: Option<String>,
}

/// Who is there now, as far as this member knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// Every member by name.
    pub members: BTreeMap<String, MemberPresence>,
}

/// Whether a member is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberStatus {
    /// It keeps its lease.
    Online,
    /// Its lease has ended.
    Offline,
    /// This server has not been in step with etcd for longer than a lease takes to end, so it cannot tell.
    #[default]
    Unknown,
}

/// What is known of one member's being there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberPresence {
    /// Whether it is there.
    pub status: MemberStatus,
    /// When it was there last, in seconds since 1970: now for one that is online, when its lease was seen to end, or what it
    /// said last itself.
    pub last_seen: Option<i64>,
    /// Its version, as it said last.
    pub version: Option<String>,
    /// How many instances run there, as it said last.
    pub instances: Option<u64>,
}

/// How this member's copy stands to etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncStatus {
    /// For how long the copy has not been known to be what etcd holds; a few seconds are usual. `None` when that cannot be
    /// told: the clock stands before the moment at which an earlier run was last in step.
    pub age: Option<Duration>,
    /// Why etcd cannot be read or changed now, if so.
    pub trouble: Option<String>,
    /// Keys under the prefix that this version cannot read; they count for nothing.
    pub bad_keys: Vec<BadKey>,
}

/// A key in etcd that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadKey {
    /// The key, without characters that a terminal would act on, cut where it is long.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

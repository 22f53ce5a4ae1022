//! `/1.0/cluster`: the cluster that the server belongs to, and its members; a lone server belongs to none.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// `GET /1.0/cluster`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// The name of this server in the cluster; empty on a lone server.
    pub server_name: String,
    /// Whether the server is a member of a cluster.
    pub enabled: bool,
    /// What a new member is to configure; nothing, with miharu.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub member_config: Vec<serde_json::Value>,
    /// Ours: what the cluster is called.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// Ours: where its etcd is, without the way to log in there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub store: Vec<String>,
    /// Ours: whether another member has taken this server out of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// Ours: the join tokens that were not used yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invitations: Vec<ClusterInvitation>,
}

/// Ours: a join token that was not used yet. What it is worth is told once, to who had it made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterInvitation {
    /// The UUID of its operation.
    pub id: String,
    /// What the new member is going to be called.
    pub server_name: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// From when on it is worth nothing, RFC 3339.
    pub expires_at: String,
}

/// `PUT /1.0/cluster`: makes a cluster of a lone server, makes the server a member of one, or a lone one again.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterPut {
    /// What the server is to be called in the cluster; the token says it where one joins.
    pub server_name: String,
    /// Whether it is to be a member.
    pub enabled: bool,
    /// The token of a member, for who joins.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_token: String,
    /// Ours: where etcd is. Who joins may leave it to the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<ClusterStore>,
    /// Ours: further names and addresses for the new cluster's certificate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub san: Vec<String>,
    /// Ours: to leave though etcd cannot be told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Ours: where etcd is, and how to get in.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterStore {
    /// `etcd://host:2379[,…][/PREFIX]`, or `etcds://` for TLS; empty for what the token says.
    pub url: String,
    /// Who signed etcd's certificates, PEM.
    pub ca: String,
    /// The certificate to show to etcd, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    /// The name to log in with.
    pub user: String,
    /// The password.
    pub password: String,
}

// Tokens, keys and passwords do not show.
impl fmt::Debug for ClusterPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server_name, enabled, store, san, force, .. } = self;
        f.debug_struct("ClusterPut")
            .field("server_name", server_name)
            .field("enabled", enabled)
            .field("store", store)
            .field("san", san)
            .field("force", force)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ClusterStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterStore").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A member: `GET /1.0/cluster/members/NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterMember {
    /// What it does for the others; nothing special, with miharu.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub roles: Vec<String>,
    /// What fails together with it; not used.
    pub failure_domain: String,
    /// What people say of it; not used.
    pub description: String,
    /// Its own configuration; not used.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub config: BTreeMap<String, String>,
    /// The groups that it is in; not used.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub groups: Vec<String>,
    /// What it is called.
    pub server_name: String,
    /// Where its API is.
    pub url: String,
    /// Whether it keeps the database; all of them have a copy.
    pub database: bool,
    /// `Online`, `Offline`, or `Unknown` where the one asked cannot tell.
    pub status: String,
    /// What that means, for people.
    pub message: String,
    /// Its architecture, where known.
    pub architecture: String,
    /// Ours: its version, as it said last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Ours: how many instances run there, as it said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<u64>,
    /// Ours: when it was there last, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_seen_at: String,
    /// Ours: when it joined, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub joined_at: String,
    /// Ours: where Prometheus scrapes it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metrics_address: String,
    /// Ours: the fingerprint of the certificate that it shows to other members.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_fingerprint: String,
}

/// `POST /1.0/cluster/members`: asks for a join token. It comes as an operation of the class `token`, whose metadata holds it as
/// `secret`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterMembersPost {
    /// What the new member is going to be called.
    pub server_name: String,
}

/// `PUT /1.0/cluster/certificate`. With both empty a new one is made, for the members that there are.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterCertificatePut {
    /// The certificate, PEM.
    pub cluster_certificate: String,
    /// Its key, PEM.
    pub cluster_certificate_key: String,
    /// Ours: further names and addresses for one that is made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub san: Vec<String>,
}

impl fmt::Debug for ClusterCertificatePut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCertificatePut").field("san", &self.san).finish_non_exhaustive()
    }
}

/// A join token as the clients of Incus and LXD write it, as base64 of its JSON. Its secret is miharu's own token.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterJoinToken {
    /// What the new member is going to be called.
    pub server_name: String,
    /// The token.
    pub secret: String,
}

impl fmt::Debug for ClusterJoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterJoinToken").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_server_says_no_more_than_the_originals_do() {
        let text = serde_json::to_string(&Cluster::default()).unwrap();
        assert_eq!(text, r#"{"server_name":"","enabled":false,"member_config":[]}"#);
    }

    #[test]
    fn no_secret_shows() {
        let hush = || "hush".to_owned();
        let store = ClusterStore { key: hush(), password: hush(), ..ClusterStore::default() };
        let put = ClusterPut { cluster_token: hush(), store: Some(store), ..ClusterPut::default() };
        let certificate =
            ClusterCertificatePut { cluster_certificate_key: hush(), ..ClusterCertificatePut::default() };
        let token = ClusterJoinToken { secret: hush(), ..ClusterJoinToken::default() };
        assert!(!format!("{put:?}{certificate:?}{token:?}").contains("hush"));
    }
}

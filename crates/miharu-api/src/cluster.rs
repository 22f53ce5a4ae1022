//! `/1.0/cluster`: the cluster that the server belongs to; a lone server belongs to none.

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
    pub member_config: Vec<serde_json::Value>,
}

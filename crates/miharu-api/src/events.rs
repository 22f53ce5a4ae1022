//! `/1.0/events`: what happens, as it happens, one JSON text a WebSocket message.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// `lifecycle`, `logging` or `operation`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When, RFC 3339.
    pub timestamp: String,
    /// What: a [`Lifecycle`], a [`Logging`], or an operation.
    pub metadata: serde_json::Value,
    /// The cluster member where it happened; `none` on a lone server.
    pub location: String,
    /// The project that it belongs to, if it belongs to one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub project: String,
}

/// A resource came, changed or went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lifecycle {
    /// What happened, such as `instance-started`.
    pub action: String,
    /// The path of what it happened to.
    pub source: String,
    /// More about it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, serde_json::Value>,
    /// Who asked for it, where somebody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requestor: Option<Requestor>,
}

/// Who asked for something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requestor {
    /// The fingerprint of its certificate; empty on the unix socket.
    pub username: String,
    /// `unix` or `tls`.
    pub protocol: String,
    /// Where it asked from; `@` is the unix socket.
    pub address: String,
}

/// A line of the daemon's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// `error`, `warning`, `info` or `debug`.
    pub level: String,
    /// The line.
    pub message: String,
    /// Its fields.
    pub context: BTreeMap<String, String>,
}

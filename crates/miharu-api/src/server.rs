//! `/1.0`: the server and its configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /1.0`. What only the trusted see is absent for others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// The server's configuration: the keys that are set. For the fully trusted only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<BTreeMap<String, String>>,
    /// What the API can do beyond its version, one name an extension.
    pub api_extensions: Vec<String>,
    /// `stable`.
    pub api_status: String,
    /// `1.0`.
    pub api_version: String,
    /// `trusted` or `untrusted`: who the caller is.
    pub auth: String,
    /// Whether anybody may read it; always false.
    pub public: bool,
    /// How clients may authenticate: `tls`.
    pub auth_methods: Vec<String>,
    /// The fingerprint of the caller's certificate, where there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_user_name: String,
    /// How the caller authenticated: `tls` or `unix`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_user_method: String,
    /// Where the server runs. For the trusted only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// `PUT /1.0` (the whole configuration) and `PATCH /1.0` (some keys). An empty value unsets a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerPut {
    /// Server keys and their values. Values may come as strings, numbers, booleans or null.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub config: BTreeMap<String, serde_json::Value>,
}

/// Where the server runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Addresses on which `core.https_address` is served, `host:port`.
    pub addresses: Vec<String>,
    /// Names of the architectures that the host runs, its own first.
    pub architectures: Vec<String>,
    /// The server's certificate, PEM.
    pub certificate: String,
    /// SHA-256 of the server's certificate, hexadecimal.
    pub certificate_fingerprint: String,
    /// Runtimes whose instances were found, joined by ` | `.
    pub driver: String,
    /// Their versions, where known.
    pub driver_version: String,
    /// The kernel's name, `Linux`.
    pub kernel: String,
    /// The kernel's architecture.
    pub kernel_architecture: String,
    /// Features of the kernel that clients ask for.
    pub kernel_features: BTreeMap<String, String>,
    /// The kernel's release.
    pub kernel_version: String,
    /// The distribution.
    pub os_name: String,
    /// Its version.
    pub os_version: String,
    /// The project that the caller asked about, `default`.
    pub project: String,
    /// `miharu`.
    pub server: String,
    /// Whether the server is a member of a cluster.
    pub server_clustered: bool,
    /// How events travel in a cluster: `full-mesh`.
    pub server_event_mode: String,
    /// The host's name.
    pub server_name: String,
    /// The daemon's process id.
    pub server_pid: u32,
    /// The daemon's version.
    pub server_version: String,
    /// Storage drivers in use; none of ours.
    pub storage: String,
    /// Their versions.
    pub storage_version: String,
}

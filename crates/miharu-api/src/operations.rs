//! `/1.0/operations`: what goes on in the background; join tokens that wait for their user are among it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Operation {
    /// A UUID.
    pub id: String,
    /// `token` for a join token.
    pub class: String,
    /// What it is, for people.
    pub description: String,
    /// When it began, RFC 3339.
    pub created_at: String,
    /// When it changed last, RFC 3339.
    pub updated_at: String,
    /// `Running`, `Cancelled`, …
    pub status: String,
    /// The number of that.
    pub status_code: u16,
    /// Paths of what it works on, by kind.
    pub resources: Option<BTreeMap<String, Vec<String>>>,
    /// What there is to know; for a join token its secret, the server's addresses and fingerprint, and the request.
    pub metadata: Option<BTreeMap<String, serde_json::Value>>,
    /// Whether it can be cancelled.
    pub may_cancel: bool,
    /// What went wrong.
    pub err: String,
    /// The cluster member where it runs; `none` on a lone server.
    pub location: String,
}

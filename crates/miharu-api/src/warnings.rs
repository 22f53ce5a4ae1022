//! `/1.0/warnings`: what an operator should act on.

use serde::{Deserialize, Serialize};

/// Something that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warning {
    /// `new`, `acknowledged`, or `resolved` when it is well again.
    pub status: String,
    /// Its identifier; the same for as long as the same thing is wrong.
    pub uuid: String,
    /// The cluster member that it is about; `none` on a lone server.
    pub location: String,
    /// The project that it is about, if it is about one.
    pub project: String,
    /// What kind of thing is wrong.
    #[serde(rename = "type")]
    pub warning_type: String,
    /// How often it was seen.
    pub count: u64,
    /// When it was seen first, RFC 3339.
    pub first_seen_at: String,
    /// When it was seen last, RFC 3339.
    pub last_seen_at: String,
    /// What is wrong, for people, as of when it was seen last.
    pub last_message: String,
    /// `low`, `moderate` or `high`.
    pub severity: String,
    /// The path of what it is about, if that has one.
    pub entity_url: String,
}

/// `PUT` and `PATCH /1.0/warnings/UUID`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WarningPut {
    /// `acknowledged`, or `new` to take that back.
    pub status: String,
}

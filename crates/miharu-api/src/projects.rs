//! `/1.0/projects`: projects found on the host, and ones declared for certificates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// What people say of it.
    pub description: String,
    /// Its configuration; ours have none.
    pub config: BTreeMap<String, String>,
    /// Paths of what is in it: its instances.
    pub used_by: Vec<String>,
    /// Ours: whether it was declared (with `POST`), rather than found on the host alone.
    pub declared: bool,
}

/// `POST /1.0/projects`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectsPost {
    /// Its name.
    pub name: String,
    /// What people say of it.
    pub description: String,
    /// Its configuration, which must be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<BTreeMap<String, String>>,
}

/// `GET /1.0/projects/NAME/state`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectState {
    /// How much there is of `containers`, `instances` and `virtual-machines`.
    pub resources: BTreeMap<String, ProjectUsage>,
}

/// How much there is of something. The names are the originals' own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ProjectUsage {
    /// How much there may be; -1 without a limit.
    pub limit: i64,
    /// How much there is.
    pub usage: i64,
}

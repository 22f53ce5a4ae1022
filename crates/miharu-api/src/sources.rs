//! `/1.0/instances/NAME/sources`, which is ours alone: where an instance's figures come from.

use serde::{Deserialize, Serialize};

/// Where the figures of an instance come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceSources {
    /// Its own cgroups, one in each hierarchy in which it has one.
    pub cgroups: Vec<SourceCgroup>,
    /// Its figures, by what they are read from.
    pub figures: Vec<SourceGroup>,
}

/// An instance's cgroup in one hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceCgroup {
    /// The controller of a v1 hierarchy (`memory`, `name=systemd`), or `unified`.
    pub hierarchy: String,
    /// The directory on the host.
    pub directory: String,
}

/// Figures that come from the same places.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceGroup {
    /// What they tell of, for people: `CPU time`.
    pub what: String,
    /// The families that the instance has, by their whole names.
    pub families: Vec<String>,
    /// What was read or asked for them: paths of files on the host, and questions in words.
    pub from: Vec<String>,
    /// What there is not, and why, in sentences.
    pub lacks: Vec<String>,
}

//! `/1.0/usage` and `/1.0/instances/NAME/history`: what instances use, as rates and levels, for who looks rather than
//! computes: the web page and `miharu top`. Ours; Incus and LXD have no such resource.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What each instance that the asker may see uses now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// The server's name.
    pub server: String,
    /// When the figures were read, seconds since the epoch.
    pub time: f64,
    /// Seconds that the rates are over; absent while there was one reading only.
    pub interval: Option<f64>,
    /// CPUs of the host.
    pub host_cpus: Option<u32>,
    /// Memory of the host, bytes.
    pub host_memory: Option<u64>,
    /// The instances, by project, name and type.
    pub instances: Vec<InstanceUsage>,
}

/// What one instance uses. What is not known is absent, never 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceUsage {
    /// Its name.
    pub name: String,
    /// Its project.
    pub project: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// What runs it.
    pub runtime: String,
    /// The cluster member that it runs on; `none` on a lone server.
    pub location: String,
    /// When it started, seconds since the epoch.
    pub boot_time: Option<f64>,
    /// Whether its figures could be read this time.
    pub readable: bool,
    /// Where they come from: `cgroup1`, `cgroup2`, `agent`, `qga`, `host`.
    pub source: String,
    /// CPU time since its start, seconds, without idle, iowait and steal; no figure of [`FIGURES`], as it only grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// The figures of [`FIGURES`] that are known, by name.
    pub figures: BTreeMap<String, f64>,
    /// The last half hour of [`RECENT`], by name, in slots of 30 s, oldest first, `null` where nothing was read; only with
    /// `recent=true`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub recent: BTreeMap<String, Vec<Option<f32>>>,
}

/// The last hour of one instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When the last slot ends, seconds since the epoch.
    pub end: f64,
    /// Seconds that a slot is long.
    pub step: f64,
    /// The figures of [`FIGURES`] that were ever known, by name, oldest slot first, `null` where nothing was read. The last
    /// slot may still be filling.
    pub figures: BTreeMap<String, Vec<Option<f32>>>,
    /// Why there are none: [`OFF`], [`FULL`] or [`NEW`]; absent where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// [`History::missing`]: the server key `ui.history` is false.
pub const OFF: &str = "off";
/// [`History::missing`]: more instances run than histories are kept, and this is one of the others.
pub const FULL: &str = "full";
/// [`History::missing`]: nothing was read of the instance yet.
pub const NEW: &str = "new";

/// What a figure is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// CPUs.
    Cores,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Events a second.
    PerSecond,
    /// A plain number.
    Count,
    /// A share between 0 and 1.
    Ratio,
}

/// Every figure that [`InstanceUsage::figures`] and [`History::figures`] may hold, in the order in which people read them.
pub const FIGURES: &[(&str, Unit)] = &[
    // CPU time a second, without idle, iowait and steal.
    ("cpu", Unit::Cores),
    ("cpu_user", Unit::Cores),
    ("cpu_system", Unit::Cores),
    // CPUs that it may use: the quota, else the CPUs that it may run on.
    ("cpu_limit", Unit::Cores),
    // Share of the quota's periods in which it held the instance back.
    ("cpu_throttled", Unit::Ratio),
    // Memory in use without what can be dropped at once.
    ("memory", Unit::Bytes),
    ("memory_cached", Unit::Bytes),
    // What it may use: its limit, or what the guest or the host has.
    ("memory_limit", Unit::Bytes),
    ("swap", Unit::Bytes),
    ("disk_read", Unit::BytesPerSecond),
    ("disk_written", Unit::BytesPerSecond),
    ("disk_reads", Unit::PerSecond),
    ("disk_writes", Unit::PerSecond),
    // Without `lo`.
    ("network_received", Unit::BytesPerSecond),
    ("network_sent", Unit::BytesPerSecond),
    ("network_errors", Unit::PerSecond),
    // The root file system.
    ("filesystem_used", Unit::Bytes),
    ("filesystem_size", Unit::Bytes),
    ("processes", Unit::Count),
    // Share of the time in which some task waited.
    ("pressure_cpu", Unit::Ratio),
    ("pressure_memory", Unit::Ratio),
    ("pressure_io", Unit::Ratio),
    ("oom_kills", Unit::PerSecond),
];

/// Those that [`InstanceUsage::recent`] holds, for sparklines.
pub const RECENT: &[&str] =
    &["cpu", "memory", "disk_read", "disk_written", "network_received", "network_sent"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_every_figure_and_its_unit() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/api.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, table) = page.split_once("| figure | unit | what it is |\n").unwrap();
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        let described: Vec<(&str, &str)> =
            rows.filter_map(|row| row.strip_prefix("| `")?.split_once("` | ")).collect();
        let described: Vec<_> =
            described.iter().filter_map(|(name, rest)| Some((*name, rest.split_once(" |")?.0))).collect();
        let unit = |unit: Unit| match unit {
            Unit::Cores => "CPUs",
            Unit::Bytes => "bytes",
            Unit::BytesPerSecond => "bytes a second",
            Unit::PerSecond => "a second",
            Unit::Count => "number",
            Unit::Ratio => "share",
        };
        let known: Vec<_> = FIGURES.iter().map(|(name, of)| (*name, unit(*of))).collect();
        assert_eq!(described, known, "docs/reference/api.md on the left, FIGURES on the right");
        let all = |name: &&str| FIGURES.iter().any(|(known, _)| known == name);
        assert!(RECENT.iter().all(all));
        assert!(RECENT.iter().all(|name| page.contains(&format!("`{name}`"))));
    }
}

//! `/1.0/instances`: who runs here, and how it does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What can run an instance: the words of [`Instance::runtime`].
pub const RUNTIMES: &[&str] =
    &["incus", "lxd", "lxc", "nspawn", "libvirt", "qemu", "podman", "docker", "containerd", "kubernetes"];

/// An instance. What miharu cannot know of another runtime's instance (profiles, configuration) is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// Its name within its project.
    pub name: String,
    /// What people say of it.
    pub description: String,
    /// `Running`.
    pub status: String,
    /// 103 for running.
    pub status_code: u16,
    /// When it was made, RFC 3339; the zero time of Go where that cannot be known.
    pub created_at: String,
    /// When it was started last, RFC 3339.
    pub last_used_at: String,
    /// The cluster member that it runs on; `none` on a lone server.
    pub location: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// Its project.
    pub project: String,
    /// The architecture's name.
    pub architecture: String,
    /// Whether it goes when it stops.
    pub ephemeral: bool,
    /// Whether its memory was saved.
    pub stateful: bool,
    /// Its profiles.
    pub profiles: Vec<String>,
    /// Its configuration.
    pub config: BTreeMap<String, String>,
    /// Its devices.
    pub devices: BTreeMap<String, BTreeMap<String, String>>,
    /// Its configuration with that of its profiles.
    pub expanded_config: BTreeMap<String, String>,
    /// Its devices with those of its profiles.
    pub expanded_devices: BTreeMap<String, BTreeMap<String, String>>,
    /// Ours: what runs it (`lxc`, `lxd`, `incus`, `nspawn`, …).
    pub runtime: String,
    /// Ours: the runtime's own identifier.
    pub id: String,
}

/// An instance with its state: `recursion=2` of the list, `recursion=1` of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceFull {
    /// The instance.
    #[serde(flatten)]
    pub instance: Instance,
    /// Its backups; none that miharu knows.
    pub backups: Option<Vec<serde_json::Value>>,
    /// Its state; absent where it could not be read.
    pub state: Option<InstanceState>,
    /// Its snapshots; none that miharu knows.
    pub snapshots: Option<Vec<serde_json::Value>>,
}

/// How an instance does: `/1.0/instances/NAME/state`.
///
/// The shape is that of Incus, which has no word for "not known": there a 0 stands for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceState {
    /// `Running`.
    pub status: String,
    /// 103 for running.
    pub status_code: u16,
    /// Disks: the root file system is `root`, others go by their mount point.
    pub disk: BTreeMap<String, StateDisk>,
    /// Memory.
    pub memory: StateMemory,
    /// Network interfaces by the instance's own names.
    pub network: BTreeMap<String, StateNetwork>,
    /// The host's process id of its init.
    pub pid: i64,
    /// Tasks that run for it, threads included.
    pub processes: i64,
    /// CPU time.
    pub cpu: StateCpu,
    /// When it was started, RFC 3339.
    pub started_at: String,
    /// Ours: where the figures come from (`cgroup1`, `cgroup2`, `agent`, `qga`, `host`).
    pub source: String,
    /// Ours: how many CPUs a virtual machine has; 0 for a container.
    pub vcpus: i64,
    /// Ours: seconds since it was started, by its own clock where it has one; 0 where that is not known.
    pub uptime: i64,
    /// Ours: what a virtual machine calls itself, where its guest tells.
    pub hostname: String,
}

/// CPU time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StateCpu {
    /// CPU time used, nanoseconds.
    pub usage: i64,
    /// CPU time granted each second, nanoseconds; 0 where there is no limit.
    pub allocated_time: i64,
}

/// A file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StateDisk {
    /// Bytes used.
    pub usage: i64,
    /// Size in bytes.
    pub total: i64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StateMemory {
    /// Used.
    pub usage: i64,
    /// Most that was used.
    pub usage_peak: i64,
    /// What it may use: the smallest limit.
    pub total: i64,
    /// Swapped out.
    pub swap_usage: i64,
    /// Most that was swapped out; not known to miharu.
    pub swap_usage_peak: i64,
}

/// A network interface, from the instance's point of view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StateNetwork {
    /// Its addresses; known of guests that tell them, and of no container.
    pub addresses: Vec<StateNetworkAddress>,
    /// Its counters.
    pub counters: StateNetworkCounters,
    /// Its hardware address; not known to miharu.
    pub hwaddr: String,
    /// The host's end of it; not known to miharu.
    pub host_name: String,
    /// Its MTU; not known to miharu.
    pub mtu: i64,
    /// `up`; not known to miharu.
    pub state: String,
    /// `loopback` or `broadcast`.
    #[serde(rename = "type")]
    pub interface_type: String,
}

/// An address of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StateNetworkAddress {
    /// `inet` or `inet6`.
    pub family: String,
    /// The address.
    pub address: String,
    /// The length of its prefix.
    pub netmask: String,
    /// `global`, `link` or `local`.
    pub scope: String,
}

/// The counters of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say all there is to say")]
pub struct StateNetworkCounters {
    pub bytes_received: i64,
    pub bytes_sent: i64,
    pub packets_received: i64,
    pub packets_sent: i64,
    pub errors_received: i64,
    pub errors_sent: i64,
    pub packets_dropped_outbound: i64,
    pub packets_dropped_inbound: i64,
}

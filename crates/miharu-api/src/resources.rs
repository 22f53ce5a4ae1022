//! `/1.0/resources`: what the host is made of. What is not known is 0 or empty, or left out where the shape allows it;
//! GPUs, USB and PCI devices are not looked at.
#![expect(
    missing_docs,
    reason = "the names of the API say all there is to say; bytes and MHz where it is a quantity"
)]

use serde::{Deserialize, Serialize};

/// `GET /1.0/resources`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub cpu: ResourcesCpu,
    pub memory: ResourcesMemory,
    pub network: ResourcesNetwork,
    pub storage: ResourcesStorage,
    pub system: ResourcesSystem,
    pub load: ResourcesLoad,
}

/// CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourcesCpu {
    pub architecture: String,
    pub sockets: Vec<CpuSocket>,
    /// Threads of all cores.
    pub total: u64,
}

/// A socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuSocket {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    pub socket: u64,
    pub cache: Vec<CpuCache>,
    pub cores: Vec<CpuCore>,
    #[serde(skip_serializing_if = "is_zero")]
    pub frequency: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub frequency_minimum: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub frequency_turbo: u64,
}

/// A cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuCache {
    pub level: u64,
    #[serde(rename = "type")]
    pub cache_type: String,
    pub size: u64,
}

/// A core.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuCore {
    pub core: u64,
    pub die: u64,
    pub threads: Vec<CpuThread>,
    #[serde(skip_serializing_if = "is_zero")]
    pub frequency: u64,
}

/// A thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuThread {
    /// The kernel's number of it.
    pub id: i64,
    pub numa_node: u64,
    /// Which thread of its core.
    pub thread: u64,
    pub online: bool,
    pub isolated: bool,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourcesMemory {
    pub nodes: Vec<MemoryNode>,
    pub hugepages_total: u64,
    pub hugepages_used: u64,
    pub hugepages_size: u64,
    pub used: u64,
    pub total: u64,
}

/// Memory of a NUMA node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryNode {
    pub numa_node: u64,
    pub hugepages_used: u64,
    pub hugepages_total: u64,
    pub used: u64,
    pub total: u64,
}

/// Network cards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourcesNetwork {
    pub cards: Vec<NetworkCard>,
    pub total: u64,
}

/// A network card.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkCard {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver_version: String,
    pub ports: Vec<NetworkPort>,
    pub numa_node: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pci_address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub product_id: String,
}

/// An interface of a card.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkPort {
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    pub port: u64,
    pub protocol: String,
    /// Not known to miharu.
    pub auto_negotiation: bool,
    pub link_detected: bool,
    /// Mbit/s.
    #[serde(skip_serializing_if = "is_zero")]
    pub link_speed: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link_duplex: String,
}

/// Disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourcesStorage {
    pub disks: Vec<StorageDisk>,
    pub total: u64,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageDisk {
    pub id: String,
    pub device: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    #[serde(rename = "type")]
    pub disk_type: String,
    pub read_only: bool,
    pub size: u64,
    pub removable: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wwn: String,
    pub numa_node: u64,
    pub block_size: u64,
    /// 1 for a disk that turns, as how fast is not known.
    pub rpm: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serial: String,
    pub device_id: String,
    pub partitions: Vec<StoragePartition>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pci_address: String,
}

/// A part of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoragePartition {
    pub id: String,
    pub device: String,
    pub read_only: bool,
    pub size: u64,
    pub partition: u64,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourcesSystem {
    pub uuid: String,
    pub vendor: String,
    pub product: String,
    pub family: String,
    pub version: String,
    pub sku: String,
    pub serial: String,
    /// `physical`, `virtual-machine` or `unknown`.
    #[serde(rename = "type")]
    pub system_type: String,
    pub firmware: Option<SystemFirmware>,
    pub chassis: Option<SystemChassis>,
    pub motherboard: Option<SystemMotherboard>,
}

/// Its firmware.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemFirmware {
    pub vendor: String,
    pub date: String,
    pub version: String,
}

/// Its chassis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemChassis {
    pub vendor: String,
    #[serde(rename = "type")]
    pub chassis_type: String,
    pub serial: String,
    pub version: String,
}

/// Its main board.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemMotherboard {
    pub vendor: String,
    pub product: String,
    pub serial: String,
    pub version: String,
}

/// How busy it is. The names are Incus' own, and its third average is that of 15 minutes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResourcesLoad {
    #[serde(rename = "Average1Min")]
    pub average_1_min: f64,
    #[serde(rename = "Average5Min")]
    pub average_5_min: f64,
    #[serde(rename = "Average10Min")]
    pub average_10_min: f64,
    pub processes: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

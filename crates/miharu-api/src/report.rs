//! The report of an agent inside a virtual machine: what `miharu-agent` sends, and what the agents of Incus and LXD answer to
//! `GET /1.0/metrics` (there inside the usual [`Envelope`](crate::Envelope)).
//!
//! One set of types reads them all. The field names are those of Incus' agent. Newer agents send devices as arrays of objects
//! that name their device, older ones as maps keyed by it; both become arrays here. An unknown field is ignored and a missing
//! one, or a `null`, is `None`; which fields of whose agent may be believed is decided where figures are made of them.
//!
//! No list is longer than [`MAX_ROWS`]: what a guest sends beyond that is read over.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The most devices, file systems, interfaces or CPUs of a report; further ones are dropped.
pub const MAX_ROWS: usize = 512;

/// The longest line of [`Request`] or [`Answer`], its newline included, in bytes.
pub const MAX_LINE: usize = 1 << 20;

/// The name that our own agent gives itself in [`Report::agent`].
pub const AGENT: &str = "miharu";

/// The name of the virtio-serial port on which our agent and the host talk.
pub const PORT: &str = "org.miharu.agent.0";

/// The vsock port on which our agent listens.
pub const VSOCK_PORT: u32 = 8444;

/// What the host asks our agent for: a line of JSON, ended by a newline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What is asked for: `metrics`.
    pub request: String,
    /// The number that the answer carries, too, so that a late answer is not taken for this one's.
    pub id: u64,
}

/// What our agent answers: a line of JSON, ended by a newline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's number.
    pub id: u64,
    /// The report; absent where it could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Report>,
    /// Why there is no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a guest tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// [`AGENT`] for our own agent, whose fields are all true; absent from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The version of our own agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// CPU time by CPU.
    #[serde(rename = "cpu_seconds_total", deserialize_with = "rows")]
    pub cpu: Vec<Cpu>,
    /// The number of online CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// Block devices.
    #[serde(deserialize_with = "rows")]
    pub disk: Vec<Disk>,
    /// File systems.
    #[serde(deserialize_with = "rows")]
    pub filesystem: Vec<Filesystem>,
    /// Memory.
    pub memory: Memory,
    /// Network interfaces.
    #[serde(deserialize_with = "rows")]
    pub network: Vec<Network>,
    /// Processes, threads not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub procs_total: Option<u64>,
    /// When the guest was booted, seconds since 1970 by the guest's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_time_seconds: Option<f64>,
    /// The kernel's own name for this boot, another one after each: `/proc/sys/kernel/random/boot_id`. Unlike the boot time it
    /// does not move when somebody sets the guest's clock. Of our own agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The guest's clock, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_seconds: Option<f64>,
    /// Pressure stall information; of our own agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    /// The guest's own host name; of our own agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// The time of one CPU by mode, in seconds since boot. Guest time is inside user and nice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the modes are those of /proc/stat")]
pub struct Cpu {
    /// `cpu0`, as `/proc/stat` writes it.
    pub cpu: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_user: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_nice: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_system: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_idle: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_iowait: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_irq: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_softirq: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_steal: Option<f64>,
}

/// A block device's counters since boot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Its name: `vda`.
    pub device: String,
    /// Bytes read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_read_bytes: Option<u64>,
    /// Reads completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_reads_completed: Option<u64>,
    /// Bytes written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_written_bytes: Option<u64>,
    /// Writes completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_writes_completed: Option<u64>,
    /// Seconds spent on reads, over all of them; of our own agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_read_time_seconds: Option<f64>,
    /// Seconds spent on writes, over all of them; of our own agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_write_time_seconds: Option<f64>,
    /// `virtual` for what lies on other devices of the list (partitions, dm, md, loop, ram, zram), `disk` for others. Only our
    /// own agent tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
}

/// Whether a block device lies on others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The lowest layer: what it transfers is counted on no other device.
    Disk,
    /// A layer over others, whose bytes are counted there, too, or that is memory.
    Virtual,
}

/// A mounted file system. Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filesystem {
    /// What is mounted: `/dev/vda1`.
    pub device: String,
    /// Where; real characters, nothing escaped.
    pub mountpoint: String,
    /// The mount's own word for its type; from other agents `0xEF53` or the like.
    pub fstype: String,
    /// What users may still fill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_avail_bytes: Option<u64>,
    /// What root may still fill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_free_bytes: Option<u64>,
    /// The whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_size_bytes: Option<u64>,
    /// Inodes; of our own agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_files: Option<u64>,
    /// Free inodes; of our own agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_files_free: Option<u64>,
}

/// Memory in bytes, but for the last two, which are counts since boot. The names follow `/proc/meminfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are those of /proc/meminfo")]
pub struct Memory {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_active_anon_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_active_file_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_active_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_cached_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_dirty_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_hugepages_free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_hugepages_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_inactive_anon_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_inactive_file_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_inactive_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mapped_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mem_available_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mem_free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mem_total_bytes: Option<u64>,
    /// AnonPages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_shmem_bytes: Option<u64>,
    /// SwapTotal − SwapFree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_unevictable_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_writeback_bytes: Option<u64>,
    /// Of our own agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_sreclaimable_bytes: Option<u64>,
    /// Processes killed for want of memory: `oom_kill` of `/proc/vmstat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_oom_kills: Option<u64>,
    /// `pgmajfault` of `/proc/vmstat`; of our own agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_major_faults: Option<u64>,
}

/// A network interface's counters, from the guest's point of view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are those of /proc/net/dev")]
pub struct Network {
    /// Its name in the guest: `eth0`.
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_receive_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_receive_drop: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_receive_errs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_receive_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_transmit_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_transmit_drop: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_transmit_errs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_transmit_packets: Option<u64>,
    /// Its number in the guest. An interface that was deleted and made again has another one, and counters that begin at 0; of our
    /// own agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Its addresses; of our own agent only.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "rows")]
    pub addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Address {
    /// The address.
    pub address: String,
    /// The length of its prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<u8>,
}

/// Seconds in which tasks waited for something since boot: `total` of `/proc/pressure/*`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Some task waited for a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_waiting_seconds: Option<f64>,
    /// Some task waited for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_waiting_seconds: Option<f64>,
    /// All tasks that were not idle waited for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_stalled_seconds: Option<f64>,
    /// Some task waited for I/O.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_waiting_seconds: Option<f64>,
    /// All tasks that were not idle waited for I/O.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_stalled_seconds: Option<f64>,
}

/// Something that a map of the older form keys by its name.
trait Keyed {
    /// Takes the key of the map for its name.
    fn name(&mut self, key: String);
}

impl Keyed for Cpu {
    fn name(&mut self, key: String) {
        self.cpu = key;
    }
}

impl Keyed for Disk {
    fn name(&mut self, key: String) {
        self.device = key;
    }
}

impl Keyed for Filesystem {
    fn name(&mut self, key: String) {
        self.device = key;
    }
}

impl Keyed for Network {
    fn name(&mut self, key: String) {
        self.device = key;
    }
}

impl Keyed for Address {
    fn name(&mut self, key: String) {
        self.address = key;
    }
}

/// Reads an array, a map keyed by name, or `null`, and no more than [`MAX_ROWS`] of it.
fn rows<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de> + Keyed,
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Rows(PhantomData))
}

struct Rows<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Keyed> Visitor<'de> for Rows<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array, a map or null")
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut rows = Vec::new();
        while rows.len() < MAX_ROWS {
            let Some(row) = sequence.next_element()? else { return Ok(rows) };
            rows.push(row);
        }
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(rows)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<T>, A::Error> {
        let mut rows = Vec::new();
        while rows.len() < MAX_ROWS {
            let Some((key, mut row)) = map.next_entry::<String, T>()? else { return Ok(rows) };
            row.name(key);
            rows.push(row);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_arrays_and_maps_alike() {
        let arrays: Report = serde_json::from_str(
            r#"{"cpu_seconds_total":[{"cpu":"cpu0","cpu_seconds_user":1.5,"cpu_seconds_idle":7}],"cpus":1,
                "disk":[{"device":"sda","disk_read_bytes":512}],"filesystem":null,"memory":{"memory_mem_total_bytes":1024},
                "network":[{"device":"eth0","network_receive_bytes":18446744073709551615}],"procs_total":3,"boot_time_seconds":17,"new":[1]}"#,
        )
        .unwrap();
        let maps: Report = serde_json::from_str(
            r#"{"cpu_seconds_total":{"cpu0":{"cpu_seconds_user":1.5,"cpu_seconds_idle":7}},"cpus":1,
                "disk":{"sda":{"disk_read_bytes":512}},"filesystem":{},"memory":{"memory_mem_total_bytes":1024},
                "network":{"eth0":{"network_receive_bytes":18446744073709551615}},"procs_total":3,"boot_time_seconds":17}"#,
        )
        .unwrap();
        assert_eq!(arrays, maps);
        assert_eq!(arrays.cpu[0].cpu_seconds_user, Some(1.5));
        assert_eq!(arrays.cpu[0].cpu_seconds_nice, None);
        assert_eq!(arrays.network[0].device, "eth0");
        assert_eq!(arrays.network[0].network_receive_bytes, Some(u64::MAX));
        assert_eq!(arrays.agent, None);
    }

    #[test]
    fn keeps_no_more_rows_than_allowed() {
        let rows: Vec<_> = (0..10_000).map(|number| format!(r#"{{"device":"d{number}"}}"#)).collect();
        let report: Report =
            serde_json::from_str(&format!(r#"{{"disk":[{}],"procs_total":1}}"#, rows.join(","))).unwrap();
        assert_eq!((report.disk.len(), report.procs_total), (MAX_ROWS, Some(1)));
        let rows: Vec<_> = (0..10_000).map(|number| format!(r#""d{number}":{{}}"#)).collect();
        let report: Report =
            serde_json::from_str(&format!(r#"{{"disk":{{{}}},"procs_total":1}}"#, rows.join(","))).unwrap();
        assert_eq!((report.disk.len(), report.procs_total), (MAX_ROWS, Some(1)));
        assert_eq!(report.disk[511].device, "d511");
    }

    #[test]
    fn refuses_what_is_no_number() {
        assert!(serde_json::from_str::<Report>(r#"{"procs_total":-1}"#).is_err());
        assert!(serde_json::from_str::<Report>(r#"{"disk":7}"#).is_err());
        assert!(serde_json::from_str::<Report>(r#"{"disk":[{"device":7}]}"#).is_err());
    }

    #[test]
    fn writes_nothing_for_what_is_not_known() {
        let answer = Answer { id: 7, metrics: Some(Report::default()), error: None };
        let line = serde_json::to_string(&answer).unwrap();
        assert_eq!(
            line,
            r#"{"id":7,"metrics":{"cpu_seconds_total":[],"disk":[],"filesystem":[],"memory":{},"network":[]}}"#
        );
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), answer);
    }
}

//! A guest agent's report as figures: what is believed of whose agent.
//!
//! The agents of Incus and LXD send zero for what they do not know and other figures under some names (metrics.md, "Guest
//! agents"); those fields are dropped one by one. Our own agent leaves out what it does not know.

use std::collections::HashSet;
use std::time::Duration;

use miharu_api::report::{self, AGENT, Layer, Report};
use miharu_linux::block::Layers;
use miharu_metrics::figures::{
    CpuMode, CpuTimes, Disk, Figures, Filesystem, Interface, Memory, Pressure, Sharing, Traffic,
};

use super::bounds;
use super::disks::{self, Guess};

/// The most addresses of one interface, and the longest of them in bytes (`ffff:…:255.255.255.255%interface`).
const MAX_ADDRESSES: usize = 64;
const MAX_ADDRESS: usize = 64;

/// The longest host name, as POSIX has it.
const MAX_HOSTNAME: usize = 255;

/// File systems that hold nothing on a device; agents send some of them.
const PSEUDO: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "none",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "udev",
];

/// The addresses of one of a guest's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The guest's name for the interface.
    pub interface: String,
    /// Addresses with the length of their prefix where it is known: `192.0.2.7/24`.
    pub addresses: Vec<String>,
}

impl Addresses {
    /// Takes what looks like addresses; nothing where there is none.
    pub(crate) fn new(
        interface: &str,
        found: impl IntoIterator<Item = (String, Option<u8>)>,
    ) -> Option<Self> {
        let written = |(address, prefix): (String, Option<u8>)| {
            let is_address = address.len() <= MAX_ADDRESS
                && address
                    .split('%')
                    .next()
                    .is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok());
            let plain = is_address && !address.contains(|c: char| c.is_control());
            plain.then(|| match prefix {
                Some(prefix) => format!("{address}/{prefix}"),
                None => address,
            })
        };
        let addresses: Vec<String> = found.into_iter().filter_map(written).take(MAX_ADDRESSES).collect();
        (!addresses.is_empty()).then(|| Self { interface: interface.to_owned(), addresses })
    }
}

/// What a guest told: its figures, and facts that are no figures.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Guest {
    pub(crate) figures: Figures,
    pub(crate) addresses: Vec<Addresses>,
    pub(crate) hostname: Option<String>,
    /// The kernel's name for this boot.
    pub(crate) boot: Option<String>,
}

/// Whose agent sent a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// Ours: absent is absent.
    Own,
    /// Another's: zero may be absent, and some fields are wrong.
    Other,
}

/// The figures of a report; an empty one is none.
pub(crate) fn guest(report: Report, layers: Layers) -> Option<Guest> {
    let from = if report.agent.as_deref() == Some(AGENT) { From::Own } else { From::Other };
    let cpus: Vec<CpuTimes> = report.cpu.iter().filter_map(cpu).collect();
    let (interfaces, addresses) = network(report.network, from);
    // A guest without a CPU or memory is none: that is no report at all, whatever else it is.
    if cpus.is_empty() && report.memory.memory_mem_total_bytes.unwrap_or(0) == 0 {
        return None;
    }
    let positive = |seconds: Option<f64>| seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
    let figures = Figures {
        boot_time_seconds: positive(report.boot_time_seconds),
        cpu_effective: cpus_online(report.cpus, &cpus, from),
        cpus,
        disks: disks::reported(report.disk.into_iter().filter_map(disk).collect(), layers),
        filesystems: one_a_device(
            report.filesystem.into_iter().filter_map(|row| filesystem(row, from)).collect(),
        ),
        memory: memory(&report.memory, from),
        interfaces,
        procs: report.procs_total.filter(|procs| *procs > 0),
        time_seconds: positive(report.time_seconds),
        pressure: report.pressure.as_ref().map(pressure).unwrap_or_default(),
        ..Figures::default()
    };
    let hostname = report.hostname.filter(|name| {
        !name.is_empty() && name.len() <= MAX_HOSTNAME && !name.contains(|c: char| c.is_control())
    });
    let boot = report.boot_id.filter(|boot| from == From::Own && bounds::name(boot.clone()).is_some());
    Some(Guest { figures, addresses, hostname, boot })
}

fn seconds(seconds: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds?).ok()
}

fn cpu(row: &report::Cpu) -> Option<CpuTimes> {
    let number: u32 = row.cpu.strip_prefix("cpu").unwrap_or(&row.cpu).parse().ok()?;
    let modes = [
        (CpuMode::User, row.cpu_seconds_user),
        (CpuMode::Nice, row.cpu_seconds_nice),
        (CpuMode::System, row.cpu_seconds_system),
        (CpuMode::Idle, row.cpu_seconds_idle),
        (CpuMode::Iowait, row.cpu_seconds_iowait),
        (CpuMode::Irq, row.cpu_seconds_irq),
        (CpuMode::Softirq, row.cpu_seconds_softirq),
        (CpuMode::Steal, row.cpu_seconds_steal),
    ];
    let known = modes.into_iter().filter_map(|(mode, time)| Some((mode, seconds(time)?)));
    Some(known.fold(CpuTimes::new(number), |times, (mode, time)| times.with(mode, time)))
}

fn cpus_online(told: Option<u64>, cpus: &[CpuTimes], from: From) -> Option<u64> {
    let counted = (!cpus.is_empty()).then_some(cpus.len() as u64);
    match from {
        From::Own => told.filter(|count| *count > 0).or(counted),
        From::Other => counted,
    }
}

fn disk(row: report::Disk) -> Option<(Disk, Guess)> {
    let guess = match row.layer {
        Some(Layer::Disk) => Guess::Lowest,
        Some(Layer::Virtual) => Guess::Upper,
        None => Guess::ByName,
    };
    let disk = Disk {
        device: bounds::name(row.device)?,
        read_bytes: row.disk_read_bytes,
        reads_completed: row.disk_reads_completed,
        written_bytes: row.disk_written_bytes,
        writes_completed: row.disk_writes_completed,
        read_time: seconds(row.disk_read_time_seconds),
        write_time: seconds(row.disk_write_time_seconds),
    };
    Some((disk, guess))
}

fn filesystem(row: report::Filesystem, from: From) -> Option<Filesystem> {
    let (device, mountpoint) = match from {
        From::Own => (row.device, row.mountpoint),
        From::Other => (unescaped(&row.device), unescaped(&row.mountpoint)),
    };
    if PSEUDO.contains(&row.fstype.as_str()) || PSEUDO.contains(&device.as_str()) {
        return None;
    }
    // A magic number is no file system's name; a name cannot be made of it without a guess.
    let fstype = if row.fstype.starts_with("0x") { String::new() } else { row.fstype };
    let fstype = if fstype.is_empty() { fstype } else { bounds::name(fstype)? };
    Some(Filesystem {
        device: bounds::path(device)?,
        fstype,
        mountpoint: bounds::path(mountpoint)?,
        size_bytes: row.filesystem_size_bytes,
        free_bytes: row.filesystem_free_bytes,
        avail_bytes: row.filesystem_avail_bytes,
        files: row.filesystem_files,
        files_free: row.filesystem_files_free,
        sharing: Sharing::Unknown,
    })
}

/// One row a device, under its shortest mount point, so that no bytes are counted twice; `/` is the shortest of all.
pub(crate) fn one_a_device(mut rows: Vec<Filesystem>) -> Vec<Filesystem> {
    rows.sort_by(|a, b| (a.mountpoint.len(), &a.mountpoint).cmp(&(b.mountpoint.len(), &b.mountpoint)));
    let mut seen = HashSet::new();
    rows.retain(|row| seen.insert(row.device.clone()));
    rows
}

/// Blanks, tabs, newlines and backslashes stand in `/proc/mounts` as octal numbers.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match (code, after.get(3..)) {
            (Some(code), Some(tail)) => {
                out.push(char::from(code));
                rest = tail;
            }
            _ => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn memory(told: &report::Memory, from: From) -> Memory {
    let own = |value: Option<u64>| value.filter(|_| from == From::Own);
    Memory {
        active_anon: told.memory_active_anon_bytes,
        active_file: told.memory_active_file_bytes,
        active: told.memory_active_bytes,
        inactive_anon: told.memory_inactive_anon_bytes,
        inactive_file: told.memory_inactive_file_bytes,
        inactive: told.memory_inactive_bytes,
        unevictable: told.memory_unevictable_bytes,
        cached: told.memory_cached_bytes,
        dirty: told.memory_dirty_bytes,
        writeback: told.memory_writeback_bytes,
        mapped: told.memory_mapped_bytes,
        shmem: told.memory_shmem_bytes,
        sreclaimable: own(told.memory_sreclaimable_bytes),
        // Others' are: zero, a count of pages, zero, and SwapCached.
        rss: own(told.memory_rss_bytes),
        hugepages_free: own(told.memory_hugepages_free_bytes),
        hugepages_total: own(told.memory_hugepages_total_bytes),
        oom_kills: own(told.memory_oom_kills),
        swap: own(told.memory_swap_bytes),
        mem_total: told.memory_mem_total_bytes.filter(|bytes| *bytes > 0),
        mem_free: told.memory_mem_free_bytes,
        mem_available: told.memory_mem_available_bytes,
        usage: None,
        peak: None,
        working_set: None,
        major_faults: own(told.memory_major_faults),
    }
}

fn network(rows: Vec<report::Network>, from: From) -> (Vec<Interface>, Vec<Addresses>) {
    let own = |value: Option<u64>| value.filter(|_| from == From::Own);
    let (mut interfaces, mut addresses) = (Vec::new(), Vec::new());
    for row in rows {
        let Some(device) = bounds::name(row.device) else { continue };
        let known = row.addresses.into_iter().map(|address| (address.address, address.prefix));
        addresses.extend(Addresses::new(&device, known));
        interfaces.push(Interface {
            device,
            receive: Traffic {
                bytes: row.network_receive_bytes,
                packets: row.network_receive_packets,
                // Others' are always zero.
                errs: own(row.network_receive_errs),
                drop: own(row.network_receive_drop),
            },
            transmit: Traffic {
                bytes: row.network_transmit_bytes,
                packets: row.network_transmit_packets,
                errs: own(row.network_transmit_errs),
                drop: own(row.network_transmit_drop),
            },
        });
    }
    (interfaces, addresses)
}

fn pressure(told: &report::Pressure) -> Pressure {
    Pressure {
        cpu_waiting: seconds(told.cpu_waiting_seconds),
        memory_waiting: seconds(told.memory_waiting_seconds),
        memory_stalled: seconds(told.memory_stalled_seconds),
        io_waiting: seconds(told.io_waiting_seconds),
        io_stalled: seconds(told.io_stalled_seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What Incus' agent answers, in the newer form.
    const INCUS: &str = r#"{
        "cpu_seconds_total":[{"cpu":"cpu0","cpu_seconds_user":1.5,"cpu_seconds_nice":0,"cpu_seconds_system":2,"cpu_seconds_idle":30,
            "cpu_seconds_iowait":0.25,"cpu_seconds_irq":0,"cpu_seconds_softirq":0.5,"cpu_seconds_steal":0.75},{"cpu":"cpu1"}],
        "cpus":0,
        "disk":[{"device":"sda","disk_read_bytes":512,"disk_reads_completed":1,"disk_written_bytes":0,"disk_writes_completed":0},
                {"device":"sda1","disk_read_bytes":512},{"device":"loop0"}],
        "filesystem":[{"device":"/dev/sda1","mountpoint":"/","fstype":"ext4","filesystem_avail_bytes":1,"filesystem_free_bytes":2,"filesystem_size_bytes":3},
                      {"device":"/dev/sda1","mountpoint":"/again","fstype":"ext4"},
                      {"device":"/dev/sdb1","mountpoint":"/a\\040b","fstype":"0x4d44","filesystem_size_bytes":9},
                      {"device":"tmpfs","mountpoint":"/run","fstype":"tmpfs"}],
        "memory":{"memory_mem_total_bytes":1000,"memory_mem_free_bytes":500,"memory_cached_bytes":10,"memory_swap_bytes":7,
            "memory_hugepages_total_bytes":4,"memory_hugepages_free_bytes":4,"memory_rss_bytes":0,"memory_oom_kills":0},
        "network":[{"device":"eth0","network_receive_bytes":11,"network_receive_drop":0,"network_receive_errs":0,"network_receive_packets":2,
            "network_transmit_bytes":3,"network_transmit_drop":0,"network_transmit_errs":0,"network_transmit_packets":4}],
        "procs_total":42,"boot_time_seconds":0,"time_seconds":0}"#;

    fn told(text: &str) -> Guest {
        guest(serde_json::from_str(text).unwrap(), Layers::One).unwrap()
    }

    #[test]
    fn wrong_fields_of_other_agents_are_dropped() {
        let figures = told(INCUS).figures;
        let Memory { swap, rss, hugepages_free, hugepages_total, oom_kills, .. } = figures.memory;
        assert_eq!((swap, rss, hugepages_free, hugepages_total, oom_kills), (None, None, None, None, None));
        assert_eq!((figures.memory.mem_total, figures.memory.cached), (Some(1000), Some(10)));
        assert_eq!(figures.cpu_effective, Some(2), "the CPUs are counted where `cpus` is 0");
        assert_eq!((figures.boot_time_seconds, figures.time_seconds), (None, None));
        assert_eq!(
            figures.interfaces[0].receive,
            Traffic { bytes: Some(11), packets: Some(2), errs: None, drop: None }
        );
        let disks: Vec<_> = figures.disks.iter().map(|disk| disk.device.as_str()).collect();
        assert_eq!(disks, ["sda"]);
        let mounts: Vec<_> =
            figures.filesystems.iter().map(|fs| (fs.mountpoint.as_str(), fs.fstype.as_str())).collect();
        assert_eq!(mounts, [("/", "ext4"), ("/a b", "")]);
        assert_eq!(figures.cpus[0].known().count(), 8);
        assert_eq!(figures.procs, Some(42));
    }

    #[test]
    fn the_older_form_gives_the_same() {
        let older = r#"{"cpu_seconds_total":{"cpu0":{"cpu_seconds_user":1.5}},"disk":{"sda":{"disk_read_bytes":512}},
            "filesystem":{"/dev/sda1":{"mountpoint":"/","fstype":"ext4"}},"memory":{"memory_mem_total_bytes":1000},
            "network":{"eth0":{"network_receive_bytes":11}},"procs_total":42}"#;
        let figures = told(older).figures;
        assert_eq!(
            (figures.disks[0].device.as_str(), figures.interfaces[0].device.as_str()),
            ("sda", "eth0")
        );
        assert_eq!((figures.filesystems[0].device.as_str(), figures.cpus[0].cpu), ("/dev/sda1", Some(0)));
    }

    #[test]
    fn our_own_agent_is_believed() {
        let own = r#"{"agent":"miharu","version":"1","cpu_seconds_total":[{"cpu":"cpu3","cpu_seconds_user":1}],"cpus":4,
            "disk":[{"device":"vda","layer":"disk","disk_read_time_seconds":1.5},{"device":"md0","layer":"virtual"}],
            "memory":{"memory_mem_total_bytes":9,"memory_swap_bytes":0,"memory_rss_bytes":5,"memory_oom_kills":1,"memory_hugepages_total_bytes":2097152},
            "network":[{"device":"eth0","network_receive_errs":3,"addresses":[{"address":"192.0.2.7","prefix":24},{"address":"x\n"}]}],
            "boot_time_seconds":1700000000.5,"time_seconds":1700000100,"pressure":{"io_waiting_seconds":2.5},"hostname":"guest"}"#;
        let guest = told(own);
        let Memory { swap, rss, hugepages_total, oom_kills, .. } = guest.figures.memory;
        assert_eq!((swap, rss, hugepages_total, oom_kills), (Some(0), Some(5), Some(2_097_152), Some(1)));
        assert_eq!((guest.figures.cpu_effective, guest.figures.cpus[0].cpu), (Some(4), Some(3)));
        assert_eq!(guest.figures.boot_time_seconds, Some(1_700_000_000.5));
        assert_eq!(guest.figures.interfaces[0].receive.errs, Some(3));
        assert_eq!(guest.figures.pressure.io_waiting, Some(Duration::from_millis(2500)));
        assert_eq!(
            (guest.figures.disks.len(), guest.figures.disks[0].read_time),
            (1, Some(Duration::from_millis(1500)))
        );
        assert_eq!(guest.addresses[0].addresses, ["192.0.2.7/24"]);
        assert_eq!(guest.hostname.as_deref(), Some("guest"));
    }

    #[test]
    fn a_report_of_nothing_is_none() {
        assert_eq!(guest(serde_json::from_str("{}").unwrap(), Layers::One), None);
    }

    #[test]
    fn escapes_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescaped(r"/a\040b\011c\134d"), "/a b\tc\\d");
        assert_eq!(unescaped(r"/a\04"), r"/a\04");
        assert_eq!(unescaped(r"\377\日本"), r"\377\日本");
    }

    proptest! {
        #[test]
        fn no_number_harms(value in any::<f64>(), count in any::<u64>(), name in ".{0,300}") {
            let cpu = report::Cpu { cpu: name.clone(), cpu_seconds_user: Some(value), ..report::Cpu::default() };
            let disk = report::Disk { device: name.clone(), disk_read_bytes: Some(count), disk_read_time_seconds: Some(value), ..report::Disk::default() };
            let filesystem = report::Filesystem { device: name.clone(), mountpoint: name.clone(), fstype: name.clone(), ..report::Filesystem::default() };
            let network = report::Network { device: name, ..report::Network::default() };
            let report = Report {
                cpu: vec![cpu], disk: vec![disk], filesystem: vec![filesystem], network: vec![network],
                memory: report::Memory { memory_mem_total_bytes: Some(count), ..report::Memory::default() },
                boot_time_seconds: Some(value), time_seconds: Some(value), ..Report::default()
            };
            if let Some(guest) = guest(report, Layers::One) {
                prop_assert!(guest.figures.boot_time_seconds.is_none_or(|at| at > 0.0 && at.is_finite()));
            }
        }

        #[test]
        fn unescaping_never_grows(text in ".{0,60}") {
            prop_assert!(unescaped(&text).len() <= text.len());
        }
    }
}

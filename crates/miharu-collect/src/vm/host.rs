//! What the host can tell of a virtual machine without its guest: the column "VM, host" of metrics.md.
//!
//! [`read`] opens files, [`figures`] only counts. These figures never continue a guest's series: CPU time has modes of
//! its own (`vcpu_user`, `vcpu_system`), and interfaces are called as the host calls them.

use std::collections::HashSet;

use miharu_instances::{Instance, Owner, Vm};
use miharu_linux::host::HostFacts;
use miharu_linux::hypervisor::{self, Memory, Vcpu};
use miharu_linux::process::{self, Stat};
use miharu_linux::read::Buffer;
use miharu_metrics::figures::{self, CpuMode, CpuTimes, Disk, Figures, Hypervisor, Interface};

use crate::container::interface;
use crate::own_process::{start_time, ticks_to_time};

/// What was read of the process that runs a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) stat: Stat,
    pub(crate) memory: Memory,
    pub(crate) vcpus: Vec<Vcpu>,
    /// The interfaces of the namespace that its taps are in, where that is not the host's.
    pub(crate) own_links: Option<Vec<process::Interface>>,
}

/// What QMP tells, where a monitor answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Monitor {
    /// CPU and thread of each vCPU, from `query-cpus-fast`; empty where it was not asked.
    pub(crate) vcpus: Vec<(u32, u32)>,
    /// `actual` of `query-balloon`, bytes.
    pub(crate) balloon: Option<u64>,
    /// `query-blockstats`.
    pub(crate) disks: Vec<Disk>,
}

/// Reads the process of `instance`; `threads` are the vCPUs that QMP named, if it did. `host_network` is the number of
/// the host's own network namespace.
///
/// # Errors
/// [`miharu_linux::Error::Gone`] once the process has ended.
pub(crate) fn read(
    instance: &Instance,
    threads: &[(u32, u32)],
    host_network: Option<u64>,
    buffer: &mut Buffer,
) -> miharu_linux::Result<Reading> {
    let process = &instance.init;
    let stat = process.stat(buffer)?;
    let memory = Memory::read(process, buffer)?;
    let vcpus = if threads.is_empty() {
        hypervisor::vcpus(process, buffer)?
    } else {
        hypervisor::vcpus_of(process, threads, buffer)?
    };
    let has_taps = instance.vm.as_ref().is_some_and(|vm| !vm.taps.is_empty());
    let is_apart =
        has_taps && process.network().is_ok_and(|own| host_network.is_some_and(|host| host != own));
    let own_links = if is_apart { Some(process.net_dev(buffer)?) } else { None };
    Ok(Reading { stat, memory, vcpus, own_links })
}

/// The figures of a virtual machine that only the host can be asked about. `links` are the host's interfaces.
pub(crate) fn figures(
    vm: &Vm,
    reading: &Reading,
    monitor: &Monitor,
    links: &[process::Interface],
    facts: &HostFacts,
) -> Figures {
    let links = reading.own_links.as_deref().unwrap_or(links);
    Figures {
        boot_time_seconds: start_time(reading.stat.starttime, facts),
        cpus: reading.vcpus.iter().map(|vcpu| cpu(vcpu, facts)).collect(),
        cpu_effective: vcpu_count(vm, reading, monitor),
        disks: monitor.disks.iter().filter_map(|row| disk(vm, row)).collect(),
        memory: memory(vm, reading, monitor),
        interfaces: taps(vm, links),
        procs: Some(reading.stat.num_threads),
        hypervisor: hypervisor(&reading.memory),
        ..Figures::default()
    }
}

/// What the process itself takes from the host, which is told of every virtual machine, whoever answers for its guest.
pub(crate) fn hypervisor(memory: &Memory) -> Hypervisor {
    Hypervisor { rss: memory.resident(), swap: memory.swap }
}

/// The time of a vCPU's thread. `utime` holds the guest's time already, so that is added nowhere.
fn cpu(vcpu: &Vcpu, facts: &HostFacts) -> CpuTimes {
    let modes = [(CpuMode::VcpuUser, vcpu.utime), (CpuMode::VcpuSystem, vcpu.stime)];
    modes.into_iter().fold(CpuTimes::new(vcpu.cpu), |cpu, (mode, ticks)| {
        match ticks_to_time(ticks, facts.ticks_per_second) {
            Some(time) => cpu.with(mode, time),
            None => cpu,
        }
    })
}

/// A disk under the name of its device in QEMU. Never under one that the guest's kernel may give: the guest's own counters, when
/// they take over, would go on from the host's.
fn disk(vm: &Vm, row: &Disk) -> Option<Disk> {
    let device = match &vm.owner {
        Owner::Libvirt { .. } => vm.disk_ids.get(&row.device)?.clone(),
        _ => row.device.clone(),
    };
    let device = if is_kernels_name(&device) { format!("peripheral/{device}") } else { device };
    Some(Disk { device, ..row.clone() })
}

/// `sda`, `vdb`, `hdc`, `xvda`, `nvme0n1`, `sr0`, `fd0`, `mmcblk0`.
fn is_kernels_name(name: &str) -> bool {
    let lettered = ["sd", "vd", "hd", "xvd"];
    let numbered = ["nvme", "sr", "fd", "mmcblk"];
    let rest_is = |prefixes: &[&str], wanted: fn(&u8) -> bool| {
        let mut rests = prefixes.iter().filter_map(|prefix| name.strip_prefix(prefix));
        rests.any(|rest| rest.as_bytes().first().is_some_and(wanted) && rest.len() <= 8)
    };
    rest_is(&lettered, u8::is_ascii_lowercase) || rest_is(&numbered, u8::is_ascii_digit)
}

/// How many vCPUs there are: QMP knows, then the configuration, which plugging may have changed, then the threads.
fn vcpu_count(vm: &Vm, reading: &Reading, monitor: &Monitor) -> Option<u64> {
    let counted = |count: usize| Some(count as u64).filter(|count| *count > 0);
    counted(monitor.vcpus.len())
        .or_else(|| counted(reading.vcpus.len()).max(vm.configured_vcpus.map(u64::from)))
}

/// The guest's memory as the host sees it. None of it is the host's cache, so `Cached` is 0.
fn memory(vm: &Vm, reading: &Reading, monitor: &Monitor) -> figures::Memory {
    let total = monitor.balloon.or(vm.configured_memory);
    let free = total.zip(reading.memory.resident()).map(|(total, used)| total.saturating_sub(used));
    figures::Memory {
        mem_total: total,
        mem_free: free,
        mem_available: free,
        cached: Some(0),
        ..figures::Memory::default()
    }
}

/// The machine's taps. What a tap sends is what the guest receives.
fn taps(vm: &Vm, links: &[process::Interface]) -> Vec<Interface> {
    let taps: HashSet<&str> = vm.taps.iter().map(String::as_str).collect();
    let own = links.iter().filter(|link| taps.contains(link.name.as_str()));
    own.map(|link| {
        let Interface { device, receive, transmit } = interface(link.clone());
        Interface { device, receive: transmit, transmit: receive }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use miharu_linux::process::Counters;

    use super::*;

    fn stat() -> Stat {
        Stat {
            comm: b"qemu-vm".to_vec(),
            state: b'S',
            ppid: 1,
            is_exiting: false,
            utime: 1000,
            stime: 500,
            num_threads: 7,
            starttime: 12_345,
        }
    }

    fn reading() -> Reading {
        let vcpu = |cpu, utime, stime| Vcpu { cpu, tid: 100 + cpu, utime, stime };
        Reading {
            stat: stat(),
            memory: Memory { rss: Some(60 << 20), hugetlb: Some(40 << 20), swap: Some(4096) },
            vcpus: vec![vcpu(0, 250, 50), vcpu(1, 125, 0)],
            own_links: None,
        }
    }

    fn facts() -> HostFacts {
        HostFacts { boot_time: Some(1_000_000), ticks_per_second: 250, ..HostFacts::default() }
    }

    fn vm() -> Vm {
        Vm {
            configured_vcpus: Some(2),
            configured_memory: Some(256 << 20),
            taps: vec!["tap0".into(), "gone".into()],
            ..Vm::default()
        }
    }

    fn link(name: &str) -> process::Interface {
        process::Interface {
            name: name.into(),
            receive: Counters { bytes: 1, packets: 2, errs: 3, drop: 4 },
            transmit: Counters { bytes: 5, packets: 6, errs: 7, drop: 8 },
        }
    }

    #[test]
    fn the_column_of_the_host() {
        let links = [link("eth0"), link("tap0")];
        let figures = figures(&vm(), &reading(), &Monitor::default(), &links, &facts());
        assert_eq!(figures.boot_time_seconds, Some(1_000_049.38));
        let cpus: Vec<_> =
            figures.cpus.iter().map(|cpu| (cpu.cpu, cpu.known().collect::<Vec<_>>())).collect();
        let times = |system, user| {
            let system = (CpuMode::VcpuSystem, Duration::from_millis(system));
            vec![system, (CpuMode::VcpuUser, Duration::from_millis(user))]
        };
        assert_eq!(
            cpus,
            [(Some(0), times(200, 1000)), (Some(1), times(0, 500))],
            "the real tick rate, guest time once"
        );
        assert_eq!(figures.cpu_effective, Some(2));
        assert_eq!(figures.memory.mem_total, Some(256 << 20));
        assert_eq!(figures.memory.mem_free, Some(156 << 20));
        assert_eq!(figures.memory.mem_available, figures.memory.mem_free);
        assert_eq!(figures.memory.cached, Some(0));
        assert_eq!(figures.memory.rss, None);
        assert_eq!(figures.hypervisor, Hypervisor { rss: Some(100 << 20), swap: Some(4096) });
        assert_eq!(figures.procs, Some(7));
        assert_eq!(figures.interfaces.len(), 1);
        let tap = &figures.interfaces[0];
        assert_eq!((tap.device.as_str(), tap.receive.bytes, tap.transmit.bytes), ("tap0", Some(5), Some(1)));
        assert_eq!((tap.receive.drop, tap.transmit.errs), (Some(8), Some(3)));
    }

    #[test]
    fn qmp_knows_better() {
        let disks = vec![Disk { device: "disk0".into(), ..Disk::default() }];
        let monitor = Monitor { vcpus: vec![(0, 100)], balloon: Some(90 << 20), disks: disks.clone() };
        let figures = figures(&vm(), &reading(), &monitor, &[], &facts());
        assert_eq!(figures.cpu_effective, Some(1));
        assert_eq!(figures.memory.mem_total, Some(90 << 20));
        assert_eq!(figures.memory.mem_free, Some(0), "it saturates");
        assert_eq!(figures.disks, disks);
    }

    #[test]
    fn no_disk_is_called_as_the_guest_calls_it() {
        let named = |device: &str| Disk { device: device.into(), ..Disk::default() };
        let of = |vm: &Vm, disks: &[&str]| {
            let disks = disks.iter().map(|disk| named(disk)).collect();
            let monitor = Monitor { disks, ..Monitor::default() };
            let figures = figures(vm, &reading(), &monitor, &[], &facts());
            figures.disks.into_iter().map(|disk| disk.device).collect::<Vec<_>>()
        };
        let domain = Vm {
            owner: Owner::Libvirt { domain: "d".into() },
            disk_ids: [("vda".to_owned(), "virtio-disk0".to_owned())].into(),
            ..vm()
        };
        assert_eq!(of(&domain, &["vda", "vdb"]), ["virtio-disk0"], "one just plugged in has no id yet");
        assert_eq!(
            of(&vm(), &["disk0", "vda", "nvme0", "sd", "fdisk"]),
            ["disk0", "peripheral/vda", "peripheral/nvme0", "sd", "fdisk"]
        );
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let reading = Reading { memory: Memory::default(), vcpus: Vec::new(), ..reading() };
        let figures = figures(&Vm::default(), &reading, &Monitor::default(), &[link("tap0")], &facts());
        assert_eq!(figures.memory.mem_total, None);
        assert_eq!(figures.memory.mem_free, None);
        assert_eq!(figures.hypervisor, Hypervisor::default());
        assert_eq!(figures.cpu_effective, None);
        assert!(figures.interfaces.is_empty() && figures.cpus.is_empty());
    }

    #[test]
    fn taps_of_another_namespace_are_not_the_hosts() {
        let reading = Reading { own_links: Some(vec![link("other")]), ..reading() };
        let figures = figures(&vm(), &reading, &Monitor::default(), &[link("tap0")], &facts());
        assert!(figures.interfaces.is_empty());
    }
}

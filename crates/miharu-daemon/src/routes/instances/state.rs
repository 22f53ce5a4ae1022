//! An instance's figures in the shape of the REST API.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use miharu_api::{
    InstanceState, StateCpu, StateDisk, StateMemory, StateNetwork, StateNetworkAddress, StateNetworkCounters,
};
use miharu_collect::{Addresses, Guest};
use miharu_metrics::figures::{CpuMode, Interface};
use miharu_metrics::{Figures, InstanceType};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::RUNNING;
use crate::cache::Found;

/// Modes that are no time used.
const NOT_USED: [CpuMode; 3] = [CpuMode::Idle, CpuMode::Iowait, CpuMode::Steal];
/// How Go writes that there is no time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// The state of a running instance. The shape has no word for "not known": that is 0, as in Incus.
pub(super) fn state(found: &Found, figures: &Figures, guest: Option<&Guest>) -> InstanceState {
    let memory = &figures.memory;
    InstanceState {
        status: RUNNING.0.to_owned(),
        status_code: RUNNING.1,
        disk: disks(figures),
        memory: StateMemory {
            usage: number(memory.usage.or_else(|| Some(memory.mem_total?.saturating_sub(memory.mem_free?)))),
            usage_peak: number(memory.peak),
            total: number(memory.mem_total),
            swap_usage: number(memory.swap),
            swap_usage_peak: 0,
        },
        network: networks(figures, guest),
        pid: found.pid.map_or(0, i64::from),
        processes: number(figures.procs),
        cpu: StateCpu { usage: cpu_usage(figures), allocated_time: allocated(figures.cpu_limit_cores) },
        started_at: rfc3339(figures.boot_time_seconds),
        source: figures.info.as_ref().map(|info| info.source.to_owned()).unwrap_or_default(),
        vcpus: match found.instance_type {
            InstanceType::VirtualMachine => number(figures.cpu_effective),
            InstanceType::Container => 0,
        },
        uptime: uptime(figures),
        hostname: guest.and_then(|guest| guest.hostname.clone()).unwrap_or_default(),
    }
}

fn number(value: Option<u64>) -> i64 {
    value.map_or(0, |value| i64::try_from(value).unwrap_or(i64::MAX))
}

fn cpu_usage(figures: &Figures) -> i64 {
    let times = figures.cpus.iter().flat_map(|cpu| cpu.known());
    let used = times.filter(|(mode, _)| !NOT_USED.contains(mode)).map(|(_, time)| time);
    // A guest may tell any times; their plain sum would panic beyond 64 bits of seconds.
    let used = used.fold(Duration::ZERO, Duration::saturating_add);
    i64::try_from(used.as_nanos()).unwrap_or(i64::MAX)
}

fn allocated(cores: Option<f64>) -> i64 {
    let nanoseconds =
        cores.and_then(|cores| Duration::try_from_secs_f64(cores).ok()).map(|time| time.as_nanos());
    nanoseconds.map_or(0, |time| i64::try_from(time).unwrap_or(i64::MAX))
}

fn disks(figures: &Figures) -> BTreeMap<String, StateDisk> {
    let disks = figures.filesystems.iter().map(|filesystem| {
        let name = if filesystem.mountpoint == "/" { "root" } else { &filesystem.mountpoint };
        let used =
            filesystem.size_bytes.zip(filesystem.free_bytes).map(|(size, free)| size.saturating_sub(free));
        (name.to_owned(), StateDisk { usage: number(used), total: number(filesystem.size_bytes) })
    });
    disks.collect()
}

/// Whole seconds by the clock that told when it was started: the guest's own, or the host's.
fn uptime(figures: &Figures) -> i64 {
    let up = figures.time_seconds.zip(figures.boot_time_seconds).map(|(now, start)| now - start);
    let up = up.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    number(up.map(|up| up.as_secs()))
}

/// Interfaces with counters, and those of which a guest told addresses.
fn networks(figures: &Figures, guest: Option<&Guest>) -> BTreeMap<String, StateNetwork> {
    let counted = figures.interfaces.iter().map(|interface| (interface.device.clone(), network(interface)));
    let mut networks: BTreeMap<_, _> = counted.collect();
    for Addresses { interface, addresses } in guest.iter().flat_map(|guest| &guest.addresses) {
        let network = networks
            .entry(interface.clone())
            .or_insert_with(|| network(&Interface { device: interface.clone(), ..Interface::default() }));
        network.addresses.extend(addresses.iter().filter_map(|written| address(written)));
    }
    networks
}

/// `192.0.2.7/24`, or without the length of the prefix, as clients read it.
fn address(written: &str) -> Option<StateNetworkAddress> {
    let (address, netmask) = written.split_once('/').unwrap_or((written, ""));
    let address = address.split('%').next()?;
    let (family, is_loopback, is_link_local) = match address.parse().ok()? {
        IpAddr::V4(v4) => ("inet", v4.is_loopback(), v4.is_link_local()),
        IpAddr::V6(v6) => ("inet6", v6.is_loopback(), v6.is_unicast_link_local()),
    };
    let scope = match (is_loopback, is_link_local) {
        (true, _) => "local",
        (false, true) => "link",
        (false, false) => "global",
    };
    Some(StateNetworkAddress {
        family: family.to_owned(),
        address: address.to_owned(),
        netmask: netmask.to_owned(),
        scope: scope.to_owned(),
    })
}

fn network(interface: &Interface) -> StateNetwork {
    let (receive, transmit) = (&interface.receive, &interface.transmit);
    StateNetwork {
        counters: StateNetworkCounters {
            bytes_received: number(receive.bytes),
            bytes_sent: number(transmit.bytes),
            packets_received: number(receive.packets),
            packets_sent: number(transmit.packets),
            errors_received: number(receive.errs),
            errors_sent: number(transmit.errs),
            packets_dropped_outbound: number(transmit.drop),
            packets_dropped_inbound: number(receive.drop),
        },
        interface_type: if interface.device == "lo" { "loopback" } else { "broadcast" }.to_owned(),
        ..StateNetwork::default()
    }
}

/// A moment, seconds since the epoch, as clients read it.
pub(super) fn rfc3339(seconds: Option<f64>) -> String {
    let moment = seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .and_then(|since| OffsetDateTime::UNIX_EPOCH.checked_add(time::Duration::try_from(since).ok()?));
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| NO_TIME.to_owned())
}

#[cfg(test)]
mod tests {
    use miharu_metrics::figures::{CpuTimes, Filesystem, Memory};

    use super::*;

    #[test]
    fn times_of_a_lying_guest_are_summed_without_a_panic() {
        let most = Duration::from_secs(u64::MAX);
        let cpu = CpuTimes::new(0).with(CpuMode::User, most).with(CpuMode::System, most);
        assert_eq!(cpu_usage(&Figures { cpus: vec![cpu], ..Figures::default() }), i64::MAX);
    }

    #[test]
    fn figures_become_the_state_that_clients_read() {
        let found = Found {
            project: "lxc".to_owned(),
            name: "u1".to_owned(),
            instance_type: InstanceType::Container,
            runtime: "lxc".to_owned(),
            id: "u1".to_owned(),
            image: None,
            pid: Some(42),
        };
        let cpu = CpuTimes::new(0)
            .with(CpuMode::User, Duration::from_secs(2))
            .with(CpuMode::Idle, Duration::from_secs(9));
        let root = Filesystem {
            mountpoint: "/".to_owned(),
            size_bytes: Some(100),
            free_bytes: Some(40),
            ..Filesystem::default()
        };
        let figures = Figures {
            cpus: vec![cpu],
            cpu_limit_cores: Some(0.5),
            filesystems: vec![root],
            memory: Memory { usage: Some(7), ..Memory::default() },
            boot_time_seconds: Some(86_400.5),
            ..Figures::default()
        };
        let state = state(&found, &figures, None);
        assert_eq!(state.cpu, StateCpu { usage: 2_000_000_000, allocated_time: 500_000_000 });
        assert_eq!(state.disk["root"], StateDisk { usage: 60, total: 100 });
        assert_eq!((state.memory.usage, state.pid), (7, 42));
        assert_eq!((state.vcpus, state.uptime), (0, 0));
        assert_eq!(state.started_at, "1970-01-02T00:00:00.5Z");
        assert_eq!(rfc3339(None), NO_TIME);
        assert_eq!(rfc3339(Some(f64::NAN)), NO_TIME);
    }

    #[test]
    fn a_machines_own_facts() {
        let found = Found {
            project: "qemu".to_owned(),
            name: "vm".to_owned(),
            instance_type: InstanceType::VirtualMachine,
            runtime: "qemu".to_owned(),
            id: "vm".to_owned(),
            image: None,
            pid: Some(42),
        };
        let told = |interface: &str, addresses: &[&str]| Addresses {
            interface: interface.to_owned(),
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        };
        let guest = Guest {
            project: "qemu".to_owned(),
            name: "vm".to_owned(),
            addresses: vec![
                told("lo", &["127.0.0.1/8", "::1/128"]),
                told("eth0", &["192.0.2.7/24", "fe80::1%eth0", "nonsense"]),
            ],
            hostname: Some("inner".to_owned()),
            ..Guest::default()
        };
        let eth0 = Interface { device: "eth0".to_owned(), ..Interface::default() };
        let figures = Figures {
            cpu_effective: Some(2),
            boot_time_seconds: Some(100.0),
            time_seconds: Some(160.9),
            interfaces: vec![eth0],
            ..Figures::default()
        };
        let state = state(&found, &figures, Some(&guest));
        assert_eq!((state.vcpus, state.uptime, state.hostname.as_str()), (2, 60, "inner"));
        let seen = |interface: &str| {
            let rows = state.network[interface].addresses.iter();
            rows.map(|a| format!("{} {} {} {}", a.family, a.address, a.netmask, a.scope)).collect::<Vec<_>>()
        };
        assert_eq!(seen("eth0"), ["inet 192.0.2.7 24 global", "inet6 fe80::1  link"]);
        assert_eq!(seen("lo"), ["inet 127.0.0.1 8 local", "inet6 ::1 128 local"]);
        let behind = Figures { time_seconds: Some(50.0), ..figures };
        assert_eq!(uptime(&behind), 0, "a guest's clock may be anything");
    }
}

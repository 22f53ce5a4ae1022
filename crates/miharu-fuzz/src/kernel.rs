//! Text of the kernel's files, which what runs in an instance can influence: names of devices, mounts, processes, cgroups.

use std::ffi::OsStr;

use miharu_agent::cpu::{self, Steady};
use miharu_agent::{addresses, memory};
use miharu_linux::cgroup::parse::{device_number, v1, v2};
use miharu_linux::host::{CpuList, parse_meminfo, parse_uptime};
use miharu_linux::mounts::{self, HostMounts, RemoteFilesystems};
use miharu_linux::read::number_file;
use miharu_linux::{confinement, hypervisor, links, process, text, unix_sockets, zfs};

pub(crate) fn cgroup_v1(bytes: &[u8]) {
    let present = CpuList::parse(b"0-63");
    for present in [None, present.as_ref()] {
        if let Some(times) = v1::usage_all(bytes, present) {
            assert!(times.is_sorted_by(|a, b| a.cpu < b.cpu), "a CPU twice");
        }
    }
    let _ = (v1::cpu_stat(bytes), v1::memory_stat(bytes), v1::oom_kill(bytes), v1::limit(bytes));
    let _ = (v1::quota(bytes), number_file(bytes));
    let mut devices = Vec::new();
    v1::blkio(bytes, &mut devices, |io| (&mut io.read_bytes, &mut io.written_bytes));
    v1::blkio(bytes, &mut devices, |io| (&mut io.reads, &mut io.writes));
    assert!(devices.len() <= bytes.len());
}

pub(crate) fn cgroup_v2(bytes: &[u8]) {
    let _ = (v2::CpuStat::parse(bytes), v2::memory_stat(bytes), v2::oom_kill(bytes), v2::limit(bytes));
    let _ = (v2::Stalls::parse(bytes), device_number(bytes), text::keyed(bytes, "rbytes"));
    if let Some(Some(cores)) = v2::cpu_max(bytes) {
        assert!(cores.is_finite() && cores >= 0.0, "{cores} CPUs");
    }
    assert!(v2::io_stat(bytes).len() <= bytes.len());
}

pub(crate) fn process(bytes: &[u8]) {
    let _ = (process::parse_stat(bytes), process::parse_status(bytes), process::parse_namespace(bytes));
    let _ = (process::parse_memberships(bytes), process::arguments(bytes).count());
    let _ = (hypervisor::parse_memory(bytes), hypervisor::parse_tgid(bytes), hypervisor::vcpu_number(bytes));
    assert!(process::parse_net_dev(bytes).len() <= bytes.len());
    assert!(confinement::parse_thread(bytes).name.len() <= 3 * bytes.len());
    assert!(unix_sockets::parse(bytes).all(|socket| !socket.path.contains(&b'\n')));
}

/// The mounts of an instance and, behind a zero byte, the host's.
pub(crate) fn mounts(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (own, of_host) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(bytes));
    let lines = mounts::parse(own, mounts::MAX_MOUNTS);
    assert!(lines.len() <= mounts::MAX_MOUNTS);
    let host = HostMounts::parse(of_host);
    for remote in [RemoteFilesystems::Skip, RemoteFilesystems::Ask] {
        let chosen = mounts::select(&lines, remote);
        assert!(chosen.len() <= mounts::MAX_FILE_SYSTEMS);
        for mount in chosen.iter().flat_map(|file_system| &file_system.mounts) {
            let _ = host.sharing(mount, OsStr::new("c7"));
        }
    }
    assert!(mounts::unescape(own).len() <= own.len());
}

pub(crate) fn host(bytes: &[u8]) {
    if let Some(list) = CpuList::parse(bytes) {
        assert!(!list.contains(7) || list.count() > 0 && !list.is_empty());
    }
    let _ = (parse_meminfo(bytes), parse_uptime(bytes), zfs::parse(bytes));
}

/// What the agent reads in a guest, whose kernel may be any.
pub(crate) fn guest(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (before, after) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let _ = memory::with_counters(memory::parse(before), after);
    let mut steady = Steady::default();
    let first = cpu::parse(before, 100, &mut steady);
    let second = cpu::parse(after, 100, &mut steady);
    for row in first.cpus.iter().chain(&second.cpus) {
        let times = [row.cpu_seconds_user, row.cpu_seconds_system, row.cpu_seconds_idle];
        assert!(times.into_iter().flatten().all(|seconds| seconds.is_finite() && seconds >= 0.0));
    }
}

/// Parts of rtnetlink's answers, as the host asks for interfaces and the agent for addresses.
pub(crate) fn netlink(bytes: &[u8]) {
    let (mut interfaces, mut found) = (Vec::new(), addresses::Found::default());
    for _ in 0..2 {
        let _ = links::parse(bytes, &mut interfaces);
        addresses::parse(bytes, &mut found);
    }
    assert!(interfaces.len() <= bytes.len() && interfaces.iter().all(|interface| !interface.name.is_empty()));
    assert!(found.addresses.values().map(Vec::len).sum::<usize>() <= addresses::MAX_ADDRESSES);
}

//! The files of cgroups.

use anyhow::Result;
use miharu_linux::cgroup::parse::{v1, v2};
use miharu_linux::host::CpuList;
use miharu_linux::read::number_file;

use crate::Case;
use crate::recording::file;

pub(crate) fn cases() -> Result<Vec<Case>> {
    let mut cases = of_v1()?;
    cases.extend(of_v2()?);
    Ok(cases)
}

fn of_v1() -> Result<Vec<Case>> {
    let of = |controller: &str, name: &str| {
        file("v1", &format!("sys/fs/cgroup/{controller}/lxc.payload.u1/{name}"))
    };
    let usage = of("cpuacct", "cpuacct.usage_all")?;
    let cpu = of("cpu", "cpu.stat")?;
    let quota = of("cpu", "cpu.cfs_quota_us")?;
    let cpus = of("cpuset", "cpuset.effective_cpus")?;
    let memory = of("memory", "memory.stat")?;
    let oom = of("memory", "memory.oom_control")?;
    let bytes = of("blkio", "blkio.throttle.io_service_bytes_recursive")?;
    let current = of("memory", "memory.usage_in_bytes")?;
    let limit = of("memory", "memory.limit_in_bytes")?;
    let many: Vec<u8> = b"cpu user system\n"
        .iter()
        .copied()
        .chain((0..128).flat_map(|cpu| format!("{cpu} {} {}\n", 71_998_008 * cpu, 98_123 * cpu).into_bytes()))
        .collect();
    Ok(vec![
        Case::new("v1 cpuacct.usage_all", move || v1::usage_all(&usage, None)),
        Case::new("v1 cpuacct.usage_all of 128 CPUs", move || v1::usage_all(&many, None)),
        Case::new("v1 cpu.stat", move || v1::cpu_stat(&cpu)),
        Case::new("v1 cpu.cfs_quota_us", move || v1::quota(&quota)),
        Case::new("v1 cpuset.effective_cpus", move || CpuList::parse(&cpus)),
        Case::new("v1 memory.stat", move || v1::memory_stat(&memory)),
        Case::new("v1 memory.oom_control", move || v1::oom_kill(&oom)),
        Case::new("v1 memory.usage_in_bytes", move || number_file(&current)),
        Case::new("v1 memory.limit_in_bytes", move || v1::limit(&limit)),
        Case::new("v1 blkio.throttle", move || {
            let mut devices = Vec::new();
            v1::blkio(&bytes, &mut devices, |io| (&mut io.read_bytes, &mut io.written_bytes));
            devices
        }),
    ])
}

fn of_v2() -> Result<Vec<Case>> {
    let of = |name: &str| file("v2", &format!("sys/fs/cgroup/lxc.payload.u1/{name}"));
    let cpu = of("cpu.stat")?;
    let max = of("cpu.max")?;
    let memory = of("memory.stat")?;
    let events = of("memory.events")?;
    let io = of("io.stat")?;
    let pressure = of("memory.pressure")?;
    let limit = of("memory.max")?;
    Ok(vec![
        Case::new("v2 cpu.stat", move || v2::CpuStat::parse(&cpu)),
        Case::new("v2 cpu.max", move || v2::cpu_max(&max)),
        Case::new("v2 memory.stat", move || v2::memory_stat(&memory)),
        Case::new("v2 memory.events", move || v2::oom_kill(&events)),
        Case::new("v2 memory.max", move || v2::limit(&limit)),
        Case::new("v2 io.stat", move || v2::io_stat(&io)),
        Case::new("v2 memory.pressure", move || v2::Stalls::parse(&pressure)),
    ])
}

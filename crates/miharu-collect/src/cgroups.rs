//! A container's figures out of its cgroups.

use std::collections::HashMap;
use std::time::Duration;

use miharu_linux::block::{BlockDevices, Layers};
use miharu_linux::cgroup;
use miharu_linux::host::HostFacts;
use miharu_linux::mounts::Device;
use miharu_metrics::figures::{CpuMode, CpuTimes, Disk, Figures, Memory, Pressure, Throttling};
use miharu_metrics::{Part, Wanted};

/// What of a container's cgroups has to be read for these parts of its figures.
pub(crate) fn parts(wanted: Wanted) -> cgroup::Parts {
    cgroup::Parts::of(|part| {
        wanted.has(match part {
            cgroup::Part::Cpu => Part::Cpu,
            cgroup::Part::Throttling => Part::Throttling,
            cgroup::Part::CpuLimit => Part::CpuLimit,
            cgroup::Part::CpusEffective => Part::CpuEffective,
            cgroup::Part::Memory => Part::Memory,
            cgroup::Part::Swap => Part::Swap,
            cgroup::Part::MemoryPeak => Part::MemoryPeak,
            cgroup::Part::OomKills => Part::OomKills,
            cgroup::Part::Hugetlb => Part::Hugepages,
            cgroup::Part::Io => Part::Disks,
            cgroup::Part::Tasks => Part::Procs,
            cgroup::Part::PressureCpu => Part::PressureCpu,
            cgroup::Part::PressureMemory => Part::PressureMemory,
            cgroup::Part::PressureIo => Part::PressureIo,
        })
    })
}

/// Puts what the cgroups tell into the families' figures. Nothing is made up for what they do not tell.
pub(crate) fn fill(figures: &mut Figures, read: &cgroup::Figures, host: &HostFacts) {
    figures.cpus = read.cpu_times.iter().map(cpu_times).collect();
    figures.cpu_effective = read.cpus_effective.map(u64::from);
    if let Some(throttling) = &read.throttling {
        figures.throttling = Throttling {
            periods: Some(throttling.periods),
            throttled_periods: Some(throttling.throttled_periods),
            throttled_time: Some(Duration::from_nanos(throttling.throttled_ns)),
        };
    }
    figures.cpu_limit_cores = read.limit_cores;
    figures.memory = memory(&read.memory, host);
    figures.procs = read.tasks;
    figures.pressure = pressure(&read.pressure);
}

fn cpu_times(time: &cgroup::CpuTime) -> CpuTimes {
    CpuTimes::new(time.cpu)
        .with(CpuMode::User, Duration::from_nanos(time.user_ns))
        .with(CpuMode::System, Duration::from_nanos(time.system_ns))
}

/// The counters of the devices that are reported, under their names.
pub(crate) fn disks(counted: &[cgroup::Io], blocks: &mut BlockDevices, layers: Layers) -> Vec<Disk> {
    let device = |io: &cgroup::Io| Device { major: io.major, minor: io.minor };
    let by_device: HashMap<Device, &cgroup::Io> = counted.iter().map(|io| (device(io), io)).collect();
    let devices: Vec<Device> = counted.iter().map(device).collect();
    let reported = blocks.reported(&devices, layers).into_iter();
    let row = |(device, name)| {
        let io = by_device.get(&device)?;
        Some(Disk {
            device: name,
            read_bytes: io.read_bytes,
            reads_completed: io.reads,
            written_bytes: io.written_bytes,
            writes_completed: io.writes,
            read_time: None,
            write_time: None,
        })
    };
    reported.filter_map(row).collect()
}

fn memory(read: &cgroup::Memory, host: &HostFacts) -> Memory {
    Memory {
        active_anon: read.active_anon,
        active_file: read.active_file,
        active: read.active(),
        inactive_anon: read.inactive_anon,
        inactive_file: read.inactive_file,
        inactive: read.inactive(),
        unevictable: read.unevictable,
        cached: read.file,
        dirty: read.file_dirty,
        writeback: read.file_writeback,
        mapped: read.file_mapped,
        shmem: read.shmem,
        sreclaimable: read.slab_reclaimable,
        rss: read.anon,
        hugepages_free: read.hugetlb_free,
        hugepages_total: read.hugetlb_total,
        // Where no cgroup limits or even counts its memory, the host's memory is what the instance may use.
        mem_total: read.total.or(host.mem_total),
        mem_free: read.free,
        mem_available: read.available,
        oom_kills: read.oom_kills,
        swap: read.swap,
        usage: read.usage,
        peak: read.peak,
        working_set: read.working_set,
        major_faults: read.pgmajfault,
    }
}

fn pressure(read: &cgroup::Pressure) -> Pressure {
    let time = |micros: Option<u64>| micros.map(Duration::from_micros);
    Pressure {
        cpu_waiting: time(read.cpu_waiting_us),
        memory_waiting: time(read.memory_waiting_us),
        memory_stalled: time(read.memory_stalled_us),
        io_waiting: time(read.io_waiting_us),
        io_stalled: time(read.io_stalled_us),
    }
}

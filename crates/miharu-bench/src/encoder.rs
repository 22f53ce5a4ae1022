//! The encoder, on figures as a busy LXC container of a small host has them.

use std::rc::Rc;
use std::time::Duration;

use miharu_metrics::figures::{
    CpuMode, CpuTimes, Disk, Figures, Filesystem, Info, InstanceFigures, InstanceType, Interface, Memory,
    Scrape, Sharing, Throttling, Traffic,
};
use miharu_metrics::{Format, Prefix, Scope, ServerFigures, Snapshot, encode};

use crate::Case;

/// How many instances a large host has.
const INSTANCES: u64 = 500;

pub(crate) fn cases() -> Vec<Case> {
    let large = Rc::new(snapshot(INSTANCES));
    let small = snapshot(1);
    let encoded = |snapshot: &Snapshot, format| encode(snapshot, format, Prefix::Incus, &Scope::all());
    let same = Rc::clone(&large);
    let unordered: Vec<_> = (0..INSTANCES).map(instance).collect();
    vec![
        Case::new("copying 500 containers", {
            let unordered = unordered.clone();
            move || unordered.clone()
        }),
        Case::new("copying and ordering 500 containers", move || {
            Snapshot::new(unordered.clone(), ServerFigures::default())
        }),
        Case::new("encoding nothing but the server", {
            let none = snapshot(0);
            move || encoded(&none, Format::Text)
        }),
        Case::new("encoding 1 container as text", move || encoded(&small, Format::Text)),
        Case::new("encoding 500 containers as text", move || encoded(&large, Format::Text)),
        Case::new("encoding 500 containers as OpenMetrics", move || encoded(&same, Format::OpenMetrics)),
    ]
}

fn snapshot(instances: u64) -> Snapshot {
    let server = ServerFigures { uptime: Some(Duration::from_millis(1_234_567)), ..ServerFigures::default() };
    Snapshot::new((0..instances).map(instance).collect(), server)
}

fn instance(number: u64) -> InstanceFigures {
    InstanceFigures {
        project: "lxc".to_owned(),
        name: format!("container-{number}"),
        instance_type: InstanceType::Container,
        figures: figures(number),
    }
}

/// The figures that the recorded host's containers have, with values of a container that has been up for days.
fn figures(number: u64) -> Figures {
    let time = |share: u64| Duration::from_nanos(71_998_008_123 * (number + share));
    let cpu = |cpu| {
        CpuTimes::new(cpu)
            .with(CpuMode::User, time(u64::from(cpu)))
            .with(CpuMode::System, time(u64::from(cpu) + 3))
    };
    let traffic = |share: u64| Traffic {
        bytes: Some(268_467_753 * (number + share)),
        packets: Some(9_547 * (number + share)),
        errs: Some(0),
        drop: Some(number % 3),
    };
    let interface = |device: &str, share: u64| Interface {
        device: device.to_owned(),
        receive: traffic(share),
        transmit: traffic(share + 1),
    };
    Figures {
        boot_time_seconds: Some(1_795_295_885.76 + number as f64),
        cpus: vec![cpu(0), cpu(1)],
        cpu_effective: Some(2),
        throttling: Throttling {
            periods: Some(12_345 * number),
            throttled_periods: Some(number),
            throttled_time: Some(time(1)),
        },
        cpu_limit_cores: Some(1.5),
        disks: vec![Disk {
            device: "vda".to_owned(),
            read_bytes: Some(2_097_152 * number),
            reads_completed: Some(32 * number),
            written_bytes: Some(2_142_208 * number),
            writes_completed: Some(13 * number),
            ..Disk::default()
        }],
        filesystems: vec![Filesystem {
            device: "/dev/vda".to_owned(),
            fstype: "ext4".to_owned(),
            mountpoint: "/".to_owned(),
            size_bytes: Some(25_276_502_016),
            free_bytes: Some(15_272_958_976),
            avail_bytes: Some(14_755_437_568),
            files: Some(6_553_600),
            files_free: Some(6_012_345),
            sharing: Sharing::Shared,
        }],
        memory: memory(number),
        interfaces: vec![interface("eth0", 1), interface("lo", 2)],
        procs: Some(17 + number),
        time_seconds: Some(1_795_300_000.123_456 + number as f64 / 7.0),
        info: Some(Info { runtime: "lxc".to_owned(), source: "cgroup1", id: format!("container-{number}") }),
        scrape: Some(Scrape { success: true, duration: Duration::from_nanos(212_345 + number) }),
        ..Figures::default()
    }
}

fn memory(number: u64) -> Memory {
    let bytes = |share: u64| Some(4096 * (number * 257 + share));
    Memory {
        active_anon: bytes(2),
        active_file: bytes(30),
        active: bytes(32),
        inactive_anon: bytes(283),
        inactive_file: bytes(512),
        inactive: bytes(795),
        unevictable: Some(0),
        cached: bytes(769),
        dirty: Some(0),
        writeback: Some(0),
        mapped: bytes(12),
        shmem: bytes(257),
        rss: bytes(28),
        mem_total: Some(25_276_502_016),
        mem_free: Some(25_272_958_976),
        mem_available: Some(24_755_437_568),
        oom_kills: Some(0),
        swap: Some(0),
        usage: bytes(865),
        peak: bytes(1_050),
        working_set: bytes(353),
        major_faults: Some(number),
        ..Memory::default()
    }
}

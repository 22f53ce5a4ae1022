//! What is read has to come out as an exposition that a strict reader takes.

use std::time::Duration;

use miharu_metrics::figures::{
    CpuMode, CpuTimes, Disk, Filesystem, Gpu, Info, Interface, Scrape, Sharing, Traffic,
};
use miharu_metrics::server::Runtime;
use miharu_metrics::{
    Figures, Format, InstanceFigures, InstanceType, Prefix, Scope, ServerFigures, Snapshot, encode,
};

use crate::cursor::Cursor;
use crate::exposition::Exposition;

/// Figures of an instance, as they would be served.
pub(crate) fn check(figures: impl IntoIterator<Item = Figures>) {
    for figures in figures {
        let mut sums = figures.clone();
        sums.sum_cpus();
        for figures in [figures, sums] {
            served(vec![("u1".to_owned(), "lxc".to_owned(), figures)], ServerFigures::default());
        }
    }
}

/// What a daemon tells, as it would be served.
pub(crate) fn check_runtime(runtime: Runtime) {
    served(Vec::new(), ServerFigures { runtimes: vec![runtime], ..ServerFigures::default() });
}

/// Any figures at all.
pub(crate) fn encoder(bytes: &[u8]) {
    let mut cursor = Cursor(bytes);
    let mut instances = Vec::new();
    while !cursor.is_empty() && instances.len() < 3 {
        instances.push((cursor.text(), cursor.text(), figures(&mut cursor)));
    }
    served(instances, ServerFigures::default());
}

fn served(instances: Vec<(String, String, Figures)>, server: ServerFigures) {
    let names: Vec<(String, String)> =
        instances.iter().map(|(name, project, _)| (name.clone(), project.clone())).collect();
    let instance_type = InstanceType::Container;
    let instances = instances.into_iter().map(|(name, project, figures)| InstanceFigures {
        project,
        name,
        instance_type,
        figures,
    });
    let snapshot = Snapshot::new(instances.collect(), server);
    let text = encode(&snapshot, Format::Text, Prefix::Incus, &Scope::all());
    let text = String::from_utf8_lossy(&text);
    let read = Exposition::parse(&text);
    assert!(read.is_ok(), "{:?}\n{text}", read.err());
    for sample in read.iter().flat_map(Exposition::samples) {
        // No label may make another one, or an instance that there is none of.
        let is_unlimited = sample.name == "incus_project_limit" && sample.value == -1.0;
        assert!(sample.value >= 0.0 || is_unlimited, "negative: {sample:?}");
        if let Some(name) = sample.labels.get("name") {
            let whose = (name.clone(), sample.label("project").to_owned());
            assert!(names.contains(&whose), "of nobody: {sample:?}");
        }
    }
    let strict = encode(&snapshot, Format::OpenMetrics, Prefix::Lxd, &Scope::all());
    let samples =
        |text: &[u8]| text.split(|b| *b == b'\n').filter(|l| !l.is_empty() && !l.starts_with(b"#")).count();
    assert_eq!(samples(&strict), samples(text.as_bytes()), "the two forms differ");
}

fn figures(cursor: &mut Cursor<'_>) -> Figures {
    let mut figures = Figures {
        boot_time_seconds: cursor.some(real),
        cpu_effective: cursor.some(Cursor::number),
        cpu_limit_cores: cursor.some(real),
        procs: cursor.some(Cursor::number),
        info: cursor.some(|cursor| Info { runtime: cursor.text(), source: "cgroup", id: cursor.text() }),
        scrape: cursor.some(|cursor| Scrape { success: cursor.byte() > 9, duration: time(cursor) }),
        ..Figures::default()
    };
    for _ in 0..cursor.byte() % 8 {
        match cursor.byte() % 5 {
            0 => {
                let mode =
                    CpuMode::ALL.into_iter().cycle().nth(usize::from(cursor.byte())).unwrap_or(CpuMode::User);
                let number = u32::from(cursor.byte());
                let times = CpuTimes::new(number).with(mode, time(cursor)).with(CpuMode::Idle, time(cursor));
                figures.cpus.push(times);
            }
            1 => figures.disks.push(Disk {
                device: cursor.text(),
                read_bytes: cursor.some(Cursor::number),
                written_bytes: cursor.some(Cursor::number),
                read_time: cursor.some(time),
                ..Disk::default()
            }),
            2 => figures.filesystems.push(Filesystem {
                device: cursor.text(),
                fstype: cursor.text(),
                mountpoint: cursor.text(),
                size_bytes: cursor.some(Cursor::number),
                free_bytes: cursor.some(Cursor::number),
                sharing: if cursor.byte().is_multiple_of(2) { Sharing::Own } else { Sharing::Shared },
                ..Filesystem::default()
            }),
            3 => figures.interfaces.push(Interface {
                device: cursor.text(),
                receive: Traffic { bytes: cursor.some(Cursor::number), ..Traffic::default() },
                transmit: Traffic { drop: cursor.some(Cursor::number), ..Traffic::default() },
            }),
            _ => figures.gpus.push(Gpu {
                gpu: cursor.text(),
                utilization: cursor.some(real),
                memory_used_bytes: cursor.some(Cursor::number),
            }),
        }
    }
    figures.memory.usage = cursor.some(Cursor::number);
    figures.pressure.io_waiting = cursor.some(time);
    figures
}

/// Real numbers as readers give them out: none is negative.
fn real(cursor: &mut Cursor<'_>) -> f64 {
    match cursor.byte() {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => f64::MIN_POSITIVE,
        3 => f64::MAX,
        scale => Duration::from_nanos(cursor.number()).as_secs_f64() / f64::from(scale),
    }
}

fn time(cursor: &mut Cursor<'_>) -> Duration {
    if cursor.byte().is_multiple_of(16) { Duration::MAX } else { Duration::from_nanos(cursor.number()) }
}

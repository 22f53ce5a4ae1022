//! Whole expositions of made-up figures: every family has a producer, order and escaping hold, nothing shows twice.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use expect_test::expect;
use miharu_metrics::figures::{
    CpuMode, CpuTimes, Disk, Figures, Filesystem, Gpu, Hypervisor, Info, Interface, Memory, Pressure, Scrape,
    Sharing, Throttling, Traffic,
};
use miharu_metrics::reference::TABLES;
use miharu_metrics::server::{
    ApiRequests, CertificateEnd, Limit, Process, Project, Resource, Runtime, StoragePool,
};
use miharu_metrics::{
    FAMILIES, FamilySet, Format, InstanceFigures, InstanceType, Prefix, Scope, ServerFigures, ServerWide,
    Snapshot, encode,
};

fn second(n: u64) -> Option<Duration> {
    Some(Duration::from_millis(n * 1000 + 500))
}

/// An instance of which everything is known.
fn complete(project: &str, name: &str) -> InstanceFigures {
    let traffic = Traffic { bytes: Some(1), packets: Some(2), errs: Some(3), drop: Some(4) };
    let figures = Figures {
        boot_time_seconds: Some(1_700_000_000.25),
        cpus: vec![
            CpuTimes::new(10).with(CpuMode::User, Duration::from_nanos(1_500_000_000)),
            CpuTimes::new(2)
                .with(CpuMode::User, Duration::ZERO)
                .with(CpuMode::System, Duration::from_secs(3)),
        ],
        cpu_effective: Some(2),
        throttling: Throttling { periods: Some(9), throttled_periods: Some(1), throttled_time: second(0) },
        cpu_limit_cores: Some(0.5),
        disks: vec![Disk {
            device: "vda".into(),
            read_bytes: Some(4096),
            reads_completed: Some(1),
            written_bytes: Some(8192),
            writes_completed: Some(2),
            read_time: second(1),
            write_time: second(2),
        }],
        filesystems: vec![Filesystem {
            device: "/dev/vda".into(),
            fstype: "ext4".into(),
            mountpoint: "/".into(),
            size_bytes: Some(100),
            free_bytes: Some(50),
            avail_bytes: Some(40),
            files: Some(10),
            files_free: Some(5),
            sharing: Sharing::Shared,
        }],
        memory: Memory {
            active_anon: Some(1),
            active_file: Some(2),
            active: Some(3),
            inactive_anon: Some(4),
            inactive_file: Some(5),
            inactive: Some(9),
            unevictable: Some(6),
            cached: Some(7),
            dirty: Some(8),
            writeback: Some(9),
            mapped: Some(10),
            shmem: Some(11),
            sreclaimable: Some(12),
            rss: Some(13),
            hugepages_free: Some(14),
            hugepages_total: Some(15),
            mem_total: Some(25_276_510_208),
            mem_free: Some(17),
            mem_available: Some(18),
            oom_kills: Some(0),
            swap: Some(20),
            usage: Some(21),
            peak: Some(22),
            working_set: Some(23),
            major_faults: Some(24),
        },
        interfaces: vec![Interface { device: "eth0".into(), receive: traffic, transmit: traffic }],
        procs: Some(3),
        time_seconds: Some(1_700_000_100.0),
        pressure: Pressure {
            cpu_waiting: second(1),
            memory_waiting: second(2),
            memory_stalled: second(3),
            io_waiting: second(4),
            io_stalled: second(5),
        },
        hypervisor: Hypervisor { rss: Some(1), swap: Some(2) },
        gpus: vec![Gpu { gpu: "GPU-1".into(), utilization: Some(0.25), memory_used_bytes: Some(9) }],
        info: Some(Info { runtime: "lxc".into(), source: "cgroup2", id: "u1".into() }),
        scrape: Some(Scrape { success: true, duration: Duration::from_micros(80) }),
    };
    InstanceFigures {
        project: project.into(),
        name: name.into(),
        instance_type: InstanceType::Container,
        figures,
    }
}

fn server() -> ServerFigures {
    ServerFigures {
        uptime: second(60),
        operations: Some(0),
        warnings: Some(1),
        cluster_sync_age: Some(Duration::from_millis(1_500)),
        certificates: vec![CertificateEnd { certificate: "server", end_seconds: 2_000_000_000 }],
        api_requests: vec![ApiRequests { entity_type: "server", succeeded: 5, ..ApiRequests::default() }],
        collect_duration: Some(Duration::from_millis(1)),
        collect_timestamp_seconds: Some(1_700_000_100.5),
        process: Process {
            cpu: second(1),
            max_fds: Some(1024),
            open_fds: Some(12),
            resident_memory_bytes: Some(1 << 20),
            start_time_seconds: Some(1_700_000_000.0),
            virtual_memory_bytes: Some(1 << 30),
        },
        runtimes: vec![runtime("incus", None), runtime("lxd", Some("/var/lib/lxd"))],
    }
}

/// A daemon with the project and the pool that every one has.
fn runtime(runtime: &'static str, server: Option<&str>) -> Runtime {
    let resource = |limit| Resource { limit, usage: Some(2) };
    let project = Project {
        name: "default".into(),
        counts: [("images".to_owned(), 1)].into(),
        resources: [
            ("cpu".to_owned(), resource(Limit::At(8))),
            ("memory".to_owned(), resource(Limit::Unlimited)),
        ]
        .into(),
    };
    let pool = StoragePool {
        name: "default".into(),
        driver: "dir".into(),
        size_bytes: Some(u64::MAX),
        used_bytes: Some(3),
    };
    Runtime {
        runtime,
        server: server.map(str::to_owned),
        age: Duration::from_millis(1500),
        projects: vec![project],
        pools: vec![pool],
    }
}

fn text(snapshot: &Snapshot, format: Format, scope: &Scope) -> String {
    String::from_utf8(encode(snapshot, format, Prefix::Incus, scope)).unwrap()
}

fn families(exposition: &str) -> Vec<&str> {
    exposition.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[test]
fn every_family_has_a_producer_and_its_place() {
    let snapshot = Snapshot::new(vec![complete("default", "c1")], server());
    let expected: Vec<_> = FAMILIES.iter().map(|f| f.name(Prefix::Incus)).collect();
    assert_eq!(families(&text(&snapshot, Format::Text, &Scope::all())), expected);
    let expected: Vec<_> = FAMILIES.iter().map(|f| f.openmetrics_name(Prefix::Incus)).collect();
    assert_eq!(families(&text(&snapshot, Format::OpenMetrics, &Scope::all())), expected);
}

/// What the reference page says of labels is what is served; each label has a value in these figures.
#[test]
fn labels_are_those_of_the_reference() {
    let snapshot = Snapshot::new(vec![complete("default", "c1")], server());
    let served = text(&snapshot, Format::Text, &Scope::all());
    for row in TABLES.iter().flat_map(|table| table.rows) {
        let family = FAMILIES.iter().find(|family| family.bare_name() == row.family).unwrap();
        let samples: Vec<&str> = served
            .lines()
            .filter_map(|line| line.strip_prefix(&family.name(Prefix::Incus)))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .collect();
        assert!(!samples.is_empty(), "{}", row.family);
        let labels: BTreeSet<&str> = samples
            .iter()
            .filter_map(|rest| rest.strip_prefix('{')?.split_once('}'))
            .flat_map(|(labels, _)| labels.split(',').filter_map(|label| label.split('=').next()))
            // A second daemon's series carry it; the page says so.
            .filter(|label| *label != "server" || row.labels.contains(label))
            .collect();
        let mut told: BTreeSet<&str> = row.labels.iter().copied().collect();
        match (row.family, family.is_of_instances()) {
            ("instances_running", _) => told.extend(["project", "type"]),
            (_, true) => told.extend(["name", "project", "type"]),
            (_, false) => {}
        }
        assert_eq!(labels, told, "{}: served on the left, the reference on the right", row.family);
    }
}

#[test]
fn what_is_not_known_is_not_mentioned() {
    let empty = InstanceFigures {
        project: "lxc".into(),
        name: "u1".into(),
        instance_type: InstanceType::Container,
        figures: Figures::default(),
    };
    let snapshot = Snapshot::new(vec![empty], ServerFigures::default());
    expect![[r##"
        # HELP incus_instances_running Running instances.
        # TYPE incus_instances_running gauge
        incus_instances_running{project="lxc",type="container"} 1
        # EOF
    "##]]
    .assert_eq(&text(&snapshot, Format::Text, &Scope::all()));
}

#[test]
fn series_are_ordered_and_labels_alphabetical() {
    let snapshot = Snapshot::new(vec![complete("default", "c2"), complete("default", "c1")], server());
    let exposition = text(&snapshot, Format::OpenMetrics, &Scope::all());
    let of = |family: &str| {
        let lines = exposition.lines().filter(|l| l.contains(family)).map(|l| format!("{l}\n"));
        lines.collect::<String>()
    };
    expect![[r##"
        # HELP incus_cpu_seconds CPU time by mode; idle, iowait and steal are not time used.
        # TYPE incus_cpu_seconds counter
        # UNIT incus_cpu_seconds seconds
        incus_cpu_seconds_total{cpu="2",mode="system",name="c1",project="default",type="container"} 3
        incus_cpu_seconds_total{cpu="2",mode="user",name="c1",project="default",type="container"} 0
        incus_cpu_seconds_total{cpu="10",mode="user",name="c1",project="default",type="container"} 1.5
        incus_cpu_seconds_total{cpu="2",mode="system",name="c2",project="default",type="container"} 3
        incus_cpu_seconds_total{cpu="2",mode="user",name="c2",project="default",type="container"} 0
        incus_cpu_seconds_total{cpu="10",mode="user",name="c2",project="default",type="container"} 1.5
    "##]]
    .assert_eq(&of("incus_cpu_seconds"));
    expect![[r##"
        # HELP incus_instance_info What runs the instance and where its figures come from, always 1.
        # TYPE incus_instance_info gauge
        incus_instance_info{id="u1",name="c1",project="default",runtime="lxc",source="cgroup2",type="container"} 1
        incus_instance_info{id="u1",name="c2",project="default",runtime="lxc",source="cgroup2",type="container"} 1
    "##]]
    .assert_eq(&of("incus_instance_info"));
}

#[test]
fn two_daemons_of_a_host_have_series_of_their_own() {
    let exposition = text(&Snapshot::new(Vec::new(), server()), Format::Text, &Scope::all());
    let of_daemons = |line: &&str| {
        ["incus_project_", "incus_storage_pool_", "incus_runtime_"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    expect![[r#"
        incus_project_resources_total{project="default",resource="images"} 1
        incus_project_resources_total{project="default",resource="images",server="/var/lib/lxd"} 1
        incus_project_limit{project="default",resource="cpu"} 8
        incus_project_limit{project="default",resource="memory"} -1
        incus_project_limit{project="default",resource="cpu",server="/var/lib/lxd"} 8
        incus_project_limit{project="default",resource="memory",server="/var/lib/lxd"} -1
        incus_project_usage{project="default",resource="cpu"} 2
        incus_project_usage{project="default",resource="memory"} 2
        incus_project_usage{project="default",resource="cpu",server="/var/lib/lxd"} 2
        incus_project_usage{project="default",resource="memory",server="/var/lib/lxd"} 2
        incus_storage_pool_size_bytes{driver="dir",pool="default"} 18446744073709551615
        incus_storage_pool_size_bytes{driver="dir",pool="default",server="/var/lib/lxd"} 18446744073709551615
        incus_storage_pool_used_bytes{driver="dir",pool="default"} 3
        incus_storage_pool_used_bytes{driver="dir",pool="default",server="/var/lib/lxd"} 3
        incus_runtime_age_seconds{runtime="incus"} 1.5
        incus_runtime_age_seconds{runtime="lxd",server="/var/lib/lxd"} 1.5
    "#]]
    .assert_eq(&exposition.lines().filter(of_daemons).map(|l| format!("{l}\n")).collect::<String>());
}

#[test]
fn hostile_names_forge_nothing() {
    let mut instance = complete("default", "c1");
    for interface in &mut instance.figures.interfaces {
        interface.device = "x\",name=\"other\"} 1\nincus_procs_total{name=\"c2".into();
    }
    for fs in &mut instance.figures.filesystems {
        fs.mountpoint = "/a\\b\"c\nd".into();
    }
    let exposition = text(&Snapshot::new(vec![instance], server()), Format::Text, &Scope::all());
    assert!(
        exposition.contains(r#"{device="x\",name=\"other\"} 1\nincus_procs_total{name=\"c2",name="c1","#)
    );
    assert!(exposition.contains(r#"mountpoint="/a\\b\"c\nd","#));
    assert_eq!(exposition.lines().filter(|l| l.starts_with("incus_procs_total{")).count(), 1);
}

#[test]
fn nothing_is_written_twice() {
    let mut instance = complete("default", "c1");
    let figures = &mut instance.figures;
    figures.interfaces.extend(figures.interfaces.clone());
    figures.disks.extend(figures.disks.clone());
    figures.cpus.extend(figures.cpus.clone());
    figures.filesystems.extend(figures.filesystems.clone());
    assert_eq!(figures.clone().normalise(), 5, "a disk, an interface, a file system and two CPUs");
    let snapshot = Snapshot::new(vec![instance.clone(), instance], server());
    let exposition = text(&snapshot, Format::Text, &Scope::all());
    let series: Vec<_> = exposition
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| Some(l.rsplit_once(' ')?.0))
        .collect();
    assert_eq!(series.len(), series.iter().collect::<BTreeSet<_>>().len());
}

#[test]
fn a_reader_sees_only_its_projects() {
    let snapshot = Snapshot::new(vec![complete("default", "c1"), complete("shop", "c1")], server());
    let scope = Scope {
        projects: Some(BTreeSet::from(["shop".to_owned()])),
        server_wide: ServerWide::LeftOut,
        ..Scope::all()
    };
    let exposition = text(&snapshot, Format::Text, &scope);
    assert!(exposition.lines().filter(|l| !l.starts_with('#')).all(|l| l.contains("project=\"shop\"")));
    assert!(exposition.contains("incus_instances_running{project=\"shop\",type=\"container\"} 1"));
    let nothing = Scope { projects: Some(BTreeSet::new()), server_wide: ServerWide::LeftOut, ..Scope::all() };
    assert_eq!(text(&snapshot, Format::Text, &nothing), "# EOF\n");
}

#[test]
fn all_cpus_together_are_one_series_a_mode() {
    let mut instance = complete("default", "c1");
    instance.figures.sum_cpus();
    let exposition = text(&Snapshot::new(vec![instance], server()), Format::Text, &Scope::all());
    let of_cpu = exposition.lines().filter(|l| l.starts_with("incus_cpu_seconds_total"));
    expect![[r##"
        incus_cpu_seconds_total{mode="system",name="c1",project="default",type="container"} 3
        incus_cpu_seconds_total{mode="user",name="c1",project="default",type="container"} 1.5
    "##]]
    .assert_eq(&of_cpu.map(|l| format!("{l}\n")).collect::<String>());
    let mut of_no_cpu = Figures::default();
    of_no_cpu.sum_cpus();
    assert_eq!(of_no_cpu, Figures::default(), "what is not known does not become 0");
}

#[test]
fn an_excluded_family_is_not_mentioned_and_takes_no_other_with_it() {
    let snapshot = Snapshot::new(vec![complete("default", "c1")], server());
    let gone = |name: &str| name.starts_with("process_") || name.starts_with("incus_pressure_");
    let scope = Scope { families: FamilySet::all().without(gone), ..Scope::all() };
    for format in [Format::Text, Format::OpenMetrics] {
        let whole = text(&snapshot, format, &Scope::all());
        let expected: String = whole
            .lines()
            .filter(|l| !l.contains("process_") && !l.contains("incus_pressure_"))
            .map(|l| format!("{l}\n"))
            .collect();
        assert!(expected.len() < whole.len());
        assert_eq!(text(&snapshot, format, &scope), expected);
    }
    let nothing = Scope { families: FamilySet::all().without(|_| true), ..Scope::all() };
    assert_eq!(text(&snapshot, Format::Text, &nothing), "# EOF\n");
}

#[test]
fn the_prefix_is_the_servers_choice() {
    let snapshot = Snapshot::new(vec![complete("default", "c1")], server());
    let exposition = String::from_utf8(encode(&snapshot, Format::Text, Prefix::Lxd, &Scope::all())).unwrap();
    assert!(exposition.contains("\nlxd_procs_total{") && !exposition.contains("incus_"));
    assert!(exposition.contains("\nprocess_open_fds 12\n"));
}

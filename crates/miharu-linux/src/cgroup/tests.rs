//! Whole trees, as a v1, a v2 and a hybrid host have them.

use std::fs;
use std::path::Path;

use super::parse::device_number;
use super::*;
use crate::host::HugePages;
use crate::roots::Roots;

const MIB: u64 = 1 << 20;

struct Tree {
    base: tempfile::TempDir,
    host: HostFacts,
    ancestors: Ancestors,
    kept: Kept,
}

impl Tree {
    /// A tree of `(cgroup, [(file, text)])`; every cgroup has its `cgroup.procs`.
    fn new(cgroups: &[(&str, &[(&str, &str)])]) -> Self {
        let host = HostFacts {
            mem_total: Some(4096 * MIB),
            mem_available: Some(3000 * MIB),
            huge_pages: vec![HugePages { page_size: 2 * MIB, pages: 64 }],
            ..HostFacts::default()
        };
        let tree = Self {
            base: tempfile::tempdir().unwrap(),
            host,
            ancestors: Ancestors::default(),
            kept: Kept::default(),
        };
        for (cgroup, files) in cgroups {
            tree.put(cgroup, "cgroup.procs", "");
            files.iter().for_each(|(name, text)| tree.put(cgroup, name, text));
        }
        tree
    }

    fn put(&self, cgroup: &str, name: &str, text: &str) {
        let directory = Roots::at(self.base.path()).cgroup.join(cgroup);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), text).unwrap();
    }

    fn read(&mut self, paths: &CgroupPaths) -> Result<Figures> {
        self.read_parts(paths, Parts::all())
    }

    fn read_parts(&mut self, paths: &CgroupPaths, parts: Parts) -> Result<Figures> {
        let hierarchies = Hierarchies::find(&Roots::at(self.base.path())).unwrap();
        let Self { host, ancestors, kept, .. } = self;
        read(&hierarchies, paths, host, parts, ancestors, kept, &mut Buffer::new())
    }
}

fn unified(path: &str) -> CgroupPaths {
    CgroupPaths { unified: Some(path.into()), ..CgroupPaths::default() }
}

fn v1(controllers: &[&str], path: &str) -> CgroupPaths {
    let v1 = controllers.iter().map(|controller| ((*controller).to_owned(), path.into())).collect();
    CgroupPaths { v1, unified: None }
}

fn mib(n: u64) -> String {
    format!("{}\n", n * MIB)
}

/// `anon`, `file`, `shmem`, `slab_reclaimable` and `inactive_file` of v2, in MiB.
fn stat(anon: u64, file: u64, shmem: u64, slab: u64, inactive_file: u64) -> String {
    let [anon, file, shmem, slab, inactive] = [anon, file, shmem, slab, inactive_file].map(mib);
    format!("anon {anon}file {file}shmem {shmem}slab_reclaimable {slab}inactive_file {inactive}")
}

#[test]
fn v2_limits_of_ancestors_count() {
    let mut tree = Tree::new(&[
        ("", &[("cgroup.controllers", "cpu memory\n"), ("cpuset.cpus.effective", "0-7\n")]),
        (
            "user.slice",
            &[
                ("memory.max", &mib(512)),
                ("memory.current", &mib(500)),
                ("memory.stat", &stat(400, 80, 10, 5, 60)),
                ("cpu.max", "150000 100000\n"),
                ("cpuset.cpus.effective", "0-3\n"),
            ],
        ),
        (
            "user.slice/lxc.payload.c1",
            &[
                ("memory.max", "max\n"),
                ("memory.current", &mib(100)),
                ("memory.peak", &mib(120)),
                ("memory.swap.current", "0\n"),
                ("memory.events", "oom 0\noom_kill 2\n"),
                ("memory.stat", &stat(60, 30, 0, 2, 20)),
                ("cpu.max", "max 100000\n"),
                ("cpu.stat", "usage_usec 3\nuser_usec 2\nsystem_usec 1\n"),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
                ("pids.current", "5\n"),
                ("memory.pressure", "some total=7\nfull total=6\n"),
            ],
        ),
    ]);
    let figures = tree.read(&unified("user.slice/lxc.payload.c1")).unwrap();
    assert!(figures.problems.is_empty(), "{:?}", figures.problems);
    let memory = &figures.memory;
    assert_eq!(memory.limit, Some(Limit::Value(512 * MIB)));
    assert_eq!((memory.total, memory.free), (Some(512 * MIB), Some(412 * MIB)));
    // 512 − 500 + (80 − 10 + 5) of the slice; the container itself has no limit.
    assert_eq!(memory.available, Some(87 * MIB));
    assert_eq!((memory.usage, memory.working_set), (Some(100 * MIB), Some(80 * MIB)));
    assert_eq!((memory.peak, memory.swap, memory.oom_kills), (Some(120 * MIB), Some(0), Some(2)));
    assert_eq!((memory.hugetlb_total, memory.hugetlb_free), (None, None));
    assert_eq!((figures.limit_cores, figures.cpus_effective), (Some(1.5), Some(4)));
    assert_eq!(figures.cpu_times, [CpuTime { cpu: 0, user_ns: 2000, system_ns: 1000 }]);
    assert_eq!((figures.throttling, figures.tasks, figures.io.len()), (None, Some(5), 1));
    let pressure = Pressure { memory_waiting_us: Some(7), memory_stalled_us: Some(6), ..Pressure::default() };
    assert_eq!(figures.pressure, pressure);
}

/// What a part's figures are, to compare them.
fn of_part(part: Part, figures: &Figures) -> String {
    let Figures { memory, pressure, .. } = figures;
    match part {
        Part::Cpu => format!("{:?}", figures.cpu_times),
        Part::Throttling => format!("{:?}", figures.throttling),
        Part::CpuLimit => format!("{:?}", figures.limit_cores),
        Part::CpusEffective => format!("{:?}", figures.cpus_effective),
        Part::Memory => format!("{:?}", (memory.usage, memory.working_set, memory.available, memory.anon)),
        Part::Swap => format!("{:?}", memory.swap),
        Part::MemoryPeak => format!("{:?}", memory.peak),
        Part::OomKills => format!("{:?}", memory.oom_kills),
        Part::Hugetlb => format!("{:?}", (memory.hugetlb_total, memory.hugetlb_free)),
        Part::Io => format!("{:?}", figures.io),
        Part::Tasks => format!("{:?}", figures.tasks),
        Part::PressureCpu => format!("{:?}", pressure.cpu_waiting_us),
        Part::PressureMemory => format!("{:?}", (pressure.memory_waiting_us, pressure.memory_stalled_us)),
        Part::PressureIo => format!("{:?}", (pressure.io_waiting_us, pressure.io_stalled_us)),
    }
}

/// Each part read alone says the same as among all, and reads no file of which only others are made.
fn each_part_alone(tree: &mut Tree, paths: &CgroupPaths, cgroups: &[&str], files: &[(Part, &[&str])]) {
    let all = tree.read(paths).unwrap();
    assert!(all.problems.is_empty(), "{:?}", all.problems);
    let nothing = Figures::default();
    assert_eq!(files.iter().map(|(part, _)| *part).collect::<Vec<_>>(), Part::ALL);
    for (part, of_it) in files {
        let only = tree.read_parts(paths, Parts::of(|one| one == *part)).unwrap();
        assert_eq!(of_part(*part, &only), of_part(*part, &all), "{part:?}");
        assert_ne!(of_part(*part, &only), of_part(*part, &nothing), "{part:?}");
        for (other, of_other) in files {
            if of_other.iter().all(|file| !of_it.contains(file)) {
                assert_eq!(of_part(*other, &only), of_part(*other, &nothing), "{other:?} beside {part:?}");
            }
        }
    }
    // A link to itself in the place of a file cannot be opened: whoever tries has a problem.
    let away = |path: &Path| PathBuf::from(format!("{}.away", path.display()));
    for (part, of_it) in files {
        let root = Roots::at(tree.base.path()).cgroup;
        let places = cgroups.iter().flat_map(|cgroup| {
            let root = root.join(cgroup);
            of_it.iter().map(move |file| root.join(file))
        });
        let moved: Vec<_> = places.filter(|path| path.exists()).collect();
        assert!(!moved.is_empty(), "{part:?}");
        for path in &moved {
            fs::rename(path, away(path)).unwrap();
            std::os::unix::fs::symlink(path, path).unwrap();
        }
        let shares = |one: Part| {
            files
                .iter()
                .any(|(other, theirs)| *other == one && theirs.iter().any(|file| of_it.contains(file)))
        };
        let without = tree.read_parts(paths, Parts::of(|one| !shares(one))).unwrap();
        assert!(without.problems.is_empty(), "{part:?}: {:?}", without.problems);
        assert!(!tree.read(paths).unwrap().problems.is_empty(), "{part:?}");
        for path in &moved {
            fs::remove_file(path).unwrap();
            fs::rename(away(path), path).unwrap();
        }
    }
}

#[test]
fn v2_reads_no_file_that_nobody_wants() {
    let stalls = "some total=7\nfull total=6\n";
    let cpu_stat = "user_usec 2\nsystem_usec 1\nnr_periods 5\nnr_throttled 4\nthrottled_usec 3\n";
    let mut tree = Tree::new(&[
        ("", &[("cgroup.controllers", "cpu memory\n")]),
        (
            "c",
            &[
                ("memory.max", &mib(512)),
                ("memory.current", &mib(100)),
                ("memory.peak", &mib(120)),
                ("memory.swap.current", "0\n"),
                ("memory.events", "oom_kill 2\n"),
                ("memory.stat", &stat(60, 30, 0, 2, 20)),
                ("hugetlb.2MB.max", &mib(64)),
                ("hugetlb.2MB.current", &mib(2)),
                ("cpu.max", "150000 100000\n"),
                ("cpu.stat", cpu_stat),
                ("cpuset.cpus.effective", "0-3\n"),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
                ("pids.current", "5\n"),
                ("cpu.pressure", stalls),
                ("memory.pressure", stalls),
                ("io.pressure", stalls),
            ],
        ),
    ]);
    let files: [(Part, &[&str]); 14] = [
        (Part::Cpu, &["cpu.stat"]),
        (Part::Throttling, &["cpu.stat"]),
        (Part::CpuLimit, &["cpu.max"]),
        (Part::CpusEffective, &["cpuset.cpus.effective"]),
        (Part::Memory, &["memory.stat", "memory.current", "memory.max"]),
        (Part::Swap, &["memory.swap.current"]),
        (Part::MemoryPeak, &["memory.peak"]),
        (Part::OomKills, &["memory.events"]),
        (Part::Hugetlb, &["hugetlb.2MB.max", "hugetlb.2MB.current"]),
        (Part::Io, &["io.stat"]),
        (Part::Tasks, &["pids.current"]),
        (Part::PressureCpu, &["cpu.pressure"]),
        (Part::PressureMemory, &["memory.pressure"]),
        (Part::PressureIo, &["io.pressure"]),
    ];
    each_part_alone(&mut tree, &unified("c"), &["c"], &files);
}

#[test]
fn v1_reads_no_file_that_nobody_wants() {
    let stalls = "some total=7\nfull total=6\n";
    let usage = "cpu user system\n0 10 20\n1 30 40\n";
    let cpu_stat = "nr_periods 5\nnr_throttled 4\nthrottled_time 3\n";
    let memory_stat = format!(
        "hierarchical_memory_limit {}total_cache {}total_rss {}total_swap {}total_inactive_file {}",
        mib(512),
        mib(30),
        mib(60),
        mib(1),
        mib(20)
    );
    let bytes = "8:0 Read 1\n8:0 Write 2\nTotal 3\n";
    let controllers = ["cpu", "cpuacct", "cpuset", "memory", "hugetlb", "blkio", "pids"];
    let mut tree = Tree::new(&[]);
    for controller in controllers {
        tree.put(controller, "cgroup.procs", "");
    }
    for (cgroup, name, text) in [
        ("unified", "cgroup.controllers", String::new()),
        ("unified/c", "cpu.pressure", stalls.to_owned()),
        ("unified/c", "memory.pressure", stalls.to_owned()),
        ("unified/c", "io.pressure", stalls.to_owned()),
        ("cpuacct/c", "cpuacct.usage_all", usage.to_owned()),
        ("cpu/c", "cpu.stat", cpu_stat.to_owned()),
        ("cpu/c", "cpu.cfs_quota_us", "50000\n".to_owned()),
        ("cpu/c", "cpu.cfs_period_us", "100000\n".to_owned()),
        ("cpuset/c", "cpuset.effective_cpus", "0-3\n".to_owned()),
        ("memory/c", "memory.stat", memory_stat),
        ("memory/c", "memory.usage_in_bytes", mib(100)),
        ("memory/c", "memory.max_usage_in_bytes", mib(120)),
        ("memory/c", "memory.limit_in_bytes", mib(512)),
        ("memory/c", "memory.oom_control", "oom_kill 2\n".to_owned()),
        ("hugetlb/c", "hugetlb.2MB.limit_in_bytes", mib(64)),
        ("hugetlb/c", "hugetlb.2MB.usage_in_bytes", mib(2)),
        ("blkio/c", "blkio.throttle.io_service_bytes_recursive", bytes.to_owned()),
        ("blkio/c", "blkio.throttle.io_serviced_recursive", bytes.to_owned()),
        ("pids/c", "pids.current", "5\n".to_owned()),
    ] {
        tree.put(cgroup, name, &text);
    }
    let files: [(Part, &[&str]); 14] = [
        (Part::Cpu, &["cpuacct.usage_all"]),
        (Part::Throttling, &["cpu.stat"]),
        (Part::CpuLimit, &["cpu.cfs_quota_us", "cpu.cfs_period_us"]),
        (Part::CpusEffective, &["cpuset.effective_cpus"]),
        (Part::Memory, &["memory.stat", "memory.usage_in_bytes", "memory.limit_in_bytes"]),
        (Part::Swap, &["memory.stat"]),
        (Part::MemoryPeak, &["memory.max_usage_in_bytes"]),
        (Part::OomKills, &["memory.oom_control"]),
        (Part::Hugetlb, &["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.usage_in_bytes"]),
        (Part::Io, &["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"]),
        (Part::Tasks, &["pids.current"]),
        (Part::PressureCpu, &["cpu.pressure"]),
        (Part::PressureMemory, &["memory.pressure"]),
        (Part::PressureIo, &["io.pressure"]),
    ];
    let paths = CgroupPaths { unified: Some("c".into()), ..v1(&controllers, "c") };
    let cgroups = controllers.map(|controller| format!("{controller}/c"));
    let mut cgroups: Vec<&str> = cgroups.iter().map(String::as_str).collect();
    cgroups.push("unified/c");
    each_part_alone(&mut tree, &paths, &cgroups, &files);
}

#[test]
fn v2_an_own_limit_below_the_parents() {
    let mut tree = Tree::new(&[
        ("", &[("cgroup.controllers", "")]),
        (
            "p",
            &[
                ("memory.max", &mib(512)),
                ("memory.current", &mib(100)),
                ("memory.stat", &stat(1, 0, 0, 0, 0)),
            ],
        ),
        (
            "p/c",
            &[("memory.max", &mib(64)), ("memory.current", &mib(70)), ("memory.stat", &stat(9, 5, 1, 1, 90))],
        ),
    ]);
    let memory = tree.read(&unified("p/c")).unwrap().memory;
    assert_eq!(memory.total, Some(64 * MIB));
    assert_eq!(memory.free, Some(0), "usage above the limit saturates");
    assert_eq!(memory.available, Some(0), "64 + 5 - 70 saturates");
    assert_eq!(memory.working_set, Some(0), "saturates");
}

#[test]
fn v2_without_any_limit_the_hosts_memory_is_the_bound() {
    let mut tree = Tree::new(&[
        ("", &[("cgroup.controllers", "")]),
        ("c", &[("memory.max", "max\n"), ("memory.current", &mib(1))]),
    ]);
    let memory = tree.read(&unified("c")).unwrap().memory;
    assert_eq!((memory.limit, memory.total), (Some(Limit::Max), Some(4096 * MIB)));
    assert_eq!((memory.free, memory.available), (Some(4095 * MIB), Some(3000 * MIB)));
}

#[test]
fn what_a_limit_leaves_is_absent_where_its_use_is_unknown() {
    let mut tree = Tree::new(&[
        ("", &[("cgroup.controllers", "")]),
        ("c", &[("memory.max", &mib(64)), ("memory.current", &mib(1)), ("memory.stat", "no figures\n")]),
    ]);
    let memory = tree.read(&unified("c")).unwrap().memory;
    assert_eq!((memory.total, memory.free), (Some(64 * MIB), Some(63 * MIB)));
    assert_eq!(memory.available, None, "not the host's 3,000 MiB");
}

#[test]
fn v2_huge_pages_within_the_pool_and_the_parents_limit() {
    let mut tree = Tree::new(&[
        ("", &[("cgroup.controllers", "hugetlb\n")]),
        ("p", &[("hugetlb.2MB.max", &mib(32))]),
        ("p/c", &[("hugetlb.2MB.max", &mib(1000)), ("hugetlb.2MB.current", &mib(12))]),
        ("d", &[("hugetlb.2MB.max", &mib(1000)), ("hugetlb.2MB.current", &mib(12))]),
        ("e", &[("hugetlb.2MB.max", "max\n")]),
    ]);
    let mut of = |path| {
        let memory = tree.read(&unified(path)).unwrap().memory;
        (memory.hugetlb_total, memory.hugetlb_free)
    };
    assert_eq!(of("p/c"), (Some(32 * MIB), Some(20 * MIB)));
    assert_eq!(of("d"), (Some(128 * MIB), Some(116 * MIB)), "the host's pool");
    assert_eq!(of("e"), (None, None));
}

const CONTROLLERS: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "blkio", "pids", "hugetlb"];

#[test]
fn v1_each_figure_from_its_hierarchy_and_pressure_from_the_unified_one() {
    let stat = |limit: u64| {
        format!(
            "cache 1\nhierarchical_memory_limit {limit}\ntotal_cache {}\ntotal_rss {}\ntotal_shmem {}\n\
             total_swap 0\ntotal_inactive_file {}\ntotal_pgmajfault 4\n",
            30 * MIB,
            60 * MIB,
            10 * MIB,
            20 * MIB
        )
    };
    let mut tree = Tree::new(&[
        ("unified", &[("cgroup.controllers", "")]),
        (
            "unified/lxc/c1",
            &[("cpu.pressure", "some total=9\n"), ("cpu.stat", "user_usec 1\nsystem_usec 1\n")],
        ),
        ("systemd", &[]),
        ("memory", &[("memory.limit_in_bytes", "9223372036854771712\n")]),
        (
            "memory/lxc",
            &[
                ("memory.limit_in_bytes", &mib(256)),
                ("memory.usage_in_bytes", &mib(250)),
                ("memory.stat", &stat(256 * MIB)),
            ],
        ),
        (
            "memory/lxc/c1",
            &[
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.usage_in_bytes", &mib(100)),
                ("memory.max_usage_in_bytes", &mib(110)),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
                ("memory.stat", &stat(256 * MIB)),
            ],
        ),
        ("cpu,cpuacct", &[("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")]),
        ("cpu,cpuacct/lxc", &[("cpu.cfs_quota_us", "200000\n"), ("cpu.cfs_period_us", "100000\n")]),
        (
            "cpu,cpuacct/lxc/c1",
            &[
                ("cpu.cfs_quota_us", "50000\n"),
                ("cpu.cfs_period_us", "50000\n"),
                ("cpu.stat", "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n"),
                ("cpuacct.usage_all", "cpu user system\n0 5 6\n1 7 8\n"),
            ],
        ),
        ("cpuset", &[("cpuset.effective_cpus", "0-1\n")]),
        ("cpuset/lxc/c1", &[("cpuset.effective_cpus", "\n")]),
        (
            "blkio/lxc/c1",
            &[
                ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
                ("blkio.throttle.io_serviced_recursive", "8:0 Read 3\n8:0 Write 4\nTotal 7\n"),
            ],
        ),
        ("blkio", &[]),
        ("pids", &[]),
        ("pids/lxc/c1", &[("pids.current", "12\n")]),
        ("hugetlb", &[]),
        (
            "hugetlb/lxc/c1",
            &[("hugetlb.2MB.limit_in_bytes", &mib(8)), ("hugetlb.2MB.usage_in_bytes", &mib(2))],
        ),
    ]);
    let mut paths = v1(CONTROLLERS, "lxc/c1");
    paths.unified = Some("lxc/c1".into());
    let figures = tree.read(&paths).unwrap();
    assert!(figures.problems.is_empty(), "{:?}", figures.problems);
    let memory = &figures.memory;
    assert_eq!((memory.total, memory.free), (Some(256 * MIB), Some(156 * MIB)));
    assert_eq!(memory.available, Some(26 * MIB), "256 - 250 + (30 - 10) of the parent");
    assert_eq!((memory.anon, memory.file, memory.swap), (Some(60 * MIB), Some(30 * MIB), Some(0)));
    assert_eq!((memory.peak, memory.working_set), (Some(110 * MIB), Some(80 * MIB)));
    assert_eq!((memory.oom_kills, memory.pgmajfault), (Some(3), Some(4)));
    assert_eq!((memory.hugetlb_total, memory.hugetlb_free), (Some(8 * MIB), Some(6 * MIB)));
    assert_eq!((figures.limit_cores, figures.cpus_effective), (Some(1.0), Some(2)));
    assert_eq!(figures.throttling, Some(Throttling { periods: 1, throttled_periods: 2, throttled_ns: 3 }));
    let time = |cpu, user_ns, system_ns| CpuTime { cpu, user_ns, system_ns };
    assert_eq!(figures.cpu_times, [time(0, 5, 6), time(1, 7, 8)], "v1's, not the unified cpu.stat's");
    let io = Io {
        major: 8,
        minor: 0,
        read_bytes: Some(1),
        reads: Some(3),
        written_bytes: Some(2),
        writes: Some(4),
    };
    assert_eq!(figures.io, [io]);
    assert_eq!((figures.tasks, figures.pressure.cpu_waiting_us), (Some(12), Some(9)));
}

#[test]
fn v1_oom_kills_are_absent_with_child_cgroups() {
    let mut tree = Tree::new(&[
        ("memory", &[]),
        ("memory/c", &[("memory.oom_control", "oom_kill 3\n")]),
        ("memory/d", &[("memory.oom_control", "oom_kill 3\n")]),
        ("memory/d/child", &[]),
    ]);
    assert_eq!(tree.read(&v1(&["memory"], "c")).unwrap().memory.oom_kills, Some(3));
    assert_eq!(tree.read(&v1(&["memory"], "d")).unwrap().memory.oom_kills, None);
}

#[test]
fn hybrid_a_controller_that_v1_lacks_is_read_from_the_unified_hierarchy() {
    let mut tree = Tree::new(&[
        ("cpuacct", &[]),
        ("unified", &[("cgroup.controllers", "memory pids\n")]),
        (
            "unified/c",
            &[
                ("pids.current", "2\n"),
                ("memory.current", &mib(1)),
                ("cpu.stat", "user_usec 1\nsystem_usec 2\n"),
            ],
        ),
    ]);
    let figures = tree.read(&unified("c")).unwrap();
    assert_eq!((figures.tasks, figures.memory.usage), (Some(2), Some(MIB)));
    assert_eq!(
        figures.cpu_times.len(),
        1,
        "no cgroup of its own in cpuacct, but one in the unified hierarchy"
    );
}

#[test]
fn without_paths_every_figure_is_absent() {
    let mut tree = Tree::new(&[(
        "",
        &[
            ("cgroup.controllers", ""),
            ("memory.stat", "anon 1\n"),
            ("cpu.stat", "user_usec 1\nsystem_usec 1\n"),
        ],
    )]);
    for paths in [CgroupPaths::default(), unified(""), unified("/"), unified("../x"), unified("a/../b")] {
        let figures = tree.read(&paths).unwrap();
        assert_eq!(figures.memory, Memory::default(), "{paths:?}");
        assert!(figures.cpu_times.is_empty() && figures.problems.is_empty());
        assert_eq!((figures.tasks, figures.pressure), (None, Pressure::default()));
    }
}

#[test]
fn a_cgroup_that_is_gone_is_gone_as_a_whole() {
    let mut tree = Tree::new(&[("", &[("cgroup.controllers", "")])]);
    assert!(tree.read(&unified("lxc.payload.c1")).unwrap_err().is_gone());
    // Removed after it was opened: its files are missing, and so is the one that every cgroup has.
    tree.put("c2", "pids.current", "1\n");
    assert!(tree.read(&unified("c2")).unwrap_err().is_gone());
}

#[test]
fn a_file_that_says_something_else_is_a_problem_and_no_figure() {
    let mut tree = Tree::new(&[
        ("", &[("cgroup.controllers", "")]),
        ("c", &[("pids.current", "many\n"), ("memory.max", "lots\n"), ("memory.current", "5\n")]),
    ]);
    let figures = tree.read(&unified("c")).unwrap();
    assert_eq!((figures.tasks, figures.memory.usage), (None, Some(5)));
    let problems: Vec<_> = figures.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().any(|problem| problem.contains("c/pids.current")), "{problems:?}");
}

#[test]
fn a_file_that_cannot_be_read_costs_its_own_figure_alone() {
    let mut tree = Tree::new(&[("", &[("cgroup.controllers", "")]), ("c", &[("memory.current", "5\n")])]);
    // A directory in a file's place is what even root cannot read.
    tree.put("c/pids.current", "x", "");
    let figures = tree.read(&unified("c")).unwrap();
    assert_eq!((figures.tasks, figures.memory.usage), (None, Some(5)));
    assert!(
        figures.problems[0].to_string().contains("c/pids.current: Is a directory"),
        "{:?}",
        figures.problems
    );
}

#[test]
fn a_shared_parent_is_read_once_a_collection() {
    let mut tree = Tree::new(&[
        ("", &[("cgroup.controllers", "")]),
        ("p", &[("cpu.max", "100000 100000\n")]),
        ("p/a", &[]),
        ("p/b", &[]),
    ]);
    assert_eq!(tree.read(&unified("p/a")).unwrap().limit_cores, Some(1.0));
    tree.put("p", "cpu.max", "200000 100000\n");
    assert_eq!(tree.read(&unified("p/b")).unwrap().limit_cores, Some(1.0), "from the cache");
    tree.ancestors = Ancestors::default();
    assert_eq!(tree.read(&unified("p/b")).unwrap().limit_cores, Some(2.0));
}

#[test]
fn a_device_number_is_two_numbers() {
    assert_eq!(device_number(b"8:16"), Some((8, 16)));
    for bad in ["8", "8:", ":8", "8:1:2", "4294967296:0", "a:b", ""] {
        assert_eq!(device_number(bad.as_bytes()), None, "{bad}");
    }
    assert_eq!(Place::new(Path::new("/h"), Path::new("/etc")).map(|place| place.directory()), None);
}

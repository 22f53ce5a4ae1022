use miharu_linux::Roots;
use miharu_linux::cgroup::CgroupPaths;
use miharu_linux::process::ProcDir;

use super::*;

fn instance(roots: &Roots, proc: &std::path::Path) -> Arc<Instance> {
    std::fs::create_dir_all(proc.join("77")).unwrap();
    Arc::new(Instance {
        project: "lxc".into(),
        name: "c1".into(),
        kind: Kind::Container,
        runtime: "lxc",
        id: "c1".into(),
        init: Arc::new(ProcDir::open(roots, 77).unwrap()),
        cgroup: CgroupPaths::default(),
        incarnation: Incarnation { cgroup_inode: 0, init_pid: 77, init_start: 99 },
        vm: None,
        directory: "c1".into(),
        image: None,
        is_sandbox: false,
    })
}

#[test]
fn who_alone_is_slow_is_told_so_and_paused_however_late_its_turn_came() {
    let base = tempfile::tempdir().unwrap();
    let roots = Roots::at(base.path());
    let slow = instance(&roots, &base.path().join("proc"));
    let options = Options::default();
    for (outcome, kind, limit, is_paused) in [
        (
            Outcome::TimedOut { given: options.instance_timeout },
            WarningKind::Unresponsive,
            "metrics.instance_timeout",
            true,
        ),
        (
            Outcome::TimedOut { given: options.instance_timeout / 4 },
            WarningKind::Unresponsive,
            "metrics.collect_timeout",
            true,
        ),
        (Outcome::CutOff, WarningKind::OutOfTime, "metrics.collect_timeout", false),
        (Outcome::NotStarted, WarningKind::OutOfTime, "metrics.collect_timeout", false),
    ] {
        let collector = Collector::new(roots.clone());
        let start = Instant::now();
        let mut round = Round { collector: &collector, options: &options, start, warnings: Vec::new() };
        let (_, raw) = round.judge(&slow, outcome).unwrap();
        assert!(raw.figures.scrape.is_some_and(|scrape| !scrape.success));
        let [warning] = &*round.warnings else { panic!("{:?}", round.warnings) };
        assert_eq!(warning.kind, kind, "{warning:?}");
        assert!(warning.message.contains(limit), "{warning:?}");
        assert_eq!(collector.hung.begin(&slow.incarnation, start).is_none(), is_paused, "{warning:?}");
    }
}

#[test]
fn nobody_has_more_than_the_time_for_all() {
    let base = tempfile::tempdir().unwrap();
    let collector = Collector::new(Roots::at(base.path()));
    let options = Options { instance_timeout: Duration::from_secs(300), ..Options::default() };
    let start = Instant::now();
    let round = Round { collector: &collector, options: &options, start, warnings: Vec::new() };
    assert_eq!(round.limits().end_of(start), start + options.collect_timeout * 3 / 4);
}

#[test]
fn whose_mounts_on_the_host_are_left_out_is_told() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(base.path().join("proc/1")).unwrap();
    let long = "a\\040".repeat(3800);
    let mount = format!("70 1 0:50 / /home/ann/{long} rw - fuse.x x rw,user_id=1000,group_id=1000\n");
    let warnings = |count| {
        std::fs::write(base.path().join("proc/1/mountinfo"), mount.repeat(count)).unwrap();
        let collection = Collector::new(Roots::at(base.path())).collect(&[], &Options::default());
        collection.warnings.into_iter().filter(|warning| warning.message.contains("user 1000")).count()
    };
    assert_eq!((warnings(1), warnings(100)), (0, 1));
}

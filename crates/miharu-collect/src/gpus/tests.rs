//! A library as it may behave; a stand-in with the real one's interface is met in `miharu-e2e`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use miharu_instances::{Incarnation, Kind};
use miharu_linux::cgroup::CgroupPaths;
use miharu_linux::process::ProcDir;
use miharu_metrics::FamilySet;

use super::*;

fn instance(name: &str, cgroup: CgroupPaths) -> Arc<Instance> {
    Arc::new(Instance {
        project: "lxc".into(),
        name: name.into(),
        kind: Kind::Container,
        runtime: "lxc",
        id: name.into(),
        init: Arc::new(ProcDir::open(&Roots::default(), std::process::id()).unwrap()),
        cgroup,
        incarnation: Incarnation { cgroup_inode: 0, init_pid: 1, init_start: 1 },
        vm: None,
        directory: name.into(),
        image: None,
        is_sandbox: false,
    })
}

fn unified(path: &str) -> CgroupPaths {
    CgroupPaths { unified: Some(path.into()), ..CgroupPaths::default() }
}

fn one(gpu: &str, pid: u32, cgroup: &str, utilization: Option<f64>, memory: Option<u64>) -> Use {
    let memberships = Memberships { unified: Some(cgroup.into()), ..Memberships::default() };
    Use { gpu: gpu.into(), pid, memberships, utilization, memory }
}

/// What each instance got, by GPU.
fn given(rows: &[(Arc<Instance>, Raw)]) -> Vec<String> {
    let row = |(instance, raw): &(Arc<Instance>, Raw)| {
        let mut gpus: Vec<_> = raw
            .figures
            .gpus
            .iter()
            .map(|gpu| format!("{} {:?} {:?}", gpu.gpu, gpu.utilization, gpu.memory_used_bytes))
            .collect();
        gpus.sort();
        format!("{}: {}", instance.name, gpus.join(", "))
    };
    rows.iter().map(row).collect()
}

#[test]
fn processes_are_added_up_by_the_cgroup_that_they_are_in() {
    let v1 = CgroupPaths {
        unified: None,
        v1: [("memory".to_owned(), PathBuf::from("lxc.payload.b")), ("pids".to_owned(), PathBuf::from("x"))]
            .into(),
    };
    let mut rows = [
        (instance("a", unified("lxc.payload.a")), Raw::default()),
        (instance("b", v1), Raw::default()),
        (instance("idle", unified("lxc.payload.idle")), Raw::default()),
    ];
    let on_v1 = Memberships {
        unified: Some("other".into()),
        v1: [("memory".to_owned(), PathBuf::from("lxc.payload.b/sub"))].into(),
    };
    let uses = [
        one("GPU-1", 10, "lxc.payload.a/deep/er", Some(0.75), Some(100)),
        one("GPU-1", 11, "lxc.payload.a", Some(0.5), Some(10)),
        one("GPU-2", 11, "lxc.payload.a", None, None),
        one("GPU-1", 12, "lxc.payload.abc", Some(1.0), Some(9)),
        Use { memberships: on_v1, ..one("GPU-2", 13, "", Some(0.125), Some(7)) },
    ];
    give(&mut rows, &uses);
    assert_eq!(
        given(&rows),
        ["a: GPU-1 Some(1.0) Some(110), GPU-2 None None", "b: GPU-2 Some(0.125) Some(7)", "idle: "]
    );
}

/// A source that answers as it is told to, and counts how often it is loaded.
struct Fake(Arc<dyn Fn() -> Result<Vec<Use>, String> + Send + Sync>);

impl Source for Fake {
    fn uses(&mut self) -> Result<Vec<Use>, String> {
        (self.0)()
    }
}

fn fake(answer: impl Fn() -> Result<Vec<Use>, String> + Send + Sync + 'static) -> (Gpus, Arc<AtomicUsize>) {
    let (answer, loads): (Arc<_>, Arc<AtomicUsize>) = (Arc::new(answer), Arc::default());
    let count = Arc::clone(&loads);
    let load = move || {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Fake(Arc::clone(&answer) as _)) as Box<dyn Source>)
    };
    (Gpus::with(Arc::new(load)), loads)
}

/// One collection; what the instance `a` got, and the warnings.
fn collect(gpus: &Gpus) -> (Vec<String>, Vec<String>) {
    let mut rows = [(instance("a", unified("a")), Raw::default())];
    gpus.ask(Wanted::all());
    let warnings = gpus.add(&mut rows, Wanted::all());
    (given(&rows), warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn a_source_is_loaded_once_and_asked_by_each_collection() {
    let (gpus, loads) = fake(|| Ok(vec![one("GPU-1", 1, "a", Some(0.5), Some(1))]));
    for _ in 0..3 {
        assert_eq!(collect(&gpus), (vec!["a: GPU-1 Some(0.5) Some(1)".to_owned()], Vec::new()));
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    let nobody = Wanted::by(FamilySet::all().without(|name| name.contains("gpu_")));
    let (gpus, loads) = fake(|| Ok(Vec::new()));
    gpus.ask(nobody);
    assert!(gpus.add(&mut [], nobody).is_empty());
    assert_eq!(loads.load(Ordering::SeqCst), 0);
}

#[test]
fn one_that_hangs_costs_one_short_wait_and_a_warning() {
    let (release, held) = sync_channel::<()>(0);
    let held = Mutex::new(held);
    let (gpus, loads) = fake(move || {
        let _ = held.lock().unwrap().recv();
        Ok(vec![one("GPU-1", 1, "a", Some(0.5), Some(1))])
    });
    let start = Instant::now();
    assert_eq!(collect(&gpus), (vec!["a: ".to_owned()], Vec::new()));
    for _ in 0..20 {
        let _ = collect(&gpus);
    }
    assert!(start.elapsed() < PATIENCE * 4, "only the first one waits");
    lock(&gpus.state).thread.as_mut().unwrap().asked = Some(start - HANGS);
    let (_, warnings) = collect(&gpus);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("does not answer"), "{warnings:?}");
    // It comes back.
    drop(release);
    let until = Instant::now() + Duration::from_secs(10);
    while !collect(&gpus).1.is_empty() || collect(&gpus).0 == ["a: "] {
        assert!(Instant::now() < until);
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn one_that_fails_is_loaded_anew_after_a_pause_and_one_that_is_absent_is_not_looked_for() {
    let (gpus, loads) = fake(|| Err("GPU is lost".to_owned()));
    let (given, warnings) = collect(&gpus);
    assert_eq!(given, ["a: "]);
    assert!(warnings[0].contains("GPU is lost"), "{warnings:?}");
    assert_eq!(collect(&gpus).1, warnings);
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    lock(&gpus.state).backoff = Backoff::default();
    assert_eq!(collect(&gpus).1, warnings);
    assert_eq!(loads.load(Ordering::SeqCst), 2);

    let looks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&looks);
    let gpus = Gpus::with(Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        Err(Unavailable::Absent)
    }));
    for _ in 0..3 {
        assert_eq!(collect(&gpus), (vec!["a: ".to_owned()], Vec::new()));
    }
    assert_eq!(looks.load(Ordering::SeqCst), 1);
}

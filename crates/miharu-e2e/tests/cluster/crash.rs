//! A member that is killed a hundred times while it changes things: nothing that it acknowledged is lost, nothing is half done.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::cluster::{Cluster, Member, SOON};
use miharu_e2e::{need, shell};
use serde_json::json;

use crate::{all_show, key, set};

/// How often.
const TIMES: u64 = 100;

/// What was acknowledged last, and what was asked for last; and every project that was acknowledged.
#[derive(Default)]
struct Written {
    acknowledged: AtomicU64,
    asked: AtomicU64,
    projects: Mutex<Vec<String>>,
}

/// Changes one thing after the other until there is no answer: a key, and a project for every fourth.
fn write(member: &Member, written: &Written) -> Result<()> {
    loop {
        let number = written.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if number.is_multiple_of(4) {
            let project = format!("p{number}");
            let body = json!({"name": project}).to_string();
            let reply = member.daemon()?.ask("POST", "/1.0/projects", &[], &body)?;
            anyhow::ensure!(reply.status == 201, "{}", reply.text());
            written.projects.lock().unwrap().push(project);
        }
        let reply = set(member, "user.number", &number.to_string(), &[])?;
        anyhow::ensure!(reply.status == 200, "{}", reply.text());
        written.acknowledged.store(number, Ordering::SeqCst);
    }
}

#[test]
fn a_member_that_is_killed_in_mid_write_loses_nothing() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let mut cluster = Cluster::start()?;
    let written = Written::default();
    let started = Instant::now();
    for round in 0..TIMES {
        let victim = usize::try_from(round % 3)?;
        let pid = cluster.members[victim].daemon()?.pid().to_string();
        // Moments that differ: from before the first write to after several.
        let moment = Duration::from_millis(3 + round * 37 % 120);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(&cluster.members[victim], &written));
            std::thread::sleep(moment);
            let killed = shell::run("kill", ["-KILL", &pid]);
            let _ = writer.join();
            killed.map(|_| ())
        })?;
        cluster.members[victim].kill();
        cluster.members[victim].restart().with_context(|| format!("round {round}"))?;
        let (acknowledged, asked) =
            (written.acknowledged.load(Ordering::SeqCst), written.asked.load(Ordering::SeqCst));
        let numbers = |member: &Member| key(member, "user.number").ok()?.parse::<u64>().ok();
        let same = shell::wait_for("the same on all", SOON, || {
            let all: Vec<_> = cluster.members.iter().map(numbers).collect();
            let first = all[0].or((acknowledged == 0).then_some(0))?;
            (all.iter().all(|number| number.unwrap_or(0) == first) && first >= acknowledged).then_some(first)
        })
        .with_context(|| format!("round {round}: {acknowledged} acknowledged, {asked} asked for"))?;
        assert!(same <= asked, "round {round}: {same} was never asked for");
    }
    let acknowledged = written.acknowledged.load(Ordering::SeqCst);
    assert!(acknowledged > TIMES, "only {acknowledged} writes in {:?}", started.elapsed());
    cluster.first().miharu(&["config", "set", "user.number", "0"])?;
    all_show(&cluster, "user.number", "0")?;
    let lists: Vec<_> = cluster
        .members
        .iter()
        .map(|member| member.miharu(&["project", "list", "--format", "csv"]))
        .collect::<Result<_>>()?;
    for project in written.projects.lock().unwrap().iter() {
        for list in &lists {
            assert!(list.lines().any(|line| line.split(',').next() == Some(project)), "{project}: {list}");
        }
    }
    Ok(())
}

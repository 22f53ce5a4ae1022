//! How long a change takes to all members, and how long all take to be in step again after etcd was away.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::measure::{self, Samples};
use miharu_e2e::{Miharud, interrupt, shell};
use serde_json::json;

use crate::costs::EtcdMetrics;
use crate::hall::Hall;

/// How many changes are looked at.
const CHANGES: usize = 20;

/// How long etcd is away.
const AWAY: Duration = Duration::from_secs(30);

/// What changes took, in milliseconds.
pub(crate) struct Changes {
    /// Until the member that was asked said that it is done.
    pub(crate) answered: Samples,
    /// From then until the middle one of the other members had it, one sample a change.
    pub(crate) half: Samples,
    /// The same until the last one had it.
    pub(crate) last: Samples,
}

/// Changes one key, each time on another member, and asks all others again and again.
///
/// # Errors
/// When a change is refused, or one does not have it within half a minute.
pub(crate) fn measure(hall: &Hall) -> Result<Changes> {
    let mut connections = connect(&hall.members)?;
    let mut changes = Changes { answered: samples(), half: samples(), last: samples() };
    for number in 0..CHANGES {
        interrupt::check()?;
        let word = format!("word-{number}");
        let by = hall.members.get(number * 7 % hall.members.len()).context("a member")?;
        let started = Instant::now();
        let body = json!({"config": {"user.word": word}}).to_string();
        let reply = by.ask("PATCH", "/1.0", &[], &body)?;
        ensure!(reply.status == 200, "{}", reply.text());
        changes.answered.0.push(milliseconds(started.elapsed()));
        let (started, wanted) = (Instant::now(), format!("\"user.word\":\"{word}\""));
        let mut took = Vec::new();
        let mut waiting: Vec<usize> = (0..connections.len()).collect();
        while !waiting.is_empty() {
            let mut still = Vec::new();
            for index in waiting {
                let connection = connections.get_mut(index).context("a connection")?;
                if connection.get("/1.0", &[])?.text().contains(&wanted) {
                    took.push(milliseconds(started.elapsed()));
                } else {
                    still.push(index);
                }
            }
            waiting = still;
            ensure!(
                started.elapsed() < Duration::from_secs(30),
                "{} members never got {word}",
                waiting.len()
            );
        }
        took.sort_unstable_by(f64::total_cmp);
        changes.half.0.push(*took.get(took.len() / 2).context("nobody")?);
        changes.last.0.push(*took.last().context("nobody")?);
    }
    Ok(changes)
}

/// What an outage of etcd was like.
pub(crate) struct Outage {
    /// Members that answered to a scrape over their socket while it was away.
    pub(crate) served: usize,
    /// From its start until it answered.
    pub(crate) back: Duration,
    /// From then until the last member was in step.
    pub(crate) in_step: Duration,
    /// CPU that etcd took from its start until then.
    pub(crate) etcd_cpu: Duration,
    /// CPU that all members together took from its end until then.
    pub(crate) members_cpu: Duration,
    /// Reads that etcd answered since its start.
    pub(crate) reads: f64,
}

/// Kills etcd, waits, starts it again, and waits until all members are in step.
///
/// # Errors
/// When they are not within two minutes.
pub(crate) fn outage(hall: &mut Hall) -> Result<Outage> {
    let before = measure::cpu_of_all(&hall.pids());
    hall.etcd.nodes.first_mut().context("no etcd")?.kill()?;
    interrupt::sleep(AWAY)?;
    let served = connect(&hall.members)?
        .iter_mut()
        .filter_map(|connection| connection.get("/1.0/metrics", &[]).ok())
        .count();
    let started = Instant::now();
    hall.etcd.nodes.first_mut().context("no etcd")?.restart()?;
    hall.etcd.wait_ready()?;
    let back = started.elapsed();
    let started = Instant::now();
    let mut connections = connect(&hall.members)?;
    shell::wait_for("all members in step", Duration::from_secs(120), || {
        let old = connections.iter_mut().position(|connection| {
            let text = connection.get("/1.0/metrics", &[]).map(|reply| reply.text()).unwrap_or_default();
            age(&text).is_none_or(|age| age > AWAY.as_secs_f64() / 2.0)
        });
        old.is_none().then_some(())
    })?;
    let etcd = hall.etcd.nodes.first().context("no etcd")?.pid()?;
    Ok(Outage {
        served,
        back,
        in_step: started.elapsed(),
        etcd_cpu: measure::cpu(etcd)?,
        members_cpu: measure::cpu_of_all(&hall.pids()).saturating_sub(before),
        reads: EtcdMetrics::of(hall)?.sum("grpc_server_handled_total", "grpc_method=\"Range\""),
    })
}

/// What a member says about its copy.
fn age(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("incus_cluster_sync_age_seconds "))?;
    line.parse().ok()
}

fn connect(members: &[Miharud]) -> Result<Vec<Scraper>> {
    members.iter().map(|member| Scraper::unix(&member.dir.join("unix.socket"))).collect()
}

fn samples() -> Samples {
    Samples(Vec::new())
}

fn milliseconds(length: Duration) -> f64 {
    length.as_secs_f64() * 1e3
}

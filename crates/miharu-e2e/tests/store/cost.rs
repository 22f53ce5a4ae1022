//! What members cost etcd, for docs/scale.md: many stores in one process, one etcd. Not a test that passes or fails by its
//! figures, so it runs only when asked for:
//! `MIHARU_MEMBERS=200 cargo test --release -p miharu-e2e --test store -- --ignored --nocapture cost`

use std::time::{Duration, Instant};

use anyhow::Result;
use miharu_e2e::{etcd, measure, need};
use miharu_store::Change;
use miharu_store::cluster::{Join, Report};

use super::{HOUR, Member, PATIENCE, access, certificate, enable, entry, eventually};

/// How long a cluster at rest is looked at.
const REST: Duration = Duration::from_secs(60);

/// CPU time in seconds, and resident memory in bytes, of a process.
fn cost(pid: u32) -> Result<(f64, u64)> {
    Ok((measure::cpu(pid)?.as_secs_f64(), measure::memory(pid, "VmRSS")?))
}

#[test]
#[ignore = "it measures, for minutes"]
fn what_members_cost_etcd_and_how_soon_they_know() -> Result<()> {
    need!(Etcd);
    let number: usize = std::env::var("MIHARU_MEMBERS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let etcd = etcd::plan().start()?;
    let way = access(&etcd)?;
    let mut members = vec![Member::alone("m0")?];
    enable(&members[0], "m0", way.clone())?;
    let begin = Instant::now();
    for index in 1..number {
        let member = Member::alone(&format!("m{index}"))?;
        let invitation = members[0].store.cluster_invite(&format!("m{index}"), HOUR)?;
        member.store.cluster_join(Join {
            invitation,
            access: way.clone(),
            certificate: certificate().der().to_vec(),
        })?;
        member.store.cluster_report(Report {
            version: "0.1.0".to_owned(),
            instances: 100,
            address: Some(format!("m{index}.example:8443")),
            metrics_address: Some(format!("m{index}.example:9100")),
        });
        members.push(member);
    }
    println!("{number} members joined in {:.1?}", begin.elapsed());
    for member in &members {
        eventually("every member to know all", PATIENCE * 6, || {
            member.cluster().is_ok_and(|cluster| cluster.members.len() == number)
        })?;
    }
    std::thread::sleep(Duration::from_secs(15));
    let pid = etcd.nodes[0].pid()?;
    let (before, own_before) = (cost(pid)?, cost(std::process::id())?);
    let begin = Instant::now();
    std::thread::sleep(REST);
    let (after, own_after, took) = (cost(pid)?, cost(std::process::id())?, begin.elapsed().as_secs_f64());
    let per_member = |before: f64, after: f64| (after - before) / took / number as f64 * 1e6;
    println!(
        "at rest, a member a second: {:.0} us of etcd's CPU, {:.0} us of its own; etcd holds {} MiB, the members {} MiB in all",
        per_member(before.0, after.0),
        per_member(own_before.0, own_after.0),
        after.1 >> 20,
        own_after.1 >> 20
    );
    let mut times = Vec::new();
    for round in 0..20 {
        let (entry, fingerprint) = entry("x");
        let begin = Instant::now();
        members[round % number].commit(&Change::AddCertificate(entry))?;
        let answered = begin.elapsed();
        eventually("trust", PATIENCE, || members.iter().all(|member| member.trusts(&fingerprint)))?;
        times.push((begin.elapsed(), answered));
    }
    times.sort();
    println!(
        "a change was on all members after {:.1?} (median), {:.1?} (worst of 20)",
        times[10].0, times[19].0
    );
    let keys = etcd.keys("/miharu/")?;
    let bytes: usize = keys.iter().map(|(key, value)| key.len() + value.len()).sum();
    println!("{} keys, {bytes} bytes", keys.len());
    Ok(())
}

//! Trusted on one member, trusted on all; and so for every change, while addresses stay each member's own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::cluster::Cluster;
use miharu_e2e::need;
use miharu_e2e::tls::Certificate;

use crate::{all_show, key, set};

/// How long a change may take from one member to all others.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Of several changes most have to be quick: the machine that runs tests may be busy for a moment.
fn assert_quick(mut took: Vec<Duration>) {
    took.sort_unstable();
    assert!(took[took.len() / 2] < AT_ONCE, "{took:?}");
    assert!(took[took.len() - 1] < 5 * AT_ONCE, "{took:?}");
}

#[test]
fn a_certificate_is_trusted_and_revoked_on_all_members_within_a_second() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let cluster = Cluster::start()?;
    let (mut trusted, mut revoked) = (Vec::new(), Vec::new());
    for number in 0..5 {
        let client = Certificate::create("metrics")?;
        assert_eq!(cluster.statuses(&client), [403, 403, 403]);
        let crt = client.crt.to_str().context("path")?;
        let by = &cluster.members[number % 3];
        by.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
        trusted.push(cluster.becomes(&client, &[200, 200, 200])?);
        let by = &cluster.members[(number + 1) % 3];
        by.miharu(&["config", "trust", "remove", &client.fingerprint()?])?;
        revoked.push(cluster.becomes(&client, &[403, 403, 403])?);
    }
    assert_quick(trusted);
    assert_quick(revoked);
    Ok(())
}

#[test]
fn the_configuration_is_one_and_the_addresses_are_each_member_s_own() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let cluster = Cluster::start()?;
    let [a, b, c] = &cluster.members[..] else { panic!("three") };
    b.miharu(&["config", "set", "metrics.prefix", "lxd"])?;
    assert_quick(vec![all_show(&cluster, "metrics.prefix", "lxd")?]);
    for member in [a, b, c] {
        assert!(member.get("/1.0/metrics")?.text().contains("lxd_procs_total{"), "{}", member.name);
    }
    a.miharu(&["config", "unset", "metrics.prefix"])?;
    all_show(&cluster, "metrics.prefix", "")?;

    c.miharu(&["config", "set", "core.metrics_advertise", "orilla.example.net"])?;
    for member in [a, b, c] {
        assert_eq!(key(member, "core.metrics_address")?, member.metrics_address());
        assert_eq!(key(member, "core.https_address")?, member.https_address());
        let advertised = if member.name == c.name { "orilla.example.net" } else { "" };
        assert_eq!(key(member, "core.metrics_advertise")?, advertised);
    }
    let stored = cluster.etcd.keys("/")?;
    assert!(stored.len() > 3, "{stored:?}");
    assert!(!stored.iter().any(|(_, value)| value.contains("PRIVATE KEY")), "etcd alone gives the key away");

    // A declared project, and a bearer token, work on all as well.
    a.miharu(&["project", "create", "shop"])?;
    let token = c.miharu(&["-q", "config", "trust", "add-token", "prom", "--type=metrics"])?;
    let header = format!("Authorization: Bearer {}", token.trim());
    let works = |member: &miharu_e2e::cluster::Member| {
        let reply = cluster.ask(&member.metrics_address(), "/1.0/metrics", None, &["-H", &header]);
        reply.is_ok_and(|reply| reply.status == 200)
            && member.miharu(&["project", "list", "--format", "csv"]).is_ok_and(|list| list.contains("shop"))
    };
    miharu_e2e::shell::wait_for("project and token on all", 5 * AT_ONCE, || {
        cluster.members.iter().all(works).then_some(())
    })?;
    assert!(!cluster.etcd.keys("/")?.iter().any(|(_, value)| value.contains(token.trim())));
    Ok(())
}

#[test]
fn of_two_changes_at_once_one_wins_and_the_other_is_told() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let cluster = Cluster::start()?;
    let [a, b, _] = &cluster.members[..] else { panic!("three") };
    for round in 0..10 {
        let started = Instant::now();
        let tags = [a, b].map(|member| {
            let reply = member.get("/1.0").unwrap();
            format!("If-Match: {}", reply.headers["etag"])
        });
        let answers = std::thread::scope(|scope| {
            let change = |member, name: &'static str, tag: &str| {
                let tag = tag.to_owned();
                scope.spawn(move || set(member, "user.winner", &format!("{name}{round}"), &[&tag]))
            };
            let both = [change(a, "a", &tags[0]), change(b, "b", &tags[1])];
            both.map(|thread| thread.join().unwrap())
        });
        let [of_a, of_b] = answers;
        let (of_a, of_b) = (of_a?, of_b?);
        let winner = match (of_a.status, of_b.status) {
            (200, 412) => "a",
            (412, 200) => "b",
            other => panic!("round {round}: {other:?} {} {}", of_a.text(), of_b.text()),
        };
        all_show(&cluster, "user.winner", &format!("{winner}{round}"))?;
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    Ok(())
}

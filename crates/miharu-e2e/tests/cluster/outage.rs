//! etcd gone, the network cut: a member goes on with its last copy, says so, refuses changes, and catches up afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::cluster::{Cluster, Member, SOON};
use miharu_e2e::tls::Certificate;
use miharu_e2e::{etcd, need, shell};

use crate::{age, all_show, key, set, until_warned};

/// A cluster over so many etcds, and a certificate that it trusts.
fn trusting(etcds: usize) -> Result<(Cluster, Certificate)> {
    let cluster = Cluster::over(|network| etcd::plan().nodes(etcds).on(network).start())?;
    let client = Certificate::create("metrics")?;
    trust(cluster.first(), &client)?;
    cluster.becomes(&client, &[200, 200, 200])?;
    Ok((cluster, client))
}

fn trust(by: &Member, client: &Certificate) -> Result<()> {
    let crt = client.crt.to_str().context("path")?;
    by.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    Ok(())
}

/// A change is refused soon, in words that name etcd, and with nothing changed.
fn refuses_changes(member: &Member) -> Result<()> {
    let started = Instant::now();
    let reply = set(member, "user.refused", "yes", &[])?;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.text().contains("etcd"), "{}", reply.text());
    assert_eq!(key(member, "user.refused")?, "");
    Ok(())
}

#[test]
fn a_member_that_is_cut_off_serves_from_its_copy_and_catches_up() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let (cluster, client) = trusting(1)?;
    let (stays, cut) = (cluster.first(), &cluster.members[2]);
    assert!(age(cut)? < 30.0);
    cut.host.cut()?;
    cluster.shown(stays, &[("abydos", "ONLINE"), ("langara", "ONLINE"), ("orilla", "OFFLINE")])?;
    until_warned(cut, true)?;
    let first = age(cut)?;
    refuses_changes(cut)?;
    assert_eq!(cut.get("/1.0/metrics")?.status, 200);
    assert_eq!(cut.local_status(&client)?, 200, "its copy trusts whom it trusted");

    // Meanwhile one is trusted, one is not any more, and a key changes twice.
    let new = Certificate::create("metrics")?;
    trust(stays, &new)?;
    stays.miharu(&["config", "trust", "remove", &client.fingerprint()?])?;
    stays.miharu(&["config", "set", "user.word", "one"])?;
    stays.miharu(&["config", "set", "user.word", "two"])?;
    assert_eq!(cluster.statuses(&new)[..2], [200, 200]);
    assert!(age(cut)? > first, "the copy grows older");

    cut.host.mend()?;
    cluster.becomes(&client, &[403, 403, 403])?;
    cluster.becomes(&new, &[200, 200, 200])?;
    all_show(&cluster, "user.word", "two")?;
    until_warned(cut, false)?;
    shell::wait_for("a young copy", SOON, || age(cut).ok().filter(|age| *age < first.min(10.0)))?;
    cluster.shown(stays, &[("abydos", "ONLINE"), ("langara", "ONLINE"), ("orilla", "ONLINE")])?;
    cut.miharu(&["config", "set", "user.word", "three"])?;
    all_show(&cluster, "user.word", "three").map(|_| ())
}

#[test]
fn one_etcd_of_three_may_die_and_then_all() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let (mut cluster, client) = trusting(3)?;
    for dead in 0..3 {
        cluster.etcd.nodes[dead].kill()?;
        cluster.etcd.wait_ready()?;
        let word = format!("without {dead}");
        shell::wait_for("a change with two of three", SOON, || {
            let by = &cluster.members[dead];
            set(by, "user.word", &word, &[]).ok().filter(|reply| reply.status == 200)
        })?;
        all_show(&cluster, "user.word", &word)?;
        cluster.etcd.nodes[dead].restart()?;
        cluster.etcd.wait_ready()?;
    }
    for node in &mut cluster.etcd.nodes {
        node.kill()?;
    }
    for member in &cluster.members {
        until_warned(member, true)?;
        refuses_changes(member)?;
    }
    assert_eq!(cluster.statuses(&client), [200, 200, 200]);
    // Even over a restart.
    cluster.members[1].kill();
    cluster.members[1].restart()?;
    assert_eq!(cluster.statuses(&client), [200, 200, 200]);
    assert_eq!(key(&cluster.members[1], "user.word")?, "without 2");
    until_warned(&cluster.members[1], true)?;
    refuses_changes(&cluster.members[1])?;
    let listed = cluster.members[1].miharu(&["cluster", "list", "--format", "csv"])?;
    assert_eq!(listed.lines().count(), 3, "{listed}");

    for node in &mut cluster.etcd.nodes {
        node.restart()?;
    }
    cluster.etcd.wait_ready()?;
    for member in &cluster.members {
        until_warned(member, false)?;
    }
    cluster.members[2].miharu(&["config", "set", "user.word", "after"])?;
    all_show(&cluster, "user.word", "after")?;
    Ok(())
}

#[test]
fn an_etcd_that_hangs_is_taken_for_gone() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let (cluster, client) = trusting(1)?;
    cluster.etcd.nodes[0].freeze()?;
    let mut answers = Vec::new();
    for member in &cluster.members {
        let name = format!("user.{}", member.name);
        let started = Instant::now();
        let reply = set(member, &name, "yes", &[])?;
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        assert_eq!(reply.status, 503, "{}", reply.text());
        until_warned(member, true)?;
        assert_eq!(key(member, &name)?, "", "{}", reply.text());
        answers.push((name, reply.text()));
    }
    // Who had not noticed yet cannot know; who has says that nothing was changed.
    assert!(answers[2].1.contains("nothing was changed"), "{answers:?}");
    assert_eq!(cluster.statuses(&client), [200, 200, 200]);
    cluster.etcd.nodes[0].thaw()?;
    for member in &cluster.members {
        until_warned(member, false)?;
    }
    for (name, answer) in answers {
        let shown = key(cluster.first(), &name)?;
        if answer.contains("nothing was changed") {
            assert_eq!(shown, "", "{name}: {answer}");
        }
        // What hung in etcd's socket may have come true after all: on all members alike, then.
        all_show(&cluster, &name, &shown)?;
    }
    cluster.first().miharu(&["config", "set", "user.word", "thawed"])?;
    all_show(&cluster, "user.word", "thawed").map(|_| ())
}

#[test]
fn a_watch_that_was_compacted_away_is_made_good() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let (mut cluster, client) = trusting(1)?;
    cluster.members[1].host.cut()?;
    cluster.members[2].kill();
    for number in 0..30 {
        cluster.first().miharu(&["config", "set", "user.word", &number.to_string()])?;
    }
    cluster.first().miharu(&["config", "trust", "remove", &client.fingerprint()?])?;
    cluster.first().miharu(&["config", "set", "user.gone", "yes"])?;
    cluster.first().miharu(&["config", "unset", "user.gone"])?;
    cluster.etcd.compact()?;
    cluster.members[1].host.mend()?;
    cluster.members[2].restart()?;
    cluster.becomes(&client, &[403, 403, 403])?;
    all_show(&cluster, "user.word", "29")?;
    all_show(&cluster, "user.gone", "")?;
    Ok(())
}

#[test]
fn trust_in_a_copy_ends_at_the_age_that_is_set() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let (cluster, client) = trusting(1)?;
    cluster.first().miharu(&["config", "set", "cluster.trust_max_age", "10S"])?;
    all_show(&cluster, "cluster.trust_max_age", "10S")?;
    let cut = &cluster.members[2];
    cut.host.cut()?;
    let started = Instant::now();
    assert_eq!(cut.local_status(&client)?, 200);
    shell::wait_for("the end of trust", SOON, || (cut.local_status(&client).ok()? == 403).then_some(()))?;
    assert!(started.elapsed() > Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(cut.get("/1.0/metrics")?.status, 200, "its own socket goes on");
    cut.host.mend()?;
    cluster.becomes(&client, &[200, 200, 200])?;
    Ok(())
}

#[test]
fn an_etcd_that_has_lost_everything_ends_nobody_s_trust() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let (mut cluster, client) = trusting(1)?;
    cluster.etcd.nodes[0].wipe()?;
    cluster.etcd.nodes[0].restart()?;
    cluster.etcd.wait_ready()?;
    for member in &cluster.members {
        until_warned(member, true)?;
        refuses_changes(member)?;
    }
    assert_eq!(cluster.statuses(&client), [200, 200, 200]);
    // And nobody writes what has to be the operator's decision.
    assert!(!cluster.etcd.keys("/")?.iter().any(|(key, _)| key.contains("/certificates/")));
    Ok(())
}

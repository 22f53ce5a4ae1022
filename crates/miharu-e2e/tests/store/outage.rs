//! etcd away, half of it or all: the last copy goes on, changes are refused, and what was missed is caught up.

use std::time::{Duration, Instant};

use anyhow::Result;
use miharu_e2e::{etcd, need};
use miharu_store::cluster::{Leave, MemberStatus};
use miharu_store::{Change, Error};

use super::{Member, PATIENCE, SOON, cluster, config, entry, eventually};

#[test]
fn with_etcd_gone_the_last_copy_goes_on_and_changes_are_refused() -> Result<()> {
    need!(Etcd);
    let mut etcd = etcd::plan().start()?;
    let members = cluster(&etcd, &["a", "b"])?;
    let [a, b] = members.as_slice() else { panic!("two members") };
    let (client, fingerprint) = entry("client");
    a.commit(&Change::AddCertificate(client))?;
    eventually("trust", SOON, || b.trusts(&fingerprint))?;

    etcd.nodes[0].kill()?;
    eventually("trouble", Duration::from_secs(3), || {
        b.store.sync_status().is_some_and(|s| s.trouble.is_some())
    })?;
    let begin = Instant::now();
    let change = config(&b.state(), "user.a", "1");
    let error = b.commit(&change).unwrap_err();
    assert!(matches!(error, Error::Away(_)), "{error}");
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(b.trusts(&fingerprint) && b.state().config.get("user.a").is_empty());
    let joined = b.path.clone();
    eventually("an age", Duration::from_secs(12), || {
        b.store.sync_status().and_then(|status| status.age).is_some_and(|age| age > Duration::from_secs(10))
    })?;
    let presence = b.store.presence();
    assert_eq!(presence.members["a"].status, MemberStatus::Unknown);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs() as i64;
    let seen = presence.members["a"].last_seen.map(|seen| since - seen);
    assert!(seen.is_some_and(|ago| ago >= 10), "it was there last when b was in step: {seen:?} s ago");
    assert_eq!(b.store.presence().members["b"].status, MemberStatus::Online);

    let copy = miharu_e2e::scratch::dir("copy")?.join("miharu.db");
    std::fs::copy(&joined, &copy)?;
    let restarted = Member::again(&copy)?;
    assert!(restarted.trusts(&fingerprint), "a restart without etcd");
    let age = restarted.store.sync_status().and_then(|status| status.age).unwrap_or_default();
    assert!(age > Duration::from_secs(9) && age < Duration::from_secs(120), "{age:?}");
    drop(restarted);

    etcd.nodes[0].restart()?;
    for member in &members {
        member.in_step()?;
    }
    b.commit(&change)?;
    eventually("the change", SOON, || a.state().config.get("user.a") == "1")?;
    Ok(())
}

#[test]
fn who_was_away_catches_up_though_the_history_is_gone() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let mut members = cluster(&etcd, &["a", "b"])?;
    let (b, a) = (members.pop().unwrap(), members.pop().unwrap());
    let (kept, kept_fingerprint) = entry("kept");
    let (revoked, revoked_fingerprint) = entry("revoked");
    a.commit(&Change::AddCertificate(revoked))?;
    a.commit(&Change::AddCertificate(kept))?;
    eventually("trust", SOON, || b.trusts(&revoked_fingerprint) && b.trusts(&kept_fingerprint))?;
    let path = b.path.clone();
    drop(b);
    let (new, new_fingerprint) = entry("new");
    a.commit(&Change::RemoveCertificate(revoked_fingerprint.clone()))?;
    a.commit(&Change::AddCertificate(new))?;
    etcd.compact()?;
    let b = Member::again(&path)?;
    b.in_step()?;
    assert!(!b.trusts(&revoked_fingerprint) && b.trusts(&kept_fingerprint) && b.trusts(&new_fingerprint));

    // A watch that lives through a compaction goes on, too.
    let (more, more_fingerprint) = entry("more");
    etcd.compact()?;
    a.commit(&Change::AddCertificate(more))?;
    eventually("the watch", SOON, || b.trusts(&more_fingerprint))?;
    Ok(())
}

#[test]
fn a_minority_of_etcd_may_die_and_a_majority_may_not() -> Result<()> {
    need!(Etcd);
    let mut etcd = etcd::plan().nodes(3).start()?;
    let members = cluster(&etcd, &["a", "b", "c"])?;
    for node in 0..3 {
        etcd.nodes[node].kill()?;
        for (number, member) in members.iter().enumerate() {
            let (client, fingerprint) = entry("client");
            let begin = Instant::now();
            member.commit(&Change::AddCertificate(client))?;
            println!("node {node} dead: a change took {:?}", begin.elapsed());
            eventually("the change", PATIENCE, || members.iter().all(|member| member.trusts(&fingerprint)))?;
            assert!(begin.elapsed() < Duration::from_secs(20), "member {number}");
        }
        etcd.nodes[node].restart()?;
        etcd.wait_ready()?;
    }
    for member in &members {
        member.in_step()?;
    }
    let before = members[0].state().certificates.len();
    etcd.nodes[0].kill()?;
    etcd.nodes[1].kill()?;
    eventually("trouble", PATIENCE, || {
        members.iter().all(|member| member.store.sync_status().is_some_and(|status| status.trouble.is_some()))
    })?;
    for member in &members {
        let (client, _) = entry("client");
        let error = member.commit(&Change::AddCertificate(client)).unwrap_err();
        assert!(matches!(error, Error::Away(_)), "{error}");
        assert_eq!(member.state().certificates.len(), before);
    }
    etcd.nodes[0].restart()?;
    etcd.wait_ready()?;
    for member in &members {
        member.in_step()?;
        assert_eq!(member.state().certificates.len(), before);
    }
    Ok(())
}

#[test]
fn an_etcd_that_is_frozen_holds_nobody_up() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let members = cluster(&etcd, &["a"])?;
    let a = &members[0];
    etcd.nodes[0].freeze()?;
    let begin = Instant::now();
    let error = a.commit(&config(&a.state(), "user.a", "1")).unwrap_err();
    assert!(matches!(error, Error::Uncertain(_) | Error::Away(_)), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    eventually("trouble", Duration::from_secs(10), || {
        a.store.sync_status().is_some_and(|s| s.trouble.is_some())
    })?;
    let begin = Instant::now();
    assert!(matches!(a.store.cluster_leave(Leave::Orderly), Err(Error::Away(_))));
    assert!(begin.elapsed() < Duration::from_secs(5));
    etcd.nodes[0].thaw()?;
    a.in_step()?;
    // What was uncertain is either made or not, and the copy says which.
    let (_, found) = etcd.keys("/miharu/config")?.pop().unwrap();
    assert_eq!(found.contains("user.a"), a.state().config.get("user.a") == "1", "{found}");
    Ok(())
}

#[test]
fn an_etcd_that_was_emptied_takes_nothing_from_the_last_copy() -> Result<()> {
    need!(Etcd);
    let mut etcd = etcd::plan().start()?;
    let members = cluster(&etcd, &["a"])?;
    let a = &members[0];
    let (client, fingerprint) = entry("client");
    a.commit(&Change::AddCertificate(client))?;
    etcd.ctl(&["del", "--prefix", "/miharu/"])?;
    eventually("trouble", Duration::from_secs(10), || {
        a.store
            .sync_status()
            .and_then(|status| status.trouble)
            .is_some_and(|words| words.contains("no cluster"))
    })?;
    std::thread::sleep(Duration::from_secs(1));
    assert!(a.trusts(&fingerprint) && !a.cluster()?.removed, "{:?}", a.store.sync_status());
    assert!(matches!(a.commit(&config(&a.state(), "user.a", "1")), Err(Error::Away(_))));
    etcd.nodes[0].kill()?;
    let again = Member::again(&{
        let path = miharu_e2e::scratch::dir("copy")?.join("miharu.db");
        std::fs::copy(&a.path, &path)?;
        path
    })?;
    assert!(again.trusts(&fingerprint) && !again.cluster()?.removed);
    a.store.cluster_leave(Leave::Forced)?;
    assert!(a.trusts(&fingerprint) && a.state().cluster.is_none());
    Ok(())
}

#[test]
fn a_member_whose_database_is_damaged_goes_back_to_its_copy_and_gets_in_step() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let mut members = cluster(&etcd, &["a", "b"])?;
    let (b, a) = (members.pop().unwrap(), members.pop().unwrap());
    let (kept, kept_fingerprint) = entry("kept");
    let (revoked, revoked_fingerprint) = entry("revoked");
    a.commit(&Change::AddCertificate(kept))?;
    a.commit(&Change::AddCertificate(revoked))?;
    eventually("trust", SOON, || b.trusts(&kept_fingerprint) && b.trusts(&revoked_fingerprint))?;
    b.commit(&config(&b.state(), "core.metrics_address", ":9199"))?;
    let path = b.path.clone();
    drop(b);
    a.commit(&Change::RemoveCertificate(revoked_fingerprint.clone()))?;
    let bytes = std::fs::read(&path)?;
    std::fs::write(&path, &bytes[..bytes.len() / 2])?;
    let error = Member::again(&path).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("it is damaged") && error.contains("miharu.db.backup"), "{error}");
    std::fs::copy(path.with_file_name("miharu.db.backup"), &path)?;
    let b = Member::again(&path)?;
    assert_eq!(b.state().config.get("core.metrics_address"), ":9199", "what only it knows");
    assert!(b.trusts(&kept_fingerprint));
    b.in_step()?;
    assert!(b.trusts(&kept_fingerprint) && !b.trusts(&revoked_fingerprint));
    b.commit(&config(&b.state(), "user.a", "1"))?;
    eventually("the change", SOON, || a.state().config.get("user.a") == "1")?;
    Ok(())
}

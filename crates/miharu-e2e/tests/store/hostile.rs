//! Whatever lies in etcd: it is named, it opens nothing, and the rest goes on.

use std::time::Duration;

use anyhow::Result;
use miharu_e2e::{etcd, need};
use miharu_store::Change;

use super::{Member, SOON, cluster, config, entry, eventually};

/// The keys that a member names as those that it cannot read.
fn bad_keys(member: &Member) -> Vec<String> {
    let status = member.store.sync_status().unwrap_or_default();
    status.bad_keys.into_iter().map(|bad| bad.key).collect()
}

#[test]
fn rubbish_is_named_and_opens_nothing() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let mut members = cluster(&etcd, &["a", "b"])?;
    let (b, a) = (members.pop().unwrap(), members.pop().unwrap());
    let (client, fingerprint) = entry("client");
    a.commit(&Change::AddCertificate(client))?;
    a.commit(&config(&a.state(), "cluster.trust_max_age", "1d"))?;
    eventually("trust", SOON, || b.trusts(&fingerprint))?;
    let own = b.cluster()?.members["b"].certificate.der().to_vec();

    let deep = "[".repeat(100_000);
    let rubbish = [
        ("config", "[]"),
        ("certificate", "{}"),
        ("certificates/00", "{\"name\":1}"),
        ("certificates/\u{1b}[31mred", "x"),
        ("tokens/1", &deep),
        ("projects/x", "null"),
        ("members/stranger", "{\"id\":\"1\",\"certificate\":\"AAAA\",\"joined_at\":0}"),
        ("members/b", "rubbish"),
        ("invitations/x", "\u{7f}"),
    ];
    for (key, value) in rubbish {
        etcd.ctl(&["put", &format!("/miharu/{key}"), "--", value])?;
    }
    for member in [&a, &b] {
        eventually("all of it to be named", SOON, || bad_keys(member).len() == rubbish.len())?;
        assert!(bad_keys(member).iter().all(|key| !key.contains('\u{1b}')));
    }
    for member in [&a, &b] {
        let cluster = member.cluster()?;
        assert!(!cluster.removed && cluster.certificate.is_some());
        assert!(!cluster.members.contains_key("stranger"));
        assert!(member.state().config.settings().trust_max_age.is_some(), "what protects stays");
        assert_eq!(member.state().certificates.len(), 1);
    }
    assert!(
        a.cluster()?.member_with(&own).is_none(),
        "a member that cannot be read is trusted by nobody else"
    );
    assert!(b.cluster()?.member_with(&own).is_some());
    // The rest goes on, and so it does after a restart.
    let (other, other_fingerprint) = entry("other");
    b.commit(&Change::AddCertificate(other))?;
    eventually("the change", SOON, || a.trusts(&other_fingerprint))?;
    let path = a.path.clone();
    drop(a);
    let a = Member::again(&path)?;
    a.in_step()?;
    assert_eq!(bad_keys(&a).len(), rubbish.len());
    assert!(a.state().config.settings().trust_max_age.is_some() && a.trusts(&other_fingerprint));
    // A person mends it.
    a.commit(&Change::RemoveMember("b".to_owned()))?;
    a.commit(&config(&a.state(), "user.a", "1"))?;
    eventually("mended keys", SOON, || {
        !bad_keys(&a).iter().any(|key| key == "config" || key == "members/b")
    })?;
    Ok(())
}

#[test]
fn values_of_any_size_and_number_are_survived() -> Result<()> {
    need!(Etcd, Tls);
    let etcd = etcd::plan().flags(&["--max-request-bytes=20000000"]).start()?;
    let mut members = cluster(&etcd, &["a", "b"])?;
    let (b, a) = (members.pop().unwrap(), members.pop().unwrap());
    let dir = miharu_e2e::scratch::dir("big")?;
    let body = dir.join("body");
    // Through etcd's JSON gateway, as etcdctl sends 2 MB at most: keys and values are base64 there, "eHh4" is "xxx".
    std::fs::write(
        &body,
        format!(r#"{{"key":"L21paGFydS9jZXJ0aWZpY2F0ZXMvYmln","value":"{}"}}"#, "eHh4".repeat(3 << 20)),
    )?;
    let url = format!("http://{}/v3/kv/put", etcd.nodes[0].address);
    miharu_e2e::shell::run("curl", ["-sf", "--data-binary", &format!("@{}", body.display()), &url])?;
    for number in 0..600 {
        etcd.ctl(&["put", &format!("/miharu/certificates/{number}"), "{}"])?;
    }
    for member in [&a, &b] {
        eventually("the named ones", Duration::from_secs(20), || bad_keys(member).len() == 20)?;
        member.in_step()?;
    }
    let (client, fingerprint) = entry("client");
    b.commit(&Change::AddCertificate(client))?;
    eventually("the change", SOON, || a.trusts(&fingerprint))?;
    let path = a.path.clone();
    drop(a);
    let a = Member::again(&path)?;
    a.in_step()?;
    assert!(a.trusts(&fingerprint) && a.state().certificates.len() == 1);
    // Our own values have their limits before etcd says so.
    let long = "x".repeat(60_000);
    let mut state = a.state();
    for number in 0..30 {
        match a.commit(&config(&state, &format!("user.{number}"), &long)) {
            Ok(next) => state = next,
            Err(error) => {
                assert!(error.to_string().contains("too long for the cluster"), "{error}");
                return Ok(());
            }
        }
    }
    panic!("a configuration of 1.8 MB was taken");
}

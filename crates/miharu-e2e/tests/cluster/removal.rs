//! Who was removed is trusted by nobody, and trusts nobody.

use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::cluster::{Cluster, SOON};
use miharu_e2e::tls::Certificate;
use miharu_e2e::{need, shell};

#[test]
fn a_member_that_was_removed_is_not_trusted_and_does_not_come_back_by_itself() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let mut cluster = Cluster::start()?;
    let client = Certificate::create("metrics")?;
    let crt = client.crt.to_str().context("path")?;
    cluster.first().miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    cluster.becomes(&client, &[200, 200, 200])?;

    // One is away while it is removed, the other is there.
    cluster.members[2].kill();
    let shown = [("abydos", "ONLINE"), ("langara", "ONLINE"), ("orilla", "OFFLINE")];
    cluster.shown(cluster.first(), &shown)?;
    cluster.first().miharu(&["cluster", "remove", "--force", "--yes", "orilla"])?;
    cluster.first().miharu(&["cluster", "remove", "--force", "--yes", "langara"])?;
    cluster.shown(cluster.first(), &shown[..1])?;
    cluster.members[2].restart()?;

    for removed in &cluster.members[1..] {
        let own = Certificate { crt: removed.dir.join("server.crt"), key: removed.dir.join("server.key") };
        for path in ["/1.0/metrics", "/1.0/instances", "/1.0/cluster/members"] {
            let reply = cluster.ask(&cluster.first().https_address(), path, Some(&own), &[])?;
            assert_eq!(reply.status, 403, "{} got {path}", removed.name);
        }
        // What the cluster trusted is trusted there no more, once it has learned of its removal.
        shell::wait_for("the end of trust", SOON, || {
            removed.local_status(&client).is_ok_and(|status| status == 403).then_some(())
        })?;
        let target = cluster.first().get(&format!("/1.0/metrics?target={}", removed.name))?;
        assert!((400..500).contains(&target.status), "{}", target.text());
        let change = removed.miharu(&["config", "set", "user.after", "removal"]);
        let word = crate::key(cluster.first(), "user.after")?;
        assert!(word.is_empty(), "a removed member changed the cluster: {change:?}");
    }
    assert_eq!(cluster.statuses(&client)[0], 200, "who stays goes on");

    // It may come back as anybody may: with a token.
    let token = cluster.first().invite("orilla")?;
    let back = &cluster.members[2];
    // A member that was removed leaves first what it was in.
    let _ = back.miharu(&["cluster", "leave", "--force", "--yes"]);
    back.join(&token, &cluster.etcd)?;
    cluster.shown(cluster.first(), &[("abydos", "ONLINE"), ("orilla", "ONLINE")])?;
    shell::wait_for("trust on the one that came back", Duration::from_secs(5), || {
        (cluster.statuses(&client)[2] == 200).then_some(())
    })
}

#[test]
fn who_leaves_goes_on_alone_with_a_copy_and_the_last_one_ends_the_cluster() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let cluster = Cluster::start()?;
    let client = Certificate::create("metrics")?;
    let crt = client.crt.to_str().context("path")?;
    cluster.first().miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    cluster.becomes(&client, &[200, 200, 200])?;
    let leaver = &cluster.members[1];
    leaver.miharu(&["cluster", "leave", "--yes"])?;
    cluster.shown(cluster.first(), &[("abydos", "ONLINE"), ("orilla", "ONLINE")])?;
    assert!(leaver.miharu(&["cluster", "list"]).is_err());
    // Its figures go on, under its own certificate.
    assert_eq!(leaver.get("/1.0/metrics")?.status, 200);
    assert_eq!(leaver.local_status(&client)?, 200);
    let own = Certificate { crt: leaver.dir.join("server.crt"), key: leaver.dir.join("server.key") };
    assert_eq!(cluster.statuses(&own)[0], 403);
    // From now on they do not follow each other.
    cluster.first().miharu(&["config", "trust", "remove", &client.fingerprint()?])?;
    shell::wait_for("the end of trust", SOON, || {
        let [first, third] = [0, 2].map(|index: usize| cluster.members[index].local_status(&client).ok());
        (first == Some(403) && third == Some(403)).then_some(())
    })?;
    assert_eq!(leaver.local_status(&client)?, 200);
    cluster.members[2].miharu(&["cluster", "leave", "--yes"])?;
    cluster.shown(cluster.first(), &[("abydos", "ONLINE")])?;
    cluster.first().miharu(&["cluster", "leave", "--yes"])?;
    let left = cluster.etcd.keys("/")?;
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

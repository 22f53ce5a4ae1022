//! Who gets in: the holder of a token, once, in time, into the cluster that made it; and nobody else.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::cluster::{Cluster, Member};
use miharu_e2e::etcd::{self, Etcd};
use miharu_e2e::tls::Certificate;
use miharu_e2e::{need, shell};
use serde_json::{Value, json};

/// Tries to join, which has to fail, and gives the complaint.
fn refused(member: &Member, token: &str, etcd: &Etcd) -> Result<String> {
    let refusal = member.join(token, etcd).err().context("it was let in")?;
    let listed = member.miharu(&["cluster", "list"]);
    assert!(listed.is_err(), "it says that it is in a cluster: {listed:?}");
    Ok(format!("{refusal:#}"))
}

#[test]
fn a_token_lets_one_server_in_once_and_no_forged_one_does() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let cluster = Cluster::start()?;
    let names = ["abydos", "langara", "orilla"].map(|name| (name, "ONLINE"));
    for member in &cluster.members {
        cluster.shown(member, &names)?;
    }
    let late = Member::start(&cluster.network, "late")?;
    let token = cluster.first().invite("late")?;
    for (what, token) in [
        ("rubbish", "rubbish".to_owned()),
        ("nothing", String::new()),
        ("cut", token[..token.len() / 2].to_owned()),
        ("longer", format!("{token}AAAA")),
        ("secret", forged(&token, "secret", json!("00".repeat(32)))?),
        ("cluster", forged(&token, "cluster", json!("00000000-0000-4000-8000-000000000000"))?),
        ("store", forged(&token, "store", json!(format!("{}/other", cluster.etcd.url())))?),
        ("member", forged(&token, "member", json!("another"))?),
        ("taken name", forged(&token, "member", json!("langara"))?),
        ("huge", "A".repeat(100_000)),
    ] {
        let complaint = refused(&late, &token, &cluster.etcd).with_context(|| what.to_owned())?;
        assert!(!complaint.contains("panick"), "{what}: {complaint}");
    }
    late.join(&token, &cluster.etcd)?;
    let mut four = names.to_vec();
    four.push(("late", "ONLINE"));
    cluster.shown(cluster.first(), &four)?;

    let later = Member::start(&cluster.network, "later")?;
    let complaint = refused(&later, &token, &cluster.etcd)?;
    assert!(complaint.contains("used") || complaint.contains("no longer"), "{complaint}");
    let taken = cluster.first().invite("late").err().context("a name was given twice")?;
    assert!(format!("{taken:#}").contains("late"), "{taken:#}");
    assert!(late.join(&token, &cluster.etcd).is_err(), "a member joined twice");
    cluster.shown(cluster.first(), &four)
}

/// A token with another value in one place.
fn forged(token: &str, field: &str, value: Value) -> Result<String> {
    let text = shell::run("sh", ["-c", &format!("printf %s {token} | base64 -d")])?;
    let mut read: Value = serde_json::from_str(&text)?;
    let place = read.get_mut(field).with_context(|| format!("no {field} in the token"))?;
    *place = value;
    let mut encode = Command::new("sh");
    encode.args(["-c", "printf %s \"$0\" | base64 -w0"]).arg(read.to_string());
    shell::output(&mut encode)
}

#[test]
fn a_token_that_has_expired_lets_nobody_in_whatever_the_clock_says() -> Result<()> {
    need!(Containers, Etcd, Tls, Faketime);
    let cluster = Cluster::start()?;
    let late = Member::with_clock(&cluster.network, "late")?;
    cluster.first().miharu(&["config", "set", "cluster.join_token_expiry", "2S"])?;
    let token = cluster.first().invite("late")?;
    // The clock of who joins says that the token is young.
    late.set_clock(-3600)?;
    std::thread::sleep(Duration::from_secs(5));
    let complaint = refused(&late, &token, &cluster.etcd)?;
    assert!(complaint.contains("expired") || complaint.contains("used"), "{complaint}");
    // And what the token itself says about it counts for nothing.
    refused(&late, &forged(&token, "expires_at", json!(i64::from(u32::MAX)))?, &cluster.etcd)?;
    Ok(())
}

#[test]
fn a_member_of_another_cluster_is_nobody_here() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let cluster = Cluster::start()?;
    // It is on the same etcd, with a name of its own there.
    let other = Member::start(&cluster.network, "other")?;
    other.enable_at(&format!("{}/second", cluster.etcd.url()), &cluster.etcd)?;
    let third = Member::start(&cluster.network, "third")?;
    third.join(&other.invite("third")?, &cluster.etcd)?;
    for stranger in [&other, &third] {
        let shown =
            Certificate { crt: stranger.dir.join("server.crt"), key: stranger.dir.join("server.key") };
        let cluster_s =
            Certificate { crt: stranger.dir.join("cluster.crt"), key: stranger.dir.join("cluster.key") };
        for client in [shown, cluster_s] {
            assert_eq!(cluster.statuses(&client), [403, 403, 403]);
            let reply =
                cluster.ask(&cluster.first().https_address(), "/1.0/cluster/members", Some(&client), &[])?;
            assert_eq!(reply.status, 403);
        }
    }
    let complaint =
        third.join(&cluster.first().invite("third")?, &cluster.etcd).err().context("in two clusters")?;
    assert!(format!("{complaint:#}").contains("cluster"), "{complaint:#}");
    let listed = third.miharu(&["cluster", "list", "--format", "csv"])?;
    assert!(listed.contains("other,") && !listed.contains("abydos"), "{listed}");
    let again = Member::start(&cluster.network, "again")?;
    let taken = again.enable(&cluster.etcd).err().context("a cluster was made over another")?;
    assert!(!format!("{taken:#}").is_empty());
    shell::wait_for("the first cluster as it was", Duration::from_secs(5), || {
        let list = cluster.first().miharu(&["cluster", "list", "--format", "csv"]).ok()?;
        (list.lines().count() == 3).then_some(())
    })
}

#[test]
fn an_etcd_with_tls_and_users_serves_a_cluster_too() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let cluster = Cluster::over(|network| etcd::plan().nodes(3).on(network).tls().users().start())?;
    cluster.first().miharu(&["config", "set", "user.word", "secret way"])?;
    crate::all_show(&cluster, "user.word", "secret way")?;
    for member in &cluster.members {
        cluster.shown(member, &["abydos", "langara", "orilla"].map(|name| (name, "ONLINE")))?;
        assert!(!member.daemon()?.log().contains(etcd::PASSWORD), "the password is in a log");
    }
    // Who has a token and no way into etcd does not get in.
    let late = Member::start(&cluster.network, "late")?;
    let token = cluster.first().invite("late")?;
    assert!(late.miharu(&["cluster", "join", &token]).is_err());
    late.join(&token, &cluster.etcd)
}

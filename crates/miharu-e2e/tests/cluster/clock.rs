//! A member whose clock jumps: who is trusted, who is there, and how old a copy is do not depend on it.

use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::cluster::Cluster;
use miharu_e2e::tls::Certificate;
use miharu_e2e::{need, shell};

use crate::{age, all_show, until_warned};

const HOUR: i64 = 3600;

#[test]
fn a_clock_that_jumps_changes_nobody_s_trust() -> Result<()> {
    need!(Containers, Etcd, Tls, Faketime);
    let cluster = Cluster::with_clocks()?;
    let client = Certificate::create("metrics")?;
    let crt = client.crt.to_str().context("path")?;
    cluster.first().miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    cluster.first().miharu(&["config", "set", "cluster.trust_max_age", "1M"])?;
    cluster.becomes(&client, &[200, 200, 200])?;
    let jumper = &cluster.members[1];
    let online = ["abydos", "langara", "orilla"].map(|name| (name, "ONLINE"));
    for (number, ahead) in [HOUR, 300 * 24 * HOUR, 0, 2 * HOUR].into_iter().enumerate() {
        jumper.set_clock(ahead)?;
        // The figures show whether the clock was taken at all.
        let clock = |member: &miharu_e2e::cluster::Member| {
            member.scrape()?.sum("incus_time_seconds", &[("name", &format!("{}-1", member.name))])
        };
        let differs = clock(jumper)? - clock(cluster.first())?;
        #[allow(clippy::cast_precision_loss, reason = "a few years")]
        let wanted = ahead as f64;
        assert!((differs - wanted).abs() < 30.0, "{differs} instead of {ahead}");
        let word = format!("jump {number}");
        jumper.miharu(&["config", "set", "user.word", &word])?;
        all_show(&cluster, "user.word", &word)?;
        std::thread::sleep(Duration::from_secs(2));
        assert!(age(jumper)? < 30.0, "{}", age(jumper)?);
        assert_eq!(cluster.statuses(&client), [200, 200, 200], "{ahead}");
        for member in &cluster.members {
            cluster.shown(member, &online)?;
        }
    }
    Ok(())
}

#[test]
fn a_clock_that_was_set_back_makes_no_old_copy_young() -> Result<()> {
    need!(Containers, Etcd, Tls, Faketime);
    let mut cluster = Cluster::with_clocks()?;
    let client = Certificate::create("metrics")?;
    let crt = client.crt.to_str().context("path")?;
    cluster.first().miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    cluster.first().miharu(&["config", "set", "cluster.trust_max_age", "1M"])?;
    all_show(&cluster, "cluster.trust_max_age", "1M")?;
    cluster.becomes(&client, &[200, 200, 200])?;
    let jumper = &mut cluster.members[2];
    jumper.host.cut()?;
    jumper.kill();
    jumper.set_clock(-24 * HOUR)?;
    jumper.restart()?;
    until_warned(jumper, true)?;
    assert_eq!(jumper.local_status(&client)?, 403, "nobody knows how old this copy is");
    jumper.kill();
    jumper.set_clock(24 * HOUR)?;
    jumper.restart()?;
    assert_eq!(jumper.local_status(&client)?, 403, "the copy is a day old, by this clock");
    jumper.set_clock(0)?;
    jumper.host.mend()?;
    shell::wait_for("trust again", miharu_e2e::cluster::SOON, || {
        (cluster.statuses(&client) == [200, 200, 200]).then_some(())
    })
}

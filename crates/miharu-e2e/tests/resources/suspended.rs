//! A host that sleeps, which a virtual machine can do for real: figures from before its sleep are not young when it wakes up, and
//! rates are counted over all of the time between.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use miharu_e2e::{Lxc, Miharud, shell};

/// How long it sleeps, seconds.
const ASLEEP: u64 = 25;
/// What lies at least between two moments before and after. The alarm goes by a clock of whole seconds, and is set some time before.
const LEAST: f64 = 22.0;
/// How old figures may be, seconds: less than that, and more than all else here takes.
const CACHE: &str = "20";

#[test]
fn figures_from_before_the_host_s_sleep_are_not_served_after_it() -> Result<()> {
    // Nobody lets a machine sleep that is not ours: `cgroup2_guest` does in its own.
    if std::env::var_os("MIHARU_MAY_SLEEP").is_none() {
        return Ok(());
    }
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    assert!(daemon.scrape()?.instances().contains(&lxc.name));
    daemon.miharu(&["config", "set", "metrics.cache_seconds", CACHE])?;
    let only = [("name", lxc.name.as_str())];
    let moment = || -> Result<(f64, f64)> {
        let scrape = daemon.scrape()?;
        Ok((
            scrape.value("incus_scrape_timestamp_seconds", &[])?,
            scrape.sum("incus_cpu_seconds_total", &only)?,
        ))
    };
    let interval = |query: &str| -> Result<f64> {
        let usage = daemon.get(&format!("/1.0/usage{query}"))?;
        let usage: serde_json::Value = serde_json::from_slice(&usage.body)?;
        usage["metadata"]["interval"].as_f64().with_context(|| usage.to_string())
    };
    // So that what the cache has is a second old at most.
    shell::wait_for("two collections", Duration::from_secs(60), || {
        interval("?max_age=1").ok().filter(|interval| *interval >= 1.0)
    })?;
    let before = moment()?;
    let awake = Instant::now();
    assert_eq!(moment()?.0, before.0, "the cache is in use");
    fs::write("/sys/class/rtc/rtc0/wakealarm", format!("+{ASLEEP}")).context("the alarm")?;
    fs::write("/sys/power/state", "mem").context("falling asleep")?;
    let after = moment()?;
    let awake = awake.elapsed();
    println!("asleep for {:.1} s by the figures' own clock, awake for {awake:.1?}", after.0 - before.0);
    ensure!(awake < Duration::from_secs(19), "awake for {awake:?}: who sleeps so little shows nothing");
    ensure!(
        after.0 - before.0 > LEAST,
        "figures of {} s later after {ASLEEP} s of sleep",
        after.0 - before.0
    );
    ensure!(after.1 >= before.1, "{after:?}");
    let counted = interval("")?;
    ensure!(counted > LEAST, "rates over {counted} s after {ASLEEP} s of sleep");
    shell::wait_for("an answer as ever", Duration::from_secs(5), || daemon.scrape().ok())?;
    Ok(())
}

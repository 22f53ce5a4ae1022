//! A daemon that stands still for a while: stopped by a signal, or by a hypervisor that gives its host no time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::{Exposition, shell};

use crate::{daemon_of, is_chaos, succeeded, tree};

#[test]
fn a_daemon_that_stood_still_answers_who_waited_with_figures_of_now() -> Result<()> {
    let tree = tree(20)?;
    let daemon = daemon_of(&tree)?;
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "5"])?;
    let socket = daemon.dir.join("unix.socket");
    let mut kept = Scraper::unix(&socket)?;
    kept.get("/1.0/metrics", &[])?;
    let pid = daemon.pid().to_string();
    let length = Duration::from_secs(if is_chaos() { 50 } else { 8 });
    shell::run("kill", ["-STOP", &pid])?;
    let waiting = std::thread::spawn(move || {
        let started = Instant::now();
        Scraper::unix(&socket)?.get("/1.0/metrics", &[]).map(|reply| (reply, started.elapsed()))
    });
    std::thread::sleep(length);
    shell::run("kill", ["-CONT", &pid])?;
    let went_on = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let (reply, waited) = waiting.join().unwrap()?;
    assert!(waited >= length - Duration::from_secs(1), "{waited:?}");
    let scrape = Exposition::parse(&reply.text())?;
    assert_eq!(succeeded(&scrape), 20);
    let collected = scrape.value("incus_scrape_timestamp_seconds", &[]).context("when they are from")?;
    assert!(collected >= went_on - 1.0, "figures {} s from before", went_on - collected);
    // The connection that was kept may have been idle for too long, by then; new ones are answered as ever.
    let _ = kept.get("/1.0/metrics", &[]);
    assert_eq!(succeeded(&daemon.scrape()?), 20);
    Ok(())
}

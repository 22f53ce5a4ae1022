//! A clock that is set while the daemon runs: back by an hour, forward by a year.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use miharu_e2e::cluster::faketime;
use miharu_e2e::tls::{self, Certificate};
use miharu_e2e::{Miharud, need, scratch, shell};

use crate::{daemon_by, succeeded, tree};

const HOUR: i64 = 3600;
const YEAR: i64 = 366 * 24 * HOUR;

/// A daemon with a clock of its own.
struct Clocked {
    daemon: Miharud,
    file: PathBuf,
}

impl Clocked {
    fn start(tree: &Path) -> Result<Self> {
        let file = scratch::dir("clock")?.join("ahead");
        fs::write(&file, "+0\n")?;
        let mut command = Command::new("env");
        command
            .arg(format!("LD_PRELOAD={}", faketime().context("no libfaketime")?.display()))
            .arg(format!("FAKETIME_TIMESTAMP_FILE={}", file.display()))
            // The kernel's monotonic clock never jumps: only the other one is made to.
            .args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]);
        Ok(Self { daemon: daemon_by(command, tree)?, file })
    }

    fn set(&self, ahead: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{ahead:+}\n"))?;
        fs::rename(new, &self.file)?;
        Ok(())
    }
}

/// A certificate that is valid from now on for so many days.
fn valid_for(days: u32) -> Result<Certificate> {
    let dir = scratch::dir("tls")?;
    let line = tls::openssl_line("short").replace("-days 3650", &format!("-days {days}"));
    ensure!(line.contains(&format!("-days {days} ")), "{line}");
    shell::output(Command::new("/bin/sh").args(["-c", &line]).current_dir(&dir))?;
    Ok(Certificate { crt: dir.join("short.crt"), key: dir.join("short.key") })
}

#[test]
fn a_clock_that_is_set_makes_nothing_negative_and_no_figure_old() -> Result<()> {
    need!(Faketime);
    let tree = tree(5)?;
    let clocked = Clocked::start(&tree)?;
    let daemon = &clocked.daemon;
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "2"])?;
    let counter = |scrape: &miharu_e2e::Exposition| scrape.sum("incus_cpu_seconds_total", &[]);
    let first = counter(&daemon.scrape()?)?;
    for ahead in [-HOUR, 0, YEAR, YEAR - HOUR, -YEAR, 0] {
        clocked.set(ahead)?;
        std::thread::sleep(Duration::from_millis(2200));
        let scrape = daemon.scrape()?;
        assert_eq!(succeeded(&scrape), 5, "{ahead}");
        // What counts time may not run backwards, whatever the clock says; the strict reader refuses negative counters.
        assert!(counter(&scrape)? >= first, "{ahead}");
        let negative: Vec<_> = scrape.samples().filter(|sample| sample.value < 0.0).collect();
        assert!(negative.is_empty(), "{ahead}: {negative:?}");
        let uptime = scrape.value("incus_uptime_seconds", &[])?;
        assert!(uptime < 600.0, "{ahead}: {uptime}");
        // The figures are of now by the new clock: the cache is not older than it may be.
        #[allow(clippy::cast_precision_loss, reason = "a few years")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() + ahead as f64;
        let collected = scrape.value("incus_scrape_timestamp_seconds", &[])?;
        assert!((now - collected).abs() < 15.0, "{ahead}: {} s old", now - collected);
    }
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    Ok(())
}

#[test]
fn certificates_follow_the_clock_there_and_back() -> Result<()> {
    need!(Faketime, Tls);
    let tree = tree(1)?;
    let clocked = Clocked::start(&tree)?;
    let daemon = &clocked.daemon;
    let address = daemon.listen("core.metrics_address")?;
    let (short, long) = (valid_for(90)?, Certificate::create("long")?);
    for certificate in [&short, &long] {
        let crt = certificate.crt.to_str().context("path")?;
        daemon.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    }
    let server = daemon.dir.join("server.crt");
    let ask = |client: &Certificate| tls::ask(&address, "/1.0/metrics", &server, Some(client), &[]);
    for (ahead, wanted) in
        [(0, [200, 200]), (YEAR, [403, 200]), (0, [200, 200]), (-YEAR, [403, 403]), (0, [200, 200])]
    {
        clocked.set(ahead)?;
        let replies = [ask(&short)?, ask(&long)?];
        assert_eq!([replies[0].status, replies[1].status], wanted, "{ahead}");
        // Why is told to whoever is at the machine, as soon as they look.
        let told = daemon.miharu(&["warning", "list", "--format", "json"])?;
        assert_eq!(told.contains("ended at"), ahead == YEAR, "{ahead}: {told}");
    }
    Ok(())
}

//! Drivers of runtimes that are not there: no thread, no descriptor, no reading, no word.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use miharu_e2e::{Lxc, Miharud, cgroup, measure, need, scratch, shell};

/// How often each daemon is scraped.
const SCRAPES: u64 = 30;

/// The names of a process' threads, and how many have each.
fn threads(pid: u32) -> Result<BTreeMap<String, usize>> {
    let mut all = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        *all.entry(name.trim().to_owned()).or_default() += 1;
    }
    Ok(all)
}

/// How often a process has called `read` and its like.
fn reads(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("syscr: ")).context(text.clone())?;
    Ok(line.parse()?)
}

#[test]
fn runtimes_that_are_not_installed_cost_nothing_and_are_not_spoken_of() -> Result<()> {
    need!(Lxc);
    // What others run on this machine would be found, and its runtimes asked for names. On version 2 the script cannot hide it.
    if std::env::var_os("MIHARU_ALONE").is_none() && !cgroup::is_v2() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/alone.sh");
        let mut again = Command::new(script);
        again.arg(std::env::current_exe()?).args(["--nocapture", "absent::"]);
        // It must not take this run's folder for a dead one's, as it does not see whose it is.
        again.env("TMPDIR", scratch::dir("alone")?);
        println!("{}", shell::output(&mut again)?);
        return Ok(());
    }
    // The host has no state of any runtime, as far as miharud can see.
    let empty = scratch::dir("empty")?.display().to_string();
    let args = ["--run", empty.as_str(), "--var-lib", empty.as_str()];
    let (all, few) = (Miharud::fresh(&args)?, Miharud::fresh(&args)?);
    // Virtual machines are found by their processes: each that has come since the last scan is looked at.
    few.miharu(&["config", "set", "instances.drivers", "lxc,qemu"])?;
    let lxc = Lxc::start(&[])?;
    let cost = |daemon: &Miharud| -> Result<(u64, f64)> {
        for _ in 0..5 {
            daemon.scrape()?;
        }
        let (before, cpu) = (reads(daemon.pid())?, measure::cpu(daemon.pid())?);
        for _ in 0..SCRAPES {
            assert!(daemon.scrape()?.instances().contains(&lxc.name));
        }
        let spent = measure::cpu(daemon.pid())?.saturating_sub(cpu);
        Ok((reads(daemon.pid())? - before, spent.as_secs_f64() * 1000.0))
    };
    let (of_few, of_all) = (cost(&few)?, cost(&all)?);
    println!("{SCRAPES} scrapes with two drivers: {of_few:.1?} reads and ms; with all: {of_all:.1?}");
    assert!(of_all.0 <= of_few.0 + 2, "reads in {SCRAPES} scrapes: {of_all:?}, with two drivers {of_few:?}");
    let (mine, others) = (threads(all.pid())?, threads(few.pid())?);
    assert_eq!(mine.keys().collect::<Vec<_>>(), others.keys().collect::<Vec<_>>(), "threads of a driver");
    assert!(measure::open_files(all.pid())? <= measure::open_files(few.pid())? + 1);
    assert_eq!(all.miharu(&["warning", "list", "--all", "--format", "csv"])?.trim(), "");
    let log = all.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    Ok(())
}

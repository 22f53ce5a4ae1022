//! What `/1.0/usage` and histories say, against the container's own cgroup, through stops, restarts and times in which nobody asks;
//! and what the histories of 500 containers take.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::{Lxc, Miharud, cgroup, host_tree, need, scratch};
use serde_json::Value;

/// Burns a CPU until it is told otherwise, and says who it is.
const BURN: &str = "(while :; do :; done) >/dev/null 2>&1 </dev/null & echo $!";

/// The whole answer, of figures that are a second old at most.
fn usage(daemon: &Miharud) -> Result<Value> {
    let reply = daemon.get("/1.0/usage?max_age=1")?;
    ensure!(reply.status == 200, "{}", reply.text());
    Ok(reply.json()?["metadata"].clone())
}

/// This container's part of it.
fn of<'a>(usage: &'a Value, lxc: &Lxc) -> Option<&'a Value> {
    usage["instances"].as_array()?.iter().find(|instance| instance["name"] == lxc.name.as_str())
}

fn cpu(daemon: &Miharud, lxc: &Lxc) -> Result<Option<f64>> {
    let usage = usage(daemon)?;
    Ok(of(&usage, lxc).context("it is not there")?["figures"]["cpu"].as_f64())
}

fn history(daemon: &Miharud, lxc: &Lxc, figure: &str) -> Result<Vec<Option<f64>>> {
    let reply = daemon.get(&format!("/1.0/instances/{}/history", lxc.name))?;
    let history = reply.json()?["metadata"].clone();
    let values = history["figures"][figure].as_array().with_context(|| history.to_string())?;
    Ok(values.iter().map(Value::as_f64).collect())
}

/// CPU seconds that the kernel charged to it.
fn charged(lxc: &Lxc) -> Result<f64> {
    let cgroups = lxc.cgroups()?;
    if cgroup::is_v2() {
        let key = |key| cgroups.key("cpu", ("", ""), ("cpu.stat", key));
        return Ok((key("user_usec")? + key("system_usec")?) / 1e6);
    }
    let text = cgroups.read("cpuacct", "cpuacct.usage_all", "")?;
    let columns = text.lines().skip(1).flat_map(|line| line.split(' ').skip(1));
    let nanoseconds: f64 = columns.filter_map(|number| number.parse::<f64>().ok()).sum();
    Ok(nanoseconds / 1e9)
}

#[test]
fn rates_are_what_the_kernel_charged_between_two_looks() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    lxc.exec(BURN)?;
    // What comes less than a second after another collection is passed over.
    sleep(Duration::from_millis(1100));
    let look = || -> Result<(f64, Value, f64)> { Ok((charged(&lxc)?, usage(&daemon)?, charged(&lxc)?)) };
    let (before_first, first, after_first) = look()?;
    assert_eq!(of(&first, &lxc).context("first")?["figures"].get("cpu"), None, "there is one reading alone");
    sleep(Duration::from_secs(3));
    let (before, second, after) = look()?;
    let interval = second["interval"].as_f64().context("interval")?;
    assert!((3.0..60.0).contains(&interval), "{interval}");

    let mine = of(&second, &lxc).context("second")?;
    let figure = |name: &str| mine["figures"][name].as_f64().with_context(|| format!("{name}: {mine}"));
    let grown = figure("cpu")? * interval;
    let slack = 0.001 + interval * 1e-6;
    let least = before - after_first - slack;
    assert!((least..=after - before_first + slack).contains(&grown), "{least} {grown}");
    assert!(grown > 0.02, "a loop cost only {grown} s");
    assert!((figure("cpu_user")? + figure("cpu_system")? - figure("cpu")?).abs() < 2e-6);
    let all = mine["cpu_seconds"].as_f64().context("cpu_seconds")?;
    assert!((before - 0.001..=after + 0.001).contains(&all), "{before} {all} {after}");

    let cpus = fs::read_to_string("/proc/cpuinfo")?.matches("processor\t").count();
    assert_eq!(second["host_cpus"], cpus);
    assert!(figure("cpu")? <= cpus as f64 * 1.05);
    let scrape = daemon.scrape()?;
    let of_scrape = |family: &str| scrape.value(family, &[("name", &lxc.name)]);
    assert_eq!(figure("memory_limit")?, of_scrape("incus_memory_MemTotal_bytes")?);
    assert!(figure("processes")? >= 2.0 && figure("memory")? > 0.0);
    assert_eq!(mine["runtime"], "lxc");
    assert_eq!(mine["project"], format!("lxc:{}", lxc.path.display()));
    assert_eq!((&mine["readable"], &mine["location"]), (&Value::Bool(true), &Value::from("none")));
    let boot_time = mine["boot_time"].as_f64().context("boot_time")?;
    assert!((boot_time - of_scrape("incus_boot_time_seconds")?).abs() < 1.5);
    Ok(())
}

#[test]
fn stops_and_restarts_make_no_spike_and_nothing_negative() -> Result<()> {
    need!(Lxc);
    let (daemon, mut lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let burning = lxc.exec(BURN)?.trim().to_owned();
    let pause = || sleep(Duration::from_millis(1600));
    let most = f64::from(u32::try_from(std::thread::available_parallelism()?.get())?) * 1.05;
    let next = |lxc: &Lxc| -> Result<f64> {
        // What comes less than a second after another collection is passed over.
        pause();
        cpu(&daemon, lxc)?;
        pause();
        cpu(&daemon, lxc)?.context("no rate between two collections")
    };
    let busy = next(&lxc)?;
    assert!((0.01..most).contains(&busy), "{busy}");
    lxc.exec(&format!("kill -STOP {burning}"))?;
    let stopped = next(&lxc)?;
    assert!(stopped < busy / 2.0, "{stopped} after {busy}");
    lxc.exec(&format!("kill -CONT {burning}"))?;
    let again = next(&lxc)?;
    assert!((stopped..most).contains(&again), "{again} after {stopped}");

    // Started anew between two collections: its counters are others.
    lxc.stop()?;
    lxc.boot()?;
    pause();
    assert_eq!(cpu(&daemon, &lxc)?, None);
    lxc.exec(BURN)?;
    let anew = next(&lxc)?;
    assert!((0.01..most).contains(&anew), "{anew}");
    // Gone for one.
    lxc.stop()?;
    pause();
    assert!(of(&usage(&daemon)?, &lxc).is_none());
    lxc.boot()?;
    pause();
    assert_eq!(cpu(&daemon, &lxc)?, None);

    let values = history(&daemon, &lxc, "cpu")?;
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    assert!(!known.is_empty() && known.iter().all(|cpu| (0.0..most).contains(cpu)), "{known:?}");
    // What it was is remembered while it is away.
    lxc.stop()?;
    pause();
    usage(&daemon)?;
    assert_eq!(history(&daemon, &lxc, "cpu")?.len(), 120);
    assert_eq!(daemon.get("/1.0/instances/nobody/history")?.status, 404);
    Ok(())
}

#[test]
fn where_nobody_asks_the_history_has_no_holes() -> Result<()> {
    need!(Lxc);
    let lxc = Lxc::start(&[])?;
    let daemon = Miharud::with(&[])?;
    // The collection of its start, and the one that it makes by itself when nobody has asked for 65 seconds.
    sleep(Duration::from_secs(75));
    let values = history(&daemon, &lxc, "processes")?;
    let known = values.iter().rev().skip_while(|value| value.is_none()).take_while(|value| value.is_some());
    assert!(known.count() >= 3, "{values:?}");
    let reply = daemon.get("/1.0/usage?recent=true")?.json()?;
    let recent = of(&reply["metadata"], &lxc).context("it is not there")?["recent"].clone();
    assert_eq!(recent["memory"].as_array().context("memory")?.len(), 60);

    daemon.miharu(&["config", "set", "ui.history", "false"])?;
    let reply = daemon.get(&format!("/1.0/instances/{}/history", lxc.name))?.json()?;
    assert_eq!(reply["metadata"]["missing"], "off");
    let reply = daemon.get("/1.0/usage?recent=true")?.json()?;
    assert_eq!(of(&reply["metadata"], &lxc).context("it is not there")?.get("recent"), None);
    Ok(())
}

/// Resident memory in bytes.
fn resident(daemon: &Miharud) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[test]
fn histories_of_500_containers_take_little_memory() -> Result<()> {
    let tree = scratch::dir("tree")?;
    let names: Vec<String> = (0..500).map(|number| format!("c{number}")).collect();
    host_tree::make(&tree, &names)?;
    let daemon = Miharud::with(&["--root", tree.to_str().context("path")?])?;
    let looks = |count: u32| -> Result<u64> {
        for _ in 0..count {
            assert_eq!(usage(&daemon)?["instances"].as_array().context("instances")?.len(), 500);
            sleep(Duration::from_millis(1100));
        }
        resident(&daemon)
    };
    daemon.miharu(&["config", "set", "ui.history", "false"])?;
    let without = looks(4)?;
    daemon.miharu(&["config", "set", "ui.history", "true"])?;
    let with = looks(4)?;
    let figures = daemon.get("/1.0/instances/c7/history")?.json()?["metadata"]["figures"].clone();
    let figures = figures.as_object().context("figures")?.len();
    let bytes = with.saturating_sub(without);
    println!(
        "histories of 500 containers: {bytes} bytes ({figures} figures each; {with} resident with them)"
    );
    // The rings alone, and what the heap rounds up.
    assert!(bytes < 5_000_000, "{bytes}");
    Ok(())
}

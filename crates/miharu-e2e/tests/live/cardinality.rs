//! The server keys that cut cardinality, on a real container: what goes, what stays, and that the rest of the API keeps
//! telling everything.

use std::collections::BTreeSet;

use anyhow::Result;
use miharu_e2e::cgroup;
use miharu_e2e::{Exposition, Lxc, Miharud, need};

use crate::lxc_figures::between;

fn families(scrape: &Exposition) -> BTreeSet<String> {
    scrape.samples().map(|sample| sample.name.clone()).collect()
}

/// Changes server keys, and tells what a refused change was answered.
fn set(daemon: &Miharud, change: &str) -> Result<(), String> {
    daemon.miharu(&["config", "set", change]).map(drop).map_err(|error| format!("{error:#}"))
}

#[test]
fn all_cpus_together_are_the_sum_over_all_cpus() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let name = ("name", lxc.name.as_str());
    let each = daemon.scrape()?;
    let before = each.select("incus_cpu_seconds_total", &[name]).len();
    set(&daemon, "metrics.per_cpu=false").unwrap();
    let together = daemon.scrape()?;
    let samples = together.select("incus_cpu_seconds_total", &[name]);
    assert_eq!(samples.len(), 2, "one for each mode, where there were {before}");
    assert!(samples.iter().all(|sample| sample.label("cpu").is_empty()), "{samples:?}");
    for (column, mode) in [(1, "user"), (2, "system")] {
        let labels = [name, ("mode", mode)];
        let read = || -> Result<f64> {
            let cgroups = lxc.cgroups()?;
            if cgroup::is_v2() {
                return Ok(cgroups.key("cpu", ("", ""), ("cpu.stat", &format!("{mode}_usec")))? / 1e6);
            }
            let text = cgroups.read("cpuacct", "cpuacct.usage_all", "")?;
            let cpus = text.lines().skip(1);
            let times = cpus.filter_map(|line| line.split(' ').nth(column)?.parse::<u64>().ok());
            Ok(times.sum::<u64>() as f64 / 1e9)
        };
        between(&daemon, "incus_cpu_seconds_total", &labels, read)?;
        let sum = each.sum("incus_cpu_seconds_total", &labels)?;
        assert!(together.value("incus_cpu_seconds_total", &labels)? >= sum, "the sum goes on where it was");
    }
    assert_eq!(families(&each), families(&together));
    // A cached answer does not outlive the key that it was made under.
    set(&daemon, "metrics.cache_seconds=3600").unwrap();
    assert_eq!(daemon.scrape()?.select("incus_cpu_seconds_total", &[name]).len(), 2);
    daemon.miharu(&["config", "unset", "metrics.per_cpu"])?;
    assert_eq!(daemon.scrape()?.select("incus_cpu_seconds_total", &[name]).len(), before);
    Ok(())
}

#[test]
fn excluded_families_go_and_nothing_else_does() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let all = families(&daemon.scrape()?);
    set(
        &daemon,
        "metrics.families.exclude=incus_filesystem_*, network_*,memory_?ctive*,process_*,uptime_seconds",
    )
    .unwrap();
    let scrape = daemon.scrape()?;
    let gone = |name: &&String| {
        ["incus_filesystem_", "incus_network_", "incus_memory_Active", "process_", "incus_uptime_"]
            .iter()
            .any(|begin| name.starts_with(begin))
    };
    let expected: BTreeSet<String> = all.iter().filter(|name| !gone(name)).cloned().collect();
    assert!(expected.len() + 15 < all.len(), "{all:?}");
    assert_eq!(families(&scrape), expected);
    let name = [("name", lxc.name.as_str())];
    assert_eq!(scrape.value("incus_instance_scrape_success", &name)?, 1.0);
    // What is not served as metrics is still known to the rest of the API, also right after a scrape.
    daemon.miharu(&["config", "set", "metrics.cache_seconds=3600"])?;
    assert_eq!(families(&daemon.scrape()?), expected);
    let state = daemon.get(&format!("/1.0/instances/{}/state", lxc.name))?.json()?;
    assert!(state["metadata"]["disk"]["root"]["total"].as_u64().is_some_and(|size| size > 0), "{state}");
    assert!(state["metadata"]["network"]["lo"].is_object(), "{state}");
    assert_eq!(families(&daemon.scrape()?), expected);
    daemon.miharu(&["config", "unset", "metrics.families.exclude"])?;
    assert_eq!(families(&daemon.scrape()?), all);
    Ok(())
}

#[test]
fn excluded_devices_go_and_their_neighbours_stay() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let name = ("name", lxc.name.as_str());
    let of = |scrape: &Exposition, family: &str| -> BTreeSet<String> {
        let samples = scrape.select(family, &[name]);
        samples.iter().map(|sample| sample.label("device").to_owned()).collect()
    };
    let all = daemon.scrape()?;
    assert!(of(&all, "incus_network_receive_bytes_total").contains("lo"), "a container has its own lo");
    assert_eq!(all.select("incus_filesystem_size_bytes", &[name, ("mountpoint", "/")]).len(), 1);
    set(&daemon, "metrics.devices.exclude=network:l?").unwrap();
    let without = daemon.scrape()?;
    assert!(!of(&without, "incus_network_receive_bytes_total").contains("lo"));
    assert_eq!(
        of(&without, "incus_filesystem_size_bytes"),
        of(&all, "incus_filesystem_size_bytes"),
        "only network interfaces were named"
    );
    set(&daemon, "metrics.devices.exclude=/").unwrap();
    let without = daemon.scrape()?;
    assert!(without.select("incus_filesystem_size_bytes", &[name, ("mountpoint", "/")]).is_empty());
    assert!(of(&without, "incus_network_receive_bytes_total").contains("lo"), "the earlier pattern is gone");
    assert_eq!(without.value("incus_instance_scrape_success", &[name])?, 1.0);
    Ok(())
}

#[test]
fn a_slip_in_a_pattern_is_told_and_changes_nothing() -> Result<()> {
    let daemon = Miharud::start()?;
    for (change, reason) in [
        ("metrics.families.exclude=presure_*", "'presure_*' matches no metric"),
        ("metrics.families.exclude=pressure_*,memory_[", "'memory_[': a '[' has no ']'"),
        ("metrics.devices.exclude=lo,netwrok:veth*", "there are no devices of the kind 'netwrok'"),
        ("metrics.per_cpu=perhaps", "invalid boolean"),
    ] {
        let error = set(&daemon, change).unwrap_err();
        let (key, value) = change.split_once('=').unwrap();
        assert!(error.contains(&format!("cannot set '{key}' to '{value}': ")), "{error}");
        assert!(error.contains(reason), "{error}");
        assert_eq!(daemon.miharu(&["config", "get", key])?.trim(), "");
    }
    // One that names nothing that runs now is taken: devices come and go.
    set(&daemon, "metrics.devices.exclude=veth*,filesystem:nas:*").unwrap();
    assert_eq!(
        daemon.miharu(&["config", "get", "metrics.devices.exclude"])?.trim(),
        "veth*,filesystem:nas:*"
    );
    Ok(())
}

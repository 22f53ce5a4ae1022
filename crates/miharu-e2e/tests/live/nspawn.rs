//! Machines of systemd-nspawn, without machined.

use anyhow::{Context, Result};
use miharu_e2e::cgroup;
use miharu_e2e::nspawn::Nspawn;
use miharu_e2e::{Miharud, need};

use crate::lxc_figures::between;

#[test]
fn a_machine_has_name_project_type_and_true_figures() -> Result<()> {
    need!(Nspawn);
    let daemon = Miharud::start()?;
    let machine = Nspawn::start()?;
    machine.exec("ip link set lo up && ping -q -c 5 -i 0.05 -s 1000 127.0.0.1 >/dev/null")?;
    let scrape = daemon.scrape()?;
    let name = [("name", machine.name.as_str())];
    let mine: Vec<_> = scrape.samples().filter(|sample| sample.label("name") == machine.name).collect();
    assert!(mine.len() > 30, "only {} series", mine.len());
    assert!(
        mine.iter().all(|sample| sample.label("project") == "nspawn" && sample.label("type") == "container")
    );
    assert_eq!(scrape.value("incus_instance_scrape_success", &name)?, 1.0);

    // The machine's cgroup is the scope; on version 2 its init sits in `payload` below, and the supervisor beside it.
    let own = machine.cgroups()?;
    let scope = |controller: &str| -> Result<std::path::PathBuf> {
        let dir = own.dir(controller)?;
        let scope = dir.ancestors().find(|dir| dir.to_string_lossy().ends_with(".scope"));
        Ok(scope.with_context(|| format!("{} is below no scope", dir.display()))?.to_owned())
    };
    let number = |controller: &'static str, v1: &'static str, v2: &'static str| {
        let (scope, payload) = (scope(controller), own.dir(controller));
        move || -> Result<[f64; 2]> {
            let file = if cgroup::is_v2() { v2 } else { v1 };
            let read = |dir: &std::path::Path| {
                anyhow::Ok(std::fs::read_to_string(dir.join(file))?.trim().parse::<f64>()?)
            };
            let whole = read(scope.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?)?;
            let payload = read(payload.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?)?;
            Ok([payload, whole])
        }
    };
    // Between what the payload has and what the whole scope has, as both are fair readings of "the machine".
    let pids = number("pids", "pids.current", "pids.current");
    let [payload, whole] = pids()?;
    let procs = daemon.scrape()?.value("incus_procs_total", &name)?;
    assert!((payload..=whole).contains(&procs), "{payload} {procs} {whole}");
    let memory = number("memory", "memory.usage_in_bytes", "memory.current");
    let [payload, whole] = memory()?;
    let usage = daemon.scrape()?.value("incus_memory_usage_bytes", &name)?;
    assert!((payload * 0.8..=whole * 1.2).contains(&usage), "{payload} {usage} {whole}");

    let device = [("name", machine.name.as_str()), ("device", "lo")];
    let received = between(&daemon, "incus_network_receive_bytes_total", &device, || {
        let text = machine.exec("cat /proc/net/dev")?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("lo")?;
        Ok(line.split_whitespace().next().context("lo")?.parse()?)
    })?;
    // Echo and reply both arrive on lo.
    assert!(received >= 10.0 * 1042.0 - 140.0, "{received}");
    Ok(())
}

#[test]
fn a_machine_that_ended_leaves_the_next_collection() -> Result<()> {
    need!(Nspawn);
    let daemon = Miharud::start()?;
    let machine = Nspawn::start()?;
    let name = machine.name.clone();
    assert!(daemon.scrape()?.instances().contains(&name));
    drop(machine);
    assert!(!daemon.scrape()?.instances().contains(&name));
    Ok(())
}

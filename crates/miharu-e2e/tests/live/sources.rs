//! `miharu info NAME` names the files that figures come from: read by hand, they hold what is served.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::lxc::disk_accounting;
use miharu_e2e::miharud::between;
use miharu_e2e::{Lxc, Miharud, cgroup, need, scratch, shell};
use serde_json::Value;

/// Where one instance's figures come from, as the API tells.
struct Sources(Value);

impl Sources {
    fn of(daemon: &Miharud, name: &str) -> Result<Self> {
        let reply = daemon.get(&format!("/1.0/instances/{name}/sources"))?;
        ensure!(reply.status == 200, "{}", reply.text());
        Ok(Self(reply.json()?["metadata"].clone()))
    }

    fn group(&self, family: &str) -> Result<&Value> {
        let groups = self.0["figures"].as_array().context("no figures")?;
        let has = |group: &&Value| {
            group["families"].as_array().is_some_and(|families| families.iter().any(|name| name == family))
        };
        groups.iter().find(has).with_context(|| format!("no group with {family}: {}", self.0))
    }

    /// The file among the family's sources whose path ends so.
    fn file(&self, family: &str, ends: &[&str]) -> Result<String> {
        let group = self.group(family)?;
        let mut from = group["from"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let file = from.find(|path| ends.iter().any(|end| path.ends_with(end)));
        Ok(file.with_context(|| format!("{family} comes from no {ends:?}: {group}"))?.to_owned())
    }

    fn lacks(&self, what: &str) -> Result<String> {
        let groups = self.0["figures"].as_array().context("no figures")?;
        let group = groups.iter().find(|group| group["what"] == what);
        Ok(group.with_context(|| format!("no group {what}"))?["lacks"].to_string())
    }
}

/// The sum of the numbers that `of` takes out of a file's lines.
fn sum(path: &str, of: impl Fn(&[&str]) -> Option<f64>) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    Ok(lines.filter_map(|words| of(&words)).sum())
}

/// The number behind a key of the file.
fn key(path: &str, name: &str) -> Result<f64> {
    sum(path, |words| if words.first() == Some(&name) { words.get(1)?.parse().ok() } else { None })
}

#[test]
fn the_files_that_are_named_hold_the_figures_that_are_served() -> Result<()> {
    need!(Lxc);
    let accounting = disk_accounting(scratch::run_dir()?).context("no disk")?;
    let container = Lxc::start(&[&accounting])?;
    container.exec("ip link set lo up && ping -q -c 5 -i 0.05 127.0.0.1 >/dev/null")?;
    container.exec("dd if=/dev/zero of=/var/data bs=64k count=16 conv=fsync 2>/dev/null")?;
    // Control groups of version 1 split the time by what a tick of the clock found: it takes several to find anything.
    container.exec("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")?;
    let daemon = Miharud::start()?;
    let name = [("name", container.name.as_str())];
    daemon.scrape_until("disk figures", Duration::from_secs(10), |scrape| {
        scrape.sum("incus_disk_written_bytes_total", &name).is_ok_and(|bytes| bytes > 1e6)
    })?;
    let sources = Sources::of(&daemon, &container.name)?;

    let cpu = sources.file("incus_cpu_seconds_total", &["/cpuacct.usage_all", "/cpu.stat"])?;
    let cpu_time = || match cgroup::is_v2() {
        true => Ok((key(&cpu, "user_usec")? + key(&cpu, "system_usec")?) / 1e6),
        false => {
            sum(&cpu, |words| Some(words.get(1)?.parse::<f64>().ok()? + words.get(2)?.parse::<f64>().ok()?))
                .map(|nanos| nanos / 1e9)
        }
    };
    assert!(between(&daemon, "incus_cpu_seconds_total", &name, cpu_time)? > 0.0);
    let usage = sources.file("incus_memory_usage_bytes", &["/memory.usage_in_bytes", "/memory.current"])?;
    between(&daemon, "incus_memory_usage_bytes", &name, || sum(&usage, |words| words.first()?.parse().ok()))?;
    let stat = sources.file("incus_memory_Active_anon_bytes", &["/memory.stat"])?;
    let active = if cgroup::is_v2() { "active_anon" } else { "total_active_anon" };
    between(&daemon, "incus_memory_Active_anon_bytes", &name, || key(&stat, active))?;
    let tasks = sources.file("incus_procs_total", &["/pids.current"])?;
    assert!(
        between(&daemon, "incus_procs_total", &name, || sum(&tasks, |words| words.first()?.parse().ok()))?
            >= 1.0
    );
    let net = sources.file("incus_network_receive_bytes_total", &["/net/dev"])?;
    let lo = || sum(&net, |words| if words.first()? == &"lo:" { words.get(1)?.parse().ok() } else { None });
    let lo_labels = [("name", container.name.as_str()), ("device", "lo")];
    assert!(between(&daemon, "incus_network_receive_bytes_total", &lo_labels, lo)? > 0.0);
    let disk = sources.file("incus_disk_written_bytes_total", &["io_service_bytes_recursive", "/io.stat"])?;
    let written = || match cgroup::is_v2() {
        true => sum(&disk, |words| words.iter().find_map(|word| word.strip_prefix("wbytes=")?.parse().ok())),
        false => {
            sum(&disk, |words| if words.get(1)? == &"Write" { words.get(2)?.parse().ok() } else { None })
        }
    };
    assert!(between(&daemon, "incus_disk_written_bytes_total", &name, written)? >= 1e6);
    let group = sources.group("incus_filesystem_size_bytes")?;
    let asked = group["from"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let path = asked.filter_map(|from| from.strip_prefix("statfs of ")).find(|path| path.ends_with("/root/"));
    let df = shell::run("stat", ["-f", "-c", "%b %S", path.context("no statfs of the root")?])?;
    let size: f64 = df.split_whitespace().map(|number| number.parse::<f64>().unwrap()).product();
    let root = [("name", container.name.as_str()), ("mountpoint", "/")];
    assert_eq!(daemon.scrape()?.value("incus_filesystem_size_bytes", &root)?, size);

    assert!(sources.lacks("CPU limit")?.contains("limits its CPU"), "{}", sources.0);
    let page = daemon.miharu(&["info", &container.name])?;
    for line in [&cpu, &usage, &tasks, &net, &disk].map(|file| format!("      from {file}\n")) {
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
    for (hierarchy, dir) in container.cgroups()?.dirs().iter().map(|dir| (dir.display().to_string(), dir)) {
        assert!(page.contains(&hierarchy), "{} is not in\n{page}", dir.display());
    }
    Ok(())
}

#[test]
fn every_file_that_is_named_is_there_and_what_is_missing_has_its_reason() -> Result<()> {
    need!(Lxc);
    let container = Lxc::start(&["lxc.net.0.type = none"])?;
    let daemon = Miharud::start()?;
    daemon.miharu(&["config", "set", "metrics.families.exclude", "procs_total"])?;
    let sources = Sources::of(&daemon, &container.name)?;
    for group in sources.0["figures"].as_array().context("no figures")? {
        for from in group["from"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let path = from.trim_start_matches("statfs of ");
            assert!(fs::metadata(path).is_ok(), "{group}");
        }
        let has = |field: &str| group[field].as_array().is_some_and(|list| !list.is_empty());
        assert!(has("families") || has("lacks"), "{group}");
        assert!(!has("families") || has("from"), "{group}");
    }
    assert!(sources.lacks("Network")?.contains("host's own network"), "{}", sources.0);
    assert!(sources.lacks("Tasks")?.contains("metrics.families.exclude"), "{}", sources.0);
    let gone = daemon.get("/1.0/instances/no-such-instance/sources")?;
    assert_eq!(gone.status, 404, "{}", gone.text());
    Ok(())
}

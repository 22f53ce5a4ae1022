//! The cgroup tree goes from under the daemon and comes back, in mounts of the daemon's own.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::miharud::program;
use miharu_e2e::{Lxc, Miharud, cgroup, need, scratch, shell};

use crate::answered;

/// A line of mount for each hierarchy that the daemon sees.
fn mounts() -> Result<Vec<(String, String, String)>> {
    let text = std::fs::read_to_string("/proc/mounts")?;
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(at), Some(kind), Some(options)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if !at.starts_with("/sys/fs/cgroup") || !kind.starts_with("cgroup") {
            continue;
        }
        let general =
            ["rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec", "xattr", "clone_children"];
        let of: Vec<&str> = options.split(',').filter(|option| !general.contains(option)).collect();
        found.push((
            at.to_owned(),
            kind.to_owned(),
            if kind == "cgroup2" { String::new() } else { of.join(",") },
        ));
    }
    Ok(found)
}

#[test]
fn a_cgroup_tree_that_is_mounted_anew_is_read_again() -> Result<()> {
    need!(Lxc);
    let old = Lxc::start(&[])?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(program("miharud")?);
    let daemon = Miharud::launch(command, &scratch::dir("miharu")?, &[])?;
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "0"])?;
    let pid = daemon.pid().to_string();
    let inside =
        |line: &str| shell::run("nsenter", ["--target", &pid, "--mount", "--", "/bin/sh", "-c", line]);
    let is_there = |lxc: &Lxc| {
        let only = lxc.name.clone();
        move |scrape: &miharu_e2e::Exposition| {
            scrape.value("incus_memory_usage_bytes", &[("name", &only)]).is_ok()
                && scrape
                    .value("incus_instance_scrape_success", &[("name", &only)])
                    .is_ok_and(|value| value == 1.0)
        }
    };
    daemon.scrape_until("the first container", Duration::from_secs(5), is_there(&old))?;
    let mounts = mounts()?;
    assert!(!mounts.is_empty());
    for round in 0..2 {
        for (at, _, _) in mounts.iter().rev() {
            inside(&format!("umount -l {at}"))?;
        }
        // Nothing to be seen: an error or an answer without anybody, and in time.
        for _ in 0..3 {
            answered(&daemon).with_context(|| daemon.log())?;
        }
        let born = Lxc::start(&[])?;
        for (at, kind, options) in &mounts {
            let options = if options.is_empty() { String::new() } else { format!("-o {options}") };
            inside(&format!("mkdir -p {at} 2>/dev/null; mount -t {kind} {options} none {at}"))
                .with_context(|| format!("round {round}, version 2: {}", cgroup::is_v2()))?;
        }
        daemon
            .scrape_until("both containers", Duration::from_secs(15), |scrape| {
                is_there(&old)(scrape) && is_there(&born)(scrape)
            })
            .with_context(|| format!("round {round}\n{}", daemon.log()))?;
        // Changes are noticed on the new mounts, too.
        let late = Lxc::start(&[])?;
        daemon.scrape_until("one that came later", Duration::from_secs(5), is_there(&late))?;
        let gone = late.name.clone();
        drop(late);
        daemon
            .scrape_until("its end", Duration::from_secs(10), |scrape| !scrape.instances().contains(&gone))?;
    }
    Ok(())
}

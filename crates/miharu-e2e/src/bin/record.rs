//! Makes the recorded trees of `fixtures/` from live containers. usage: `record v1|hybrid|v2 OUT`
//!
//! `v1` and `hybrid` are made on a machine with version 1 controllers; `v2` boots the cgroup v2 guest and records in there. Each
//! tree has two LXC containers, `u1` that has worked and `u2` that has limits, and an nspawn machine `n1`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "it talks to a person at a terminal")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use miharu_e2e::lxc::{self, Config};
use miharu_e2e::netns::Netns;
use miharu_e2e::nspawn::Nspawn;
use miharu_e2e::recorder::Recording;
use miharu_e2e::{Lxc, cgroup, guest, scratch, shell};

/// What `u1` did before it was recorded.
const WORK: &str = "dd if=/dev/zero of=/var/data bs=64k count=32 conv=fsync 2>/dev/null; \
    dd if=/var/data of=/dev/null bs=64k iflag=direct 2>/dev/null; \
    mount -t tmpfs none /tmp; dd if=/dev/zero of=/tmp/held bs=64k count=16 2>/dev/null; \
    i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match (args.next(), args.next()) {
        (Some(kind), Some(out)) => record(&kind, &PathBuf::from(out)),
        _ => Err(anyhow::anyhow!("usage: record v1|hybrid|v2 OUT")),
    };
    scratch::finish();
    if let Err(error) = done {
        eprintln!("record: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn record(kind: &str, out: &Path) -> Result<()> {
    match kind {
        "v2" if !cgroup::is_v2() => return in_guest(out),
        "v1" | "hybrid" => ensure!(!cgroup::is_v2(), "this machine's controllers are on version 2"),
        "v2" => {}
        _ => bail!("unknown kind {kind}"),
    }
    let accounting = lxc::disk_accounting(scratch::run_dir()?);
    let u1 = Lxc::with(&Config {
        name: "u1".into(),
        lines: accounting.into_iter().collect(),
        ..Config::default()
    })?;
    let limits = if cgroup::is_v2() {
        ["lxc.cgroup2.memory.max = 64M", "lxc.cgroup2.cpu.max = 50000 100000"]
    } else {
        ["lxc.cgroup.memory.limit_in_bytes = 64M", "lxc.cgroup.cpu.cfs_quota_us = 50000"]
    };
    let u2 = Lxc::with(&Config {
        name: "u2".into(),
        lines: limits.map(String::from).to_vec(),
        ..Config::default()
    })?;
    let n1 = Nspawn::start()?;
    let netns = Netns::create()?;
    u1.connect(&netns, "eth0", "10.77.0.2", "10.77.0.1")?;
    u1.exec(WORK)?;
    shell::output(netns.command("busybox").args([
        "ping",
        "-q",
        "-c",
        "5",
        "-i",
        "0.1",
        "-s",
        "1000",
        "10.77.0.2",
    ]))?;

    let _ = fs::remove_dir_all(out);
    let scope = n1.cgroups()?;
    let scope = scope
        .path("pids")?
        .split_once(".scope")
        .map(|(scope, _)| format!("{}.scope", scope.trim_start_matches('/')));
    let cgroups =
        ["lxc.payload.u1".to_owned(), "lxc.payload.u2".to_owned(), scope.context("n1 is in no scope")?];
    let replace = [
        (u1.path.display().to_string(), "/var/lib/lxc".to_owned()),
        (u2.path.display().to_string(), "/var/lib/lxc".to_owned()),
        (scratch::run_dir()?.display().to_string(), "/srv".to_owned()),
        (n1.name.clone(), "n1".to_owned()),
    ];
    let without: &[&str] =
        if kind == "v1" { &["devices", "freezer", "unified"] } else { &["devices", "freezer"] };
    Recording { out, cgroups: &cgroups, without, replace: &replace }.make()?;
    for name in ["u1", "u2"] {
        // miharu asks whose the container's folder is.
        let home = out.join("var/lib/lxc").join(name);
        fs::create_dir_all(&home)?;
        fs::write(home.join("config"), "# The container's configuration was here.\n")?;
    }
    // The machine's name is in the paths, too.
    for hierarchy in shell::run(
        "find",
        [out.as_os_str(), "-depth".as_ref(), "-name".as_ref(), format!("*{}*", n1.name).as_ref()],
    )?
    .lines()
    {
        let to = hierarchy.replace(&n1.name, "n1");
        fs::rename(hierarchy, to)?;
    }
    Ok(())
}

fn in_guest(out: &Path) -> Result<()> {
    let me = std::env::current_exe()?;
    let results = guest::run(&[&me], "record v2 /results/tree\n", Duration::from_secs(180))?;
    ensure!(results.status == 0, "{}\n{}", results.log, results.console);
    let _ = fs::remove_dir_all(out);
    shell::run("cp", ["-a".as_ref(), results.dir.join("tree").as_os_str(), out.as_os_str()])?;
    Ok(())
}

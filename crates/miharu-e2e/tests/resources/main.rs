//! What a daemon does when its host runs out of something, or turns its back on what is taken for granted: descriptors, threads,
//! memory, the mounts of the cgroups, the clock, sleep; and when everything comes or goes at once. Afterwards all has to be as
//! before. `MIHARU_CHAOS=1`, as `make chaos` sets it, makes each as large and as long as the host bears.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "driving daemons from outside and showing what they say"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "a failure here is a failed test"
)]

mod cgroup2_guest;
mod clock;
mod crowd;
mod descriptors;
mod limited;
mod paused;
mod remounted;
mod suspended;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use miharu_e2e::miharud::{Reply, program};
use miharu_e2e::{Exposition, Miharud, host_tree, scratch};

/// A collection's deadline is 4 s, and it may be late by one; the rest is for a busy machine.
const LIMIT: Duration = Duration::from_secs(8);

/// Whether there is time for the long form.
fn is_chaos() -> bool {
    std::env::var_os("MIHARU_CHAOS").is_some()
}

/// A made-up host with so many containers, `c0` and so on.
fn tree(containers: usize) -> Result<PathBuf> {
    let tree = scratch::dir("tree")?;
    let names: Vec<String> = (0..containers).map(|number| format!("c{number}")).collect();
    host_tree::make(&tree, &names)?;
    Ok(tree)
}

/// A daemon that serves a tree, started by a command that becomes it, and that keeps no collection.
fn daemon_by(mut command: Command, tree: &Path) -> Result<Miharud> {
    command.arg(program("miharud")?).arg("--root").arg(tree);
    let daemon = Miharud::launch(command, &scratch::dir("miharu")?, &[])?;
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "0"])?;
    daemon.get("/1.0/metrics")?;
    Ok(daemon)
}

/// As [`daemon_by`], as it is.
fn daemon_of(tree: &Path) -> Result<Miharud> {
    daemon_by(Command::new("env"), tree)
}

/// A scrape that has to be answered in time: with figures, or with an error that says what is the matter.
fn answered(daemon: &Miharud) -> Result<Reply> {
    let started = Instant::now();
    let reply = daemon.get("/1.0/metrics")?;
    let took = started.elapsed();
    ensure!(took < miharu_e2e::shell::patient(LIMIT), "the answer took {took:?}");
    match reply.status {
        200 => drop(Exposition::parse(&reply.text())?),
        503 => ensure!(reply.text().len() > 20, "an error that says nothing: {}", reply.text()),
        other => anyhow::bail!("{other}: {}", reply.text()),
    }
    Ok(reply)
}

/// Instances that were read with success.
fn succeeded(exposition: &Exposition) -> usize {
    let all = exposition.select("incus_instance_scrape_success", &[]);
    all.iter().filter(|sample| sample.value == 1.0).count()
}

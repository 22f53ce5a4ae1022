//! Runtimes whose API socket answers, is dead, or hangs: names stay, and a scrape takes no longer.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use miharu_e2e::scratch::{self, unique};
use miharu_e2e::{Docker, Miharud, Podman, need, shell};

use crate::common::{Subject, scrape_with, served};

/// A `/run` of one's own for miharud, with the sockets where runtimes have them.
struct Run {
    dir: PathBuf,
}

impl Run {
    fn new() -> Result<Self> {
        let dir = scratch::dir("run")?;
        fs::create_dir(dir.join("podman"))?;
        Ok(Self { dir })
    }

    fn docker(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    fn daemon(&self) -> Result<Miharud> {
        Miharud::fresh(&["--run", &self.dir.display().to_string()])
    }
}

fn signal(pid: u32, name: &str) -> Result<()> {
    shell::run("kill", [format!("-{name}"), pid.to_string()]).map(drop)
}

/// Scrapes ten times and asserts that all are served each time, and none took long: on a busy machine one may have waited for its
/// turn, but never did all wait for a socket.
fn assert_on_time(daemon: &Miharud, subjects: &[Subject]) -> Result<()> {
    scrape_with(daemon, subjects.iter().map(|subject| &*subject.name))?;
    let mut fastest = Duration::MAX;
    for _ in 0..10 {
        let started = Instant::now();
        let scrape = daemon.scrape()?;
        let took = started.elapsed();
        ensure!(took < shell::patient(Duration::from_secs(2)), "a scrape took {took:?}");
        fastest = fastest.min(took);
        for subject in subjects {
            subject.assert_served(&scrape);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(fastest < Duration::from_millis(700), "even the fastest scrape took {fastest:?}");
    Ok(())
}

#[test]
fn names_stay_when_the_daemon_behind_the_socket_dies_or_hangs() -> Result<()> {
    need!(Podman, Docker);
    let run = Run::new()?;
    let mut docker = Docker::with(&["--live-restore", "-H", &run.docker()])?;
    let podman = Podman::start()?;
    let service = podman.serve(&run.dir.join("podman/podman.sock"))?;
    let daemon = run.daemon()?;
    let subjects = [
        Subject::of("docker", "docker", &docker.any(&[])?),
        Subject::of("podman", "podman", &podman.any(&[])?),
    ];
    assert_on_time(&daemon, &subjects)?;
    for pid in [docker.daemon()?, service] {
        signal(pid, "STOP")?;
    }
    assert_on_time(&daemon, &subjects)?;
    // One that starts behind a socket that hangs is learned from files, and is never there under another name.
    let late = Subject::of("podman", "podman", &podman.any(&[])?);
    let scrape = daemon.scrape_until("the late one", Duration::from_secs(5), |scrape| {
        served(scrape).iter().any(|(_, _, name)| {
            *name == late.name || late.id.as_ref().is_some_and(|id| id.starts_with(name.as_str()))
        })
    })?;
    late.assert_served(&scrape);
    // So are all by a daemon that has never seen the socket answer.
    let other = run.daemon()?;
    let scrape = other.scrape_until("all of them", Duration::from_secs(5), |scrape| {
        subjects.iter().all(|subject| !scrape.select("incus_instance_info", &subject.labels()).is_empty())
    })?;
    late.assert_served(&scrape);
    assert_on_time(&other, &subjects)?;
    for pid in [docker.daemon()?, service] {
        signal(pid, "CONT")?;
    }
    docker.kill()?;
    signal(service, "KILL")?;
    for daemon in [daemon, other, run.daemon()?] {
        assert_on_time(&daemon, &subjects)?;
    }
    Ok(())
}

#[test]
fn a_name_that_nobody_tells_is_the_short_id_with_a_warning_until_it_is_told() -> Result<()> {
    need!(Docker);
    let run = Run::new()?;
    let mut docker = Docker::with(&["--live-restore", "-H", &run.docker()])?;
    let shop = unique("shop");
    let container = docker.any(&["--label", &format!("com.docker.compose.project={shop}")])?;
    docker.kill()?;
    let state = docker.home.join("data/containers").join(&container.id);
    // Docker's data folder is a mount of its own.
    let away = docker.home.join("data/away");
    fs::rename(&state, &away)?;
    let daemon = run.daemon()?;
    let short = container.id.get(..12).unwrap_or_default();
    let unknown = Subject { name: short.to_owned(), ..Subject::of("docker", "docker", &container) };
    let scrape = daemon.scrape_until("the short id", Duration::from_secs(15), |scrape| {
        !scrape.select("incus_instance_info", &unknown.labels()).is_empty()
    })?;
    unknown.assert_served(&scrape);
    let warnings = || daemon.miharu(&["warning", "list", "--format", "csv"]);
    let warned = warnings()?;
    assert!(warned.contains(short), "somebody should know: {warned}");
    fs::rename(&away, &state)?;
    let known = Subject::of("docker", &format!("docker/{shop}"), &container);
    let scrape = daemon.scrape_until("its name", Duration::from_secs(40), |scrape| {
        !scrape.select("incus_instance_info", &known.labels()).is_empty()
    })?;
    known.assert_served(&scrape);
    assert!(scrape.select("incus_instance_info", &unknown.labels()).is_empty(), "it has one name");
    let warned = warnings()?;
    assert!(!warned.contains(short), "it is well again: {warned}");
    Ok(())
}

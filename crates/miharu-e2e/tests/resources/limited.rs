//! A daemon in a cgroup that limits it: no further thread, no further memory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::miharud::program;
use miharu_e2e::scratch::{self, Entry, Note};
use miharu_e2e::{Miharud, cgroup, measure, need, shell};

use crate::{answered, daemon_by, succeeded, tree};

/// A cgroup of a controller.
struct Limited {
    dir: PathBuf,
    _note: Note,
}

impl Limited {
    fn new(controller: &str) -> Result<Self> {
        let name = scratch::unique("miharu-limit");
        let note = Entry::Leaf(&name).note()?;
        let dir =
            PathBuf::from("/sys/fs/cgroup").join(if cgroup::is_v2() { "" } else { controller }).join(name);
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir, _note: note })
    }

    /// What begins inside and becomes the arguments that follow.
    fn command(&self) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ >\"$0\"/cgroup.procs; exec \"$@\""]).arg(&self.dir);
        command
    }

    fn set(&self, v1: &str, v2: &str, value: &str) -> Result<()> {
        let value = if cgroup::is_v2() && value == "-1" { "max" } else { value };
        let path = self.dir.join(if cgroup::is_v2() { v2 } else { v1 });
        fs::write(&path, value).with_context(|| path.display().to_string())
    }

    fn threads(&self, most: &str) -> Result<()> {
        self.set("pids.max", "pids.max", if most == "-1" { "max" } else { most })
    }

    fn memory(&self, most: &str) -> Result<()> {
        self.set("memory.limit_in_bytes", "memory.max", most)
    }
}

#[test]
fn a_daemon_that_gets_no_thread_goes_on_and_recovers() -> Result<()> {
    need!(Containers);
    let tree = tree(30)?;
    let limited = Limited::new("pids")?;
    let daemon = daemon_by(limited.command(), &tree)?;
    let threads = || -> Result<usize> { Ok(fs::read_dir(format!("/proc/{}/task", daemon.pid()))?.count()) };
    // Threads that wait for work in vain end after a while, and are not replaced then.
    for most in [threads()?, 2] {
        limited.threads(&most.to_string())?;
        for round in 0..5 {
            answered(&daemon)
                .with_context(|| format!("at most {most} threads, round {round}\n{}", daemon.log()))?;
            std::thread::sleep(Duration::from_millis(if crate::is_chaos() { 4000 } else { 300 }));
        }
    }
    // Whoever connects is let in all the same.
    daemon.get("/1.0")?;
    limited.threads("-1")?;
    let scrape = daemon.scrape_until("figures", Duration::from_secs(15), |scrape| succeeded(scrape) == 30)?;
    assert_eq!(scrape.instances().len(), 30);
    Ok(())
}

#[test]
fn a_daemon_that_may_have_no_thread_says_so_and_ends() -> Result<()> {
    need!(Containers);
    let tree = tree(1)?;
    let limited = Limited::new("pids")?;
    limited.threads("1")?;
    let dir = scratch::dir("miharu")?;
    let mut command = limited.command();
    command.arg(program("miharud")?).arg("--dir").arg(&dir).arg("--root").arg(&tree);
    let started =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()?;
    let note = Entry::Process(started.id()).note()?;
    let out = started.wait_with_output()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    drop(note);
    ensure!(!out.status.success(), "{said}");
    ensure!(said.contains("thread") && !said.contains("panicked"), "{said}");
    // With threads it starts on what is there.
    limited.threads("-1")?;
    let mut command = limited.command();
    command.arg(program("miharud")?).arg("--root").arg(&tree);
    assert_eq!(succeeded(&Miharud::launch(command, &dir, &[])?.scrape()?), 1);
    Ok(())
}

#[test]
fn a_daemon_that_reaches_its_memory_limit_is_ended_and_has_lost_nothing() -> Result<()> {
    need!(Containers);
    let _turn = scratch::turn("large trees")?;
    let count = 1500;
    let tree = tree(count)?;
    let limited = Limited::new("memory")?;
    let dir = scratch::dir("miharu")?;
    let launch = || -> Result<Miharud> {
        let mut command = limited.command();
        command.arg(program("miharud")?).arg("--root").arg(&tree);
        Miharud::launch(command, &dir, &[])
    };
    let daemon = launch()?;
    daemon.miharu(&[
        "config",
        "set",
        "user.word=kept",
        "metrics.cache_seconds=0",
        "metrics.collect_timeout=30",
    ])?;
    let whole = daemon.scrape_until("all", Duration::from_secs(60), |scrape| succeeded(scrape) == count)?;
    let needs = measure::memory(daemon.pid(), "RssAnon")?;
    println!("{count} instances, {} samples: RssAnon {} kB", whole.samples().count(), needs >> 10);
    daemon.stop()?;

    // Enough to start, and not for a collection of all of them.
    limited.memory(&(needs / 3).to_string())?;
    let mut died = 0;
    for _ in 0..3 {
        let Ok(daemon) = launch() else {
            died += 1;
            continue;
        };
        if daemon.get("/1.0/metrics").is_err() || daemon.get("/1.0/metrics").is_err() {
            died += 1;
        }
    }
    ensure!(died > 0, "a third of the memory is enough");
    // What systemd does: it starts it again, as often as it takes until somebody gives it more.
    limited.memory("-1")?;
    let daemon = launch()?;
    let config = daemon.miharu(&["config", "get", "user.word"])?;
    assert_eq!(config.trim(), "kept");
    let again = daemon.scrape_until("all", Duration::from_secs(60), |scrape| succeeded(scrape) == count)?;
    assert_eq!(again.instances().len(), count);
    shell::wait_for("its answer", Duration::from_secs(5), || daemon.get("/1.0").ok())?;
    Ok(())
}

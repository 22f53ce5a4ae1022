//! `make demo` as a newcomer runs it, without a terminal.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use miharu_e2e::{Need, need, scratch, shell};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn make(goal: &str, dir: &Path) -> Result<String> {
    let mut make = Command::new("make");
    make.arg("-C").arg(root()).arg("--no-print-directory").arg(goal).env("MIHARU_DEMO_DIR", dir);
    for name in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"] {
        make.env_remove(name);
    }
    if std::env::var_os("SUDO_UID").is_some() {
        make.env("MIHARU_DEMO_BUILT", "1");
    }
    shell::output(&mut make)
}

/// The figure behind a name, in the n-th table.
fn figure(text: &str, what: &str, table: usize) -> Result<f64> {
    let line = text
        .lines()
        .filter(|line| line.trim_start().starts_with(what))
        .nth(table)
        .context(text.to_owned())?;
    let rest = line.trim_start().trim_start_matches(what);
    Ok(rest.split_whitespace().next().context(line.to_owned())?.parse()?)
}

#[test]
fn the_demo_shows_moving_figures_cleans_up_and_runs_again() -> Result<()> {
    need!(Lxc, Tls);
    let _alone = scratch::alone()?;
    let dir = scratch::dir("demo")?.join("state");
    for round in 0..2 {
        // The second time the usual port is taken, by us or by whoever has it.
        let _taken = (round == 1).then(|| std::net::TcpListener::bind("127.0.0.1:9100"));
        let text = make("demo", &dir)?;
        assert!(round == 0 || text.contains("Port 9100 is taken"), "{text}");
        for what in ["CPU time used", "written to disk", "sent over the network", "packets sent"] {
            let (first, second) = (figure(&text, what, 0)?, figure(&text, what, 1)?);
            assert!(second > first, "{what} does not move:\n{text}");
        }
        assert!(text.contains("u1") && text.contains("u2") && text.contains("curl --cacert"), "{text}");
        assert!(text.contains("scrape_configs:") && !text.contains("RECORDED"), "{text}");
        if Need::Qemu.lacking().is_none() {
            for mode in ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"] {
                assert!(figure(&text, &format!("CPU {mode}"), 0)? >= 0.0, "{text}");
            }
            assert!(figure(&text, "CPU idle", 0)? > 0.0, "{text}");
        }
        assert!(!dir.exists(), "files are left");
        // Other demos may run beside this one; its own containers are under its own path.
        let path = text.split("lxc:").nth(1).and_then(|rest| rest.split_whitespace().next());
        let monitor = format!("[lxc monitor] {} u1", path.context(text.clone())?);
        let left = shell::run("ps", ["-eo", "pid,args"])?;
        let left: Vec<_> = left.lines().filter(|line| line.ends_with(&monitor)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(make("demo-stop", &dir)?.contains("No demo runs."));
    Ok(())
}

#[test]
fn without_root_the_demo_says_why_and_serves_a_recorded_host_marked_as_such() -> Result<()> {
    need!(Tls, Containers);
    let dir = scratch::dir("demo")?;
    shell::run("chmod", ["777".as_ref(), dir.as_os_str()])?;
    let program = miharu_e2e::miharud::program("demo")?;
    let bin = program.parent().context("bin")?;
    let text = shell::output(
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .arg("start")
            .env("MIHARU_DEMO_DIR", dir.join("state"))
            .env("MIHARU_BIN_DIR", bin)
            .env("TMPDIR", &dir)
            .env("HOME", &dir),
    )?;
    assert!(text.contains("need root"), "{text}");
    assert!(text.contains("RECORDED"), "{text}");
    assert!(figure(&text, "CPU time used", 0)? > 0.0, "{text}");
    Ok(())
}

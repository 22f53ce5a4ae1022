//! Two daemons that want the same: the second one says so and stops, or waits for what it lacks, and the first is not disturbed.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use miharu_e2e::miharud::free_port;
use miharu_e2e::{Miharud, scratch, shell};

use crate::{MAY_PASS, gives_up};

#[test]
fn the_second_on_a_directory_stops_and_the_first_goes_on() -> Result<()> {
    let dir = scratch::dir("twice")?;
    let first = Miharud::in_dir(&dir, &[])?;
    first.miharu(&["config", "set", "user.word", "kept"])?;
    let before = std::fs::read(dir.join("miharu.db"))?;
    for _ in 0..3 {
        let said = gives_up(Command::new("env"), &dir, MAY_PASS)?;
        ensure!(said.contains("another miharud is running: it holds"), "{said}");
        ensure!(said.contains("--dir") && said.contains(&dir.display().to_string()), "{said}");
    }
    assert_eq!(std::fs::read(dir.join("miharu.db"))?, before);
    assert_eq!(first.miharu(&["config", "get", "user.word"])?.trim(), "kept");
    // By another name it is the same directory.
    let other = scratch::dir("twice")?.join("link");
    std::os::unix::fs::symlink(&dir, &other)?;
    ensure!(gives_up(Command::new("env"), &other, MAY_PASS)?.contains("another miharud is running"));
    // Killed, it leaves its socket and nothing that keeps the next one out.
    drop(first);
    ensure!(dir.join("unix.socket").exists());
    let next = Miharud::in_dir(&dir, &[])?;
    assert_eq!(next.miharu(&["config", "get", "user.word"])?.trim(), "kept");
    next.stop()
}

#[test]
fn the_second_on_a_port_says_who_has_it_and_takes_over_when_it_is_free() -> Result<()> {
    let (first, second) = (Miharud::with(&[])?, Miharud::with(&[])?);
    let address = first.listen("core.metrics_address")?;
    let refused =
        second.miharu(&["config", "set", "core.metrics_address", &address]).unwrap_err().to_string();
    ensure!(refused.contains(&format!("pid {}", first.pid())), "{refused}");
    // It got it while it was free, and finds it taken when it starts.
    let free = format!("127.0.0.1:{}", free_port()?);
    second.miharu(&["config", "set", "core.metrics_address", &free])?;
    let dir = second.dir.clone();
    drop(second);
    first.miharu(&["config", "set", "core.metrics_address", &free])?;
    let second = Miharud::in_dir(&dir, &[])?;
    let warnings = second.miharu(&["warning", "list"])?;
    ensure!(warnings.contains("Listener cannot be opened"), "{warnings}");
    drop(first);
    shell::wait_for("the port", Duration::from_secs(30), || std::net::TcpStream::connect(&free).ok())?;
    second.stop()
}

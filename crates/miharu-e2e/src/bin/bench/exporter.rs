//! `cgroups-exporter` from PyPI on the same containers. It collects at an interval, whether or not somebody scrapes, and serves
//! what it has in memory; so a round and a scrape are measured apart.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::measure::{self, Samples};
use miharu_e2e::miharud::free_port;
use miharu_e2e::scratch::Entry;
use miharu_e2e::{interrupt, need, shell};

use crate::book::Book;
use crate::miharud::count;

/// Seconds between two of its rounds. Its default is 15; what a round costs does not depend on it.
const INTERVAL: u32 = 5;

/// What a round and a scrape cost; nothing but a remark where it is not there.
///
/// # Errors
/// When it is there and does not start.
pub(crate) fn run(book: &mut Book, containers: u32, samples: u32) -> Result<()> {
    let program = need::cache().join("exporter/bin/cgroups-exporter");
    if !program.exists() {
        book.missing("cgroups-exporter", "it is not in target/e2e-cache");
        return Ok(());
    }
    let port = free_port()?;
    let mut command = Command::new(&program);
    command.args(["--metrics-address", "127.0.0.1", "--metrics-port", &port.to_string()]);
    command.args(["--collector-interval", &INTERVAL.to_string(), "--collector-delay", "0"]);
    // As its page says.
    command.args(["--cgroups-path", "/sys/fs/cgroup/*/lxc.payload.*"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().context("cgroups-exporter")?;
    let note = Entry::Process(child.id()).note()?;
    let measured = measure(book, child.id(), port, containers, samples);
    let _ = child.kill();
    let _ = child.wait();
    drop(note);
    let pip = need::cache().join("exporter/bin/pip");
    if let Ok(shown) = shell::output(Command::new(pip).args(["show", "cgroups-exporter"])) {
        let version = shown.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or("unknown");
        book.version("cgroups-exporter", &format!("{version}, every {INTERVAL} s"));
    }
    measured
}

fn measure(book: &mut Book, pid: u32, port: u16, containers: u32, samples: u32) -> Result<()> {
    let address = format!("127.0.0.1:{port}");
    let last = format!("lxc.payload.b{containers}\"");
    let mut text = String::new();
    let found = shell::wait_for("the exporter's figures", Duration::from_secs(40), || {
        std::thread::sleep(Duration::from_millis(500));
        text = Scraper::tcp(&address).ok()?.get("/metrics", &[]).ok()?.text();
        text.contains(&last).then_some(())
    });
    if found.is_err() {
        book.missing(
            "cgroups-exporter",
            &format!("it does not show {last} after 40 s; its answer has {} bytes", text.len()),
        );
        return Ok(());
    }
    let clock = || measure::cpu_of_tree(pid);
    let mut scrapes = Vec::new();
    let mut rounds = Samples::default();
    for sample in 0..samples {
        let whole = Duration::from_secs(INTERVAL.into());
        rounds.0.push(measure::cost(1, clock, || interrupt::sleep(whole))?.cpu_us);
        // Three are enough of what takes it long, and a round may fall into one of them.
        if sample < 3 {
            let scrape = || Scraper::tcp(&address)?.get("/metrics", &[]).map(drop);
            scrapes.push(measure::cost(1, clock, scrape)?);
        }
    }
    book.note("cgroups-exporter", "a round: CPU", containers, "us", rounds);
    book.costs("cgroups-exporter", "a scrape of what it keeps", containers, scrapes);
    text = Scraper::tcp(&address)?.get("/metrics", &[])?.text();
    let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    book.number("cgroups-exporter", "series", containers, "", count(series));
    #[allow(clippy::cast_precision_loss, reason = "bytes, far below 2^53")]
    book.number("cgroups-exporter", "VmRSS", containers, "bytes", measure::memory(pid, "VmRSS")? as f64);
    Ok(())
}

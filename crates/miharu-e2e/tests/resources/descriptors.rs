//! A daemon without a descriptor left.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::miharud::program;
use miharu_e2e::tls::Certificate;
use miharu_e2e::{Miharud, measure, need, scratch, shell};

use crate::{answered, daemon_of, succeeded, tree};

#[test]
fn fewer_descriptors_than_instances_are_an_answer_and_no_end() -> Result<()> {
    let tree = tree(200)?;
    let dir = scratch::dir("miharu")?;
    let mut command = Command::new("prlimit");
    // The soft limit is the daemon's own business.
    command.args(["--nofile=96:96", "--"]).arg(program("miharud")?).arg("--root").arg(&tree);
    let daemon = Miharud::launch(command, &dir, &[])?;
    for round in 0..4 {
        answered(&daemon).with_context(|| format!("round {round}\n{}", daemon.log()))?;
    }
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    daemon.stop()?;
    let mut command = Command::new(program("miharud")?);
    command.arg("--root").arg(&tree);
    let daemon = Miharud::launch(command, &dir, &[])?;
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "0"])?;
    let scrape = daemon.scrape_until("all", Duration::from_secs(15), |scrape| succeeded(scrape) == 200)?;
    assert_eq!(scrape.instances().len(), 200);
    Ok(())
}

#[test]
fn who_takes_all_descriptors_gets_no_answer_and_leaves_no_trace() -> Result<()> {
    need!(Tls);
    let tree = tree(20)?;
    let daemon = daemon_of(&tree)?;
    let address = daemon.listen("core.metrics_address")?;
    let client = Certificate::create("metrics")?;
    daemon.miharu(&[
        "config",
        "trust",
        "add-certificate",
        client.crt.to_str().context("path")?,
        "--type=metrics",
    ])?;
    let server = daemon.dir.join("server.crt");
    let mut kept = Scraper::tls(&address, &server, &client)?;
    kept.get("/1.0/metrics", &[])?;
    let socket = daemon.dir.join("unix.socket");
    let before = measure::open_files(daemon.pid())?;
    let pid = daemon.pid().to_string();
    let enough = shell::run("prlimit", ["--pid", &pid, "--nofile", "--output=SOFT", "--noheadings"])?;
    shell::run("prlimit", ["--pid", &pid, &format!("--nofile={}:", before + 40)])?;
    for round in 0..3 {
        let (mut plain, mut local) = (Vec::new(), Vec::new());
        for _ in 0..150 {
            plain.extend(TcpStream::connect(&address));
            local.extend(UnixStream::connect(&socket));
        }
        std::thread::sleep(Duration::from_millis(300));
        // Who has a connection gets an answer, if perhaps an older one.
        kept.get("/1.0/metrics", &[]).with_context(|| format!("round {round}: {}", daemon.log()))?;
        drop((plain, local));
        shell::wait_for("an answer to a new connection", Duration::from_secs(10), || {
            answered(&daemon).ok().filter(|reply| reply.status == 200)
        })?;
        // For a second it may be turned away, with the strangers of its address that have used up core.handshakes_per_address.
        shell::wait_for("an answer to a new TLS connection", Duration::from_secs(10), || {
            Scraper::tls(&address, &server, &client).ok()?.get("/1.0/metrics", &[]).ok()
        })?;
    }
    let refused = change_without_descriptors(&daemon)?;
    assert!(refused.contains("may open no more files") && refused.contains("LimitNOFILE="), "{refused}");
    shell::run("prlimit", ["--pid", &pid, &format!("--nofile={}:", enough.trim())])?;
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "1"])?;
    let scrape = daemon.scrape()?;
    assert_eq!(succeeded(&scrape), 20);
    shell::wait_for("the descriptors of before", Duration::from_secs(10), || {
        (measure::open_files(daemon.pid()).ok()? <= before + 4).then_some(())
    })?;
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.lines().count() < 60, "a line for every connection:\n{log}");
    Ok(())
}

/// What is answered to a change that comes over a connection of before, when not one descriptor is left.
fn change_without_descriptors(daemon: &Miharud) -> Result<String> {
    let mut kept = UnixStream::connect(daemon.dir.join("unix.socket"))?;
    kept.set_read_timeout(Some(Duration::from_secs(30)))?;
    kept.write_all(b"GET /1.0 HTTP/1.1\r\nHost: miharu\r\n\r\n")?;
    // It is accepted by the time that it is answered.
    ensure!(kept.read(&mut [0; 65536])? > 0, "no answer");
    // What is open stays open, and nothing below is free.
    shell::run("prlimit", ["--pid", &daemon.pid().to_string(), "--nofile=3:"])?;
    let body = r#"{"config":{"metrics.cache_seconds":"1"}}"#;
    let length = body.len();
    let head = format!(
        "PATCH /1.0 HTTP/1.1\r\nHost: miharu\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    kept.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    kept.read_to_string(&mut answer)?;
    Ok(answer)
}

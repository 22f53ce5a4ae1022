//! Connections that do nothing: ten thousand of them, from many addresses, from the scrapers' own, and on the unix socket.

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use miharu_e2e::miharud::program;
use miharu_e2e::{Miharud, need, scratch};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::rig::{Rig, config, source, tcp, tls};

/// Attempts to connect at once.
const AT_ONCE: usize = 64;

/// Opens so many connections over TLS, and keeps those that it gets.
async fn open(rig: &Rig, count: usize, addresses: usize) -> Result<Vec<TlsStream<TcpStream>>> {
    let (config, mut open) = (config("http/1.1"), Vec::new());
    let mut opening: JoinSet<std::io::Result<TlsStream<TcpStream>>> = JoinSet::new();
    for number in 0..count {
        if opening.len() == AT_ONCE
            && let Some(opened) = opening.join_next().await
        {
            open.extend(opened?.ok());
        }
        let (config, address) = (config.clone(), rig.address);
        opening.spawn(async move { tls(source(number % addresses), address, &config).await });
    }
    while let Some(opened) = opening.join_next().await {
        open.extend(opened?.ok());
    }
    Ok(open)
}

#[test]
fn ten_thousand_connections_of_many_addresses_keep_no_scraper_out() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    let (let_in, cost) = rig.under(async {
        // Those without a word come first: they are ended after three seconds.
        let mut silent = Vec::new();
        for number in 0..5000 {
            silent.extend(tcp(source(number % 1000), rig.address).await.ok());
        }
        let idle = open(&rig, 5000, 1000).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok((silent.len(), idle.len()))
    })?;
    println!("connected without a word, and over TLS: {let_in:?}");
    assert!(let_in.1 > 0);
    assert!(cost.memory < 64 << 20, "{cost:?}");
    rig.settles()
}

/// Whether the server has not ended it.
fn is_open(stream: &TlsStream<TcpStream>) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.get_ref().0.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

/// The long form, for `make chaos`: all ten thousand do their handshake, once against the limits as they are, and once against the
/// highest ones. How many may be open at once depends on the descriptors that the daemon may have, of which each listener takes a sixth.
#[test]
#[ignore = "long: make chaos"]
fn ten_thousand_that_have_done_their_handshake_keep_no_scraper_out() -> Result<()> {
    need!(Tls);
    const HIGHEST: [&str; 3] =
        ["connections=65536", "handshakes_per_second=100000", "handshakes_per_address=100000"];
    for (limits, keys) in [("as they are", &HIGHEST[..0]), ("highest", &HIGHEST[..])] {
        let rig = Rig::start()?;
        for key in keys {
            rig.daemon.miharu(&["config", "set", &format!("core.{key}")])?;
        }
        let ((let_in, open), cost) = rig.under(async {
            let begin = Instant::now();
            let idle = open(&rig, 10_000, 1000).await?;
            println!("10000 begun within {:?}", begin.elapsed());
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok((idle.len(), idle.iter().filter(|stream| is_open(stream)).count()))
        })?;
        println!("limits {limits}: {let_in} handshakes done, {open} open at the end");
        ensure!(let_in > 0 && cost.memory < 512 << 20, "{let_in}, {cost:?}");
        rig.settles()?;
    }
    Ok(())
}

#[test]
fn the_idle_of_the_scrapers_own_address_make_room_for_it() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    // Few are let in, and nobody is too fast, so that what counts is who makes room.
    let limits = ["config", "set", "core.connections=64", "core.connections_per_address=64"];
    rig.daemon.miharu(&limits)?;
    rig.daemon.miharu(&[
        "config",
        "set",
        "core.handshakes_per_address=100000",
        "core.handshakes_per_second=100000",
    ])?;
    let (let_in, cost) = rig.under(async {
        let (config, mut idle) = (config("http/1.1"), Vec::new());
        for _ in 0..300 {
            idle.extend(tls(std::net::Ipv4Addr::LOCALHOST, rig.address, &config).await.ok());
        }
        Ok(idle.len())
    })?;
    assert!(let_in > 200, "{let_in}");
    assert!(cost.memory < 32 << 20, "{cost:?}");
    rig.settles()
}

#[test]
fn the_unix_socket_has_room_for_the_next_one() -> Result<()> {
    let daemon = Miharud::with(&[])?;
    let socket = daemon.dir.join("unix.socket");
    let idle: Vec<_> = (0..3000).filter_map(|_| UnixStream::connect(&socket).ok()).collect();
    ensure!(idle.len() > 1024, "only {} connected", idle.len());
    for _ in 0..5 {
        ensure!(daemon.get("/1.0/metrics")?.status == 200);
    }
    drop(idle);
    daemon.stop()
}

#[test]
fn without_descriptors_left_scrapers_are_answered_all_the_same() -> Result<()> {
    need!(Tls);
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=160:160").arg(program("miharud")?);
    let rig = Rig::of(Miharud::launch(limited, &scratch::dir("miharu")?, &[])?)?;
    let (let_in, _) = rig.under(async {
        let mut open = Vec::new();
        for number in 0..1000 {
            open.extend(tcp(source(number), rig.address).await.ok());
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(open.len())
    })?;
    println!("connected: {let_in}");
    let said = rig.daemon.log();
    assert!(said.matches("could not be accepted").count() < 5, "it says so too often: {said}");
    let answer = rig.daemon.scrape()?;
    assert!(
        answer.sum("incus_warnings_total", &[])? < 1.0,
        "connections took what a collection needs: {said}"
    );
    rig.settles()
}

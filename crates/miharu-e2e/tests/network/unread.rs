//! Those who ask for another answer each time, which are rendered for them alone, and read none of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::tls::Certificate;
use miharu_e2e::{Miharud, host_tree, need, scratch};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::http2::{END_HEADERS, END_STREAM, PREFACE, frame, stream};
use crate::rig::{Cost, Rig, builder, source, tls, tls_with_small_buffers};

const PROJECTS: usize = 12;
/// In each project: an answer about most of them is about a megabyte.
const CONTAINERS: usize = 30;
/// Answers that are asked for in each attack.
const ASKED: usize = 240;
/// More memory than an attack may cost: a client's share, what a collection keeps, and what is being rendered. All that is asked for is
/// three times as much.
const MOST: u64 = 64 << 20;
/// By when the first of the answers that were not read is not thrown away yet, so that what is refused meanwhile can be told.
const UNREAD: Duration = Duration::from_secs(25);
/// How long the others are watched once everything was asked for.
const WATCHED: Duration = Duration::from_secs(1);

fn project(number: usize) -> String {
    format!("lxc:/srv/p{number:02}")
}

/// A daemon whose host has many projects, and who attacks it: it may read all of them but `lxc:/srv/p00`.
fn rig() -> Result<(Rig, Certificate)> {
    let paths: Vec<String> = (0..PROJECTS).map(|number| format!("/srv/p{number:02}")).collect();
    let names: Vec<String> = (0..PROJECTS * CONTAINERS).map(|number| format!("c{number}")).collect();
    let containers: Vec<_> =
        names.iter().enumerate().map(|(at, name)| (paths[at % PROJECTS].as_str(), name.as_str())).collect();
    let tree = scratch::dir("tree")?;
    host_tree::make_at(&tree, &containers)?;
    let daemon = Miharud::with(&["--root", tree.to_str().context("path")?])?;
    // One collection for all of it: each keeps some answers of its own.
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "3600"])?;
    let attacker = Certificate::create("attacker")?;
    let crt = attacker.crt.to_str().context("path")?;
    let projects: Vec<_> = (1..PROJECTS).map(project).collect();
    let projects = format!("--projects={}", projects.join(","));
    daemon.miharu(&[
        "config",
        "trust",
        "add-certificate",
        crt,
        "--type=metrics",
        "--restricted",
        &projects,
    ])?;
    Ok((Rig::of(daemon)?, attacker))
}

fn shows(certificate: &Certificate, alpn: &str) -> Result<Arc<ClientConfig>> {
    let chain = vec![CertificateDer::from_pem_file(&certificate.crt).context("certificate")?];
    let key = PrivateKeyDer::from_pem_file(&certificate.key).context("key")?;
    let mut config = builder().with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Ok(Arc::new(config))
}

/// A path that no other number has: all projects but three.
fn path(number: usize) -> String {
    let threes = (1..PROJECTS).flat_map(|a| (1..a).flat_map(move |b| (0..b).map(move |c| [a, b, c])));
    let left_out = threes.cycle().nth(number).expect("without end");
    let asked = (0..PROJECTS).filter(|project| !left_out.contains(project));
    let asked: Vec<_> = asked.map(|number| format!("project={}", project(number))).collect();
    format!("/1.0/metrics?{}", asked.join("&"))
}

/// Sends requests by HTTP/1.1, one a connection, from so many addresses.
async fn by_http1(
    rig: &Rig,
    config: &Arc<ClientConfig>,
    addresses: usize,
) -> Result<Vec<TlsStream<TcpStream>>> {
    let mut open = Vec::new();
    for number in 0..ASKED {
        let begin = Instant::now();
        let mut stream = loop {
            match tls_with_small_buffers(source(number % addresses), rig.address, config).await {
                Ok(stream) => break stream,
                // Beyond the rate of handshakes.
                Err(_) if begin.elapsed() < Duration::from_secs(30) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error).context("no connection"),
            }
        };
        let ask = format!("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", path(number));
        stream.write_all(ask.as_bytes()).await?;
        open.push(stream);
    }
    Ok(open)
}

/// The same by HTTP/2, over four connections, each answer of which one byte may be sent.
async fn by_http2(rig: &Rig, config: &Arc<ClientConfig>) -> Result<Vec<TlsStream<TcpStream>>> {
    let mut open = Vec::new();
    for connection in 0..4 {
        let mut stream = tls(source(connection), rig.address, config).await?;
        stream.write_all(PREFACE).await?;
        stream.write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 1])).await?;
        let each = ASKED / 4;
        for ask in 0..each {
            let path = path(connection * each + ask);
            stream
                .write_all(&frame(
                    1,
                    END_HEADERS | END_STREAM,
                    self::stream(u32::try_from(ask)?),
                    &get(&path),
                ))
                .await?;
        }
        open.push(stream);
    }
    Ok(open)
}

/// `GET PATH` on `https://h`, by the static table of RFC 7541.
fn get(path: &str) -> Vec<u8> {
    let path = path.as_bytes();
    // A length that does not fit seven bits goes on in the next bytes, section 5.1.
    let mut length = vec![0x7f];
    let mut rest = path.len().checked_sub(0x7f).expect("a long path");
    while rest >= 0x80 {
        length.push(u8::try_from(rest % 0x80).expect("small") | 0x80);
        rest /= 0x80;
    }
    length.push(u8::try_from(rest).expect("small"));
    [&[0x82, 0x87, 0x04][..], &length, path, &[0x01, 1, b'h']].concat()
}

/// Someone who may read what the attacker may not, and whose answers are rendered for it alone. It has to get them all the while.
async fn others_are_answered(mut other: Scraper) -> Result<Scraper> {
    let begin = Instant::now();
    let mut number = 0;
    while begin.elapsed() < WATCHED || number < 3 {
        // With the project that the attacker may not see, so that it is an answer that nobody has asked for yet.
        let path =
            format!("/1.0/metrics?project={}&project={}", project(0), project(1 + number % (PROJECTS - 1)));
        let reply = other.get(&path, &[])?;
        ensure!(
            reply.status == 200 && reply.body.len() > 50_000,
            "{}: {} bytes",
            reply.status,
            reply.body.len()
        );
        number += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{number} of others answered, the last {} bytes", other.wire_bytes);
    Ok(other)
}

/// Whether an attack was over before any of its connections ended, as they do on a machine that has much else to do.
fn is_counted(cost: &Cost) -> bool {
    if cost.took >= UNREAD {
        println!("what was refused does not count: {cost:?}");
    }
    cost.took < UNREAD
}

/// How many of these were refused, of those of whose answer something came.
async fn refused(open: &mut [TlsStream<TcpStream>]) -> usize {
    let (mut refused, mut begin) = (0, [0; 12]);
    for stream in open {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut begin)).await;
        refused += usize::from(matches!(read, Ok(Ok(_))) && begin.ends_with(b"503"));
    }
    refused
}

#[test]
fn answers_that_nobody_else_asks_for_and_nobody_reads_cost_a_bounded_amount_of_memory() -> Result<()> {
    need!(Tls);
    let (rig, attacker) = rig()?;
    let config = shows(&attacker, "h2")?;
    let ((), cost) = rig.under(async {
        let open = by_http2(&rig, &config).await?;
        others_are_answered(rig.scraper()?).await?;
        drop(open);
        Ok(())
    })?;
    ensure!(cost.memory < MOST, "HTTP/2: {cost:?}");
    let config = shows(&attacker, "http/1.1")?;
    let (refused, cost) = rig.under(async {
        let mut open = by_http1(&rig, &config, 40).await?;
        others_are_answered(rig.scraper()?).await?;
        Ok(refused(&mut open).await)
    })?;
    ensure!(cost.memory < MOST, "HTTP/1.1: {cost:?}");
    ensure!(refused > ASKED / 2 || !is_counted(&cost), "HTTP/1.1: {refused} refused, {cost:?}");
    ensure!(rig.daemon.log().contains("answers refused"), "the log says nothing of it");
    ensure!(rig.daemon.log().matches("answers refused").count() < 5, "the log says too much of it");
    rig.daemon.miharu(&["config", "set", "metrics.cache_seconds", "0"])?;
    let counted = rig.daemon.scrape()?.sum(
        "incus_api_requests_completed_total",
        &[("entity_type", "metrics"), ("result", "error_server")],
    )?;
    ensure!(counted > 100.0 || !is_counted(&cost), "{counted} refusals were counted");
    rig.settles()
}

#[test]
fn nor_do_those_whom_nobody_asks_who_they_are() -> Result<()> {
    need!(Tls);
    let (rig, _) = rig()?;
    rig.daemon.miharu(&["config", "set", "core.metrics_authentication", "false"])?;
    let config = crate::rig::config("http/1.1");
    let (refused, cost) = rig.under(async {
        let mut open = by_http1(&rig, &config, ASKED).await?;
        others_are_answered(rig.scraper()?).await?;
        Ok(refused(&mut open).await)
    })?;
    // Strangers have twice the share of one client together.
    ensure!(cost.memory < MOST * 3 / 2, "{cost:?}");
    ensure!(refused > ASKED / 4 || !is_counted(&cost), "{refused} refused, {cost:?}");
    rig.settles()
}

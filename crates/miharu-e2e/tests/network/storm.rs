//! A thousand new TLS connections a second, and requests as fast as they can be sent.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use miharu_e2e::need;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::rig::{Rig, config, source, tls};

const A_SECOND: usize = 1000;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Begins a thousand handshakes a second for so long; how many were begun, and how many succeeded.
async fn storm(rig: &Rig, addresses: usize, length: Duration) -> Result<(usize, usize)> {
    let (config, mut going) = (config("http/1.1"), JoinSet::new());
    let (begin, mut begun, mut succeeded) = (Instant::now(), 0, 0);
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while begin.elapsed() < length {
        tick.tick().await;
        // What a late tick has missed is made up for.
        let due = usize::try_from(begin.elapsed().as_millis())? * A_SECOND / 1000;
        while begun < due {
            let (config, address, from) = (config.clone(), rig.address, source(begun % addresses));
            going.spawn(async move { tls(from, address, &config).await.is_ok() });
            begun += 1;
        }
        while let Some(ended) = going.try_join_next() {
            succeeded += usize::from(ended?);
        }
    }
    while let Some(ended) = going.join_next().await {
        succeeded += usize::from(ended?);
    }
    Ok((begun, succeeded))
}

#[test]
fn a_thousand_new_connections_a_second_keep_no_scraper_out() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    let length = Duration::from_secs(6);
    for addresses in [1, 5000] {
        let ((begun, succeeded), cost) = rig.under(storm(&rig, addresses, length))?;
        println!("{addresses} addresses: {begun} begun, {succeeded} succeeded");
        ensure!(begun > 3 * A_SECOND, "only {begun} were begun");
        // What one address may, and what all may together, with a second's worth that was saved up.
        let most = if addresses == 1 { 50 } else { 200 } * (usize::try_from(cost.took.as_secs())? + 2);
        ensure!(succeeded <= most, "{succeeded} of {most}");
        ensure!(cost.memory < 64 << 20 && cost.cpu < cost.took / 2, "{cost:?}");
    }
    ensure!(rig.daemon.log().contains("connections turned away"), "the log says nothing of it");
    ensure!(rig.daemon.log().matches("connections turned away").count() < 5, "the log says too much of it");
    rig.settles()
}

#[test]
fn a_stranger_that_asks_too_often_is_told_so_and_then_cut_off_and_a_trusted_one_is_not() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    rig.daemon.miharu(&["config", "set", "core.requests_per_second", "20"])?;
    let (answers, _) = rig.under(async {
        let mut stream = tls(source(1), rig.address, &config("http/1.1")).await?;
        stream.write_all(&b"GET /1.0 HTTP/1.1\r\nHost: h\r\n\r\n".repeat(500)).await?;
        let (mut answers, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        // It is reset where requests are left that nobody has read.
        while let Ok(read @ 1..) = tokio::time::timeout(LIMIT, stream.read(&mut buffer)).await? {
            answers.extend_from_slice(&buffer[..read]);
        }
        Ok(String::from_utf8_lossy(&answers).into_owned())
    })?;
    let (good, refused) = (answers.matches("HTTP/1.1 200").count(), answers.matches("HTTP/1.1 429").count());
    // Each that is answered while others are refused makes up for one of these.
    ensure!(good >= 20 && (20..=20 + good).contains(&refused), "{good} answered, {refused} refused");
    let last = answers.rsplit("HTTP/1.1 ").next().unwrap_or_default().to_ascii_lowercase();
    ensure!(last.starts_with("429") && last.contains("connection: close"), "{last}");
    ensure!(answers.to_ascii_lowercase().matches("connection: close").count() == 1, "it is told once");
    let mut trusted = rig.scraper()?;
    for _ in 0..100 {
        trusted.get("/1.0/metrics", &[])?;
    }
    Ok(())
}

//! What happens to the daemon beside the scrapes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Stage;
use super::containers::Coming;
use super::machines::MONITOR;
use crate::keepalive::Scraper;
use crate::miharud::free_port;
use crate::tls::Certificate;
use crate::vm::{Monitor, Vm};

/// Times between two of each.
const MOVE: Duration = Duration::from_secs(15);
const CERTIFICATE: Duration = Duration::from_secs(3);
/// How long a machine runs, and how long it is paused.
const RUNS: Duration = Duration::from_secs(10);
const PAUSED: Duration = Duration::from_secs(6);
/// Certificates that take turns.
const CERTIFICATES: usize = 6;

/// Replaces containers. What LXC cannot do once on a busy machine it is asked again.
pub(super) fn containers(stage: &Stage, coming: &mut Coming, pace: Duration) -> Result<()> {
    while stage.pause(pace) {
        match coming.replace() {
            Ok(()) => stage.add(&stage.tally.replaced),
            Err(error) => stage.note(&stage.tally.troubles, &format!("{error:#}")),
        }
    }
    Ok(())
}

/// Pauses each machine in turn by its second monitor.
pub(super) fn machines(stage: &Stage, machines: &[Vm]) -> Result<()> {
    let mut monitors =
        machines.iter().map(|vm| Monitor::open(&vm.dir.join(MONITOR))).collect::<Result<Vec<_>>>()?;
    while !monitors.is_empty() && stage.pause(RUNS) {
        for monitor in &mut monitors {
            monitor.ask("stop")?;
        }
        stage.pause(PAUSED);
        for monitor in &mut monitors {
            monitor.ask("cont")?;
            stage.add(&stage.tally.pauses);
        }
    }
    Ok(())
}

/// Moves the listener for metrics from port to port, every fourth time by way of none at all.
pub(super) fn moves(stage: &Stage) -> Result<()> {
    let mut number = 0_u64;
    while stage.pause(MOVE) {
        number += 1;
        set(stage, number, None)?;
        if number.is_multiple_of(4) {
            stage.configure("core.metrics_address", "")?;
        }
        let mut there = None;
        // Another program may take the port between the look and the use.
        for _ in 0..5 {
            let address = format!("127.0.0.1:{}", free_port()?);
            match stage.configure("core.metrics_address", &address) {
                Ok(()) => {
                    there = Some(address);
                    break;
                }
                Err(error) => stage.note(&stage.tally.troubles, &format!("{error:#}")),
            }
        }
        set(stage, number, Some(there.context("the listener moves nowhere")?))?;
        stage.add(&stage.tally.moves);
    }
    Ok(())
}

fn set(stage: &Stage, number: u64, address: Option<String>) -> Result<()> {
    *stage.moving.lock().ok().context("a thread panicked")? = (number, address);
    Ok(())
}

/// Trusts a certificate, scrapes with it, forgets it, and sees that it gets no answer any more on the connection that it has.
pub(super) fn certificates(stage: &Stage) -> Result<()> {
    let certificates = (0..CERTIFICATES)
        .map(|number| Certificate::create(&format!("soak{number}")))
        .collect::<Result<Vec<_>>>()?;
    let server = stage.daemon.dir.join("server.crt");
    for (certificate, fingerprint) in certificates
        .iter()
        .map(|certificate| certificate.fingerprint().map(|fingerprint| (certificate, fingerprint)))
        .collect::<Result<Vec<_>>>()?
        .iter()
        .cycle()
    {
        if !stage.pause(CERTIFICATE) {
            break;
        }
        match one(stage, &server, certificate, fingerprint) {
            Ok(()) => {
                stage.add(&stage.tally.certificates);
                stage.add(&stage.tally.scrapes);
            }
            Err(error) => stage.note(&stage.tally.failed, &format!("with a new certificate: {error:#}")),
        }
    }
    Ok(())
}

fn one(stage: &Stage, server: &Path, certificate: &Certificate, fingerprint: &str) -> Result<()> {
    let body = json!({"type": "metrics", "name": "soak", "certificate": certificate.base64()?}).to_string();
    let added = stage.daemon.ask("POST", "/1.0/certificates", &[], &body)?;
    ensure!(added.status == 201, "adding it: {}: {}", added.status, added.text());
    let scraped = Scraper::tls(&stage.https, server, certificate)
        .and_then(|mut scraper| scraper.get("/1.0/metrics", &[]).map(|_| scraper));
    let path = format!("/1.0/certificates/{fingerprint}");
    let removed = stage.daemon.ask("DELETE", &path, &[], "")?;
    ensure!(removed.status == 200, "removing it: {}: {}", removed.status, removed.text());
    let refused = scraped?.get("/1.0/metrics", &[]).err().context("it was answered after its end")?;
    let refused = format!("{refused:#}");
    // The daemon may close such connections instead.
    ensure!(refused.contains(": 403:") || refused.contains("closed"), "{refused}");
    Ok(())
}

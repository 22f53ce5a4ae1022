//! The clients: what they ask, and what an answer has to be.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{INTERVAL, Stage};
use crate::Exposition;
use crate::keepalive::Scraper;

/// Every one of so many answers of a client is read by the strict reader, which costs more than the answer.
const STRICT: u64 = 12;

/// What a client does between two scrapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Keeps its connection.
    Keeps,
    /// Opens another one for each scrape.
    Closes,
}

/// A client for as long as the load lasts: over the unix socket, over TLS, over TLS with a new connection for each scrape, and so on.
pub(super) fn client(stage: &Stage, number: usize) -> Result<()> {
    let server = stage.daemon.dir.join("server.crt");
    let open = || match number % 3 {
        0 => Scraper::unix(&stage.daemon.dir.join("unix.socket")),
        _ => Scraper::tls(&stage.https, &server, &stage.client),
    };
    let habit = if number % 3 == 2 { Habit::Closes } else { Habit::Keeps };
    let (mut scraper, mut eye) = (None, Eye::default());
    // They are not to come at the same moment.
    let mut next = Instant::now() + Duration::from_millis(700 * u64::try_from(number)?);
    while stage.pause(next.saturating_duration_since(Instant::now())) {
        next += INTERVAL;
        let started = Instant::now();
        let answered = scraper
            .take()
            .map_or_else(open, Ok)
            .and_then(|mut scraper| scraper.get("/1.0/metrics", &[]).map(|reply| (scraper, reply)));
        match answered {
            Ok((open, reply)) => {
                eye.saw(stage, started, &reply.body);
                scraper = (habit == Habit::Keeps).then_some(open);
            }
            Err(error) => stage.note(&stage.tally.failed, &format!("client {number}: {error:#}")),
        }
    }
    Ok(())
}

/// A client of the listener that moves: it asks wherever that is. A request that a move has met is sent again at once, as a
/// client does on a connection that it kept; without a move, no connection may break.
pub(super) fn follow(stage: &Stage) -> Result<()> {
    let server = stage.daemon.dir.join("server.crt");
    let now = || stage.moving.lock().ok().map(|moving| moving.clone()).context("a thread panicked");
    let (mut kept, mut eye): (Option<(u64, Scraper)>, _) = (None, Eye::default());
    let mut next = Instant::now();
    while stage.pause(next.saturating_duration_since(Instant::now())) {
        let (number, Some(address)) = now()? else {
            next = Instant::now() + Duration::from_millis(20);
            continue;
        };
        let started = Instant::now();
        let open = match kept.take() {
            Some((of, scraper)) if of == number => Ok(scraper),
            _ => Scraper::tls(&address, &server, &stage.client),
        };
        let answered =
            open.and_then(|mut scraper| scraper.get("/1.0/metrics", &[]).map(|reply| (scraper, reply)));
        match answered {
            Ok((scraper, reply)) => {
                eye.saw(stage, started, &reply.body);
                kept = Some((number, scraper));
                next += INTERVAL;
            }
            Err(_) if now()? != (number, Some(address)) => stage.add(&stage.tally.met),
            Err(error) => {
                stage.note(&stage.tally.failed, &format!("the moved listener: {error:#}"));
                next += INTERVAL;
            }
        }
    }
    Ok(())
}

/// What one client has seen so far.
#[derive(Debug, Default)]
struct Eye {
    answers: u64,
    /// CPU seconds of the containers that stay.
    counters: BTreeMap<String, f64>,
}

impl Eye {
    fn saw(&mut self, stage: &Stage, started: Instant, body: &[u8]) {
        let took = started.elapsed().as_secs_f64() * 1e3;
        match self.check(stage, body) {
            Ok(instances) => {
                stage.tally.instances.store(instances, Ordering::Relaxed);
                stage.add(&stage.tally.scrapes);
                if let Ok(mut all) = stage.tally.took.lock() {
                    all.push(took);
                }
            }
            Err(error) => stage.note(&stage.tally.failed, &format!("an answer: {error:#}")),
        }
    }

    /// That all who stay are in it, read with success, and that no counter of theirs has fallen. Gives the number of instances.
    fn check(&mut self, stage: &Stage, body: &[u8]) -> Result<u64> {
        let text = std::str::from_utf8(body).context("no UTF-8")?;
        ensure!(text.ends_with("# EOF\n"), "an answer without its end, {} bytes", body.len());
        if self.answers.is_multiple_of(STRICT) {
            Exposition::parse(text)?;
        }
        self.answers += 1;
        let (mut instances, mut counters) = (0, BTreeMap::<&str, f64>::new());
        let mut succeeded = BTreeMap::new();
        for line in text.lines() {
            if line.starts_with("incus_instance_scrape_success{") {
                instances += 1;
                succeeded.insert(name(line)?, line.ends_with(" 1"));
            } else if line.starts_with("incus_cpu_seconds_total{") {
                let (_, value) = line.rsplit_once(' ').context("no value")?;
                *counters.entry(name(line)?).or_default() += value.parse::<f64>()?;
            }
        }
        for lxc in &stage.staying {
            ensure!(
                succeeded.get(lxc.name.as_str()) == Some(&true),
                "{}: {:?}",
                lxc.name,
                succeeded.get(lxc.name.as_str())
            );
            let now =
                *counters.get(lxc.name.as_str()).with_context(|| format!("no CPU time of {}", lxc.name))?;
            let before = self.counters.insert(lxc.name.clone(), now).unwrap_or_default();
            ensure!(now + 1e-9 >= before, "CPU time of {} fell from {before} to {now}", lxc.name);
        }
        for machine in &stage.machines {
            ensure!(succeeded.contains_key(machine.as_str()), "{machine} is missing");
        }
        Ok(instances)
    }
}

/// The label `name` of a line; those of the harness need no escapes.
fn name(line: &str) -> Result<&str> {
    let (_, after) = line.split_once("name=\"").context("no name")?;
    Ok(after.split('"').next().unwrap_or_default())
}

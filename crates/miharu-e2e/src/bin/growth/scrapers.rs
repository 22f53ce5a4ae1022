//! A thousand scrapers that each may see, or ask for, other projects, all of one collection.

use std::time::Instant;

use anyhow::{Context, Result};
use miharu_e2e::interrupt;
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::measure::{self, Cost, Costs};
use miharu_e2e::tls::Certificate;

use crate::book::Book;
use crate::crowd::Crowd;
use crate::subject::{Figures, Subject};

/// Projects: of ten there are 1,023 sets.
const PROJECTS: usize = 10;

/// Rounds: one more than are needed to see whether memory goes on growing.
const ROUNDS: usize = 7;

pub(crate) fn run(book: &mut Book) -> Result<()> {
    let mut crowd = Crowd::new(PROJECTS)?;
    crowd.grow(book.scaled(100))?;
    let count = book.scaled(1000);
    let paths = paths(&crowd.projects(), count);
    let mut subject = Subject::start()?;
    // Longer than a round takes, so that all of it is answered from one collection; the first scrape of a round is fresh.
    subject.set("metrics.cache_seconds", "8")?;

    let whole = vec!["/1.0/metrics".to_owned(); count];
    let figures = rounds(&mut subject, &whole, &[])?;
    book.note(&format!("{count} scrapes, all the same, one connection"), figures)?;
    for (header, what) in [("", "plain"), ("Accept-Encoding: gzip", "gzip")] {
        let headers: Vec<&str> = [header].into_iter().filter(|header| !header.is_empty()).collect();
        let figures = rounds(&mut subject, &paths, &headers)?;
        book.note(&format!("{count} scrapes, {count} sets of projects, one connection, {what}"), figures)?;
    }
    let figures = at_once(&mut subject, &paths)?;
    book.note(&format!("{count} scrapes, {count} sets of projects, as many connections at once"), figures)?;
    let figures = restricted(&mut subject, &crowd.projects(), book.scaled(200))?;
    let what = format!("{} certificates, each for other projects, mutual TLS", book.scaled(200));
    book.note(&what, figures)
}

/// Requests for so many sets of projects, no two the same.
fn paths(projects: &[String], count: usize) -> Vec<String> {
    (1..=count).map(|set| format!("/1.0/metrics?{}", query(&chosen(projects, set)))).collect()
}

/// The projects whose bits are set.
fn chosen(projects: &[String], set: usize) -> Vec<&str> {
    projects
        .iter()
        .enumerate()
        .filter(|(bit, _)| set >> bit & 1 == 1)
        .map(|(_, name)| name.as_str())
        .collect()
}

fn query(projects: &[&str]) -> String {
    let pairs: Vec<String> = projects.iter().map(|project| format!("project={project}")).collect();
    pairs.join("&")
}

/// Waits until the next scrape is fresh, and makes it, so that a round is about answers alone.
fn collect(subject: &mut Subject) -> Result<()> {
    subject.set("metrics.cache_seconds", "0")?;
    subject.scrape()?;
    subject.set("metrics.cache_seconds", "8")?;
    subject.scrape()?;
    Ok(())
}

/// Rounds of these requests, one after the other on one connection; the costs are those of one answer.
fn rounds(subject: &mut Subject, paths: &[String], headers: &[&str]) -> Result<Figures> {
    let pid = subject.daemon.pid();
    let mut costs = Vec::new();
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        collect(subject)?;
        let mut paths = paths.iter();
        let times = u32::try_from(paths.len())?;
        costs.push(measure::cost(
            times,
            || measure::cpu(pid),
            || {
                interrupt::check()?;
                let path = paths.next().context("no more requests")?;
                subject.scraper.get(path, headers).map(|_| ())
            },
        )?);
        memory.push(measure::memory(pid, "VmRSS")?);
    }
    figures(subject, costs.into_iter().collect(), &memory)
}

/// As many connections, all open before the first one asks.
fn at_once(subject: &mut Subject, paths: &[String]) -> Result<Figures> {
    let pid = subject.daemon.pid();
    let socket = subject.daemon.dir.join("unix.socket");
    let (mut costs, mut memory, mut most) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        interrupt::check()?;
        collect(subject)?;
        let mut scrapers: Vec<Scraper> =
            paths.iter().map(|_| Scraper::unix(&socket)).collect::<Result<_>>()?;
        let (cpu, started) = (measure::cpu(pid)?, Instant::now());
        let share = scrapers.len().div_ceil(8).max(1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = scrapers
                .chunks_mut(share)
                .zip(paths.chunks(share))
                .map(|(scrapers, paths)| {
                    scope.spawn(move || -> Result<()> {
                        scrapers
                            .iter_mut()
                            .zip(paths)
                            .try_for_each(|(scraper, path)| scraper.get(path, &[]).map(|_| ()))
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => anyhow::bail!("a scraper panicked"),
            })
        })?;
        let wall = started.elapsed();
        most = most.max(measure::open_files(pid)?);
        costs.push(each(measure::cpu(pid)?.saturating_sub(cpu), wall, paths.len()));
        memory.push(measure::memory(pid, "VmRSS")?);
    }
    let mut figures = figures(subject, costs.into_iter().collect(), &memory)?;
    figures.notes.insert("descriptors_meanwhile".into(), f64::from(u32::try_from(most)?));
    Ok(figures)
}

/// Certificates that are restricted to other sets of projects each; every round they all connect anew.
fn restricted(subject: &mut Subject, projects: &[String], count: usize) -> Result<Figures> {
    let pid = subject.daemon.pid();
    let address = subject.daemon.listen("core.metrics_address")?;
    let server = subject.daemon.dir.join("server.crt");
    let mut clients = Vec::new();
    for set in 1..=count {
        interrupt::check()?;
        let client = Certificate::create(&format!("scraper{set}"))?;
        let file = client.crt.to_str().context("a path that is no UTF-8")?.to_owned();
        let projects = format!("--projects={}", chosen(projects, set).join(","));
        let add = ["config", "trust", "add-certificate", &file, "--type=metrics", "--restricted", &projects];
        subject.daemon.miharu(&add)?;
        clients.push(client);
    }
    let (mut costs, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        collect(subject)?;
        let (cpu, started) = (measure::cpu(pid)?, Instant::now());
        for client in &clients {
            interrupt::check()?;
            Scraper::tls(&address, &server, client)?.get("/1.0/metrics", &[])?;
        }
        let wall = started.elapsed();
        costs.push(each(measure::cpu(pid)?.saturating_sub(cpu), wall, clients.len()));
        memory.push(measure::memory(pid, "VmRSS")?);
    }
    figures(subject, costs.into_iter().collect(), &memory)
}

#[allow(clippy::cast_precision_loss, reason = "thousands")]
fn each(cpu: std::time::Duration, wall: std::time::Duration, count: usize) -> Cost {
    let count = count.max(1) as f64;
    Cost { cpu_us: cpu.as_secs_f64() * 1e6 / count, wall_us: wall.as_secs_f64() * 1e6 / count }
}

#[allow(clippy::cast_precision_loss, reason = "bytes of memory")]
fn figures(subject: &mut Subject, costs: Costs, memory: &[u64]) -> Result<Figures> {
    let mut figures = subject.state(costs)?;
    for (name, at) in [("first", memory.first()), ("last", memory.last())] {
        if let Some(bytes) = at {
            figures.notes.insert(format!("rss_after_{name}_round_bytes"), *bytes as f64);
        }
    }
    figures.rss_bytes = memory.iter().copied().max().unwrap_or(figures.rss_bytes);
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_scrapers_ask_for_the_same_projects() {
        let projects: Vec<String> = (0..PROJECTS).map(|number| format!("p{number}")).collect();
        let paths = paths(&projects, 1000);
        assert_eq!(paths.iter().collect::<std::collections::BTreeSet<_>>().len(), 1000);
        assert_eq!(paths[4], "/1.0/metrics?project=p0&project=p2");
    }
}

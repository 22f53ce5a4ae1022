//! LXD and Incus, each with containers of its own, and miharud on the very same containers in turns.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::lxd::{Kind, Lxd};
use miharu_e2e::measure::{self, Cost, Costs};
use miharu_e2e::{fleet, interrupt};

use crate::book::Book;
use crate::floor::{Floor, Way};
use crate::miharud::{PATH, Subject, count};

/// Both keep figures for 8 s: a scrape later than that is a fresh one.
const STALE: Duration = Duration::from_millis(8500);

/// What each of the two is called.
struct Names {
    subject: &'static str,
    owner: &'static str,
    /// What names of families begin with.
    prefix: &'static str,
}

/// Starts the peer with so many containers and measures both; nothing but a remark where it cannot be had.
///
/// # Errors
/// When miharud fails, or Ctrl-C was pressed.
pub(crate) fn run(book: &mut Book, kind: Kind, containers: u32, samples: u32) -> Result<()> {
    let names = match kind {
        Kind::Lxd => Names { subject: "lxd", owner: "LXD's", prefix: "lxd" },
        Kind::Incus => Names { subject: "incus", owner: "Incus'", prefix: "incus" },
    };
    if let Some(reason) = kind.lacking() {
        book.missing(names.subject, &reason);
        return Ok(());
    }
    let started = Instant::now();
    let all: Vec<String> = (1..=containers).map(|number| format!("c{number}")).collect();
    let peer = Lxd::of(kind).and_then(|mut peer| {
        peer.launch_all(&all)?;
        Ok(peer)
    });
    let peer = match peer {
        Ok(peer) => peer,
        Err(error) => {
            interrupt::check()?;
            book.missing(names.subject, &format!("{error:#}"));
            return Ok(());
        }
    };
    println!("  {containers} containers after {:?}", started.elapsed());
    if let Ok(version) = kind.version() {
        book.version(names.subject, &version);
    }
    measure(book, &names, &peer, containers, samples)
}

fn measure(book: &mut Book, names: &Names, peer: &Lxd, containers: u32, samples: u32) -> Result<()> {
    let subject = names.subject;
    let monitors: Vec<u32> =
        fleet::monitors(&peer.dir.join("containers")).into_iter().map(|(_, pid)| pid).collect();
    ensure!(monitors.len() == containers as usize, "{} monitors of {containers}", monitors.len());
    let pid = peer.pid();
    let socket = peer.dir.join("unix.socket");
    let daemon = || measure::cpu_of_tree(pid);
    let mut costs: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
    let mut note = |what: &'static str, cost: Cost| costs.entry(what).or_default().push(cost);
    // One that reads at each scrape and one that keeps what it read.
    let (mut fresh, mut cached) = (miharud(names, "0")?, miharud(names, "3600")?);
    let mut floor = Floor::start(Way::Kept, &fresh.inits()?)?;
    // The first scrape of either does things once.
    scrape(&socket)?;
    fresh.sample(3)?;
    cached.sample(3)?;
    floor.sample(3)?;
    for _ in 0..samples {
        interrupt::sleep(STALE)?;
        let before = measure::cpu_of_all(&monitors);
        let cost = measure::cost(1, daemon, || scrape(&socket).map(drop))?;
        let of_monitors = (measure::cpu_of_all(&monitors) - before).as_secs_f64() * 1e6;
        note("fresh", Cost { cpu_us: cost.cpu_us + of_monitors, ..cost });
        note("of that, the daemon", cost);
        let before = measure::cpu_of_all(&monitors);
        let cost = measure::cost(10, daemon, || scrape(&socket).map(drop))?;
        let of_monitors = (measure::cpu_of_all(&monitors) - before).as_secs_f64() * 1e5;
        note("cached", Cost { cpu_us: cost.cpu_us + of_monitors, ..cost });
        note("floor", floor.sample(10)?);
        note("miharud, fresh", fresh.sample(10)?);
        note("miharud, cached", cached.sample(300)?);
    }
    let took = |what: &str| costs.get(what).cloned().unwrap_or_default();
    let median = |what: &str| took(what).into_iter().collect::<Costs>().cpu_us.median().unwrap_or_default();
    if median("fresh") < 3.0 * median("cached") {
        book.remark(format!(
            "{subject}'s fresh scrapes cost little more than its cached ones: they may not have been fresh"
        ));
    }
    book.costs(subject, "fresh, with monitors", containers, took("fresh"));
    let own: Costs = took("of that, the daemon").into_iter().collect();
    book.note(subject, "fresh, the daemon alone: CPU", containers, "us", own.cpu_us);
    book.costs(subject, "cached, with monitors", containers, took("cached"));
    let owner = names.owner;
    book.costs("floor", &format!("{owner} containers, kept open"), containers, took("floor"));
    book.costs("miharud", &format!("{owner} containers, fresh"), containers, took("miharud, fresh"));
    book.costs("miharud", &format!("{owner} containers, cached"), containers, took("miharud, cached"));
    for (who, pid) in [(subject, pid), ("miharud", fresh.daemon.pid())] {
        let what = if who == subject { "VmRSS".to_owned() } else { format!("{owner} containers, VmRSS") };
        #[allow(clippy::cast_precision_loss, reason = "bytes, far below 2^53")]
        book.number(who, &what, containers, "bytes", measure::memory(pid, "VmRSS")? as f64);
    }
    let theirs = scrape(&socket)?;
    let ours = fresh.unix.get(PATH, &[])?.text();
    compare(book, names, &theirs, &ours, containers);
    Ok(())
}

fn miharud(names: &Names, cache_seconds: &str) -> Result<Subject> {
    let subject = Subject::start()?;
    subject.set("metrics.cache_seconds", cache_seconds)?;
    subject.set("metrics.prefix", names.prefix)?;
    Ok(subject)
}

fn scrape(socket: &Path) -> Result<String> {
    // A connection a scrape: theirs are closed while nobody asks.
    Ok(Scraper::unix(socket)?.get(PATH, &[]).context("the peer's metrics")?.text())
}

/// How large the answers are: whole, and for the families of instances that both have.
fn compare(book: &mut Book, names: &Names, theirs: &str, ours: &str, containers: u32) {
    let (subject, owner) = (names.subject, names.owner);
    let (their_families, our_families) = (families(theirs), families(ours));
    book.number(subject, "response", containers, "bytes", count(theirs.len()));
    book.number(
        subject,
        "series",
        containers,
        "",
        count(their_families.values().map(|(lines, _)| lines).sum()),
    );
    let shared: Vec<&&str> =
        their_families.keys().filter(|family| our_families.contains_key(*family)).collect();
    for (who, of, prefix) in [
        (subject, &their_families, String::new()),
        ("miharud", &our_families, format!("{owner} containers, ")),
    ] {
        let both = shared.iter().filter_map(|family| of.get(**family));
        let (lines, bytes) = both.fold((0, 0), |sum, (lines, bytes)| (sum.0 + lines, sum.1 + bytes));
        book.number(who, &format!("{prefix}the same families: samples"), containers, "", count(lines));
        book.number(who, &format!("{prefix}the same families: bytes"), containers, "bytes", count(bytes));
    }
    let only: Vec<&&str> =
        their_families.keys().filter(|family| !our_families.contains_key(*family)).collect();
    let differ: Vec<String> = shared
        .iter()
        .filter_map(|family| {
            let (theirs, ours) = (their_families.get(**family)?.0, our_families.get(**family)?.0);
            (theirs != ours).then(|| format!("{family} {theirs}/{ours}"))
        })
        .collect();
    book.remark(format!(
        "{} families of {subject}'s answer are in miharud's too; not in it: {}; with another number of samples ({subject}/miharud): {}",
        shared.len(),
        list(only.iter().map(|family| (**family).to_owned())),
        list(differ.into_iter()),
    ));
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The families of instances, those whose samples have a `name`: how many samples, and how many bytes with HELP and TYPE.
fn families(text: &str) -> BTreeMap<&str, (usize, usize)> {
    let mut all: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut comments: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let name = comment.split(' ').nth(1).unwrap_or_default();
            *comments.entry(name).or_default() += line.len() + 1;
            continue;
        }
        let Some((name, labels)) = line.split_once('{') else { continue };
        if labels.starts_with("name=\"") || labels.contains(",name=\"") {
            let (lines, bytes) = all.entry(name).or_default();
            *lines += 1;
            *bytes += line.len() + 1;
        }
    }
    for (name, (_, bytes)) in &mut all {
        *bytes += comments.get(name).copied().unwrap_or_default();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_instances_are_counted_with_their_comments() {
        let text = "# HELP a_total x\n# TYPE a_total counter\na_total{name=\"c1\"} 1\na_total{cpu=\"0\",name=\"c2\"} 2\n\
                    go_threads 3\nb{type=\"x\"} 1\n# EOF\n";
        let found = families(text);
        assert_eq!(found.len(), 1);
        let bytes = text.lines().take(4).map(|line| line.len() + 1).sum();
        assert_eq!(found.get("a_total"), Some(&(2, bytes)));
    }
}

//! miharud beside the floor, on the same containers and at the same time.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::measure::{self, Cost, Samples};
use miharu_e2e::miharud::program;
use miharu_e2e::scratch::{self, Entry};
use miharu_e2e::tls::Certificate;
use miharu_e2e::{Miharud, interrupt, shell};

use crate::book::Book;
use crate::floor::{Floor, Way};

/// Where the figures are.
pub(crate) const PATH: &str = "/1.0/metrics";

/// A daemon with a client that it trusts.
pub(crate) struct Subject {
    pub(crate) daemon: Miharud,
    pub(crate) unix: Scraper,
    tls: Scraper,
}

impl Subject {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn start() -> Result<Self> {
        let daemon = Miharud::with(&[])?;
        let address = daemon.listen("core.metrics_address")?;
        let client = Certificate::create("bench")?;
        let file = client.crt.to_str().context("a path that is no UTF-8")?;
        daemon.miharu(&["config", "trust", "add-certificate", file, "--type=metrics"])?;
        let unix = Scraper::unix(&daemon.dir.join("unix.socket"))?;
        let tls = Scraper::tls(&address, &daemon.dir.join("server.crt"), &client)?;
        Ok(Self { daemon, unix, tls })
    }

    /// Sets a server key.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<()> {
        self.daemon.miharu(&["config", "set", key, value]).map(drop)
    }

    /// The inits of all containers that it sees.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn inits(&self) -> Result<Vec<u32>> {
        let list = self.daemon.get("/1.0/instances?recursion=2")?.json()?;
        let list = list.get("metadata").and_then(serde_json::Value::as_array).context("no list")?.clone();
        let pids =
            list.iter().filter_map(|instance| instance.pointer("/state/pid")?.as_u64()?.try_into().ok());
        Ok(pids.collect())
    }

    /// What a scrape over the unix socket costs, of so many.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn sample(&mut self, batch: u32) -> Result<Cost> {
        sample(&mut self.unix, self.daemon.pid(), &[], batch)
    }
}

fn sample(scraper: &mut Scraper, pid: u32, headers: &[&str], batch: u32) -> Result<Cost> {
    interrupt::check()?;
    measure::cost(batch, || measure::cpu(pid), || scraper.get(PATH, headers).map(drop))
}

/// Everything about miharud and the floor with these many containers.
///
/// # Errors
/// When either fails.
pub(crate) fn run(book: &mut Book, containers: u32, samples: u32) -> Result<()> {
    let mut subject = Subject::start()?;
    let inits = subject.inits()?;
    ensure!(inits.len() >= containers as usize, "miharud sees {} containers of {containers}", inits.len());
    let others = inits.len() - containers as usize;
    if others > 0 {
        book.remark(format!(
            "{others} containers of others ran beside the {containers}; the floor has read them too"
        ));
    }
    fresh(book, &mut subject, &inits, containers, samples)?;
    cached(book, &mut subject, containers, samples)?;
    memory(book, &subject, containers)?;
    if containers >= 500 || containers <= 10 {
        idle(book, &subject, containers, samples)?;
    }
    drop(subject);
    start_up(book, containers, samples)
}

/// So many rounds that a sample takes some tens of milliseconds.
fn batch(containers: u32) -> u32 {
    (2000 / containers.max(1)).clamp(4, 100)
}

fn fresh(book: &mut Book, subject: &mut Subject, inits: &[u32], containers: u32, samples: u32) -> Result<()> {
    let batch = batch(containers);
    subject.set("metrics.cache_seconds", "0")?;
    let mut floors = [Way::Kept, Way::Bare, Way::Moving, Way::Opened]
        .into_iter()
        .map(|way| Ok((way, Floor::start(way, inits)?, Vec::new())))
        .collect::<Result<Vec<_>>>()?;
    let (mut unix, mut tls) = (Vec::new(), Vec::new());
    let pid = subject.daemon.pid();
    // What happens once, such as opening files that are then kept, is no part of a scrape.
    for _ in 0..2 {
        subject.sample(1)?;
        floors.iter_mut().try_for_each(|(_, floor, _)| floor.sample(1).map(drop))?;
    }
    // In turns, so that whatever else the machine does meets all of them.
    for _ in 0..samples {
        for (_, floor, costs) in &mut floors {
            costs.push(floor.sample(batch)?);
        }
        unix.push(subject.sample(batch)?);
        tls.push(sample(&mut subject.tls, pid, &[], batch)?);
    }
    for (way, floor, costs) in floors {
        book.costs("floor", way.what(), containers, costs);
        if way == Way::Kept {
            book.number(
                "floor",
                "files a container",
                containers,
                "",
                f64::from(floor.files) / count(inits.len()),
            );
        }
    }
    book.costs("miharud", "fresh, unix socket", containers, unix);
    book.costs("miharud", "fresh, mTLS", containers, tls);
    let reply = subject.unix.get(PATH, &[])?;
    let text = reply.text();
    book.number("miharud", "response", containers, "bytes", count(reply.body.len()));
    let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    book.number("miharud", "series", containers, "", count(series));
    Ok(())
}

fn cached(book: &mut Book, subject: &mut Subject, containers: u32, samples: u32) -> Result<()> {
    subject.set("metrics.cache_seconds", "3600")?;
    let pid = subject.daemon.pid();
    for (what, headers) in [("", &[][..]), (", gzip", &["Accept-Encoding: gzip"])] {
        let (mut unix, mut tls) = (Vec::new(), Vec::new());
        subject.unix.get(PATH, headers)?;
        for _ in 0..samples {
            unix.push(sample(&mut subject.unix, pid, headers, 50)?);
            tls.push(sample(&mut subject.tls, pid, headers, 50)?);
        }
        book.costs("miharud", &format!("cached, unix socket{what}"), containers, unix);
        book.costs("miharud", &format!("cached, mTLS{what}"), containers, tls);
    }
    book.number("miharud", "response, gzip", containers, "bytes", count(subject.unix.wire_bytes));
    Ok(())
}

fn memory(book: &mut Book, subject: &Subject, containers: u32) -> Result<()> {
    let pid = subject.daemon.pid();
    for name in ["VmRSS", "RssAnon", "VmHWM"] {
        book.number("miharud", name, containers, "bytes", bytes(measure::memory(pid, name)?));
    }
    book.number("miharud", "open files", containers, "", count(measure::open_files(pid)?));
    Ok(())
}

/// CPU without scrapes, in per cent of one core.
fn idle(book: &mut Book, subject: &Subject, containers: u32, samples: u32) -> Result<()> {
    let pid = subject.daemon.pid();
    let mut shares = Vec::new();
    for _ in 0..samples {
        let cost = measure::cost(1, || measure::cpu(pid), || interrupt::sleep(Duration::from_secs(3)))?;
        shares.push(100.0 * cost.cpu_us / cost.wall_us);
    }
    book.note("miharud", "idle, of a core", containers, "%", Samples(shares));
    Ok(())
}

/// From exec to the first answer to a scrape, on a folder that was used before and so has its key; and what the kernel gets back
/// of its memory when the process ends.
fn start_up(book: &mut Book, containers: u32, samples: u32) -> Result<()> {
    let dir = scratch::dir("miharu")?;
    let (mut first, mut wall, mut slab) = (None, Vec::new(), Vec::new());
    for round in 0..=samples {
        interrupt::check()?;
        let log = fs::File::create(dir.join("log"))?;
        let mut command = Command::new(program("miharud")?);
        command.arg("--dir").arg(&dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let started = Instant::now();
        let mut child = command.spawn().context("miharud")?;
        let note = Entry::Process(child.id()).note()?;
        let answered = first_answer(&dir.join("unix.socket"), started);
        let taken = started.elapsed().as_secs_f64() * 1e3;
        answered.with_context(|| fs::read_to_string(dir.join("log")).unwrap_or_default())?;
        let before = measure::host_memory("Slab")?;
        shell::run("kill", ["-TERM", &child.id().to_string()])?;
        child.wait()?;
        drop(note);
        // The kernel frees files a little later than it closes them.
        std::thread::sleep(Duration::from_millis(300));
        slab.push(bytes(before) - bytes(measure::host_memory("Slab")?));
        // The very first start makes the server's key.
        if round == 0 { first = Some(taken) } else { wall.push(taken) }
    }
    book.note("miharud", "start to first answer", containers, "ms", Samples(wall));
    if let Some(first) = first {
        book.number("miharud", "the first start ever, with a new key", containers, "ms", first);
    }
    book.note("miharud", "kernel memory (Slab) freed at its end", containers, "bytes", Samples(slab));
    Ok(())
}

fn first_answer(socket: &std::path::Path, started: Instant) -> Result<()> {
    loop {
        if let Ok(mut scraper) = Scraper::unix(socket)
            && scraper.get(PATH, &[]).is_ok()
        {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(20), "miharud does not answer");
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[allow(clippy::cast_precision_loss, reason = "bytes and counts, far below 2^53")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, reason = "bytes, far below 2^53")]
fn bytes(number: u64) -> f64 {
    number as f64
}

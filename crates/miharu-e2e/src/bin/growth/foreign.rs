//! Processes that belong to no instance.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::measure::Samples;
use miharu_e2e::{interrupt, shell};

use crate::book::Book;
use crate::crowd::Crowd;
use crate::subject::Subject;

/// Shells that make the processes, so that none of them has a long list of children to look through.
const MAKERS: usize = 20;

/// Process numbers that are left to others.
const RESERVE: usize = 5000;

pub(crate) fn run(book: &mut Book) -> Result<()> {
    let mut crowd = Crowd::new(1)?;
    crowd.grow(book.scaled(100))?;
    let count = room(book.scaled(20_000))?;
    if count < book.scaled(20_000) {
        book.say(&format!("only {count} processes, as this machine has no more numbers to give"));
    }
    let mut subject = Subject::start()?;
    book.note("none", subject.measure()?)?;
    let foreign = Foreign::start(count)?;
    // New processes are looked at in each scrape of ten seconds, as they may be about to become a QEMU.
    let young = one(&mut subject)?;
    interrupt::sleep(Duration::from_secs(12))?;
    let mut figures = subject.measure()?;
    figures.notes.insert("just_after_they_began_cpu_us".into(), young);
    let (median, max) = over_a_minute(book, &mut subject)?;
    figures.notes.insert("over_a_minute_median_cpu_us".into(), median);
    figures.notes.insert("over_a_minute_max_cpu_us".into(), max);
    book.note(&format!("{count} processes"), figures)?;
    let mut subject = Subject::start()?;
    book.note(&format!("{count} processes, a daemon that starts among them"), subject.measure()?)?;
    drop(foreign);
    Ok(())
}

/// Scrapes for longer than the minute after which every process is listed again.
fn over_a_minute(book: &Book, subject: &mut Subject) -> Result<(f64, f64)> {
    let started = Instant::now();
    let mut samples = Vec::new();
    let length = if book.scaled(10) == 10 { 66 } else { 3 };
    while started.elapsed() < Duration::from_secs(length) {
        samples.push(one(subject)?);
        interrupt::sleep(Duration::from_millis(500))?;
    }
    let samples = Samples(samples);
    Ok((samples.median().unwrap_or_default(), samples.max().unwrap_or_default()))
}

/// The CPU time of one scrape, microseconds.
fn one(subject: &mut Subject) -> Result<f64> {
    let before = subject.cpu()?;
    subject.scrape()?;
    Ok(subject.cpu()?.saturating_sub(before).as_secs_f64() * 1e6)
}

/// How many of so many processes there are numbers for.
fn room(wanted: usize) -> Result<usize> {
    let pid_max: usize = fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    let loadavg = fs::read_to_string("/proc/loadavg")?;
    let tasks = loadavg.split([' ', '/']).nth(4).context("/proc/loadavg")?;
    let free = pid_max.saturating_sub(tasks.parse::<usize>()? + RESERVE);
    Ok(wanted.min(free))
}

/// Sleeping processes. Each waits for its input, whose other end is ours: they end with this process, however that ends.
struct Foreign(Vec<Child>);

impl Foreign {
    fn start(count: usize) -> Result<Self> {
        let mut foreign = Self(Vec::new());
        let each = (count / MAKERS).max(1);
        let line = format!(
            "i=1; while [ $i -lt {each} ]; do (read x) <&3 & i=$((i+1)); done; echo done; read x <&3"
        );
        for _ in 0..MAKERS {
            interrupt::check()?;
            let mut maker = Command::new("busybox");
            maker.args(["sh", "-c", &format!("exec 3<&0; {line}")]);
            foreign.0.push(maker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        }
        let before = fs::read_dir("/proc")?.count();
        for maker in &mut foreign.0 {
            let mut said = [0; 5];
            let output = maker.stdout.as_mut().context("a maker without output")?;
            std::io::Read::read_exact(output, &mut said).context("a maker of processes ended")?;
        }
        shell::wait_for("the processes", Duration::from_secs(60), || {
            let now = fs::read_dir("/proc").ok()?.count();
            (now + 50 >= before || now >= count).then_some(())
        })?;
        Ok(foreign)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        for maker in &mut self.0 {
            drop(maker.stdin.take());
        }
        for maker in &mut self.0 {
            let _ = maker.wait();
        }
    }
}

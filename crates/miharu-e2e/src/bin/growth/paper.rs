//! What 5,000 hosts of 200 instances cost a Prometheus, by arithmetic on answers that were measured; and what the keys that
//! cut an answer save.

use std::fmt::Write as _;

use anyhow::Result;
use miharu_e2e::{Exposition, interrupt, shell};

use crate::book::{Book, Row};
use crate::crowd::Crowd;
use crate::subject::{Figures, Subject};

/// What the arithmetic is about.
const HOSTS: f64 = 5000.0;
const INSTANCES: usize = 200;

/// Bytes of memory that a series takes in Prometheus' head, "as of Prometheus 2.20":
/// <https://www.robustperception.io/why-does-prometheus-use-so-much-ram/>.
const HEAD_BYTES: f64 = 3000.0;

/// Bytes on disk that a sample takes, the larger of the "1-2 bytes" of
/// <https://prometheus.io/docs/prometheus/latest/storage/#operational-aspects>.
const SAMPLE_BYTES: f64 = 2.0;

/// Keys and their values, and what to call them.
type Setting = (&'static str, &'static [(&'static str, &'static str)]);

const PER_CPU: (&str, &str) = ("metrics.per_cpu", "false");
const FAMILIES: (&str, &str) =
    ("metrics.families.exclude", "pressure_*,network_*_errs_total,network_*_drop_total");
const DEVICES: (&str, &str) = ("metrics.devices.exclude", "network:lo");

const SETTINGS: [Setting; 5] = [
    ("as it comes", &[]),
    ("`metrics.per_cpu=false`", &[PER_CPU]),
    ("`metrics.families.exclude=pressure_*,network_*_errs_total,network_*_drop_total`", &[FAMILIES]),
    ("`metrics.devices.exclude=network:lo`", &[DEVICES]),
    ("all three", &[PER_CPU, FAMILIES, DEVICES]),
];

pub(crate) fn run(book: &mut Book) -> Result<()> {
    let mut crowd = Crowd::new(1)?;
    let mut connected = 0;
    for count in [10, 100, INSTANCES, 500] {
        let count = if count == 10 { 10 } else { book.scaled(count) };
        crowd.grow(count)?;
        for pid in crowd.pids().skip(connected) {
            interrupt::check()?;
            // As others see it, an interface of a virtual machine; for the container it is its network.
            let pid = pid.to_string();
            shell::run("nsenter", ["-t", &pid, "-n", "ip", "tuntap", "add", "dev", "eth0", "mode", "tap"])?;
        }
        connected = crowd.len();
        let mut subject = Subject::start()?;
        let figures = sizes(&mut subject)?;
        book.note(&format!("{count} containers"), figures)?;
        if count != book.scaled(INSTANCES) {
            continue;
        }
        for (what, keys) in SETTINGS {
            let mut subject = Subject::start()?;
            for (key, value) in keys {
                subject.set(key, value)?;
            }
            let figures = sizes(&mut subject)?;
            book.note(what, figures)?;
        }
    }
    Ok(())
}

/// Costs, and the size of the answer in each form.
fn sizes(subject: &mut Subject) -> Result<Figures> {
    let mut figures = subject.measure()?;
    let text = String::from_utf8(subject.scrape()?)?;
    let mut note = |name: &str, count: usize| -> Result<()> {
        figures.notes.insert(name.into(), f64::from(u32::try_from(count)?));
        Ok(())
    };
    note("series", Exposition::parse(&text)?.samples().count())?;
    note("plain_bytes", text.len())?;
    for encoding in ["gzip", "zstd"] {
        let header = format!("Accept-Encoding: {encoding}");
        let reply = subject.scraper.get("/1.0/metrics", &[&header])?;
        note(&format!("{encoding}_bytes"), reply.body.len())?;
    }
    Ok(figures)
}

/// The tables of what [`run`] noted.
pub(crate) fn table<'r>(rows: impl Iterator<Item = &'r Row>) -> String {
    let rows: Vec<&Row> = rows.collect();
    let is_setting = |row: &&&Row| SETTINGS.iter().any(|(name, _)| *name == row.case);
    let mut table = String::from(
        "| one host | series | an instance | plain | gzip | zstd | CPU of a fresh scrape |\n|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in &rows {
        let of = |name: &str| row.figures.notes.get(name).copied().unwrap_or_default();
        let kb = |name: &str| format!("{:.0} kB", of(name) / 1e3);
        let instances = f64::from(u32::try_from(row.figures.succeeded.max(1)).unwrap_or(1));
        let _ = writeln!(
            table,
            "| {} | {:.0} | {:.1} | {} | {} | {} | {:.1} ms |",
            row.case,
            of("series"),
            of("series") / instances,
            kb("plain_bytes"),
            kb("gzip_bytes"),
            kb("zstd_bytes"),
            row.figures.scrape.cpu_us.median().unwrap_or_default() / 1e3,
        );
    }
    table += "\n| 5,000 hosts of 200 | series | samples a second, every 15 s | every 60 s | gzip on the wire, every 15 s | every 60 s | \
              head memory | disk a day, every 15 s |\n|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for row in rows.iter().filter(is_setting) {
        let of = |name: &str| row.figures.notes.get(name).copied().unwrap_or_default() * HOSTS;
        let (series, gzip) = (of("series"), of("gzip_bytes"));
        let _ = writeln!(
            table,
            "| {} | {:.1} million | {:.2} million | {:.2} million | {:.0} MB/s | {:.0} MB/s | {:.0} GB | {:.0} GB |",
            row.case,
            series / 1e6,
            series / 15e6,
            series / 60e6,
            gzip / 15e6,
            gzip / 60e6,
            series * HEAD_BYTES / 1e9,
            series / 15.0 * 86_400.0 * SAMPLE_BYTES / 1e9,
        );
    }
    table
}

//! The generated part of `docs/explanation/performance.md`: what was reached, and all medians with their spread.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::book::{Book, number, spread};

const BEGIN: &str = "<!-- begin of what `make bench` writes -->\n";
const END: &str = "<!-- end of what `make bench` writes -->\n";

/// Writes the tables between the two marks of a page.
///
/// # Errors
/// When the page cannot be read or written, or has no marks.
pub(crate) fn write(page: &Path, book: &Book) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).context("the page has no mark for the begin")?;
    let (_, after) = rest.split_once(END).context("the page has no mark for the end")?;
    let made = render(book);
    fs::write(page, format!("{before}{BEGIN}\n{made}\n{END}{after}")).context("the page")
}

/// A figure that has a bound.
struct Row {
    what: &'static str,
    bound: Bound,
    value: Option<f64>,
    unit: &'static str,
    /// The two figures of a ratio, or what belongs to the value.
    detail: String,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {}{unit}", number(bound)),
            Self::AtLeast(bound) => format!("≥ {}{unit}", number(bound)),
        }
    }
}

/// A subject's figure with so many containers.
type Key = (&'static str, &'static str, u32);

fn ratio(book: &Book, what: &'static str, bound: Bound, of: Key, to: Key) -> Row {
    let median = |(subject, figure, containers): Key| book.median(subject, figure, containers);
    let value = median(of).zip(median(to)).map(|(of, to)| of / to);
    let shown = |key: Key| {
        let figure = book.get(key.0, key.1, key.2);
        figure.map_or_else(String::new, |figure| spread(&figure.samples, &figure.unit))
    };
    let detail = if value.is_some() { format!("{} : {}", shown(of), shown(to)) } else { String::new() };
    Row { what, bound, value, unit: "", detail }
}

fn plain(book: &Book, what: &'static str, bound: Bound, of: Key, divisor: f64, unit: &'static str) -> Row {
    let figure = book.get(of.0, of.1, of.2);
    let value = figure.and_then(|figure| figure.samples.median()).map(|value| value / divisor);
    let detail = figure.map_or_else(String::new, |figure| spread(&figure.samples, &figure.unit));
    Row { what, bound, value, unit, detail }
}

fn reach(book: &Book) -> Vec<Row> {
    use Bound::{AtLeast, AtMost};
    const FRESH: &str = "fresh, unix socket: CPU";
    let growth_of = |subject: &str, what: &str| {
        let each = |containers: u32| {
            book.median(subject, what, containers).map(|median| median / f64::from(containers))
        };
        each(500).zip(each(50)).map(|(many, few)| many / few)
    };
    let mut growth = ratio(
        book,
        "CPU per container at 500, to that at 50",
        AtMost(1.15),
        ("miharud", FRESH, 500),
        ("miharud", FRESH, 50),
    );
    growth.value = growth_of("miharud", FRESH);
    // What the kernel's own structures lose by not being in the caches any more, nobody above it can win back.
    if let Some(floor) = growth_of("floor", "kept open: CPU") {
        growth.detail += &format!("; the floor's own {}", number(floor));
    }
    let mut floor = ratio(
        book,
        "CPU per fresh scrape over the unix socket, to the floor of the same run",
        AtMost(1.5),
        ("miharud", FRESH, 500),
        ("floor", "kept open: CPU", 500),
    );
    for (way, what) in [
        ("kept open, without mountinfo: CPU", "a floor without mountinfo"),
        ("kept open, only what moves by itself: CPU", "one of only what moves by itself"),
    ] {
        let to = book.median("miharud", FRESH, 500).zip(book.median("floor", way, 500));
        if let Some((of, to)) = to {
            floor.detail += &format!("; to {what} {}", number(of / to));
        }
    }
    let mut lxd = ratio(
        book,
        "CPU per fresh scrape, LXD (daemon and its monitor processes) to miharud, same 100 containers",
        AtLeast(50.0),
        ("lxd", "fresh, with monitors: CPU", 100),
        ("miharud", "LXD's containers, fresh: CPU", 100),
    );
    let least = book.median("floor", "LXD's containers, kept open: CPU", 100);
    if let Some((lxd_takes, least)) = book.median("lxd", "fresh, with monitors: CPU", 100).zip(least) {
        lxd.detail += &format!("; the floor itself would have {}", number(lxd_takes / least));
    }
    let mut memory = plain(book, "resident memory", AtMost(32.0), ("miharud", "VmRSS", 500), 1e6, " MB");
    if let Some(slab) = book.get("miharud", "kernel memory (Slab) freed at its end", 500) {
        memory.detail +=
            &format!("; kernel memory of kept files beside it {}", spread(&slab.samples, "bytes"));
    }
    vec![
        floor,
        lxd,
        ratio(
            book,
            "CPU per fresh scrape, to Netdata's per round of the same containers",
            AtMost(1.0),
            ("miharud", "beside Netdata, fresh every second: CPU", 500),
            ("netdata", "a round: CPU", 500),
        ),
        ratio(
            book,
            "CPU per cached scrape, LXD to miharud",
            AtLeast(100.0),
            ("lxd", "cached, with monitors: CPU", 100),
            ("miharud", "LXD's containers, cached: CPU", 100),
        ),
        growth,
        memory,
        plain(book, "idle CPU without scrapes", AtMost(0.1), ("miharud", "idle, of a core", 500), 1.0, " %"),
        plain(
            book,
            "start to first answer",
            AtMost(150.0),
            ("miharud", "start to first answer", 500),
            1.0,
            " ms",
        ),
        ratio(
            book,
            "size of a response to Incus', the same families",
            AtMost(1.0),
            ("miharud", "Incus' containers, the same families: bytes", 100),
            ("incus", "the same families: bytes", 100),
        ),
        ratio(
            book,
            "samples to Incus', the same families",
            AtMost(1.0),
            ("miharud", "Incus' containers, the same families: samples", 100),
            ("incus", "the same families: samples", 100),
        ),
    ]
}

/// Everything between the marks.
fn render(book: &Book) -> String {
    let machine = &book.machine;
    let mut page = format!(
        "Measured on {} by `make bench` at commit `{}`: {} cores ({}), {} of memory, kernel {}, cgroup {}. Medians, and in brackets the \
         smallest and the largest of all samples; CPU is user and system of all processes that take part.\n\n",
        book.date,
        book.commit,
        machine.cores,
        machine.cpu,
        gigabytes(machine.memory_bytes),
        machine.kernel,
        machine.cgroup,
    );
    for note in &book.notes {
        page += &format!("- {note}\n");
    }
    for (subject, reason) in &book.missing {
        page += &format!("- {subject}: not measured: {reason}\n");
    }
    page += "\n### Reach\n\n| figure | reach | measured | reached | of |\n|---|---|---|---|---|\n";
    for row in reach(book) {
        let measured =
            row.value.map_or_else(|| "not measured".to_owned(), |v| format!("{}{}", number(v), row.unit));
        let reached = row.value.map_or("", |value| if row.bound.holds(value) { "yes" } else { "no" });
        page += &format!(
            "| {} | {} | {measured} | {reached} | {} |\n",
            row.what,
            row.bound.text(row.unit),
            row.detail
        );
    }
    if !book.profile.is_empty() {
        page += "\n### Where a fresh scrape spends its time\n\n[A flame graph](performance/flame.svg); a frame shows its name and share. \
                 By function, without what it calls:\n\n| share | function |\n|---|---|\n";
        for (function, share) in &book.profile {
            page += &format!("| {} % | `{function}` |\n", number(*share));
        }
    }
    page += "\n### All figures\n\n";
    page += &figures(book);
    page += "\n### Who was measured\n\n| subject | version |\n|---|---|\n";
    for (subject, version) in &book.versions {
        page += &format!("| {subject} | {version} |\n");
    }
    page
}

fn figures(book: &Book) -> String {
    let mut counts: Vec<u32> = book.figures.iter().map(|figure| figure.containers).collect();
    counts.sort_unstable();
    counts.dedup();
    let mut table = "| subject | figure |".to_owned();
    for count in &counts {
        table += &format!(" {count} containers |");
    }
    table += "\n|---|---|";
    table += &"---|".repeat(counts.len());
    table.push('\n');
    let mut done: Vec<(&str, &str)> = Vec::new();
    for figure in &book.figures {
        let row = (figure.subject.as_str(), figure.what.as_str());
        if done.contains(&row) {
            continue;
        }
        done.push(row);
        table += &format!("| {} | {} |", row.0, row.1);
        for count in &counts {
            let cell = book.get(row.0, row.1, *count);
            let cell = cell.map_or_else(String::new, |figure| spread(&figure.samples, &figure.unit));
            table += &format!(" {cell} |");
        }
        table.push('\n');
    }
    table
}

#[allow(clippy::cast_precision_loss, reason = "bytes, far below 2^53")]
fn gigabytes(bytes: u64) -> String {
    format!("{} GB", number(bytes as f64 / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_said_and_no_figure_is_made_up() {
        let mut book = Book::new().unwrap();
        book.number("miharud", "fresh, unix socket: CPU", 500, "us", 30_000.0);
        book.number("floor", "kept open: CPU", 500, "us", 25_000.0);
        book.number("miharud", "VmRSS", 500, "bytes", 40e6);
        book.missing("netdata", "it is not installed");
        let page = render(&book);
        assert!(page.contains("| ≤ 1.50 | 1.20 | yes | 30.0 ms : 25.0 ms |"), "{page}");
        assert!(page.contains("| resident memory | ≤ 32.0 MB | 40.0 MB | no |"), "{page}");
        assert!(page.contains("per round of the same containers | ≤ 1.00 | not measured |  |  |"), "{page}");
        assert!(page.contains("- netdata: not measured: it is not installed"), "{page}");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("p.md");
        fs::write(&page, format!("before\n{BEGIN}old\n{END}after\n")).unwrap();
        let book = Book::new().unwrap();
        write(&page, &book).unwrap();
        write(&page, &book).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.starts_with("before\n") && text.ends_with(&format!("{END}after\n")), "{text}");
        assert!(text.contains("### Reach") && !text.contains("old"), "{text}");
        fs::write(&page, "no marks").unwrap();
        assert!(write(&page, &book).is_err());
    }
}

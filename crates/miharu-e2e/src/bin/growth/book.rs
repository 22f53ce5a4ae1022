//! What was measured: said to the person who waits, kept as JSON, written as tables.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use miharu_e2e::measure::{Machine, Samples};
use miharu_e2e::shell;
use serde::{Deserialize, Serialize};

use crate::paper;
use crate::subject::Figures;

/// The marks around each table in the page.
const PAGE: &str = "docs/explanation/performance.md";
const RAW: &str = "docs/explanation/performance/growth.json";

/// Whether it is for the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// It is.
    Full,
    /// A tenth of the size, which only tries the program itself.
    Quick,
}

/// One case of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    scenario: String,
    /// What was measured; `MIHARU_BENCH_COMMIT` names it where the programs are not of this checkout.
    commit: String,
    pub(crate) case: String,
    pub(crate) figures: Figures,
}

/// What is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Raw {
    machine: Machine,
    date: String,
    rows: Vec<Row>,
}

/// The book.
#[derive(Debug)]
pub(crate) struct Book {
    size: Size,
    base: PathBuf,
    scenario: String,
    raw: Raw,
}

impl Book {
    /// Goes on with what an earlier run kept of other scenarios.
    ///
    /// # Errors
    /// When that cannot be read.
    pub(crate) fn open(size: Size) -> Result<Self> {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let mut raw: Raw = match fs::read(base.join(RAW)) {
            Ok(text) => serde_json::from_slice(&text).context(RAW)?,
            Err(_) => Raw::default(),
        };
        raw.machine = Machine::this()?;
        Ok(Self { size, base, scenario: String::new(), raw })
    }

    /// A count for a full run, or a tenth of it.
    pub(crate) fn scaled(&self, count: usize) -> usize {
        match self.size {
            Size::Full => count,
            Size::Quick => count.div_ceil(10),
        }
    }

    /// Begins a scenario anew.
    pub(crate) fn begin(&mut self, scenario: &str) {
        println!("{scenario}");
        scenario.clone_into(&mut self.scenario);
        self.raw.rows.retain(|row| row.scenario != scenario);
    }

    /// Says something that is no figure.
    #[allow(clippy::unused_self, reason = "it is the book that speaks")]
    pub(crate) fn say(&self, what: &str) {
        println!("  {what}");
    }

    /// Notes a case.
    #[allow(clippy::unnecessary_wraps, reason = "the last thing that scenarios do")]
    pub(crate) fn note(&mut self, case: &str, figures: Figures) -> Result<()> {
        let row =
            Row { scenario: self.scenario.clone(), commit: String::new(), case: case.to_owned(), figures };
        println!("  {}", line(&row, self.reference().or(Some(&row))).trim_matches(['|', ' ']));
        for (name, value) in &row.figures.notes {
            println!("      {name} {value:.0}");
        }
        self.raw.rows.push(row);
        Ok(())
    }

    /// The first case of the scenario, with which the others are compared.
    fn reference(&self) -> Option<&Row> {
        self.raw.rows.iter().find(|row| row.scenario == self.scenario)
    }

    /// Writes raw numbers and the scenario's table.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if self.size == Size::Quick {
            return Ok(());
        }
        let commit = match std::env::var("MIHARU_BENCH_COMMIT") {
            Ok(given) => given,
            Err(_) => shell::run("git", ["rev-parse", "--short", "HEAD"])?.trim().to_owned(),
        };
        for row in self.raw.rows.iter_mut().filter(|row| row.scenario == self.scenario) {
            commit.clone_into(&mut row.commit);
        }
        self.raw.date = shell::run("date", ["-u", "+%F"])?.trim().to_owned();
        let path = self.base.join(RAW);
        fs::create_dir_all(path.parent().context(RAW)?)?;
        fs::write(&path, serde_json::to_string_pretty(&self.raw)? + "\n").context(RAW)?;
        let page = self.base.join(PAGE);
        let Ok(text) = fs::read_to_string(&page) else {
            self.say(&format!("{PAGE} is not there, so the table is written nowhere"));
            return Ok(());
        };
        let name = format!("growth {}", self.scenario);
        fs::write(&page, replace(&text, &name, &self.table())?).context(PAGE)
    }

    fn table(&self) -> String {
        let rows = self.raw.rows.iter().filter(|row| row.scenario == self.scenario);
        let mut table = if self.scenario == "paper" { paper::table(rows) } else { self.costs(rows) };
        let Raw { machine, date, .. } = &self.raw;
        let commit = self.reference().map_or("unknown", |row| &row.commit);
        let _ = writeln!(
            table,
            "\n{} cores of {}, Linux {}, cgroup {}, commit {commit}, {date}.",
            machine.cores, machine.cpu, machine.kernel, machine.cgroup
        );
        table
    }

    fn costs<'r>(&self, rows: impl Iterator<Item = &'r Row>) -> String {
        let mut table = String::from(
            "| case | instances | CPU of a scrape | an instance | to the first | wall time | resident | descriptors | kernel |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for row in rows {
            let _ = writeln!(table, "{}", line(row, self.reference()));
        }
        table
    }
}

/// A row of the table.
fn line(row: &Row, reference: Option<&Row>) -> String {
    let Figures { scrape, rss_bytes, descriptors, kernel_bytes, succeeded, .. } = &row.figures;
    let each = each(&row.figures);
    let ratio = each.and_then(|each| Some(each / self::each(&reference?.figures)?));
    let each = each.map_or("-".to_owned(), |each| format!("{each:.1} µs"));
    let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    // Less than before says only that somebody else has let go of more.
    let kernel = kernel_bytes.filter(|bytes| *bytes >= 0);
    let kernel = kernel.map_or("-".to_owned(), |bytes| format!("{} MB", bytes / 1_000_000));
    format!(
        "| {} | {succeeded} | {} | {each} | {ratio} | {} | {} MB | {descriptors} | {kernel} |",
        row.case,
        time(&scrape.cpu_us),
        time(&scrape.wall_us),
        rss_bytes / 1_000_000,
    )
}

/// CPU time of an instance, microseconds: where others start containers on the machine meanwhile, this still compares.
fn each(figures: &Figures) -> Option<f64> {
    let instances = u32::try_from(figures.succeeded).ok().filter(|instances| *instances > 0)?;
    Some(figures.scrape.cpu_us.median()? / f64::from(instances))
}

/// A median and its spread in the unit that reads best.
fn time(samples: &Samples) -> String {
    let (Some(median), Some(min), Some(max)) = (samples.median(), samples.min(), samples.max()) else {
        return "-".to_owned();
    };
    if median >= 1000.0 {
        let ms = |us: f64| us / 1000.0;
        return format!("{:.1} ms ({:.1} to {:.1})", ms(median), ms(min), ms(max));
    }
    format!("{median:.0} µs ({min:.0} to {max:.0})")
}

/// Puts something between the two marks of that name.
fn replace(text: &str, name: &str, between: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let (before, rest) = text.split_once(&begin).with_context(|| format!("no {begin} in {PAGE}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no {end} in {PAGE}"))?;
    Ok(format!("{before}{begin}\n{between}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_goes_between_its_own_marks() {
        let text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb <!-- y: begin --><!-- y: end -->";
        let new = replace(text, "x", "new\n").unwrap();
        assert_eq!(new, text.replace("old", "new"));
        assert!(replace(text, "z", "").is_err());
    }

    #[test]
    fn times_are_read_in_their_unit() {
        assert_eq!(time(&Samples(vec![1.0, 3.0, 2.0])), "2 µs (1 to 3)");
        assert_eq!(time(&Samples(vec![1500.0])), "1.5 ms (1.5 to 1.5)");
    }
}

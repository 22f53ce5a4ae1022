//! What was measured, as it is kept in `bench.json`: one flat list of figures, each with all its samples.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use miharu_e2e::measure::{Cost, Costs, Machine, Samples};
use serde::{Deserialize, Serialize};

/// One figure of one subject with so many containers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Who: `miharud`, `floor`, `lxd` and so on.
    pub(crate) subject: String,
    /// What, such as `fresh, unix socket: CPU`.
    pub(crate) what: String,
    /// With so many containers.
    pub(crate) containers: u32,
    /// `us`, `bytes`, `samples`, `%`, `ms`.
    pub(crate) unit: String,
    /// Each sample, in the order in which they were taken.
    pub(crate) samples: Samples,
}

/// Everything of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Book {
    /// Where.
    pub(crate) machine: Machine,
    /// When, UTC.
    pub(crate) date: String,
    /// Of which commit; with `+` at the end where the working tree was another.
    pub(crate) commit: String,
    /// The versions of the subjects.
    pub(crate) versions: Vec<(String, String)>,
    /// What was not measured, and why.
    pub(crate) missing: Vec<(String, String)>,
    /// What else has to be known, such as containers of others that ran at the same time.
    pub(crate) notes: Vec<String>,
    /// The functions that a fresh scrape spends most CPU time in themselves, with their shares in per cent.
    #[serde(default)]
    pub(crate) profile: Vec<(String, f64)>,
    /// The figures.
    pub(crate) figures: Vec<Figure>,
}

impl Book {
    /// An empty one.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { machine: Machine::this()?, ..Self::default() })
    }

    /// Notes a figure and prints it.
    pub(crate) fn note(&mut self, subject: &str, what: &str, containers: u32, unit: &str, samples: Samples) {
        // Nanoseconds: what is beyond them is no measurement.
        let samples: Samples = samples.0.iter().map(|sample| (sample * 1e3).round() / 1e3).collect();
        let shown = spread(&samples, unit);
        println!("  {subject:<9} {containers:>4}  {what:<42} {shown}");
        self.figures.push(Figure {
            subject: subject.to_owned(),
            what: what.to_owned(),
            containers,
            unit: unit.to_owned(),
            samples,
        });
    }

    /// Notes CPU and wall time of something.
    pub(crate) fn costs(&mut self, subject: &str, what: &str, containers: u32, costs: Vec<Cost>) {
        let costs: Costs = costs.into_iter().collect();
        self.note(subject, &format!("{what}: CPU"), containers, "us", costs.cpu_us);
        self.note(subject, &format!("{what}: wall"), containers, "us", costs.wall_us);
    }

    /// Notes one number.
    pub(crate) fn number(&mut self, subject: &str, what: &str, containers: u32, unit: &str, value: f64) {
        self.note(subject, what, containers, unit, Samples(vec![value]));
    }

    /// Notes the version and the configuration of a subject.
    pub(crate) fn version(&mut self, subject: &str, version: &str) {
        self.versions.push((subject.to_owned(), version.to_owned()));
    }

    /// Notes and says what cannot be measured.
    pub(crate) fn missing(&mut self, subject: &str, reason: &str) {
        println!("  {subject}: not measured: {reason}");
        self.missing.push((subject.to_owned(), reason.to_owned()));
    }

    /// Notes and says something that has to be known.
    pub(crate) fn remark(&mut self, text: String) {
        println!("  note: {text}");
        self.notes.push(text);
    }

    /// The figure, where it was measured.
    pub(crate) fn get(&self, subject: &str, what: &str, containers: u32) -> Option<&Figure> {
        self.figures.iter().rev().find(|figure| {
            figure.subject == subject && figure.what == what && figure.containers == containers
        })
    }

    /// Its median.
    pub(crate) fn median(&self, subject: &str, what: &str, containers: u32) -> Option<f64> {
        self.get(subject, what, containers)?.samples.median()
    }

    /// Writes it down.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        // A figure a line: a page that can be read, and differences that can be looked at.
        let mut text = String::from("{\n");
        text += &format!("\"machine\": {},\n", serde_json::to_string(&self.machine)?);
        text += &format!("\"date\": {:?},\n\"commit\": {:?},\n", self.date, self.commit);
        text += &format!("\"versions\": {},\n", serde_json::to_string(&self.versions)?);
        text += &format!("\"missing\": {},\n", serde_json::to_string(&self.missing)?);
        text += &format!("\"notes\": {},\n", serde_json::to_string(&self.notes)?);
        text += &format!("\"profile\": {},\n\"figures\": [\n", serde_json::to_string(&self.profile)?);
        let lines: Result<Vec<_>, _> = self.figures.iter().map(serde_json::to_string).collect();
        text += &lines?.join(",\n");
        text += "\n]\n}\n";
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Reads one that was written down.
    ///
    /// # Errors
    /// When there is none or it is of another form.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }
}

/// A median with its spread, for people: `1,234 µs (1,200 to 1,300)`.
pub(crate) fn spread(samples: &Samples, unit: &str) -> String {
    let (Some(median), Some(min), Some(max)) = (samples.median(), samples.min(), samples.max()) else {
        return "no sample".to_owned();
    };
    let (divisor, shown) = match unit {
        "us" if median >= 10_000.0 => (1000.0, "ms"),
        "us" => (1.0, "µs"),
        "bytes" if median >= 1e6 => (1e6, "MB"),
        "bytes" if median >= 1e3 => (1e3, "kB"),
        other => (1.0, other),
    };
    let shown = if shown.is_empty() { String::new() } else { format!(" {shown}") };
    let number = |value: f64| number(value / divisor);
    if samples.0.len() == 1 {
        return format!("{}{shown}", number(median));
    }
    format!("{}{shown} ({} to {})", number(median), number(min), number(max))
}

/// Three significant digits, thousands apart.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 4,
    };
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), None), |(a, b)| (a, Some(b)));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or_else(|| grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(-123_456.0), "-123,456");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(1.5), "1.50");
        assert_eq!(number(0.01), "0.0100");
        assert_eq!(number(0.0), "0");
        assert_eq!(spread(&Samples(vec![1.0, 3.0, 2.0]), "us"), "2.00 µs (1.00 to 3.00)");
        assert_eq!(spread(&Samples(vec![31_000_000.0]), "bytes"), "31.0 MB");
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.json");
        let mut book = Book::new().unwrap();
        book.commit = "abc+".into();
        book.number("floor", "kept: CPU", 10, "us", 1.5);
        book.number("floor", "kept: CPU", 50, "us", 2.5);
        book.missing("incus", "no \"network\"");
        book.save(&path).unwrap();
        let read = Book::load(&path).unwrap();
        assert_eq!(read.median("floor", "kept: CPU", 10), Some(1.5));
        assert_eq!(read.missing, book.missing);
        assert_eq!(read.machine, book.machine);
    }
}

//! What was sampled, as a table, and whether it is flat: the slope of a straight line through it, with the error of that slope.

use std::fmt::{self, Write};

/// What a daemon held at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Seconds since the load began.
    pub at: f64,
    /// Resident memory, bytes.
    pub rss: f64,
    /// The part of it that no file stands behind, bytes.
    pub anonymous: f64,
    /// Open descriptors.
    pub descriptors: f64,
    /// Threads.
    pub threads: f64,
    /// What the kernel holds on its account, bytes, where its cgroup tells.
    pub kernel: Option<f64>,
    /// Watches of its inotify descriptors.
    pub watches: f64,
    /// Instances that the last scrape showed.
    pub instances: f64,
}

/// The line over samples.
#[must_use]
pub fn heading() -> String {
    let names = COLUMNS.iter().map(|(name, _, _)| format!("  {name:>12}"));
    format!(" minute  instances{}", names.collect::<String>())
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.1}  {:9.0}", self.at / 60.0, self.instances)?;
        COLUMNS.iter().try_for_each(|(_, figure, _)| match figure(self) {
            Some(value) => write!(f, "  {value:12.0}"),
            None => write!(f, "  {:>12}", "-"),
        })
    }
}

/// A figure of a sample, in the unit in which it is shown, and by how much it may grow in an hour.
type Column = (&'static str, fn(&Sample) -> Option<f64>, f64);

/// Inodes of cgroup files that were open when their cgroup was removed stay in the kernel's memory until it has another use for it, so
/// that this grows on a host with free memory; [`super::Report`] has what is left when it is asked to give back what it can.
const CACHES: f64 = f64::INFINITY;

/// What an allocator's habits move is below; what every scrape, every container or every connection leaves behind is above, as there
/// are thousands of each in an hour. A shorter run may grow by as much in all.
const COLUMNS: [Column; 6] = [
    ("resident kB", |sample| Some(sample.rss / 1024.0), 1024.0),
    ("anonymous kB", |sample| Some(sample.anonymous / 1024.0), 1024.0),
    ("descriptors", |sample| Some(sample.descriptors), 10.0),
    ("threads", |sample| Some(sample.threads), 2.0),
    ("kernel kB", |sample| Some(sample.kernel? / 1024.0), CACHES),
    ("watches", |sample| Some(sample.watches), 20.0),
];

/// Hours. A run that is shorter may grow by twice as much in all: the histories of those who are gone are kept for five minutes, so that
/// for so long there are more of them all the time.
const SHORT: f64 = 0.5;

/// A straight line through points: its slope and the standard error of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Units a second.
    pub slope: f64,
    /// Its standard error.
    pub error: f64,
}

impl Line {
    /// The line of least squares. Neighbours in such a series resemble each other, so that its points are worth fewer than they
    /// are; the error counts them by the correlation of the residuals with their neighbours.
    #[must_use]
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        if points.len() < 4 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "thousands")]
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| -> f64 { points.iter().map(of).sum::<f64>() / count };
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if spread <= 0.0 {
            return None;
        }
        let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        let residuals: Vec<f64> = points.iter().map(|(x, y)| y - mean_y - slope * (x - mean_x)).collect();
        let squares: f64 = residuals.iter().map(|residual| residual.powi(2)).sum();
        let neighbours: f64 = residuals.iter().zip(residuals.iter().skip(1)).map(|(a, b)| a * b).sum();
        let correlation = if squares > 0.0 { (neighbours / squares).clamp(0.0, 0.99) } else { 0.0 };
        let error = (squares / (count - 2.0) / spread).sqrt();
        Some(Self { slope, error: error * ((1.0 + correlation) / (1.0 - correlation)).sqrt() })
    }
}

/// Whether a figure stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It grows by less than the bound, even if the slope is wrong by twice its error.
    Flat,
    /// It grows by more than the bound, even so.
    Grows,
    /// Too short or too restless a series to tell.
    Unclear,
}

/// Samples in the order of their time.
#[derive(Clone, Debug, Default)]
pub struct Series(pub Vec<Sample>);

impl Series {
    /// What each figure did after the warm-up: its name, first, least, most and last value, slope and error by the hour, the bound
    /// and the verdict. Figures that this machine does not tell are left out.
    #[must_use]
    pub fn findings(&self, warm: f64) -> Vec<Finding> {
        COLUMNS
            .iter()
            .filter_map(|(name, figure, bound)| {
                let points: Vec<(f64, f64)> = self
                    .0
                    .iter()
                    .filter(|sample| sample.at >= warm)
                    .filter_map(|sample| Some((sample.at / 3600.0, figure(sample)?)))
                    .collect();
                let line = Line::through(&points)?;
                let hours = points.last()?.0 - points.first()?.0;
                let values = || points.iter().map(|(_, value)| *value);
                Some(Finding {
                    name,
                    first: values().next()?,
                    least: values().min_by(f64::total_cmp)?,
                    most: values().max_by(f64::total_cmp)?,
                    last: values().next_back()?,
                    line,
                    bound: bound * if hours < SHORT { 2.0 } else { 1.0 } / hours.min(1.0),
                })
            })
            .collect()
    }

    /// A table of at most so many rows, at even distances.
    #[must_use]
    pub fn table(&self, rows: usize) -> String {
        let mut text = heading();
        let every = self.0.len().div_ceil(rows.max(1)).max(1);
        for sample in self.0.iter().step_by(every) {
            let _ = write!(text, "\n{sample}");
        }
        text
    }
}

/// What one figure did.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// Its name, with its unit.
    pub name: &'static str,
    /// Its first value after the warm-up.
    pub first: f64,
    /// Its least.
    pub least: f64,
    /// Its most.
    pub most: f64,
    /// Its last.
    pub last: f64,
    /// The line through all, by the hour.
    pub line: Line,
    /// By how much it may grow in an hour.
    pub bound: f64,
}

impl Finding {
    /// Whether it stays.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Line { slope, error } = self.line;
        if slope + 2.0 * error <= self.bound {
            Verdict::Flat
        } else if slope - 2.0 * error > self.bound {
            Verdict::Grows
        } else {
            Verdict::Unclear
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict() {
            Verdict::Flat => "flat",
            Verdict::Grows => "GROWS",
            Verdict::Unclear => "unclear",
        };
        write!(
            f,
            "{:>12}: {:.0} at first, {:.0} at last, {:.0} to {:.0}; {:+.1} ± {:.1} an hour",
            self.name, self.first, self.last, self.least, self.most, self.line.slope, self.line.error
        )?;
        if self.bound.is_infinite() {
            return f.write_str(", caches included");
        }
        write!(f, " (at most {:.0}): {verdict}", self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples every ten seconds for two hours, with this as their resident memory in kB.
    fn series(kilobytes: impl Fn(f64) -> f64) -> Series {
        let sample = |number: i32| {
            let at = f64::from(number) * 10.0;
            Sample {
                at,
                rss: kilobytes(at) * 1024.0,
                anonymous: 1e6,
                descriptors: 40.0,
                threads: 9.0,
                kernel: None,
                watches: 3.0,
                instances: 200.0,
            }
        };
        Series((0..720).map(sample).collect())
    }

    fn verdict(series: &Series) -> Verdict {
        series.findings(600.0).iter().find(|finding| finding.name == "resident kB").unwrap().verdict()
    }

    #[test]
    fn noise_and_waves_are_flat_and_a_leak_is_not() {
        // A saw of 3 MB that comes back every four minutes, and noise.
        let wave = |at: f64| 20_000.0 + 3000.0 * (at % 240.0) / 240.0 + (at * 7.7).sin() * 100.0;
        assert_eq!(verdict(&series(wave)), Verdict::Flat);
        assert_eq!(verdict(&series(|at| wave(at) + at * 4096.0 / 3600.0)), Verdict::Grows);
        assert_eq!(verdict(&series(|_| 20_000.0)), Verdict::Flat);
        // What is there before the warm-up's end does not count.
        assert_eq!(verdict(&series(|at| wave(at) + (at * 50.0).min(30_000.0))), Verdict::Flat);
        // Half a megabyte in five minutes is a slope of six in an hour, and may be all there is to come.
        let mut short = series(|at| 20_000.0 + at * 512.0 / 300.0);
        short.0.truncate(30);
        let of_short = short.findings(0.0);
        assert_eq!(
            of_short.iter().find(|finding| finding.name == "resident kB").unwrap().verdict(),
            Verdict::Flat
        );
        // Five megabytes are no warm-up.
        let mut leak = series(|at| wave(at) + at * 5120.0 / 300.0);
        leak.0.truncate(30);
        let of_leak = leak.findings(0.0);
        assert_eq!(
            of_leak.iter().find(|finding| finding.name == "resident kB").unwrap().verdict(),
            Verdict::Grows
        );
        // A series that wanders for as long as it lasts allows no verdict.
        assert_eq!(verdict(&series(|at| 20_000.0 + 30_000.0 * (at / 2500.0).sin())), Verdict::Unclear);
    }

    #[test]
    fn a_line_s_error_is_that_of_its_points() {
        let exact: Vec<_> = (0..10).map(|x| (f64::from(x), 3.0 * f64::from(x) + 1.0)).collect();
        let line = Line::through(&exact).unwrap();
        assert!((line.slope - 3.0).abs() < 1e-9 && line.error < 1e-9, "{line:?}");
        assert_eq!(Line::through(exact.get(..3).unwrap()), None);
        assert_eq!(Line::through(&[(1.0, 2.0); 9]), None, "all at one moment");
    }

    #[test]
    fn a_table_has_as_many_rows_as_wanted_and_no_figure_that_is_not_known() {
        let series = series(|_| 20_000.0);
        assert_eq!(series.table(12).lines().count(), 13);
        assert!(series.table(12).lines().nth(1).unwrap().contains("  -"));
        assert!(series.findings(600.0).iter().all(|finding| finding.name != "kernel kB"));
    }
}

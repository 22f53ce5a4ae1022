//! `bench-micro`: the instructions of every case, counted by valgrind, beside the times that criterion found.
//!
//! usage: `bench-micro [--bless]`. Instructions are the same on an idle machine and on a busy one, so they are compared with those of
//! `docs/explanation/performance/instructions.json`; `--bless` writes that file anew.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person at a terminal")]
#![allow(clippy::disallowed_methods, reason = "no part of the daemon: valgrind is a program")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use miharu_bench::{Case, cases};
use serde::{Deserialize, Serialize};

/// How often a case runs while it is counted: hash tables differ a little from one to the next.
const RUNS: u64 = 10;

/// How much worse a case may get, in percent, before it is told.
const TOLERATED: f64 = 5.0;

/// The file of counts.
#[derive(Serialize, Deserialize)]
struct Recorded {
    /// What built the program; another compiler counts differently.
    compiler: String,
    /// Instructions of one run by case.
    instructions: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let done = match argument.as_deref() {
        None => compare(),
        Some("--bless") => bless(),
        Some("--counted") => run_counted(),
        Some(other) => Err(anyhow::anyhow!("usage: bench-micro [--bless], not {other}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-micro: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table, and fails when a case got worse.
fn compare() -> Result<()> {
    let counts = count()?;
    let text = fs::read_to_string(record()).context(record().display().to_string())?;
    let recorded: Recorded = serde_json::from_str(&text).context(record().display().to_string())?;
    let compiler = compiler()?;
    if compiler != recorded.compiler {
        println!("The recorded counts are of {}; this is {compiler}.\n", recorded.compiler);
    }
    println!("{:<40} {:>12} {:>14} {:>14} {:>8}", "case", "ns", "instructions", "recorded", "change");
    let mut worse = Vec::new();
    for (name, count) in &counts {
        let time = nanoseconds(name).map_or_else(|| "-".to_owned(), |time| format!("{time:.1}"));
        let before = recorded.instructions.get(*name);
        let change = before.map(|before| percent(*before, *count));
        if change.is_some_and(|change| change > TOLERATED) {
            worse.push(*name);
        }
        let before = before.map_or_else(|| "-".to_owned(), u64::to_string);
        let change = change.map_or_else(|| "new".to_owned(), |change| format!("{change:+.1} %"));
        println!("{name:<40} {time:>12} {count:>14} {before:>14} {change:>8}");
    }
    ensure!(worse.is_empty(), "more than {TOLERATED} % worse: {}", worse.join(", "));
    Ok(())
}

/// Writes the counts of now.
fn bless() -> Result<()> {
    let instructions = count()?.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    let recorded = Recorded { compiler: compiler()?, instructions };
    let text = serde_json::to_string_pretty(&recorded)? + "\n";
    fs::write(record(), text).context(record().display().to_string())
}

/// Runs this program under callgrind, which writes a file each time that [`measured`] ends.
fn count() -> Result<Vec<(&'static str, u64)>> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let output = std::process::Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*::measured"])
        .args(["--dump-after=*::measured", &format!("--callgrind-out-file={}", out.display())])
        .arg(std::env::current_exe()?)
        .arg("--counted")
        .output()
        .context("cannot start valgrind; on Debian: apt install valgrind")?;
    if !output.status.success() {
        bail!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let counts = cases()?.into_iter().zip(1u32..).map(|(case, part)| {
        let path = PathBuf::from(format!("{}.{part}", out.display()));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<u64>().ok());
        let total = total
            .filter(|total| *total > 0)
            .with_context(|| format!("{}: counts nothing", path.display()))?;
        Ok((case.name, total / RUNS))
    });
    counts.collect()
}

/// What callgrind watches: each case once without being counted, so that what is done only once is done.
fn run_counted() -> Result<()> {
    for case in cases()? {
        case.run();
        measured(&case);
    }
    Ok(())
}

#[inline(never)]
fn measured(case: &Case) {
    for _ in 0..RUNS {
        case.run();
    }
}

/// What criterion found, if it ran: a run of the fastest sample, as everything that disturbs only makes slower.
fn nanoseconds(name: &str) -> Option<f64> {
    #[derive(Deserialize)]
    struct Sample {
        iters: Vec<f64>,
        times: Vec<f64>,
    }
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?.parent()?.join("criterion").join(name.replace('/', "_"));
    let text = fs::read_to_string(folder.join("new/sample.json")).ok()?;
    let sample: Sample = serde_json::from_str(&text).ok()?;
    let runs = sample.times.iter().zip(&sample.iters).map(|(time, iterations)| time / iterations);
    runs.min_by(f64::total_cmp)
}

#[expect(clippy::cast_precision_loss, reason = "counts of instructions are far below 2^53")]
fn percent(before: u64, now: u64) -> f64 {
    (now as f64 / before as f64 - 1.0) * 100.0
}

fn compiler() -> Result<String> {
    let output =
        std::process::Command::new("rustc").arg("--version").output().context("cannot start rustc")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/explanation/performance/instructions.json")
}

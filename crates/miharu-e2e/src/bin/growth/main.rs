//! `make bench-growth`: how miharud's costs grow with what a host has more of than others: containers, scrapers, foreign
//! processes, nested cgroups, slow disks; and on paper what many hosts cost a Prometheus. usage: `growth [SCENARIO…] [--quick]`.
//!
//! Each scenario measures its own baseline in the same run, so that it reads as a ratio on any machine. The raw numbers go to
//! `docs/explanation/performance/growth.json`, the tables of `docs/explanation/performance.md` are written from these; with `--quick`, which is for
//! development and a tenth of the size, to neither.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person at a terminal")]
#![allow(clippy::disallowed_methods, reason = "it starts containers and mounts file systems from outside")]

mod book;
mod containers;
mod crowd;
mod foreign;
mod nested;
mod paper;
mod scrapers;
mod slow;
mod subject;

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use miharu_e2e::{Need, interrupt, scratch};

use book::Book;

/// A scenario: its name on the command line, what it does.
type Scenario = (&'static str, fn(&mut Book) -> Result<()>);

const SCENARIOS: &[Scenario] = &[
    ("containers", containers::run),
    ("scrapers", scrapers::run),
    ("processes", foreign::run),
    ("nested", nested::run),
    ("slow", slow::run),
    ("paper", paper::run),
];

fn main() -> ExitCode {
    let done = interrupt::listen().and_then(|()| run());
    scratch::finish();
    if let Err(error) = done {
        eprintln!("growth: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run() -> Result<()> {
    let (flags, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    if let Some(unknown) = flags.iter().find(|flag| *flag != "--quick") {
        bail!("{unknown}: usage: growth [SCENARIO…] [--quick]");
    }
    for name in &names {
        let known: Vec<_> = SCENARIOS.iter().map(|(name, _)| *name).collect();
        ensure!(known.contains(&name.as_str()), "no scenario {name}; there are: {}", known.join(", "));
    }
    if let Some(reason) = Need::Lxc.lacking().or_else(|| Need::Tls.lacking()) {
        bail!("{reason}");
    }
    let mut book = Book::open(if flags.is_empty() { book::Size::Full } else { book::Size::Quick })?;
    for (name, scenario) in SCENARIOS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            book.begin(name);
            scenario(&mut book)?;
            book.finish()?;
        }
    }
    Ok(())
}

//! `make soak`: two hours of what a host does to its daemon, and whether the daemon holds as much at the end as at the beginning.
//! usage: `soak [--minutes N] [--containers N] [--clients N] [--pace MS]`. See `miharu_e2e::soak` for what is done.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person at a terminal")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use miharu_e2e::soak::{self, Plan};
use miharu_e2e::{Need, interrupt, scratch};

/// How long and how much.
#[derive(Debug, Parser)]
struct Arguments {
    /// For how long, once everything runs
    #[arg(long, default_value_t = 120)]
    minutes: u64,
    /// Containers that run at any time
    #[arg(long, default_value_t = 200)]
    containers: usize,
    /// Clients that scrape every 5 seconds, beside the one that follows the moved listener
    #[arg(long, default_value_t = 3)]
    clients: usize,
    /// Milliseconds between the end of a container and that of the next: what each leaves behind shows sooner where it is short
    #[arg(long, default_value_t = 2000)]
    pace: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = interrupt::listen().and_then(|()| run(&arguments));
    scratch::finish();
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    if let Some(reason) = [Need::Lxc, Need::Tls].into_iter().find_map(Need::lacking) {
        bail!("{reason}");
    }
    ensure!(
        arguments.minutes > 0 && arguments.containers > 0,
        "nothing is learned in no time or of no container"
    );
    let mut plan =
        Plan::of(Duration::from_secs(arguments.minutes * 60), arguments.containers, arguments.clients);
    plan.pace = Duration::from_millis(arguments.pace);
    let report = soak::run(&plan, |sample| println!("{sample}"))?;
    println!("\n{report}");
    Ok(report.is_well())
}

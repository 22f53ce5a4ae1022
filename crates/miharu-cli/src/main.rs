//! `miharu`, the command line: asks the miharud of this host over its unix socket.
#![forbid(unsafe_code)]

mod args;
mod client;
mod colour;
mod commands;
#[cfg(test)]
mod documented;
mod error;
mod filter;
mod format;
mod output;
mod progress;
mod remote;
#[cfg(test)]
mod testing;
mod text;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::colour::{Colours, Reader};
use crate::error::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.is_worth_saying() {
                complain(&failure);
            }
            failure.exit_code()
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    // One request after another: a runtime of one thread is enough, and starts faster.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::request(format!("cannot start: {error}")))?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    runtime.block_on(commands::run(cli, &mut out))?;
    Ok(out.flush()?)
}

fn complain(failure: &Failure) {
    let mut stderr = std::io::stderr();
    let label = match Colours::for_reader(Reader::of(&stderr)) {
        Colours::On => "\u{1b}[1;31mError:\u{1b}[0m",
        Colours::Off => "Error:",
    };
    // The standard error being closed too, there is nobody left to tell.
    let _ = writeln!(stderr, "{label} {failure}");
}

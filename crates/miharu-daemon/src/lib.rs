//! `miharud`: serves the metrics of every container and virtual machine on this host.
//!
//! It is a library besides, so that what reads from the network can be fed to by `miharu-fuzz`; nobody else uses it.
#![forbid(unsafe_code)]

mod app;
mod args;
mod auth;
mod cache;
mod changes;
mod clock;
mod cluster;
mod copy;
mod daemon;
mod doctor;
mod ends;
mod events;
mod expiry;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod listen;
mod logging;
mod machine;
mod negotiate;
mod pem;
mod plan;
mod requests;
mod respond;
mod routes;
mod sandbox;
mod secrets;
mod source;
mod state_dir;
mod tls;
mod unread;
mod usage;
mod warnings;
mod watchdog;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use events::Events;

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    miharu_collect::host::share_heap();
    let args = Args::parse();
    if args.manual {
        let printed =
            args::manual().and_then(|page| std::io::Write::write_all(&mut std::io::stdout(), &page));
        return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let events = Events::default();
    if let Err(error) = logging::start(&args.log_level, args.log_format, events.clone()) {
        // There is no log to tell it to.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("miharud: {error:#}\n").as_bytes());
        return ExitCode::from(2);
    }
    match daemon::run(&args, events) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let words = format!("{error:#}");
            tracing::error!("{words}");
            // `systemctl status` shows it, wherever the log goes.
            let line = words.lines().next().unwrap_or_default();
            daemon::notify(sd_notify::NotifyState::Status(line));
            ExitCode::from(ends::status(&error))
        }
    }
}

//! The commands, one file each, and what they have in common.

pub(crate) mod admin;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod info;
pub(crate) mod list;
pub(crate) mod manual;
pub(crate) mod monitor;
pub(crate) mod operation;
pub(crate) mod project;
pub(crate) mod prometheus;
pub(crate) mod query;
pub(crate) mod top;
pub(crate) mod trust;
pub(crate) mod version;
pub(crate) mod warning;
pub(crate) mod webui;

use std::io::Write;

use crate::args::{Cli, Command, Global};
use crate::client::{Client, Trace};
use crate::error::Failure;
use crate::progress::Progress;

/// What every command works with.
pub(crate) struct Context<'a> {
    /// The daemon.
    pub(crate) client: Client,
    /// `--project`.
    pub(crate) project: Option<&'a str>,
    /// What `--quiet` takes away.
    pub(crate) chatter: Chatter,
}

/// Whether a command that changed something says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chatter {
    /// It does.
    Spoken,
    /// `--quiet`.
    Quiet,
}

impl<'a> Context<'a> {
    fn new(global: &'a Global) -> Self {
        let trace = if global.debug { Trace::Requests } else { Trace::Off };
        let chatter = if global.quiet { Chatter::Quiet } else { Chatter::Spoken };
        // Lines among the lines of --debug would only be in their way.
        let progress = if global.quiet || global.debug { Progress::none() } else { Progress::at_terminal() };
        Self {
            client: Client::new(&global.dir, trace, progress),
            project: global.project.as_deref(),
            chatter,
        }
    }

    /// Says that something was done, unless nobody wants to hear it.
    pub(crate) fn say(&self, out: &mut dyn Write, what: &str) -> Result<(), Failure> {
        match self.chatter {
            Chatter::Spoken => Ok(writeln!(out, "{what}")?),
            Chatter::Quiet => Ok(()),
        }
    }
}

/// Runs the command that was typed.
pub(crate) async fn run(cli: &Cli, out: &mut dyn Write) -> Result<(), Failure> {
    let context = Context::new(&cli.global);
    match &cli.command {
        Command::Query(args) => query::run(&context, args, out).await,
        Command::Config(command) => config::run(&context, command, out).await,
        Command::List(args) => list::run(&context, args, out).await,
        Command::Top(args) => top::run(&context, args, out).await,
        Command::Info(args) => info::run(&context, args, out).await,
        Command::Project(command) => project::run(&context, command, out).await,
        Command::Operation(command) => operation::run(&context, command, out).await,
        Command::Warning(command) => warning::run(&context, command, out).await,
        Command::Cluster(command) => cluster::run(&context, command, out).await,
        Command::Monitor(args) => monitor::run(&context, args, out).await,
        Command::Prometheus(command) => prometheus::run(&context, command, out).await,
        Command::Version(args) if cli.global.verbose => version::builds(&context, args, out).await,
        Command::Version(args) => version::run(&context, args, out).await,
        Command::Webui(args) => webui::run(&context, args, out).await,
        Command::Admin(command) => admin::run(&context, command, out).await,
        Command::Completion(args) => completion::run(args, out),
        Command::Manual(args) => manual::run(args),
    }
}

//! What may be typed: the commands and flags of the Incus and LXD clients, where they do the same thing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    admin, cluster, completion, config, info, list, manual, monitor, operation, project, prometheus, query,
    top, version, warning, webui,
};

/// The metrics of every container and virtual machine on this host: configure miharud, and ask it.
///
/// Commands and flags are those of `incus` and `lxc` where they do the same thing: with `alias incus=miharu` (or
/// `lxc=miharu`) the steps of their pages on metrics work as they are written there.
#[derive(Debug, Parser)]
#[command(
    name = "miharu",
    version = env!("MIHARU_VERSION"),
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  miharu list                                        Who runs here
  miharu top                                         What they use
  miharu query /1.0/metrics                          What Prometheus would get
  miharu config set core.metrics_address :8444       Serve it on port 8444
  miharu config trust add-certificate metrics.crt --type=metrics
                                                     Let the holder of this certificate scrape

Exit codes: 0 done, 1 the request failed, 2 the command line is wrong."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The directory in which miharud keeps its state and its socket
    #[arg(long, global = true, env = "MIHARU_DIR", value_name = "DIR", default_value = "/var/lib/miharu")]
    pub(crate) dir: PathBuf,

    /// Ask about this project only
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) project: Option<String>,

    /// Say nothing but what was asked for
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Show each request to the server
    #[arg(long, global = true)]
    pub(crate) debug: bool,

    /// Accepted for users of Incus and LXD: more words on the standard error
    #[arg(short, long, global = true, hide = true)]
    pub(crate) verbose: bool,

    /// Accepted for users of Incus and LXD: the local socket is the only way there is
    #[arg(long, global = true, hide = true)]
    pub(crate) force_local: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a request to the API and print what it returns
    Query(query::QueryArgs),
    /// See and change the server's configuration and whom it trusts
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// List the running instances
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// See what each instance uses, live or as a table
    Top(top::TopArgs),
    /// Open the web page, through the socket
    Webui(webui::WebuiArgs),
    /// Show the server, or how an instance does
    Info(info::InfoArgs),
    /// See and declare projects
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// See what is wrong, and say that it is known
    #[command(subcommand)]
    Warning(warning::WarningCommand),
    /// See what happens, as it happens
    Monitor(monitor::MonitorArgs),
    /// See the servers that belong together
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// See and end what goes on in the background
    #[command(subcommand)]
    Operation(operation::OperationCommand),
    /// Make configuration for Prometheus
    #[command(subcommand)]
    Prometheus(prometheus::PrometheusCommand),
    /// Show the versions of this program and of the server
    Version(version::VersionArgs),
    /// Manage the daemon
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Print a script that completes commands in your shell
    Completion(completion::CompletionArgs),
    /// Write the man pages into a folder, for who makes a package
    #[command(hide = true)]
    Manual(manual::ManualArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        let cli = Cli::parse_from(["miharu", "list", "--project", "foo", "-q", "--force-local", "--debug"]);
        assert_eq!(cli.global.project.as_deref(), Some("foo"));
        assert!(cli.global.quiet && cli.global.force_local && cli.global.debug);
    }
}

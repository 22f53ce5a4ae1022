//! The command line of `miharud`.

use std::io;
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, ValueEnum};
use miharu_collect::Roots;

use crate::sandbox::Choice;

/// What the program ends with.
const STATUS: &str = "Exit status: 0 it was told to stop; 1 it could not start, and may at another time; 2 the command line is wrong; 78 it \
                      cannot start until somebody mends what its last words name (a damaged database, a key that does not fit, missing rights)";

/// Serves the metrics of every container and virtual machine on this host, over the API of Incus and LXD.
///
/// Without any option it keeps its state in /var/lib/miharu and listens on the unix socket there. Where metrics are
/// served is a server key: `miharu config set core.metrics_address :8444`.
#[derive(Debug, Parser)]
#[command(name = "miharud", version = env!("MIHARU_VERSION"), after_help = STATUS)]
pub(crate) struct Args {
    /// Directory of the state: the database, the certificate and the unix socket
    #[arg(long, env = "MIHARU_DIR", default_value = "/var/lib/miharu")]
    pub(crate) dir: PathBuf,

    /// Group whose members may use the unix socket (a name or a number)
    #[arg(long)]
    pub(crate) group: Option<String>,

    /// Where the host's root is mounted, for a daemon that runs in a container
    #[arg(long, value_name = "PATH", default_value = "/")]
    root: PathBuf,

    /// Where the host's /proc is mounted [default: proc below the root]
    #[arg(long, value_name = "PATH")]
    proc: Option<PathBuf>,

    /// Where the host's /sys is mounted [default: sys below the root]
    #[arg(long, value_name = "PATH")]
    sys: Option<PathBuf>,

    /// Where the host's cgroups are mounted [default: sys/fs/cgroup below the root]
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,

    /// Where the host's /run is mounted [default: run below the root]
    #[arg(long, value_name = "PATH")]
    run: Option<PathBuf>,

    /// Where the host's /var/lib is mounted [default: var/lib below the root]
    #[arg(long, value_name = "PATH")]
    var_lib: Option<PathBuf>,

    /// How much is logged: error, warn, info, debug or trace, or a filter such as info,miharu_collect=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,

    /// How the log is written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,

    /// Whether the daemon confines itself: no programs, no other process' memory, nothing written outside its directory
    #[arg(long, value_name = "ON|OFF", value_enum, default_value_t)]
    pub(crate) sandbox: Choice,

    /// Print the man page, for who makes a package
    #[arg(long, hide = true)]
    pub(crate) manual: bool,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line of text an event.
    #[default]
    Text,
    /// A line of JSON an event.
    Json,
}

/// The man page, miharud(8), from the definitions that `--help` is made of.
pub(crate) fn manual() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Args::command()).section("8").render(&mut page)?;
    Ok(page)
}

impl Args {
    /// Where the host is.
    pub(crate) fn roots(&self) -> Roots {
        let mut roots = Roots::at(&self.root);
        let places = [
            (&mut roots.proc, &self.proc),
            (&mut roots.cgroup, &self.cgroup),
            (&mut roots.sys, &self.sys),
            (&mut roots.run, &self.run),
            (&mut roots.var_lib, &self.var_lib),
        ];
        for (place, given) in places {
            if let Some(given) = given {
                place.clone_from(given);
            }
        }
        if let (Some(sys), None) = (&self.sys, &self.cgroup) {
            roots.cgroup = sys.join("fs/cgroup");
        }
        roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_man_page_tells_the_options_but_the_hidden_one() {
        let page = String::from_utf8(manual().unwrap()).unwrap();
        assert!(page.contains(".TH miharud 8") && page.contains("\\-\\-log\\-level"), "{page}");
        assert!(!page.contains("\\-\\-manual"), "{page}");
        assert!(page.contains("78 it cannot start until somebody mends"), "{page}");
    }

    #[test]
    fn roots_follow_the_root_unless_given() {
        let args = Args::parse_from(["miharud", "--root", "/host", "--run", "/hostrun", "--sys", "/hostsys"]);
        let roots = args.roots();
        assert_eq!(roots.proc, PathBuf::from("/host/proc"));
        assert_eq!(roots.run, PathBuf::from("/hostrun"));
        assert_eq!(roots.cgroup, PathBuf::from("/hostsys/fs/cgroup"));
    }
}

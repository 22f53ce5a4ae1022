//! The shims that run, for a containerd that keeps its state where nobody would look.
//!
//! Every shim listens on a socket in `/run/containerd/s`, wherever its containerd's state is. Only a socket there that no
//! known container explains makes miharu look through the process table.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use miharu_linux::Roots;
use miharu_linux::process::{ProcDir, pids};
use miharu_linux::read::Buffer;

use super::folder::Folder;
use crate::driver::is_trusted;
use crate::shim::{self, TASKS};

/// Where shims listen, `containerd/pkg/shim`.
const SOCKETS: &str = "containerd/s";

/// The pause after a look that explained not every socket, doubled each time: a shim that was killed leaves its socket.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest such pause.
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// The sockets that nobody explained, and when they are looked after.
#[derive(Debug, Default)]
pub(super) struct Shims {
    folder: Folder,
    sockets: BTreeSet<OsString>,
    unexplained: BTreeSet<OsString>,
    next_look: Option<Instant>,
    pause: Duration,
}

impl Shims {
    /// The directories of tasks (as the host calls them) of the shims that run, if there is a shim that listens on none of
    /// the known sockets.
    pub(super) fn look<'k>(
        &mut self,
        roots: &Roots,
        known: impl FnOnce() -> BTreeSet<&'k OsStr>,
        buffer: &mut Buffer,
    ) -> BTreeSet<PathBuf> {
        let names = self.folder.look(&roots.run.join(SOCKETS));
        if names.is_none() && self.unexplained.is_empty() {
            return BTreeSet::new();
        }
        if let Some(names) = names {
            self.sockets = names.into_iter().map(|(name, _)| name).collect();
        }
        let known = known();
        let unexplained: BTreeSet<OsString> =
            self.sockets.iter().filter(|socket| !known.contains(socket.as_os_str())).cloned().collect();
        let is_news = !unexplained.is_subset(&self.unexplained);
        self.unexplained = unexplained;
        let now = Instant::now();
        if self.unexplained.is_empty() || (!is_news && self.next_look.is_some_and(|next| now < next)) {
            return BTreeSet::new();
        }
        self.pause = if is_news { FIRST_PAUSE } else { (self.pause * 2).min(LAST_PAUSE) };
        self.next_look = Some(now + self.pause);
        running(roots, buffer)
    }
}

/// The directories of tasks of all shims that run.
fn running(roots: &Roots, buffer: &mut Buffer) -> BTreeSet<PathBuf> {
    let tasks = |pid: u32, buffer: &mut Buffer| {
        let process = ProcDir::open(roots, pid).ok()?;
        if process.stat(buffer).ok()?.comm != shim::command::PROGRAM.as_bytes() {
            return None;
        }
        let status = process.status(buffer).ok()?;
        if !is_trusted(status.uid) || status.pid_namespace_depth != 1 {
            return None;
        }
        let command = shim::command::parse(&process.command_line().ok()?)?;
        let bundles = shim::bundles(&process, &command.namespace)?;
        let tasks = bundles.parent().filter(|tasks| tasks.file_name().is_some_and(|name| name == TASKS))?;
        Some(tasks.to_owned())
    };
    pids(roots).unwrap_or_default().into_iter().filter_map(|pid| tasks(pid, buffer)).collect()
}

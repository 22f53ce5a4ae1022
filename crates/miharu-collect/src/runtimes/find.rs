//! Which daemons of Incus and LXD run on the host, told by the sockets that somebody listens on.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use miharu_linux::apart::{Answer, Asked, Asker, Question};
use miharu_linux::read::Buffer;
use miharu_linux::{Roots, unix_sockets};

use super::{DEFAULTS, is_trusted};

/// The sockets that a daemon gives to its guests, below its state directory. The daemon itself makes and opens them, while
/// `unix.socket` may be systemd's: asking there would start a daemon that does not run.
const OF_GUESTS: [(&str, &str); 2] = [("guestapi/sock", "incus"), ("devlxd/sock", "lxd")];

/// Where daemons keep their run state, and the state directory that belongs to it. Their guests' sockets may be there, too.
const RUN_STATE: [(&str, &str); 2] = [("/run/incus", "/var/lib/incus"), ("/run/lxd", "/var/lib/lxd")];

/// The daemon's own socket, in its state directory.
pub(super) const SOCKET: &str = "unix.socket";

/// The most daemons of one host.
const MAX_DAEMONS: usize = 8;

/// The most paths that are asked for and do not answer. Each holds a thread.
const MAX_HUNG: usize = 2;

/// The most directories that somebody listens in and that were no daemon's before.
const MAX_STRANGE: usize = 256;

/// How long a directory is waited for that is a daemon's by default or was one's before. The thread that waits holds nobody up.
const OF_KNOWN: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 2000 });

/// How long any other is waited for. Unit tests, in which none hangs, run on machines that are busy for longer.
const OF_STRANGE: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 250 });

/// Finds the daemons that run, by what they listen on. Whoever has a socket chooses its path, which may lead over a file system that no
/// longer answers: so paths are looked at by threads that hold nothing.
#[derive(Debug)]
pub(super) struct Finder {
    places: Asker,
    /// Directories that were asked for and have not answered yet.
    hung: Vec<(PathBuf, Receiver<Answer>)>,
}

impl Finder {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { places: Asker::new(roots), hung: Vec::new() }
    }

    /// The state directories of the daemons that run, and whose they are; first of those that `is_known` knows.
    ///
    /// # Errors
    /// Where the host's table of sockets cannot be read.
    pub(super) fn running(
        &mut self,
        roots: &Roots,
        buffer: &mut Buffer,
        is_known: impl Fn(&Path) -> bool,
    ) -> miharu_linux::Result<BTreeMap<PathBuf, &'static str>> {
        let (mut known, mut strange) = (BTreeMap::new(), BTreeMap::new());
        unix_sockets::each_listening(roots, buffer, |path| {
            let Some((directory, runtime)) = daemon(path) else { return };
            if DEFAULTS.iter().any(|default| directory == Path::new(default)) || is_known(directory) {
                known.insert(directory.to_owned(), runtime);
            } else if strange.len() < MAX_STRANGE {
                strange.insert(directory.to_owned(), runtime);
            }
        })?;
        self.hung.retain(|(_, answer)| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        let mut found = BTreeMap::new();
        let known = known.into_iter().map(|one| (one, usize::MAX, OF_KNOWN));
        let strange = strange.into_iter().map(|one| (one, MAX_HUNG, OF_STRANGE));
        for ((directory, runtime), most, patience) in known.chain(strange) {
            if found.len() < MAX_DAEMONS
                && self.hung.len() < most
                && self.belongs_to_root(&directory, patience)
            {
                found.insert(directory, runtime);
            }
        }
        Ok(found)
    }

    /// Where nothing answers, for a warning.
    pub(super) fn hung(&self) -> impl Iterator<Item = &Path> {
        self.hung.iter().map(|(directory, _)| directory.as_path())
    }

    /// As if that directory had been asked for, and would answer once the sender does.
    #[cfg(test)]
    pub(super) fn hang(&mut self, directory: &str) -> std::sync::mpsc::SyncSender<Answer> {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        self.hung.push((PathBuf::from(directory), answer));
        sender
    }

    /// Whether the directory and the daemon's socket in it are root's. Others can listen on whatever path they may write to.
    fn belongs_to_root(&mut self, directory: &Path, patience: Duration) -> bool {
        if self.hung.iter().any(|(hung, _)| hung == directory) {
            return false;
        }
        let question = Question::Kinds(vec![directory.to_owned(), directory.join(SOCKET)]);
        match self.places.ask(question, patience) {
            Asked::Now(Answer::Kinds(kinds)) => match kinds.as_slice() {
                [Ok(directory), Ok(socket)] => {
                    let is_roots = |metadata: &Metadata| is_trusted(metadata.uid());
                    directory.is_dir()
                        && is_roots(directory)
                        && socket.file_type().is_socket()
                        && is_roots(socket)
                }
                _ => false,
            },
            Asked::Later(answer) => {
                self.hung.push((directory.to_owned(), answer));
                false
            }
            Asked::Now(_) | Asked::Never => false,
        }
    }
}

/// The state directory that a guests' socket is in, and whose that is.
fn daemon(path: &[u8]) -> Option<(&Path, &'static str)> {
    let path = Path::new(OsStr::from_bytes(path));
    OF_GUESTS.iter().find_map(|(socket, runtime)| {
        let directory = path.ends_with(socket).then(|| path.parent()?.parent())??;
        let state = RUN_STATE.iter().find(|(run, _)| directory == Path::new(run));
        Some((state.map_or(directory, |(_, state)| Path::new(state)), *runtime))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_daemon_is_one_that_listens_for_its_guests() {
        let base = tempfile::tempdir().unwrap();
        let roots = Roots::at(base.path());
        let line = |path: &str| format!("0: 00000002 00000000 00010000 0001 01 1 {path}\n");
        let table: String = [
            "/run/incus/guestapi/sock",
            "/srv/lxd/devlxd/sock",
            "/var/lib/asleep/unix.socket",
            "/nowhere/guestapi/sock",
            "/x/notguestapi/sock",
        ]
        .map(line)
        .concat();
        fs::create_dir_all(base.path().join("proc/1/net")).unwrap();
        fs::write(base.path().join("proc/1/net/unix"), table).unwrap();
        for directory in ["var/lib/incus", "srv/lxd", "var/lib/asleep", "x"] {
            let directory = base.path().join(directory);
            fs::create_dir_all(&directory).unwrap();
            drop(UnixListener::bind(directory.join(SOCKET)).unwrap());
        }
        let found = Finder::new(&roots).running(&roots, &mut Buffer::new(), |_| false).unwrap();
        let expected = [("/srv/lxd", "lxd"), ("/var/lib/incus", "incus")];
        assert_eq!(found, expected.map(|(path, runtime)| (PathBuf::from(path), runtime)).into());
        // A file in the socket's place is no daemon.
        fs::remove_file(base.path().join("srv/lxd").join(SOCKET)).unwrap();
        fs::write(base.path().join("srv/lxd").join(SOCKET), "").unwrap();
        assert_eq!(Finder::new(&roots).running(&roots, &mut Buffer::new(), |_| false).unwrap().len(), 1);
    }

    #[test]
    fn no_number_of_sockets_hides_a_daemon() {
        let base = tempfile::tempdir().unwrap();
        let roots = Roots::at(base.path());
        // More than 4 MiB of them.
        let others: String = (0..40_000)
            .map(|number| {
                format!("0: 00000002 00000000 00010000 0001 01 1 /tmp/some/where/{number:040}/devlxd/sock\n")
            })
            .collect();
        let own = "0: 00000002 00000000 00010000 0001 01 1 /var/lib/lxd/devlxd/sock\n";
        fs::create_dir_all(base.path().join("proc/1/net")).unwrap();
        fs::write(base.path().join("proc/1/net/unix"), others + own).unwrap();
        let directory = base.path().join("var/lib/lxd");
        fs::create_dir_all(&directory).unwrap();
        drop(UnixListener::bind(directory.join(SOCKET)).unwrap());
        let found = Finder::new(&roots).running(&roots, &mut Buffer::new(), |_| false).unwrap();
        assert_eq!(found, [(PathBuf::from("/var/lib/lxd"), "lxd")].into());
    }
}

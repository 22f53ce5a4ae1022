//! Which daemons of Incus and LXD run on the host, told by the sockets that somebody listens on.

use std::collections::{BTreeMap, HashSet};
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

use super::{DEFAULTS, is_trusted, rank};

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

/// The most directories that are looked at in a round, of those that somebody listens in and that were no daemon's before.
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
    /// The strange directory that was looked at last: in the next round it is the turn of those behind it.
    last: PathBuf,
}

/// Where a daemon's socket is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its device and inode: whoever listens may give a path to what is found by another.
    socket: (u64, u64),
    /// Whether links lead there.
    has_links: bool,
}

/// Directories that somebody listens in and that were no daemon's before: as many as are looked at in a round, in their order from `after` on,
/// and as many from the start.
#[derive(Debug, Default)]
struct Strange {
    after: PathBuf,
    behind: BTreeMap<PathBuf, &'static str>,
    before: BTreeMap<PathBuf, &'static str>,
}

impl Strange {
    fn add(&mut self, directory: &Path, runtime: &'static str) {
        let side = if directory > self.after.as_path() { &mut self.behind } else { &mut self.before };
        if side.len() >= MAX_STRANGE {
            if side.last_key_value().is_some_and(|(last, _)| directory >= last.as_path()) {
                return;
            }
            side.pop_last();
        }
        side.insert(directory.to_owned(), runtime);
    }

    /// Those whose turn it is.
    fn chosen(self) -> impl Iterator<Item = (PathBuf, &'static str)> {
        self.behind.into_iter().chain(self.before).take(MAX_STRANGE)
    }
}

impl Finder {
    pub(super) fn new(roots: &Roots) -> Self {
        Self { places: Asker::new(roots), hung: Vec::new(), last: PathBuf::new() }
    }

    /// The state directories of the daemons that run, and whose they are; first of those that `is_known` knows. Each daemon is told once,
    /// under the directory that is one by default, or else one to which no link leads: anybody can listen at a path of his own that leads to
    /// a daemon's directory.
    ///
    /// # Errors
    /// Where the host's table of sockets cannot be read.
    pub(super) fn running(
        &mut self,
        roots: &Roots,
        buffer: &mut Buffer,
        is_known: impl Fn(&Path) -> bool,
    ) -> miharu_linux::Result<BTreeMap<PathBuf, &'static str>> {
        let mut known = BTreeMap::new();
        let mut strange = Strange { after: std::mem::take(&mut self.last), ..Strange::default() };
        unix_sockets::each_listening(roots, buffer, |path| {
            let Some((directory, runtime)) = daemon(path) else { return };
            if rank(directory) < DEFAULTS.len() || is_known(directory) {
                known.insert(directory.to_owned(), runtime);
            } else {
                strange.add(directory, runtime);
            }
        })?;
        self.hung.retain(|(_, answer)| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        let mut found = Vec::new();
        for (directory, runtime) in known {
            if let Some(place) = self.look_at(&directory, OF_KNOWN) {
                let order = (rank(&directory), place.has_links, false);
                found.push((order, directory, runtime, place.socket));
            }
        }
        for (directory, runtime) in strange.chosen() {
            self.last.clone_from(&directory);
            if self.hung.len() >= MAX_HUNG {
                continue;
            }
            if let Some(place) = self.look_at(&directory, OF_STRANGE) {
                let order = (rank(&directory), place.has_links, true);
                found.push((order, directory, runtime, place.socket));
            }
        }
        found.sort();
        let mut sockets = HashSet::new();
        found.retain(|(_, _, _, socket)| sockets.insert(*socket));
        found.truncate(MAX_DAEMONS);
        Ok(found.into_iter().map(|(_, directory, runtime, _)| (directory, runtime)).collect())
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

    /// The daemon's socket in that directory, where both are root's. Others can listen on whatever path they may write to.
    fn look_at(&mut self, directory: &Path, patience: Duration) -> Option<Place> {
        if self.hung.iter().any(|(hung, _)| hung == directory) {
            return None;
        }
        let above = directory.ancestors().map(Path::to_owned);
        let paths = std::iter::once(directory.join(SOCKET)).chain(above).collect();
        match self.places.ask(Question::Kinds(paths), patience) {
            Asked::Now(Answer::Kinds(kinds)) => place(&kinds),
            Asked::Later(answer) => {
                self.hung.push((directory.to_owned(), answer));
                None
            }
            Asked::Now(_) | Asked::Never => None,
        }
    }
}

/// What is told of a daemon's socket, its directory, and those above.
fn place(kinds: &[std::io::Result<Metadata>]) -> Option<Place> {
    let [Ok(socket), Ok(directory), above @ ..] = kinds else { return None };
    let is_roots = |metadata: &Metadata| is_trusted(metadata.uid());
    let is_one = directory.is_dir() && socket.file_type().is_socket();
    (is_one && is_roots(directory) && is_roots(socket)).then(|| Place {
        socket: (socket.dev(), socket.ino()),
        has_links: above.iter().flatten().any(Metadata::is_symlink),
    })
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

    /// A host with these daemons and these listeners.
    fn host(daemons: &[&str], listening: &[&str]) -> (tempfile::TempDir, Roots) {
        let base = tempfile::tempdir().unwrap();
        for directory in daemons {
            let directory = base.path().join(directory);
            fs::create_dir_all(&directory).unwrap();
            drop(UnixListener::bind(directory.join(SOCKET)).unwrap());
        }
        let line = |path: &&str| format!("0: 00000002 00000000 00010000 0001 01 1 {path}/devlxd/sock\n");
        fs::create_dir_all(base.path().join("proc/1/net")).unwrap();
        fs::write(base.path().join("proc/1/net/unix"), listening.iter().map(line).collect::<String>())
            .unwrap();
        let roots = Roots::at(base.path());
        (base, roots)
    }

    #[test]
    fn a_link_of_a_users_tells_no_daemon_twice() {
        let listening = ["/home/ann/x/lxd", "/home/ann/y/lxd", "/srv/lxd", "/var/lib/lxd"];
        let (base, roots) = host(&["var/lib/lxd", "srv/lxd"], &listening);
        fs::create_dir_all(base.path().join("home/ann")).unwrap();
        for (link, to) in [("x", "var/lib"), ("y", "srv")] {
            std::os::unix::fs::symlink(base.path().join(to), base.path().join("home/ann").join(link))
                .unwrap();
        }
        let expected = ["/srv/lxd", "/var/lib/lxd"].map(|path| (PathBuf::from(path), "lxd")).into();
        for is_known in [false, true] {
            let of_user = |path: &Path| is_known && path.starts_with("/home");
            let found = Finder::new(&roots).running(&roots, &mut Buffer::new(), of_user).unwrap();
            assert_eq!(found, expected, "{is_known}");
        }
    }

    #[test]
    fn it_is_the_turn_of_each_directory_some_time() {
        let mut listening: Vec<_> = (0..=MAX_STRANGE).map(|number| format!("/a/{number}")).collect();
        listening.push("/srv/lxd".to_owned());
        let listening: Vec<_> = listening.iter().map(String::as_str).collect();
        let (_base, roots) = host(&["srv/lxd"], &listening);
        let mut finder = Finder::new(&roots);
        let mut count = || finder.running(&roots, &mut Buffer::new(), |_| false).unwrap().len();
        assert_eq!([count(), count()], [0, 1]);
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

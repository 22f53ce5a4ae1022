//! Which daemons of Incus and LXD run on the host.
//!
//! The host's table of sockets tells where to look, and nothing more: in a mount namespace of the own any user can listen on whatever path he
//! likes, and the table shows that path. What counts is the socket that the host itself has there: nobody but root can make one of root's, and the
//! kernel tells who listens on it.

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

/// The sockets for guests that somebody says to listen on for one directory, and whose they would be.
type OfGuests = BTreeMap<PathBuf, &'static str>;

/// A daemon in its directory.
#[derive(Debug, Clone, Copy)]
struct Daemon {
    runtime: &'static str,
    place: Place,
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
    behind: BTreeMap<PathBuf, OfGuests>,
    before: BTreeMap<PathBuf, OfGuests>,
}

impl Strange {
    fn add(&mut self, directory: &Path, socket: &Path, runtime: &'static str) {
        let side = if directory > self.after.as_path() { &mut self.behind } else { &mut self.before };
        if let Some(sockets) = side.get_mut(directory) {
            sockets.insert(socket.to_owned(), runtime);
            return;
        }
        if side.len() >= MAX_STRANGE {
            if side.last_key_value().is_some_and(|(last, _)| directory >= last.as_path()) {
                return;
            }
            side.pop_last();
        }
        side.insert(directory.to_owned(), OfGuests::from([(socket.to_owned(), runtime)]));
    }

    /// Those whose turn it is.
    fn chosen(self) -> impl Iterator<Item = (PathBuf, OfGuests)> {
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
        let mut known: BTreeMap<PathBuf, OfGuests> = BTreeMap::new();
        let mut strange = Strange { after: std::mem::take(&mut self.last), ..Strange::default() };
        unix_sockets::each_listening(roots, buffer, |path| {
            let Some((directory, socket, runtime)) = daemon(path) else { return };
            if rank(directory) < DEFAULTS.len() || is_known(directory) {
                known.entry(directory.to_owned()).or_default().insert(socket.to_owned(), runtime);
            } else {
                strange.add(directory, socket, runtime);
            }
        })?;
        self.hung.retain(|(_, answer)| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        let mut found = Vec::new();
        for (directory, sockets) in known {
            if let Some(Daemon { runtime, place }) = self.look_at(&directory, sockets, OF_KNOWN) {
                let order = (rank(&directory), place.has_links, false);
                found.push((order, directory, runtime, place.socket));
            }
        }
        for (directory, sockets) in strange.chosen() {
            self.last.clone_from(&directory);
            if self.hung.len() >= MAX_HUNG {
                continue;
            }
            if let Some(Daemon { runtime, place }) = self.look_at(&directory, sockets, OF_STRANGE) {
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

    /// The daemon of that directory: its own socket is there, and root listens on one of those for guests. All of them, and the
    /// directories that they are in, are root's.
    fn look_at(&mut self, directory: &Path, sockets: OfGuests, patience: Duration) -> Option<Daemon> {
        if self.hung.iter().any(|(hung, _)| hung == directory) {
            return None;
        }
        let above = directory.ancestors().map(Path::to_owned);
        let paths = std::iter::once(directory.join(SOCKET)).chain(above).collect();
        let Answer::Kinds(kinds) = self.ask(directory, Question::Kinds(paths), patience)? else {
            return None;
        };
        let place = place(&kinds)?;
        for (socket, runtime) in sockets {
            let paths = socket.ancestors().take(2).map(Path::to_owned).collect();
            let Answer::Kinds(kinds) = self.ask(directory, Question::Kinds(paths), patience)? else {
                return None;
            };
            let is_gone = |kind: &std::io::Result<Metadata>| {
                kind.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
            };
            if kinds.first().is_some_and(is_gone) && runtime == "lxd" && is_of_snapd(directory) {
                return Some(Daemon { runtime, place });
            }
            if !matches!(&kinds[..], [Ok(its), Ok(holds)] if is_roots_socket(its, holds)) {
                continue;
            }
            // It may be left of a daemon that has ended. Where who listens is not told, root made it all the same.
            let answer = self.ask(directory, Question::Listener(socket), patience)?;
            if matches!(answer, Answer::Listener(Ok(user)) if user.is_none_or(is_trusted)) {
                return Some(Daemon { runtime, place });
            }
        }
        None
    }

    /// What comes of a question about that directory, if it comes in time.
    fn ask(&mut self, directory: &Path, question: Question, patience: Duration) -> Option<Answer> {
        match self.places.ask(question, patience) {
            Asked::Now(answer) => Some(answer),
            Asked::Later(answer) => {
                self.hung.push((directory.to_owned(), answer));
                None
            }
            Asked::Never => None,
        }
    }
}

/// What is told of a daemon's socket, its directory, and those above.
fn place(kinds: &[std::io::Result<Metadata>]) -> Option<Place> {
    let [Ok(socket), Ok(directory), above @ ..] = kinds else { return None };
    is_roots_socket(socket, directory).then(|| Place {
        socket: (socket.dev(), socket.ino()),
        has_links: above.iter().flatten().any(Metadata::is_symlink),
    })
}

/// Whether the host does not see the socket for guests: LXD mounts a file system for it, in the mount namespace that snapd gives it. There the
/// table of sockets has to do. What a user gains by it is that LXD is asked while it does not run, and so may be started.
fn is_of_snapd(directory: &Path) -> bool {
    let snap = directory.strip_prefix("/var/snap").ok().filter(|rest| rest.components().count() == 3);
    let name = snap.filter(|rest| rest.ends_with("common/lxd")).and_then(|rest| rest.iter().next());
    // A second one beside the first has a name of its own behind it.
    name.is_some_and(|name| name == "lxd" || name.as_bytes().starts_with(b"lxd_"))
}

/// Whether that is a socket in such a directory, and both are root's. Others can listen on whatever path they may write to.
fn is_roots_socket(socket: &Metadata, directory: &Metadata) -> bool {
    let is_one = directory.is_dir() && socket.file_type().is_socket();
    is_one && is_trusted(directory.uid()) && is_trusted(socket.uid())
}

/// The state directory that a guests' socket is in, the socket, and whose that is.
fn daemon(path: &[u8]) -> Option<(&Path, &Path, &'static str)> {
    let path = Path::new(OsStr::from_bytes(path));
    OF_GUESTS.iter().find_map(|(socket, runtime)| {
        let directory = path.ends_with(socket).then(|| path.parent()?.parent())??;
        let state = RUN_STATE.iter().find(|(run, _)| directory == Path::new(run));
        Some((state.map_or(directory, |(_, state)| Path::new(state)), path, *runtime))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A host with these daemons, each with its socket for guests, on which all of these paths are told of as listened on.
    struct Host {
        base: tempfile::TempDir,
        listening: Vec<UnixListener>,
    }

    impl Host {
        fn new(daemons: &[(&str, &str)], told: &[&str]) -> Self {
            let base = tempfile::tempdir().unwrap();
            let mut host = Self { base, listening: Vec::new() };
            for (directory, of_guests) in daemons {
                drop(host.socket(&format!("{directory}/{SOCKET}")));
                let listening = host.socket(of_guests);
                host.listening.push(listening);
            }
            let line = |path: &&str| format!("0: 00000002 00000000 00010000 0001 01 1 {path}\n");
            fs::create_dir_all(host.path("proc/1/net")).unwrap();
            fs::write(host.path("proc/1/net/unix"), told.iter().map(line).collect::<String>()).unwrap();
            host
        }

        fn path(&self, path: &str) -> PathBuf {
            self.base.path().join(path.trim_start_matches('/'))
        }

        fn socket(&self, path: &str) -> UnixListener {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            UnixListener::bind(path).unwrap()
        }

        fn roots(&self) -> Roots {
            Roots::at(self.base.path())
        }

        fn found(&self) -> Vec<(String, &'static str)> {
            let found = Finder::new(&self.roots()).running(&self.roots(), &mut Buffer::new(), |_| false);
            found.unwrap().into_iter().map(|(path, runtime)| (path.display().to_string(), runtime)).collect()
        }
    }

    fn told(found: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
        found.iter().map(|(path, runtime)| ((*path).to_owned(), *runtime)).collect()
    }

    #[test]
    fn a_daemon_is_one_that_listens_for_its_guests() {
        let daemons = [
            ("/var/lib/incus", "/run/incus/guestapi/sock"),
            ("/srv/lxd", "/srv/lxd/devlxd/sock"),
            ("/x", "/x/s"),
        ];
        let listening = [
            "/run/incus/guestapi/sock",
            "/srv/lxd/devlxd/sock",
            "/x/unix.socket",
            "/nowhere/guestapi/sock",
            "/x/notguestapi/sock",
        ];
        let host = Host::new(&daemons, &listening);
        assert_eq!(host.found(), told(&[("/srv/lxd", "lxd"), ("/var/lib/incus", "incus")]));
        // A file in the socket's place is no daemon.
        fs::remove_file(host.path("srv/lxd").join(SOCKET)).unwrap();
        fs::write(host.path("srv/lxd").join(SOCKET), "").unwrap();
        assert_eq!(host.found().len(), 1);
    }

    #[test]
    fn what_a_user_makes_the_table_say_is_not_believed() {
        let both = |directory: &str| ["guestapi", "devlxd"].map(|of| format!("{directory}/{of}/sock"));
        let all = [both("/var/lib/lxd"), both("/var/lib/incus"), both("/srv/a"), both("/srv/b")].concat();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        // Of b only the socket is left.
        let daemons = [
            ("/var/lib/lxd", "/var/lib/lxd/devlxd/sock"),
            ("/var/lib/incus", "/run/incus/guestapi/sock"),
            ("/srv/a", "/srv/a/guestapi/s"),
            ("/srv/b", "/srv/b/guestapi/sock"),
        ];
        let mut host = Host::new(&daemons, &all);
        host.listening.pop();
        assert_eq!(
            host.found(),
            told(&[("/var/lib/lxd", "lxd")]),
            "Incus' is elsewhere, of which nobody told"
        );
        fs::write(host.path("srv/a/devlxd"), "").unwrap();
        std::os::unix::fs::symlink(host.path("var/lib/lxd/devlxd"), host.path("srv/b/devlxd")).unwrap();
        assert_eq!(host.found().len(), 1, "a link leads to another's socket");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(host.path("var/lib/lxd/devlxd"), Some(70_000), None).unwrap();
            assert_eq!(host.found(), [], "the directory is a user's");
        }
    }

    #[test]
    fn the_snap_of_lxd_has_its_socket_for_guests_where_the_host_does_not_see_it() {
        let directory = "/var/snap/lxd/common/lxd";
        let told_of = [
            format!("{directory}/devlxd/sock"),
            format!("{directory}/guestapi/sock"),
            "/srv/lxd/devlxd/sock".into(),
        ];
        let told_of: Vec<_> = told_of.iter().map(String::as_str).collect();
        let daemons = [(directory, "/elsewhere/lxd"), ("/srv/lxd", "/elsewhere/other")];
        let host = Host::new(&daemons, &told_of);
        fs::create_dir(host.path(directory).join("devlxd")).unwrap();
        assert_eq!(host.found(), told(&[(directory, "lxd")]));
        assert_eq!(Host::new(&daemons, &told_of[1..]).found(), [], "nobody says that LXD runs");
        assert!(is_of_snapd(Path::new("/var/snap/lxd_two/common/lxd")));
        for other in
            ["/var/snap/lxdx/common/lxd", "/var/snap/lxd/common/lxd/x", "/var/snap/lxd/lxd", "/srv/lxd"]
        {
            assert!(!is_of_snapd(Path::new(other)), "{other}");
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(host.path(directory), Some(70_000), None).unwrap();
            assert_eq!(host.found(), [], "the directory is a user's");
        }
    }

    #[test]
    fn a_link_of_a_users_tells_no_daemon_twice() {
        let directories = ["/home/ann/x/lxd", "/home/ann/y/lxd", "/srv/lxd", "/var/lib/lxd"];
        let listening = directories.map(|directory| format!("{directory}/devlxd/sock"));
        let daemons = [("/var/lib/lxd", listening[3].as_str()), ("/srv/lxd", listening[2].as_str())];
        let host = Host::new(&daemons, &listening.each_ref().map(String::as_str));
        let roots = host.roots();
        fs::create_dir_all(host.path("home/ann")).unwrap();
        for (link, to) in [("x", "var/lib"), ("y", "srv")] {
            std::os::unix::fs::symlink(host.path(to), host.path("home/ann").join(link)).unwrap();
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
        let mut listening: Vec<_> =
            (0..=MAX_STRANGE).map(|number| format!("/a/{number}/devlxd/sock")).collect();
        listening.push("/srv/lxd/devlxd/sock".to_owned());
        let listening: Vec<_> = listening.iter().map(String::as_str).collect();
        let host = Host::new(&[("/srv/lxd", "/srv/lxd/devlxd/sock")], &listening);
        let roots = host.roots();
        let mut finder = Finder::new(&roots);
        let mut count = || finder.running(&roots, &mut Buffer::new(), |_| false).unwrap().len();
        assert_eq!([count(), count()], [0, 1]);
    }

    #[test]
    fn no_number_of_sockets_hides_a_daemon() {
        // More than 4 MiB of them.
        let mut listening: Vec<_> =
            (0..40_000).map(|number| format!("/tmp/some/where/{number:040}/devlxd/sock")).collect();
        listening.push("/var/lib/lxd/devlxd/sock".to_owned());
        let listening: Vec<_> = listening.iter().map(String::as_str).collect();
        let host = Host::new(&[("/var/lib/lxd", "/var/lib/lxd/devlxd/sock")], &listening);
        assert_eq!(host.found(), told(&[("/var/lib/lxd", "lxd")]));
    }
}

//! Questions about what others control, whose answers may never come.
//!
//! A command line is read out of a process' own memory, and a path of somebody's may lead over a file system that no longer
//! answers: either can hold a thread in the kernel for ever, where not even SIGKILL ends it. So such questions are asked by
//! threads with a descriptor table of their own, and whoever asks waits only as long as it likes.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use rustix::fs::{AtFlags, StatxFlags, makedev, statx};

use crate::process::ProcDir;
use crate::read::Buffer;
use crate::sys;
use crate::{Error, Result, Roots};

/// How long a thread without questions stays.
const IDLE: Duration = Duration::from_secs(5);

/// What is asked: numbers and paths alone, as the thread that answers has none of this process' descriptors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// The command line of a process.
    CommandLine {
        /// Its number.
        pid: u32,
        /// Its start, in clock ticks, so that a reused number is not mistaken for it.
        start_ticks: u64,
    },
    /// Who owns each of these paths of the host. No link at the end of one is followed.
    Owners(Vec<PathBuf>),
    /// Which program of the host's a process runs.
    Program {
        /// Its number.
        pid: u32,
        /// As above.
        start_ticks: u64,
    },
}

/// What came of a [`Question`] of the same name.
#[derive(Debug)]
pub enum Answer {
    /// The arguments, as of [`ProcDir::command_line`].
    CommandLine(Result<Vec<u8>>),
    /// User ids, in the order of the paths.
    Owners(Vec<io::Result<u32>>),
    /// The program, whoever put it there.
    Program(Result<Program>),
}

/// A program that a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is, as the kernel shows it.
    pub path: PathBuf,
    /// Who could have put it there, as far as owners of files tell it.
    pub keepers: std::result::Result<BTreeSet<u32>, Unkept>,
}

/// Why it cannot be told who put a program where it is; to be read after "as".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    /// The host has no such file there, or another: a process in a mount namespace of its own shows any path that it likes.
    #[error("the host has no such file in that place")]
    Elsewhere,
    /// The file, or a directory that it is in, can be changed by everybody.
    #[error("everybody may write to {}", .0.display())]
    Everybodys(PathBuf),
    /// It can be changed by a group other than root's.
    #[error("group {gid} may write to {}", .path.display())]
    Groups {
        /// The file or directory.
        path: PathBuf,
        /// The group's number.
        gid: u32,
    },
}

/// The answer, or where it will be if it ever comes.
#[derive(Debug)]
pub enum Asked {
    /// It came in time.
    Now(Answer),
    /// It did not come yet.
    Later(Receiver<Answer>),
    /// It will never come: no thread can be started.
    Never,
}

/// Asks questions, one at a time.
#[derive(Debug)]
pub struct Asker {
    roots: Roots,
    /// The thread that is free, if there is one; it may have gone.
    free: Option<Sender<Job>>,
}

type Job = (Question, SyncSender<Answer>);

impl Asker {
    /// Asks about the host behind `roots`.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { roots: roots.clone(), free: None }
    }

    /// Asks and waits for that long. A thread that has not answered by then is left to itself.
    pub fn ask(&mut self, question: Question, patience: Duration) -> Asked {
        // The free thread may have had enough of waiting between the question's way out and its arrival.
        if let Some(free) = self.free.take()
            && let Some(asked) = self.ask_of(free, question.clone(), patience)
        {
            return asked;
        }
        let Some(new) = self.employ() else { return Asked::Never };
        self.ask_of(new, question, patience).unwrap_or(Asked::Never)
    }

    /// Asks that thread; nothing where it has gone, whether before it got the question or with that in its hands.
    fn ask_of(&mut self, thread: Sender<Job>, question: Question, patience: Duration) -> Option<Asked> {
        let (sender, receiver) = sync_channel(1);
        thread.send((question, sender)).ok()?;
        match receiver.recv_timeout(patience) {
            Ok(answer) => {
                self.free = Some(thread);
                Some(Asked::Now(answer))
            }
            Err(RecvTimeoutError::Timeout) => Some(Asked::Later(receiver)),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Starts a thread.
    fn employ(&self) -> Option<Sender<Job>> {
        let (sender, jobs) = channel();
        let clerk = Clerk { roots: self.roots.clone(), jobs };
        sys::spawn_apart(sys::Apart::Clerk(clerk)).ok()?;
        Some(sender)
    }
}

/// What such a thread does. It holds no descriptor (see [`sys::spawn_apart`]).
#[derive(Debug)]
pub(crate) struct Clerk {
    roots: Roots,
    jobs: Receiver<Job>,
}

impl Clerk {
    /// Answers until nobody asks any more.
    pub(crate) fn run(self) {
        while let Ok((question, sender)) = self.jobs.recv_timeout(IDLE) {
            // Nobody may be left to hear it.
            let _ = sender.send(answer(&self.roots, question));
        }
    }
}

fn answer(roots: &Roots, question: Question) -> Answer {
    match question {
        Question::CommandLine { pid, start_ticks } => {
            Answer::CommandLine(command_line(roots, pid, start_ticks))
        }
        Question::Owners(paths) => Answer::Owners(paths.iter().map(|path| owner(roots, path)).collect()),
        Question::Program { pid, start_ticks } => Answer::Program(program(roots, pid, start_ticks)),
    }
}

fn command_line(roots: &Roots, pid: u32, start_ticks: u64) -> Result<Vec<u8>> {
    open(roots, pid, start_ticks)?.command_line()
}

/// The very process that is meant.
fn open(roots: &Roots, pid: u32, start_ticks: u64) -> Result<ProcDir> {
    let process = ProcDir::open(roots, pid)?;
    if process.stat(&mut Buffer::new())?.starttime != start_ticks {
        return Err(Error::Gone(process.path().to_owned()));
    }
    Ok(process)
}

fn owner(roots: &Roots, path: &Path) -> io::Result<u32> {
    let place = roots.host_path(path).ok_or(io::ErrorKind::NotFound)?;
    std::fs::symlink_metadata(place).map(|metadata| metadata.uid())
}

fn program(roots: &Roots, pid: u32, start_ticks: u64) -> Result<Program> {
    let process = open(roots, pid, start_ticks)?;
    let path = process.program()?;
    let keepers = keepers(roots, &process, &path);
    Ok(Program { path, keepers })
}

/// Whose the program at `path` and all that it is in are, if the host has that very file there. A process in a mount namespace
/// of its own shows any path that it likes.
fn keepers(roots: &Roots, process: &ProcDir, path: &Path) -> std::result::Result<BTreeSet<u32>, Unkept> {
    let found = of_the_host(roots, path)?;
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    match statx(process.as_fd(), "exe", flags, StatxFlags::INO) {
        Ok(runs) => {
            let device = makedev(runs.stx_dev_major, runs.stx_dev_minor);
            if (device, runs.stx_ino) != (found.dev(), found.ino()) {
                return Err(Unkept::Elsewhere);
            }
        }
        // The link of a recorded tree leads nowhere; a process without a program has ended.
        Err(rustix::io::Errno::NOENT) => {}
        Err(_) => return Err(Unkept::Elsewhere),
    }
    if !found.is_file() {
        return Err(Unkept::Elsewhere);
    }
    let mut keepers = BTreeSet::new();
    for above in path.ancestors() {
        let metadata = of_the_host(roots, above)?;
        check_mode(above, metadata.mode(), metadata.gid())?;
        keepers.insert(metadata.uid());
    }
    Ok(keepers)
}

fn of_the_host(roots: &Roots, path: &Path) -> std::result::Result<std::fs::Metadata, Unkept> {
    let place = roots.host_path(path).ok_or(Unkept::Elsewhere)?;
    std::fs::symlink_metadata(place).map_err(|_| Unkept::Elsewhere)
}

/// Whether nobody but its owner, and root's group, may change what is at `path`. An access list that lets somebody else write
/// shows in the group's bit. Who is in another group is not asked, as that is not for a file to say: a program in a directory
/// of Debian's `staff` has to move, or the directory has to become root's alone.
fn check_mode(path: &Path, mode: u32, gid: u32) -> std::result::Result<(), Unkept> {
    if mode & 0o002 != 0 {
        return Err(Unkept::Everybodys(path.to_owned()));
    }
    if mode & 0o020 != 0 && gid != 0 {
        return Err(Unkept::Groups { path: path.to_owned(), gid });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn command_line_of(asker: &mut Asker, start_ticks: u64) -> Result<Vec<u8>> {
        let question = Question::CommandLine { pid: std::process::id(), start_ticks };
        match asker.ask(question, SOON) {
            Asked::Now(Answer::CommandLine(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_tells_command_lines_and_owners() {
        let roots = Roots::default();
        let own = ProcDir::open(&roots, std::process::id()).unwrap();
        let start = own.stat(&mut Buffer::new()).unwrap().starttime;
        let mut asker = Asker::new(&roots);
        assert_eq!(command_line_of(&mut asker, start).unwrap(), own.command_line().unwrap());
        assert!(
            command_line_of(&mut asker, start + 1).unwrap_err().is_gone(),
            "another process of that number"
        );
        let base = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nowhere", base.path().join("link")).unwrap();
        let paths = ["link", "absent", "../escape"].map(|name| base.path().join(name)).to_vec();
        let Asked::Now(Answer::Owners(owners)) = asker.ask(Question::Owners(paths), SOON) else { panic!() };
        let known: Vec<_> = owners.into_iter().map(std::result::Result::ok).collect();
        assert_eq!(known, [Some(rustix::process::getuid().as_raw()), None, None]);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test needs a process to look at")]
    fn a_program_is_told_with_who_could_have_put_it_there() {
        let base = tempfile::tempdir().unwrap();
        let copy = base.path().join("qemu-system-x86_64");
        install(&copy);
        let program_of = |program: &Path| {
            let mut child = std::process::Command::new(program).arg("1000").spawn().unwrap();
            let process = ProcDir::open(&Roots::default(), child.id()).unwrap();
            let start_ticks = process.stat(&mut Buffer::new()).unwrap().starttime;
            let question = Question::Program { pid: child.id(), start_ticks };
            let asked = Asker::new(&Roots::default()).ask(question, SOON);
            child.kill().unwrap();
            child.wait().unwrap();
            let Asked::Now(Answer::Program(answer)) = asked else { panic!("{asked:?}") };
            answer.unwrap()
        };
        let systems = program_of(Path::new("/bin/sleep"));
        assert_eq!(systems.path.file_name().unwrap(), "sleep");
        assert_eq!(systems.keepers, Ok(BTreeSet::from([0])));
        let temporary = std::env::temp_dir();
        if std::fs::metadata(&temporary).unwrap().mode() & 0o002 != 0 {
            let keepers = Err(Unkept::Everybodys(temporary));
            assert_eq!(program_of(&copy), Program { path: copy, keepers });
        }
    }

    /// A host whose `/bin/program` runs.
    struct Host {
        base: tempfile::TempDir,
        roots: Roots,
        child: std::process::Child,
    }

    impl Host {
        #[allow(clippy::disallowed_methods, reason = "a test needs a process to look at")]
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            let mut roots = Roots::at(base.path());
            roots.proc = Roots::default().proc;
            let bin = base.path().join("bin");
            std::fs::create_dir(&bin).unwrap();
            install(&bin.join("program"));
            for path in [base.path(), &bin] {
                set_mode(path, 0o755);
            }
            let child = std::process::Command::new(bin.join("program")).arg("1000").spawn().unwrap();
            Self { base, roots, child }
        }

        fn place(&self, path: &str) -> PathBuf {
            self.base.path().join(path)
        }

        fn process(&self) -> ProcDir {
            ProcDir::open(&self.roots, self.child.id()).unwrap()
        }

        fn keepers(&self, path: &str) -> std::result::Result<BTreeSet<u32>, Unkept> {
            keepers(&self.roots, &self.process(), Path::new(path))
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// As a package manager does it: the whole file comes to its place at once. Another process writes it, as this one may
    /// start a child of another test at that moment, which would hold it open: ETXTBSY.
    #[allow(clippy::disallowed_methods, reason = "see above")]
    fn install(place: &Path) {
        let new = place.with_extension("new");
        let copied = std::process::Command::new("cp").arg("/bin/sleep").arg(&new).status();
        assert!(copied.unwrap().success());
        set_mode(&new, 0o755);
        std::fs::rename(new, place).unwrap();
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }

    fn own() -> BTreeSet<u32> {
        BTreeSet::from([rustix::process::geteuid().as_raw()])
    }

    #[test]
    fn what_a_group_may_write_is_nobodys_but_roots() {
        let host = Host::new();
        assert_eq!(host.keepers("/bin/program"), Ok(own()));
        set_mode(&host.place("bin"), 0o2775);
        let gid = std::fs::metadata(host.place("bin")).unwrap().gid();
        let groups = |path: &str, gid| Err(Unkept::Groups { path: path.into(), gid });
        let expected = if gid == 0 { Ok(own()) } else { groups("/bin", gid) };
        assert_eq!(host.keepers("/bin/program"), expected);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(host.place("bin"), None, Some(50)).unwrap();
            assert_eq!(host.keepers("/bin/program"), groups("/bin", 50));
            std::os::unix::fs::chown(host.place("bin/program"), None, Some(51)).unwrap();
            set_mode(&host.place("bin/program"), 0o775);
            assert_eq!(host.keepers("/bin/program"), groups("/bin/program", 51));
        }
        assert_eq!(check_mode(Path::new("/x"), 0o100_775, 50), groups("/x", 50).map(drop));
        assert_eq!(check_mode(Path::new("/x"), 0o100_775, 0), Ok(()));
        assert_eq!(check_mode(Path::new("/x"), 0o100_757, 0), Err(Unkept::Everybodys("/x".into())));
    }

    #[test]
    fn a_late_answer_is_found_where_it_was_promised_and_the_next_question_does_not_wait_for_it() {
        let mut asker = Asker::new(&Roots::default());
        let question = || Question::Owners(vec![Path::new("/").to_owned()]);
        let Asked::Later(receiver) = asker.ask(question(), Duration::ZERO) else {
            // It was quicker than nothing at all.
            return;
        };
        assert!(asker.free.is_none(), "that thread is left to itself");
        assert!(matches!(asker.ask(question(), SOON), Asked::Now(_)));
        assert!(asker.free.is_some());
        assert!(matches!(receiver.recv_timeout(SOON), Ok(Answer::Owners(_))));
    }

    #[test]
    fn a_thread_that_goes_with_a_question_in_its_hands_is_no_end() {
        let mut asker = Asker::new(&Roots::default());
        let (sender, jobs) = channel::<Job>();
        asker.free = Some(sender);
        let goes = std::thread::spawn(move || jobs.recv().map(drop).unwrap());
        let asked = asker.ask(Question::Owners(vec![Path::new("/").to_owned()]), SOON);
        goes.join().unwrap();
        assert!(matches!(asked, Asked::Now(Answer::Owners(_))), "{asked:?}");
        assert!(asker.free.is_some());
    }

    #[test]
    fn it_holds_no_file_of_the_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut asker = Asker::new(&Roots::default());
        assert!(matches!(asker.ask(Question::Owners(Vec::new()), SOON), Asked::Now(_)));
        drop(listener);
        // The thread lives on; were the socket in its table, the port would still answer.
        assert!(asker.free.is_some());
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}

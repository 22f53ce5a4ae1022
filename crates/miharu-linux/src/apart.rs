//! Questions about what others control, whose answers may never come.
//!
//! A command line is read out of a process' own memory, and a path of somebody's may lead over a file system that no longer
//! answers: either can hold a thread in the kernel for ever, where not even SIGKILL ends it. So such questions are asked by
//! threads with a descriptor table of their own, and whoever asks waits only as long as it likes.

mod listener;
mod program;

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use crate::process::ProcDir;
use crate::read::{Buffer, regular};
use crate::sys;
use crate::{Error, Result, Roots};

pub use program::{Program, Unkept};

/// Work for a thread that has a descriptor table of its own.
///
/// **A descriptor is a number, and there it is the number of another file or of none.** So whoever implements this holds none, no
/// [`OwnedFd`](std::os::fd::OwnedFd), [`File`](std::fs::File), socket or [`ProcDir`], and shares nothing with other threads that holds one, or
/// could be dropped on the wrong side: what crosses is numbers, paths and text. What it opens it closes itself. The same goes for what
/// libraries keep to themselves: tokio's reactor has one pipe for signals in all of a process, and SQLite may keep
/// a file for another connection to the same one.
pub trait Apart: Send + 'static {
    /// What the thread is called.
    const NAME: &'static str;
    /// Its stack, bytes.
    const STACK: usize = 256 << 10;

    /// Does it. `table` tells whether the thread has its own: without it, on a kernel before Linux 5.9, it holds all that the process has open.
    fn run(self, table: io::Result<()>);
}

/// Starts a thread for it, restricted as the calling one is.
///
/// # Errors
/// Where no thread can be started.
pub fn spawn<W: Apart>(work: W) -> io::Result<()> {
    sys::spawn_apart(work)
}

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
    /// What each of these paths of the host is. No link at the end of one is followed.
    Kinds(Vec<PathBuf>),
    /// What is in each of these files of the host's, as [`regular`] reads them.
    Files {
        /// The files.
        paths: Vec<PathBuf>,
        /// The most that each may have, bytes.
        limit: u64,
    },
    /// Who listens on the host's socket of that path. The connection by which that is found out is ended without a word.
    Listener(PathBuf),
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
    /// What is there, in the order of the paths.
    Kinds(Vec<io::Result<Metadata>>),
    /// The bytes, in the order of the paths.
    Files(Vec<io::Result<Vec<u8>>>),
    /// The user, in numbers. None where somebody listens, and takes no connection now or none of this process'.
    Listener(io::Result<Option<u32>>),
    /// The program, whoever put it there.
    Program(Result<Program>),
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
        spawn(clerk).ok()?;
        Some(sender)
    }
}

/// What such a thread does. It has numbers, paths, and a channel of them.
#[derive(Debug)]
struct Clerk {
    roots: Roots,
    jobs: Receiver<Job>,
}

impl Apart for Clerk {
    const NAME: &'static str = "questions";

    /// Answers until nobody asks any more. Better asked in the table of all than not at all.
    fn run(self, _table: io::Result<()>) {
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
        Question::Kinds(paths) => Answer::Kinds(paths.iter().map(|path| kind(roots, path)).collect()),
        Question::Files { paths, limit } => {
            let read = |path: &PathBuf| regular(&place(roots, path)?, limit);
            Answer::Files(paths.iter().map(read).collect())
        }
        Question::Listener(path) => {
            Answer::Listener(place(roots, &path).and_then(|place| listener::of(&place)))
        }
        Question::Program { pid, start_ticks } => {
            Answer::Program(open(roots, pid, start_ticks).and_then(|process| program::of(roots, &process)))
        }
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
    kind(roots, path).map(|metadata| metadata.uid())
}

fn kind(roots: &Roots, path: &Path) -> io::Result<Metadata> {
    std::fs::symlink_metadata(place(roots, path)?)
}

fn place(roots: &Roots, path: &Path) -> io::Result<PathBuf> {
    roots.host_path(path).ok_or_else(|| io::ErrorKind::NotFound.into())
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

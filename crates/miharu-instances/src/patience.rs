//! What may never be answered: command lines of users' processes, and who owns paths that others chose.
//!
//! `/proc/PID/cmdline` is read out of the process' own memory, and a process can lay its memory over a file system that
//! never answers; a path may lead over one whose server is gone. A thread of its own waits for such an answer, and the scan
//! waits for that only for a moment.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use miharu_linux::Roots;
use miharu_linux::apart::{Answer, Asked, Asker, Program, Question};

use crate::driver::is_trusted;
use crate::users::{Accounts, Share};

/// How long a scan waits for an answer that a user can hold back. Unit tests, of which none holds one back, run on machines that are
/// busy for longer.
const OF_A_USER: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 100 });

/// How long it waits for one that decides about a warning alone: what comes later is there at the next scan.
const OF_A_WARNING: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 10 });

/// How long users' answers are waited for in each [`PERIOD`], all together; what comes later is there at a later scan.
const OF_ALL_USERS: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 200 });

/// How long a count of what was waited for lasts.
const PERIOD: Duration = Duration::from_secs(1);

/// How long it waits for one about what is the system's.
const OF_THE_SYSTEM: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 500 });

/// The most answers that are waited for on account of one user.
const MAX_EACH: usize = 2;

/// The most of all users; the system's have as many places of their own.
const MAX_WAITING: usize = 8;

/// The answers that are still waited for.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    asker: Option<Asker>,
    accounts: Accounts,
    waiting: HashMap<Question, Waiting>,
    /// Since when users' answers are counted, and how long they were waited for since.
    of_users: Option<(Instant, Duration)>,
}

/// What an answer decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    /// Whether an instance is served.
    Instance,
    /// Whether somebody is warned of.
    Warning,
}

/// Why a program is not taken for the system's; to be read after the name of a process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTheSystems {
    /// It is somebody else's, or may be.
    #[error(
        "runs {}, which others than root could have put there, as {why}: install the program as root, in a directory that \
         nobody else may write to", .path.display()
    )]
    Anybodys {
        /// The program.
        path: PathBuf,
        /// What makes it so.
        why: String,
    },
    /// It cannot be seen.
    #[error("does not show its program: {0}")]
    Unseen(miharu_linux::Error),
}

#[derive(Debug)]
struct Waiting {
    /// On whose account.
    share: Share,
    answer: Receiver<Answer>,
}

impl Patience {
    /// The command line of process `pid` of user `uid` that began at `start_ticks`; `None` where it is not there in time.
    pub(crate) fn command_line(
        &mut self,
        roots: &Roots,
        uid: u32,
        pid: u32,
        start_ticks: u64,
        worth: Worth,
    ) -> Option<miharu_linux::Result<Vec<u8>>> {
        match self.ask(roots, uid, worth, Question::CommandLine { pid, start_ticks })? {
            Answer::CommandLine(line) => Some(line),
            _ => None,
        }
    }

    /// Who owns these paths, which user `uid` named; `None` where that is not known in time.
    pub(crate) fn owners(
        &mut self,
        roots: &Roots,
        uid: u32,
        paths: Vec<PathBuf>,
    ) -> Option<Vec<std::io::Result<u32>>> {
        match self.ask(roots, uid, Worth::Instance, Question::Owners(paths))? {
            Answer::Owners(owners) => Some(owners),
            _ => None,
        }
    }

    /// The program of process `pid` of user `uid`, if the system's administrator put it there: what a user calls a process, or
    /// a copy of a program, makes it nothing.
    pub(crate) fn systems_program(
        &mut self,
        roots: &Roots,
        uid: u32,
        pid: u32,
        start_ticks: u64,
        worth: Worth,
    ) -> Option<Result<PathBuf, NotTheSystems>> {
        let question = Question::Program { pid, start_ticks };
        let Answer::Program(program) = self.ask(roots, uid, worth, question)? else { return None };
        Some(match program {
            Ok(Program { path, keepers: Ok(keepers) }) => match keepers.iter().find(|uid| !is_trusted(**uid))
            {
                None => Ok(path),
                Some(uid) => {
                    let why = format!("it, or a directory that it is in, is user {uid}'s");
                    Err(NotTheSystems::Anybodys { path, why })
                }
            },
            Ok(Program { path, keepers: Err(why) }) => {
                Err(NotTheSystems::Anybodys { path, why: why.to_string() })
            }
            Err(error) => Err(NotTheSystems::Unseen(error)),
        })
    }

    fn ask(&mut self, roots: &Roots, uid: u32, worth: Worth, question: Question) -> Option<Answer> {
        // What has come, or failed, since the last scan frees its place; to who asks for it again it is the answer.
        if let Some(waiting) = self.waiting.get(&question) {
            let came = waiting.answer.try_recv();
            if matches!(came, Err(TryRecvError::Empty)) {
                return None;
            }
            self.waiting.remove(&question);
            if let Ok(answer) = came {
                return Some(answer);
            }
        }
        let share = self.accounts.share(roots, uid);
        if !self.has_room(share) {
            self.waiting.retain(|_, waiting| matches!(waiting.answer.try_recv(), Err(TryRecvError::Empty)));
        }
        if !self.has_room(share) {
            return None;
        }
        let patience = match worth {
            _ if share == Share::Root => OF_THE_SYSTEM,
            Worth::Instance => OF_A_USER,
            Worth::Warning => OF_A_WARNING,
        };
        let patience = if share.is_a_users() { patience.min(self.left()) } else { patience };
        if patience.is_zero() {
            return None;
        }
        let asker = self.asker.get_or_insert_with(|| Asker::new(roots));
        let begun = Instant::now();
        let asked = asker.ask(question.clone(), patience);
        if share.is_a_users()
            && let Some((_, waited)) = &mut self.of_users
        {
            *waited += begun.elapsed();
        }
        match asked {
            Asked::Now(answer) => Some(answer),
            Asked::Later(answer) => {
                self.waiting.insert(question, Waiting { share, answer });
                None
            }
            Asked::Never => None,
        }
    }

    /// Whether users' answers were waited for long enough: one that did not come says nothing of whoever was asked.
    pub(crate) fn is_used_up(&mut self) -> bool {
        self.left().is_zero()
    }

    /// How long users' answers may still be waited for in this period.
    fn left(&mut self) -> Duration {
        let (_, waited) = match self.of_users {
            Some((since, waited)) if since.elapsed() < PERIOD => (since, waited),
            _ => *self.of_users.insert((Instant::now(), Duration::ZERO)),
        };
        OF_ALL_USERS.saturating_sub(waited)
    }

    /// Whether one more answer may be waited for on account of those: nobody takes the places of others, and all users
    /// together none of the system's.
    fn has_room(&self, share: Share) -> bool {
        let (mut own, mut all) = (0, 0);
        for waiting in self.waiting.values() {
            own += usize::from(waiting.share == share);
            all += usize::from(waiting.share.is_a_users() == share.is_a_users());
        }
        all < MAX_WAITING && (share == Share::Root || own < MAX_EACH)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};

    use miharu_linux::process::ProcDir;
    use miharu_linux::read::Buffer;

    use super::*;

    /// Some users who are not root.
    const USER: u32 = 70_000;

    fn hang(patience: &mut Patience, uid: u32, pid: u32) -> SyncSender<Answer> {
        let (sender, answer) = sync_channel(1);
        let share = patience.accounts.share(&Roots::default(), uid);
        let question = Question::CommandLine { pid, start_ticks: 1 };
        patience.waiting.insert(question, Waiting { share, answer });
        sender
    }

    #[test]
    fn one_that_hangs_is_not_asked_again_and_takes_the_place_of_nobody_else() {
        let accounts = Accounts::of(&(0..10).map(|user| USER + user).collect::<Vec<_>>());
        let mut patience = Patience { accounts, ..Patience::default() };
        let roots = Roots::default();
        let own = std::process::id();
        let start = ProcDir::open(&roots, own).unwrap().stat(&mut Buffer::new()).unwrap().starttime;
        let mut senders: Vec<_> = (0..2).map(|pid| hang(&mut patience, USER, 1_000_000_000 + pid)).collect();
        assert!(patience.command_line(&roots, USER, 1_000_000_000, 1, Worth::Instance).is_none(), "it hangs");
        assert!(
            patience.command_line(&roots, USER, own, start, Worth::Instance).is_none(),
            "enough of that user's hang"
        );
        let line = |patience: &mut Patience, uid: u32, start: u64| {
            in_the_end(|| patience.command_line(&roots, uid, own, start, Worth::Warning))
        };
        assert!(!line(&mut patience, USER + 1, start).unwrap().is_empty(), "another user's is told");
        for user in 1..4 {
            senders
                .extend((0..2).map(|pid| hang(&mut patience, USER + user, 1_000_000_000 + 10 * user + pid)));
        }
        assert!(
            patience.command_line(&roots, USER + 9, own, start, Worth::Instance).is_none(),
            "too many hang"
        );
        assert!(!line(&mut patience, 0, start).unwrap().is_empty(), "and take no place of the system's");
        senders[0].send(Answer::CommandLine(Ok(b"late".to_vec()))).unwrap();
        assert_eq!(
            patience.command_line(&roots, USER, 1_000_000_000, 1, Worth::Instance).unwrap().unwrap(),
            b"late"
        );
        assert!(!line(&mut patience, USER, start).unwrap().is_empty());
        assert!(line(&mut patience, USER, start + 1).is_err());
        // Whoever was to answer has gone: that holds no place, and is asked again.
        senders.clear();
        assert!(
            in_the_end(|| patience.command_line(&roots, USER, 1_000_000_001, 1, Worth::Instance)).is_err()
        );
        assert!(!line(&mut patience, USER + 9, start).unwrap().is_empty());
    }

    /// A machine under load may answer late; then the answer is there at one of the next questions.
    fn in_the_end<T>(mut ask: impl FnMut() -> Option<T>) -> T {
        for _ in 0..100 {
            if let Some(answer) = ask() {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no answer");
    }
}

//! Command lines of users' processes, which may never come.
//!
//! `/proc/PID/cmdline` is read out of the process' own memory, and a process can lay its memory over a file system that
//! never answers. Root's monitors are read directly; for a user's, a thread of its own waits, and the scan waits for it
//! only for a moment.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use miharu_linux::process::ProcDir;
use miharu_linux::read::Buffer;
use miharu_linux::{Result, Roots};

/// How long a scan waits for one process.
const PATIENCE: Duration = Duration::from_millis(100);

/// The most threads that wait at once.
const MAX_WAITING: usize = 4;

/// The threads that still wait, by pid and start time of the process.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    waiting: HashMap<(u32, u64), Receiver<Result<Vec<u8>>>>,
}

impl Patience {
    /// The command line of process `pid` that began at `start`; `None` where it is not there in time.
    pub(crate) fn command_line(&mut self, roots: &Roots, pid: u32, start: u64) -> Option<Result<Vec<u8>>> {
        let key = (pid, start);
        // What has come, or failed, since the last scan frees its place; for this process it is the answer.
        if let Some(receiver) = self.waiting.get(&key) {
            let answer = receiver.try_recv().ok()?;
            self.waiting.remove(&key);
            return Some(answer);
        }
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.retain(|_, receiver| receiver.try_recv().is_err());
        }
        if self.waiting.len() >= MAX_WAITING {
            return None;
        }
        let (sender, receiver) = sync_channel(1);
        let roots = roots.clone();
        let read = move || {
            // Nobody may be left to hear it.
            let _ = sender.send(read(&roots, pid, start));
        };
        std::thread::Builder::new().name("command-line".to_owned()).spawn(read).ok()?;
        self.wait(key, receiver)
    }

    fn wait(&mut self, key: (u32, u64), receiver: Receiver<Result<Vec<u8>>>) -> Option<Result<Vec<u8>>> {
        match receiver.recv_timeout(PATIENCE) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => {
                self.waiting.insert(key, receiver);
                None
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }
}

fn read(roots: &Roots, pid: u32, start: u64) -> Result<Vec<u8>> {
    let process = ProcDir::open(roots, pid)?;
    if process.stat(&mut Buffer::new())?.starttime != start {
        return Err(miharu_linux::Error::Gone(process.path().to_owned()));
    }
    process.command_line()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_hangs_is_not_asked_again_and_few_can_hang() {
        let mut patience = Patience::default();
        let senders: Vec<_> = (0..4)
            .map(|pid| {
                let (sender, receiver) = sync_channel(1);
                assert!(patience.wait((pid, 1), receiver).is_none());
                sender
            })
            .collect();
        let roots = Roots::default();
        let own = std::process::id();
        let start = ProcDir::open(&roots, own).unwrap().stat(&mut Buffer::new()).unwrap().starttime;
        assert!(patience.command_line(&roots, 0, 1).is_none(), "it hangs");
        assert!(patience.command_line(&roots, own, start).is_none(), "too many hang");
        senders[0].send(Ok(b"late".to_vec())).unwrap();
        assert_eq!(patience.command_line(&roots, 0, 1).unwrap().unwrap(), b"late");
        assert!(!patience.command_line(&roots, own, start).unwrap().unwrap().is_empty());
        assert!(patience.command_line(&roots, own, start + 1).unwrap().is_err());
    }
}

//! The thread that reads certificates, keys and what an authority revoked: people put these into the state directory as root, with root's
//! rights or as links to where only root may go, and the threads that answer the network may not read such.
//!
//! It keeps the right to read, and writes nowhere.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use super::{Outcome, rights};

/// The most that is read of a file, in bytes: a revocation list of some hundred thousand entries.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// What the thread is asked through.
static JOBS: OnceLock<Sender<Job>> = OnceLock::new();

/// Starts it. Tells whether it is kept from writing.
///
/// # Errors
/// Where it cannot be started.
pub(super) fn start() -> io::Result<Outcome> {
    let (jobs, taken) = channel();
    let (tell, told) = sync_channel(1);
    let work = move || {
        // Who started it waits for this.
        let _ = tell.send(super::only_read(rights::of_keys()));
        run(&taken);
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(work)?;
    let outcome = told.recv().map_err(io::Error::other)?;
    // It is started once.
    let _ = JOBS.set(jobs);
    Ok(outcome)
}

/// The content of a file.
///
/// # Errors
/// As [`std::fs::read`], and for what is no regular file or larger than 16 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    ask(move || {
        // A pipe that nobody writes to would be waited for.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let mut content = Vec::new();
        file.take(FILE_LIMIT + 1).read_to_end(&mut content)?;
        if content.len() as u64 > FILE_LIMIT {
            let words = format!("larger than {} MiB", FILE_LIMIT / 1024 / 1024);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        Ok(content)
    })
}

/// What a path leads to, links followed.
///
/// # Errors
/// As [`std::fs::metadata`].
pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    let path = path.to_owned();
    ask(move || std::fs::metadata(path))
}

/// Whether something has this name: a link that leads nowhere is there, too, and so is what cannot be looked at.
pub(crate) fn is_there(path: &Path) -> bool {
    let path = path.to_owned();
    let found = ask(move || std::fs::symlink_metadata(path));
    !found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Does it there, or here where there is no such thread: in tests, and with `--sandbox off`.
fn ask<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let Some(jobs) = JOBS.get() else { return work() };
    let gone = || io::Error::other("the thread that reads certificates has ended");
    let (tell, told) = sync_channel(1);
    let job = Box::new(move || {
        // Who asked waits for this.
        let _ = tell.send(work());
    });
    jobs.send(job).map_err(|_| gone())?;
    told.recv().map_err(|_| gone())?
}

fn run(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job();
    }
}

//! The thread that starts those which ask NVIDIA's library. It opens the processors' devices for writing, and these may appear long after the
//! start, when their driver is loaded: Landlock's rules are for the files of the moment, and a rule for all of `/dev` would let root's disks be
//! written. Besides, Landlock hides other processes where `/proc` is mounted with `hidepid`, and whose a process is has to be told.
//!
//! So these threads are under seccomp alone: they may open for writing what is there and what their user may, and make nothing. They keep
//! no capability but the one that shows processes, and that only where the daemon's user is not root.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::Builder;

use super::Outcome;

type Job = Box<dyn FnOnce() + Send>;

/// What the thread is asked through.
static JOBS: OnceLock<Sender<Job>> = OnceLock::new();

/// Starts it. Tells whether it is kept from what it has no use for.
///
/// # Errors
/// Where it cannot be started.
pub(super) fn start() -> io::Result<Outcome> {
    let (jobs, taken) = channel();
    let (tell, told) = sync_channel(1);
    let work = move || {
        // Who started it waits for this.
        let _ = tell.send(super::only_open_devices());
        for job in taken {
            spawn(job);
        }
    };
    Builder::new().name("devices".to_owned()).spawn(work)?;
    let outcome = told.recv().map_err(io::Error::other)?;
    // It is started once.
    let _ = JOBS.set(jobs);
    Ok(outcome)
}

/// Starts a thread that may open devices, whoever asks for it; here where there is no such restriction: in tests, and with `--sandbox off`.
pub(crate) fn open_devices(work: Job) {
    match JOBS.get() {
        // Where it is not taken, its channels are closed, which is seen.
        Some(jobs) => drop(jobs.send(work)),
        None => spawn(work),
    }
}

/// Nobody waits for it, and whether it runs is seen by its answers.
fn spawn(work: Job) {
    drop(Builder::new().name("gpus".to_owned()).spawn(work));
}

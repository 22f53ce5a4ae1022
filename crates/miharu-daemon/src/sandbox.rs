//! What the daemon takes away from itself once it has started, so that who takes it over, or tricks it, gets less.
//!
//! There are two kinds of threads, as one restriction excludes what the other kind is for: a thread under Landlock may not look
//! through `/proc/PID/root` of any process outside (landlock(7), "Ptrace restrictions"), which is how instances are looked at.
//!
//! - **Readers** look at instances, and ask runtimes and guests. They keep the capabilities for that and may write nowhere: no call that changes
//!   a file, its name or its owner, and none that opens one for writing, is let through (seccomp).
//! - **All others** answer the network, keep the state and write the log. They have none of these capabilities, see no other
//!   process from inside, and write below the state directory alone (Landlock). Landlock has no right for mode and owner of a file: what the
//!   daemon's user owns elsewhere they may set these of.
//!
//! One thread more reads certificates and keys for the others, which root may have put there ([`keys`]): it has the right to read, and may
//! write nowhere. Another one starts those that ask NVIDIA's library ([`devices`]): they may open for writing what is there already, as a device is, and their
//! user's or everybody's to write.
//!
//! None of them may start a program, leave its namespaces, mount, load anything into the kernel, reach into other processes, or change
//! the times, flags or extended attributes of a file (seccomp). All of it holds for threads that these start, too, and none can be taken back. Threads of one process share
//! their memory, so that the two kinds are a fence against mistakes and tricks with paths; who runs code of his own in one kind can get hold of
//! the other, and is left with what both may not do.

mod calls;
mod devices;
mod files;
pub(crate) mod keys;
mod readers;
mod rights;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context;
use clap::ValueEnum;
use rustix::thread::CapabilitySet;

pub(crate) use devices::open_devices;
pub(crate) use readers::look;

/// Whether the daemon confines itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// As far as the kernel can.
    #[default]
    On,
    /// Not at all, for who looks for a fault.
    Off,
}

/// What came of one measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in force.
    InForce,
    /// A part of it is, as the kernel is older than the rest.
    Partly,
    /// It is not, and why.
    Not(String),
}

/// What is in force.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    /// The state directory.
    pub(crate) dir: PathBuf,
    /// No programs, no namespaces, no other processes: all threads.
    pub(crate) calls: Outcome,
    /// No file is opened for writing: readers.
    pub(crate) reading: Outcome,
    /// Nothing is written outside the state directory: all other threads.
    pub(crate) writing: Outcome,
    /// Capabilities are dropped by those that need none.
    pub(crate) capabilities: Outcome,
}

static SANDBOX: OnceLock<Sandbox> = OnceLock::new();

/// Puts it in force for the calling thread and whatever threads it starts, and starts the thread that starts the readers.
///
/// # Errors
/// Where a thread cannot be started. What the kernel refuses is told in the log, and by `miharu admin doctor`.
pub(crate) fn enter(choice: Choice, dir: &Path, limit: usize) -> anyhow::Result<()> {
    if choice == Choice::Off {
        let off = || Outcome::Not("it was turned off with --sandbox off".to_owned());
        let sandbox = Sandbox {
            dir: dir.to_owned(),
            calls: off(),
            reading: off(),
            writing: off(),
            capabilities: off(),
        };
        tracing::warn!("nothing confines this daemon but what started it (--sandbox off)");
        // It is entered once.
        let _ = SANDBOX.set(sandbox);
        return Ok(());
    }
    let calls = outcome(calls::forbid_for_all());
    let reading = readers::start(limit).context("the thread that looks at instances cannot be started")?;
    let of_keys = keys::start().context("the thread that reads certificates cannot be started")?;
    let of_devices = devices::start().context("the thread that opens devices cannot be started")?;
    let capabilities = outcome(rights::keep(rights::of_others()));
    let writing = match files::confine(dir) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Not(format!("{error:#}")),
    };
    // What opens devices is started: it asks them for whatever NVIDIA's library needs.
    let requests = outcome(calls::forbid_requests());
    let calls = if calls == Outcome::InForce { requests } else { calls };
    let last = outcome(calls::forbid_changes_of_rights());
    let sandbox = Sandbox { dir: dir.to_owned(), calls, reading, writing, capabilities };
    let named = [
        ("seccomp", &sandbox.calls),
        ("seccomp of what reads", &sandbox.reading),
        ("seccomp of what reads certificates", &of_keys),
        ("seccomp of what opens devices", &of_devices),
        ("Landlock", &sandbox.writing),
        ("dropping capabilities", &sandbox.capabilities),
        ("seccomp of what answers", &last),
    ];
    for (name, outcome) in named {
        match outcome {
            Outcome::InForce => {}
            Outcome::Partly => tracing::info!("{name}: in force as far as this kernel has it"),
            Outcome::Not(why) => tracing::warn!("{name} is not in force: {why}"),
        }
    }
    let _ = SANDBOX.set(sandbox);
    Ok(())
}

/// What is in force; nothing before [`enter`], as in tests.
pub(crate) fn current() -> Option<&'static Sandbox> {
    SANDBOX.get()
}

/// Leaves the calling thread these capabilities, to read with and not to write. What one of the measures cannot do is no reason to leave
/// the others out.
fn only_read(kept: CapabilitySet) -> Outcome {
    all_of(&[
        rights::keep(kept),
        calls::forbid_writing(),
        calls::forbid_requests(),
        calls::forbid_changes_of_rights(),
    ])
}

/// Leaves the calling thread nothing but to open what is there, as its user may. What cannot be done as in [`only_read`].
fn only_open_devices() -> Outcome {
    all_of(&[rights::keep(rights::of_devices()), calls::forbid_making(), calls::forbid_changes_of_rights()])
}

fn all_of(tried: &[anyhow::Result<()>]) -> Outcome {
    let failed: Vec<String> =
        tried.iter().filter_map(|done| done.as_ref().err()).map(|error| format!("{error:#}")).collect();
    if failed.is_empty() { Outcome::InForce } else { Outcome::Not(failed.join("; ")) }
}

fn outcome(done: anyhow::Result<()>) -> Outcome {
    match done {
        Ok(()) => Outcome::InForce,
        Err(error) => Outcome::Not(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests;

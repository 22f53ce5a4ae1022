//! What a server keeps: whatever kills it, fills its disk, takes the disk away or damages its files, what was acknowledged is there,
//! what was not is wholly there or not at all, and an error says what to do. `MIHARU_CHAOS=1`, as `make chaos` sets it, makes each
//! as thorough as there is time for.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "driving daemons from outside and showing what they say"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "a failure here is a failed test"
)]

mod calls;
mod disk;
mod files;
mod killed;
mod twice;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::miharud::program;
use miharu_e2e::scratch::Entry;
use miharu_e2e::shell;

/// Whether there is time for the long form.
fn is_chaos() -> bool {
    std::env::var_os("MIHARU_CHAOS").is_some()
}

/// Random numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    /// One below that.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// The status of an end that may pass by itself, and of one that lasts until somebody acts on what is said: the unit has a daemon
/// started again after the first alone.
const MAY_PASS: i32 = 1;
const LASTS: i32 = 78;

/// What a daemon says that has to give up: with that status, no panic, and before anybody gets impatient.
fn gives_up(mut command: Command, dir: &Path, status: i32) -> Result<String> {
    command.arg(program("miharud")?).arg("--dir").arg(dir);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    let _note = Entry::Process(pid).note()?;
    let waiting = std::thread::spawn(move || child.wait_with_output());
    shell::wait_for("its end", Duration::from_secs(20), || waiting.is_finished().then_some(()))
        .with_context(|| format!("{} is good enough for it", dir.display()))?;
    let out = waiting.join().unwrap()?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.code() == Some(status), "{}: {said}", out.status);
    ensure!(!said.contains("panicked"), "{said}");
    Ok(said)
}

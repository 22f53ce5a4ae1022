//! Running other programs: their output when they succeed, their complaint when they do not.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs a program to its end and gives its standard output.
///
/// # Errors
/// When it cannot be started or ends with another status than 0; the error carries what it wrote to standard error.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    output(&mut command)
}

/// As [`run`], for a prepared command.
///
/// # Errors
/// As [`run`].
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        bail!("{command:?}: {}\n{}{}", out.status, stdout.trim_end(), stderr.trim_end());
    }
    Ok(stdout)
}

/// Whether a program of that name can be found, in the directories that only root has in its path too.
#[must_use]
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .any(|dir| dir.join(program).is_file())
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// After `limit`, saying `what` was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if started.elapsed() > patient(limit) {
            bail!("waited {:?} in vain for {what}", started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A limit for this machine: in an emulated guest everything takes several times as long.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    let slowness = std::env::var("MIHARU_E2E_SLOWNESS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    limit * slowness
}

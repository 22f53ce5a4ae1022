//! Running other programs: their output when they succeed, their complaint when they do not.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt;

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

/// Does something for each of these, three at a time; after the first failure no further one is begun.
///
/// # Errors
/// The first failure, or Ctrl-C.
pub fn side_by_side<T: Sync>(things: &[T], act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let act = || -> Result<()> {
        while let Some(thing) = things.get(next.fetch_add(1, Ordering::Relaxed)) {
            interrupt::check()?;
            if failed.load(Ordering::Relaxed) {
                break;
            }
            act(thing).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(act)).collect();
        let results: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        results.into_iter().try_for_each(|result| match result {
            Ok(result) => result,
            Err(_) => bail!("a thread panicked"),
        })
    })
}

/// A limit for this machine: in an emulated guest everything takes several times as long.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    let slowness = std::env::var("MIHARU_E2E_SLOWNESS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    limit * slowness
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn all_are_done_and_a_failure_stops_the_rest() {
        let done = Mutex::new(Vec::new());
        let all: Vec<usize> = (0..100).collect();
        side_by_side(&all, |number| {
            done.lock().unwrap().push(*number);
            Ok(())
        })
        .unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, all);
        let begun = AtomicUsize::new(0);
        let failed = side_by_side(&all, |number| {
            begun.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
            if *number == 5 { bail!("five") } else { Ok(()) }
        });
        assert_eq!(failed.unwrap_err().to_string(), "five");
        assert!(begun.into_inner() < 50);
    }
}

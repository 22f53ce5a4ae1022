//! Ctrl-C and SIGTERM for programs that clean up: what takes long asks between two steps whether to go on, and the way back
//! through every `Drop` does the rest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on these signals are noted and do not end the program.
///
/// # Errors
/// When the handlers cannot be set.
pub fn listen() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Whether to go on.
///
/// # Errors
/// After one of the signals.
pub fn check() -> Result<()> {
    if INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
        bail!("interrupted");
    }
    Ok(())
}

/// Sleeps, in pieces.
///
/// # Errors
/// After one of the signals.
pub fn sleep(length: std::time::Duration) -> Result<()> {
    let started = std::time::Instant::now();
    loop {
        check()?;
        let left = length.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(std::time::Duration::from_millis(100)));
    }
}

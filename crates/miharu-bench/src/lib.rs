//! What is measured: every parser and the encoder, on the recorded hosts of `miharu-e2e/fixtures`.
//!
//! `benches/micro.rs` measures these in time, the program `bench-micro` in instructions; `make bench-micro` runs both.
#![forbid(unsafe_code)]

mod cgroups;
mod encoder;
mod processes;
mod recording;

use anyhow::Result;

/// One thing that is measured.
pub struct Case {
    /// Its name: what is done, and to what.
    pub name: &'static str,
    run: Box<dyn Fn()>,
}

impl Case {
    fn new<T>(name: &'static str, work: impl Fn() -> T + 'static) -> Self {
        Self { name, run: Box::new(move || drop(std::hint::black_box(work()))) }
    }

    /// Does it once.
    pub fn run(&self) {
        (self.run)();
    }
}

/// Everything that is measured, in the order of the tables.
///
/// # Errors
/// When a recorded file cannot be read.
pub fn cases() -> Result<Vec<Case>> {
    let mut cases = cgroups::cases()?;
    cases.extend(processes::cases()?);
    cases.extend(encoder::cases());
    Ok(cases)
}

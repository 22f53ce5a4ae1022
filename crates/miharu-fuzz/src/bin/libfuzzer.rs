//! The target that `MIHARU_FUZZ_TARGET` names, under libFuzzer.

#![no_main]
#![allow(clippy::print_stderr, reason = "a tool for developers")]

use std::sync::OnceLock;

use miharu_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn target() -> &'static Target {
    let name = std::env::var("MIHARU_FUZZ_TARGET").unwrap_or_default();
    miharu_fuzz::find(&name).unwrap_or_else(|| {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("MIHARU_FUZZ_TARGET is '{name}', which is none of {}", known.join(", "));
        std::process::exit(2)
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.get_or_init(target).feed)(data));

//! The live tests once more, on a real cgroup v2 host: this very program runs inside the guest.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::miharud::program;
use miharu_e2e::{guest, need};

/// The test files that the guest runs.
const SUBJECTS: [&str; 14] = [
    "harness::",
    "lxc_figures::",
    "lxc_memory::",
    "lxc_lifecycle::",
    "kept::",
    "nspawn::",
    "hostile::names",
    "hostile::gone",
    "hostile::many::cgroups",
    "hostile::many::sixteen",
    "filesystems::",
    "rights::",
    "chosen::",
    "sources::",
];

/// Tests that do something in the guest alone.
const ONLY_HERE: [&str; 2] = [
    "hostile::gone::in_a_container_it_costs_its_own_alone_and_holds_no_port",
    "hostile::gone::under_the_state_of_a_runtime_it_costs_nobody_else_anything",
];

#[test]
fn the_same_tests_hold_on_a_cgroup2_host() -> Result<()> {
    need!(Qemu);
    let me = std::env::current_exe()?;
    let (miharud, miharu) = (program("miharud")?, program("miharu")?);
    let programs: Vec<&Path> = vec![&me, &miharud, &miharu];
    let name = me.file_name().context("a program without a name")?.to_string_lossy();
    // Whoever works on one subject need not wait for all of them.
    let only = std::env::var("MIHARU_E2E_SUBJECTS").ok();
    let is_wanted = |subject: &&str| only.as_deref().is_none_or(|only| only.contains(*subject));
    let subjects: Vec<&str> = SUBJECTS.into_iter().filter(is_wanted).collect();
    // `filesystems::` is in the names of hostile ones, too, which want FUSE and more time than an emulated processor has.
    let script = format!(
        "export MIHARU_E2E=require MIHARU_E2E_SLOWNESS=10 MIHARU_BIN_DIR=/usr/bin RUST_BACKTRACE=0\n\
         exec {name} --test-threads=2 --skip hostile::filesystems {}\n",
        subjects.join(" ")
    );
    let results = guest::run(&programs, &script, Duration::from_secs(900))?;
    println!("{}", results.log);
    assert_eq!(results.status, 0, "{}\n{}", results.log, results.console);
    let of_these =
        ONLY_HERE.into_iter().filter(|test| subjects.iter().any(|subject| test.starts_with(subject)));
    for test in of_these {
        assert!(results.log.contains(&format!("test {test} ... ok")), "{test} did not run:\n{}", results.log);
    }
    for subject in subjects {
        assert!(results.log.contains(&format!("test {subject}")), "{subject} did not run:\n{}", results.log);
    }
    Ok(())
}

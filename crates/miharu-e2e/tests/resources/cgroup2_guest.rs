//! What a host of cgroup version 2 does otherwise: this very program runs inside a guest.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::miharud::program;
use miharu_e2e::{guest, need};

/// The test files that the guest runs.
const SUBJECTS: [&str; 1] = ["remounted::"];

#[test]
fn the_same_holds_on_a_cgroup2_host() -> Result<()> {
    need!(Qemu);
    let me = std::env::current_exe()?;
    let (miharud, miharu) = (program("miharud")?, program("miharu")?);
    let programs: Vec<&Path> = vec![&me, &miharud, &miharu];
    let name = me.file_name().context("a program without a name")?.to_string_lossy();
    let script = format!(
        "export MIHARU_E2E=require MIHARU_E2E_SLOWNESS=10 MIHARU_BIN_DIR=/usr/bin\n\
         exec {name} --nocapture --test-threads=1 {}\n",
        SUBJECTS.join(" ")
    );
    let results = guest::run(&programs, &script, Duration::from_secs(400))?;
    println!("{}", results.log);
    assert_eq!(results.status, 0, "{}\n{}", results.log, results.console);
    for subject in SUBJECTS {
        assert!(results.log.contains(&format!("test {subject}")), "{subject} did not run:\n{}", results.log);
    }
    Ok(())
}

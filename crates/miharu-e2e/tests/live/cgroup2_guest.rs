//! The live tests once more, on a real cgroup v2 host: this very program runs inside the guest.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use miharu_e2e::{guest, need};

/// The test files that the guest runs.
const SUBJECTS: &str = "harness::";

#[test]
fn the_same_tests_hold_on_a_cgroup2_host() -> Result<()> {
    need!(Qemu);
    let me = std::env::current_exe()?;
    let live = std::env::temp_dir().join("live");
    let _ = live;
    let programs: Vec<&Path> = vec![&me];
    let name = me.file_name().unwrap().to_string_lossy();
    let script = format!(
        "export MIHARU_E2E=require MIHARU_E2E_SLOWNESS=10 MIHARU_BIN_DIR=/usr/bin RUST_BACKTRACE=0\n\
         exec {name} --test-threads=1 {SUBJECTS}\n"
    );
    let results = guest::run(&programs, &script, Duration::from_secs(300))?;
    println!("{}", results.console);
    assert_eq!(results.status, 0, "{}\n{}", results.log, results.console);
    assert!(results.log.contains("test result: ok."), "{}", results.log);
    Ok(())
}

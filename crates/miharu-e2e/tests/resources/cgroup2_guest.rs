//! What a host of cgroup version 2 does otherwise, and what only a host does with which one may do as one likes: this very program
//! runs inside a guest.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::miharud::program;
use miharu_e2e::{guest, need};

/// The test files that the guest runs.
const SUBJECTS: [&str; 2] = ["remounted::", "suspended::"];

/// What comes before the machine sleeps. Its disks would not wake up in good order, nor would its second processor: they are taken
/// out, and the disks put in again afterwards, for the results.
const BEFORE_SLEEP: &str = "umount /scratch
export TMPDIR=/tmp MIHARU_MAY_SLEEP=1
echo 0 >/sys/devices/system/cpu/cpu1/online
for disk in /sys/block/vd*; do echo 1 >\"$(realpath $disk/device/..)/remove\"; done
";
const AFTER_SLEEP: &str = "echo 1 >/sys/bus/pci/rescan
for try in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vdb ] || sleep 1; done
";

#[test]
fn the_same_holds_on_a_cgroup2_host() -> Result<()> {
    need!(Qemu);
    let me = std::env::current_exe()?;
    let (miharud, miharu) = (program("miharud")?, program("miharu")?);
    let programs: Vec<&Path> = vec![&me, &miharud, &miharu];
    let name = me.file_name().context("a program without a name")?.to_string_lossy();
    let script = format!(
        "export MIHARU_E2E=require MIHARU_E2E_SLOWNESS=10 MIHARU_BIN_DIR=/usr/bin status=0\n\
         {name} --nocapture --test-threads=1 remounted:: || status=$?\n\
         {BEFORE_SLEEP}{name} --nocapture --test-threads=1 suspended:: || status=$?\n\
         {AFTER_SLEEP}exit $status\n",
    );
    let results = guest::run(&programs, &script, Duration::from_secs(400))?;
    println!("{}", results.log);
    assert_eq!(results.status, 0, "{}\n{}", results.log, results.console);
    for subject in SUBJECTS {
        assert!(results.log.contains(&format!("test {subject}")), "{subject} did not run:\n{}", results.log);
    }
    Ok(())
}

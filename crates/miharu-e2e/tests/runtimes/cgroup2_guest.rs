//! podman on a real cgroup v2 host, with crun: this very program runs inside the guest, and there a rootless podman, too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::miharud::program;
use miharu_e2e::{guest, need};

/// The tests that the guest runs.
const SUBJECTS: [&str; 2] = ["podman::", "rootless::"];

/// What podman needs beside the programs of every guest.
const PROGRAMS: [&str; 7] = ["podman", "conmon", "crun", "newuidmap", "newgidmap", "setpriv", "tar"];

/// An ordinary user who may map users of its own, and podman's policy, without which it imports nothing.
const FILES: &str = "echo 'mhu:x:1000:1000::/home/mhu:/bin/sh' >>/etc/passwd\necho 'mhu:x:1000:' >>/etc/group\n\
    echo 'mhu:100000:65536' >/etc/subuid\ncp /etc/subuid /etc/subgid\nchmod u+s /usr/bin/newuidmap /usr/bin/newgidmap\n\
    mkdir -p /etc/containers /home/mhu /run/user/1000 /var/tmp\nchmod 1777 /var/tmp\nchown 1000:1000 /home/mhu /run/user/1000\n\
    echo '{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}' >/etc/containers/policy.json\n";

#[test]
fn podman_with_crun_and_rootless_podman_hold_on_a_cgroup2_host() -> Result<()> {
    need!(Qemu, Podman);
    let me = std::env::current_exe()?;
    let mut programs = vec![me.clone(), program("miharud")?, program("miharu")?];
    for program in PROGRAMS {
        programs.push(guest::find(program).with_context(|| format!("{program} is not installed"))?);
    }
    let programs: Vec<&Path> = programs.iter().map(PathBuf::as_path).collect();
    let name = me.file_name().context("a program without a name")?.to_string_lossy();
    let script = format!(
        "{FILES}export MIHARU_E2E=require MIHARU_E2E_SLOWNESS=10 MIHARU_BIN_DIR=/usr/bin RUST_BACKTRACE=0\n\
         exec {name} --test-threads=2 {}\n",
        SUBJECTS.join(" ")
    );
    let results = guest::run(&programs, &script, Duration::from_secs(900))?;
    println!("{}", results.log);
    assert_eq!(results.status, 0, "{}", results.console);
    for subject in SUBJECTS {
        assert!(results.log.contains(&format!("test {subject}")), "{subject} did not run:\n{}", results.log);
    }
    Ok(())
}

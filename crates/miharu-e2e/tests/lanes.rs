//! `scripts/lanes.sh`, which runs the test programs of `make test`: what dies, fails or hangs is never taken for what passed.
#![allow(clippy::disallowed_methods, reason = "driving the script from outside")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure here is a failed test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use miharu_e2e::scratch;

/// Its exit status, what it said, and what it reported, of test programs that are scripts of these names, with so many seconds for each.
fn run(limit: u32, programs: &[(&str, &str)]) -> Result<(Option<i32>, String, String)> {
    let home = scratch::dir("lanes")?;
    let (folder, report) = (home.join("programs"), home.join("report"));
    fs::create_dir(&folder)?;
    for (name, script) in programs {
        fs::write(folder.join(name), script)?;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/lanes.sh");
    let output = Command::new(script)
        .args([&folder, &report])
        .env("MIHARU_TEST_LANES", "2")
        .env("MIHARU_TEST_LIMIT", limit.to_string())
        .env("LC_ALL", "C")
        .output()?;
    let said = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code(), said, fs::read_to_string(report)?))
}

fn ok(passed: usize) -> String {
    format!("echo 'test result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'\n")
}

/// Counts as `scripts/test.sh` does: passed and failed.
fn counted(report: &str) -> (usize, usize) {
    let results = report.lines().filter(|line| line.starts_with("test result:"));
    let fields = results.map(|line| line.split(' ').collect::<Vec<_>>());
    fields.fold((0, 0), |(passed, failed), fields| {
        (passed + fields[3].parse::<usize>().unwrap(), failed + fields[5].parse::<usize>().unwrap())
    })
}

#[test]
fn programs_that_pass_run_beside_each_other_and_are_told_in_one_piece() -> Result<()> {
    // Each waits for the other one, and would wait in vain if it came after it.
    let meet = |mine: &str, other: &str| {
        format!(
            "echo {mine} begins; touch \"${{BASH_SOURCE%/*}}/met-{mine}\"; until [ -e \"${{BASH_SOURCE%/*}}/met-{other}\" ]; do sleep 0.1; done; echo {mine} ends\n{}",
            ok(2)
        )
    };
    let (status, said, report) = run(
        300,
        &[
            ("live-0123456789abcdef", &meet("live", "vms")),
            ("vms-0123456789abcdef", &meet("vms", "live")),
            ("other-0123456789abcdef", &ok(3)),
        ],
    )?;
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(counted(&report), (7, 0), "{report}");
    for name in ["live", "vms"] {
        let whole =
            format!("     Running {name}-0123456789abcdef\n{name} begins\n{name} ends\ntest result: ok. 2");
        assert!(report.contains(&whole) && said.contains(&whole), "{said}");
    }
    Ok(())
}

#[test]
fn what_fails_dies_or_hangs_is_a_failure_that_says_so() -> Result<()> {
    let failed = "echo 'test result: FAILED. 3 passed; 2 failed; 0 ignored'; exit 101";
    for (limit, script, how, counts) in [
        (300, failed.to_owned(), "failed with status 101 after ", (3, 2)),
        (300, "kill -ABRT $$".to_owned(), "was ended by signal ABRT after ", (0, 1)),
        (300, "kill -KILL $$".to_owned(), "was ended by signal KILL after ", (0, 1)),
        (300, "exit 0".to_owned(), "told no result", (0, 1)),
        // It has passed, and does not end well.
        (300, format!("{}kill -SEGV $$", ok(4)), "was ended by signal SEGV after ", (4, 1)),
        (
            10,
            "sleep 1000 & wait".to_owned(),
            "had not ended after 10 s (MIHARU_TEST_LIMIT) and was stopped",
            (0, 1),
        ),
    ] {
        let (status, said, report) = run(limit, &[("bad-0123456789abcdef", &script), ("good", &ok(1))])?;
        assert_eq!(status, Some(1), "{script}: {said}");
        assert_eq!(counted(&report), (counts.0 + 1, counts.1), "{script}: {report}");
        assert!(report.contains(&format!("\ntest: bad {how}")), "{script}: {report}");
        assert!(report.contains("\ntest: good took "), "{script}: {report}");
    }
    Ok(())
}

//! Whole expositions of recorded hosts, compared with golden files. `MIHARU_BLESS=1` writes them anew, after which the difference
//! wants to be read. The trees are made by `record` (see `src/bin/record.rs`).

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;
use miharu_e2e::{Exposition, Miharud};

/// Families of instances that are of this moment, not of the recording.
const MOMENTARY: [&str; 2] = ["incus_time_seconds", "incus_instance_scrape_duration_seconds"];

/// The families of instances, as far as the recording alone decides about them.
fn recorded(text: &str) -> String {
    let exposition = Exposition::parse(text).unwrap();
    let of_instances = |name: &str| {
        let family = exposition.family(name);
        let named = family
            .is_some_and(|family| family.samples.iter().all(|sample| sample.labels.contains_key("name")));
        (named && !MOMENTARY.contains(&name)) || name == "incus_instances_running"
    };
    let mut golden = String::new();
    for line in text.lines() {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        let name = name.split(['{', ' ']).next().unwrap();
        if of_instances(name) {
            writeln!(golden, "{line}").unwrap();
        }
    }
    golden
}

fn compare(kind: &str) -> Result<()> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let daemon = Miharud::with(&["--root", fixtures.join(kind).to_str().unwrap()])?;
    let text = daemon.get("/1.0/metrics")?.text();
    let now = recorded(&text);
    for instance in ["u1", "u2", "n1"] {
        assert!(
            now.contains(&format!("incus_procs_total{{name=\"{instance}\"")),
            "{instance} is missing in {text}\n{}",
            daemon.log()
        );
    }
    let file = fixtures.join(format!("{kind}.prom"));
    if std::env::var_os("MIHARU_BLESS").is_some() {
        fs::write(&file, &now)?;
    }
    let golden = fs::read_to_string(&file)?;
    for (number, (now, golden)) in now.lines().zip(golden.lines()).enumerate() {
        assert_eq!(now, golden, "{}:{}", file.display(), number + 1);
    }
    assert_eq!(now.lines().count(), golden.lines().count());
    Ok(())
}

#[test]
fn a_host_of_version_1() -> Result<()> {
    compare("v1")
}

#[test]
fn a_hybrid_host() -> Result<()> {
    compare("hybrid")
}

#[test]
fn a_host_of_version_2() -> Result<()> {
    compare("v2")
}

//! Whole expositions of recorded hosts, compared with golden files. `MIHARU_BLESS=1` writes them anew, after which the difference
//! wants to be read. The trees are made by `record` (see `src/bin/record.rs`).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure here is a failed test")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use miharu_e2e::{Exposition, Miharud};
use serde_json::Value;

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
    golden(&fixtures.join(format!("{kind}.prom")), &now)?;
    let exposition = Exposition::parse(&text)?;
    let mut pages = String::new();
    for instance in ["u1", "u2", "n1"] {
        pages += &sources(&daemon, &fixtures.join(kind), instance, &exposition)?;
    }
    golden(&fixtures.join(format!("{kind}.sources")), &pages)
}

/// Compares with a golden file, line by line.
fn golden(file: &Path, now: &str) -> Result<()> {
    if std::env::var_os("MIHARU_BLESS").is_some() {
        fs::write(file, now)?;
    }
    let golden = fs::read_to_string(file)?;
    for (number, (now, golden)) in now.lines().zip(golden.lines()).enumerate() {
        assert_eq!(now, golden, "{}:{}", file.display(), number + 1);
    }
    assert_eq!(now.lines().count(), golden.lines().count());
    Ok(())
}

/// Families that are one number of one file, and what the file is called on each version.
const PLAIN: [(&str, [&str; 2]); 3] = [
    ("incus_memory_usage_bytes", ["memory.usage_in_bytes", "memory.current"]),
    ("incus_memory_peak_bytes", ["memory.max_usage_in_bytes", "memory.peak"]),
    ("incus_procs_total", ["pids.current", "pids.current"]),
];

/// The sources of an instance's figures as a page, having looked that every file is in the tree and that the plain ones hold
/// what is served.
fn sources(daemon: &Miharud, tree: &Path, instance: &str, exposition: &Exposition) -> Result<String> {
    let answer = daemon.get(&format!("/1.0/instances/{instance}/sources"))?.json()?;
    let metadata = &answer["metadata"];
    let texts = |list: &Value| -> Vec<String> {
        let each = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        each.map(|text| text.replace(tree.to_str().unwrap(), "")).collect()
    };
    let mut page = format!("{instance}\n");
    for cgroup in metadata["cgroups"].as_array().into_iter().flatten() {
        let directory = cgroup["directory"].as_str().unwrap_or_default();
        assert!(Path::new(directory).is_dir(), "{cgroup}");
        let directory = directory.replace(tree.to_str().unwrap(), "");
        writeln!(page, "  cgroup {} {directory}", cgroup["hierarchy"].as_str().unwrap_or_default())?;
    }
    for group in metadata["figures"].as_array().into_iter().flatten() {
        writeln!(
            page,
            "  {}: {}",
            group["what"].as_str().unwrap_or_default(),
            texts(&group["families"]).join(" ")
        )?;
        for from in texts(&group["from"]) {
            let is_there =
                from.starts_with("statfs of ") || tree.join(from.trim_start_matches('/')).is_file();
            assert!(is_there, "{from} is not in the recorded tree: {group}");
            writeln!(page, "    from {from}")?;
        }
        for lacks in texts(&group["lacks"]) {
            writeln!(page, "    lacks {lacks}")?;
        }
    }
    let files: Vec<String> = metadata["figures"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| texts(&group["from"]))
        .collect();
    for (family, names) in PLAIN {
        let Ok(served) = exposition.value(family, &[("name", instance)]) else { continue };
        let is_it = |path: &&String| names.iter().any(|name| path.ends_with(&format!("/{name}")));
        let file = files.iter().find(is_it).with_context(|| format!("{family} of {instance}: {files:?}"))?;
        let text = fs::read_to_string(tree.join(file.trim_start_matches('/')))?;
        assert_eq!(text.trim().parse::<f64>()?, served, "{family} of {instance} in {file}");
    }
    Ok(page)
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

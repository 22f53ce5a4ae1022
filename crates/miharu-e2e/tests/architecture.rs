//! Holds the crates' manifests to the arrows that design.md allows: who may depend on whom, and what never enters where.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failure here is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Crate, and those of ours that it may depend on.
const ARROWS: [(&str, &[&str]); 12] = [
    ("miharu-metrics", &[]),
    ("miharu-api", &[]),
    ("miharu-linux", &[]),
    ("miharu-store", &["miharu-api"]),
    ("miharu-instances", &["miharu-linux"]),
    ("miharu-collect", &["miharu-instances", "miharu-linux", "miharu-metrics", "miharu-api"]),
    (
        "miharu-daemon",
        &["miharu-collect", "miharu-instances", "miharu-metrics", "miharu-api", "miharu-store"],
    ),
    ("miharu-cli", &["miharu-api"]),
    ("miharu-agent", &["miharu-api", "miharu-linux"]),
    ("miharu-bench", &["miharu-linux", "miharu-metrics"]),
    (
        "miharu-fuzz",
        &[
            "miharu-agent",
            "miharu-collect",
            "miharu-daemon",
            "miharu-instances",
            "miharu-linux",
            "miharu-metrics",
            "miharu-store",
        ],
    ),
    // Tests may use what they test, on recorded trees.
    ("miharu-e2e", &["miharu-collect", "miharu-instances", "miharu-linux", "miharu-metrics", "miharu-api"]),
];

/// Crates of others that never enter one of ours (the table "Rooms" of design.md).
const NEVER: [(&str, &[&str]); 7] = [
    ("miharu-metrics", &["tokio", "axum", "hyper", "rustix"]),
    ("miharu-linux", &["tokio", "axum", "hyper"]),
    // hyper is a client in these two: runtimes, and the agents of Incus and LXD, answer by HTTP.
    // rusqlite reads podman's own database there.
    ("miharu-instances", &["axum"]),
    ("miharu-collect", &["axum", "rusqlite", "tower"]),
    ("miharu-api", &["tokio", "axum", "hyper", "rusqlite", "rustix"]),
    ("miharu-store", &["axum", "hyper"]),
    ("miharu-cli", &["axum", "rusqlite"]),
];

/// Every crate's name and its dependencies, those of its tests left out.
fn manifests() -> BTreeMap<String, BTreeSet<String>> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut manifests = BTreeMap::new();
    for entry in fs::read_dir(crates).unwrap() {
        let Ok(text) = fs::read_to_string(entry.unwrap().path().join("Cargo.toml")) else { continue };
        let manifest: toml::Table = text.parse().unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let tables = ["dependencies", "build-dependencies"]
            .iter()
            .filter_map(|table| manifest.get(*table)?.as_table());
        manifests.insert(name, tables.flat_map(|table| table.keys().cloned()).collect());
    }
    manifests
}

#[test]
fn our_crates_depend_on_each_other_only_as_the_design_allows() {
    let manifests = manifests();
    assert!(manifests.len() >= 9, "{manifests:?}");
    for (name, dependencies) in &manifests {
        let (_, allowed) =
            ARROWS.iter().find(|(one, _)| one == name).unwrap_or_else(|| panic!("{name} has no room"));
        for dependency in dependencies.iter().filter(|dependency| dependency.starts_with("miharu-")) {
            assert!(allowed.contains(&dependency.as_str()), "{name} may not depend on {dependency}");
        }
    }
}

#[test]
fn what_a_crate_must_never_know_is_not_among_its_dependencies() {
    let manifests = manifests();
    for (name, never) in NEVER {
        let dependencies = &manifests[name];
        for dependency in never {
            assert!(!dependencies.contains(*dependency), "{name} may not depend on {dependency}");
        }
    }
}

#[test]
fn every_crate_forbids_unsafe_code_and_takes_the_workspace_lints() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in manifests().keys() {
        let dir = crates.join(name);
        let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} takes no workspace lints");
        let roots: Vec<_> = ["src/lib.rs", "src/main.rs"]
            .iter()
            .filter_map(|root| fs::read_to_string(dir.join(root)).ok())
            .collect();
        assert!(!roots.is_empty(), "{name} has neither lib.rs nor main.rs");
        let wanted = if name == "miharu-linux" { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        for root in roots {
            assert!(root.contains(wanted), "{name} lacks {wanted}");
        }
    }
}

#[test]
fn no_library_names_the_kernels_folders_outside_the_roots() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seen = 0;
    for name in [
        "miharu-linux",
        "miharu-instances",
        "miharu-collect",
        "miharu-daemon",
        "miharu-metrics",
        "miharu-store",
    ] {
        visit(&crates.join(name).join("src"), &mut |path, text| {
            seen += 1;
            if path.ends_with("roots.rs") || path.file_name().is_some_and(|file| file == "tests.rs") {
                return;
            }
            let code = text.split("#[cfg(test)]").next().unwrap();
            for (number, line) in code.lines().enumerate() {
                let line = line.trim_start();
                let literal = ["\"/proc", "\"/sys/", "\"/sys\""].iter().any(|literal| line.contains(literal));
                assert!(line.starts_with("//") || !literal, "{}:{}: {line}", path.display(), number + 1);
            }
        });
    }
    assert!(seen > 20, "{seen} files");
}

fn visit(dir: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

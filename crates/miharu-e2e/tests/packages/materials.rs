//! What the packages say that they are made of, held to what cargo links and to what is in the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use miharu_e2e::{need, scratch, shell};
use serde_json::Value;

use super::{built, of};

/// Where the sources of this tree are.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// `NAME@VERSION` of every crate that cargo links into these programs, and of none that only helps to build them.
fn linked(programs: &[&str]) -> Result<BTreeSet<String>> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args([
        "tree",
        "--locked",
        "--offline",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    command.args(["-e", "normal,no-proc-macro", "--target", "x86_64-unknown-linux-gnu"]);
    command.args(programs.iter().flat_map(|program| ["-p", program]));
    let said = shell::output(&mut command)?;
    let crates = said.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some(format!("{}@{}", words.next()?, words.next()?.strip_prefix('v')?))
    });
    Ok(crates.collect())
}

/// The checksums of the lock file, by `NAME@VERSION`.
fn checksums() -> Result<BTreeMap<String, String>> {
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock"))?.parse()?;
    let text = |package: &toml::Value, key| Some(package.get(key)?.as_str()?.to_owned());
    let packages = lock["package"].as_array().context("no packages are locked")?;
    let sums = packages.iter().filter_map(|package| {
        let name = format!("{}@{}", text(package, "name")?, text(package, "version")?);
        Some((name, text(package, "checksum")?))
    });
    Ok(sums.collect())
}

fn text<'a>(component: &'a Value, pointer: &str) -> &'a str {
    component.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Runs grep over files.
fn search(arguments: &[&str], files: &[PathBuf]) -> Result<String> {
    shell::output(Command::new("grep").args(arguments).arg("--").args(files))
}

/// `NAME@VERSION` of the crates whose sources a program names, which it does where it may panic.
fn traces(programs: &[PathBuf]) -> Result<BTreeSet<String>> {
    let pattern = r"/registry/src/[^/]+/[A-Za-z0-9_-]+-[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*/";
    let said = search(&["-aohE", "-e", pattern], programs)?;
    let crates = said.lines().filter_map(|line| {
        let folder = line.trim_end_matches('/').rsplit('/').next()?;
        // The version begins behind the first hyphen that a digit follows: `ring-0.17.14`.
        let at = folder.match_indices('-').find(|(at, _)| {
            folder.get(at + 1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })?;
        Some(format!("{}@{}", folder.get(..at.0)?, folder.get(at.0 + 1..)?))
    });
    Ok(crates.collect())
}

#[test]
fn the_bill_of_materials_names_what_is_in_the_programs() -> Result<()> {
    need!(Packages);
    let checksums = checksums()?;
    let cases: [(&str, &[&str], &[&str], usize); 2] = [
        ("miharu", &["miharu-daemon", "miharu-cli"], &["usr/sbin/miharud", "usr/bin/miharu"], 20),
        // Released, it names nearly no file.
        ("miharu-agent", &["miharu-agent"], &["usr/sbin/miharu-agent"], 1),
    ];
    for (package, crates, programs, at_least) in cases {
        let dir = scratch::dir("materials")?;
        shell::run("dpkg-deb", ["-x".as_ref(), of(built()?, package).as_os_str(), dir.as_os_str()])?;
        let bill = fs::read(dir.join(format!("usr/share/doc/{package}/sbom.cdx.json")))?;
        let bill: Value = serde_json::from_slice(&bill)?;
        assert_eq!(
            (text(&bill, "/bomFormat"), text(&bill, "/metadata/component/name")),
            ("CycloneDX", package)
        );
        let components = bill["components"].as_array().context("no components")?;
        let name = |part: &Value| format!("{}@{}", text(part, "/name"), text(part, "/version"));
        let (registered, other): (Vec<&Value>, Vec<&Value>) =
            components.iter().partition(|part| text(part, "/purl").starts_with("pkg:cargo/"));

        let required = registered.iter().filter(|part| text(part, "/scope") == "required");
        let required: BTreeSet<String> = required.map(|part| name(part)).collect();
        assert_eq!(required, linked(crates)?, "crates of {package}");
        for part in &registered {
            let ours = text(part, "/name").starts_with("miharu-");
            assert!(!text(part, "/licenses/0/expression").is_empty(), "the licence of {}", name(part));
            let told = part.pointer("/hashes/0/content").and_then(Value::as_str);
            assert_eq!(
                told,
                checksums.get(&name(part)).map(String::as_str),
                "the checksum of {}",
                name(part)
            );
            assert_eq!(told.is_none(), ours, "the checksum of {}", name(part));
        }

        let programs: Vec<_> = programs.iter().map(|program| dir.join(program)).collect();
        let found = traces(&programs)?;
        assert!(found.len() >= at_least, "{package} names only {found:?}");
        // What macros write into a program has their name.
        let told: BTreeSet<String> = registered.iter().map(|part| name(part)).collect();
        let missing: Vec<_> = found.difference(&told).collect();
        assert!(missing.is_empty(), "{package} has {missing:?}, which its bill of materials does not name");

        // What no registry of Rust knows is there by its own version, too.
        for part in other {
            if ["SQLite", "uPlot"].contains(&text(part, "/name")) {
                search(&["-aqF", "-e", text(part, "/version")], &programs)
                    .with_context(|| format!("{} is not in {package}", name(part)))?;
            }
        }
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

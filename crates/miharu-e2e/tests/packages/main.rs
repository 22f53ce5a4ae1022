//! The Debian packages, on a clean Debian: what they bring, what they leave, and the service under a real systemd.
#![allow(clippy::print_stdout, reason = "showing what the scripts said")]
#![allow(clippy::disallowed_methods, reason = "cargo and grep are asked what is in the packages")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure here is a failed test")]

mod materials;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::{debian, need, scratch, shell};

const CHECKS: &str = include_str!("checks.sh");

/// Fails with what was said unless every check of a script held, and there were at least so many.
fn all_held(said: &str, at_least: usize) {
    println!("{said}");
    let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("FAILED: ")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let held = said.lines().filter(|line| line.starts_with("ok: ")).count();
    assert!(held >= at_least, "only {held} checks were made");
}

/// The packages of this tree, made once for all tests.
fn built() -> Result<&'static [PathBuf]> {
    static BUILT: OnceLock<Result<Vec<PathBuf>, String>> = OnceLock::new();
    let make = || scratch::dir("deb").and_then(|dir| debian::packages(&dir, None));
    let built = BUILT.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// The package of that name among these.
fn of(packages: &[PathBuf], name: &str) -> PathBuf {
    let is_it =
        |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{name}_"));
    packages.iter().find(is_it).unwrap().clone()
}

#[test]
fn the_same_tree_gives_the_same_bytes_and_lintian_has_nothing_to_say() -> Result<()> {
    need!(Packages);
    let packages = built()?;
    assert_eq!(packages.len(), 2, "{packages:?}");
    for (one, other) in packages.iter().zip(debian::packages(&scratch::dir("deb")?, None)?) {
        assert_eq!(one.file_name(), other.file_name());
        assert!(fs::read(one)? == fs::read(&other)?, "{} is another one the second time", one.display());
    }
    let lintian = |path: &Path| {
        let args = ["--allow-root", "--fail-on=error,warning", "--tag-display-limit=0"];
        shell::run("lintian", args.map(AsRef::as_ref).into_iter().chain([path.as_os_str()]))
    };
    for package in packages {
        let said = lintian(package)?;
        assert_eq!(said.trim(), "", "lintian on {}", package.display());
    }
    Ok(())
}

#[test]
fn it_installs_upgrades_and_leaves_nothing() -> Result<()> {
    need!(Packages, Containers);
    let old = debian::packages(&scratch::dir("deb")?, Some("0.0.9-1"))?;
    let new = built()?;
    let files = [of(&old, "miharu"), of(new, "miharu"), of(new, "miharu-agent")];
    let said = debian::enter(&files, &format!("{CHECKS}\n{}", include_str!("install.sh")));
    // A script that failed has said why in the error.
    all_held(&said.map_err(|error| anyhow::anyhow!("{error:#}"))?, 100);
    Ok(())
}

#[test]
fn the_service_does_its_work_under_systemd() -> Result<()> {
    need!(Packages, Qemu);
    let packages = built()?;
    let script = format!("{CHECKS}\n{}", include_str!("service.sh"));
    let (status, said) =
        debian::boot(packages, &script, Duration::from_secs(600)).context("a machine with systemd")?;
    all_held(&said, 50);
    assert_eq!(status, 0, "{said}");
    Ok(())
}

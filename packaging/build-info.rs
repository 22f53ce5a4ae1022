//! The build script of the three programs: says what they were built from, for `--version` and `miharu version --verbose`.
//!
//! A release knows its commit. A development build does not, as every commit would else build it anew.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it speaks to cargo by its output, and asks git and the compiler; nothing of it is in a program"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the versions of these libraries tell about a program: its TLS, its database.
const LIBRARIES: [&str; 3] = ["rustls", "ring", "rusqlite"];

fn main() {
    let variable = |name| env::var(name).unwrap_or_default();
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    println!("cargo::rerun-if-changed={}", root.join("packaging/build-info.rs").display());
    println!("cargo::rerun-if-env-changed=MIHARU_COMMIT");
    let commit = match env::var("MIHARU_COMMIT") {
        // Whoever builds from an archive without git can tell it.
        Ok(commit) => commit,
        Err(_) if variable("PROFILE") == "release" => commit(&root).unwrap_or_default(),
        Err(_) => String::new(),
    };
    let version = variable("CARGO_PKG_VERSION");
    let text = if commit.is_empty() { version } else { format!("{version} ({commit})") };
    for (name, value) in [
        ("MIHARU_VERSION", text.as_str()),
        ("MIHARU_COMMIT", &commit),
        ("MIHARU_RUSTC", &output(Command::new(variable("RUSTC")).arg("--version")).unwrap_or_default()),
        ("MIHARU_TARGET", &variable("TARGET")),
        ("MIHARU_PROFILE", &variable("PROFILE")),
        ("MIHARU_LIBRARIES", &libraries(&root.join("Cargo.lock"))),
    ] {
        println!("cargo::rustc-env={name}={value}");
    }
}

/// The commit of this tree, with a `+` behind it where files differ from it.
fn commit(root: &Path) -> Option<String> {
    // An archive that was unpacked inside another repository is not of that one's commit.
    if !root.join(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| output(Command::new("git").arg("-C").arg(root).args(arguments));
    for file in ["HEAD", "logs/HEAD"] {
        let path = root.join(git(&["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"])
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `NAME VERSION` of each of [`LIBRARIES`], from the lock file, with commas between.
fn libraries(lock: &Path) -> String {
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(lock).unwrap_or_default();
    let version = |library: &&str| {
        let (_, rest) = text.split_once(&format!("name = \"{library}\"\nversion = \""))?;
        Some(format!("{library} {}", rest.split_once('"')?.0))
    };
    LIBRARIES.iter().filter_map(version).collect::<Vec<_>>().join(", ")
}

//! Files of the recorded hosts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The file `path` of the recorded host `kind` (`v1`, `v2`).
pub(crate) fn file(kind: &str, path: &str) -> Result<Vec<u8>> {
    let path = root(kind).join(path);
    fs::read(&path).with_context(|| path.display().to_string())
}

/// The longest of the files `name` that the recorded host has, one a process.
pub(crate) fn longest_of_processes(kind: &str, name: &str) -> Result<Vec<u8>> {
    let proc = root(kind).join("proc");
    let processes = fs::read_dir(&proc).with_context(|| proc.display().to_string())?;
    let texts = processes.filter_map(|process| fs::read(process.ok()?.path().join(name)).ok());
    texts.max_by_key(Vec::len).with_context(|| format!("no {name} in {}", proc.display()))
}

fn root(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../miharu-e2e/fixtures").join(kind)
}

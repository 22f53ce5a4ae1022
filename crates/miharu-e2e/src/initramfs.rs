//! What the guests' kernel unpacks as its first root.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::need::cache;
use crate::shell;

/// Puts modules, and those that they need, into `dir`, with their order in a file `order`.
///
/// # Errors
/// When the kernel of the cache lacks one.
pub fn modules(kernel: &Path, modules: &[&str], dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let name = kernel.file_name().context("kernel")?.to_string_lossy().into_owned();
    let version = name.trim_start_matches("vmlinuz-");
    let tree = cache().join("kernel");
    if !tree.join("lib/modules").join(version).join("modules.dep.bin").exists() {
        shell::run("depmod", ["-b".as_ref(), tree.as_os_str(), version.as_ref()])?;
    }
    let mut order: Vec<String> = Vec::new();
    for module in modules {
        let args = [
            "-d".as_ref(),
            tree.as_os_str(),
            "-S".as_ref(),
            version.as_ref(),
            "--show-depends".as_ref(),
            module.as_ref(),
        ];
        for line in shell::run("modprobe", args)?.lines() {
            let Some(path) =
                line.strip_prefix("insmod ").and_then(|rest| rest.split(' ').next()).map(Path::new)
            else {
                continue;
            };
            let file = path.file_name().context("a module without a name")?.to_string_lossy().into_owned();
            if !order.contains(&file) {
                fs::copy(path, dir.join(&file))?;
                order.push(file);
            }
        }
    }
    fs::write(dir.join("order"), order.join("\n"))?;
    Ok(())
}

/// Packs `dir` with this `/init`.
///
/// # Errors
/// When cpio fails.
pub fn pack(dir: &Path, init: &str, to: &Path) -> Result<()> {
    executable(&dir.join("init"), init)?;
    let list = shell::output(Command::new("find").arg(".").current_dir(dir))?;
    let mut cpio = Command::new("cpio")
        .args(["-o", "-H", "newc", "--quiet"])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(to)?)
        .spawn()
        .context("cpio")?;
    cpio.stdin.take().context("cpio's input")?.write_all(list.as_bytes())?;
    if !cpio.wait()?.success() {
        bail!("cpio failed");
    }
    Ok(())
}

/// Writes a script.
///
/// # Errors
/// When the file cannot be written.
pub fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

//! The smallest root file system that a container boots from: a static busybox and its applets.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

/// The init of test containers: it reaps, it ends on any of the signals that runtimes send, and it does nothing by itself.
const INIT: &str = "#!/bin/sh\ntrap 'exit 0' TERM INT PWR USR1\nwhile :; do sleep 1000 & wait $!; done\n";

/// The applets that tests use inside.
const APPLETS: [&str; 24] = [
    "sh", "sleep", "cat", "ls", "ps", "dd", "ip", "mount", "umount", "mkdir", "rm", "df", "ping", "nc",
    "seq", "head", "sync", "wc", "kill", "echo", "mknod", "stat", "tail", "hostname",
];

/// Makes the tree in `dir`, which may exist and be empty.
///
/// # Errors
/// When there is no static busybox, or the tree cannot be written.
pub fn make(dir: &Path) -> Result<()> {
    for sub in ["bin", "dev", "etc", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var"] {
        fs::create_dir_all(dir.join(sub)).with_context(|| dir.display().to_string())?;
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).context("/bin/busybox")?;
    for applet in APPLETS {
        symlink("busybox", dir.join("bin").join(applet))?;
    }
    fs::write(dir.join("sbin/init"), INIT)?;
    fs::set_permissions(dir.join("sbin/init"), fs::Permissions::from_mode(0o755))?;
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(dir.join("etc/group"), "root:x:0:\n")?;
    // systemd-nspawn takes a tree for a root only with this file in it.
    fs::write(dir.join("etc/os-release"), "ID=busybox\n")?;
    Ok(())
}

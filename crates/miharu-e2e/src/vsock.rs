//! A virtio vsock device without the host kernel's help: `vhost-device-vsock`, by which a guest's ports are reached on the
//! host through a unix socket.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::need::cache;
use crate::scratch::{self, Entry, Note};
use crate::shell;

/// A running device, killed on drop.
#[derive(Debug)]
pub struct Vsock {
    /// The host's end of all ports.
    pub uds: PathBuf,
    control: PathBuf,
    child: Child,
    _note: Note,
}

impl Vsock {
    /// Starts one for one machine.
    ///
    /// # Errors
    /// When it does not start; the error carries its log.
    pub fn start() -> Result<Self> {
        let dir = scratch::dir("vsock")?;
        let (uds, control) = (dir.join("uds.sock"), dir.join("control.sock"));
        let log = fs::File::create(dir.join("log"))?;
        let child = Command::new(program()?)
            .arg("--vm")
            .arg(format!("guest-cid=42,uds-path={},socket={}", uds.display(), control.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("vhost-device-vsock")?;
        let note = Entry::Process(child.id()).note()?;
        let device = Self { uds, control, child, _note: note };
        shell::wait_for("vhost-device-vsock", Duration::from_secs(30), || {
            device.control.exists().then_some(())
        })
        .with_context(|| fs::read_to_string(dir.join("log")).unwrap_or_default())?;
        Ok(device)
    }

    /// QEMU's arguments for it; the memory, whose size has to be the machine's, is shared with it.
    #[must_use]
    pub fn arguments(&self, memory: &str) -> Vec<String> {
        [
            "-object",
            &format!("memory-backend-memfd,id=mem0,size={memory},share=on"),
            "-machine",
            "memory-backend=mem0",
            "-chardev",
            &format!("socket,id=vsock0,path={}", self.control.display()),
            "-device",
            "vhost-user-vsock-pci,chardev=vsock0",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program as `scripts/setup.sh` built it.
///
/// # Errors
/// When it is not there.
pub fn program() -> Result<PathBuf> {
    let path = cache().join("vhost-device-vsock/bin/vhost-device-vsock");
    path.is_file()
        .then_some(path)
        .context("no vhost-device-vsock in target/e2e-cache: run scripts/setup.sh test")
}

//! A real systemd-machined with a system bus of its own, in a mount namespace that hides the machine's bus. Only
//! `/run/systemd/machines`, where miharud looks for records, is the host's, so that a host with a machined is no place for it.
//!
//! machined needs no systemd to register a machine that has a cgroup already; to make a scope for one it would ask PID 1, which is
//! systemd on no machine that tests run on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::scratch::{self, Entry, Note};
use crate::shell;

/// Where Debian has it.
const PROGRAM: &str = "/lib/systemd/systemd-machined";

/// Where machined keeps a record of each machine.
const RECORDS: &str = "/run/systemd/machines";

/// A bus on which everybody may say everything, as only root is in that namespace.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_destination="*"/>
<allow receive_sender="*"/></policy></busconfig>
"#;

/// A running machined; it and its bus are killed on drop.
#[derive(Debug)]
pub struct Machined {
    home: PathBuf,
    bus: Child,
    daemon: Child,
    _notes: [Note; 2],
}

impl Machined {
    /// Why none can run here, where that is so.
    #[must_use]
    pub fn lacking() -> Option<String> {
        if !Path::new(PROGRAM).exists() {
            return Some("systemd-machined is not installed".to_owned());
        }
        let is_booted = Path::new("/run/systemd/system").is_dir();
        is_booted.then(|| "systemd runs here, and with it a machined of its own".to_owned())
    }

    /// Starts one.
    ///
    /// # Errors
    /// When it does not come up; the error carries its log.
    pub fn start() -> Result<Self> {
        let home = scratch::dir("machined")?;
        fs::write(home.join("bus.conf"), BUS)?;
        fs::create_dir_all("/run/dbus")?;
        fs::create_dir_all(RECORDS)?;
        let log = fs::File::create(home.join("log"))?;
        let line = format!(
            "mount -t tmpfs none /run/dbus && exec dbus-daemon --nofork --config-file={}/bus.conf",
            home.display()
        );
        let bus = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "/bin/sh", "-c", &line])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .context("dbus-daemon")?;
        let of_bus = Entry::Process(bus.id()).note()?;
        let inside = ["-t", &bus.id().to_string(), "-m"].map(str::to_owned);
        let socket = PathBuf::from(format!("/proc/{}/root/run/dbus/system_bus_socket", bus.id()));
        shell::wait_for("the bus", Duration::from_secs(15), || socket.exists().then_some(()))
            .with_context(|| fs::read_to_string(home.join("log")).unwrap_or_default())?;
        let daemon = Command::new("nsenter")
            .args(&inside)
            .arg(PROGRAM)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("systemd-machined")?;
        let of_daemon = Entry::Process(daemon.id()).note()?;
        let machined = Self { home, bus, daemon, _notes: [of_bus, of_daemon] };
        shell::wait_for("machined", Duration::from_secs(15), || machined.list().ok().map(|_| ()))
            .with_context(|| fs::read_to_string(machined.home.join("log")).unwrap_or_default())?;
        Ok(machined)
    }

    /// What machined lists, as busctl prints it: `machinectl` itself wants systemd for PID 1.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn list(&self) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.args(self.inside()).args(["busctl", "--timeout=5", "call", "org.freedesktop.machine1"]);
        command.args(["/org/freedesktop/machine1", "org.freedesktop.machine1.Manager", "ListMachines"]);
        shell::output(&mut command)
    }

    /// The record of a machine.
    ///
    /// # Errors
    /// When there is none.
    pub fn record(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(Path::new(RECORDS).join(name))?)
    }

    /// What `nsenter` is given to see its bus.
    #[must_use]
    pub fn inside(&self) -> [String; 3] {
        ["-t".to_owned(), self.bus.id().to_string(), "-m".to_owned()]
    }
}

impl Drop for Machined {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.bus] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

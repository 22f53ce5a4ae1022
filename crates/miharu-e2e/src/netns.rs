//! Network namespaces of tests, so that no interface or address of the machine itself is touched.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::scratch::{Entry, Note, unique};
use crate::shell;

/// A namespace made by `ip netns add`, deleted on drop.
#[derive(Debug)]
pub struct Netns {
    /// Its name.
    pub name: String,
    _note: Note,
}

impl Netns {
    /// Makes one, with its `lo` up.
    ///
    /// # Errors
    /// When `ip` cannot.
    pub fn create() -> Result<Self> {
        let name = unique("mh");
        let note = Entry::Netns(&name).note()?;
        shell::run("ip", ["netns", "add", &name])?;
        shell::run("ip", ["-n", &name, "link", "set", "lo", "up"])?;
        Ok(Self { name, _note: note })
    }

    /// The file that keeps it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside it. Only the network is another one (`ip netns exec` would hide the cgroups).
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        command
    }

    /// Runs `ip` inside it.
    ///
    /// # Errors
    /// When `ip` says so.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        shell::run("ip", ["-n", self.name.as_str()].iter().chain(args))
    }
}

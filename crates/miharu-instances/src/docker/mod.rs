//! Docker: containers of dockerd, in containerd's namespace `moby`.
//!
//! A container's cgroup is `docker-ID.scope` (systemd's manager) or `ID` (cgroupfs), wherever `--cgroup-parent` put it, and
//! its monitor a shim of containerd's. Those that cri-dockerd runs for a kubelet are the driver's of Kubernetes.

pub(crate) mod question;
pub(crate) mod record;

use std::ffi::OsStr;
use std::time::Instant;

use crate::Instance;
use crate::discovery::Warning;
use crate::driver::{Claim, Driver, Host, Renamed, Unidentified};
use crate::oci::names::Names;
use crate::oci::{self, Believed};
use crate::patience::Patience;
use crate::shim::name::{container_id, is_pod, may_be_container};
use crate::shim::{self, Shim};

use question::{Asked, Question};

/// The driver of Docker.
#[derive(Debug, Default)]
pub(crate) struct Docker {
    patience: Patience,
    names: Names,
}

impl Driver for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn claims(&self, name: &OsStr, parent: &OsStr) -> bool {
        may_be_container(name, parent)
    }

    fn identify(&mut self, host: &mut Host<'_>, claim: &Claim) -> Result<Instance, Unidentified> {
        let id = claim.path.file_name().and_then(container_id).ok_or(Unidentified::Nothing)?;
        if is_pod(&claim.path) {
            return Err(Unidentified::Nothing);
        }
        let found =
            oci::find(host, claim, Believed::System, &mut self.patience, &|line| is_shim_of(line, id))?;
        let shim = Shim::of(&found).ok_or(Unidentified::Nothing)?;
        let bundles = shim.bundle(host.roots, id);
        if !is_dockers(host, &shim, &bundles, id) {
            return Err(Unidentified::Nothing);
        }
        let question = || Box::new(Question(Asked::new(host.roots, id, bundles))) as _;
        let identity = self.names.learn(&found, claim, "docker", id, question)?;
        Ok(found.instance(claim, "docker", id.to_owned(), identity))
    }

    fn wait_for_names(&mut self, end: Instant) {
        self.names.wait(end);
    }

    fn renamed(&mut self, warnings: &mut Vec<Warning>) -> Vec<Renamed> {
        self.names.changes(warnings)
    }
}

/// Whether this is the shim of that very container: Docker never puts two under one. The first version of shims names none.
pub(crate) fn is_shim_of(command_line: &[u8], id: &str) -> bool {
    shim::command::parse(command_line)
        .is_some_and(|command| command.namespace != shim::KUBERNETES && command.id.is_none_or(|of| of == id))
}

/// Whether a container is Docker's: by containerd's namespace, or, as `--containerd-namespace` can be any, by what Docker
/// keeps of it.
pub(crate) fn is_dockers(host: &Host<'_>, shim: &Shim, bundles: &[std::path::PathBuf], id: &str) -> bool {
    match shim.command.namespace.as_str() {
        shim::DOCKER => true,
        shim::KUBERNETES => false,
        _ => question::record_of(host.roots, bundles, id).is_some(),
    }
}

#[cfg(test)]
mod tests;

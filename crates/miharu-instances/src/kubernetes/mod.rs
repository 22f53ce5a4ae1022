//! Kubernetes: the containers of pods, whether a kubelet runs them by containerd, CRI-O or, through cri-dockerd, Docker.
//!
//! A kubelet gives each pod a cgroup, `/kubepods/QOS/podUID` (cgroupfs) or
//! `/kubepods.slice/kubepods-QOS.slice/kubepods-QOS-podUID.slice` (systemd), and the runtime each container one in that: `ID`,
//! `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`. A kubelet inside a container (kind) is that container's own
//! affair, and nothing there is looked at.

pub(crate) mod cri;
pub(crate) mod pod;
mod question;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use miharu_linux::Roots;
use miharu_linux::process::arguments;

use crate::Instance;
use crate::discovery::Warning;
use crate::docker::is_shim_of;
use crate::docker::question::Asked;
use crate::driver::{Claim, Driver, Host, Renamed, Unidentified};
use crate::oci::names::{Names, Question};
use crate::oci::{self, Believed, Found, conmon};
use crate::patience::Patience;
use crate::shim::name::{container_id, is_pod, may_be_container};
use crate::shim::{self, Shim};

pub(crate) use pod::Pod;
use question::{OfCri, OfDocker};

/// Where CRI-O listens, below the directory of run-time state.
const CRIO_SOCKET: &str = "crio/crio.sock";

/// Where CRI-O keeps the bundles of running containers, unless its conmon tells another place.
const CRIO_BUNDLES: &str = "containers/storage/overlay-containers";

/// The driver of Kubernetes.
#[derive(Debug, Default)]
pub(crate) struct Kubernetes {
    patience: Patience,
    names: Names,
}

impl Driver for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn claims(&self, name: &OsStr, parent: &OsStr) -> bool {
        may_be_container(name, parent)
    }

    fn identify(&mut self, host: &mut Host<'_>, claim: &Claim) -> Result<Instance, Unidentified> {
        let id = claim.path.file_name().and_then(container_id).ok_or(Unidentified::Nothing)?;
        let is_in_pod = is_pod(&claim.path);
        let is_monitor = |line: &[u8]| match shim::command::parse(line) {
            // A shim may have several containers, all of one pod.
            Some(command) => command.namespace == shim::KUBERNETES || (is_in_pod && is_shim_of(line, id)),
            None => of_crio(line, id).is_some() || (is_in_pod && is_conmonrs(line)),
        };
        let found = oci::find(host, claim, Believed::System, &mut self.patience, &is_monitor)?;
        let identity =
            self.names.learn(&found, claim, "kubernetes", id, || question(host.roots, id, &found))?;
        Ok(found.instance(claim, "kubernetes", id.to_owned(), identity))
    }

    fn wait_for_names(&mut self, end: Instant) {
        self.names.wait(end);
    }

    fn renamed(&mut self, warnings: &mut Vec<Warning>) -> Vec<Renamed> {
        self.names.changes(warnings)
    }
}

/// What is to be asked about a container, by its monitor.
fn question(roots: &Roots, id: &str, found: &Found) -> Box<dyn Question> {
    let id = id.to_owned();
    let Some(shim) = Shim::of(found) else {
        let (name, bundle) = of_crio(&found.monitor.command_line, &id).unzip();
        let usual = || roots.run.join(CRIO_BUNDLES).join(&id).join("userdata");
        let bundle = bundle.flatten().and_then(|bundle| roots.host_path(&bundle)).unwrap_or_else(usual);
        let socket = Some(roots.run.join(CRIO_SOCKET));
        return Box::new(OfCri { id, socket, bundles: vec![bundle], name });
    };
    let bundles = shim.bundle(roots, &id);
    if shim.command.namespace != shim::KUBERNETES {
        return Box::new(OfDocker(Asked::new(roots, &id, bundles)));
    }
    let socket = shim.command.address.and_then(|address| roots.host_path(&address));
    Box::new(OfCri { id, socket, bundles, name: None })
}

/// The name that CRI-O gave container `id`, and its bundle, if this is its conmon; podman's are no containers of pods.
fn of_crio(command_line: &[u8], id: &str) -> Option<(String, Option<PathBuf>)> {
    let conmon = conmon::parse(command_line).filter(|conmon| conmon.id == id)?;
    let name = conmon.name.filter(|name| Pod::of_container_name(name).is_some())?;
    Some((name, conmon.bundle))
}

/// Whether this is the monitor that CRI-O may have for all containers of a pod, which tells nothing of them.
fn is_conmonrs(command_line: &[u8]) -> bool {
    let program = arguments(command_line).next().map(|program| Path::new(OsStr::from_bytes(program)));
    program.and_then(Path::file_name).is_some_and(|name| name == "conmonrs")
}

#[cfg(test)]
mod tests;

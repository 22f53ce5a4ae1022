//! containerd itself: the containers that `ctr` and nerdctl run, in namespaces that are neither Docker's nor Kubernetes'.
//!
//! A container's id can be any word, and its cgroup (`/NAMESPACE/ID` unless it is told otherwise) has nothing to know it by.
//! So containerd's state directory is looked at: there stands for each container which process is its init.

mod folder;
pub(crate) mod question;
mod shims;
pub(crate) mod tasks;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Instant;

use miharu_linux::Roots;
use miharu_linux::read::Buffer;

use crate::Instance;
use crate::discovery::Warning;
use crate::docker::is_dockers;
use crate::driver::{Claim, Driver, Host, Renamed, Unidentified};
use crate::oci::names::Names;
use crate::oci::{self, Believed};
use crate::patience::Patience;
use crate::shim::name::{container_id, may_be_container};
use crate::shim::{self, Shim};

use question::Question;
use tasks::Tasks;

/// What the projects of containerd's namespaces begin with.
const PREFIX: &str = "containerd";

/// The driver of containerd.
#[derive(Debug, Default)]
pub(crate) struct Containerd {
    patience: Patience,
    names: Names,
    tasks: Tasks,
}

impl Driver for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn claims(&self, name: &OsStr, parent: &OsStr) -> bool {
        // nerdctl's are known by their names, too, where a state directory cannot be seen.
        may_be_container(name, parent)
    }

    fn places(&mut self, roots: &Roots, buffer: &mut Buffer) -> Option<BTreeSet<PathBuf>> {
        self.tasks.look(roots, buffer)
    }

    fn identify(&mut self, host: &mut Host<'_>, claim: &Claim) -> Result<Instance, Unidentified> {
        let task = self.tasks.at(&claim.path).map(|task| (task.namespace.clone(), task.id.clone()));
        let is_monitor = |line: &[u8]| {
            shim::command::parse(line).is_some_and(|command| match &task {
                Some((namespace, _)) => command.namespace == *namespace,
                None => !is_others(&command.namespace),
            })
        };
        let found = oci::find(host, claim, Believed::System, &mut self.patience, &is_monitor)?;
        let shim = Shim::of(&found).ok_or(Unidentified::Nothing)?;
        let of_name = || claim.path.file_name().and_then(container_id).map(str::to_owned);
        let id = task.map(|(_, id)| id).or_else(of_name).ok_or(Unidentified::Nothing)?;
        let bundles = shim.bundle(host.roots, &id);
        if oci::is_id(id.as_bytes()) && is_dockers(host, &shim, &bundles, &id) {
            return Err(Unidentified::Nothing);
        }
        let namespace = shim.command.namespace;
        let full_id = format!("{namespace}/{id}");
        let socket = shim.command.address.and_then(|address| host.roots.host_path(&address));
        let question = || Box::new(Question::new(namespace, id.clone(), socket, bundles)) as _;
        let identity = self.names.learn(&found, claim, "containerd", &id, question)?;
        Ok(found.instance(claim, "containerd", full_id, identity))
    }

    fn wait_for_names(&mut self, end: Instant) {
        self.names.wait(end);
    }

    fn renamed(&mut self, warnings: &mut Vec<Warning>) -> Vec<Renamed> {
        self.names.changes(warnings)
    }
}

/// Whether what is in a namespace is left to another driver.
fn is_others(namespace: &str) -> bool {
    matches!(namespace, shim::DOCKER | shim::KUBERNETES)
}

#[cfg(test)]
mod tests;

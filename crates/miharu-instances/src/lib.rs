//! Who runs on this host: finds the instances of every runtime without asking a daemon and without a subprocess.
//!
//! [`Discovery`] walks the names of cgroups and lets each driver of [`drivers`] say which of them are its instances'. It
//! knows no figures. Names in cgroups and command lines may be forged by a host's users, so a driver believes a process
//! only where root, or the owner of what it speaks of, runs it.

#![forbid(unsafe_code)]

mod chosen;
mod containerd;
mod discovery;
mod docker;
mod driver;
mod failures;
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod kubernetes;
mod libvirt_lxc;
mod lxc;
mod nspawn;
mod oci;
mod patience;
mod podman;
mod qemu;
mod shim;
mod supervisor;
#[cfg(test)]
mod testing;
mod tree;
mod users;
pub mod vm;
mod walk;
mod xml;

use std::ffi::OsString;
use std::sync::Arc;

use miharu_linux::cgroup::CgroupPaths;
use miharu_linux::process::ProcDir;

pub use chosen::{Chosen, Patterns};
pub use discovery::{Discovery, Scan, Warning};
pub use driver::{Claim, Driver, DriverOptions, Host, NAMES, Renamed, Unidentified, drivers};
pub use oci::names::Identity;
pub use vm::{Channel, Owner, Vm, Vsock};

/// A running container or virtual machine.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The project, as design.md names them for each runtime.
    pub project: String,
    /// The name, once in its project and kind.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What runs it: `lxc`, `lxd`, `incus`, `nspawn`, `libvirt`, `qemu`, `podman`, `docker`, `containerd`, `kubernetes`.
    pub runtime: &'static str,
    /// What the runtime itself calls it, once on the host for that runtime and state directory.
    pub id: String,
    /// Its first process.
    pub init: Arc<ProcDir>,
    /// Its own cgroups; empty where it has none that it shares with nobody.
    pub cgroup: CgroupPaths,
    /// Tells it from every instance before and after it.
    pub incarnation: Incarnation,
    /// The last component of its directory on the host (`project_c1`), which a volume of its own would be mounted at.
    pub directory: OsString,
    /// The image that it was made of, as its runtime calls it (`docker.io/library/nginx:1.27`); `None` where runtimes have
    /// none or it is not known.
    pub image: Option<String>,
    /// Whether it only holds the namespaces of a pod: podman's infra container, Kubernetes' pause. The pod's network is its.
    pub is_sandbox: bool,
    /// What is known of it as a virtual machine; `None` of a container.
    pub vm: Option<Vm>,
}

/// What kind of instance it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Processes of the host's kernel.
    Container,
    /// A guest with a kernel of its own.
    VirtualMachine,
}

impl Kind {
    /// The `type` label, and the type in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::VirtualMachine => "virtual-machine",
        }
    }
}

/// One life of an instance, from start to stop: a pid or a name used again is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// The inode number of its cgroup's directory; 0 where it has no cgroup of its own.
    pub cgroup_inode: u64,
    /// The pid of its first process.
    pub init_pid: u32,
    /// When that process started, clock ticks after the host's boot.
    pub init_start: u64,
}

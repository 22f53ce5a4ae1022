//! What is known of a virtual machine beyond its process: what it was given, and where its guest can be asked.
//!
//! All of it is read of files that root wrote and of the command line of a process that root, or whoever runs it for
//! root, started. Paths are the host's: they go through [`miharu_linux::Roots::host_path`].

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The facts of a running virtual machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vm {
    /// Its uuid, as the runtime writes it.
    pub uuid: Option<String>,
    /// How many vCPUs it has from its start.
    pub configured_vcpus: Option<u32>,
    /// How much memory it was given, bytes.
    pub configured_memory: Option<u64>,
    /// Unix sockets of its QMP monitors that nobody else holds for good, best first.
    pub monitors: Vec<PathBuf>,
    /// The host's ends of its virtio-serial ports that are unix sockets.
    pub channels: Vec<Channel>,
    /// Its vsock device.
    pub vsock: Option<Vsock>,
    /// The directory in which Incus or LXD keep the certificates with which its agent is asked.
    pub certificates: Option<PathBuf>,
    /// What its owner calls its disks, where that is not what QEMU does: libvirt's `vda`, and QEMU's `virtio-disk0`.
    pub disk_ids: BTreeMap<String, String>,
    /// The host's network interfaces that carry its traffic.
    pub taps: Vec<String>,
    /// Who runs it.
    pub owner: Owner,
}

/// The host's end of a virtio-serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The port's name in the guest: `org.miharu.agent.0`, `org.qemu.guest_agent.0`.
    pub port: String,
    /// The unix socket on which QEMU listens.
    pub socket: PathBuf,
}

/// How a guest's vsock ports are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vsock {
    /// By `AF_VSOCK` with this context id.
    Cid(u32),
    /// By the unix socket of a vhost-user device: connect, then say `CONNECT PORT\n`.
    Unix(PathBuf),
}

/// Who runs a virtual machine, and so holds its monitor and knows its guest agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Owner {
    /// libvirt, which holds its first monitor and its guest agent's channel.
    Libvirt {
        /// The domain's name.
        domain: String,
    },
    /// Incus.
    Incus,
    /// LXD.
    Lxd,
    /// Nobody: it was started by hand or by a program that does not matter here.
    #[default]
    Nobody,
}

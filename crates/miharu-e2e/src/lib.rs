//! Tests against real runtimes, and the harness that makes one of them three lines: start a `miharud` of its own, start a
//! container, read the exposition with a strict parser. Whatever is started here is journalled in a scratch folder and is
//! stopped when its handle is dropped; what a killed run left behind is cleaned up by the next one.
#![forbid(unsafe_code)]
// The ban on subprocesses is for the daemon and its libraries; driving runtimes from outside is what this crate is for.
#![allow(clippy::disallowed_methods)]

pub mod browser;
pub mod cgroup;
pub mod clients;
pub mod cluster;
pub mod containerd;
pub mod cri;
pub mod debian;
pub mod docker;
pub mod etcd;
pub mod exposition;
pub mod fleet;
pub mod forgery;
pub mod fuse;
pub mod guest;
pub mod host_tree;
pub mod initramfs;
pub mod inside;
pub mod interrupt;
pub mod keepalive;
pub mod libvirt;
pub mod loopdev;
pub mod lxc;
pub mod lxd;
pub mod machined;
pub mod measure;
pub mod miharud;
pub mod need;
pub mod netns;
pub mod network;
pub mod nfs;
pub mod nspawn;
pub mod oci;
pub mod podman;
pub mod ports;
pub mod prometheus;
pub mod recorder;
pub mod rootfs;
pub mod scratch;
pub mod shell;
pub mod soak;
pub mod terminal;
pub mod tls;
pub mod vm;
pub mod vsock;

pub use browser::Browser;
pub use clients::Client;
pub use containerd::Containerd;
pub use cri::Cri;
pub use docker::Docker;
pub use exposition::Exposition;
pub use lxc::Lxc;
pub use miharud::Miharud;
pub use need::Need;
pub use podman::Podman;
pub use vm::Vm;

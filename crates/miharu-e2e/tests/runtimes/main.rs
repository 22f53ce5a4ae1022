//! Every runtime of a host at once: podman, Docker, containerd, systemd-nspawn, libvirt, LXC, LXD and plain QEMU beside each
//! other under one miharud. One file a subject; see `miharu_e2e` for the harness.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "driving runtimes and showing what they say"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a failure here is a failed test"
)]

mod absent;
mod cgroup2_guest;
mod chosen;
mod churn;
mod common;
mod forged;
mod names;
mod network;
mod podman;
mod pods;
mod rootless;
mod side_by_side;
mod sockets;
mod starters;
mod unusual;

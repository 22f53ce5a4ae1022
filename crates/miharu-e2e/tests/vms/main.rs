//! Tests with virtual machines, each with the host to itself: a machine's sockets have room for one client, and every miharud that
//! runs here would be one. The demo is among them, as it starts a machine, too.
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

mod agent;
mod dashboards;
mod demo;
mod host;
mod hostile;
mod libvirt;
mod qga;
mod vsock;

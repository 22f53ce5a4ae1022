//! What runs inside a virtual machine and tells the host how it does: `miharu-agent`.
//!
//! It reads the guest's own `/proc` when the host asks, over a virtio-serial port or vsock, and does nothing in between. Each source
//! of figures is a module; [`report`] puts them together, [`protocol`] says what goes over the wire, and [`virtio`] and [`vsock`] are
//! the wires. What cannot be read is absent from the answer and costs nothing else.
#![forbid(unsafe_code)]

pub mod addresses;
pub mod connection;
pub mod cpu;
pub mod disks;
pub mod filesystems;
pub mod memory;
pub mod network;
pub mod options;
pub mod pressure;
pub mod processes;
pub mod protocol;
pub mod report;
pub mod virtio;
pub mod vsock;

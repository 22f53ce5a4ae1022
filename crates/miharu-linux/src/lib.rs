//! Readers and parsers of the kernel's files: cgroup v1 and v2, `/proc`, block devices, file systems.
//!
//! A parser takes bytes and is tested with literals; a thin reader takes a [`Roots`] or an open directory. Everything
//! here is synchronous, knows nothing of HTTP, and treats what it reads as hostile: sizes are limited, nothing
//! indexes or slices text in a way that can panic.

#![deny(unsafe_code)]

pub mod addresses;
pub mod apart;
pub mod block;
pub mod capability;
pub mod cgroup;
pub mod changes;
pub mod confinement;
pub mod error;
pub mod exits;
pub mod heap;
pub mod host;
pub mod hypervisor;
pub mod kept;
pub mod links;
pub mod mount_table;
pub mod mounts;
pub mod networks;
pub mod opening;
pub mod process;
pub mod read;
pub mod resources;
pub mod roots;
pub mod socket;
pub mod statfs;
mod sys;
pub mod text;
pub mod unix_sockets;
pub mod vsock;
pub mod zfs;

pub use error::{Error, Result};
pub use roots::Roots;

//! The one module with `unsafe`: what the kernel offers and rustix does not.

#![allow(unsafe_code)]

use std::io;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketAddrAny};

use crate::statfs::Worker;
use crate::vsock::Address;

/// Starts a thread that has a descriptor table of its own, with nothing in it but standard input, output and error.
///
/// When such a thread hangs in the kernel for ever, it keeps no socket, lock or file of the daemon open, so the daemon
/// can close its ports and end.
///
/// # Errors
/// Where no thread can be started. A kernel that cannot divide the table makes the thread end at once, after it
/// has told the worker.
pub(crate) fn spawn_apart(worker: Worker) -> io::Result<()> {
    std::thread::Builder::new()
        .name("statfs".to_owned())
        .stack_size(256 << 10)
        .spawn(move || match leave_descriptor_table() {
            Ok(()) => worker.run(),
            Err(_) => worker.give_up(),
        })
        .map(drop)
}

/// Gives the calling thread an own, almost empty descriptor table: close_range(2), since Linux 5.9.
fn leave_descriptor_table() -> io::Result<()> {
    let (first, last) = (3 as libc::c_uint, libc::c_uint::MAX);
    // SAFETY: the call takes three integers and touches no memory of ours. With CLOSE_RANGE_UNSHARE the kernel gives
    // this thread a table of its own first and closes in that table only, so the descriptors of all other threads stay
    // as they are. This thread owns no descriptor that the close could take away from an owner: it is new, it runs
    // nothing but the caller's closure, and that holds a `Worker` alone, whose fields (a queue behind an `Arc`, and
    // paths) hold numbers, paths and channels, no descriptor. What it opens later it closes itself, in its own table.
    let code = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_UNSHARE) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// SAFETY: the pointer that the closure gets is that of a whole, initialised `sockaddr_vm` of this function, together with
// that structure's size; it is valid while the closure runs, and the trait asks for no more.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        // SAFETY: all fields of the structure are integers, for which all bits zero is a value.
        let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
        address.svm_family = AddressFamily::VSOCK.as_raw();
        address.svm_cid = self.cid;
        address.svm_port = self.port;
        f((&raw const address).cast(), size_of::<libc::sockaddr_vm>() as SocketAddrLen)
    }
}

/// The vsock address in an address of any family; `None` for another family's.
pub(crate) fn vsock_address(any: &SocketAddrAny) -> Option<Address> {
    let is_whole = any.addr_len() as usize >= size_of::<libc::sockaddr_vm>();
    if any.address_family() != AddressFamily::VSOCK || !is_whole {
        return None;
    }
    // SAFETY: `SocketAddrAny` promises that `addr_len` bytes behind its pointer are initialised, and these are enough for the
    // structure, whose fields are integers; the read asks for no alignment.
    let address = unsafe { any.as_ptr().cast::<libc::sockaddr_vm>().read_unaligned() };
    Some(Address { cid: address.svm_cid, port: address.svm_port })
}

/// Makes all threads share one arena of the C library's heap. Only glibc has such; elsewhere nothing happens.
pub(crate) fn share_heap() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt(3) takes two integers, changes settings of the allocator under its own lock, and touches no
        // memory of ours.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

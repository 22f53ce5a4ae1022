//! The one module with `unsafe`: what the kernel offers and rustix does not.

#![allow(unsafe_code)]

use std::io;

use crate::statfs::Worker;

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

//! The one module with `unsafe`: what the kernel offers and rustix does not.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketAddrAny};

use crate::apart::Apart;
use crate::opening::How;
use crate::vsock::Address;

/// Starts a thread that has a descriptor table of its own, with nothing in it but standard input, output and error.
///
/// When such a thread hangs in the kernel for ever, it keeps no socket, lock or file of the daemon open, so the daemon
/// can close its ports and end.
///
/// # Errors
/// Where no thread can be started. A kernel that cannot divide the table is told to the work.
pub(crate) fn spawn_apart<W: Apart>(work: W) -> io::Result<()> {
    std::thread::Builder::new()
        .name(W::NAME.to_owned())
        .stack_size(W::STACK)
        .spawn(move || work.run(leave_descriptor_table()))
        .map(drop)
}

/// Gives the calling thread an own, almost empty descriptor table: close_range(2), since Linux 5.9.
fn leave_descriptor_table() -> io::Result<()> {
    let (first, last) = (3 as libc::c_uint, libc::c_uint::MAX);
    // SAFETY: the call takes three integers and touches no memory of ours. With CLOSE_RANGE_UNSHARE the kernel gives
    // this thread a table of its own first and closes in that table only, so the descriptors of all other threads stay
    // as they are. This thread owns no descriptor that the close could take away from an owner: it is new, it runs
    // nothing but the closure of `spawn_apart`, and that holds an `Apart` alone, whose contract is to hold none, to be handed
    // none and to hand none out. What it opens later it closes itself, in its own table.
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

/// openat2(2) by one of the ways that [`crate::opening`] has. rustix makes the structure on the stack, where its address tells nothing.
///
/// # Errors
/// As openat2(2).
pub(crate) fn openat2(directory: BorrowedFd<'_>, path: &CStr, how: &'static How) -> io::Result<OwnedFd> {
    let (place, size) = (std::ptr::from_ref(how), size_of::<How>());
    // SAFETY: the path ends with a zero and lives as long as the call; the structure is a whole `open_how` of `size` bytes, which the
    // kernel only reads.
    let code = unsafe { libc::syscall(libc::SYS_openat2, directory.as_raw_fd(), path.as_ptr(), place, size) };
    let Ok(descriptor @ 0..) = i32::try_from(code) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the kernel has just given us this descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `NS_GET_MNTNS_ID` of linux/nsfs.h, `_IOR(0xb7, 5, __u64)`, which libc lacks.
const NS_GET_MNTNS_ID: libc::Ioctl = 0x8008_b705_u32 as libc::Ioctl;

/// The number of a mount namespace, which no other one ever had, of an open `/proc/PID/ns/mnt`; since Linux 6.10.
///
/// # Errors
/// As ioctl(2); ENOTTY on an older kernel.
pub(crate) fn mount_namespace(namespace: BorrowedFd<'_>) -> io::Result<u64> {
    let mut id = 0u64;
    // SAFETY: the request writes a u64 behind its argument, which points to one of this function's own.
    let code = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_MNTNS_ID, &raw mut id) };
    if code == 0 { Ok(id) } else { Err(io::Error::last_os_error()) }
}

/// listmount(2), the same number on every architecture.
const SYS_LISTMOUNT: libc::c_long = 458;

/// All mounts of a namespace instead of those below one: `LSMT_ROOT` of linux/mount.h.
const ALL_MOUNTS: u64 = u64::MAX;

/// `struct mnt_id_req` of linux/mount.h as of Linux 6.11.
#[repr(C)]
struct MountRequest {
    size: u32,
    spare: u32,
    mount: u64,
    /// The last mount of the listing before this one; of statmount(2), what it is asked for.
    last: u64,
    namespace: u64,
}

/// The numbers of the mounts of a namespace, as many as fit into `ids`; no mount ever gets another one's number. Since Linux 6.11,
/// and only with CAP_SYS_ADMIN. It tells how many there are in `ids`.
///
/// # Errors
/// As listmount(2).
pub(crate) fn list_mounts(namespace: u64, ids: &mut [u64]) -> io::Result<usize> {
    let size = size_of::<MountRequest>() as u32;
    let request = MountRequest { size, spare: 0, mount: ALL_MOUNTS, last: 0, namespace };
    // SAFETY: the call reads `size` bytes of the request, a whole structure of this function's own, and writes at most
    // `ids.len()` numbers to `ids`, which is borrowed for that.
    let count = unsafe {
        libc::syscall(SYS_LISTMOUNT, &raw const request, ids.as_mut_ptr(), ids.len(), 0 as libc::c_uint)
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// statmount(2), the same number on every architecture.
const SYS_STATMOUNT: libc::c_long = 457;

/// The mount's numbers: `STATMOUNT_MNT_BASIC` of linux/mount.h.
const NUMBERS: u64 = 2;

/// `struct statmount` of linux/mount.h as of Linux 6.8, of which the end is spare; later ones make it no longer.
#[repr(C)]
struct MountFacts {
    size: u32,
    _options: u32,
    mask: u64,
    _file_system: [u64; 3],
    _numbers: [u64; 2],
    old: u32,
    _old_parent: u32,
    _rest: [u64; 56],
}

/// The number that mountinfo has for a mount of a namespace, which only mounts that are gone had before it. It fails where the mount is
/// gone. Since Linux 6.11, and only with CAP_SYS_ADMIN.
///
/// # Errors
/// As statmount(2).
pub(crate) fn number_of_mount(namespace: u64, mount: u64) -> io::Result<u64> {
    let size = size_of::<MountRequest>() as u32;
    let request = MountRequest { size, spare: 0, mount, last: NUMBERS, namespace };
    let mut facts = MountFacts {
        size: 0,
        _options: 0,
        mask: 0,
        _file_system: [0; 3],
        _numbers: [0; 2],
        old: 0,
        _old_parent: 0,
        _rest: [0; 56],
    };
    // SAFETY: the call reads `size` bytes of the request, a whole structure of this function's own, and writes at most
    // the given length to the other one, which is this function's own as well and has integers alone.
    let code = unsafe {
        libc::syscall(
            SYS_STATMOUNT,
            &raw const request,
            &raw mut facts,
            size_of::<MountFacts>(),
            0 as libc::c_uint,
        )
    };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    if facts.mask & NUMBERS == 0 || facts.size == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(facts.old.into())
}

/// Makes all threads share one arena of the C library's heap, maps what is as large as `large` bytes or more by itself, and
/// gives the end of the heap back where more than `spare` bytes of it are free. Only glibc has such settings; elsewhere nothing happens.
pub(crate) fn set_heap(large: i32, spare: i32) {
    #[cfg(target_env = "gnu")]
    {
        for (setting, value) in
            [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, large), (libc::M_TRIM_THRESHOLD, spare)]
        {
            // SAFETY: mallopt(3) takes two integers, changes settings of the allocator under its own lock, and touches no
            // memory of ours.
            let _ = unsafe { libc::mallopt(setting, value) };
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = (large, spare);
}

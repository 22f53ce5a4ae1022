//! What is refused to all, and calls that are let through with some arguments alone.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, getrlimit, prlimit, setrlimit};

use super::*;

/// What a filter makes of a call: the kernel's part in this, for calls that nothing here can make. The instructions are those of bpf(4)
/// that seccompiler writes, the layout is that of `struct seccomp_data`.
fn is_refused(rules: Rules, call: c_long, arguments: [u64; 6]) -> bool {
    let mut data = Vec::from(u32::try_from(call).unwrap().to_ne_bytes());
    data.extend(if cfg!(target_arch = "x86_64") { 0xc000_003e_u32 } else { 0xc000_00b7 }.to_ne_bytes());
    data.extend(0_u64.to_ne_bytes());
    data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
    let program = program(rules, libc::EPERM).unwrap();
    let (mut at, mut loaded) = (0, 0_u32);
    loop {
        let step = &program[at];
        let (value, place) = (step.k, step.k as usize);
        at += 1;
        let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
        at += match step.code {
            0x20 => {
                loaded = u32::from_ne_bytes(data[place..place + 4].try_into().unwrap());
                0
            }
            0x54 => {
                loaded &= value;
                0
            }
            0x05 => place,
            0x15 => jump(loaded == value),
            0x25 => jump(loaded > value),
            0x35 => jump(loaded >= value),
            0x06 => return value != libc::SECCOMP_RET_ALLOW,
            other => panic!("{other:#x}"),
        };
    }
}

#[test]
fn only_threads_of_the_own_process_are_signalled() {
    let tgkill = |pid: u32| {
        is_refused(of_nobody().unwrap(), libc::SYS_tgkill, [u64::from(pid), 1, libc::SIGTERM as u64, 0, 0, 0])
    };
    let own = std::process::id();
    assert!(!tgkill(own));
    for other in [1, own + 1, u32::MAX] {
        assert!(tgkill(other), "{other}");
    }
    // The other ways to do the same.
    for call in [libc::SYS_kill, libc::SYS_tkill, libc::SYS_rt_tgsigqueueinfo, libc::SYS_pidfd_send_signal] {
        assert!(is_refused(of_nobody().unwrap(), call, [u64::from(own), 0, 0, 0, 0, 0]));
    }
    assert!(!is_refused(of_nobody().unwrap(), libc::SYS_read, [0; 6]));
}

#[test]
fn limits_are_told_and_not_changed() {
    // A thread of its own, which nobody uses afterwards.
    let restricted = || {
        let before = getrlimit(Resource::Core);
        forbid_changes_of_rights().unwrap();
        let refused = Err(Errno::PERM);
        assert_eq!(setrlimit(Resource::Core, before), refused);
        assert_eq!(prlimit(Some(Pid::INIT), Resource::Core, before).map(drop), refused);
        assert_eq!(getrlimit(Resource::Core), before);
    };
    std::thread::scope(|scope| scope.spawn(restricted).join().unwrap());
    // Of 64 bits, the upper half counts, too.
    let prlimit64 = |new| is_refused(of_rights().unwrap(), libc::SYS_prlimit64, [0, 4, new, 0, 0, 0]);
    assert!(!prlimit64(0));
    assert!(prlimit64(1) && prlimit64(1 << 40));
}

/// Landlock has no rights for these.
#[test]
fn times_and_attributes_of_files_are_nobodys_to_change() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("file");
    let file = File::create(&path).unwrap();
    let restricted = || {
        forbid_for_all().unwrap();
        let refused = Err(Errno::PERM);
        assert_eq!(rustix::fs::setxattr(&path, "user.x", b"y", XattrFlags::empty()), refused);
        assert_eq!(rustix::fs::fsetxattr(&file, "user.x", b"y", XattrFlags::empty()), refused);
        assert_eq!(rustix::fs::removexattr(&path, "user.x"), refused);
        let error = file.set_modified(SystemTime::UNIX_EPOCH).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        // The socket and the database are made with modes of their own.
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
    };
    std::thread::scope(|scope| scope.spawn(restricted).join().unwrap());
    for call in [libc::SYS_utimensat, libc::SYS_lsetxattr, SETXATTRAT, REMOVEXATTRAT, FILE_SETATTR] {
        assert!(is_refused(of_nobody().unwrap(), call, [0; 6]), "{call}");
    }
}

//! What is refused to all, and calls that are let through with some arguments alone.

use std::fs::{File, Permissions};
use std::io::IsTerminal;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use rustix::fs::{IFlags, XattrFlags};
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

/// By the numbers of the kernel's table, which newer calls have on every architecture alike: what is forbidden has no way round by a call
/// that does the same.
#[test]
fn no_call_does_what_another_is_refused_for() {
    let newer = [
        (424, "pidfd_send_signal"),
        (428, "open_tree"),
        (429, "move_mount"),
        (430, "fsopen"),
        (442, "mount_setattr"),
        (443, "quotactl_fd"),
        (448, "process_mrelease"),
        (467, "open_tree_attr"),
    ];
    for (call, name) in newer {
        assert!(is_refused(of_nobody().unwrap(), call, [0; 6]), "{name}");
    }
    let same = [
        (libc::SYS_process_madvise, libc::SYS_move_pages),
        (libc::SYS_process_madvise, libc::SYS_migrate_pages),
        (libc::SYS_shmget, libc::SYS_shmat),
        (libc::SYS_shmget, libc::SYS_shmctl),
        (libc::SYS_semget, libc::SYS_semop),
        (libc::SYS_semget, libc::SYS_semctl),
        (libc::SYS_msgget, libc::SYS_msgsnd),
        (libc::SYS_msgget, libc::SYS_msgctl),
    ];
    for (one, other) in same {
        assert!(
            is_refused(of_nobody().unwrap(), one, [0; 6]) && is_refused(of_nobody().unwrap(), other, [0; 6]),
            "{other}"
        );
    }
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

/// A file that is open for reading alone has flags to set, and Landlock has no right for these either.
#[test]
fn nobody_asks_file_systems_and_disks_for_changes() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("file");
    std::fs::write(&path, "kept").unwrap();
    let (file, other) = (File::open(&path).unwrap(), File::create(base.path().join("other")).unwrap());
    let restricted = || {
        forbid_for_all().unwrap();
        let refused = Err(Errno::PERM);
        assert_eq!(rustix::fs::ioctl_setflags(&file, IFlags::empty()), refused);
        assert_eq!(rustix::fs::ioctl_ficlone(&other, &file), refused);
    };
    std::thread::scope(|scope| scope.spawn(restricted).join().unwrap());
    let ioctl = |request: u64| is_refused(of_nobody().unwrap(), libc::SYS_ioctl, [3, request, 0, 0, 0, 0]);
    // FS_IOC_FSSETXATTR, FS_IOC_ENABLE_VERITY, FS_IOC_SET_ENCRYPTION_POLICY, FIFREEZE, FITRIM, FIDEDUPERANGE, FS_IOC_SETFSLABEL,
    // FS_IOC_SETVERSION, EXT4_IOC_SHUTDOWN, FAT_IOCTL_SET_ATTRIBUTES, BLKROSET, BLKDISCARD, BLKZEROOUT, LOOP_SET_FD, DM_REMOVE_ALL,
    // TIOCSTI: as linux/fs.h and its like number them.
    for request in [
        0x401c_5820,
        0x4080_6685,
        0x800c_6613,
        0xc004_5877,
        0xc018_5879,
        0xc018_9436,
        0x4100_9432,
        0x4008_7602,
        0x8004_587d,
        0x4004_7211,
        0x125d,
        0x1277,
        0x127f,
        0x4c00,
        0xc138_fd01,
        0x5412,
    ] {
        assert!(ioctl(request) && ioctl(request | 1 << 32), "{request:#x}");
    }
    // NVIDIA's control device, and its library's questions about a processor's memory.
    for request in [0xc020_462a, 0xc00c_46d1, 0x3000_0001, 27] {
        assert!(!ioctl(request), "{request:#x}");
    }
}

#[test]
fn what_is_asked_for_by_ioctl_is_on_a_list() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let namespace = File::open("/proc/self/ns/mnt").unwrap();
    let restricted = || {
        forbid_requests().unwrap();
        listener.set_nonblocking(true).unwrap();
        let told = rustix::io::ioctl_fionread(&listener);
        assert_ne!(told, Err(Errno::PERM));
        assert!(!namespace.is_terminal());
        assert_eq!(rustix::termios::tcgetattr(&namespace).map(drop), Err(Errno::NOTTY));
        // That would change nothing, but nobody here asks for it.
        assert_eq!(rustix::fs::ioctl_getflags(&namespace).map(drop), Err(Errno::PERM));
    };
    std::thread::scope(|scope| scope.spawn(restricted).join().unwrap());
    let ioctl = |request: u64| is_refused(of_requests().unwrap(), libc::SYS_ioctl, [3, request, 0, 0, 0, 0]);
    for request in REQUESTS {
        // Of 64 bits the kernel looks at the lower half.
        assert!(!ioctl(request.into()) && !ioctl(u64::from(request) | 7 << 32), "{request:#x}");
    }
    for other in [0, 1, 0xb702, 0x5412, 0x8946, 0xc020_462a, u64::MAX] {
        assert!(ioctl(other), "{other:#x}");
    }
    assert!(!is_refused(of_requests().unwrap(), libc::SYS_read, [0; 6]));
}

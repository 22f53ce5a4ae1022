//! Which system calls are refused, by seccomp(2).
//!
//! A list of what is refused, not of what is let through: the unit has the latter (`packaging/miharud.service`), and a C library that
//! moves to a newer call does not break a daemon that somebody starts by hand. Refused means EPERM, so that what
//! needs none of it in earnest goes on.

use std::collections::BTreeMap;

use anyhow::Context;
use libc::c_long;
use miharu_collect::host::openings;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What no thread has a use for.
const NEVER: &[c_long] = &[
    // Programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes, and what is in their memory and tables.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    // Any file by its number: CAP_DAC_READ_SEARCH alone is enough for it, whatever the way there.
    libc::SYS_open_by_handle_at,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_fanotify_init,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
    libc::SYS_vhangup,
    // Clocks and names of the host.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Who the process is.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    // Devices and shared places.
    libc::SYS_mknodat,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
];

/// The same of x86-64 alone.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[c_long] = &[];

/// What changes a file, or what it is called, or whose it is. Who only reads has no use for these; the others are under Landlock, which
/// has no right for mode and owner: they set these of their socket and of their state.
const CHANGES: &[c_long] = &[
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
];

/// What changes a file's times and extended attributes. Nobody has a use for these, and Landlock knows no right for them.
const ATTRIBUTES: &[c_long] = &[
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
];

/// The same of x86-64 alone.
#[cfg(target_arch = "x86_64")]
const ATTRIBUTES_HERE: &[c_long] = &[libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
#[cfg(not(target_arch = "x86_64"))]
const ATTRIBUTES_HERE: &[c_long] = &[];

/// fchmodat2(2), since Linux 6.6; the same number on every architecture, as those below.
const FCHMODAT2: c_long = 452;
/// setxattrat(2), since Linux 6.13.
const SETXATTRAT: c_long = 463;
/// removexattrat(2), since Linux 6.13.
const REMOVEXATTRAT: c_long = 466;
/// open_tree_attr(2), since Linux 6.15.
const OPEN_TREE_ATTR: c_long = 467;
/// file_setattr(2), since Linux 6.17.
const FILE_SETATTR: c_long = 469;

/// What ioctl(2) asks file systems and disks for, by the letter that the kernel's list has for each kind (`ioctl-number.rst`): flags and
/// attributes of a file, also of one that is open for reading alone (`f` and `X`, with ext4's and XFS's own; `v`, `r` of FAT), clones
/// (0x94, with btrfs' own), F2FS (0xf5), block, loop and mapped devices (0x12, `L`, 0xfd). Landlock has no right for those of a regular file, and
/// one for a device's from Linux 6.10 on.
const OF_FILES: [u8; 9] = [b'f', b'X', b'v', b'r', 0x94, 0xf5, 0x12, b'L', 0xfd];

/// What puts characters into the input of a terminal.
const OF_TERMINALS: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

/// All that this program and its libraries ask for by ioctl(2), but for NVIDIA's: whether a socket waits and stays open (the standard
/// library), whether a descriptor is a terminal and how wide (the same, and the C library), an interface's number and name (addresses with a
/// zone, in the C library), and a mount namespace's number.
const REQUESTS: [u32; 10] = [
    libc::FIONBIO as u32,
    libc::FIONREAD as u32,
    libc::FIOCLEX as u32,
    libc::FIONCLEX as u32,
    libc::TCGETS as u32,
    libc::TCGETS2 as u32,
    libc::TIOCGWINSZ as u32,
    libc::SIOCGIFINDEX as u32,
    libc::SIOCGIFNAME as u32,
    NS_GET_MNTNS_ID,
];

/// `NS_GET_MNTNS_ID` of linux/nsfs.h, which `miharu-linux` asks for.
const NS_GET_MNTNS_ID: u32 = 0x8008_b705;

/// The same of x86-64 alone.
#[cfg(target_arch = "x86_64")]
const CHANGES_HERE: &[c_long] = &[
    libc::SYS_creat,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
];
#[cfg(not(target_arch = "x86_64"))]
const CHANGES_HERE: &[c_long] = &[];

/// Forbids what no thread has a use for, and every process of one's own.
pub(super) fn forbid_for_all() -> anyhow::Result<()> {
    install(of_nobody()?, libc::EPERM)?;
    // Its flags are in memory, where no filter sees them; without it the C library takes clone(2).
    install(refused(&[&[libc::SYS_clone3]]), libc::ENOSYS)?;
    #[cfg(target_arch = "x86_64")]
    apply_filter(&without_x32()).context("the second set of calls of x86-64")?;
    Ok(())
}

/// Forbids every ioctl(2) but [`REQUESTS`].
pub(super) fn forbid_requests() -> anyhow::Result<()> {
    install(of_requests()?, libc::EPERM)
}

/// Forbids, from here on, to take up capabilities that were put down, and to change limits, of whichever process.
pub(super) fn forbid_changes_of_rights() -> anyhow::Result<()> {
    install(of_rights()?, libc::EPERM)
}

/// What [`forbid_for_all`] refuses with EPERM.
fn of_nobody() -> anyhow::Result<Rules> {
    let mut rules = refused(&[NEVER, NEVER_HERE, ATTRIBUTES, ATTRIBUTES_HERE]);
    // A process of its own instead of a thread, and a thread in namespaces of its own.
    let flags = clone_flags();
    let mut cases = vec![when(0, SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64), 0)?];
    for flag in flags {
        cases.push(when(0, SeccompCmpOp::MaskedEq(flag), flag)?);
    }
    rules.insert(libc::SYS_clone, cases);
    // The C library signals threads of its own process, as abort(3) does.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![when(0, SeccompCmpOp::Ne, own)?]);
    // The kernel looks at the lower half of the request alone.
    let mut requests = Vec::new();
    for letter in OF_FILES {
        requests.push(when(1, SeccompCmpOp::MaskedEq(0xff00), u64::from(letter) << 8)?);
    }
    for request in OF_TERMINALS {
        requests.push(when(1, SeccompCmpOp::Eq, request.into())?);
    }
    rules.insert(libc::SYS_ioctl, requests);
    Ok(rules)
}

/// What [`forbid_requests`] refuses.
fn of_requests() -> anyhow::Result<Rules> {
    let mut others = Vec::new();
    for request in REQUESTS {
        others.push(SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, request.into())?);
    }
    Ok(Rules::from([(libc::SYS_ioctl, vec![SeccompRule::new(others)?])]))
}

/// What [`forbid_changes_of_rights`] refuses.
fn of_rights() -> anyhow::Result<Rules> {
    let mut rules = refused(&[&[libc::SYS_capset, libc::SYS_setrlimit]]);
    // With no new limit it only tells, which getrlimit(2) is made of.
    let new_limit = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![new_limit])?]);
    Ok(rules)
}

/// Forbids every change of files, and opening one in a way that allows it.
pub(super) fn forbid_writing() -> anyhow::Result<()> {
    forbid_changes(&[libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC])
}

/// Forbids the same but for writing to what is there, as a device is.
pub(super) fn forbid_making() -> anyhow::Result<()> {
    forbid_changes(&[libc::O_CREAT, libc::O_TRUNC])
}

/// Forbids every change of files but by writing, and opening one with any of these flags.
fn forbid_changes(flags: &[i32]) -> anyhow::Result<()> {
    let mut rules = refused(&[CHANGES, CHANGES_HERE, ATTRIBUTES, ATTRIBUTES_HERE]);
    rules.insert(libc::SYS_openat, opens_with(flags, 2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, opens_with(flags, 1)?);
    // How it opens is in memory; what may stand there is in constants, and these are known by where they are.
    let mut others = Vec::new();
    for place in openings() {
        others.push(SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, place)?);
    }
    rules.insert(libc::SYS_openat2, vec![SeccompRule::new(others)?]);
    install(rules, libc::EPERM)
}

/// The conditions under which one of these flags is given to open(2).
fn opens_with(flags: &[i32], argument: u8) -> anyhow::Result<Vec<SeccompRule>> {
    let given = |flag: &i32| when(argument, SeccompCmpOp::MaskedEq(*flag as u64), *flag as u64);
    flags.iter().map(given).collect()
}

fn clone_flags() -> [u64; 7] {
    [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ]
    .map(|flag| flag as u64)
}

fn when(argument: u8, is: SeccompCmpOp, value: u64) -> anyhow::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn refused(lists: &[&[c_long]]) -> Rules {
    #[allow(clippy::useless_conversion, reason = "c_long is not an i64 everywhere")]
    lists.iter().flat_map(|list| list.iter()).map(|call| (i64::from(*call), Vec::new())).collect()
}

fn install(rules: Rules, error: i32) -> anyhow::Result<()> {
    Ok(apply_filter(&program(rules, error)?)?)
}

/// What refuses a call with this error where one of the rules holds.
fn program(rules: Rules, error: i32) -> anyhow::Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).context("this architecture has no filter")?;
    let action = SeccompAction::Errno(error.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// Refuses the calls of the x32 ABI, which have numbers of their own on the architecture of x86-64, so that no list above knows
/// them. bpf(4) has the instructions, `linux/filter.h` their numbers.
#[cfg(target_arch = "x86_64")]
fn without_x32() -> BpfProgram {
    /// `__X32_SYSCALL_BIT`.
    const X32: u32 = 0x4000_0000;
    /// `SECCOMP_RET_ERRNO`, and `SECCOMP_RET_ALLOW` below.
    const REFUSE: u32 = 0x0005_0000;
    const ALLOW: u32 = 0x7fff_0000;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        // The number of the call: BPF_LD | BPF_W | BPF_ABS, at 0 of `struct seccomp_data`.
        step(0x20, 0, 0, 0),
        // BPF_JMP | BPF_JGE | BPF_K.
        step(0x35, 0, 1, X32),
        // BPF_RET | BPF_K.
        step(0x06, 0, 0, REFUSE | libc::ENOSYS.unsigned_abs()),
        step(0x06, 0, 0, ALLOW),
    ]
}

#[cfg(test)]
mod tests;

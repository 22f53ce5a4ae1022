//! What the kernel says of how this process is confined, thread by thread. proc(5), capabilities(7), seccomp(2).

use std::path::Path;

use crate::error::{Error, Result};
use crate::read::{Buffer, fields, lines, number};
use crate::roots::Roots;

/// A thread of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thread {
    /// What it is called.
    pub name: String,
    /// The capabilities in effect for it, one bit each (linux/capability.h).
    pub effective: u64,
    /// Those that it could put in effect.
    pub permitted: u64,
    /// Those that no program it starts could exceed.
    pub bounding: u64,
    /// Whether it can never gain privileges by starting a program.
    pub no_new_privileges: bool,
    /// Whether its system calls are filtered (`Seccomp: 2`).
    pub is_filtered: bool,
}

/// The threads of this process.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn threads(roots: &Roots, buffer: &mut Buffer) -> Result<Vec<Thread>> {
    let tasks = roots.proc.join("self/task");
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(&tasks).map_err(|error| Error::io(&tasks, error))? {
        let path = entry.map_err(|error| Error::io(&tasks, error))?.path().join("status");
        // One that has ended meanwhile is none.
        let Ok(text) = buffer.read(&path) else { continue };
        threads.push(parse_thread(text));
    }
    Ok(threads)
}

/// Parses `/proc/PID/task/TID/status`. What it does not say is taken for no confinement.
#[must_use]
pub fn parse_thread(text: &[u8]) -> Thread {
    let mut thread = Thread::default();
    for line in lines(text) {
        let Some(at) = memchr::memchr(b':', line) else { continue };
        let (name, rest) = line.split_at(at);
        let rest = rest.strip_prefix(b":").unwrap_or(rest).trim_ascii();
        match name {
            b"Name" => thread.name = String::from_utf8_lossy(rest).into_owned(),
            b"CapEff" => thread.effective = set(rest),
            b"CapPrm" => thread.permitted = set(rest),
            b"CapBnd" => thread.bounding = set(rest),
            b"NoNewPrivs" => thread.no_new_privileges = rest == b"1",
            b"Seccomp" => thread.is_filtered = rest == b"2",
            _ => {}
        }
    }
    thread
}

fn set(hex: &[u8]) -> u64 {
    std::str::from_utf8(hex).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0)
}

/// The names of the capabilities, by their bits; linux/capability.h as of Linux 6.18.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The names of the capabilities in a set.
#[must_use]
pub fn names(set: u64) -> Vec<String> {
    let is_in = |bit: &u32| set & (1u64 << bit) != 0;
    (0..u64::BITS)
        .filter(is_in)
        .map(|bit| match NAMES.get(bit as usize) {
            Some(name) => format!("CAP_{name}"),
            None => format!("capability {bit}"),
        })
        .collect()
}

/// How many processes and threads, and how much memory, the cgroups of this process allow: the least of all above it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// `pids.max`.
    pub tasks: Option<u64>,
    /// `memory.max`, or `memory.limit_in_bytes`; bytes.
    pub memory: Option<u64>,
}

impl Allowance {
    /// Reads the files of each cgroup from the process' own up to the root.
    #[must_use]
    pub fn of_this_process(roots: &Roots, buffer: &mut Buffer) -> Self {
        let Ok(hierarchies) = crate::cgroup::Hierarchies::find(roots) else { return Self::default() };
        let Ok(text) = buffer.read(&roots.proc.join("self/cgroup")) else { return Self::default() };
        let memberships = crate::process::parse_memberships(text);
        let mut least = |controller: &str, name: &str, old: &str| {
            let (top, own, file) = match (hierarchies.v1(controller), hierarchies.unified()) {
                (Some(top), _) => (top, memberships.v1.get(controller)?, old),
                (None, top) => (top?, memberships.unified.as_ref()?, name),
            };
            own.ancestors().filter_map(|place| limit(&top.join(place).join(file), buffer)).min()
        };
        Self {
            tasks: least("pids", "pids.max", "pids.max"),
            memory: least("memory", "memory.max", "memory.limit_in_bytes"),
        }
    }
}

/// A limit that is one: version 1 writes nearly 2^63 where there is none.
fn limit(path: &Path, buffer: &mut Buffer) -> Option<u64> {
    let value = fields(buffer.read(path).ok()?.trim_ascii()).next().and_then(number)?;
    (value < 1 << 62).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_read() {
        let text = b"Name:\tlooking\nUmask:\t0022\nCapInh:\t0000000000000000\nCapPrm:\t0000000000080006\n\
            CapEff:\t0000000000080004\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let thread = parse_thread(text);
        assert_eq!(
            (thread.name.as_str(), thread.effective, thread.permitted),
            ("looking", 0x8_0004, 0x8_0006)
        );
        assert!(thread.no_new_privileges && thread.is_filtered);
        assert_eq!(names(thread.effective), ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"]);
        assert_eq!(names(1 << 63 | 1 << 40), ["CAP_CHECKPOINT_RESTORE", "capability 63"]);
    }

    #[test]
    fn what_is_not_said_is_no_confinement() {
        for text in [&b""[..], b"::::", b"CapEff:\tzz\nSeccomp:\t1\nNoNewPrivs:\t0", b"Name\n\xff\xff:\n"] {
            let thread = parse_thread(text);
            assert!(!thread.is_filtered && !thread.no_new_privileges && thread.effective == 0, "{thread:?}");
        }
    }

    #[test]
    fn this_process_has_this_thread() {
        let threads = threads(&Roots::default(), &mut Buffer::new()).unwrap();
        assert!(!threads.is_empty());
    }
}

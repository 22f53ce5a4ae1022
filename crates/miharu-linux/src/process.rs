//! One process: an open directory of `/proc`, and the parsers of what lies in it.
//!
//! proc(5) describes the files. Names in them (a thread's, an interface's) are chosen by whoever runs the process, so
//! they are bytes until the very end.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use memchr::{memchr, memrchr};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};
use crate::read::{Buffer, Extent, Take, fields, lines, number};
use crate::roots::Roots;
use crate::text::leading_number;

/// The most interfaces that are taken from one network namespace; a tenant can make as many as it likes.
pub const MAX_INTERFACES: usize = 1024;

/// The most bytes of a command line that are looked at.
pub const MAX_COMMAND_LINE: usize = 32 << 10;

/// An open `/proc/PID`. It belongs to the process it was opened for and to no later one with the same number: once
/// that process is gone every read gives [`Error::Gone`].
#[derive(Debug)]
pub struct ProcDir {
    pid: u32,
    path: PathBuf,
    dir: OwnedFd,
}

impl ProcDir {
    /// Opens the directory of process `pid`.
    ///
    /// # Errors
    /// [`Error::Gone`] where there is no such process.
    pub fn open(roots: &Roots, pid: u32) -> Result<Self> {
        let path = roots.proc.join(pid.to_string());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| Error::io(&path, e.into()))?;
        Ok(Self { pid, path, dir })
    }

    /// The process' number in the host's pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The directory's path, for messages: it may mean another process by now.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open directory (`O_PATH`).
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Reads one file of the process, such as `net/dev`.
    ///
    /// # Errors
    /// [`Error::Gone`] once the process has ended.
    pub fn read<'b>(&self, buffer: &'b mut Buffer, name: &str) -> Result<&'b [u8]> {
        buffer.read_at(self.dir.as_fd(), Path::new(name), || self.path.join(name))
    }

    /// Reads one file of the process line by line: those that `sort` wants, `limit` bytes of them at most.
    ///
    /// # Errors
    /// As [`ProcDir::read`], but for the length.
    pub fn read_lines<'b>(
        &self,
        buffer: &'b mut Buffer,
        name: &str,
        limit: usize,
        sort: impl FnMut(&[u8]) -> Take,
    ) -> Result<(&'b [u8], Extent)> {
        buffer.read_lines_at(self.dir.as_fd(), Path::new(name), || self.path.join(name), limit, sort)
    }

    /// Opens one file of the process, to be read later or again and again.
    ///
    /// # Errors
    /// As [`ProcDir::read`].
    pub(crate) fn open_file(&self, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        rustix::fs::openat(self.dir.as_fd(), name, flags, Mode::empty())
            .map_err(|e| Error::io(&self.path.join(name), e.into()))
    }

    /// `stat`: parent, start time, processor time.
    ///
    /// # Errors
    /// As [`ProcDir::read`], and [`Error::Parse`].
    pub fn stat(&self, buffer: &mut Buffer) -> Result<Stat> {
        let text = self.read(buffer, "stat")?;
        parse_stat(text).ok_or_else(|| self.unexpected("stat", "the fields of a process"))
    }

    /// `status`: owner, pid namespaces, capabilities.
    ///
    /// # Errors
    /// As [`ProcDir::read`], and [`Error::Parse`].
    pub fn status(&self, buffer: &mut Buffer) -> Result<Status> {
        let text = self.read(buffer, "status")?;
        parse_status(text).ok_or_else(|| self.unexpected("status", "Uid"))
    }

    /// `cgroup`: where the process is in every hierarchy.
    ///
    /// # Errors
    /// As [`ProcDir::read`].
    pub fn memberships(&self, buffer: &mut Buffer) -> Result<Memberships> {
        Ok(parse_memberships(self.read(buffer, "cgroup")?))
    }

    /// Whether the process is in `cgroup` or below it, in any hierarchy; the path is one from the hierarchy's root.
    ///
    /// # Errors
    /// As [`ProcDir::read`].
    pub fn is_in(&self, cgroup: &Path, buffer: &mut Buffer) -> Result<bool> {
        Ok(is_in(self.read(buffer, "cgroup")?, cgroup))
    }

    /// `net/dev`: the counters of the interfaces in the process' network namespace.
    ///
    /// # Errors
    /// As [`ProcDir::read`].
    pub fn net_dev(&self, buffer: &mut Buffer) -> Result<Vec<Interface>> {
        Ok(parse_net_dev(self.read(buffer, "net/dev")?))
    }

    /// A number for the network namespace of the process, the same for all processes in it: that of the namespace's own
    /// `net/dev`. Unlike the link `ns/net` it may be looked at without CAP_SYS_PTRACE, and of processes that have more
    /// capabilities than this one.
    ///
    /// # Errors
    /// As [`ProcDir::read`].
    pub fn network(&self) -> Result<u64> {
        rustix::fs::statat(self.dir.as_fd(), "net/dev", rustix::fs::AtFlags::empty())
            .map(|stat| stat.st_ino)
            .map_err(|e| Error::io(&self.path.join("net/dev"), e.into()))
    }

    /// The inode number of a namespace of the process: `net`, `pid`, `mnt`, `cgroup`, `user`.
    ///
    /// # Errors
    /// [`Error::Denied`] without CAP_SYS_PTRACE for another user's process.
    pub fn namespace(&self, kind: &str) -> Result<u64> {
        let name = Path::new("ns").join(kind);
        let link = rustix::fs::readlinkat(self.dir.as_fd(), &name, Vec::new())
            .map_err(|e| Error::io(&self.path.join(&name), e.into()))?;
        parse_namespace(link.as_bytes())
            .ok_or_else(|| Error::Parse { path: self.path.join(&name), what: "a namespace's inode" })
    }

    /// The directory in which the process runs, as the host's paths go where it is in the host's mount namespace.
    ///
    /// # Errors
    /// As [`ProcDir::read`], and where the caller may not see it.
    pub fn working_directory(&self) -> Result<PathBuf> {
        let place = |e: rustix::io::Errno| Error::io(&self.path.join("cwd"), e.into());
        let target = rustix::fs::readlinkat(self.dir.as_fd(), "cwd", Vec::new()).map_err(place)?;
        Ok(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
    }

    /// `cmdline`, at most [`MAX_COMMAND_LINE`] bytes; [`arguments`] divides it. The kernel takes a lock of the process
    /// for it, so it is read of processes that the host's administrator started, never of an instance's own.
    ///
    /// # Errors
    /// As [`ProcDir::read`].
    pub fn command_line(&self) -> Result<Vec<u8>> {
        let place = |e: rustix::io::Errno| Error::io(&self.path.join("cmdline"), e.into());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.dir.as_fd(), "cmdline", flags, Mode::empty()).map_err(place)?;
        let mut bytes = Vec::with_capacity(4096);
        while bytes.len() < MAX_COMMAND_LINE {
            if bytes.capacity() == bytes.len() {
                bytes.reserve(4096);
            }
            match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(place(e)),
            }
        }
        bytes.truncate(MAX_COMMAND_LINE);
        Ok(bytes)
    }

    /// The program that the process runs, as the kernel shows it, ` (deleted)` behind it where its file is gone.
    ///
    /// # Errors
    /// As [`ProcDir::read`], and [`Error::Denied`] without CAP_SYS_PTRACE for another user's process.
    pub fn program(&self) -> Result<PathBuf> {
        let place = |e: rustix::io::Errno| Error::io(&self.path.join("exe"), e.into());
        let target = rustix::fs::readlinkat(self.dir.as_fd(), "exe", Vec::new()).map_err(place)?;
        Ok(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
    }

    /// The real user id of the process.
    ///
    /// # Errors
    /// As [`ProcDir::status`].
    pub fn owner_uid(&self, buffer: &mut Buffer) -> Result<u32> {
        Ok(self.status(buffer)?.uid)
    }

    /// How many pid namespaces the process has a number in, as seen from `/proc`'s own: 1 for a process of the host.
    ///
    /// # Errors
    /// As [`ProcDir::status`].
    pub fn pid_namespace_depth(&self, buffer: &mut Buffer) -> Result<usize> {
        Ok(self.status(buffer)?.pid_namespace_depth)
    }

    fn unexpected(&self, name: &str, what: &'static str) -> Error {
        Error::Parse { path: self.path.join(name), what }
    }
}

/// The numbers of all processes, in no order.
///
/// # Errors
/// Where `/proc` cannot be listed.
pub fn pids(roots: &Roots) -> Result<Vec<u32>> {
    let entries = std::fs::read_dir(&roots.proc).map_err(|e| Error::io(&roots.proc, e))?;
    Ok(entries
        .filter_map(|entry| number(entry.ok()?.file_name().as_bytes()))
        .filter_map(|pid| u32::try_from(pid).ok())
        .collect())
}

/// What `/proc/PID/stat` tells; times in clock ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The name of the program or thread, up to 15 bytes of anything.
    pub comm: Vec<u8>,
    /// One letter: `R`, `S`, `D`, `Z`, …
    pub state: u8,
    /// The parent's number.
    pub ppid: u32,
    /// Whether it is on its way out (`PF_EXITING`) and may have left its namespaces already. The first process of a namespace
    /// stays like that, and no zombie, until all others in it have ended.
    pub is_exiting: bool,
    /// Time in user mode, ticks; guest time is in it.
    pub utime: u64,
    /// Time in kernel mode, ticks.
    pub stime: u64,
    /// Number of threads.
    pub num_threads: u64,
    /// When it started, ticks after the host's boot.
    pub starttime: u64,
}

impl Stat {
    /// Whether the process has not ended: it is neither a zombie nor dead.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// A process' flag in `/proc/PID/stat`, `include/linux/sched.h`.
const PF_EXITING: u64 = 0x4;

/// Parses `/proc/PID/stat`. The name stands in parentheses and may hold any byte, parentheses and blanks too, so the
/// numbers begin after the last `)`.
#[must_use]
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = memchr(b'(', text)?;
    let close = memrchr(b')', text)?;
    let comm = text.get(open + 1..close)?.to_vec();
    // The first field after the name is number 3 of proc(5).
    let mut rest = fields(text.get(close + 1..)?.trim_ascii_end());
    let state = *rest.next()?.first()?;
    let ppid = u32::try_from(number(rest.next()?)?).ok()?;
    let is_exiting = number(rest.nth(4)?)? & PF_EXITING != 0;
    let utime = number(rest.nth(4)?)?;
    let stime = number(rest.next()?)?;
    let num_threads = number(rest.nth(4)?)?;
    let starttime = number(rest.nth(1)?)?;
    Some(Stat { comm, state, ppid, is_exiting, utime, stime, num_threads, starttime })
}

/// What is used of `/proc/PID/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The real user id, as the host counts.
    pub uid: u32,
    /// How many numbers `NSpid` lists; 1 where the kernel is too old (before 4.1) to tell.
    pub pid_namespace_depth: usize,
    /// The effective capabilities, one bit each (linux/capability.h).
    pub effective_capabilities: u64,
}

/// Parses `/proc/PID/status`; `None` where it names no user.
#[must_use]
pub fn parse_status(text: &[u8]) -> Option<Status> {
    let mut uid = None;
    let mut pid_namespace_depth = 1;
    let mut effective_capabilities = 0;
    for line in lines(text) {
        if let Some(rest) = line.strip_prefix(b"Uid:") {
            uid = fields(rest).next().and_then(number).and_then(|uid| u32::try_from(uid).ok());
        } else if let Some(rest) = line.strip_prefix(b"NSpid:") {
            pid_namespace_depth = fields(rest).count().max(1);
        } else if let Some(rest) = line.strip_prefix(b"CapEff:") {
            effective_capabilities = std::str::from_utf8(rest.trim_ascii())
                .ok()
                .and_then(|hex| u64::from_str_radix(hex, 16).ok())
                .unwrap_or(0);
        }
    }
    Some(Status { uid: uid?, pid_namespace_depth, effective_capabilities })
}

/// Where a process is in each hierarchy; paths from the hierarchy's root, without a leading slash, empty for the root
/// itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memberships {
    /// In the unified hierarchy, if one is mounted.
    pub unified: Option<PathBuf>,
    /// In each v1 hierarchy, by controller; a named hierarchy by `name=NAME`.
    pub v1: BTreeMap<String, PathBuf>,
}

/// Parses `/proc/PID/cgroup`, cgroups(7). Controllers that share a hierarchy (`cpu,cpuacct`) each get an entry.
#[must_use]
pub fn parse_memberships(text: &[u8]) -> Memberships {
    let mut found = Memberships::default();
    for line in lines(text) {
        let mut parts = line.splitn(3, |b| *b == b':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let path = relative_cgroup(path);
        if controllers.is_empty() {
            if id == b"0" {
                found.unified = Some(path);
            }
            continue;
        }
        for controller in controllers.split(|b| *b == b',') {
            found.v1.insert(String::from_utf8_lossy(controller).into_owned(), path.clone());
        }
    }
    found
}

/// What [`parse_memberships`] tells of one cgroup alone, for a tenth of the work.
fn is_in(text: &[u8], cgroup: &Path) -> bool {
    let cgroup = cgroup.as_os_str().as_bytes();
    lines(text).any(|line| {
        let Some(mut path) = line.splitn(3, |b| *b == b':').nth(2) else { return false };
        while let Some(rest) = path.strip_prefix(b"/..").or_else(|| path.strip_prefix(b"/")) {
            path = rest;
        }
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        path.strip_prefix(cgroup).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

/// A cgroup's path without the leading slash, without the `/..` of a process outside this one's cgroup namespace, and
/// without the mark of a removed v2 cgroup.
fn relative_cgroup(path: &[u8]) -> PathBuf {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    Path::new(OsStr::from_bytes(path))
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect()
}

/// The inode number in a namespace link, `net:[4026531840]`.
#[must_use]
pub fn parse_namespace(link: &[u8]) -> Option<u64> {
    let open = link.iter().position(|b| *b == b'[')?;
    number(link.get(open + 1..)?.strip_suffix(b"]")?)
}

/// The arguments of a command line, which NUL bytes divide. A process that wrote over its own (`[lxc monitor] …`)
/// leaves NULs at the end; they are no arguments.
pub fn arguments(command_line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = command_line.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let used = command_line.get(..end).unwrap_or_default();
    used.split(|b| *b == 0).take(if used.is_empty() { 0 } else { usize::MAX })
}

/// One network interface of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name in that namespace; bytes that are no UTF-8 are replaced.
    pub name: String,
    /// What came in.
    pub receive: Counters,
    /// What went out.
    pub transmit: Counters,
}

/// The counters of one direction of an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets with errors.
    pub errs: u64,
    /// Packets dropped.
    pub drop: u64,
}

/// Parses `/proc/PID/net/dev`: at most [`MAX_INTERFACES`]. Names that differ only in what is no UTF-8 become the same.
#[must_use]
pub fn parse_net_dev(text: &[u8]) -> Vec<Interface> {
    lines(text).filter_map(parse_interface).take(MAX_INTERFACES).collect()
}

/// One line. The kernel allows a name neither `:` nor blanks, and pads it with blanks to the left; the last colon is
/// taken, so that a line is never divided inside a name.
fn parse_interface(line: &[u8]) -> Option<Interface> {
    let colon = memrchr(b':', line)?;
    let name = line.get(..colon)?;
    let first = name.iter().position(|b| *b != b' ')?;
    let name = String::from_utf8_lossy(name.get(first..)?).into_owned();
    let mut rest = line.get(colon + 1..)?;
    let mut next = || {
        let (number, after) = leading_number(rest);
        rest = after;
        number
    };
    // Receive: bytes packets errs drop fifo frame compressed multicast; transmit begins with the same four.
    let receive = Counters { bytes: next()?, packets: next()?, errs: next()?, drop: next()? };
    for _ in 0..4 {
        next()?;
    }
    let transmit = Counters { bytes: next()?, packets: next()?, errs: next()?, drop: next()? };
    Some(Interface { name, receive, transmit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &[u8] =
        b"4711 (CPU 0/KVM) x) (y) S 4242 1 1 0 -1 4194560 9 8 7 6 55 44 3 2 20 0 12 0 987654 1 2 3\n";

    #[test]
    fn stat_begins_after_the_last_parenthesis() {
        let stat = parse_stat(STAT).unwrap();
        assert_eq!(stat.comm, b"CPU 0/KVM) x) (y");
        assert_eq!((stat.state, stat.ppid, stat.is_exiting), (b'S', 4242, false));
        assert_eq!((stat.utime, stat.stime, stat.num_threads, stat.starttime), (55, 44, 12, 987_654));
        let exiting = String::from_utf8_lossy(STAT).replace("4194560", "4194564");
        assert!(parse_stat(exiting.as_bytes()).unwrap().is_exiting);
        assert_eq!(parse_stat(b"4711 (cut"), None);
        assert_eq!(parse_stat(b"4711 )x( S 1"), None);
    }

    #[test]
    fn status_of_a_nested_process() {
        let text = b"Name:\tx\nUid:\t1000\t0\t0\t0\nNSpid:\t77\t5\t1\nCapEff:\t00000000a80425fb\n";
        let status = parse_status(text).unwrap();
        assert_eq!((status.uid, status.pid_namespace_depth), (1000, 3));
        assert_eq!(status.effective_capabilities, 0xa804_25fb);
        assert_eq!(parse_status(b"Name:\tx\n"), None);
        assert_eq!(parse_status(b"Uid:\t1\n").unwrap().pid_namespace_depth, 1);
    }

    #[test]
    fn memberships_of_a_hybrid_host() {
        let text =
            b"4:cpu,cpuacct:/lxc.payload.u1\n1:name=systemd:/../a:b/c\n0::/x.scope (deleted)\nrubbish\n";
        let found = parse_memberships(text);
        assert_eq!(found.unified.as_deref(), Some(Path::new("x.scope")));
        assert_eq!(found.v1.get("cpuacct").map(PathBuf::as_path), Some(Path::new("lxc.payload.u1")));
        assert_eq!(found.v1.get("cpu"), found.v1.get("cpuacct"));
        assert_eq!(found.v1.get("name=systemd").map(PathBuf::as_path), Some(Path::new("a:b/c")));
        assert_eq!(parse_memberships(b"0::/\n").unified, Some(PathBuf::new()));
    }

    #[test]
    fn a_cgroup_is_known_without_the_others() {
        let text =
            b"4:cpu,cpuacct:/lxc.payload.u1\n1:name=systemd:/../a:b/c\n0::/x.scope (deleted)\nrubbish\n";
        for inside in ["lxc.payload.u1", "a:b", "a:b/c", "x.scope"] {
            assert!(is_in(text, Path::new(inside)), "{inside}");
        }
        for outside in ["lxc.payload.u", "lxc.payload.u1/x", "c", "b/c", "x.scope (deleted)", "rubbish"] {
            assert!(!is_in(text, Path::new(outside)), "{outside}");
        }
    }

    #[test]
    fn interfaces_with_hostile_names() {
        let text = b"Inter-|   Receive                                                |  Transmit\n \
face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
lo:     100       1    2    3    0     0          0         0      200       4    5    6    0     0       0          0\n\
x\",name=\"other: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
a:b: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
\xff: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
\xfe: 9 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
cut: 1 2 3\n";
        let found = parse_net_dev(text);
        let names: Vec<_> = found.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["lo", "x\",name=\"other", "a:b", "\u{fffd}", "\u{fffd}"]);
        assert_eq!(found[0].receive, Counters { bytes: 100, packets: 1, errs: 2, drop: 3 });
        assert_eq!(found[0].transmit, Counters { bytes: 200, packets: 4, errs: 5, drop: 6 });
        assert_eq!(found[3].receive.bytes, 1);
    }

    #[test]
    fn arguments_end_before_the_padding() {
        let all = |line| arguments(line).collect::<Vec<_>>();
        assert_eq!(all(b"lxc-start\0-n\0\0x\0\0\0"), [&b"lxc-start"[..], b"-n", b"", b"x"]);
        assert_eq!(all(b"[lxc monitor] /p c1\0\0\0"), [&b"[lxc monitor] /p c1"[..]]);
        assert!(all(b"\0\0").is_empty());
        assert!(all(b"").is_empty());
    }

    #[test]
    fn a_directory_answers_for_its_process_only() {
        let roots = Roots::default();
        let mut buffer = Buffer::new();
        let own = ProcDir::open(&roots, std::process::id()).unwrap();
        assert!(own.stat(&mut buffer).unwrap().starttime > 0);
        assert!(own.namespace("net").unwrap() > 0);
        let parent = ProcDir::open(&Roots::default(), std::os::unix::process::parent_id()).unwrap();
        assert_eq!(own.network().unwrap(), parent.network().unwrap());
        assert_eq!(own.pid_namespace_depth(&mut buffer).unwrap(), 1);
        assert!(!own.command_line().unwrap().is_empty());
        assert!(pids(&roots).unwrap().contains(&std::process::id()));
        assert!(ProcDir::open(&roots, u32::MAX).unwrap_err().is_gone());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_stat(&text);
            let _ = parse_status(&text);
            let _ = parse_memberships(&text);
            let _ = parse_net_dev(&text);
            let _ = parse_namespace(&text);
            let _ = arguments(&text).count();
        }

        #[test]
        fn stat_survives_any_name(name in proptest::collection::vec(any::<u8>(), 0..15)) {
            let mut text = b"1 (".to_vec();
            text.extend(&name);
            text.extend(b") R 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21");
            let stat = parse_stat(&text).unwrap();
            prop_assert_eq!((stat.comm, stat.ppid, stat.starttime), (name, 2, 20));
        }

        #[test]
        fn memberships_stay_below_the_root(path in "(/[.a-z ]{0,5}){0,6}") {
            let found = parse_memberships(format!("0::{path}").as_bytes());
            let kept = found.unified.unwrap();
            prop_assert!(kept.components().all(|part| matches!(part, Component::Normal(_))));
        }
    }
}

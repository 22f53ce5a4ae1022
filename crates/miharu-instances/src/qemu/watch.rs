//! Which processes are QEMUs, without a look at every process in every scan.
//!
//! The kernel gives out process numbers in ascending order, and tells how many it has given out (`processes` of
//! `/proc/stat`) and the last one (`/proc/loadavg`). So only the numbers between the last scan's and this one's are looked
//! at. A process forks before it becomes QEMU, so young ones are looked at again for a while; and all are listed now and
//! then, when so many were given out that the numbers may have gone round, and where they cannot be told.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use miharu_linux::Roots;
use miharu_linux::hypervisor::parse_tgid;
use miharu_linux::process::{ProcDir, Stat, Status, pids};
use miharu_linux::read::{Buffer, fields, keyed, number, number_file};

use crate::tree;
use crate::users::{Accounts, Share};

/// For how long a new process is looked at again.
const YOUNG: Duration = Duration::from_secs(10);

/// How often all processes are listed: an old process may become a QEMU, too.
const ALL: Duration = Duration::from_secs(60);

/// How often they are where the numbers given out cannot be told.
const ALL_IF_BLIND: Duration = Duration::from_secs(5);

/// The first number that the kernel gives out again after the last one, `RESERVED_PIDS` of kernel/pid.c.
const RESERVED: u32 = 300;

/// Processes and threads that may have begun and are counted nowhere when marks are compared.
const MARGIN: u64 = 1024;

/// The most QEMUs of the system that are watched.
const MAX_OF_THE_SYSTEM: usize = 10_000;

/// The most of all users.
const MAX_OF_USERS: usize = if cfg!(test) { 300 } else { 5000 };

/// The most of one [`Share`] other than root's.
const MAX_EACH: usize = if cfg!(test) { 200 } else { 1000 };

/// A process whose program is a QEMU, or the device of a QEMU's vsock.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) dir: ProcDir,
    /// When it started, ticks after boot.
    pub(super) start: u64,
    pub(super) ppid: u32,
    pub(super) uid: u32,
    /// Whose limit it counts for.
    pub(super) share: Share,
    pub(super) program: Program,
    /// Whether it was there before this watch began, or long enough that it has settled.
    pub(super) first_seen: Instant,
}

/// What a watched process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Qemu,
    /// vhost-device-vsock, which knows the socket on the host's side.
    VsockDevice,
}

/// The watch.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) processes: BTreeMap<u32, Process>,
    accounts: Accounts,
    mark: Option<Mark>,
    young: BTreeMap<u32, Instant>,
    listed: Option<Instant>,
}

/// What the kernel had given out at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Processes and threads begun since boot.
    forks: u64,
    /// The last number given out.
    last: u32,
    /// Processes and threads there are.
    tasks: u64,
    /// Numbers are below this.
    pid_max: u32,
}

/// The numbers to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Numbers {
    All,
    These(Vec<u32>),
}

impl Watch {
    /// Brings [`Watch::processes`] up to date.
    pub(super) fn look(&mut self, roots: &Roots, buffer: &mut Buffer) {
        self.processes.retain(|_, process| {
            process
                .dir
                .stat(buffer)
                .is_ok_and(|stat| stat.starttime == process.start && tree::is_alive(&stat))
        });
        let now = Instant::now();
        // The mark is taken first: what begins in between is looked at twice rather than never.
        let mark = Mark::read(roots, buffer);
        let due = match mark {
            Some(_) => ALL,
            None if roots.proc.join("self").exists() => ALL_IF_BLIND,
            // A recorded tree, in which nothing begins.
            None => Duration::ZERO,
        };
        let is_due = self.listed.is_none_or(|listed| now.duration_since(listed) >= due);
        let numbers = match (self.mark, mark) {
            _ if is_due => Numbers::All,
            (Some(before), Some(after)) => given_out(&before, &after),
            (None, Some(_)) => Numbers::All,
            (_, None) => Numbers::These(Vec::new()),
        };
        self.mark = mark;
        let (new, is_first) = match numbers {
            Numbers::All => {
                let is_first = self.listed.replace(now).is_none();
                (pids(roots).unwrap_or_default(), is_first)
            }
            Numbers::These(numbers) => (numbers, false),
        };
        self.young.retain(|_, since| now.duration_since(*since) < YOUNG);
        let again: BTreeSet<u32> = self.young.keys().copied().collect();
        for pid in again.iter().copied().chain(new.into_iter().filter(|pid| !again.contains(pid))) {
            if self.processes.contains_key(&pid) {
                continue;
            }
            match examine(roots, pid, now, &mut self.accounts, buffer) {
                Found::Process(process) if self.has_room(process.share) => {
                    self.young.remove(&pid);
                    self.processes.insert(pid, process);
                }
                // Those of the first listing are old already, most of them.
                Found::Other if !is_first => {
                    self.young.entry(pid).or_insert(now);
                }
                Found::Nobody => {
                    self.young.remove(&pid);
                }
                Found::Other | Found::Process(_) => {}
            }
        }
    }
}

impl Watch {
    /// Whether one more of those is watched: no user takes the places of others, and all of them together none of the system's.
    fn has_room(&self, share: Share) -> bool {
        let count = |is_counted: &dyn Fn(Share) -> bool| {
            self.processes.values().filter(|process| is_counted(process.share)).count()
        };
        let most = if share.is_a_users() { MAX_OF_USERS } else { MAX_OF_THE_SYSTEM };
        count(&|other| other.is_a_users() == share.is_a_users()) < most
            && (share == Share::Root || count(&|other| other == share) < MAX_EACH)
    }
}

impl Mark {
    /// Nothing where `/proc` does not tell, or tells about another pid namespace than its own: `/proc/loadavg` speaks of
    /// the reader's.
    fn read(roots: &Roots, buffer: &mut Buffer) -> Option<Self> {
        let own = buffer.read(&roots.proc.join("self/status")).ok()?;
        if miharu_linux::process::parse_status(own)?.pid_namespace_depth != 1 {
            return None;
        }
        let forks = keyed(buffer.read(&roots.proc.join("stat")).ok()?, "processes")?;
        let pid_max = number_file(buffer.read(&roots.proc.join("sys/kernel/pid_max")).ok()?)?;
        let (last, tasks) = parse_loadavg(buffer.read(&roots.proc.join("loadavg")).ok()?)?;
        Some(Self { forks, last, tasks, pid_max: u32::try_from(pid_max).ok()? })
    }
}

/// The last number given out and the count of tasks: `0.03 0.02 0.00 2/123 4567`.
pub(crate) fn parse_loadavg(text: &[u8]) -> Option<(u32, u64)> {
    let mut parts = fields(text.trim_ascii()).skip(3);
    let tasks = parts.next()?.rsplit(|b| *b == b'/').next().and_then(number)?;
    let last = parts.next().and_then(number)?;
    Some((u32::try_from(last).ok()?, tasks))
}

/// The numbers that were given out between two marks.
fn given_out(before: &Mark, after: &Mark) -> Numbers {
    let Some(forks) = after.forks.checked_sub(before.forks) else { return Numbers::All };
    // While searching for a free number the kernel skips those in use. If all that were begun and all that were there do
    // not fill the range, it cannot have gone round.
    let passed = forks.saturating_add(before.tasks.max(after.tasks)).saturating_add(MARGIN);
    let range = u64::from(after.pid_max.saturating_sub(RESERVED));
    if before.pid_max != after.pid_max || passed >= range {
        return Numbers::All;
    }
    if after.last >= before.last {
        // Nothing was given out, or no number is above another that was.
        return Numbers::These((before.last.saturating_add(1)..=after.last).collect());
    }
    let upper = before.last.saturating_add(1)..after.pid_max;
    Numbers::These(upper.chain(1..=after.last).collect())
}

/// What a number turned out to be.
enum Found {
    Process(Process),
    /// A process or thread that is no QEMU, yet.
    Other,
    Nobody,
}

fn examine(roots: &Roots, pid: u32, now: Instant, accounts: &mut Accounts, buffer: &mut Buffer) -> Found {
    let link = roots.proc.join(pid.to_string()).join("exe");
    let program = match rustix::fs::readlink(&link, Vec::new()) {
        Ok(target) => match program(target.as_bytes()) {
            Some(program) => program,
            None => return Found::Other,
        },
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            // Without the right to see the program of another user's process, its name has to do.
            let Ok(stat) = ProcDir::open(roots, pid).and_then(|dir| dir.stat(buffer)) else {
                return Found::Nobody;
            };
            match program(&stat.comm) {
                Some(program) => program,
                None => return Found::Other,
            }
        }
        Err(_) => return Found::Nobody,
    };
    let Some((dir, status, stat)) = of_the_host(roots, pid, buffer) else { return Found::Nobody };
    let (start, ppid, uid) = (stat.starttime, stat.ppid, status.uid);
    let share = accounts.share(roots, uid);
    Found::Process(Process { dir, start, ppid, uid, share, program, first_seen: now })
}

/// A process of the host itself: one in a pid namespace further down belongs to a container.
fn of_the_host(roots: &Roots, pid: u32, buffer: &mut Buffer) -> Option<(ProcDir, Status, Stat)> {
    let dir = ProcDir::open(roots, pid).ok()?;
    if parse_tgid(dir.read(buffer, "status").ok()?).is_some_and(|tgid| tgid != pid) {
        return None;
    }
    let status = dir.status(buffer).ok().filter(|status| status.pid_namespace_depth == 1)?;
    let stat = dir.stat(buffer).ok().filter(tree::is_alive)?;
    Some((dir, status, stat))
}

/// What a program's file name says.
pub(super) fn program(path: &[u8]) -> Option<Program> {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let name = Path::new(std::ffi::OsStr::from_bytes(path)).file_name()?.as_bytes();
    let is_qemu = name.starts_with(b"qemu-system-") || matches!(name, b"qemu-kvm" | b"kvm" | b"qemu-system");
    match name {
        _ if is_qemu => Some(Program::Qemu),
        b"vhost-device-vsock" => Some(Program::VsockDevice),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK: Mark = Mark { forks: 1000, last: 500, tasks: 100, pid_max: 4096 };

    #[test]
    fn only_new_numbers_are_looked_at() {
        let these = |forks, last| given_out(&MARK, &Mark { forks, last, ..MARK });
        assert_eq!(these(1000, 500), Numbers::These(vec![]));
        assert_eq!(these(1003, 503), Numbers::These(vec![501, 502, 503]));
        let Numbers::These(round) = these(1003, 2) else { panic!("all") };
        assert_eq!(round.first(), Some(&501));
        assert_eq!(round.last(), Some(&2));
        assert!(round.contains(&4095) && !round.contains(&500) && !round.contains(&3));
        assert_eq!(these(1000 + 4096, 600), Numbers::All, "they may have gone round");
        assert_eq!(these(999, 600), Numbers::All, "another boot");
    }

    #[test]
    fn programs_by_their_file() {
        for path in
            ["/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm", "/x/qemu-system-aarch64 (deleted)"]
        {
            assert_eq!(program(path.as_bytes()), Some(Program::Qemu), "{path}");
        }
        for path in ["/usr/bin/qemu-img", "/qemu-system-x/y", "", "/"] {
            assert_eq!(program(path.as_bytes()), None, "{path}");
        }
        assert_eq!(program(b"/root/.cargo/bin/vhost-device-vsock"), Some(Program::VsockDevice));
    }

    #[test]
    fn this_kernel_tells_its_numbers() {
        let (roots, mut buffer) = (Roots::default(), Buffer::new());
        let before = Mark::read(&roots, &mut buffer).unwrap();
        let thread = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get());
        let pid = u32::try_from(thread.join().unwrap()).unwrap();
        let after = Mark::read(&roots, &mut buffer).unwrap();
        if let Numbers::These(numbers) = given_out(&before, &after) {
            assert!(numbers.contains(&pid), "{before:?} {pid} {after:?}");
        }
    }

    #[test]
    fn load_averages() {
        assert_eq!(parse_loadavg(b"0.03 0.02 0.00 2/123 4567\n"), Some((4567, 123)));
        assert_eq!(parse_loadavg(b"0.03 0.02 0.00\n"), None);
    }

    proptest! {
        #[test]
        fn no_number_is_missed(last in 300u32..4096, count in 0u32..2000, used in 0u64..500) {
            let before = Mark { last, tasks: used, ..MARK };
            let mut given = Vec::new();
            let mut next = last;
            for _ in 0..count {
                next = if next + 1 >= MARK.pid_max { RESERVED } else { next + 1 };
                given.push(next);
            }
            let after = Mark { forks: MARK.forks + u64::from(count), last: next, ..before };
            if let Numbers::These(numbers) = given_out(&before, &after) {
                prop_assert!(given.iter().all(|pid| numbers.contains(pid)));
                prop_assert!(numbers.len() <= 4096);
            }
        }
    }
}

//! The process that runs a virtual machine, seen from the host: its memory, and the threads that are the guest's CPUs.

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};
use crate::process::{ProcDir, Stat, parse_stat};
use crate::read::{Buffer, fields, lines, number};

/// The most threads of one process that are looked at. QEMU starts up to 64 for input and output, and one a vCPU, of which
/// it allows 1,024 on most machines.
const MAX_THREADS: usize = 1536;

/// Memory of a process, bytes, from `/proc/PID/status`, proc_pid_status(5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// `VmRSS`: resident, huge pages of hugetlbfs not included.
    pub rss: Option<u64>,
    /// `HugetlbPages`: resident huge pages of hugetlbfs.
    pub hugetlb: Option<u64>,
    /// `VmSwap`: swapped out.
    pub swap: Option<u64>,
}

impl Memory {
    /// Reads it of an open process.
    ///
    /// # Errors
    /// As [`ProcDir::read`].
    pub fn read(process: &ProcDir, buffer: &mut Buffer) -> Result<Self> {
        Ok(parse_memory(process.read(buffer, "status")?))
    }

    /// All that is resident. A kernel without huge pages has no line for them.
    #[must_use]
    pub fn resident(&self) -> Option<u64> {
        Some(self.rss?.saturating_add(self.hugetlb.unwrap_or(0)))
    }
}

/// Parses `/proc/PID/status`; it counts in units of 1,024 bytes that it calls kB. A name in it cannot forge a line, as
/// the kernel escapes the newline.
#[must_use]
pub fn parse_memory(text: &[u8]) -> Memory {
    let bytes = |key: &[u8]| {
        let line = lines(text).find_map(|line| line.strip_prefix(key))?;
        fields(line).next().and_then(number)?.checked_mul(1024)
    };
    Memory { rss: bytes(b"VmRSS:"), hugetlb: bytes(b"HugetlbPages:"), swap: bytes(b"VmSwap:") }
}

/// The number of the process that a `/proc/PID/status` belongs to: another than the directory's where that is a thread's,
/// which can be opened though it is not listed.
#[must_use]
pub fn parse_tgid(text: &[u8]) -> Option<u32> {
    let line = lines(text).find_map(|line| line.strip_prefix(b"Tgid:"))?;
    fields(line).next().and_then(number).and_then(|tgid| u32::try_from(tgid).ok())
}

/// A thread that runs one CPU of a guest, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vcpu {
    /// The CPU's number in the guest.
    pub cpu: u32,
    /// The thread's number on the host.
    pub tid: u32,
    /// Time in user mode, ticks; the guest's own time is in it.
    pub utime: u64,
    /// Time in the host's kernel, ticks.
    pub stime: u64,
}

/// The threads of `process` that are called as QEMU calls those of vCPUs, by CPU. QEMU names threads only where it is
/// told to (`-name …,debug-threads=on`, which libvirt does); without that there are none.
///
/// # Errors
/// [`Error::Gone`] once the process has ended.
pub fn vcpus(process: &ProcDir, buffer: &mut Buffer) -> Result<Vec<Vcpu>> {
    let place = |e: rustix::io::Errno| Error::io(&process.path().join("task"), e.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(process.as_fd(), "task", flags, Mode::empty()).map_err(place)?;
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::new(directory).map_err(place)?.take(MAX_THREADS) {
        let Some(tid) = entry.ok().and_then(|entry| number(entry.file_name().to_bytes())) else { continue };
        let Ok(tid) = u32::try_from(tid) else { continue };
        // Threads come and go.
        let Ok(stat) = thread(process, tid, buffer) else { continue };
        if let Some(cpu) = vcpu_number(&stat.comm) {
            found.push(Vcpu { cpu, tid, utime: stat.utime, stime: stat.stime });
        }
    }
    found.sort_by_key(|vcpu| (vcpu.cpu, vcpu.tid));
    found.dedup_by_key(|vcpu| vcpu.cpu);
    Ok(found)
}

/// The times of threads that are known to be vCPUs, such as from QMP's `query-cpus-fast`: pairs of CPU and thread. One
/// thread that runs several CPUs is counted once, as the first of them.
///
/// # Errors
/// [`Error::Gone`] once the process has ended.
pub fn vcpus_of(process: &ProcDir, threads: &[(u32, u32)], buffer: &mut Buffer) -> Result<Vec<Vcpu>> {
    process.read(buffer, "stat")?;
    let mut threads = threads.to_vec();
    threads.sort_unstable();
    let mut seen = std::collections::HashSet::new();
    threads.retain(|(_, tid)| seen.insert(*tid));
    threads.dedup_by_key(|(cpu, _)| *cpu);
    let time = |(cpu, tid): (u32, u32)| {
        let stat = thread(process, tid, buffer).ok()?;
        Some(Vcpu { cpu, tid, utime: stat.utime, stime: stat.stime })
    };
    Ok(threads.into_iter().filter_map(time).collect())
}

fn thread(process: &ProcDir, tid: u32, buffer: &mut Buffer) -> Result<Stat> {
    let name = format!("task/{tid}/stat");
    let text = process.read(buffer, &name)?;
    parse_stat(text).ok_or_else(|| Error::Parse { path: process.path().join(&name), what: "a thread" })
}

/// The CPU of a thread that is called `CPU 3/KVM` or `CPU 3/TCG`, `ALL CPUs/TCG` being one thread for all of them. The
/// kernel cuts names after 15 bytes, so the accelerator may be cut, but never the number of a CPU below 10,000,000,000.
#[must_use]
pub fn vcpu_number(comm: &[u8]) -> Option<u32> {
    if comm.starts_with(b"ALL CPUs/") {
        return Some(0);
    }
    let rest = comm.strip_prefix(b"CPU ")?;
    let slash = rest.iter().position(|b| *b == b'/')?;
    u32::try_from(number(rest.get(..slash)?)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Roots;

    #[test]
    fn memory_of_a_status() {
        let text = b"Name:\tVmRSS:\\n1\nTgid:\t77\nPid:\t78\nVmPeak:\t  10 kB\nVmRSS:\t  2048 kB\nVmSwap:\t       4 kB\nHugetlbPages:\t   6144 kB\n";
        let memory = parse_memory(text);
        assert_eq!(memory, Memory { rss: Some(2 << 20), hugetlb: Some(6 << 20), swap: Some(4096) });
        assert_eq!(memory.resident(), Some(8 << 20));
        assert_eq!(parse_memory(b"Name:\tkthreadd\n"), Memory::default());
        assert_eq!(Memory::default().resident(), None);
        assert_eq!(parse_tgid(text), Some(77));
    }

    #[test]
    fn names_of_vcpu_threads() {
        assert_eq!(vcpu_number(b"CPU 0/KVM"), Some(0));
        assert_eq!(vcpu_number(b"CPU 127/TCG"), Some(127));
        assert_eq!(vcpu_number(b"ALL CPUs/TCG"), Some(0));
        for other in
            [&b"CPU /KVM"[..], b"CPU 1", b"qemu-system-x86", b"IO mon_iothread", b"CPU x/KVM", b"\xff"]
        {
            assert_eq!(vcpu_number(other), None);
        }
    }

    #[test]
    fn threads_of_a_recorded_process() {
        let base = tempfile::tempdir().unwrap();
        let stat = |tid: u32, comm: &str, utime: u32| {
            let directory = base.path().join(format!("proc/70/task/{tid}"));
            std::fs::create_dir_all(&directory).unwrap();
            let text = format!("{tid} ({comm}) S 1 1 1 0 -1 0 0 0 0 0 {utime} 4 0 0 20 0 5 0 99 0 0\n");
            std::fs::write(directory.join("stat"), &text).unwrap();
            if tid == 70 {
                std::fs::write(base.path().join("proc/70/stat"), text).unwrap();
            }
        };
        stat(70, "qemu-vm", 1);
        stat(75, "CPU 10/KVM", 10);
        stat(74, "CPU 2/KVM", 20);
        stat(76, "worker", 30);
        std::fs::create_dir_all(base.path().join("proc/70/task/80")).unwrap();
        let mut buffer = Buffer::new();
        let process = ProcDir::open(&Roots::at(base.path()), 70).unwrap();
        let found = vcpus(&process, &mut buffer).unwrap();
        let expected =
            [Vcpu { cpu: 2, tid: 74, utime: 20, stime: 4 }, Vcpu { cpu: 10, tid: 75, utime: 10, stime: 4 }];
        assert_eq!(found, expected);
        let named = vcpus_of(&process, &[(1, 76), (0, 76), (2, 99), (3, 74)], &mut buffer).unwrap();
        assert_eq!(named.iter().map(|vcpu| (vcpu.cpu, vcpu.tid)).collect::<Vec<_>>(), [(0, 76), (3, 74)]);
        std::fs::remove_dir_all(base.path().join("proc/70")).unwrap();
        assert!(vcpus(&process, &mut buffer).unwrap_err().is_gone());
    }

    #[test]
    fn this_process_has_memory_and_no_vcpus() {
        let process = ProcDir::open(&Roots::default(), std::process::id()).unwrap();
        let mut buffer = Buffer::new();
        assert!(Memory::read(&process, &mut buffer).unwrap().resident().unwrap() > 100_000);
        assert!(vcpus(&process, &mut buffer).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_memory(&text).resident();
            let _ = parse_tgid(&text);
            let _ = vcpu_number(&text);
        }
    }
}

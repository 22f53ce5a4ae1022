//! One report out of all sources.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use miharu_api::Report;
use miharu_api::report::AGENT;
use miharu_linux::Roots;
use miharu_linux::host::CpuList;
use miharu_linux::read::Buffer;

use crate::filesystems::Filesystems;
use crate::{cpu, disks, memory, network, pressure, processes};

/// Makes reports of a guest, one at a time.
#[derive(Debug)]
pub struct Reporter {
    roots: Roots,
    filesystems: Filesystems,
    ticks_per_second: u64,
    /// Held while a report is made: a second connection waits for the first one's.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    buffer: Buffer,
    steady: cpu::Steady,
}

impl Reporter {
    /// A reporter of the guest whose file trees are at `roots`.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self {
            filesystems: Filesystems::new(&roots),
            roots,
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            state: Mutex::default(),
        }
    }

    /// Reads everything anew. What cannot be read is absent.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { buffer, steady } = &mut *state;
        let (roots, proc, sys) = (&self.roots, &self.roots.proc, &self.roots.sys);
        let parse_stat = |text: &[u8]| cpu::parse(text, self.ticks_per_second, steady);
        let stat = buffer.read(&proc.join("stat")).map(parse_stat).unwrap_or_default();
        let online = buffer.read(&sys.join("devices/system/cpu/online")).ok().and_then(CpuList::parse);
        let mut figures = buffer.read(&proc.join("meminfo")).map(memory::parse).unwrap_or_default();
        if let Ok(text) = buffer.read(&proc.join("vmstat")) {
            figures = memory::with_counters(figures, text);
        }
        Report {
            agent: Some(AGENT.to_owned()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            cpus: online.map(|list| u64::from(list.count())).filter(|count| *count > 0),
            cpu: stat.cpus,
            disk: buffer
                .read(&proc.join("diskstats"))
                .map(|text| disks::read(roots, text))
                .unwrap_or_default(),
            memory: figures,
            network: network::read(roots, buffer).unwrap_or_default(),
            procs_total: processes::count(roots, buffer),
            boot_time_seconds: stat.boot_time.map(|seconds| seconds as f64),
            boot_id: line(buffer, roots, "sys/kernel/random/boot_id"),
            pressure: pressure::read(roots, buffer),
            // The kernel's word for a name that nobody has set.
            hostname: line(buffer, roots, "sys/kernel/hostname").filter(|name| name != "(none)"),
            // Last, as it may wait for something that hangs.
            filesystem: self.filesystems.read(roots, buffer).unwrap_or_default(),
            time_seconds: SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|now| now.as_secs_f64()),
        }
    }
}

/// The one line of a file below `/proc`.
fn line(buffer: &mut Buffer, roots: &Roots, path: &str) -> Option<String> {
    let text = buffer.read(&roots.proc.join(path)).ok()?;
    Some(String::from_utf8_lossy(text.trim_ascii()).into_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_this_machine() {
        let reporter = Reporter::new(Roots::default());
        let (first, second) = (reporter.report(), reporter.report());
        assert_eq!(first.agent.as_deref(), Some("miharu"));
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
        assert_eq!(first.cpus, CpuList::parse(online.as_bytes()).map(|list| u64::from(list.count())));
        assert_eq!(first.cpu.len() as u64, first.cpus.unwrap());
        assert!(first.memory.memory_mem_total_bytes > first.memory.memory_mem_free_bytes);
        assert!(first.filesystem.iter().any(|row| row.mountpoint == "/"));
        assert!(first.network.iter().any(|row| row.device == "lo"));
        assert!(first.procs_total > Some(1));
        assert_eq!((first.boot_time_seconds, &first.boot_id), (second.boot_time_seconds, &second.boot_id));
        assert!(first.boot_id.is_some() && first.boot_time_seconds < first.time_seconds);
        for (before, after) in first.cpu.iter().zip(&second.cpu) {
            assert!(before.cpu_seconds_idle <= after.cpu_seconds_idle);
        }
    }

    #[test]
    fn nothing_to_read_is_no_failure() {
        let base = tempfile::tempdir().unwrap();
        let report = Reporter::new(Roots::at(base.path())).report();
        assert_eq!((report.cpus, report.procs_total, report.boot_time_seconds), (None, None, None));
        assert!(report.disk.is_empty() && report.filesystem.is_empty());
    }
}

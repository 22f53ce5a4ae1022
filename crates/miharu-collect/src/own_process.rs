//! The standard `process_*` figures of the daemon itself.

use std::path::Path;
use std::time::Duration;

use miharu_linux::Roots;
use miharu_linux::host::HostFacts;
use miharu_linux::read::{Buffer, fields, number};
use miharu_metrics::server::Process;

/// Reads them off `/proc/self`; what cannot be read is absent.
#[must_use]
pub fn own_process(roots: &Roots, host: &HostFacts) -> Process {
    let own = roots.proc.join("self");
    let mut buffer = Buffer::new();
    let ticks = host.ticks_per_second;
    let stat = buffer.read(&own.join("stat")).ok().and_then(miharu_linux::process::parse_stat);
    let pages = buffer.read(&own.join("statm")).ok().and_then(|text| {
        let mut numbers = fields(text.trim_ascii()).map(number);
        Some((numbers.next()??, numbers.next()??))
    });
    let bytes = |pages: u64| pages.saturating_mul(rustix::param::page_size() as u64);
    Process {
        cpu: stat.as_ref().and_then(|stat| ticks_to_time(stat.utime.saturating_add(stat.stime), ticks)),
        max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        open_fds: open_fds(&own.join("fd")),
        resident_memory_bytes: pages.map(|(_, resident)| bytes(resident)),
        start_time_seconds: stat.and_then(|stat| start_time(stat.starttime, host)),
        virtual_memory_bytes: pages.map(|(all, _)| bytes(all)),
    }
}

/// A number of clock ticks as a time.
pub(crate) fn ticks_to_time(ticks: u64, ticks_per_second: u64) -> Option<Duration> {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(ticks_per_second.max(1));
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// When a process started, in seconds since the epoch: `ticks` is field 22 of `/proc/PID/stat`, since the host's boot.
pub(crate) fn start_time(ticks: u64, host: &HostFacts) -> Option<f64> {
    let since_boot = ticks_to_time(ticks, host.ticks_per_second)?;
    // Hundredths of a second are all that the kernel tells; more digits would be noise of the sum.
    let seconds = Duration::from_secs(host.boot_time?).checked_add(since_boot)?.as_secs_f64();
    Some((seconds * 100.0).round() / 100.0)
}

/// How many descriptors are open. Since Linux 6.2 the directory's size tells; before that they are counted.
fn open_fds(directory: &Path) -> Option<u64> {
    let size = std::fs::metadata(directory).ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // One of them is the listing's own.
    std::fs::read_dir(directory).ok().map(|list| (list.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_as_it_is() {
        let roots = Roots::default();
        let host = HostFacts::read(&roots, &mut Buffer::new());
        let process = own_process(&roots, &host);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - process.start_time_seconds.unwrap()).abs() < 120.0);
        let (resident, all) = (process.resident_memory_bytes.unwrap(), process.virtual_memory_bytes.unwrap());
        assert!(resident > 100_000 && resident < all);
        assert!(process.open_fds.unwrap() >= 3 && process.open_fds.unwrap() < process.max_fds.unwrap());
    }

    #[test]
    fn ticks_never_overflow() {
        assert_eq!(ticks_to_time(150, 100), Some(Duration::from_millis(1500)));
        assert_eq!(ticks_to_time(u64::MAX, 1), None);
        assert_eq!(ticks_to_time(7, 0), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_start_is_told_to_the_hundredth() {
        let host =
            HostFacts { boot_time: Some(1_700_000_000), ticks_per_second: 100, ..HostFacts::default() };
        assert_eq!(start_time(12_345, &host), Some(1_700_000_123.45));
        assert_eq!(start_time(12_345, &HostFacts::default()), None);
    }
}

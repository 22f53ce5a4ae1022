//! What is read of the host once a collection: memory, CPUs, huge pages, boot time.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::read::{Buffer, fields, keyed, number, number_file};
use crate::roots::Roots;

/// Facts of the host that several instances' figures need. What could not be read is absent.
#[derive(Debug, Default)]
pub struct HostFacts {
    /// MemTotal of `/proc/meminfo`, bytes.
    pub mem_total: Option<u64>,
    /// MemAvailable of `/proc/meminfo`, bytes.
    pub mem_available: Option<u64>,
    /// `btime` of `/proc/stat`: when the host booted, seconds since the epoch.
    pub boot_time: Option<u64>,
    /// `/proc/uptime`: how long the host has been up, time asleep included.
    pub uptime: Option<Duration>,
    /// Clock ticks a second, the unit of times in `/proc/PID/stat`: `sysconf(_SC_CLK_TCK)`.
    pub ticks_per_second: u64,
    /// CPUs that are plugged in: `/sys/devices/system/cpu/present`.
    pub cpus_present: Option<CpuList>,
    /// CPUs that run: `/sys/devices/system/cpu/online`.
    pub cpus_online: Option<CpuList>,
    /// Pools of huge pages, by size.
    pub huge_pages: Vec<HugePages>,
    /// Files that are there, or should be, and gave nothing.
    pub problems: Vec<Error>,
}

/// The host's pool of huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    /// Bytes a page.
    pub page_size: u64,
    /// `nr_hugepages`: pages in the pool.
    pub pages: u64,
}

/// A set of CPUs, as the kernel lists them: `0-3,7`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuList {
    ranges: Vec<RangeInclusive<u32>>,
}

impl CpuList {
    /// Parses the kernel's list format; an empty text is the empty set. Nothing when it is not a list. See "List format"
    /// in <https://docs.kernel.org/admin-guide/cputopology.html>.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut ranges = Vec::new();
        for piece in text.split(|b| *b == b',') {
            let mut ends = piece.splitn(2, |b| *b == b'-').map(cpu_number);
            let first = ends.next()??;
            let last = ends.next().unwrap_or(Some(first))?;
            if last < first {
                return None;
            }
            ranges.push(first..=last);
        }
        Some(Self::from_ranges(ranges))
    }

    /// Joins what overlaps, so that no CPU counts twice.
    fn from_ranges(mut ranges: Vec<RangeInclusive<u32>>) -> Self {
        ranges.sort_by_key(|range| *range.start());
        let mut joined: Vec<RangeInclusive<u32>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start() <= last.end() => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => joined.push(range),
            }
        }
        Self { ranges: joined }
    }

    /// How many CPUs are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        let size = |range: &RangeInclusive<u32>| range.end().saturating_sub(*range.start()).saturating_add(1);
        self.ranges.iter().map(size).fold(0, u32::saturating_add)
    }

    /// Whether `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.ranges.iter().any(|range| range.contains(&cpu))
    }

    /// Whether no CPU is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl HostFacts {
    /// Reads them all.
    #[must_use]
    pub fn read(roots: &Roots, buffer: &mut Buffer) -> Self {
        let mut facts = Self { ticks_per_second: rustix::param::clock_ticks_per_second(), ..Self::default() };
        if let Some(text) = facts.text(&roots.proc.join("meminfo"), buffer) {
            let (total, available) = parse_meminfo(text);
            (facts.mem_total, facts.mem_available) = (total, available);
        }
        if let Some(text) = facts.text(&roots.proc.join("stat"), buffer) {
            facts.boot_time = keyed(text, "btime");
        }
        if let Some(text) = facts.text(&roots.proc.join("uptime"), buffer) {
            facts.uptime = parse_uptime(text);
        }
        let cpus = roots.sys.join("devices/system/cpu");
        facts.cpus_present = facts.text(&cpus.join("present"), buffer).and_then(CpuList::parse);
        facts.cpus_online = facts.text(&cpus.join("online"), buffer).and_then(CpuList::parse);
        facts.read_huge_pages(&roots.sys.join("kernel/mm/hugepages"), buffer);
        facts
    }

    /// The file's text; where there is none, that is one of the problems.
    fn text<'b>(&mut self, path: &Path, buffer: &'b mut Buffer) -> Option<&'b [u8]> {
        buffer.read(path).map_err(|e| self.problems.push(e)).ok()
    }

    /// A kernel without huge pages has no such directory, and that is no problem.
    fn read_huge_pages(&mut self, directory: &Path, buffer: &mut Buffer) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let Some(page_size) = entry.file_name().to_str().and_then(page_size) else { continue };
            let count = self.text(&entry.path().join("nr_hugepages"), buffer).and_then(number_file);
            if let Some(pages) = count {
                self.huge_pages.push(HugePages { page_size, pages });
            }
        }
        self.huge_pages.sort_by_key(|pool| pool.page_size);
    }
}

impl HugePages {
    /// Bytes in the pool.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.page_size.saturating_mul(self.pages)
    }
}

fn cpu_number(field: &[u8]) -> Option<u32> {
    number(field).and_then(|n| u32::try_from(n).ok())
}

/// MemTotal and MemAvailable in bytes; `/proc/meminfo` counts in units of 1,024 bytes that it calls kB.
#[must_use]
pub fn parse_meminfo(text: &[u8]) -> (Option<u64>, Option<u64>) {
    let bytes = |key| keyed(text, key).and_then(|kib: u64| kib.checked_mul(1024));
    (bytes("MemTotal:"), bytes("MemAvailable:"))
}

/// The first number of `/proc/uptime`, seconds with two decimals.
#[must_use]
pub fn parse_uptime(text: &[u8]) -> Option<Duration> {
    let first = fields(text.trim_ascii()).next()?;
    let mut parts = first.splitn(2, |b| *b == b'.');
    let seconds = number(parts.next()?)?;
    let hundredths = parts.next().map_or(Some(0), number).filter(|n| *n < 100)?;
    Duration::from_secs(seconds).checked_add(Duration::from_millis(hundredths * 10))
}

/// The page size in bytes of a directory called `hugepages-2048kB`.
fn page_size(directory: &str) -> Option<u64> {
    let kib = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?;
    number(kib.as_bytes())?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpu_lists_as_the_kernel_writes_them() {
        let list = CpuList::parse(b"0-3,7\n").unwrap();
        assert_eq!(list.count(), 5);
        assert!(list.contains(3) && list.contains(7) && !list.contains(4) && !list.contains(8));
        assert_eq!(CpuList::parse(b"0\n").unwrap().count(), 1);
        assert_eq!(CpuList::parse(b"\n").unwrap().count(), 0);
        assert_eq!(CpuList::parse(b"1-3,2-5,2").unwrap().count(), 5, "overlaps count once");
        assert_eq!(CpuList::parse(b"0-4294967295").unwrap().count(), u32::MAX);
        for bad in ["x", "3-1", "1,", "-", "1-2-3", "99999999999", "0-3 7"] {
            assert_eq!(CpuList::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn meminfo_counts_in_kibibytes() {
        let text = b"MemTotal:       24684084 kB\nMemFree:        23344828 kB\nMemAvailable:   23864564 kB\n";
        assert_eq!(parse_meminfo(text), (Some(25_276_502_016), Some(24_437_313_536)));
        assert_eq!(parse_meminfo(b"MemTotal: 99999999999999999999 kB\n"), (None, None));
    }

    #[test]
    fn uptime_has_two_decimals() {
        assert_eq!(parse_uptime(b"787.39 1271.88\n"), Some(Duration::from_millis(787_390)));
        assert_eq!(parse_uptime(b"5\n"), Some(Duration::from_secs(5)));
        assert_eq!(parse_uptime(b"\n"), None);
        assert_eq!(parse_uptime(b"1.999 2\n"), None);
    }

    #[test]
    fn a_recorded_host_is_read_whole() {
        let base = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = base.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 500 kB\n");
        put("proc/stat", "cpu  1 2 3\nintr 5 6\nbtime 1763655000\n");
        put("proc/uptime", "10.50 20.00\n");
        put("sys/devices/system/cpu/present", "0-3\n");
        put("sys/devices/system/cpu/online", "0-1,3\n");
        put("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
        put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n");
        let facts = HostFacts::read(&Roots::at(base.path()), &mut Buffer::new());
        assert!(facts.problems.is_empty(), "{:?}", facts.problems);
        assert_eq!((facts.mem_total, facts.mem_available), (Some(1_024_000), Some(512_000)));
        assert_eq!(facts.boot_time, Some(1_763_655_000));
        assert_eq!(facts.uptime, Some(Duration::from_millis(10_500)));
        assert_eq!(facts.cpus_present.unwrap().count(), 4);
        assert_eq!(facts.cpus_online.unwrap().count(), 3);
        let pools: Vec<_> = facts.huge_pages.iter().map(|p| (p.page_size, p.bytes())).collect();
        assert_eq!(pools, [(2 << 20, 128 << 20), (1 << 30, 0)]);
    }

    #[test]
    fn what_is_missing_is_a_problem_with_its_path_and_no_figure() {
        let base = tempfile::tempdir().unwrap();
        let facts = HostFacts::read(&Roots::at(base.path()), &mut Buffer::new());
        assert_eq!(facts.mem_total, None);
        assert_eq!(facts.problems.len(), 5, "meminfo, stat, uptime, present, online");
        assert!(facts.problems[0].to_string().contains("proc/meminfo"));
        assert!(facts.ticks_per_second > 0);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(list) = CpuList::parse(&text) {
                prop_assert!(list.is_empty() || list.count() > 0);
            }
            let _ = (parse_meminfo(&text), parse_uptime(&text));
        }

        #[test]
        fn a_cpu_list_holds_exactly_its_cpus(cpus in proptest::collection::btree_set(0u32..500, 0..40)) {
            let text = cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let list = CpuList::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(list.count() as usize, cpus.len());
            prop_assert!((0..500).all(|cpu| list.contains(cpu) == cpus.contains(&cpu)));
        }
    }
}

//! The texts of v1 control files, from bytes to figures: no file is opened here. Mirrors `v2::parse`.

use crate::cgroup::figures::{CpuTime, Io, Limit, Memory, Throttling};
use crate::cgroup::parse::{device_entry, device_number};
use crate::host::CpuList;
use crate::text::{fields, leading_number, lines, number, number_file, pairs};

/// `cpuacct.usage_all`: a heading `cpu user system`, then a line for every CPU that could ever be plugged in. Those that
/// are neither present nor were ever used are left out.
#[must_use]
pub fn usage_all(text: &[u8], present: Option<&CpuList>) -> Option<Vec<CpuTime>> {
    let mut rows = lines(text);
    if !fields(rows.next()?).take(3).eq([b"cpu".as_slice(), b"user", b"system"]) {
        return None;
    }
    let wanted = |time: &CpuTime| {
        time.user_ns > 0 || time.system_ns > 0 || present.is_none_or(|present| present.contains(time.cpu))
    };
    let mut times: Vec<CpuTime> = Vec::new();
    for time in rows.filter_map(cpu_time).filter(wanted) {
        let at = times.partition_point(|known| known.cpu < time.cpu);
        match times.get_mut(at) {
            Some(known) if known.cpu == time.cpu => *known = time,
            // The kernel counts upwards, so that this is the end.
            _ => times.insert(at, time),
        }
    }
    Some(times)
}

/// A line `0 71998008 0`.
fn cpu_time(row: &[u8]) -> Option<CpuTime> {
    let (cpu, rest) = leading_number(row);
    let (user_ns, rest) = leading_number(rest);
    let (system_ns, _) = leading_number(rest);
    Some(CpuTime { cpu: cpu?.try_into().ok()?, user_ns: user_ns?, system_ns: system_ns? })
}

/// `cpu.stat` of v1, `throttled_time` in nanoseconds.
#[must_use]
pub fn cpu_stat(text: &[u8]) -> Option<Throttling> {
    let (mut periods, mut throttled, mut time) = (None, None, None);
    for (key, value) in pairs(text) {
        match key {
            b"nr_periods" => periods = value,
            b"nr_throttled" => throttled = value,
            b"throttled_time" => time = value,
            _ => {}
        }
    }
    Some(Throttling { periods: periods?, throttled_periods: throttled?, throttled_ns: time? })
}

/// `cpu.cfs_quota_us`: microseconds, -1 for no limit.
#[must_use]
pub fn quota(text: &[u8]) -> Option<Limit> {
    match text.trim_ascii() {
        b"-1" => Some(Limit::Max),
        other => number(other).map(Limit::Value),
    }
}

/// v1 has no word for "no limit": it shows the largest number of bytes that its counters hold, rounded down to whole
/// pages, whose size depends on the machine and, for hugetlb, on the file (up to gigabytes). Nobody has 4 EiB.
const UNLIMITED: u64 = 1 << 62;

/// A limit in bytes.
#[must_use]
pub fn limit(text: &[u8]) -> Option<Limit> {
    number_file(text).map(from_bytes)
}

fn from_bytes(bytes: u64) -> Limit {
    if bytes >= UNLIMITED { Limit::Max } else { Limit::Value(bytes) }
}

/// The `total_*` figures of `memory.stat`, which include child cgroups, and `hierarchical_memory_limit`, the smallest
/// limit up the tree.
#[must_use]
pub fn memory_stat(text: &[u8]) -> (Memory, Option<Limit>) {
    let (mut memory, mut hierarchical) = (Memory::default(), None);
    for (key, value) in pairs(text) {
        let Some(key) = key.strip_prefix(b"total_") else {
            if key == b"hierarchical_memory_limit" {
                hierarchical = value.map(from_bytes);
            }
            continue;
        };
        match key {
            b"rss" => memory.anon = value,
            b"cache" => memory.file = value,
            b"dirty" => memory.file_dirty = value,
            b"writeback" => memory.file_writeback = value,
            b"mapped_file" => memory.file_mapped = value,
            b"shmem" => memory.shmem = value,
            b"swap" => memory.swap = value,
            b"active_anon" => memory.active_anon = value,
            b"active_file" => memory.active_file = value,
            b"inactive_anon" => memory.inactive_anon = value,
            b"inactive_file" => memory.inactive_file = value,
            b"unevictable" => memory.unevictable = value,
            b"pgmajfault" => memory.pgmajfault = value,
            _ => {}
        }
    }
    (memory, hierarchical)
}

/// `oom_kill` of `memory.oom_control` (kernel 4.13).
#[must_use]
pub fn oom_kill(text: &[u8]) -> Option<u64> {
    pairs(text).find(|(key, _)| key == b"oom_kill").and_then(|(_, value)| value)
}

/// Puts a blkio file's `8:0 Read 4096` and `8:0 Write 512` where `fields_of` says; `Sync`, `Async`, `Discard` and `Total`
/// say nothing new.
pub fn blkio(
    text: &[u8],
    devices: &mut Vec<Io>,
    fields_of: impl Fn(&mut Io) -> (&mut Option<u64>, &mut Option<u64>),
) {
    for line in lines(text) {
        let mut parts = fields(line);
        let (device, operation) = (parts.next(), parts.next());
        if !matches!(operation, Some(b"Read" | b"Write")) {
            continue;
        }
        let Some(device) = device.and_then(device_number) else { continue };
        let Some(value) = parts.next().and_then(number) else { continue };
        let Some(io) = device_entry(devices, device) else { continue };
        let (read, written) = fields_of(io);
        match operation {
            Some(b"Read") => *read = Some(value),
            _ => *written = Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usage_of_every_cpu_that_is_there_or_was_used() {
        let text = b"cpu user system\n0 0 7971411\n1 0 0\n2 5 0\n3 0 0\n";
        let present = CpuList::parse(b"0-1").unwrap();
        let time = |cpu, user_ns, system_ns| CpuTime { cpu, user_ns, system_ns };
        assert_eq!(
            usage_all(text, Some(&present)).unwrap(),
            [time(0, 0, 7_971_411), time(1, 0, 0), time(2, 5, 0)]
        );
        assert_eq!(usage_all(text, None).unwrap().len(), 4, "with the present ones unknown, all");
    }

    #[test]
    fn usage_is_in_numeric_order_without_broken_lines() {
        let text = b"cpu user system\n10 1 1\n9 1 1\n11 1\nx 1 1\n9 2 2\n4294967296 1 1\n";
        let times = usage_all(text, None).unwrap();
        assert_eq!(times.iter().map(|t| (t.cpu, t.user_ns)).collect::<Vec<_>>(), [(9, 2), (10, 1)]);
        assert_eq!(usage_all(b"0 1 2\n", None), None, "another file's form");
        assert_eq!(usage_all(b"", None), None);
    }

    #[test]
    fn throttled_time_is_nanoseconds() {
        let text = b"nr_periods 7\nnr_throttled 2\nthrottled_time 123456789\nnr_bursts 0\nburst_time 0\n";
        let expected = Throttling { periods: 7, throttled_periods: 2, throttled_ns: 123_456_789 };
        assert_eq!(cpu_stat(text), Some(expected));
        assert_eq!(cpu_stat(b"nr_periods 7\n"), None);
    }

    #[test]
    fn no_limit_in_each_of_its_forms() {
        assert_eq!(quota(b"-1\n"), Some(Limit::Max));
        assert_eq!(quota(b"50000\n"), Some(Limit::Value(50_000)));
        assert_eq!(quota(b"-2\n"), None);
        // Pages of 4 KiB and 64 KiB, huge pages of 2 MiB and 1 GiB, and kernels before 3.19.
        for page in [4096, 65536, 2 << 20, 1 << 30] {
            let shown = (i64::MAX as u64 / page) * page;
            assert_eq!(limit(shown.to_string().as_bytes()), Some(Limit::Max), "{page}");
        }
        assert_eq!(limit(u64::MAX.to_string().as_bytes()), Some(Limit::Max));
        assert_eq!(limit(b"1099511627776\n"), Some(Limit::Value(1 << 40)));
        assert_eq!(limit(b"max\n"), None);
    }

    #[test]
    fn memory_stat_takes_the_totals() {
        let text = b"cache 1\nrss 2\nhierarchical_memory_limit 9223372036854771712\ntotal_cache 20\n\
            total_rss 10\ntotal_shmem 3\ntotal_swap 4\ntotal_inactive_anon 5\ntotal_active_anon 6\n\
            total_inactive_file 7\ntotal_active_file 8\ntotal_pgmajfault 9\n";
        let (memory, limit) = memory_stat(text);
        assert_eq!(limit, Some(Limit::Max));
        assert_eq!((memory.anon, memory.file, memory.shmem), (Some(10), Some(20), Some(3)));
        assert_eq!((memory.swap, memory.pgmajfault), (Some(4), Some(9)));
        assert_eq!((memory.active(), memory.inactive()), (Some(14), Some(12)));
        assert_eq!(memory.slab_reclaimable, None, "v1 does not tell");
    }

    #[test]
    fn a_kernel_without_oom_kill_has_none() {
        assert_eq!(oom_kill(b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(oom_kill(b"oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    fn bytes(text: &[u8]) -> Vec<Io> {
        let mut devices = Vec::new();
        blkio(text, &mut devices, |io| (&mut io.read_bytes, &mut io.written_bytes));
        devices
    }

    #[test]
    fn blkio_by_device_and_operation() {
        let text = b"8:16 Read 5\n8:16 Write 6\n8:16 Sync 7\n8:16 Async 0\n8:16 Discard 0\n8:16 Total 11\n\
            8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 14\n";
        let io = |minor, read, written| Io {
            major: 8,
            minor,
            read_bytes: Some(read),
            written_bytes: Some(written),
            ..Io::default()
        };
        assert_eq!(bytes(text), [io(0, 1, 2), io(16, 5, 6)]);
    }

    #[test]
    fn blkio_that_is_off_has_no_device() {
        assert_eq!(bytes(b"Total 0\n"), []);
        assert_eq!(bytes(b"8:0 Total 9\nTotal 9\n"), []);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (usage_all(&text, None), cpu_stat(&text), quota(&text), limit(&text));
            let _ = (memory_stat(&text), oom_kill(&text), bytes(&text));
        }

        #[test]
        fn usage_all_comes_back(times in proptest::collection::btree_map(0u32..300, any::<(u64, u64)>(), 0..40)) {
            let mut text = "cpu user system\n".to_owned();
            times.iter().for_each(|(cpu, (user, system))| text += &format!("{cpu} {user} {system}\n"));
            let expected: Vec<_> =
                times.iter().map(|(&cpu, &(user_ns, system_ns))| CpuTime { cpu, user_ns, system_ns }).collect();
            prop_assert_eq!(usage_all(text.as_bytes(), None), Some(expected));
        }

        #[test]
        fn blkio_comes_back(devices in proptest::collection::btree_map(
            (0u32..4096, 0u32..1 << 20), any::<(u64, u64)>(), 0..10,
        )) {
            let mut text = String::new();
            for ((major, minor), (read, written)) in &devices {
                text += &format!("{major}:{minor} Read {read}\n{major}:{minor} Write {written}\n");
            }
            let expected: Vec<_> = devices
                .iter()
                .map(|(&(major, minor), &(read, written))| Io {
                    major, minor, read_bytes: Some(read), written_bytes: Some(written), ..Io::default()
                })
                .collect();
            prop_assert_eq!(bytes((text + "Total 0\n").as_bytes()), expected);
        }
    }
}

//! The texts of v2 control files, from bytes to figures: no file is opened here. Mirrors `v1::parse`.

use crate::cgroup::cores;
use crate::cgroup::figures::{CpuTime, Io, Limit, Memory, Throttling};
use crate::cgroup::parse::{device_entry, device_number};
use crate::text::{fields, lines, number, pairs};

/// `cpu.stat`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CpuStat {
    user_usec: Option<u64>,
    system_usec: Option<u64>,
    nr_periods: Option<u64>,
    nr_throttled: Option<u64>,
    throttled_usec: Option<u64>,
}

impl CpuStat {
    /// The file's times are microseconds; without the cpu controller it has no `nr_*` and `throttled_usec`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut stat = Self::default();
        for (key, value) in pairs(text) {
            match key {
                b"user_usec" => stat.user_usec = value,
                b"system_usec" => stat.system_usec = value,
                b"nr_periods" => stat.nr_periods = value,
                b"nr_throttled" => stat.nr_throttled = value,
                b"throttled_usec" => stat.throttled_usec = value,
                _ => {}
            }
        }
        stat
    }

    /// User and system time of all CPUs together, in nanoseconds; absent when one of them is.
    #[must_use]
    pub fn time(&self) -> Option<CpuTime> {
        let user_ns = self.user_usec?.checked_mul(1000)?;
        let system_ns = self.system_usec?.checked_mul(1000)?;
        Some(CpuTime { cpu: 0, user_ns, system_ns })
    }

    /// Throttling; absent without the cpu controller.
    #[must_use]
    pub fn throttling(&self) -> Option<Throttling> {
        let throttled_ns = self.throttled_usec?.checked_mul(1000)?;
        Some(Throttling { periods: self.nr_periods?, throttled_periods: self.nr_throttled?, throttled_ns })
    }
}

/// `cpu.max` in cores: `50000 100000` is half a one, `max 100000` none.
#[must_use]
pub fn cpu_max(text: &[u8]) -> Option<Option<f64>> {
    let mut parts = fields(text.trim_ascii());
    let quota = limit(parts.next()?)?;
    let period = number(parts.next()?)?;
    Some(quota.value().and_then(|quota| cores(quota, period)))
}

/// `max`, or a number.
#[must_use]
pub fn limit(text: &[u8]) -> Option<Limit> {
    match text.trim_ascii() {
        b"max" => Some(Limit::Max),
        other => number(other).map(Limit::Value),
    }
}

/// `memory.stat`, which includes child cgroups: bytes, and page faults that needed a disk. Swap has a file of its own.
#[must_use]
pub fn memory_stat(text: &[u8]) -> Memory {
    let mut memory = Memory::default();
    for (key, value) in pairs(text) {
        match key {
            b"anon" => memory.anon = value,
            b"file" => memory.file = value,
            b"file_dirty" => memory.file_dirty = value,
            b"file_writeback" => memory.file_writeback = value,
            b"file_mapped" => memory.file_mapped = value,
            b"shmem" => memory.shmem = value,
            b"slab_reclaimable" => memory.slab_reclaimable = value,
            b"active_anon" => memory.active_anon = value,
            b"active_file" => memory.active_file = value,
            b"inactive_anon" => memory.inactive_anon = value,
            b"inactive_file" => memory.inactive_file = value,
            b"unevictable" => memory.unevictable = value,
            b"pgmajfault" => memory.pgmajfault = value,
            _ => {}
        }
    }
    memory
}

/// `oom_kill` of `memory.events`: processes killed for want of memory.
#[must_use]
pub fn oom_kill(text: &[u8]) -> Option<u64> {
    pairs(text).find(|(key, _)| key == b"oom_kill").and_then(|(_, value)| value)
}

/// `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`, a device a line. Kernels from 5.13 to 5.18 print a
/// device without figures and without a newline, so that the next device follows on the same line: figures belong to
/// the last device before them. A device without figures is left out; one that comes twice counts as it stands last.
#[must_use]
pub fn io_stat(text: &[u8]) -> Vec<Io> {
    let mut devices = Vec::new();
    for line in lines(text) {
        let mut device = None;
        for field in fields(line) {
            let Some(at) = field.iter().position(|b| *b == b'=') else {
                device = device_number(field);
                continue;
            };
            let (Some(device), (key, Some(value))) = (device, split_value(field, at)) else {
                continue;
            };
            let wanted: fn(&mut Io) -> &mut Option<u64> = match key {
                b"rbytes" => |io| &mut io.read_bytes,
                b"rios" => |io| &mut io.reads,
                b"wbytes" => |io| &mut io.written_bytes,
                b"wios" => |io| &mut io.writes,
                _ => continue,
            };
            if let Some(io) = device_entry(&mut devices, device) {
                *wanted(io) = Some(value);
            }
        }
    }
    devices
}

/// The key and the value of `key=value`, with `=` at `at`.
fn split_value(field: &[u8], at: usize) -> (&[u8], Option<u64>) {
    let (key, rest) = field.split_at_checked(at).unwrap_or((field, b""));
    (key, rest.strip_prefix(b"=").and_then(number))
}

/// A pressure file's totals, microseconds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// At least one task waited.
    pub some: Option<u64>,
    /// All tasks waited at once.
    pub full: Option<u64>,
}

impl Stalls {
    /// Takes the totals of `some avg10=0.00 avg60=0.00 avg300=0.00 total=27393495`, and a line `full …` of the same form.
    pub fn parse(text: &[u8]) -> Self {
        let mut stalls = Self::default();
        for line in lines(text) {
            // The total is the last field.
            let total = line.rsplit(|byte| *byte == b' ').find_map(|field| field.strip_prefix(b"total="));
            let total = total.and_then(number);
            match fields(line).next() {
                Some(b"some") => stalls.some = total,
                Some(b"full") => stalls.full = total,
                _ => {}
            }
        }
        stalls
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpu_stat_with_and_without_the_controller() {
        let text =
            b"usage_usec 300\nuser_usec 200\nsystem_usec 100\nnice_usec 5\ncore_sched.force_idle_usec 0\n";
        let stat = CpuStat::parse(text);
        assert_eq!(stat.time(), Some(CpuTime { cpu: 0, user_ns: 200_000, system_ns: 100_000 }));
        assert_eq!(stat.throttling(), None);
        let limited =
            b"user_usec 2\nsystem_usec 1\nnr_periods 10\nnr_throttled 3\nthrottled_usec 4\nnr_bursts 0\n";
        let throttling = Throttling { periods: 10, throttled_periods: 3, throttled_ns: 4000 };
        assert_eq!(CpuStat::parse(limited).throttling(), Some(throttling));
    }

    #[test]
    fn half_a_cpu_time_is_none() {
        assert_eq!(CpuStat::parse(b"user_usec 200\nsystem_usec x\n").time(), None);
        assert_eq!(CpuStat::parse(b"user_usec 18446744073709551615\nsystem_usec 1\n").time(), None);
    }

    #[test]
    fn cpu_max_is_quota_over_period() {
        assert_eq!(cpu_max(b"50000 100000\n"), Some(Some(0.5)));
        assert_eq!(cpu_max(b"max 100000\n"), Some(None));
        assert_eq!(cpu_max(b"100 0\n"), Some(None));
        assert_eq!(cpu_max(b"100\n"), None);
        assert_eq!(cpu_max(b"-1 100000\n"), None);
    }

    #[test]
    fn max_is_no_number() {
        assert_eq!(limit(b"max\n"), Some(Limit::Max));
        assert_eq!(limit(b"1048576\n"), Some(Limit::Value(1_048_576)));
        assert_eq!(limit(b"-1\n"), None);
        assert!(Limit::Value(u64::MAX) < Limit::Max);
    }

    #[test]
    fn memory_stat_by_key() {
        let text = b"anon 10\nfile 20\nkernel 5\nshmem 3\nfile_mapped 4\nfile_dirty 1\nfile_writeback 2\n\
            inactive_anon 6\nactive_anon 7\ninactive_file 8\nactive_file 9\nunevictable 11\n\
            slab_reclaimable 12\nslab_unreclaimable 1\npgmajfault 13\nanon_thp 99\n";
        let memory = memory_stat(text);
        assert_eq!((memory.anon, memory.file, memory.shmem), (Some(10), Some(20), Some(3)));
        assert_eq!((memory.active(), memory.inactive()), (Some(16), Some(14)));
        assert_eq!((memory.slab_reclaimable, memory.pgmajfault), (Some(12), Some(13)));
        assert_eq!(memory_stat(b"anon ten\nfile\n"), Memory::default());
    }

    #[test]
    fn oom_kills_are_not_the_group_kills() {
        let text = b"low 0\nhigh 0\nmax 5\noom 2\noom_kill 1\noom_group_kill 7\n";
        assert_eq!(oom_kill(text), Some(1));
        assert_eq!(oom_kill(b"oom 2\n"), None);
    }

    fn io_of(major: u32, minor: u32, read: [u64; 2], written: [u64; 2]) -> Io {
        let ([read_bytes, reads], [written_bytes, writes]) = (read.map(Some), written.map(Some));
        Io { major, minor, read_bytes, reads, written_bytes, writes }
    }

    #[test]
    fn io_stat_sorts_devices_and_ignores_unknown_keys() {
        let text = b"253:1 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7\n\
            8:0 rbytes=10 wbytes=20 rios=30 wios=40 dbytes=0 dios=0\n";
        assert_eq!(io_stat(text), [io_of(8, 0, [10, 30], [20, 40]), io_of(253, 1, [1, 3], [2, 4])]);
    }

    #[test]
    fn io_stat_with_several_devices_on_a_line() {
        let text = b"7:0 7:1 8:0 rbytes=1 wbytes=2 rios=3 wios=4\n253:0 \n259:0";
        assert_eq!(io_stat(text), [io_of(8, 0, [1, 3], [2, 4])]);
    }

    #[test]
    fn io_stat_leaves_out_what_has_no_device_number() {
        assert_eq!(io_stat(b"(unknown) rbytes=1 wbytes=2 rios=3 wios=4\n"), []);
        assert_eq!(io_stat(b"8:0 (unknown) rbytes=1\n"), []);
        assert_eq!(io_stat(b"rbytes=1\n8:0\nrbytes=2\n"), [], "a line's device is that line's");
        assert_eq!(io_stat(b""), []);
    }

    #[test]
    fn a_device_that_comes_twice_is_one() {
        let text = b"8:0 rbytes=1 wbytes=2 rios=3 wios=4\n8:0 rbytes=5 wbytes=6 rios=7 wios=8\n";
        assert_eq!(io_stat(text), [io_of(8, 0, [5, 7], [6, 8])]);
    }

    #[test]
    fn pressure_totals() {
        let text = b"some avg10=70.25 avg60=24.07 avg300=6.56 total=27393495\nfull avg10=0.00 total=12\n";
        assert_eq!(Stalls::parse(text), Stalls { some: Some(27_393_495), full: Some(12) });
        assert_eq!(Stalls::parse(b"some avg10=0.00\n"), Stalls::default());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (CpuStat::parse(&text), cpu_max(&text), limit(&text), memory_stat(&text));
            let _ = (oom_kill(&text), Stalls::parse(&text));
            let _ = io_stat(&text);
        }

        /// Text made of the very pieces that io.stat is made of, in any order.
        #[test]
        fn io_stat_never_lists_a_device_twice(
            pieces in proptest::collection::vec("(8:[0-3]|[rw](bytes|ios)=[0-9]{1,3}|dios=1|x|=|:|\n)", 0..40),
        ) {
            let found = io_stat(pieces.join(" ").as_bytes());
            prop_assert!(found.windows(2).all(|w| (w[0].major, w[0].minor) < (w[1].major, w[1].minor)));
            let nothing = |io: &Io| {
                [io.read_bytes, io.reads, io.written_bytes, io.writes] == [None; 4]
            };
            prop_assert!(!found.iter().any(nothing));
        }

        #[test]
        fn io_stat_comes_back(devices in proptest::collection::btree_map(
            (0u32..4096, 0u32..1 << 20), any::<[u64; 4]>(), 0..10,
        )) {
            let line = |((major, minor), [rb, wb, r, w]): (&(u32, u32), &[u64; 4])| {
                format!("{major}:{minor} rbytes={rb} wbytes={wb} rios={r} wios={w} dbytes=0 dios=0\n")
            };
            let text: String = devices.iter().map(line).collect();
            let expected: Vec<Io> = devices
                .iter()
                .map(|(&(major, minor), &[rb, wb, r, w])| io_of(major, minor, [rb, r], [wb, w]))
                .collect();
            prop_assert_eq!(io_stat(text.as_bytes()), expected);
        }

        #[test]
        fn memory_stat_comes_back(anon: u64, file: u64, shmem: u64) {
            let text = format!("anon {anon}\nfile {file}\nshmem {shmem}\n");
            let expected = Memory { anon: Some(anon), file: Some(file), shmem: Some(shmem), ..Memory::default() };
            prop_assert_eq!(memory_stat(text.as_bytes()), expected);
        }
    }
}

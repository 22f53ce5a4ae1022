//! Memory: `/proc/meminfo` and two counters of `/proc/vmstat`.

use miharu_api::report::Memory;
use miharu_linux::read::keyed;

/// Parses `/proc/meminfo`, proc_meminfo(5), which counts in units of 1,024 bytes that it calls kB.
#[must_use]
pub fn parse(meminfo: &[u8]) -> Memory {
    let bytes = |key| keyed(meminfo, key).and_then(|kib: u64| kib.checked_mul(1024));
    let page = bytes("Hugepagesize:");
    let pages = |key| keyed(meminfo, key)?.checked_mul(page?);
    Memory {
        memory_active_anon_bytes: bytes("Active(anon):"),
        memory_active_file_bytes: bytes("Active(file):"),
        memory_active_bytes: bytes("Active:"),
        memory_cached_bytes: bytes("Cached:"),
        memory_dirty_bytes: bytes("Dirty:"),
        memory_hugepages_free_bytes: pages("HugePages_Free:"),
        memory_hugepages_total_bytes: pages("HugePages_Total:"),
        memory_inactive_anon_bytes: bytes("Inactive(anon):"),
        memory_inactive_file_bytes: bytes("Inactive(file):"),
        memory_inactive_bytes: bytes("Inactive:"),
        memory_mapped_bytes: bytes("Mapped:"),
        memory_mem_available_bytes: bytes("MemAvailable:"),
        memory_mem_free_bytes: bytes("MemFree:"),
        memory_mem_total_bytes: bytes("MemTotal:"),
        memory_rss_bytes: bytes("AnonPages:"),
        memory_shmem_bytes: bytes("Shmem:"),
        memory_swap_bytes: bytes("SwapTotal:")
            .and_then(|total| Some(total.saturating_sub(bytes("SwapFree:")?))),
        memory_unevictable_bytes: bytes("Unevictable:"),
        memory_writeback_bytes: bytes("Writeback:"),
        memory_sreclaimable_bytes: bytes("SReclaimable:"),
        memory_oom_kills: None,
        memory_major_faults: None,
    }
}

/// Adds what `/proc/vmstat` counts: processes killed for want of memory (kernel 4.13) and major faults.
#[must_use]
pub fn with_counters(memory: Memory, vmstat: &[u8]) -> Memory {
    Memory {
        memory_oom_kills: keyed(vmstat, "oom_kill"),
        memory_major_faults: keyed(vmstat, "pgmajfault"),
        ..memory
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEMINFO: &[u8] = b"MemTotal:         217448 kB\nMemFree:          151320 kB\nMemAvailable:     178000 kB\n\
Buffers:               4 kB\nCached:            24156 kB\nSwapCached:            9 kB\nActive:             1524 kB\n\
Inactive:          23196 kB\nActive(anon):       1520 kB\nInactive(anon):    22600 kB\nActive(file):          4 kB\n\
Inactive(file):      596 kB\nUnevictable:           3 kB\nSwapTotal:          1000 kB\nSwapFree:            900 kB\nDirty:                 1 kB\n\
Writeback:             2 kB\nAnonPages:           560 kB\nMapped:              956 kB\nShmem:             23564 kB\n\
SReclaimable:       4528 kB\nHugePages_Total:       3\nHugePages_Free:        2\nHugepagesize:       2048 kB\n";

    #[test]
    fn figures_are_bytes() {
        let memory = parse(MEMINFO);
        assert_eq!(memory.memory_mem_total_bytes, Some(217_448 << 10));
        assert_eq!(memory.memory_active_bytes, Some(1524 << 10));
        assert_eq!(memory.memory_active_anon_bytes, Some(1520 << 10));
        assert_eq!(memory.memory_inactive_bytes, Some(23_196 << 10));
        assert_eq!(memory.memory_cached_bytes, Some(24_156 << 10));
        assert_eq!(memory.memory_swap_bytes, Some(100 << 10), "not SwapCached");
        assert_eq!(memory.memory_rss_bytes, Some(560 << 10));
        assert_eq!(memory.memory_hugepages_total_bytes, Some(6 << 20));
        assert_eq!(memory.memory_hugepages_free_bytes, Some(4 << 20));
        assert_eq!(memory.memory_sreclaimable_bytes, Some(4528 << 10));
        assert_eq!(memory.memory_oom_kills, None);
        let memory = with_counters(memory, b"pgfault 7\npgmajfault 5\noom_kill 1\n");
        assert_eq!((memory.memory_oom_kills, memory.memory_major_faults), (Some(1), Some(5)));
        assert_eq!(memory.memory_mem_total_bytes, Some(217_448 << 10));
    }

    #[test]
    fn what_is_missing_is_absent() {
        assert_eq!(parse(b"MemTotal: 99999999999999999999 kB\nSwapTotal: 7 kB\n"), Memory::default());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = with_counters(parse(&text), &text);
        }
    }
}

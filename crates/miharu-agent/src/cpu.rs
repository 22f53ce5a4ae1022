//! CPU time by mode, and when the guest was booted: `/proc/stat`.

use std::collections::HashMap;

use miharu_api::report::{Cpu, MAX_ROWS};
use miharu_linux::read::{fields, keyed, lines, number};

/// The modes of a line of `/proc/stat`, in its order. Guest time, which follows, is inside user and nice.
const MODES: usize = 8;

/// What `/proc/stat` tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stat {
    /// Time by CPU.
    pub cpus: Vec<Cpu>,
    /// `btime`: when the guest was booted, seconds since 1970.
    pub boot_time: Option<u64>,
}

/// Times that never fall. The kernel's idle and iowait can go back by a tick or two, as they are estimated when they are read
/// (proc(5), `/proc/stat`), and by more when a CPU was taken offline and put back.
#[derive(Debug, Default)]
pub struct Steady {
    highest: HashMap<String, [u64; MODES]>,
}

/// Parses `/proc/stat`, whose times are in ticks.
#[must_use]
pub fn parse(text: &[u8], ticks_per_second: u64, steady: &mut Steady) -> Stat {
    let cpus = lines(text).filter_map(ticks).take(MAX_ROWS);
    let cpus = cpus.map(|(name, ticks)| row(&name, steady.hold(&name, ticks), ticks_per_second)).collect();
    Stat { cpus, boot_time: keyed(text, "btime") }
}

impl Steady {
    fn hold(&mut self, name: &str, ticks: [u64; MODES]) -> [u64; MODES] {
        let highest = self.highest.entry(name.to_owned()).or_default();
        for (high, new) in highest.iter_mut().zip(ticks) {
            *high = new.max(*high);
        }
        *highest
    }
}

/// A line such as `cpu0 4705 150 1120 16250 520 30 12 0 0 0`; that of all CPUs together is none.
fn ticks(line: &[u8]) -> Option<(String, [u64; MODES])> {
    let mut parts = fields(line);
    let name = parts.next()?;
    number(name.strip_prefix(b"cpu")?)?;
    let mut ticks = [0; MODES];
    for tick in &mut ticks {
        *tick = number(parts.next()?)?;
    }
    Some((String::from_utf8_lossy(name).into_owned(), ticks))
}

fn row(name: &str, ticks: [u64; MODES], ticks_per_second: u64) -> Cpu {
    let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks.map(|ticks| {
        // Exact up to 2^53 ticks, which is longer than any machine runs.
        (ticks_per_second > 0).then(|| ticks as f64 / ticks_per_second as f64)
    });
    Cpu {
        cpu: name.to_owned(),
        cpu_seconds_user: user,
        cpu_seconds_nice: nice,
        cpu_seconds_system: system,
        cpu_seconds_idle: idle,
        cpu_seconds_iowait: iowait,
        cpu_seconds_irq: irq,
        cpu_seconds_softirq: softirq,
        cpu_seconds_steal: steal,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAT: &[u8] =
        b"cpu  120 2 30 4000 5 6 7 8 0 0\ncpu0 100 1 20 2000 4 3 2 1 90 0\ncpu1 20 1 10 2000 1 3 5 7 0 0\n\
intr 12345 0 1 2\nctxt 9\nbtime 1790000000\nprocesses 77\n";

    #[test]
    fn each_cpu_has_eight_modes() {
        let stat = parse(STAT, 100, &mut Steady::default());
        assert_eq!(stat.boot_time, Some(1_790_000_000));
        assert_eq!(stat.cpus.iter().map(|cpu| cpu.cpu.as_str()).collect::<Vec<_>>(), ["cpu0", "cpu1"]);
        let first = &stat.cpus[0];
        assert_eq!((first.cpu_seconds_user, first.cpu_seconds_nice), (Some(1.0), Some(0.01)));
        assert_eq!((first.cpu_seconds_system, first.cpu_seconds_idle), (Some(0.2), Some(20.0)));
        assert_eq!((first.cpu_seconds_iowait, first.cpu_seconds_irq), (Some(0.04), Some(0.03)));
        assert_eq!((first.cpu_seconds_softirq, first.cpu_seconds_steal), (Some(0.02), Some(0.01)));
        assert_eq!(parse(STAT, 250, &mut Steady::default()).cpus[0].cpu_seconds_user, Some(0.4));
    }

    #[test]
    fn time_never_falls() {
        let mut steady = Steady::default();
        let _ = parse(b"cpu0 10 0 0 500 9 0 0 0 0 0\n", 100, &mut steady);
        let later = parse(b"cpu0 11 0 0 498 12 0 0 0 0 0\n", 100, &mut steady);
        assert_eq!(later.cpus[0].cpu_seconds_idle, Some(5.0));
        assert_eq!(later.cpus[0].cpu_seconds_iowait, Some(0.12));
        assert_eq!(later.cpus[0].cpu_seconds_user, Some(0.11));
    }

    #[test]
    fn a_line_that_was_cut_is_no_cpu() {
        assert!(parse(b"cpu0 1 2 3\ncpux 1 2 3 4 5 6 7 8\n", 100, &mut Steady::default()).cpus.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..400), rate in any::<u64>()) {
            let mut text = text;
            let _ = parse(&text, rate, &mut Steady::default());
            text.splice(0..0, *b"cpu0 1 2 3 4 5 6 7 18446744073709551615\n");
            let stat = parse(&text, rate.max(1), &mut Steady::default());
            prop_assert_eq!(stat.cpus[0].cpu.as_str(), "cpu0");
        }
    }
}

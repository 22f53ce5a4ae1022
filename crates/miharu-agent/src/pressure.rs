//! Pressure stall information of the whole guest: `/proc/pressure`, from kernel 4.20 where it is switched on.

use miharu_api::report::Pressure;
use miharu_linux::Roots;
use miharu_linux::read::{Buffer, fields, lines, number};

/// Reads it; `None` where the guest's kernel has none.
#[must_use]
pub fn read(roots: &Roots, buffer: &mut Buffer) -> Option<Pressure> {
    let directory = roots.proc.join("pressure");
    let mut totals = |name| buffer.read(&directory.join(name)).map(parse).ok();
    let (cpu, memory, io) = (totals("cpu"), totals("memory"), totals("io"));
    if cpu.is_none() && memory.is_none() && io.is_none() {
        return None;
    }
    let (memory, io) = (memory.unwrap_or_default(), io.unwrap_or_default());
    Some(Pressure {
        cpu_waiting_seconds: cpu.and_then(|totals| totals.some),
        memory_waiting_seconds: memory.some,
        memory_stalled_seconds: memory.full,
        io_waiting_seconds: io.some,
        io_stalled_seconds: io.full,
    })
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Totals {
    some: Option<f64>,
    full: Option<f64>,
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=27393495`, and a line `full …` alike; totals are microseconds. See
/// <https://docs.kernel.org/accounting/psi.html>.
fn parse(text: &[u8]) -> Totals {
    let mut totals = Totals::default();
    for line in lines(text) {
        let mut parts = fields(line);
        let kind = parts.next();
        let total = parts.find_map(|field| field.strip_prefix(b"total=")).and_then(number);
        let seconds = total.map(|microseconds| microseconds as f64 / 1e6);
        match kind {
            Some(b"some") => totals.some = seconds,
            Some(b"full") => totals.full = seconds,
            _ => {}
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn totals_are_seconds() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("proc/pressure");
        fs::create_dir_all(&directory).unwrap();
        let roots = Roots::at(base.path());
        assert_eq!(read(&roots, &mut Buffer::new()), None);
        fs::write(directory.join("cpu"), "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n").unwrap();
        fs::write(directory.join("io"), "some avg10=0.00 total=7\nfull avg10=0.00 total=1000000\n").unwrap();
        let pressure = read(&roots, &mut Buffer::new()).unwrap();
        assert_eq!(pressure.cpu_waiting_seconds, Some(2.5));
        assert_eq!((pressure.io_waiting_seconds, pressure.io_stalled_seconds), (Some(0.000_007), Some(1.0)));
        assert_eq!(pressure.memory_waiting_seconds, None);
    }
}

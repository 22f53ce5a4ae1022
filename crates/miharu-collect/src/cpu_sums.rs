//! CPU time summed over all CPUs (`metrics.per_cpu` false). A guest lists the CPUs that are online; one that goes offline
//! takes its time out of the list, and must not take it out of the sum, as no counter falls while an instance runs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use miharu_instances::Incarnation;
use miharu_metrics::Figures;
use miharu_metrics::figures::{CpuMode, CpuTimes};

/// How much of a CPU's time may be gone without a reboot: the kernel lets idle and iowait go back a little.
const SLACK: Duration = Duration::from_secs(1);

/// The CPUs that were ever seen of each virtual machine since its guest booted.
#[derive(Debug, Default)]
pub(crate) struct CpuSums {
    /// By the machine and by who tells: the host's modes are others than a guest's. Held for a look-up.
    seen: Mutex<HashMap<(Incarnation, CpuMode), Vec<CpuTimes>>>,
}

impl CpuSums {
    /// Puts the sum over all CPUs in the place of the machine's rows.
    pub(crate) fn sum(&self, machine: Incarnation, figures: &mut Figures) {
        let teller = figures.cpus.first().and_then(|cpu| cpu.known().next());
        if let Some((mode, _)) = teller {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let before = seen.remove(&(machine, mode)).unwrap_or_default();
            figures.cpus.extend(offline(before, &figures.cpus));
            seen.insert((machine, mode), figures.cpus.clone());
        }
        figures.sum_cpus();
    }

    /// Forgets all machines but those that `is_there`.
    pub(crate) fn retain(&self, is_there: impl Fn(&Incarnation) -> bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(machine, _), _| is_there(machine));
    }
}

/// The CPUs of `before` that are not there `now`, none where the guest has booted since.
fn offline(before: Vec<CpuTimes>, now: &[CpuTimes]) -> Vec<CpuTimes> {
    let is_of_this_boot = |old: &CpuTimes| {
        let new = now.iter().find(|new| new.cpu == old.cpu);
        new.is_none_or(|new| total(new).saturating_add(SLACK) >= total(old))
    };
    if !before.iter().all(is_of_this_boot) {
        return Vec::new();
    }
    before.into_iter().filter(|old| now.iter().all(|new| new.cpu != old.cpu)).collect()
}

fn total(cpu: &CpuTimes) -> Duration {
    cpu.known().fold(Duration::ZERO, |sum, (_, time)| sum.saturating_add(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_time(sums: &CpuSums, rows: &[(u32, u64)]) -> Option<u64> {
        let machine = Incarnation { cgroup_inode: 1, init_pid: 2, init_start: 3 };
        let row = |&(cpu, seconds): &(u32, u64)| {
            CpuTimes::new(cpu).with(CpuMode::User, Duration::from_secs(seconds))
        };
        let mut figures = Figures { cpus: rows.iter().map(row).collect(), ..Figures::default() };
        sums.sum(machine, &mut figures);
        assert!(figures.cpus.iter().all(|row| row.cpu.is_none()));
        figures.cpus.first()?.known().next().map(|(_, time)| time.as_secs())
    }

    #[test]
    fn a_cpu_that_goes_offline_keeps_its_time_in_the_sum() {
        let sums = CpuSums::default();
        assert_eq!(user_time(&sums, &[(0, 10), (1, 20)]), Some(30));
        assert_eq!(user_time(&sums, &[(0, 12)]), Some(32));
        assert_eq!(user_time(&sums, &[]), None, "what nobody tells is not known");
        assert_eq!(user_time(&sums, &[(0, 13)]), Some(33));
        assert_eq!(user_time(&sums, &[(0, 14), (1, 21)]), Some(35), "online again");
        assert_eq!(user_time(&sums, &[(0, 3)]), Some(3), "a reboot");
        sums.retain(|_| false);
        assert_eq!(user_time(&sums, &[(1, 1)]), Some(1));
    }
}

//! In which order instances are read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::jobs::FIRST;
use crate::kept::Kept;

/// What is known of a reading before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Expected {
    is_first: bool,
    took: Duration,
}

/// Puts those first that took little the last time, and those last that were never read: where there is not enough time for all, it is
/// the instance that takes it which goes short, and not the others. Tells how much work it is, in readings of kept files.
pub(super) fn cheapest_first<J>(jobs: &mut [J], kept: impl Fn(&J) -> &Arc<Mutex<Kept>>) -> usize {
    let expected = |job: &J| match kept(job).try_lock() {
        Ok(kept) => Expected { is_first: !kept.is_known, took: kept.took },
        // Its last reading has not come back.
        Err(_) => Expected { is_first: true, took: Duration::MAX },
    };
    jobs.sort_by_cached_key(expected);
    jobs.iter().map(|job| if expected(job).is_first { FIRST } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_took_long_comes_after_the_others_and_newcomers_last() {
        let kept = |is_known, took| {
            Arc::new(Mutex::new(Kept { is_known, took: Duration::from_millis(took), ..Kept::default() }))
        };
        let mut jobs = vec![
            ("new", kept(false, 0)),
            ("slow", kept(true, 900)),
            ("late", kept(true, 0)),
            ("quick", kept(true, 1)),
            ("slower", kept(true, 1000)),
        ];
        let late = Arc::clone(&jobs[2].1);
        let _reading = late.lock().unwrap();
        assert_eq!(cheapest_first(&mut jobs, |(_, kept)| kept), 3 + 2 * FIRST);
        let names: Vec<_> = jobs.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["quick", "slow", "slower", "new", "late"]);
    }
}

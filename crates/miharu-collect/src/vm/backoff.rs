//! How long a source that failed is left alone: a pause that grows with each failure in a row.

use std::time::{Duration, Instant};

/// The pause after the first failure; it doubles with each one that follows.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The failures of one source since it last answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    /// Whether it may be asked.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|moment| now >= moment)
    }

    /// Notes a failure; the pause is not longer than `longest`.
    pub(crate) fn failed(&mut self, now: Instant, longest: Duration) {
        let pause = FIRST_PAUSE.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause.min(longest));
    }

    /// Notes an answer.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_up_to_a_limit_and_ends_with_an_answer() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.is_over(start));
        for expected in [10, 20, 40, 80, 160, 320, 600, 600] {
            backoff.failed(start, LONGEST_PAUSE);
            assert!(!backoff.is_over(start + Duration::from_secs(expected) - Duration::from_millis(1)));
            assert!(backoff.is_over(start + Duration::from_secs(expected)));
        }
        backoff.failures = u32::MAX;
        backoff.failed(start, LONGEST_PAUSE);
        backoff.answered();
        assert!(backoff.is_over(start));
    }
}

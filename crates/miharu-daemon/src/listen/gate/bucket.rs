//! How often something may be done: so many a second, and after a second of rest as many at once.

use tokio::time::Instant;

/// What is left of a rate. The rate itself is told each time, as it is a server key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// One from which nothing was taken yet.
    pub(super) fn full(now: Instant, rate: u32) -> Self {
        Self { left: f64::from(rate), at: now }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant, rate: u32) -> bool {
        self.fill(now, rate);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }

    /// Gives one back.
    pub(super) fn give(&mut self, rate: u32) {
        self.left = (self.left + 1.0).min(f64::from(rate));
    }

    /// Whether it remembers nothing.
    pub(super) fn is_full(&mut self, now: Instant, rate: u32) -> bool {
        self.fill(now, rate);
        self.left >= f64::from(rate)
    }

    fn fill(&mut self, now: Instant, rate: u32) {
        let won = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate);
        self.left = (self.left + won).min(f64::from(rate));
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_a_second_and_no_more_after_any_rest() {
        let mut bucket = Bucket::full(Instant::now(), 3);
        let take = |bucket: &mut Bucket| (0..10).filter(|_| bucket.take(Instant::now(), 3)).count();
        assert_eq!(take(&mut bucket), 3);
        tokio::time::advance(Duration::from_millis(700)).await;
        assert_eq!(take(&mut bucket), 2);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(bucket.is_full(Instant::now(), 3));
        assert_eq!(take(&mut bucket), 3);
        bucket.give(3);
        assert_eq!(take(&mut bucket), 1);
    }
}

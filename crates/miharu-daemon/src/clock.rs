//! Moments in whole seconds, as the store keeps them and the API writes them; and moments by a clock that nobody sets.

use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use miharu_api::JoinToken;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Now, in seconds since 1970.
pub(crate) fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A moment in seconds since 1970, as clients read it; one beyond the year 9999 is never.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    let written = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    written.unwrap_or_else(|| JoinToken::NEVER.to_owned())
}

/// A moment by the clock that tells how long the host has been up, asleep or awake, and that nobody can set.
/// [`Instant`](std::time::Instant) stands still while the host sleeps (`CLOCK_MONOTONIC` of clock_gettime(2)), so that by it the
/// figures of last night would be a second old in the morning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// This moment.
    pub(crate) fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self(Duration::try_from(now).unwrap_or_default())
    }

    /// How much later it is than the other one; nothing if it is earlier.
    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long ago it was.
    pub(crate) fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_clients_read_them() {
        assert_eq!(rfc3339(1_000_000_000), "2001-09-09T01:46:40Z");
        assert_eq!(rfc3339(i64::MAX), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn moments_are_counted_from_the_boot_and_never_below() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let up: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let now = Moment::now();
        assert!(now.0.as_secs_f64() >= up && Moment::now() >= now);
        let hour = Duration::from_secs(3600);
        assert_eq!((now + hour).saturating_duration_since(now), hour);
        assert_eq!(now.saturating_duration_since(now + hour), Duration::ZERO);
        assert_eq!(now - Duration::MAX + hour, Moment(hour));
        assert!((now - Duration::from_millis(1)).elapsed() >= Duration::from_millis(1));
    }
}

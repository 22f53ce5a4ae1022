//! Moments in whole seconds, as the store keeps them and the API writes them.

use std::time::{SystemTime, UNIX_EPOCH};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_clients_read_them() {
        assert_eq!(rfc3339(1_000_000_000), "2001-09-09T01:46:40Z");
        assert_eq!(rfc3339(i64::MAX), "0001-01-01T00:00:00Z");
    }
}

//! How long something is valid, as Incus writes it: `30d`, `1w`, `12H 30M`.

use std::time::Duration as Length;

use time::{Duration, Month, OffsetDateTime};

/// The longest span, in years: beyond it nobody means an expiry.
const YEARS_LIMIT: u32 = 1000;

/// A span of time from some moment on. Months and years are those of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Seconds, minutes, hours, days and weeks, in seconds.
    seconds: u32,
    /// Months and years, in months.
    months: u32,
}

impl Expiry {
    /// Reads numbers with a unit, `S`econds, `M`inutes, `H`ours, `d`ays, `w`eeks, `m`onths and `y`ears, each unit once, with
    /// blanks between them.
    ///
    /// # Errors
    /// What is wrong with it, as the end of the sentence "cannot set KEY to VALUE: …".
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || {
            "invalid expiry expression, expected numbers with a unit such as 30d, 1w or 12H 30M \
             (S, M, H, d, w, m, y)"
                .to_owned()
        };
        let mut span = Self { seconds: 0, months: 0 };
        let mut units = Vec::new();
        for part in text.split_ascii_whitespace() {
            let unit = part.chars().next_back().ok_or_else(invalid)?;
            let number = part.strip_suffix(unit).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            let number: u32 = number.and_then(|digits| digits.parse().ok()).ok_or_else(invalid)?;
            let (field, scale) = match unit {
                'S' => (&mut span.seconds, 1),
                'M' => (&mut span.seconds, 60),
                'H' => (&mut span.seconds, 3600),
                'd' => (&mut span.seconds, 86_400),
                'w' => (&mut span.seconds, 7 * 86_400),
                'm' => (&mut span.months, 1),
                'y' => (&mut span.months, 12),
                _ => return Err(invalid()),
            };
            if units.contains(&unit) {
                return Err(invalid());
            }
            units.push(unit);
            let sum = number.checked_mul(scale).and_then(|more| field.checked_add(more));
            *field = sum.ok_or_else(|| "the expiry is too far away".to_owned())?;
        }
        if units.is_empty() {
            return Err(invalid());
        }
        if span.seconds == 0 && span.months == 0 {
            return Err("what expires at once is of no use".to_owned());
        }
        if span.months > YEARS_LIMIT * 12 {
            return Err("the expiry is too far away".to_owned());
        }
        Ok(span)
    }

    /// The moment at its end, counted from `start`; both in seconds since 1970, UTC. `None` beyond the year 9999.
    #[must_use]
    pub fn after(self, start: i64) -> Option<i64> {
        let start = OffsetDateTime::from_unix_timestamp(start).ok()?;
        let months = i64::from(u8::from(start.month()) - 1) + i64::from(self.months);
        let year = start.year().checked_add(i32::try_from(months / 12).ok()?)?;
        let month = Month::try_from(u8::try_from(months % 12 + 1).ok()?).ok()?;
        // The 31st of a month of 30 days is its last.
        let day = start.day().min(month.length(year));
        let date = time::Date::from_calendar_date(year, month, day).ok()?;
        let end = start.replace_date(date).checked_add(Duration::seconds(i64::from(self.seconds)))?;
        Some(end.unix_timestamp())
    }

    /// How long it is, whenever it begins: a month counts as one of those from January on, a year as 365 or 366 days.
    #[must_use]
    pub fn length(self) -> Length {
        // No span is so long that it leaves the calendar: 1000 years of months and 136 of seconds.
        Length::from_secs(self.after(0).and_then(|end| u64::try_from(end).ok()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_taken_ends_later(text in "[0-9SMHdwmyx ]{0,16}", start in 0_i64..4_000_000_000) {
            if let Ok(span) = Expiry::parse(&text) {
                prop_assert!(span.after(start).is_none_or(|end| end > start));
            }
        }
    }

    #[test]
    fn spans_are_read_as_incus_reads_them() {
        let start = datetime!(2026-01-31 12:00 UTC);
        let cases = [
            ("10S", datetime!(2026-01-31 12:00:10 UTC)),
            ("1M", datetime!(2026-01-31 12:01 UTC)),
            ("12H 30M", datetime!(2026-02-01 00:30 UTC)),
            ("30d", datetime!(2026-03-02 12:00 UTC)),
            ("2w", datetime!(2026-02-14 12:00 UTC)),
            ("1m", datetime!(2026-02-28 12:00 UTC)),
            ("1y", datetime!(2027-01-31 12:00 UTC)),
            ("1y 1m 1d", datetime!(2027-03-01 12:00 UTC)),
        ];
        for (text, end) in cases {
            let span = Expiry::parse(text).unwrap();
            assert_eq!(span.after(start.unix_timestamp()), Some(end.unix_timestamp()), "{text}");
        }
    }

    #[test]
    fn a_span_has_a_length() {
        for (text, seconds) in [("10S", 10), ("12H 30M", 45_000), ("1d", 86_400), ("1m", 31 * 86_400)] {
            assert_eq!(Expiry::parse(text).unwrap().length().as_secs(), seconds, "{text}");
        }
        assert!(Expiry::parse("1000y 4000000000S").unwrap().length().as_secs() < 40_000_000_000);
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in [
            "",
            " ",
            "5",
            "d",
            "1x",
            "-1d",
            "1d1d",
            "1d 1d",
            "0d",
            "1.5d",
            "99999999999d",
            "4000000000w",
            "9999y",
        ] {
            assert!(Expiry::parse(text).is_err(), "{text}");
        }
    }
}

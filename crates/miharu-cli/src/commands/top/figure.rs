//! How a figure is written: shortly on the screen, in words that the clients of Incus use in tables, plainly for programs.

use crate::output;

/// What a figure counts, and so how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// CPUs, shown as percent of one.
    Cores,
    /// Seconds of CPU time.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    Rate,
    /// Events a second.
    Events,
    /// A share between 0 and 1, shown as percent.
    Share,
    /// A plain number.
    Count,
    /// Seconds that something lasts.
    Age,
}

impl From<miharu_api::usage::Unit> for Measure {
    fn from(unit: miharu_api::usage::Unit) -> Self {
        use miharu_api::usage::Unit;
        match unit {
            Unit::Cores => Self::Cores,
            Unit::Bytes => Self::Bytes,
            Unit::BytesPerSecond => Self::Rate,
            Unit::PerSecond => Self::Events,
            Unit::Count => Self::Count,
            Unit::Ratio => Self::Share,
        }
    }
}

/// For a column of the screen: seven characters at most, whatever the figure is; its header names the unit.
pub(super) fn short(value: f64, measure: Measure) -> String {
    match measure {
        Measure::Cores | Measure::Share => decimal(value * 100.0),
        Measure::Seconds | Measure::Events | Measure::Count => number(value, measure),
        Measure::Bytes | Measure::Rate => size(value),
        Measure::Age => age(value),
    }
}

/// For a table that people read, and for the page of one instance.
pub(super) fn long(value: f64, measure: Measure) -> String {
    match measure {
        Measure::Cores | Measure::Share => format!("{:.1}%", value * 100.0),
        Measure::Seconds => format!("{value:.2}"),
        Measure::Bytes => output::bytes(whole(value)),
        Measure::Rate => format!("{}/s", output::bytes(whole(value))),
        Measure::Events => format!("{value:.1}/s"),
        Measure::Count => format!("{value:.0}"),
        Measure::Age => age(value),
    }
}

/// For programs: the figure as the API has it.
pub(super) fn raw(value: f64) -> String {
    value.to_string()
}

fn number(value: f64, measure: Measure) -> String {
    if measure == Measure::Count || value >= 1000.0 { large(value) } else { decimal(value) }
}

/// One decimal below 1000, none above.
fn decimal(value: f64) -> String {
    if value < 999.95 { format!("{value:.1}") } else { large(value) }
}

/// A whole number, in thousands and more where it would be too wide.
fn large(value: f64) -> String {
    scaled(value, 1000.0, 99_999.5, &["k", "M", "G", "T", "P", "E"]).unwrap_or_else(|| format!("{value:.0}"))
}

/// A size in powers of 1024: `512B`, `1.5K`, `12M`.
fn size(value: f64) -> String {
    scaled(value, 1024.0, 1023.5, &["K", "M", "G", "T", "P", "E"]).unwrap_or_else(|| format!("{value:.0}B"))
}

/// The value in the smallest of the units that leaves four characters of digits; nothing if it is below `from`.
fn scaled(value: f64, step: f64, from: f64, units: &[&str]) -> Option<String> {
    let mut value = value;
    let mut unit = None;
    for larger in units {
        if value < if unit.is_none() { from } else { step - 0.5 } {
            break;
        }
        value /= step;
        unit = Some(*larger);
    }
    let unit = unit?;
    Some(if value >= 1e5 {
        format!(">99999{unit}")
    } else if value < 9.95 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    })
}

fn age(seconds: f64) -> String {
    output::duration(whole(seconds.clamp(0.0, 8.0e9)))
}

fn whole(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "what does not fit is at the end of the range")]
    let whole = value.round() as i64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_shortly() {
        let read = |values: &[f64], measure| {
            values.iter().map(|value| short(*value, measure)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            read(&[0.0, 0.001, 0.1234, 3.42, 9.9996, 64.0], Measure::Cores),
            "0.0 0.1 12.3 342.0 1000 6400"
        );
        assert_eq!(
            read(&[0.0, 1023.0, 1024.0, 10_187.0, 1_048_000.0, 1_048_576.0, 5e9, 2e12], Measure::Bytes),
            "0B 1023B 1.0K 9.9K 1023K 1.0M 4.7G 1.8T"
        );
        assert_eq!(read(&[7.0, 4321.0, 123_456.0], Measure::Count), "7 4321 123k");
        assert_eq!(read(&[0.5, 1234.5], Measure::Events), "0.5 1234");
        assert_eq!(read(&[59.0, 93_784.0, f64::MAX], Measure::Age), "59s 1d 2h 92592d 14h");
    }

    #[test]
    fn figures_read_as_in_the_clients() {
        assert_eq!(long(0.1234, Measure::Cores), "12.3%");
        assert_eq!(long(1_887_436.0, Measure::Bytes), "1.80MiB");
        assert_eq!(long(2048.0, Measure::Rate), "2.00KiB/s");
        assert_eq!(long(3.4, Measure::Seconds), "3.40");
        assert_eq!(raw(1_887_436.0), "1887436");
        assert_eq!(raw(0.1234), "0.1234");
    }

    proptest::proptest! {
        #[test]
        fn no_figure_is_wider_than_its_column(value in 0.0..f64::MAX) {
            for measure in [
                Measure::Cores, Measure::Seconds, Measure::Bytes, Measure::Rate, Measure::Events, Measure::Share,
                Measure::Count,
            ] {
                let shown = short(value, measure);
                proptest::prop_assert!(shown.len() <= 7, "{shown}");
                long(value, measure);
            }
        }
    }
}

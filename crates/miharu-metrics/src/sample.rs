//! Writing samples: escaped labels in alphabetical order, and numbers that never print as something they are not.

use std::time::Duration;

/// A sample's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value {
    /// A whole number.
    Whole(u64),
    /// A real number; one that is not finite is no sample.
    Real(f64),
    /// A time, written in seconds without loss.
    Time(Duration),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<Duration> for Value {
    fn from(value: Duration) -> Self {
        Self::Time(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(u64::from(value))
    }
}

impl Value {
    pub(crate) fn is_sample(self) -> bool {
        !matches!(self, Self::Real(value) if !value.is_finite())
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Whole(value) => whole(out, value),
            Self::Real(value) => real(out, value),
            Self::Time(value) => time(out, value),
        }
    }
}

/// A label of a sample's own; the names of a sample are given in alphabetical order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Label<'a> {
    /// A name and a value that may hold anything.
    Text(&'static str, &'a str),
    /// A name and a number.
    Number(&'static str, u64),
}

impl Label<'_> {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text(name, _) | Self::Number(name, _) => name,
        }
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name().as_bytes());
        out.extend_from_slice(b"=\"");
        match self {
            Self::Text(_, value) => escape(out, value),
            Self::Number(_, value) => whole(out, value),
        }
        out.push(b'"');
    }
}

/// Writes a label's value; backslash, quote and newline are the only characters that the formats escape.
pub(crate) fn escape(out: &mut Vec<u8>, value: &str) {
    let is_special = |byte: u8| matches!(byte, b'\\' | b'"' | b'\n');
    if !value.bytes().any(is_special) {
        out.extend_from_slice(value.as_bytes());
        return;
    }
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
}

fn whole(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest text that reads back as the same number, without an exponent, as `Display` writes it.
fn real(out: &mut Vec<u8>, value: f64) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    if text.contains('e') {
        use std::io::Write as _;
        // Writing to memory does not fail.
        let _ = write!(out, "{value}");
        return;
    }
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
}

fn time(out: &mut Vec<u8>, value: Duration) {
    whole(out, value.as_secs());
    let nanos = value.subsec_nanos();
    if nanos == 0 {
        return;
    }
    // A second and its nanoseconds are ten digits, the first of which gives way to the point.
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(NANOS_PER_SECOND + nanos).trim_end_matches('0');
    out.push(b'.');
    out.extend_from_slice(digits.get(1..).unwrap_or_default().as_bytes());
}

const NANOS_PER_SECOND: u32 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: impl Into<Value>) -> String {
        let mut out = Vec::new();
        value.into().write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_exact() {
        assert_eq!(text(0u64), "0");
        assert_eq!(text(u64::MAX), "18446744073709551615");
        assert_eq!(text(0.5), "0.5");
        assert_eq!(text(25_276_510_208.0), "25276510208");
        // Half way between, so that both read back as the same.
        assert_eq!(text(1_029_093_588_171_767.3), "1029093588171767.2");
        assert_eq!(text(Duration::from_nanos(1_020_000_000)), "1.02");
        assert_eq!(text(Duration::from_nanos(7)), "0.000000007");
        assert_eq!(text(Duration::from_secs(10)), "10");
    }

    #[test]
    fn what_is_not_finite_is_no_sample() {
        assert!(!Value::Real(f64::NAN).is_sample());
        assert!(!Value::Real(f64::INFINITY).is_sample());
        assert!(Value::Real(-1.0).is_sample());
    }

    proptest! {
        #[test]
        fn times_read_back(nanos in any::<u64>()) {
            let written = text(Duration::from_nanos(nanos));
            let (seconds, fraction) = written.split_once('.').unwrap_or((&written, "0"));
            let read = seconds.parse::<u128>().unwrap() * 1_000_000_000 + format!("{fraction:0<9}").parse::<u128>().unwrap();
            prop_assert_eq!(read, u128::from(nanos));
        }

        #[test]
        fn reals_are_written_as_short_as_display_does_and_read_back(bits in any::<u64>(), near in -4e9..4e9f64, whole in any::<i32>()) {
            for value in [f64::from_bits(bits), near, near / 1e9, near * 1e9, f64::from(whole)] {
                if value.is_finite() {
                    // Where two shortest forms are as near, Display may take the other one.
                    let (written, display) = (text(value), value.to_string());
                    prop_assert_eq!(written.len(), display.len(), "{} beside {}", written, display);
                    prop_assert_eq!(written.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{}", written);
                    prop_assert!(!written.contains(['e', 'E']), "{}", written);
                }
            }
        }

        #[test]
        fn an_escaped_value_holds_no_bare_quote_or_newline(value in any::<String>()) {
            let mut out = Vec::new();
            escape(&mut out, &value);
            let escaped = String::from_utf8(out).unwrap();
            let mut chars = escaped.chars();
            let mut read = String::new();
            while let Some(c) = chars.next() {
                prop_assert!(c != '"' && c != '\n');
                read.push(match c {
                    '\\' => match chars.next() { Some('n') => '\n', Some(c) => c, None => '?' },
                    c => c,
                });
            }
            prop_assert_eq!(read, value);
        }
    }
}

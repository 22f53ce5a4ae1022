//! What a client accepts: the best form of an exposition and its compression, by the quality values of RFC 9110.

use std::io::Write;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};
use miharu_metrics::Format;

/// How an answer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// Of an answer of 583 kB level 1 took 9 % less time than level 3, the usual one, and 5 % less space.
const ZSTD_LEVEL: i32 = 1;

impl Encoding {
    /// The value of Content-Encoding, where there is one.
    pub(crate) fn header(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// The text compressed, always to the same bytes.
    pub(crate) fn compress(self, plain: Bytes) -> Bytes {
        let compressed = match self {
            Self::Identity => return plain,
            Self::Gzip => {
                // The header's time stays 0, so that the bytes depend on nothing but the text.
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&plain).and_then(|()| encoder.finish())
            }
            Self::Zstd => zstd::bulk::compress(&plain, ZSTD_LEVEL),
        };
        match compressed {
            Ok(compressed) => Bytes::from(compressed),
            Err(error) => {
                tracing::error!("compression failed: {error}");
                Bytes::new()
            }
        }
    }
}

/// The form of the exposition: OpenMetrics where the client prefers its version 1, else the text form.
pub(crate) fn format(headers: &HeaderMap) -> Format {
    let mut best = (0, Format::Text);
    for (range, parameters, quality) in ranges(headers, &ACCEPT) {
        let is = |name: &str| range.eq_ignore_ascii_case(name);
        let format = if is("application/openmetrics-text") && is_version_one(parameters) {
            Format::OpenMetrics
        } else if is("text/plain") || is("text/*") || is("*/*") {
            Format::Text
        } else {
            continue;
        };
        // Of two forms that are liked equally the one named first wins, as clients list what they prefer first.
        if quality > best.0 {
            best = (quality, format);
        }
    }
    best.1
}

fn is_version_one(parameters: &str) -> bool {
    let version = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let mut version = version.filter(|(name, _)| name.trim().eq_ignore_ascii_case("version"));
    version.next().is_none_or(|(_, value)| value.trim().trim_matches('"').starts_with("1."))
}

/// The compression: the one with the best quality value, zstd before gzip where they are liked equally.
pub(crate) fn encoding(headers: &HeaderMap) -> Encoding {
    let (mut gzip, mut zstd, mut any, mut identity) = (None, None, None, 0);
    for (range, _, quality) in ranges(headers, &ACCEPT_ENCODING) {
        let is = |name: &str| range.eq_ignore_ascii_case(name);
        if is("gzip") || is("x-gzip") {
            gzip = Some(quality);
        } else if is("zstd") {
            zstd = Some(quality);
        } else if is("identity") {
            identity = quality;
        } else if is("*") {
            any = Some(quality);
        }
    }
    // A star speaks for what is not named; nothing unnamed and unstarred is wanted.
    let (gzip, zstd) = (gzip.or(any).unwrap_or(0), zstd.or(any).unwrap_or(0));
    match (gzip, zstd) {
        (0, 0) => Encoding::Identity,
        // Uncompressed only where that is named and liked better: among equals, less to send is better for both.
        (gzip, zstd) if identity > gzip.max(zstd) => Encoding::Identity,
        (gzip, zstd) if zstd >= gzip => Encoding::Zstd,
        _ => Encoding::Gzip,
    }
}

/// The ranges of a header: what, its parameters, and its quality in thousandths.
fn ranges<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = (&'a str, &'a str, u16)> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|range| {
        let (what, parameters) = range.split_once(';').unwrap_or((range, ""));
        let quality = parameters
            .split(';')
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1000, |(_, value)| quality(value.trim()));
        (what.trim(), parameters, quality)
    })
}

fn quality(text: &str) -> u16 {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value)).unwrap_or(0.0);
    // In range by the check above, so the cast is exact but for the fraction that it is meant to drop.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    let thousandths = (value * 1000.0).round() as u16;
    thousandths
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_header_gets_a_compression_that_it_does_not_name(value in proptest::collection::vec(32_u8..=126, 0..200)) {
            let value = http::HeaderValue::from_bytes(&value).unwrap();
            let asked = value.to_str().unwrap().to_ascii_lowercase();
            let headers = HeaderMap::from_iter([(ACCEPT, value.clone()), (ACCEPT_ENCODING, value)]);
            match encoding(&headers) {
                Encoding::Identity => {}
                Encoding::Gzip => prop_assert!(asked.contains("gzip")),
                Encoding::Zstd => prop_assert!(asked.contains("zstd") || asked.contains('*')),
            }
            if format(&headers) == Format::OpenMetrics {
                prop_assert!(asked.contains("application/openmetrics-text"));
            }
        }
    }

    fn accept(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, value.parse().unwrap())])
    }

    fn accept_encoding(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, value.parse().unwrap())])
    }

    #[test]
    fn prometheus_is_understood() {
        let cases = [
            // Prometheus 2.42 and 3.0 with their defaults, then Incus' own page with curl, then browsers.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("*/*", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.5", Format::Text),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("Application/OpenMetrics-Text; version=\"1.0.0\"", Format::OpenMetrics),
            ("", Format::Text),
        ];
        for (value, expected) in cases {
            assert_eq!(format(&accept(value)), expected, "{value}");
        }
        assert_eq!(format(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn the_best_compression_is_chosen() {
        let cases = [
            ("gzip", Encoding::Gzip),
            ("gzip, zstd", Encoding::Zstd),
            ("zstd;q=0.5, gzip", Encoding::Gzip),
            ("gzip;q=0", Encoding::Identity),
            ("gzip;q=0, *", Encoding::Zstd),
            ("identity", Encoding::Identity),
            ("identity, gzip;q=0.5", Encoding::Identity),
            ("identity;q=0.5, gzip;q=0.5", Encoding::Gzip),
            ("identity;q=0, gzip;q=0.1", Encoding::Gzip),
            ("deflate, br", Encoding::Identity),
            ("gzip;q=abc", Encoding::Identity),
            ("gzip;q=NaN, zstd;q=inf", Encoding::Identity),
        ];
        for (value, expected) in cases {
            assert_eq!(encoding(&accept_encoding(value)), expected, "{value}");
        }
        assert_eq!(encoding(&HeaderMap::new()), Encoding::Identity);
    }

    #[test]
    fn compression_is_undone_and_repeatable() {
        let plain = Bytes::from_static(b"incus_procs_total 1\n");
        let gzip = Encoding::Gzip.compress(plain.clone());
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut text).unwrap();
        assert_eq!(text, plain);
        assert_eq!(gzip, Encoding::Gzip.compress(plain.clone()));
        let zstd = Encoding::Zstd.compress(plain.clone());
        assert_eq!(zstd::bulk::decompress(&zstd, 100).unwrap(), plain);
    }
}

//! Certificates as files: read, and checked before the server sees them.

use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;
use time::macros::format_description;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::error::Failure;

/// More than any certificate takes, so that a mistyped path such as a disk image is not read to its end.
const LIMIT: u64 = 1 << 20;

/// A certificate read from a file.
pub(super) struct Found {
    /// The file's name.
    pub(super) name: String,
    /// Its DER, base64.
    pub(super) base64: String,
}

/// What the list says of a certificate; empty where it cannot be read.
#[derive(Debug, Default)]
pub(super) struct Described {
    /// The subject's common name.
    pub(super) common_name: String,
    /// When its validity starts.
    pub(super) issued: String,
    /// When its validity ends.
    pub(super) expires: String,
}

/// Reads the certificate that was named on the command line.
pub(super) fn read(typed: &str) -> Result<Found, Failure> {
    let text = match typed {
        "" => return Err(Failure::usage("the file of a certificate is missing")),
        "-" => bounded(std::io::stdin().lock(), "the standard input")?,
        path => match std::fs::File::open(path) {
            Ok(file) => bounded(file, path)?,
            Err(error) => return Err(Failure::usage(format!("cannot read '{path}': {error}"))),
        },
    };
    let shown = if typed == "-" { "the standard input" } else { typed };
    let der = parse(&text, shown)?;
    let name = if typed == "-" {
        "stdin".into()
    } else {
        Path::new(typed).file_name().unwrap_or_default().to_string_lossy()
    };
    Ok(Found { name: name.into_owned(), base64: STANDARD.encode(der) })
}

/// Reads a stored certificate for the list.
pub(super) fn describe(pem: &str) -> Described {
    let Some(der) = first_certificate(pem.as_bytes()) else { return Described::default() };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return Described::default() };
    let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Described {
        common_name: common_name.unwrap_or_default().to_owned(),
        issued: date(certificate.validity().not_before),
        expires: date(certificate.validity().not_after),
    }
}

/// Whether a word can only be the name of a token: it is no file, and does not look like the path of one.
pub(super) fn is_a_name(typed: &str) -> bool {
    typed != "-" && !typed.contains(['/', '.']) && !Path::new(typed).exists()
}

fn bounded(from: impl std::io::Read, shown: &str) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    from.take(LIMIT)
        .read_to_end(&mut text)
        .map_err(|error| Failure::usage(format!("cannot read '{shown}': {error}")))?;
    Ok(text)
}

/// The DER of the first certificate in PEM text, or of a file that is DER itself.
fn parse(text: &[u8], shown: &str) -> Result<Vec<u8>, Failure> {
    let der =
        first_certificate(text).or_else(|| text.first().is_some_and(|b| *b == 0x30).then(|| text.to_vec()));
    let Some(der) = der else {
        let has_key = Pem::iter_from_buffer(text).flatten().any(|pem| pem.label.ends_with("PRIVATE KEY"));
        return Err(Failure::usage(if has_key {
            format!(
                "'{shown}' holds a private key, which nobody but its owner should have: give the certificate (.crt)"
            )
        } else {
            format!("'{shown}' holds no certificate: a PEM file with BEGIN CERTIFICATE is wanted")
        }));
    };
    match X509Certificate::from_der(&der) {
        Ok(([], _)) => Ok(der),
        Ok(_) => Err(Failure::usage(format!("'{shown}' has something behind its certificate"))),
        Err(error) => Err(Failure::usage(format!("'{shown}' holds a broken certificate: {error}"))),
    }
}

fn first_certificate(text: &[u8]) -> Option<Vec<u8>> {
    Pem::iter_from_buffer(text).flatten().find(|pem| pem.label == "CERTIFICATE").map(|pem| pem.contents)
}

/// A date as the clients of Incus and LXD print it, in UTC.
fn date(time: ASN1Time) -> String {
    let format = format_description!(
        "[month repr:short] [day padding:none], [year] at [hour repr:12 padding:none]:[minute][period case:lower] (UTC)"
    );
    OffsetDateTime::from_unix_timestamp(time.timestamp())
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Made with the openssl line of the Incus page.
    pub(in super::super) const PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIIBwjCCAUigAwIBAgIURsVw7Bpe4vQohdqOy0LqGeimT8QwCgYIKoZIzj0EAwMw
GDEWMBQGA1UEAwwNbWV0cmljcy5sb2NhbDAeFw0yNjExMjEyMTAyMTVaFw0zNjEx
MTgyMTAyMTVaMBgxFjAUBgNVBAMMDW1ldHJpY3MubG9jYWwwdjAQBgcqhkjOPQIB
BgUrgQQAIgNiAARlP5RhYfhhiKiB+Xhlzv8rQsr2ChbfcsNtvRhyE+PBQcTzbame
6FN+8i9xD511lrWrn16gO8u6YCU2sWnP80wuMHxw0GC6Hncp7AhfE+hQItBo+oRR
VC4CE87RahJmY2OjUzBRMB0GA1UdDgQWBBTpQI/Hov516sJds+7GB18QnWhmQzAf
BgNVHSMEGDAWgBTpQI/Hov516sJds+7GB18QnWhmQzAPBgNVHRMBAf8EBTADAQH/
MAoGCCqGSM49BAMDA2gAMGUCMQCbpsfEYhcOujdGxM+OJV3GnvPHQRVYzSHNMYjn
pDJ1pZTMZNh0n6OquaTB7pM7x9UCMByu8DrMpkIL9hDYDf6WUkQfPM3SnUD+uk4O
CmNpkigypYmeQEPj1bwQ1uh1QHr1/g==
-----END CERTIFICATE-----
";

    fn refusal(typed: &str) -> String {
        match read(typed) {
            Ok(_) => panic!("{typed} was taken"),
            Err(failure) => {
                assert!(matches!(failure, Failure::Usage(_)));
                failure.to_string()
            }
        }
    }

    fn refusal_of(text: &str) -> String {
        parse(text.as_bytes(), "x.crt").unwrap_err().to_string()
    }

    #[test]
    fn a_word_that_is_no_file_is_a_name() {
        assert!(is_a_name("prometheus") && is_a_name("my laptop"));
        for path in ["-", ".", "metrics.crt", "nowhere/metrics", "/"] {
            assert!(!is_a_name(path), "{path}");
        }
        assert!(refusal("").contains("file of a certificate is missing"));
    }

    #[test]
    fn a_path_that_is_no_file_is_a_mistake() {
        let words = refusal("nowhere/metrics.crt");
        assert!(words.starts_with("cannot read 'nowhere/metrics.crt'"), "{words}");
    }

    #[test]
    fn what_is_no_certificate_is_refused_for_what_it_is() {
        let key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        assert!(refusal_of(key).contains("holds a private key"));
        assert!(refusal_of("hello\n").contains("holds no certificate"));
        assert!(refusal_of("").contains("holds no certificate"));
        let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert!(refusal_of(broken).contains("broken certificate"));
    }

    #[test]
    fn a_certificate_behind_its_key_is_found() {
        let both = format!("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n{PEM}");
        assert_eq!(parse(both.as_bytes(), "x").unwrap(), parse(PEM.as_bytes(), "x").unwrap());
    }

    #[test]
    fn der_is_read_too() {
        let der = parse(PEM.as_bytes(), "x").unwrap();
        assert_eq!(parse(&der, "x").unwrap(), der);
    }

    #[test]
    fn dates_read_as_in_the_clients() {
        let described = describe(PEM);
        assert_eq!(described.common_name, "metrics.local");
        assert_eq!(described.issued, "Nov 21, 2026 at 9:02pm (UTC)");
        assert_eq!(described.expires, "Nov 18, 2036 at 9:02pm (UTC)");
    }

    #[test]
    fn a_stored_certificate_that_cannot_be_read_leaves_blanks() {
        assert_eq!(describe("nonsense").common_name, "");
    }
}

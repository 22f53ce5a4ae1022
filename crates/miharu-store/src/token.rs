//! Tokens: secrets that let their holder do something. Of a bearer token only a hash is kept; a join token, which is used
//! once and which the API shows until then, is kept as it is.

use std::collections::BTreeSet;
use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::certificate::CertificateType;

/// SHA-256 of a secret. A plain hash is enough, as secrets are 32 random bytes that nobody can guess.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

/// A secret that is kept; it never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A token whose holder may have one certificate trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// A UUID, under which the API shows it as an operation.
    pub id: String,
    /// What the holder has to know.
    pub secret: Secret,
    /// What the certificate is going to be called.
    pub name: String,
    /// What people say of it.
    pub description: String,
    /// What the certificate is going to be trusted for.
    pub certificate_type: CertificateType,
    /// The only projects that it is going to see; `None` for all of them.
    pub projects: Option<BTreeSet<String>>,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// From when on it is worth nothing, in seconds since 1970; `None` for never.
    pub expires_at: Option<i64>,
}

impl SecretHash {
    /// The hash of a secret.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// What was stored, if it has the length of a hash.
    pub(crate) fn restore(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As hexadecimal digits.
    pub(crate) fn to_hex(&self) -> String {
        use std::fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// What [`to_hex`](Self::to_hex) wrote.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect::<Option<_>>()?;
        Self::restore(&bytes)
    }

    /// Whether both are of one secret, in a time that tells nothing of either.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

impl Secret {
    /// Keeps a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for who may see it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl JoinToken {
    /// Whether it is worth nothing any more at that moment, in seconds since 1970.
    #[must_use]
    pub fn has_expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_matches_its_own_secret_alone() {
        let (a, b) = (SecretHash::of("a"), SecretHash::of("b"));
        assert!(a.matches(&SecretHash::of("a")) && !a.matches(&b));
        assert_eq!(SecretHash::restore(a.bytes()), Some(a.clone()));
        assert_eq!(SecretHash::restore(b"short"), None);
        assert_eq!(SecretHash::from_hex(&a.to_hex()), Some(a));
        for text in ["", "0", "zz", "+1", &"0".repeat(63), &"0".repeat(66)] {
            assert_eq!(SecretHash::from_hex(text), None, "{text}");
        }
    }

    #[test]
    fn secrets_do_not_show_in_logs() {
        let token = JoinToken {
            id: "id".to_owned(),
            secret: Secret::new("hush".to_owned()),
            name: "x".to_owned(),
            description: String::new(),
            certificate_type: CertificateType::Client,
            projects: None,
            created_at: 0,
            expires_at: Some(10),
        };
        assert!(!format!("{token:?} {:?}", SecretHash::of("hush")).contains("hush"));
        assert!(!token.has_expired(9) && token.has_expired(10));
    }
}

//! Certificates in the trust store: what they are, whether they hold now, and whether they could ever be shown.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::token::SecretHash;

/// The smallest RSA key that a handshake takes, in bits.
const RSA_MINIMUM_BITS: usize = 2048;
/// The largest.
const RSA_MAXIMUM_BITS: usize = 8192;

/// What a certificate is trusted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertificateType {
    /// Everything.
    Client,
    /// Metrics alone.
    Metrics,
}

impl CertificateType {
    /// The word for it on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Metrics => "metrics",
        }
    }

    /// The type of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Client, Self::Metrics].into_iter().find(|known| known.as_str() == word)
    }
}

/// An entry of the trust store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What people call it.
    pub name: String,
    /// What people say of it.
    pub description: String,
    /// What it is trusted for.
    pub certificate_type: CertificateType,
    /// The only projects that it may see; `None` for all of them.
    pub projects: Option<BTreeSet<String>>,
    /// The certificate itself.
    pub certificate: ParsedCertificate,
    /// For a bearer token: the hash of its secret. The certificate beside it only stands for the token where the API shows
    /// certificates; nobody has its key, and it opens nothing.
    pub token: Option<SecretHash>,
}

/// A certificate that was read as far as the server needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedCertificate {
    der: Vec<u8>,
    fingerprint: String,
    not_before: i64,
    not_after: i64,
}

/// Why a certificate cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is no X.509 certificate.
    #[error("invalid certificate: {0}")]
    Malformed(String),
    /// No handshake of this server's could be made with its key.
    #[error(
        "this certificate could never be used: {0}; use ECDSA P-256 or P-384, RSA from 2048 bits, or Ed25519"
    )]
    Key(String),
}

impl ParsedCertificate {
    /// Reads a certificate from its DER.
    ///
    /// # Errors
    /// When it is none, or has a key that no client could show in a handshake with this server.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let malformed = |reason: String| CertificateError::Malformed(reason);
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|e| malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("unexpected data after the certificate".to_owned()));
        }
        check_key(certificate.public_key()).map_err(CertificateError::Key)?;
        Ok(Self::from_parts(der, &certificate))
    }

    /// What was stored, which [`parse`](Self::parse) has seen once: the key is not judged again.
    pub(crate) fn restore(der: &[u8]) -> Result<Self, CertificateError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|e| CertificateError::Malformed(e.to_string()))?;
        Ok(Self::from_parts(der, &certificate))
    }

    fn from_parts(der: &[u8], certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            der: der.to_owned(),
            fingerprint: fingerprint(der),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        }
    }

    /// The certificate's DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of its DER, 64 hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// When its validity ends, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// When its validity begins, in seconds since 1970.
    #[must_use]
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Whether its validity holds at that moment.
    #[must_use]
    pub fn is_valid_at(&self, moment: SystemTime) -> bool {
        let seconds = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        i64::try_from(seconds).is_ok_and(|now| (self.not_before..=self.not_after).contains(&now))
    }
}

/// SHA-256 of a certificate's DER, 64 hexadecimal digits.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(der).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), String> {
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return Ok(());
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 || curve == OID_NIST_EC_P384 => Ok(()),
            Some(curve) if curve == OID_NIST_EC_P521 => {
                Err("its key is on the elliptic curve P-521".to_owned())
            }
            Some(curve) => Err(format!("its key is on the unsupported elliptic curve {curve}")),
            None => Err("its key is on an unnamed elliptic curve".to_owned()),
        };
    }
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
            return Err("its RSA key cannot be read".to_owned());
        };
        let bits = bit_length(rsa.modulus);
        return if (RSA_MINIMUM_BITS..=RSA_MAXIMUM_BITS).contains(&bits) {
            Ok(())
        } else {
            Err(format!("its RSA key has {bits} bits"))
        };
    }
    Err(format!("its key is of the unsupported type {algorithm}"))
}

fn bit_length(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() - zeros) * 8 - first
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    pub(crate) fn der(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::new(vec!["metrics.local".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn keys_of_the_handshake_are_taken() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            let der = der(algorithm);
            let parsed = ParsedCertificate::parse(&der).unwrap();
            assert_eq!(parsed.der(), der);
            assert_eq!(parsed.fingerprint().len(), 64);
            assert!(parsed.is_valid_at(SystemTime::now()));
            assert!(!parsed.is_valid_at(SystemTime::now() + Duration::from_secs(4_000 * 365 * 86_400)));
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(matches!(ParsedCertificate::parse(b"x"), Err(CertificateError::Malformed(_))));
        let mut long = der(&rcgen::PKCS_ED25519);
        long.push(0);
        assert!(matches!(ParsedCertificate::parse(&long), Err(CertificateError::Malformed(_))));
    }

    #[test]
    fn the_length_of_a_number_leaves_out_its_zeros() {
        assert_eq!(bit_length(&[0, 0x80, 0]), 16);
        assert_eq!(bit_length(&[0x01]), 1);
        assert_eq!(bit_length(&[]), 0);
        assert_eq!(bit_length(&[0]), 0);
    }
}

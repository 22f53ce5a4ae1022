//! `/internal`: what only the command line asks, on the unix socket alone.

use serde::{Deserialize, Serialize};

/// `POST /internal/renew-certificate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateRenewal {
    /// Names and addresses to be named beside those of the machine.
    pub san: Vec<String>,
}

/// Its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RenewedCertificate {
    /// The new certificate, PEM.
    pub certificate: String,
    /// Its fingerprint: SHA-256 of its DER, in hexadecimal digits.
    pub fingerprint: String,
}

//! `/1.0/certificates`: who may ask.

use serde::{Deserialize, Serialize};

/// A certificate in the trust store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// What people call it.
    pub name: String,
    /// `client` (everything) or `metrics` (`/1.0/metrics` only).
    #[serde(rename = "type")]
    pub certificate_type: String,
    /// Whether it is limited to [`projects`](Self::projects).
    pub restricted: bool,
    /// The projects that a restricted certificate may see.
    pub projects: Vec<String>,
    /// The certificate, PEM.
    pub certificate: String,
    /// What people say of it.
    pub description: String,
    /// SHA-256 of its DER, hexadecimal.
    pub fingerprint: String,
    /// Ours: whether the entry is a bearer token. The certificate then only stands for it, so that every client can list it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bearer_token: bool,
}

/// `POST /1.0/certificates`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificatesPost {
    /// What people call it.
    pub name: String,
    /// `client` or `metrics`; empty is `client`.
    #[serde(rename = "type")]
    pub certificate_type: String,
    /// Whether it is limited to [`projects`](Self::projects).
    pub restricted: bool,
    /// The projects that it may see.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub projects: Vec<String>,
    /// The certificate as base64 of its DER; empty for the one of the TLS connection.
    pub certificate: String,
    /// What people say of it.
    pub description: String,
    /// A trust token, as older clients send it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// A trust token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_token: String,
    /// Whether a join token is asked for instead of adding a certificate.
    pub token: bool,
    /// Ours: whether a bearer token for metrics is asked for instead of adding a certificate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bearer_token: bool,
    /// Ours: how long the bearer token is to be valid, such as `30d`; empty for ever.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expiry: String,
}

/// Ours: what `POST /1.0/certificates` returns for a bearer token, the only time that its secret is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BearerToken {
    /// The secret, for `Authorization: Bearer`.
    pub token: String,
    /// The fingerprint of its entry in the trust store.
    pub fingerprint: String,
    /// When it expires, RFC 3339; `None` for never.
    pub expires_at: Option<String>,
}

/// What a join token says, as base64 of its JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinToken {
    /// What the client's certificate is going to be called.
    pub client_name: String,
    /// The fingerprint of the server's certificate.
    pub fingerprint: String,
    /// Where the server is reached, `HOST:PORT`.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub addresses: Vec<String>,
    /// What proves that the client was asked to join.
    pub secret: String,
    /// When it expires, RFC 3339; the first moment of the year 1 for never.
    pub expires_at: String,
}

impl JoinToken {
    /// What stands for no expiry, as Go writes a moment that was never set.
    pub const NEVER: &'static str = "0001-01-01T00:00:00Z";
}

/// `PUT /1.0/certificates/FP`: everything that may change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificatePut {
    /// What people call it.
    pub name: String,
    /// `client` or `metrics`.
    #[serde(rename = "type")]
    pub certificate_type: String,
    /// Whether it is limited to [`projects`](Self::projects).
    pub restricted: bool,
    /// The projects that it may see.
    #[serde(deserialize_with = "crate::null_is_default")]
    pub projects: Vec<String>,
    /// The certificate, PEM; empty, or the same as before.
    pub certificate: String,
    /// What people say of it.
    pub description: String,
}

/// `PATCH /1.0/certificates/FP`: only what is present changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificatePatch {
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `client` or `metrics`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub certificate_type: Option<String>,
    /// Whether it is limited to [`projects`](Self::projects).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restricted: Option<bool>,
    /// The projects that it may see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projects: Option<Vec<String>>,
    /// The certificate, PEM; the same as before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// What people say of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_go_client_is_read() {
        let body = r#"{"name":"metrics.crt","type":"metrics","restricted":false,"projects":null,"certificate":"MIIB","password":"","token":false}"#;
        let post: CertificatesPost = serde_json::from_str(body).unwrap();
        assert_eq!(post.certificate_type, "metrics");
        assert!(post.projects.is_empty());
    }
}

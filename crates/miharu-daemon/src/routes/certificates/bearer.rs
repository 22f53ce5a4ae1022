//! Bearer tokens: for scrapers that cannot show a client certificate.

use std::sync::Arc;

use miharu_api::{BearerToken, CertificatePut, CertificatesPost};
use miharu_store::{Certificate, CertificateType, Change, Expiry, ParsedCertificate, SecretHash};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use time::OffsetDateTime;

use super::{check_number_of_tokens, checked};
use crate::app::App;
use crate::clock::{rfc3339, seconds_now};
use crate::respond::{Answer, ApiError, created_with, path};
use crate::secrets;

/// The common name under which clients list a token, and its description unless it is given another.
const COMMON_NAME: &str = "bearer token";
/// What stands for no expiry in a certificate (RFC 5280, 4.1.2.5): the end of the year 9999.
const NEVER: i64 = 253_402_300_799;

/// Makes a token and returns its secret, which is not kept.
pub(super) async fn make(app: Arc<App>, body: CertificatesPost) -> Answer {
    if !body.certificate.is_empty() {
        return Err(ApiError::bad_request(
            "a token is asked for and a certificate given: it is one or the other",
        ));
    }
    if CertificateType::parse(&body.certificate_type) != Some(CertificateType::Metrics) {
        return Err(ApiError::bad_request(format!(
            "a bearer token is of type metrics, not '{}'",
            body.certificate_type
        )));
    }
    let now = seconds_now();
    let expires_at = match body.expiry.trim() {
        "" => None,
        text => Some(end(text, now).map_err(|reason| {
            ApiError::bad_request(format!("the token cannot be valid for '{text}': {reason}"))
        })?),
    };
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        let put = CertificatePut {
            name: body.name,
            certificate_type: body.certificate_type,
            restricted: body.restricted,
            projects: body.projects,
            certificate: String::new(),
            // Incus' client lists descriptions, and no common names.
            description: if body.description.is_empty() { COMMON_NAME.to_owned() } else { body.description },
        };
        let wanted = checked(&app, put, None).await?;
        check_number_of_tokens(&app)?;
        let secret = secrets::bearer_token().map_err(ApiError::internal)?;
        let stand_in = stand_in(now, expires_at.unwrap_or(NEVER)).map_err(ApiError::internal)?;
        let certificate = ParsedCertificate::parse(&stand_in).map_err(ApiError::internal)?;
        let fingerprint = certificate.fingerprint().to_owned();
        let entry = Certificate { token: Some(SecretHash::of(&secret)), ..wanted.entry(certificate) };
        app.commit(Change::AddCertificate(entry)).await?;
        let location = path("certificates", &fingerprint);
        let expires_at = expires_at.map(rfc3339);
        created_with(&location, BearerToken { token: secret, fingerprint, expires_at })
    })
    .await
}

fn end(text: &str, now: i64) -> Result<i64, String> {
    Expiry::parse(text)?.after(now).ok_or_else(|| "that is too far away".to_owned())
}

/// A certificate that stands for the token where clients list certificates, with its validity. Its key is forgotten at
/// once, and no handshake could be made with it.
fn stand_in(from: i64, to: i64) -> anyhow::Result<Vec<u8>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    params.not_before = OffsetDateTime::from_unix_timestamp(from)?;
    params.not_after = OffsetDateTime::from_unix_timestamp(to)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    Ok(params.self_signed(&key)?.der().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_has_the_validity_of_its_token() {
        let (a, b) = (stand_in(1_000_000_000, NEVER).unwrap(), stand_in(1_000_000_000, NEVER).unwrap());
        let (a, b) = (ParsedCertificate::parse(&a).unwrap(), ParsedCertificate::parse(&b).unwrap());
        assert_eq!((a.not_before(), a.not_after()), (1_000_000_000, NEVER));
        assert_ne!(a.fingerprint(), b.fingerprint());
    }
}

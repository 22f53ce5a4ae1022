//! Join tokens: made by who is trusted, used once by who is to be.

use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use miharu_api::{CertificatePut, CertificatesPost};
use miharu_store::{Certificate, Change, JoinToken, ParsedCertificate, Secret};

use super::super::{operations, server};
use super::{check_number_of_tokens, checked, not_signed, trust};
use crate::app::App;
use crate::auth::ShownCertificate;
use crate::clock::seconds_now;
use crate::pem;
use crate::respond::{Answer, ApiError, accepted, created, path};
use crate::secrets;
use crate::tls::Verdict;

/// The token that a client shows in a request: newer ones in a field of its own, older ones as the password.
fn shown(body: &CertificatesPost) -> &str {
    if body.trust_token.is_empty() { &body.password } else { &body.trust_token }
}

/// Whether a client shows a token, and wants the certificate of the connection to be trusted for it.
pub(super) fn is_shown(body: &CertificatesPost) -> bool {
    body.certificate.is_empty() && !shown(body).is_empty()
}

/// Makes a token, which the API shows as an operation until it is used.
pub(super) async fn make(app: Arc<App>, body: CertificatesPost) -> Answer {
    if !body.certificate.is_empty() {
        return Err(ApiError::bad_request(
            "a token is asked for and a certificate given: it is one or the other",
        ));
    }
    if server::https_addresses(&app).await.is_empty() {
        return Err(ApiError::bad_request(
            "nobody could use the token, as the API is not served over HTTPS: set core.https_address first",
        ));
    }
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        let put = CertificatePut {
            name: body.name,
            certificate_type: body.certificate_type,
            restricted: body.restricted,
            projects: body.projects,
            certificate: String::new(),
            description: body.description,
        };
        let wanted = checked(&app, put, None).await?;
        let created_at = seconds_now();
        let expiry = app.store.load().config.settings().remote_token_expiry;
        let expires_at = expiry.map(|span| span.after(created_at).ok_or_else(too_far)).transpose()?;
        let token = JoinToken {
            id: secrets::uuid().map_err(ApiError::internal)?,
            secret: Secret::new(secrets::join_secret().map_err(ApiError::internal)?),
            name: wanted.name,
            description: wanted.description,
            certificate_type: wanted.certificate_type,
            projects: wanted.projects,
            created_at,
            expires_at,
        };
        check_number_of_tokens(&app)?;
        app.commit(Change::AddJoinToken(token.clone())).await?;
        let operation = operations::running(&app, &token).await;
        app.events.operation(None, &operation);
        accepted(&path("operations", &token.id), operation)
    })
    .await
}

fn too_far() -> ApiError {
    ApiError::bad_request("core.remote_token_expiry is too far away: set a shorter one")
}

/// Trusts the certificate of the connection, for a token. Whoever shows none that holds learns nothing but that.
pub(super) async fn redeem(app: Arc<App>, own: Option<ShownCertificate>, body: CertificatesPost) -> Answer {
    if shown(&body).is_empty() {
        return Err(ApiError::forbidden());
    }
    let secret = secrets::read_join_token(shown(&body)).map(|token| token.secret).unwrap_or_default();
    // Looked for in any case, so that what is no token takes as long as one that is wrong.
    if app.store.load().join_token(&secret).is_none() {
        tracing::debug!("a client that is not trusted showed no join token that holds");
        return Err(no_such_token());
    }
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        let state = app.store.load();
        let token = Arc::clone(state.join_token(&secret).ok_or_else(no_such_token)?);
        if token.has_expired(seconds_now()) {
            tracing::info!(id = token.id, name = token.name, "an expired join token was shown");
            return Err(refused("the token has expired, ask for a new one"));
        }
        let certificate = judge(&app, own, &body)?;
        let location = path("certificates", certificate.fingerprint());
        let entry = Certificate {
            name: token.name.clone(),
            description: token.description.clone(),
            certificate_type: token.certificate_type,
            projects: token.projects.clone(),
            certificate,
            token: None,
        };
        trust(&app, Change::Redeem(token.id.clone(), entry)).await?;
        operations::tell_cancelled(&app, &token).await;
        created(&location)
    })
    .await
}

/// The same for whatever is no token that holds.
fn no_such_token() -> ApiError {
    refused("the token is wrong, or it was used or revoked")
}

fn refused(why: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, format!("not authorized: {why}"))
}

/// The certificate of the connection, if it can be trusted.
fn judge(
    app: &App,
    own: Option<ShownCertificate>,
    body: &CertificatesPost,
) -> Result<ParsedCertificate, ApiError> {
    let own = own.ok_or_else(|| ApiError::bad_request("No client certificate provided"))?.0;
    let der = own.der.as_ref();
    // Some clients post the certificate that they show as well.
    if !body.certificate.trim().is_empty() && pem::decode(&body.certificate).as_deref() != Some(der) {
        return Err(ApiError::bad_request(
            "a token is for the certificate of the connection, not for another one",
        ));
    }
    let certificate =
        ParsedCertificate::parse(der).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let now = SystemTime::now();
    if !certificate.is_valid_at(now) {
        return Err(ApiError::bad_request("the client's certificate is not valid at the moment"));
    }
    if app.tls.authority().judge(der, now) == Verdict::Refused {
        return Err(not_signed());
    }
    Ok(certificate)
}

//! `/1.0/certificates`: the trust store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use miharu_api::{CertificatePatch, CertificatePut, CertificatesPost};
use miharu_store::{Certificate, CertificateType, Change, Error, ParsedCertificate};

use crate::app::App;
use crate::auth::{FullAccess, ShownCertificate};
use crate::pem;
use crate::respond::{
    Answer, ApiError, Json, Name, Parameters, check_match, created, done, ok, ok_tagged, path, tag,
};

/// The longest name or description, in bytes.
const TEXT_LIMIT: usize = 4096;
/// The fewest digits that a fingerprint may be shortened to.
const PREFIX_MINIMUM: usize = 2;

fn no_such_certificate() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Certificate not found")
}

/// `GET /1.0/certificates`.
pub(super) async fn list(State(app): State<Arc<App>>, _: FullAccess, parameters: Parameters) -> Answer {
    let state = app.store.load();
    if parameters.recursion() == 0 {
        return ok(state.certificates.keys().map(|name| path("certificates", name)).collect::<Vec<_>>());
    }
    ok(state.certificates.values().map(|entry| shown(entry)).collect::<Vec<_>>())
}

/// `GET /1.0/certificates/FINGERPRINT`.
pub(super) async fn show(State(app): State<Arc<App>>, _: FullAccess, Name(fingerprint): Name) -> Answer {
    let entry = find(&app, &fingerprint)?;
    ok_tagged(shown(&entry), &tag_of(&entry)?)
}

/// `POST /1.0/certificates`: trusts one.
pub(super) async fn add(
    State(app): State<Arc<App>>,
    _: FullAccess,
    own: Option<ShownCertificate>,
    Json(body): Json<CertificatesPost>,
) -> Answer {
    if body.token {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "trust tokens are not implemented yet"));
    }
    let der = match body.certificate.trim() {
        // The certificate of the connection, as the API has it.
        "" => own
            .map(|own| own.0.der.to_vec())
            .ok_or_else(|| ApiError::bad_request("No client certificate provided"))?,
        text => pem::decode(text).ok_or_else(|| {
            ApiError::bad_request("invalid certificate: expected base64 of its DER, or PEM")
        })?,
    };
    let certificate =
        ParsedCertificate::parse(&der).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let fingerprint = certificate.fingerprint().to_owned();
    if !certificate.is_valid_at(SystemTime::now()) {
        tracing::warn!(fingerprint, "a certificate is added that is not valid at the moment");
    }
    let name = match body.name.as_str() {
        "" => fingerprint.chars().take(12).collect(),
        name => name.to_owned(),
    };
    let put = CertificatePut {
        name,
        certificate_type: body.certificate_type,
        restricted: body.restricted,
        projects: body.projects,
        certificate: String::new(),
        description: body.description,
    };
    let location = path("certificates", &fingerprint);
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        if app.store.load().certificates.contains_key(&fingerprint) {
            return Err(already_trusted());
        }
        let entry = entry(&app, put, certificate, None).await?;
        match app.commit(Change::AddCertificate(entry)).await {
            Ok(_) => Ok(()),
            Err(Error::Exists(_)) => Err(already_trusted()),
            Err(error) => Err(ApiError::internal(error)),
        }
    })
    .await?;
    created(&location)
}

/// `PUT /1.0/certificates/FINGERPRINT`: everything that may change of an entry.
pub(super) async fn replace(
    State(app): State<Arc<App>>,
    _: FullAccess,
    Name(fingerprint): Name,
    headers: HeaderMap,
    Json(body): Json<CertificatePut>,
) -> Answer {
    // A PUT without a type would else make a reader of metrics a client that may do everything.
    if body.certificate_type.is_empty() {
        return Err(ApiError::bad_request("Unknown certificate type '': expected client or metrics"));
    }
    update(app, fingerprint, headers, move |_| body).await
}

/// `PATCH /1.0/certificates/FINGERPRINT`: some of it.
pub(super) async fn amend(
    State(app): State<Arc<App>>,
    _: FullAccess,
    Name(fingerprint): Name,
    headers: HeaderMap,
    Json(body): Json<CertificatePatch>,
) -> Answer {
    update(app, fingerprint, headers, move |entry| {
        let now = shown(entry);
        let restricted = body.restricted.unwrap_or(now.restricted);
        // Who lifts a restriction need not name the projects away as well.
        let projects = if restricted { now.projects } else { Vec::new() };
        CertificatePut {
            name: body.name.unwrap_or(now.name),
            certificate_type: body.certificate_type.unwrap_or(now.certificate_type),
            restricted,
            projects: body.projects.unwrap_or(projects),
            certificate: body.certificate.unwrap_or_default(),
            description: body.description.unwrap_or(now.description),
        }
    })
    .await
}

async fn update<F>(app: Arc<App>, fingerprint: String, headers: HeaderMap, put: F) -> Answer
where
    F: FnOnce(&Certificate) -> CertificatePut + Send + 'static,
{
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        let before = find(&app, &fingerprint)?;
        check_match(&headers, &tag_of(&before)?)?;
        let put = put(&before);
        let same = |text: &str| pem::decode(text).is_some_and(|der| der == before.certificate.der());
        if !put.certificate.trim().is_empty() && !same(&put.certificate) {
            return Err(ApiError::bad_request(
                "a certificate cannot be replaced by another one: add that, and remove this",
            ));
        }
        let entry = entry(&app, put, before.certificate.clone(), Some(&before)).await?;
        app.commit(Change::UpdateCertificate(entry)).await.map_err(ApiError::internal)?;
        Ok(())
    })
    .await?;
    done()
}

/// `DELETE /1.0/certificates/FINGERPRINT`.
pub(super) async fn remove(State(app): State<Arc<App>>, _: FullAccess, Name(fingerprint): Name) -> Answer {
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        let fingerprint = find(&app, &fingerprint)?.certificate.fingerprint().to_owned();
        app.commit(Change::RemoveCertificate(fingerprint)).await.map_err(ApiError::internal)?;
        Ok(())
    })
    .await?;
    done()
}

fn already_trusted() -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "Certificate already in trust store")
}

/// The entry whose fingerprint begins so; more than one is none.
fn find(app: &App, prefix: &str) -> Result<Arc<Certificate>, ApiError> {
    let prefix = prefix.to_ascii_lowercase();
    if prefix.len() < PREFIX_MINIMUM {
        return Err(no_such_certificate());
    }
    let state = app.store.load();
    let mut matching = state.certificates.iter().filter(|(fingerprint, _)| fingerprint.starts_with(&prefix));
    match (matching.next(), matching.next()) {
        (Some((_, entry)), None) => Ok(Arc::clone(entry)),
        (Some(_), Some(_)) => Err(ApiError::bad_request(format!(
            "More than one certificate matches the fingerprint '{prefix}'"
        ))),
        (None, _) => Err(no_such_certificate()),
    }
}

/// Checks what a client wants an entry to be.
async fn entry(
    app: &App,
    put: CertificatePut,
    certificate: ParsedCertificate,
    before: Option<&Certificate>,
) -> Result<Certificate, ApiError> {
    let CertificatePut { name, certificate_type, restricted, projects, description, .. } = put;
    let certificate_type = match certificate_type.as_str() {
        "" => CertificateType::Client,
        word => CertificateType::parse(word).ok_or_else(|| {
            ApiError::bad_request(format!("Unknown certificate type '{word}': expected client or metrics"))
        })?,
    };
    for text in [&name, &description] {
        if text.len() > TEXT_LIMIT || text.chars().any(char::is_control) {
            return Err(ApiError::bad_request(format!(
                "a name or description has up to {TEXT_LIMIT} bytes and no control characters"
            )));
        }
    }
    if name.is_empty() {
        return Err(ApiError::bad_request("No name provided"));
    }
    let projects: BTreeSet<String> = projects.into_iter().collect();
    if !restricted && !projects.is_empty() {
        // To name projects without restricting to them would look as if it did something.
        return Err(ApiError::bad_request("projects are given, but the certificate is not restricted"));
    }
    check_projects(app, &projects, before.and_then(|entry| entry.projects.as_ref())).await?;
    Ok(Certificate {
        name,
        description,
        certificate_type,
        projects: restricted.then_some(projects),
        certificate,
    })
}

/// A project must be known, unless the entry names it already: its instances may be stopped at the moment.
async fn check_projects(
    app: &App,
    projects: &BTreeSet<String>,
    before: Option<&BTreeSet<String>>,
) -> Result<(), ApiError> {
    let none = BTreeSet::new();
    let added: Vec<_> = projects.difference(before.unwrap_or(&none)).collect();
    if added.is_empty() {
        return Ok(());
    }
    let known = app.projects().await;
    match added.into_iter().find(|name| !known.contains(*name)) {
        Some(name) => {
            tracing::info!("a certificate was not trusted: there is no project '{name}'");
            Err(ApiError::new(StatusCode::NOT_FOUND, "Project not found"))
        }
        None => Ok(()),
    }
}

fn shown(entry: &Certificate) -> miharu_api::Certificate {
    miharu_api::Certificate {
        name: entry.name.clone(),
        certificate_type: entry.certificate_type.as_str().to_owned(),
        restricted: entry.projects.is_some(),
        projects: entry.projects.iter().flatten().cloned().collect(),
        certificate: pem::encode(entry.certificate.der()),
        description: entry.description.clone(),
        fingerprint: entry.certificate.fingerprint().to_owned(),
    }
}

fn tag_of(entry: &Certificate) -> Result<String, ApiError> {
    tag(&shown(entry))
}

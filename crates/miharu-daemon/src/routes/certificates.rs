//! `/1.0/certificates`: the trust store, and the tokens that lead into it.

mod bearer;
mod join;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use miharu_api::{CertificatePatch, CertificatePut, CertificatesPost};
use miharu_store::{Certificate, CertificateType, Change, Error, ParsedCertificate};

use crate::app::{ATTEMPTS, App};
use crate::auth::{Caller, FullAccess, ShownCertificate};
use crate::pem;
use crate::respond::{
    Answer, ApiError, Json, Name, Parameters, check_match, created, done, ok, ok_tagged, path, tag,
};
use crate::tls::Verdict;

/// The longest name or description, in bytes.
const TEXT_LIMIT: usize = 4096;
/// The fewest digits that a fingerprint may be shortened to.
const PREFIX_MINIMUM: usize = 2;
/// The most tokens, of both kinds: every one of them is looked at for a secret that a client shows.
const TOKENS_LIMIT: usize = if cfg!(test) { 20 } else { 1000 };

fn no_such_certificate() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Certificate not found")
}

/// `GET /1.0/certificates`.
pub(super) async fn list(State(app): State<Arc<App>>, _: FullAccess, parameters: Parameters) -> Answer {
    let state = app.store.load();
    if parameters.recursion() == 0 {
        return ok(state.certificates.keys().map(|name| path("certificates", name)).collect::<Vec<_>>());
    }
    ok(state.certificates.values().map(|entry| body_of(entry)).collect::<Vec<_>>())
}

/// `GET /1.0/certificates/FINGERPRINT`.
pub(super) async fn show(State(app): State<Arc<App>>, _: FullAccess, Name(fingerprint): Name) -> Answer {
    let entry = find(&app, &fingerprint)?;
    ok_tagged(body_of(&entry), &tag_of(&entry)?)
}

/// `POST /1.0/certificates`: trusts one, or makes a token; or trusts its sender, who shows a token.
pub(super) async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    own: Option<ShownCertificate>,
    body: Result<Json<CertificatesPost>, ApiError>,
) -> Answer {
    match caller {
        Caller::Local | Caller::Client => {}
        // Whatever is wrong with what they send, strangers learn no more than that they are strangers.
        Caller::Untrusted => {
            let Json(body) = body.map_err(|_| ApiError::forbidden())?;
            return join::redeem(app, own, body).await;
        }
        Caller::RestrictedClient(_) => {
            let Json(body) = body.map_err(|_| ApiError::forbidden())?;
            return Err(if join::is_shown(&body) { already_trusted() } else { ApiError::forbidden() });
        }
        Caller::Metrics(_) | Caller::Member(_) => return Err(ApiError::forbidden()),
    }
    let Json(body) = body?;
    if body.token {
        return join::make(app, body).await;
    }
    if body.bearer_token {
        return bearer::make(app, body).await;
    }
    if join::is_shown(&body) && caller == Caller::Client {
        return Err(already_trusted());
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
    if app.tls.authority().judge(&der, SystemTime::now()) == Verdict::Refused {
        return Err(not_signed());
    }
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
            return Err(in_trust_store());
        }
        let wanted = checked(&app, put, None).await?;
        trust(&app, Change::AddCertificate(wanted.entry(certificate))).await
    })
    .await?;
    created(&location)
}

/// Commits a change that trusts a certificate.
async fn trust(app: &Arc<App>, change: Change) -> Result<(), ApiError> {
    match app.commit(change).await {
        Ok(_) => Ok(()),
        Err(Error::Exists(_)) => Err(in_trust_store()),
        // A join token that was used or revoked a moment ago is as good as none.
        Err(Error::NotFound(_)) => Err(ApiError::forbidden()),
        Err(error) => Err(error.into()),
    }
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
    update(app, fingerprint, headers, move |_| body.clone()).await
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
        let now = body_of(entry);
        let restricted = body.restricted.unwrap_or(now.restricted);
        // Who lifts a restriction need not name the projects away as well.
        let projects = if restricted { now.projects } else { Vec::new() };
        CertificatePut {
            name: body.name.clone().unwrap_or(now.name),
            certificate_type: body.certificate_type.clone().unwrap_or(now.certificate_type),
            restricted,
            projects: body.projects.clone().unwrap_or(projects),
            certificate: body.certificate.clone().unwrap_or_default(),
            description: body.description.clone().unwrap_or(now.description),
        }
    })
    .await
}

async fn update<F>(app: Arc<App>, fingerprint: String, headers: HeaderMap, put: F) -> Answer
where
    F: Fn(&Certificate) -> CertificatePut + Send + Sync + 'static,
{
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        let mut attempts = ATTEMPTS;
        loop {
            let state = app.store.load();
            let before = find_in(&state, &fingerprint)?;
            check_match(&headers, &tag_of(&before)?)?;
            let entry = updated(&app, &before, put(&before)).await?;
            match app.commit_from(Change::UpdateCertificate(entry), &state).await {
                // Something else has changed; if it was this entry, its tag tells.
                Err(Error::Conflict { .. }) if attempts > 1 => attempts -= 1,
                result => return result.map(drop).map_err(ApiError::from),
            }
        }
    })
    .await?;
    done()
}

/// An entry as a client wants it to be, checked.
async fn updated(app: &App, before: &Certificate, mut put: CertificatePut) -> Result<Certificate, ApiError> {
    if !put.restricted {
        // Clients send the projects along when they lift a restriction: they limit nothing from then on.
        put.projects.clear();
    }
    let same = |text: &str| pem::decode(text).is_some_and(|der| der == before.certificate.der());
    if !put.certificate.trim().is_empty() && !same(&put.certificate) {
        return Err(ApiError::bad_request(
            "a certificate cannot be replaced by another one: add that, and remove this",
        ));
    }
    let wanted = checked(app, put, before.projects.as_ref()).await?;
    if before.token.is_some() && wanted.certificate_type != CertificateType::Metrics {
        return Err(ApiError::bad_request("a bearer token is of type metrics"));
    }
    Ok(Certificate { token: before.token.clone(), ..wanted.entry(before.certificate.clone()) })
}

/// `DELETE /1.0/certificates/FINGERPRINT`.
pub(super) async fn remove(State(app): State<Arc<App>>, _: FullAccess, Name(fingerprint): Name) -> Answer {
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        let fingerprint = find(&app, &fingerprint)?.certificate.fingerprint().to_owned();
        app.commit(Change::RemoveCertificate(fingerprint)).await?;
        Ok(())
    })
    .await?;
    done()
}

/// For a client that shows a token although it needs none.
fn already_trusted() -> ApiError {
    ApiError::bad_request("Client is already trusted")
}

fn in_trust_store() -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "Certificate already in trust store")
}

fn not_signed() -> ApiError {
    ApiError::bad_request(
        "the certificate could not be used: it is not signed by this server's authority (server.ca), or is revoked",
    )
}

fn check_number_of_tokens(app: &App) -> Result<(), ApiError> {
    let state = app.store.load();
    let bearer = state.certificates.values().filter(|entry| entry.token.is_some()).count();
    if bearer + state.join_tokens.len() < TOKENS_LIMIT {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "there are {TOKENS_LIMIT} tokens already: revoke some that are not needed"
    )))
}

/// The entry whose fingerprint begins so; more than one is none.
fn find(app: &App, prefix: &str) -> Result<Arc<Certificate>, ApiError> {
    find_in(&app.store.load(), prefix)
}

fn find_in(state: &miharu_store::State, prefix: &str) -> Result<Arc<Certificate>, ApiError> {
    let prefix = prefix.to_ascii_lowercase();
    if prefix.len() < PREFIX_MINIMUM {
        return Err(no_such_certificate());
    }
    let mut matching = state.certificates.iter().filter(|(fingerprint, _)| fingerprint.starts_with(&prefix));
    match (matching.next(), matching.next()) {
        (Some((_, entry)), None) => Ok(Arc::clone(entry)),
        (Some(_), Some(_)) => Err(ApiError::bad_request(format!(
            "More than one certificate matches the fingerprint '{prefix}'"
        ))),
        (None, _) => Err(no_such_certificate()),
    }
}

/// What a client wants an entry to be, checked.
struct Wanted {
    name: String,
    description: String,
    certificate_type: CertificateType,
    projects: Option<BTreeSet<String>>,
}

impl Wanted {
    fn entry(self, certificate: ParsedCertificate) -> Certificate {
        let Self { name, description, certificate_type, projects } = self;
        Certificate { name, description, certificate_type, projects, certificate, token: None }
    }
}

/// Checks what a client wants an entry to be; `before` are the projects that it is limited to already.
async fn checked(
    app: &App,
    put: CertificatePut,
    before: Option<&BTreeSet<String>>,
) -> Result<Wanted, ApiError> {
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
    check_projects(app, &projects, before).await?;
    Ok(Wanted { name, description, certificate_type, projects: restricted.then_some(projects) })
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

fn body_of(entry: &Certificate) -> miharu_api::Certificate {
    miharu_api::Certificate {
        name: entry.name.clone(),
        certificate_type: entry.certificate_type.as_str().to_owned(),
        restricted: entry.projects.is_some(),
        projects: entry.projects.iter().flatten().cloned().collect(),
        certificate: pem::encode(entry.certificate.der()),
        description: entry.description.clone(),
        fingerprint: entry.certificate.fingerprint().to_owned(),
        bearer_token: entry.token.is_some(),
    }
}

fn tag_of(entry: &Certificate) -> Result<String, ApiError> {
    tag(&body_of(entry))
}

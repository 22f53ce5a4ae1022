//! Who asks, and what they may see: api.md's table of rights.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use miharu_store::{CertificateType, State};

use crate::app::App;
use crate::forward;
use crate::listen::{Entrance, Peer, PeerCertificate, Standing};
use crate::respond::ApiError;
use crate::tls::{Authority, Purpose, Verdict};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Whoever may open the unix socket.
    Local,
    /// A trusted client.
    Client,
    /// A trusted client that may see these projects only.
    RestrictedClient(BTreeSet<String>),
    /// A trusted reader of metrics, of these projects only where there are any.
    Metrics(Option<BTreeSet<String>>),
    /// Another member of the cluster. It reads metrics for somebody whose rights it has found out, and nothing else.
    Member(MetricsRight),
    /// Anybody else.
    Untrusted,
}

/// What a caller may see of the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MetricsRight {
    All,
    Projects(BTreeSet<String>),
    None,
}

/// What a request shows of who sent it.
#[derive(Debug, Clone)]
pub(crate) struct Credentials<'a> {
    pub(crate) peer: &'a Peer,
    /// The secret in `Authorization: Bearer`.
    pub(crate) bearer: Option<&'a str>,
    /// For whom a member asks.
    pub(crate) forwarded: MetricsRight,
}

impl Caller {
    /// Judges who asks by the trust store as it is now. The certificate comes first; the token counts where that opens
    /// nothing.
    pub(crate) fn of(shown: Credentials<'_>, state: &State, authority: &Authority, now: SystemTime) -> Self {
        if shown.peer.entrance == Entrance::Unix {
            return Self::Local;
        }
        if Self::is_member(shown.peer, state) {
            return Self::Member(shown.forwarded);
        }
        match Self::of_certificate(shown.peer, state, authority, now) {
            Self::Untrusted => {
                shown.bearer.map_or(Self::Untrusted, |secret| Self::of_token(secret, state, now))
            }
            caller => caller,
        }
    }

    /// Judges again who holds a connection on which no more requests come.
    pub(crate) fn again(peer: &Peer, app: &App) -> Self {
        Self::now(Credentials { peer, bearer: None, forwarded: MetricsRight::None }, app)
    }

    /// Judges who asks now.
    fn now(shown: Credentials<'_>, app: &App) -> Self {
        let state = app.store.load();
        if shown.peer.entrance != Entrance::Unix && app.trust_has_ended(&state) {
            return Self::Untrusted;
        }
        Self::of(shown, &state, app.tls.authority(), SystemTime::now())
    }

    /// A member is known by the whole of its own certificate, for as long as it is on the list. That it is on it is what
    /// counts: neither a clock nor an authority does.
    fn is_member(peer: &Peer, state: &State) -> bool {
        let (Some(shown), Some(cluster)) = (&peer.certificate, &state.cluster) else { return false };
        cluster.member_with(&shown.der).is_some()
    }

    /// A certificate counts when the whole of it equals the stored one, its validity holds, and the authority, where there
    /// is one, stands by it.
    fn of_certificate(peer: &Peer, state: &State, authority: &Authority, now: SystemTime) -> Self {
        let Some(shown) = peer.certificate.as_ref() else { return Self::Untrusted };
        // The certificate of a bearer token's entry is nobody's.
        let entry = state.certificates.get(&shown.fingerprint).filter(|entry| entry.token.is_none());
        let Some(entry) = entry else {
            // Asked first, so that a stranger's certificate costs no signature to verify where it could not matter.
            let trusted = state.config.settings().trust_ca_certificates
                && authority.judge(&shown.der, now) == Verdict::Signed(Purpose::Client);
            return if trusted { Self::Client } else { Self::Untrusted };
        };
        if entry.certificate.der() != shown.der.as_ref()
            || !entry.certificate.is_valid_at(now)
            || authority.judge(&shown.der, now) == Verdict::Refused
        {
            return Self::Untrusted;
        }
        match (entry.certificate_type, entry.projects.clone()) {
            (CertificateType::Client, None) => Self::Client,
            (CertificateType::Client, Some(projects)) => Self::RestrictedClient(projects),
            (CertificateType::Metrics, projects) => Self::Metrics(projects),
        }
    }

    /// A bearer token is for metrics, whatever its entry says.
    fn of_token(secret: &str, state: &State, now: SystemTime) -> Self {
        match state.bearer_token(secret).filter(|entry| entry.certificate.is_valid_at(now)) {
            Some(entry) => Self::Metrics(entry.projects.clone()),
            None => Self::Untrusted,
        }
    }

    /// What it may see of the metrics when they ask for a certificate.
    pub(crate) fn metrics(&self) -> MetricsRight {
        match self {
            Self::Local | Self::Client | Self::Metrics(None) => MetricsRight::All,
            Self::RestrictedClient(projects) | Self::Metrics(Some(projects)) => {
                MetricsRight::Projects(projects.clone())
            }
            Self::Member(right) => right.clone(),
            Self::Untrusted => MetricsRight::None,
        }
    }
}

fn caller(parts: &Parts, app: &App) -> Caller {
    let Some(peer) = parts.extensions.get::<Peer>() else { return Caller::Untrusted };
    let forwarded = forward::right_of(&parts.headers);
    let caller = Caller::now(Credentials { peer, bearer: bearer(&parts.headers), forwarded }, app);
    // Connections of those who are trusted are out of strangers' reach.
    match (parts.extensions.get::<Standing>(), &caller) {
        (Some(standing), Caller::Untrusted) => standing.untrusted(),
        (Some(standing), _) => standing.trusted(),
        (None, _) => {}
    }
    caller
}

/// The secret that a request shows, RFC 6750; of several headers the first counts.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim_start())
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        Ok(caller(parts, app))
    }
}

/// A caller that may see and change everything; for others the answer is 403.
#[derive(Debug)]
pub(crate) struct FullAccess;

impl FromRequestParts<Arc<App>> for FullAccess {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        match caller(parts, app) {
            Caller::Local | Caller::Client => Ok(Self),
            _ => Err(ApiError::forbidden()),
        }
    }
}

/// A caller that may read: everything, or these projects only.
#[derive(Debug)]
pub(crate) struct Reader(pub(crate) Option<BTreeSet<String>>);

impl Reader {
    /// Whether it may see this project.
    pub(crate) fn sees(&self, project: &str) -> bool {
        self.0.as_ref().is_none_or(|projects| projects.contains(project))
    }
}

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        match caller(parts, app) {
            Caller::Local | Caller::Client => Ok(Self(None)),
            Caller::RestrictedClient(projects) => Ok(Self(Some(projects))),
            Caller::Metrics(_) | Caller::Member(_) | Caller::Untrusted => Err(ApiError::forbidden()),
        }
    }
}

/// A caller on the unix socket; for others the resource does not exist.
#[derive(Debug)]
pub(crate) struct LocalOnly;

impl FromRequestParts<Arc<App>> for LocalOnly {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        match caller(parts, app) {
            Caller::Local => Ok(Self),
            _ => Err(ApiError::not_found()),
        }
    }
}

/// The certificate that the caller showed, trusted or not.
#[derive(Debug, Clone)]
pub(crate) struct ShownCertificate(pub(crate) Arc<PeerCertificate>);

impl OptionalFromRequestParts<Arc<App>> for ShownCertificate {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get::<Peer>().and_then(|peer| peer.certificate.clone()).map(Self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state in which this server is a member of a cluster, with another member of this certificate.
    fn clustered(certificate: &[u8]) -> State {
        let certificate = miharu_store::ParsedCertificate::parse(certificate).unwrap();
        let other = miharu_store::Member {
            name: "b".to_owned(),
            id: "id".to_owned(),
            certificate,
            joined_at: 0,
            address: None,
            metrics_address: None,
        };
        let cluster = miharu_store::Cluster {
            id: "id".to_owned(),
            name: "hdc".to_owned(),
            member: "a".to_owned(),
            endpoints: Vec::new(),
            members: [("b".to_owned(), Arc::new(other))].into(),
            certificate: None,
            invitations: std::collections::BTreeMap::new(),
            removed: false,
        };
        State { cluster: Some(Arc::new(cluster)), ..State::default() }
    }

    #[test]
    fn a_member_reads_metrics_for_others_until_it_is_removed_and_nobody_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path());
        let make = || rcgen::generate_simple_self_signed(vec!["m".to_owned()]).unwrap().cert.der().clone();
        let (member, stranger) = (make(), make());
        let mut state = clustered(&member);
        let judge = |state: &State, der: &rustls::pki_types::CertificateDer<'static>, forwarded| {
            let certificate = Some(Arc::new(PeerCertificate::new(der.clone())));
            let peer = Peer { entrance: Entrance::Https, certificate };
            let shown = Credentials { peer: &peer, bearer: None, forwarded };
            Caller::of(shown, state, &authority, SystemTime::now())
        };
        for right in [MetricsRight::All, MetricsRight::None] {
            assert_eq!(judge(&state, &member, right.clone()), Caller::Member(right.clone()));
            assert_eq!(judge(&state, &stranger, right), Caller::Untrusted);
        }
        assert_eq!(Caller::Member(MetricsRight::None).metrics(), MetricsRight::None);
        // Not even the right to everything as a client lets a member ask for more than it says.
        let entry = miharu_store::Certificate {
            name: "m".to_owned(),
            description: String::new(),
            certificate_type: CertificateType::Client,
            projects: None,
            certificate: miharu_store::ParsedCertificate::parse(&member).unwrap(),
            token: None,
        };
        state.certificates.insert(entry.certificate.fingerprint().to_owned(), Arc::new(entry));
        assert_eq!(judge(&state, &member, MetricsRight::None), Caller::Member(MetricsRight::None));
        state.certificates.clear();
        let mut cluster = state.cluster.as_deref().unwrap().clone();
        cluster.removed = true;
        state.cluster = Some(Arc::new(cluster.clone()));
        assert_eq!(judge(&state, &member, MetricsRight::All), Caller::Untrusted);
        (cluster.removed, cluster.members) = (false, std::collections::BTreeMap::new());
        state.cluster = Some(Arc::new(cluster));
        assert_eq!(judge(&state, &member, MetricsRight::All), Caller::Untrusted);
    }

    #[test]
    fn the_bearer_token_is_read_whatever_the_case_of_its_scheme() {
        let headers = |value: &str| HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
        for value in ["Bearer s", "bearer s", "BEARER  s", " Bearer s "] {
            assert_eq!(bearer(&headers(value)), Some("s"), "{value}");
        }
        for value in ["", "Bearer", "Basic s", "s", "Bearers s"] {
            assert_eq!(bearer(&headers(value)), None, "{value}");
        }
    }
}

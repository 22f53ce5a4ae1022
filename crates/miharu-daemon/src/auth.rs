//! Who asks, and what they may see: api.md's table of rights.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use miharu_store::{CertificateType, State};

use crate::app::App;
use crate::listen::{Entrance, Peer, PeerCertificate};
use crate::respond::ApiError;

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

impl Caller {
    /// Judges a peer by the trust store as it is now: a certificate counts when the whole of it equals the stored one
    /// and its validity holds.
    pub(crate) fn of(peer: &Peer, state: &State, now: SystemTime) -> Self {
        if peer.entrance == Entrance::Unix {
            return Self::Local;
        }
        let shown = peer.certificate.as_ref();
        let Some((shown, entry)) =
            shown.and_then(|shown| Some((shown, state.certificates.get(&shown.fingerprint)?)))
        else {
            return Self::Untrusted;
        };
        if entry.certificate.der() != shown.der.as_ref() || !entry.certificate.is_valid_at(now) {
            return Self::Untrusted;
        }
        match (entry.certificate_type, entry.projects.clone()) {
            (CertificateType::Client, None) => Self::Client,
            (CertificateType::Client, Some(projects)) => Self::RestrictedClient(projects),
            (CertificateType::Metrics, projects) => Self::Metrics(projects),
        }
    }

    /// What it may see of the metrics when they ask for a certificate.
    pub(crate) fn metrics(&self) -> MetricsRight {
        match self {
            Self::Local | Self::Client | Self::Metrics(None) => MetricsRight::All,
            Self::RestrictedClient(projects) | Self::Metrics(Some(projects)) => {
                MetricsRight::Projects(projects.clone())
            }
            Self::Untrusted => MetricsRight::None,
        }
    }
}

fn caller(parts: &Parts, app: &App) -> Caller {
    match parts.extensions.get::<Peer>() {
        Some(peer) => Caller::of(peer, &app.store.load(), SystemTime::now()),
        None => Caller::Untrusted,
    }
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
            Caller::Metrics(_) | Caller::Untrusted => Err(ApiError::forbidden()),
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

//! All routes of a server with a made-up host, without a socket in front of them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use miharu_collect::{Options, Roots};
use miharu_instances::{Chosen, Instance};
use miharu_metrics::{Figures, InstanceFigures, InstanceType, ServerFigures, Snapshot};
use miharu_store::{Certificate, CertificateType, Change, ParsedCertificate, Store};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::app::App;
use crate::cache::{Cache, Found, Gathered, Source};
use crate::listen::{Entrance, Peer, PeerCertificate};
use crate::machine::Machine;
use crate::plan::Plans;
use crate::routes;
use crate::source::{Finder, Scan};
use crate::tls::{Identity, Tls, Versions};

/// Longer than any answer takes where nothing has to be waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests of one input.
const REQUESTS: usize = 8;

/// A host with `c1` in the projects `default` and `lxc`.
struct MadeUp;

fn instances() -> Vec<Found> {
    let found = |project: &str| Found {
        project: project.to_owned(),
        name: "c1".to_owned(),
        instance_type: InstanceType::Container,
        runtime: "lxc".to_owned(),
        id: "c1".to_owned(),
        image: None,
        pid: Some(1),
    };
    ["default", "lxc"].map(found).to_vec()
}

impl Source for MadeUp {
    fn collect(&mut self, _: &Options) -> Result<Gathered, String> {
        let found = instances();
        let figures = found.iter().map(|instance| InstanceFigures {
            project: instance.project.clone(),
            name: instance.name.clone(),
            instance_type: instance.instance_type,
            figures: Figures { procs: Some(3), ..Figures::default() },
        });
        let snapshot = Snapshot::new(figures.collect(), ServerFigures::default());
        Ok(Gathered { snapshot, found, ..Gathered::default() })
    }
}

impl Scan for MadeUp {
    fn instances(&mut self, _: &Chosen) -> Result<Vec<Arc<Instance>>, String> {
        Ok(Vec::new())
    }

    fn scan(&mut self, _: &Chosen) -> Result<Vec<Found>, String> {
        Ok(instances())
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Socket,
    Nobody,
    Stranger,
    Metrics,
    MetricsOfLxc,
    Client,
    ClientOfLxc,
}

impl Who {
    const ALL: [Self; 7] = [
        Self::Socket,
        Self::Nobody,
        Self::Stranger,
        Self::Metrics,
        Self::MetricsOfLxc,
        Self::Client,
        Self::ClientOfLxc,
    ];

    /// Whether it may change anything.
    fn may_write(self) -> bool {
        matches!(self, Self::Socket | Self::Client)
    }

    /// What its certificate is trusted as, if it is.
    fn trusted(self) -> Option<(CertificateType, Option<&'static str>)> {
        match self {
            Self::Socket | Self::Nobody | Self::Stranger => None,
            Self::Metrics => Some((CertificateType::Metrics, None)),
            Self::MetricsOfLxc => Some((CertificateType::Metrics, Some("lxc"))),
            Self::Client => Some((CertificateType::Client, None)),
            Self::ClientOfLxc => Some((CertificateType::Client, Some("lxc"))),
        }
    }
}

/// What was answered.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    directory: PathBuf,
    runtime: Runtime,
    certificates: Vec<CertificateDer<'static>>,
    app: Arc<App>,
    revision: u64,
}

impl Server {
    /// One that keeps its state in `directory`.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let certificates = Who::ALL.iter().map(|_| certificate()).collect::<anyhow::Result<Vec<_>>>()?;
        let app = {
            let _inside = runtime.enter();
            app(directory, &certificates)?
        };
        let revision = app.store.load().revision;
        Ok(Self { directory: directory.to_owned(), runtime, certificates, app, revision })
    }

    /// Requests of one client, which the first byte names, divided by zero bytes: a line `METHOD TARGET`, headers, an empty line, a
    /// body.
    ///
    /// # Errors
    /// Where the server cannot be made anew after a change.
    pub fn ask(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let Some((first, requests)) = bytes.split_first() else { return Ok(()) };
        let at = usize::from(*first) % Who::ALL.len();
        let Some(who) = Who::ALL.get(at).copied() else { return Ok(()) };
        // The other listener has fewer routes.
        let is_metrics = *first >= 128 && who != Who::Socket;
        for text in requests.split(|byte| *byte == 0).take(REQUESTS) {
            let Some(mut request) = request(text).filter(|request| !reaches_out(who, request)) else {
                continue;
            };
            let entrance = match (who, is_metrics) {
                (Who::Socket, _) => Entrance::Unix,
                (_, true) => Entrance::Metrics,
                (_, false) => Entrance::Https,
            };
            let shown = self.certificates.get(at).filter(|_| !matches!(who, Who::Socket | Who::Nobody));
            let certificate = shown.map(|der| Arc::new(PeerCertificate::new(der.clone())));
            request.extensions_mut().insert(Peer { entrance, certificate });
            let router = if is_metrics { routes::metrics_only(&self.app) } else { routes::all(&self.app) };
            let answering = async {
                let Ok(response) = router.oneshot(request).await;
                let (parts, body) = response.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await?;
                anyhow::Ok(Answered { status: parts.status, headers: parts.headers, body: body.to_vec() })
            };
            let answered = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, answering).await });
            assert!(matches!(answered, Ok(Ok(_))), "no answer");
            if let Ok(Ok(answered)) = answered {
                check(who, &answered);
            }
        }
        let revision = self.app.store.load().revision;
        if revision != self.revision {
            assert!(who.may_write(), "{who:?} changed something");
            // Every input finds the same server.
            // Without its copy, or the store takes it for lost.
            for name in ["miharu.db", "miharu.db.backup"] {
                std::fs::remove_file(self.directory.join(name))?;
            }
            let _inside = self.runtime.enter();
            self.app = app(&self.directory, &self.certificates)?;
            self.revision = self.app.store.load().revision;
        }
        Ok(())
    }
}

fn check(who: Who, answered: &Answered) {
    let Answered { status, headers, body } = answered;
    let text = || String::from_utf8_lossy(body);
    assert!(*status != StatusCode::INTERNAL_SERVER_ERROR, "{who:?}: {}", text());
    assert!(headers.contains_key(X_CONTENT_TYPE_OPTIONS), "{who:?}: {headers:?}");
    let is = |kind: &str| {
        let named = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        named.is_some_and(|named| named.starts_with(kind))
    };
    if is("application/json") && !body.is_empty() {
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok(), "{who:?}: {}", text());
    }
    if status.is_success() && (is("text/plain") || is("application/openmetrics-text")) {
        assert!(!matches!(who, Who::Nobody | Who::Stranger), "{who:?} has metrics");
        let is_restricted = matches!(who, Who::MetricsOfLxc | Who::ClientOfLxc);
        assert!(!is_restricted || !text().contains(r#"project="default""#), "{who:?} has metrics of others");
    }
}

/// Whether it would make the server connect to whatever address the request names, which is no place for tests.
fn reaches_out(who: Who, request: &Request) -> bool {
    let is_change = ![Method::GET, Method::HEAD, Method::DELETE].contains(request.method());
    who.may_write() && is_change && request.uri().path().starts_with("/1.0/cluster")
}

fn request(text: &[u8]) -> Option<Request> {
    let mut rest = text;
    let mut line = || {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(end)?;
        rest = after.get(1..).unwrap_or_default();
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    };
    let first = std::str::from_utf8(line()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut builder = Request::builder().method(method).uri(target);
    while let Some(line) = line().filter(|line| !line.is_empty()) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = parts.next().and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
        if let (Some(name), Some(value)) = (name, value) {
            builder = builder.header(name, value);
        }
    }
    builder.body(Body::from(rest.to_vec())).ok()
}

fn certificate() -> anyhow::Result<CertificateDer<'static>> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    Ok(CertificateParams::new(vec!["metrics.local".to_owned()])?.self_signed(&key)?.der().clone())
}

fn app(directory: &Path, certificates: &[CertificateDer<'static>]) -> anyhow::Result<Arc<App>> {
    let identity = Arc::new(Identity::open(directory, || vec!["host".to_owned()])?);
    let events = crate::events::Events::default();
    let store = Store::open(&directory.join("miharu.db"))?;
    for (who, der) in Who::ALL.iter().zip(certificates) {
        let Some((certificate_type, project)) = who.trusted() else { continue };
        let entry = Certificate {
            name: format!("{who:?}"),
            description: String::new(),
            certificate_type,
            projects: project.map(|name| [name.to_owned()].into()),
            certificate: ParsedCertificate::parse(der)?,
            token: None,
        };
        store.commit(&Change::AddCertificate(entry), None)?;
    }
    Ok(Arc::new(App {
        store: Arc::new(store),
        cache: Cache::new(Box::new(|| Box::new(MadeUp))),
        finder: Finder::new(Box::new(MadeUp)),
        tls: Arc::new(Tls::new(identity, Versions::Tls13)?),
        machine: Machine::default(),
        roots: Roots::at(directory),
        requests: Arc::default(),
        events: events.clone(),
        warnings: crate::warnings::Warnings::new(events),
        plans: Plans::default(),
        listeners: OnceLock::new(),
        changes: tokio::sync::Mutex::default(),
        told: crate::changes::Told::default(),
        forward: crate::forward::Forward::default(),
        unread: Arc::default(),
        usage: crate::usage::Usage::default(),
    }))
}

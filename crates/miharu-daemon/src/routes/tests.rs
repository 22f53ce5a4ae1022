//! The table of rights of api.md, cell by cell, and the answers that clients rely on, on a server with a made-up host.

mod cluster;
mod looking;
mod trust;
mod ui;
mod usage;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use axum::body::Body;
use http::StatusCode;
use http::header::{ETAG, IF_MATCH};
use miharu_collect::{Options, Roots};
use miharu_instances::{Chosen, Instance};
use miharu_metrics::{Figures, InstanceFigures, InstanceType, ServerFigures, Snapshot};
use miharu_store::{Certificate, CertificateType, Change, ParsedCertificate, Store};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::cache::{Cache, Found, Gathered, Source};
use crate::listen::{Entrance, Peer, PeerCertificate};
use crate::machine::Machine;
use crate::plan::Plans;
use crate::source::{Finder, Scan};
use crate::tls::{Identity, Tls, Versions};

/// A host with `u1` in the project `lxc` and `c1` in the projects `default` and `lxc`.
struct FakeHost;

fn instances() -> Vec<Found> {
    [("default", "c1"), ("lxc", "c1"), ("lxc", "u1")]
        .map(|(project, name)| Found {
            project: project.to_owned(),
            name: name.to_owned(),
            instance_type: InstanceType::Container,
            runtime: "lxc".to_owned(),
            id: name.to_owned(),
            image: None,
            pid: Some(1),
        })
        .to_vec()
}

impl Source for FakeHost {
    fn collect(&mut self, _: &Options) -> Result<Gathered, String> {
        let found = instances();
        let figures = found.iter().map(|instance| InstanceFigures {
            project: instance.project.clone(),
            name: instance.name.clone(),
            instance_type: instance.instance_type,
            figures: Figures { procs: Some(3), ..Figures::default() },
        });
        let server = ServerFigures { operations: Some(0), ..ServerFigures::default() };
        Ok(Gathered { snapshot: Snapshot::new(figures.collect(), server), found, ..Gathered::default() })
    }
}

impl Scan for FakeHost {
    fn instances(&mut self, _: &Chosen) -> Result<Vec<Arc<Instance>>, String> {
        Ok(Vec::new())
    }

    fn scan(&mut self, _: &Chosen) -> Result<Vec<Found>, String> {
        Ok(instances())
    }
}

/// A server and the certificates that it knows.
struct Bench {
    _dir: TempDir,
    app: Arc<App>,
}

/// Who asks.
#[derive(Debug, Clone)]
enum Who {
    Socket,
    Nobody,
    Shows(Entrance, Vec<u8>),
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Arc::new(Identity::open(dir.path(), || vec!["host".to_owned()]).unwrap());
        let events = crate::events::Events::default();
        let app = App {
            store: Arc::new(Store::open(&dir.path().join("miharu.db")).unwrap()),
            cache: Cache::new(Box::new(|| Box::new(FakeHost))),
            finder: Finder::new(Box::new(FakeHost)),
            tls: Arc::new(Tls::new(identity, Versions::Tls13).unwrap()),
            machine: Machine::default(),
            roots: Roots::at(dir.path()),
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
        };
        Self { _dir: dir, app: Arc::new(app) }
    }

    /// Trusts a new certificate, and returns its DER.
    fn trust(&self, certificate_type: CertificateType, projects: Option<&[&str]>) -> Vec<u8> {
        let der = certificate();
        let entry = Certificate {
            name: "test".to_owned(),
            description: String::new(),
            certificate_type,
            projects: projects.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            certificate: ParsedCertificate::parse(&der).unwrap(),
            token: None,
        };
        self.app.store.commit(&Change::AddCertificate(entry), None).unwrap();
        der
    }

    fn request(&self, who: &Who, request: Request) -> impl Future<Output = (StatusCode, String)> + use<> {
        let sent = self.send(who, request);
        async move {
            let response = sent.await;
            let status = response.status();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }
    }

    fn send(&self, who: &Who, mut request: Request) -> impl Future<Output = Response> + use<> {
        let (entrance, der) = match who {
            Who::Socket => (Entrance::Unix, None),
            Who::Nobody => (Entrance::Https, None),
            Who::Shows(entrance, der) => (*entrance, Some(der.clone())),
        };
        let certificate = der.map(|der| Arc::new(PeerCertificate::new(CertificateDer::from(der))));
        request.extensions_mut().insert(Peer { entrance, certificate });
        let router = if entrance == Entrance::Metrics { metrics_only(&self.app) } else { all(&self.app) };
        async move { router.oneshot(request).await.unwrap() }
    }

    async fn get(&self, who: &Who, path: &str) -> (StatusCode, String) {
        self.request(who, request("GET", path, Body::empty())).await
    }

    /// The metadata of an answer, which must be a success.
    async fn metadata(&self, who: &Who, path: &str) -> Value {
        let (status, body) = self.get(who, path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str::<Value>(&body).unwrap()["metadata"].clone()
    }

    async fn change(&self, method: &str, path: &str, body: Value) -> (StatusCode, String) {
        let (status, body) =
            self.request(&Who::Socket, request(method, path, Body::from(body.to_string()))).await;
        let read: Value = serde_json::from_str(&body).unwrap();
        (status, read["error"].as_str().unwrap().to_owned())
    }
}

fn certificate() -> Vec<u8> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let params = rcgen::CertificateParams::new(vec!["metrics.local".to_owned()]).unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

fn request(method: &str, path: &str, body: Body) -> Request {
    Request::builder().method(method).uri(path).body(body).unwrap()
}

/// The projects whose instances an exposition shows, and whether it shows the server's own families.
fn shown(exposition: &str) -> (BTreeSet<&str>, bool) {
    let procs = exposition.lines().filter(|line| line.starts_with("incus_procs_total{"));
    let projects =
        procs.filter_map(|line| line.split_once("project=\"")?.1.split_once('"')).map(|(name, _)| name);
    (projects.collect(), exposition.contains("incus_operations_total"))
}

const OK: StatusCode = StatusCode::OK;
const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;
const NOT_FOUND: StatusCode = StatusCode::NOT_FOUND;

#[tokio::test]
async fn everybody_may_do_what_the_table_of_rights_says_and_nothing_else() {
    let bench = Bench::new();
    let shows = |der: Vec<u8>| Who::Shows(Entrance::Https, der);
    let own = Some(&["lxc"][..]);
    let metrics = shows(bench.trust(CertificateType::Metrics, None));
    let metrics_lxc = shows(bench.trust(CertificateType::Metrics, own));
    let client = shows(bench.trust(CertificateType::Client, None));
    let client_lxc = shows(bench.trust(CertificateType::Client, own));
    let unknown = shows(certificate());

    // Who; whether trusted, and shown the configuration; of the metrics; of reading; of everything else.
    let all: &[&str] = &["default", "lxc"];
    let table = [
        (&Who::Socket, "trusted", true, Some((all, true)), OK, OK),
        (&Who::Nobody, "untrusted", false, None, FORBIDDEN, FORBIDDEN),
        (&unknown, "untrusted", false, None, FORBIDDEN, FORBIDDEN),
        (&metrics, "untrusted", false, Some((all, true)), FORBIDDEN, FORBIDDEN),
        (&metrics_lxc, "untrusted", false, Some((&["lxc"][..], false)), FORBIDDEN, FORBIDDEN),
        (&client, "trusted", true, Some((all, true)), OK, OK),
        (&client_lxc, "trusted", false, Some((&["lxc"][..], false)), OK, FORBIDDEN),
    ];
    for (who, auth, config, metrics, read, write) in table {
        assert_eq!(bench.get(who, "/").await.0, OK, "{who:?}");
        let server = bench.metadata(who, "/1.0").await;
        assert_eq!((&server["auth"], server.get("config").is_some()), (&json!(auth), config), "{who:?}");
        assert_eq!(server.get("environment").is_some(), auth == "trusted", "{who:?}");

        let (status, exposition) = bench.get(who, "/1.0/metrics").await;
        match metrics {
            None => assert_eq!(status, FORBIDDEN, "{who:?}"),
            Some((projects, server_wide)) => {
                let expected = (projects.iter().copied().collect(), server_wide);
                assert_eq!((status, shown(&exposition)), (OK, expected), "{who:?}");
            }
        }
        for path in ["/1.0/instances", "/1.0/instances/u1", "/1.0/instances/u1/state", "/1.0/projects"] {
            assert_eq!(bench.get(who, path).await.0, read, "{who:?} {path}");
        }
        assert_eq!(bench.get(who, "/1.0/certificates").await.0, write, "{who:?}");
        let patch = request("PATCH", "/1.0", Body::from(r#"{"config":{"user.a":"b"}}"#));
        assert_eq!(bench.request(who, patch).await.0, write, "{who:?}");
        let local = if matches!(who, Who::Socket) { OK } else { NOT_FOUND };
        assert_eq!(bench.get(who, "/internal/ready").await.0, local, "{who:?}");
    }

    assert_eq!(bench.metadata(&client_lxc, "/1.0/projects").await, json!(["/1.0/projects/lxc"]));
    let names = json!(["/1.0/instances/c1?project=lxc", "/1.0/instances/u1?project=lxc"]);
    assert_eq!(bench.metadata(&client_lxc, "/1.0/instances?all-projects=true").await, names);
    let names = json!(["/1.0/instances/c1", "/1.0/instances/u1"]);
    assert_eq!(bench.metadata(&client_lxc, "/1.0/instances").await, names);
    assert_eq!(bench.get(&client_lxc, "/1.0/instances/c1?project=default").await.0, NOT_FOUND);
}

#[tokio::test]
async fn projects_asked_for_narrow_but_never_widen() {
    let bench = Bench::new();
    let restricted = Who::Shows(Entrance::Metrics, bench.trust(CertificateType::Metrics, Some(&["lxc"])));
    let cases: [(&Who, &str, &[&str], bool); 8] = [
        (&Who::Socket, "?project=default", &["default"], true),
        (&Who::Socket, "?project=default&project=lxc", &["default", "lxc"], true),
        (&Who::Socket, "?project=nowhere", &[], true),
        (&Who::Socket, "?project=", &["default", "lxc"], true),
        (&restricted, "", &["lxc"], false),
        (&restricted, "?project=lxc&project=default", &["lxc"], false),
        (&restricted, "?project=default", &[], false),
        (&restricted, "?all-projects=true", &["lxc"], false),
    ];
    for (who, query, projects, server_wide) in cases {
        let (status, exposition) = bench.get(who, &format!("/1.0/metrics{query}")).await;
        let expected = (projects.iter().copied().collect(), server_wide);
        assert_eq!((status, shown(&exposition)), (OK, expected), "{who:?} {query}");
        assert!(exposition.ends_with("# EOF\n"), "{query}");
    }
}

#[tokio::test]
async fn without_authentication_everybody_sees_all_metrics_until_it_is_unset() {
    let bench = Bench::new();
    let restricted = Who::Shows(Entrance::Https, bench.trust(CertificateType::Metrics, Some(&["lxc"])));
    let key = |value: &str| json!({"config": {"core.metrics_authentication": value}});
    assert_eq!(bench.change("PATCH", "/1.0", key("false")).await.0, OK);
    for who in [&Who::Nobody, &restricted] {
        assert!(shown(&bench.get(who, "/1.0/metrics").await.1).1, "{who:?}");
    }
    assert_eq!(bench.get(&Who::Nobody, "/1.0/certificates").await.0, FORBIDDEN);
    assert_eq!(bench.change("PATCH", "/1.0", key("")).await.0, OK);
    assert_eq!(bench.get(&Who::Nobody, "/1.0/metrics").await.0, FORBIDDEN);
}

#[tokio::test]
async fn the_metrics_listener_has_three_resources() {
    let bench = Bench::new();
    let client = Who::Shows(Entrance::Metrics, bench.trust(CertificateType::Client, None));
    for path in ["/", "/1.0", "/1.0/metrics"] {
        assert_eq!(bench.get(&client, path).await.0, OK, "{path}");
    }
    for path in ["/1.0/certificates", "/1.0/instances", "/internal/ready", "/1.0/", "/x"] {
        assert_eq!(bench.get(&client, path).await.0, NOT_FOUND, "{path}");
    }
    let put = request("PUT", "/1.0", Body::from("{}"));
    assert_eq!(bench.request(&client, put).await.0, NOT_FOUND);
}

#[tokio::test]
async fn errors_have_the_bodies_that_clients_know() {
    let bench = Bench::new();
    let get = async |path: &str| {
        let (status, body) = bench.get(&Who::Socket, path).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["error_code"], json!(status.as_u16()));
        (status.as_u16(), body["error"].as_str().unwrap().to_owned())
    };
    assert_eq!(get("/1.0/").await, (404, "not found".to_owned()));
    assert_eq!(get("/1.0/instances/nobody").await, (404, "Instance not found".to_owned()));
    assert_eq!(get("/1.0/projects/nowhere").await, (404, "Project not found".to_owned()));
    assert_eq!(get("/1.0/certificates/abcd").await, (404, "Certificate not found".to_owned()));
    let several = "Instance 'c1' is in several projects, name one of: default, lxc";
    assert_eq!(get("/1.0/instances/c1").await, (409, several.to_owned()));
    let (status, error) = bench.change("DELETE", "/1.0/metrics", Value::Null).await;
    assert_eq!((status.as_u16(), error.as_str()), (501, "not implemented"));
    let mut foreign = request("GET", "/", Body::empty());
    foreign.headers_mut().insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
    let response = bench.send(&Who::Socket, foreign).await;
    assert_eq!(response.status(), FORBIDDEN);
    assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
}

#[tokio::test]
async fn a_change_that_saw_something_else_is_refused() {
    let bench = Bench::new();
    let tag = bench.send(&Who::Socket, request("GET", "/1.0", Body::empty())).await.headers()[ETAG].clone();
    let put = |value: &str| {
        let mut put = request("PUT", "/1.0", Body::from(json!({"config": {"user.a": value}}).to_string()));
        put.headers_mut().insert(IF_MATCH, tag.clone());
        put
    };
    assert_eq!(bench.request(&Who::Socket, put("1")).await.0, OK);
    assert_eq!(bench.request(&Who::Socket, put("2")).await.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(bench.metadata(&Who::Socket, "/1.0").await["config"], json!({"user.a": "1"}));
    let (status, error) = bench.change("PUT", "/1.0", json!({"config": {"core.foo": "1"}})).await;
    assert_eq!((status.as_u16(), error.as_str()), (400, "cannot set 'core.foo' to '1': unknown key"));
}

#[tokio::test]
async fn a_certificate_lives_from_post_to_delete() {
    let bench = Bench::new();
    let der = certificate();
    let fingerprint = miharu_store::fingerprint(&der);
    let post = |projects: &[&str]| {
        json!({
            "name": "prom", "type": "metrics", "restricted": !projects.is_empty(), "projects": projects,
            "certificate": crate::pem::encode(&der), "password": "", "token": false,
        })
    };
    let (status, error) = bench.change("POST", "/1.0/certificates", post(&["nowhere"])).await;
    assert_eq!((status, error.as_str()), (NOT_FOUND, "Project not found"));
    assert_eq!(bench.change("POST", "/1.0/certificates", post(&["lxc"])).await.0, StatusCode::CREATED);
    let (status, error) = bench.change("POST", "/1.0/certificates", post(&[])).await;
    assert_eq!((status.as_u16(), error.as_str()), (409, "Certificate already in trust store"));

    let path = format!("/1.0/certificates/{}", fingerprint.chars().take(12).collect::<String>());
    let who = Who::Shows(Entrance::Https, der.clone());
    assert!(!shown(&bench.get(&who, "/1.0/metrics").await.1).1);
    let (status, error) = bench.change("PUT", &path, json!({"name": "prom"})).await;
    assert_eq!(
        (status.as_u16(), error.as_str()),
        (400, "Unknown certificate type '': expected client or metrics")
    );
    let open = json!({"restricted": false});
    assert_eq!(bench.change("PATCH", &path, open).await.0, OK);
    assert!(shown(&bench.get(&who, "/1.0/metrics").await.1).1);
    let entry = bench.metadata(&Who::Socket, &path).await;
    assert_eq!((&entry["name"], &entry["fingerprint"]), (&json!("prom"), &json!(fingerprint)));
    assert_eq!(bench.change("DELETE", &path, Value::Null).await.0, OK);
    assert_eq!(bench.get(&who, "/1.0/metrics").await.0, FORBIDDEN);
}

#[tokio::test]
async fn a_declared_project_serves_certificates_and_goes_when_unused() {
    let bench = Bench::new();
    assert_eq!(
        bench.change("POST", "/1.0/projects", json!({"name": "docker/shop"})).await.0,
        StatusCode::CREATED
    );
    assert_eq!(
        bench.change("POST", "/1.0/projects", json!({"name": "docker/shop"})).await.0,
        StatusCode::CONFLICT
    );
    let project = bench.metadata(&Who::Socket, "/1.0/projects/docker%2Fshop").await;
    assert_eq!(project["declared"], json!(true));
    bench.trust(CertificateType::Metrics, Some(&["docker/shop"]));
    let (status, error) = bench.change("DELETE", "/1.0/projects/docker%2Fshop", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
    assert_eq!(bench.change("DELETE", "/1.0/projects/lxc", Value::Null).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(bench.change("DELETE", "/1.0/projects/default", Value::Null).await.0, FORBIDDEN);
}

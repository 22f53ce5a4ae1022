//! What clients look at beside figures: events, warnings, resources, a lone server's cluster; and what they ask in vain.

use futures_util::StreamExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::listen::{Accepted, Gate, Limits, Protocol, Server, Source};
use crate::warnings::{Kind, Problem};

type Reader = WebSocketStream<tokio::io::DuplexStream>;

impl Bench {
    /// Listens to events over a connection of its own, as a real client does.
    async fn listen(&self, who: &Who, path: &str) -> Result<Reader, StatusCode> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (entrance, der) = match who {
            Who::Socket => (Entrance::Unix, None),
            Who::Nobody => (Entrance::Https, None),
            Who::Shows(entrance, der) => (*entrance, Some(der.clone())),
        };
        let certificate = der.map(|der| Arc::new(PeerCertificate::new(CertificateDer::from(der))));
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let permits = Arc::new(tokio::sync::Semaphore::new(1));
        let server = Server { router: all(&self.app), stop: stopped, permits };
        let peer = Peer { entrance, certificate };
        let limits = Limits::of(&self.app.store.load().config.settings());
        let gate = Gate::new(Arc::new(arc_swap::ArcSwap::from_pointee(limits)));
        let ticket = gate.admit(Source::User(0)).unwrap();
        tokio::spawn(async move {
            let _stop = _stop;
            server.serve(Accepted { stream: theirs, peer, protocol: Protocol::Http1, ticket }).await;
        });
        match tokio_tungstenite::client_async(format!("ws://miharu{path}"), ours).await {
            Ok((reader, _)) => Ok(reader),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                Err(StatusCode::from_u16(response.status().as_u16()).unwrap())
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn warn(&self, project: Option<&str>, cause: &str) -> String {
        let problem = Problem::of_server(Kind::Incomplete, cause, format!("{cause} is wrong"));
        self.app.warnings.set(Problem { project: project.map(str::to_owned), ..problem });
        let all = self.app.warnings.list();
        all.into_iter().find(|warning| warning.last_message.starts_with(cause)).unwrap().uuid
    }
}

async fn next(reader: &mut Reader) -> Value {
    loop {
        match reader.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Close(_) => return Value::Null,
            _ => {}
        }
    }
}

#[tokio::test]
async fn changes_are_told_to_who_may_know_and_to_nobody_else() {
    let bench = Bench::new();
    let lxc = Some(&["lxc"][..]);
    let restricted = Who::Shows(Entrance::Https, bench.trust(CertificateType::Client, lxc));
    let metrics = Who::Shows(Entrance::Https, bench.trust(CertificateType::Metrics, None));
    for who in [&Who::Nobody, &metrics] {
        assert_eq!(bench.listen(who, "/1.0/events").await.unwrap_err(), FORBIDDEN, "{who:?}");
    }
    let logging = "/1.0/events?type=logging";
    assert_eq!(bench.listen(&restricted, logging).await.unwrap_err(), FORBIDDEN);
    assert_eq!(bench.get(&Who::Socket, "/1.0/events").await.0, StatusCode::BAD_REQUEST);

    let mut all = bench.listen(&Who::Socket, "/1.0/events?type=lifecycle").await.unwrap();
    let mut own = bench.listen(&restricted, "/1.0/events").await.unwrap();
    bench.change("PATCH", "/1.0", json!({"config": {"user.a": "b"}})).await;
    bench.warn(Some("default"), "one");
    bench.warn(Some("lxc"), "two");
    let event = next(&mut all).await;
    assert_eq!(
        (&event["type"], &event["metadata"]["action"]),
        (&json!("lifecycle"), &json!("config-updated"))
    );
    assert_eq!(next(&mut all).await["project"], "default");
    assert_eq!(next(&mut all).await["project"], "lxc");
    // What belongs to others, and to the whole server, was left out.
    let event = next(&mut own).await;
    assert_eq!((&event["project"], &event["metadata"]["action"]), (&json!("lxc"), &json!("warning-created")));

    // Who is no longer trusted is told no more.
    let Who::Shows(_, der) = &restricted else { unreachable!() };
    let path = format!("/1.0/certificates/{}", miharu_store::fingerprint(der));
    assert_eq!(bench.change("DELETE", &path, Value::Null).await.0, OK);
    bench.warn(Some("lxc"), "three");
    assert_eq!(next(&mut own).await, Value::Null);
    let closing = bench.app.events.clone();
    let closed = tokio::spawn(async move { closing.close().await });
    while next(&mut all).await != Value::Null {}
    closed.await.unwrap();
}

#[tokio::test]
async fn warnings_are_shown_by_right_acknowledged_and_deleted() {
    let bench = Bench::new();
    let (of_lxc, of_server) = (bench.warn(Some("lxc"), "a"), bench.warn(None, "b"));
    let restricted =
        Who::Shows(Entrance::Https, bench.trust(CertificateType::Client, Some(&["lxc", "default"])));
    let own = bench.metadata(&restricted, "/1.0/warnings").await;
    assert_eq!(own, json!([format!("/1.0/warnings/{of_lxc}")]));
    assert_eq!(bench.get(&restricted, &format!("/1.0/warnings/{of_server}")).await.0, NOT_FOUND);
    assert_eq!(bench.metadata(&Who::Socket, "/1.0/warnings?project=default").await, json!([]));
    assert_eq!(bench.metadata(&Who::Socket, "/1.0/warnings?recursion=1").await.as_array().unwrap().len(), 2);

    let path = format!("/1.0/warnings/{of_lxc}");
    let tag = bench.send(&Who::Socket, request("GET", &path, Body::empty())).await.headers()[ETAG].clone();
    let put = |status: &str| {
        let mut put = request("PUT", &path, Body::from(json!({"status": status}).to_string()));
        put.headers_mut().insert(IF_MATCH, tag.clone());
        put
    };
    assert_eq!(bench.request(&restricted, put("acknowledged")).await.0, FORBIDDEN);
    assert_eq!(bench.request(&Who::Socket, put("acknowledged")).await.0, OK);
    assert_eq!(bench.request(&Who::Socket, put("new")).await.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(bench.metadata(&Who::Socket, &path).await["status"], "acknowledged");
    assert_eq!(bench.change("PATCH", &path, json!({"status": "new"})).await.0, OK);
    let (status, error) = bench.change("PUT", &path, json!({"status": "resolved"})).await;
    assert_eq!(
        (status.as_u16(), error.as_str()),
        (400, "a warning cannot be set to 'resolved': expected acknowledged or new")
    );
    assert_eq!(bench.change("DELETE", &path, Value::Null).await.0, OK);
    assert_eq!(bench.change("DELETE", &path, Value::Null).await, (NOT_FOUND, "Warning not found".to_owned()));
}

#[tokio::test]
async fn what_miharu_does_not_do_is_said_to_who_may_ask() {
    let bench = Bench::new();
    let asked = [
        ("POST", "/1.0/instances"),
        ("PUT", "/1.0/instances/u1"),
        ("DELETE", "/1.0/containers/u1"),
        ("PUT", "/1.0/instances/u1/state"),
        ("POST", "/1.0/instances/u1/exec"),
        ("GET", "/1.0/instances/u1/files"),
        ("GET", "/1.0/virtual-machines/u1/snapshots/s1"),
        ("GET", "/1.0/images"),
        ("GET", "/1.0/images/aliases/x"),
        ("POST", "/1.0/networks"),
        ("GET", "/1.0/profiles/default"),
        ("GET", "/1.0/storage-pools"),
    ];
    for (method, path) in asked {
        let (status, error) = bench.change(method, path, json!({})).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{path}: {error}");
        let expected =
            format!("not implemented: {method} {path}: miharu measures instances and does not manage them");
        assert!(error.starts_with(&expected), "{error}");
        let (status, _) = bench.request(&Who::Nobody, request(method, path, Body::empty())).await;
        assert_eq!(status, FORBIDDEN, "{path}");
    }
    for path in ["/1.0/image", "/1.0/instances/u1/execute", "/1.0/profile/x", "/1.0/instances/u1/"] {
        assert_eq!(bench.get(&Who::Socket, path).await.0, NOT_FOUND, "{path}");
    }
    let (status, error) = bench.change("PATCH", "/1.0/projects/lxc", json!({"config": {"a": "b"}})).await;
    assert!(status == StatusCode::NOT_IMPLEMENTED && error.contains("has no configuration"), "{error}");
}

#[tokio::test]
async fn the_host_and_the_cluster_are_for_those_who_may_see_everything() {
    let bench = Bench::new();
    let restricted = Who::Shows(Entrance::Https, bench.trust(CertificateType::Client, Some(&["lxc"])));
    for path in ["/1.0/resources", "/1.0/cluster"] {
        assert_eq!(bench.get(&Who::Socket, path).await.0, OK, "{path}");
        assert_eq!(bench.get(&restricted, path).await.0, FORBIDDEN, "{path}");
    }
    let (status, body) = bench.get(&Who::Socket, "/1.0/cluster/members").await;
    assert!(status == StatusCode::BAD_REQUEST && body.contains("Server is not clustered"), "{body}");
    let state = bench.metadata(&restricted, "/1.0/projects/lxc/state").await;
    assert_eq!(state["resources"]["containers"], json!({"Limit": -1, "Usage": 2}));
    assert_eq!(bench.get(&restricted, "/1.0/projects/default/state").await.0, NOT_FOUND);
}

#[tokio::test]
async fn instances_are_filtered_in_both_languages() {
    let bench = Bench::new();
    let cases = [
        ("name=u1", 1),
        ("name+eq+c1+and+project+eq+lxc", 1),
        ("not+name=c1", 1),
        ("type=virtual-machine", 0),
        ("config.user.x=y", 0),
        ("status=Running", 3),
    ];
    for (filter, count) in cases {
        let path = format!("/1.0/instances?recursion=2&filter={filter}");
        let found = bench.metadata(&Who::Socket, &path).await;
        assert_eq!(found.as_array().unwrap().len(), count, "{filter}");
    }
    assert_eq!(bench.get(&Who::Socket, "/1.0/instances?filter=colour=red").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(bench.metadata(&Who::Socket, "/1.0/virtual-machines").await, json!([]));
    assert_eq!(bench.metadata(&Who::Socket, "/1.0/containers").await.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn prometheus_is_told_where_to_scrape() {
    let bench = Bench::new();
    let path = "/1.0/discovery/prometheus";
    let metrics = bench.trust(CertificateType::Metrics, Some(&["lxc"]));
    let who = Who::Shows(Entrance::Metrics, metrics);
    let targets = async |who: &Who| {
        let (status, body) = bench.get(who, path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    assert_eq!(targets(&who).await, json!([]), "nothing is served yet");
    let name = bench.app.machine.name.clone();
    let set = async |keys: Value| {
        let (status, body) = bench.change("PATCH", "/1.0", json!({ "config": keys })).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    };
    set(json!({"core.https_address": "192.0.2.7"})).await;
    let expected = |target: &str| json!([{"targets": [target], "labels": {"member": name}}]);
    assert_eq!(targets(&who).await, expected("192.0.2.7:8443"));
    set(json!({"core.metrics_address": ":8444"})).await;
    assert_eq!(targets(&who).await, expected(&format!("{name}:8444")));
    set(json!({"core.metrics_advertise": "m.example.org"})).await;
    assert_eq!(targets(&Who::Socket).await, expected("m.example.org:8444"));
    set(json!({"core.metrics_advertise": "[2001:db8::7]:9443"})).await;
    assert_eq!(targets(&who).await, expected("[2001:db8::7]:9443"));
    for entrance in [Entrance::Https, Entrance::Metrics] {
        let stranger = Who::Shows(entrance, certificate());
        assert_eq!(bench.get(&stranger, path).await.0, StatusCode::FORBIDDEN);
    }
    set(json!({"core.metrics_authentication": "false"})).await;
    assert_eq!(bench.get(&Who::Nobody, path).await.0, StatusCode::OK);
}

#[tokio::test]
async fn where_figures_come_from_is_for_who_may_know_the_host() {
    let bench = Bench::new();
    let shows = |der: Vec<u8>| Who::Shows(Entrance::Https, der);
    let client = shows(bench.trust(CertificateType::Client, None));
    let restricted = shows(bench.trust(CertificateType::Client, Some(&["lxc"])));
    let metrics = shows(bench.trust(CertificateType::Metrics, None));
    let path = "/1.0/instances/u1/sources";
    // What is found has gone when its files are to be read: this bench has no host.
    for who in [Who::Socket, client] {
        assert_eq!(bench.get(&who, path).await.0, NOT_FOUND, "{who:?}");
    }
    for who in [Who::Nobody, restricted, metrics] {
        assert_eq!(bench.get(&who, path).await.0, FORBIDDEN, "{who:?}");
    }
    let (status, body) = bench.get(&Who::Socket, "/1.0/instances/c1/sources").await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
}

//! How one comes to be trusted, and for what: join tokens, bearer tokens, an authority of certificates.

use std::collections::BTreeMap;

use http::header::AUTHORIZATION;
use miharu_store::{JoinToken, Secret, SecretHash};

use super::*;
use crate::tls::authority::tests::Ca;

impl Bench {
    /// Makes a bearer token through the API, and returns its secret and its path.
    async fn bearer(&self, restriction: Value, expiry: &str) -> (String, String) {
        let mut body = json!({"name": "prom", "type": "metrics", "bearer_token": true, "expiry": expiry});
        body.as_object_mut().unwrap().extend(restriction.as_object().unwrap().clone());
        let post = request("POST", "/1.0/certificates", Body::from(body.to_string()));
        let (status, text) = self.request(&Who::Socket, post).await;
        assert_eq!(status, StatusCode::CREATED, "{text}");
        let made = serde_json::from_str::<Value>(&text).unwrap()["metadata"].clone();
        let path = format!("/1.0/certificates/{}", made["fingerprint"].as_str().unwrap());
        (made["token"].as_str().unwrap().to_owned(), path)
    }

    /// Puts a join token into the store; its secret is its name.
    fn join_token(
        &self,
        name: &str,
        certificate_type: CertificateType,
        projects: Option<&[&str]>,
        expires_at: Option<i64>,
    ) {
        let token = JoinToken {
            id: format!("id-of-{name}"),
            secret: Secret::new(name.to_owned()),
            name: name.to_owned(),
            description: String::new(),
            certificate_type,
            projects: projects.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            created_at: 1_000_000_000,
            expires_at,
        };
        self.app.store.commit(&Change::AddJoinToken(token), None).unwrap();
    }

    async fn with_token(
        &self,
        who: &Who,
        token: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> (StatusCode, String) {
        let mut request = request(method, path, Body::from(body.to_owned()));
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        self.request(who, request).await
    }

    /// Shows a join token as older and as newer clients do.
    async fn join(&self, who: &Who, field: &str, token: &str) -> (u16, String) {
        let body = json!({"name": "", "type": "client", "certificate": "", field: token}).to_string();
        let (status, text) = self.request(who, request("POST", "/1.0/certificates", Body::from(body))).await;
        let error = serde_json::from_str::<Value>(&text).unwrap()["error"].as_str().unwrap().to_owned();
        (status.as_u16(), error)
    }
}

/// The token as a client has it, whatever it says.
fn encoded(secret: &str) -> String {
    use base64::Engine;
    let token = json!({"client_name": "c", "fingerprint": "ab", "addresses": ["127.0.0.1:8443"], "secret": secret,
                       "expires_at": "0001-01-01T00:00:00Z"});
    base64::engine::general_purpose::STANDARD.encode(token.to_string())
}

fn stranger() -> Who {
    Who::Shows(Entrance::Https, certificate())
}

#[tokio::test]
async fn a_bearer_token_may_do_what_the_table_of_rights_says_and_nothing_else() {
    let bench = Bench::new();
    let (all, _) = bench.bearer(json!({}), "").await;
    let (lxc, _) = bench.bearer(json!({"restricted": true, "projects": ["lxc"]}), "1d").await;
    let both: &[&str] = &["default", "lxc"];
    let nobody_there = Who::Shows(Entrance::Metrics, certificate());
    // Token; metrics; every other resource of the metrics listener; of the HTTPS listener.
    let table = [
        (all.as_str(), Some((both, true))),
        (lxc.as_str(), Some((&["lxc"][..], false))),
        ("", None),
        ("miharu-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", None),
    ];
    for (token, metrics) in table {
        for who in [&Who::Nobody, &stranger(), &nobody_there] {
            let on_metrics = matches!(who, Who::Shows(Entrance::Metrics, _));
            let (status, exposition) = bench.with_token(who, token, "GET", "/1.0/metrics", "").await;
            match metrics {
                None => assert_eq!(status, FORBIDDEN, "{token} {who:?}"),
                Some((projects, server_wide)) => {
                    let expected = (projects.iter().copied().collect(), server_wide);
                    assert_eq!((status, shown(&exposition)), (OK, expected), "{token} {who:?}");
                }
            }
            assert_eq!(bench.with_token(who, token, "GET", "/", "").await.0, OK);
            let (status, server) = bench.with_token(who, token, "GET", "/1.0", "").await;
            let server: Value = serde_json::from_str(&server).unwrap();
            assert_eq!((status, &server["metadata"]["auth"]), (OK, &json!("untrusted")), "{token}");
            assert!(server["metadata"].get("environment").is_none());
            let refused = if on_metrics { NOT_FOUND } else { FORBIDDEN };
            for path in [
                "/1.0/instances",
                "/1.0/instances/u1",
                "/1.0/projects",
                "/1.0/certificates",
                "/1.0/operations",
            ] {
                assert_eq!(bench.with_token(who, token, "GET", path, "").await.0, refused, "{token} {path}");
            }
            for (method, path) in
                [("PATCH", "/1.0"), ("POST", "/1.0/certificates"), ("POST", "/1.0/projects")]
            {
                let status = bench.with_token(who, token, method, path, "{}").await.0;
                assert_eq!(status, refused, "{token} {method} {path}");
            }
            assert_eq!(bench.with_token(who, token, "GET", "/internal/ready", "").await.0, NOT_FOUND);
        }
    }
    let (_, exposition) =
        bench.with_token(&Who::Nobody, &lxc, "GET", "/1.0/metrics?project=default", "").await;
    assert_eq!(shown(&exposition), (BTreeSet::new(), false));
    // What a certificate may do is not lessened by a token beside it.
    let client = Who::Shows(Entrance::Https, bench.trust(CertificateType::Client, None));
    assert_eq!(bench.with_token(&client, &lxc, "GET", "/1.0/instances", "").await.0, OK);
    assert!(shown(&bench.with_token(&client, &lxc, "GET", "/1.0/metrics", "").await.1).1);
}

#[tokio::test]
async fn a_bearer_token_lives_in_the_trust_store_and_its_secret_nowhere() {
    let bench = Bench::new();
    let (_, other) = bench.bearer(json!({}), "").await;
    assert_eq!(bench.metadata(&Who::Socket, &other).await["description"], json!("bearer token"));
    let (token, path) = bench.bearer(json!({"description": "of the shop"}), "").await;
    let entry = bench.metadata(&Who::Socket, &path).await;
    assert_eq!((&entry["type"], &entry["bearer_token"]), (&json!("metrics"), &json!(true)));
    let listed = bench.get(&Who::Socket, "/1.0/certificates?recursion=1").await.1;
    assert!(listed.contains("of the shop") && !listed.contains(&token), "{listed}");
    // The certificate that stands for it opens nothing, even for who had its key.
    let der = crate::pem::decode(entry["certificate"].as_str().unwrap()).unwrap();
    let stand_in = Who::Shows(Entrance::Https, der);
    assert_eq!(bench.get(&stand_in, "/1.0/metrics").await.0, FORBIDDEN);

    let client = json!({"name": "x", "type": "client"});
    assert_eq!(bench.change("PUT", &path, client).await.1, "a bearer token is of type metrics");
    let limited = json!({"name": "x", "type": "metrics", "restricted": true, "projects": ["lxc"]});
    assert_eq!(bench.change("PUT", &path, limited).await.0, OK);
    let metrics = bench.with_token(&Who::Nobody, &token, "GET", "/1.0/metrics", "").await.1;
    assert_eq!(shown(&metrics), (BTreeSet::from(["lxc"]), false));
    assert_eq!(bench.change("DELETE", &path, Value::Null).await.0, OK);
    assert_eq!(bench.with_token(&Who::Nobody, &token, "GET", "/1.0/metrics", "").await.0, FORBIDDEN);
}

#[tokio::test]
async fn a_bearer_token_that_makes_no_sense_is_refused() {
    let bench = Bench::new();
    let post = |change: Value| {
        let mut body = json!({"name": "x", "type": "metrics", "bearer_token": true});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        bench.change("POST", "/1.0/certificates", body)
    };
    for (change, why) in [
        (json!({"type": "client"}), "a bearer token is of type metrics, not 'client'"),
        (json!({"type": ""}), "a bearer token is of type metrics, not ''"),
        (json!({"expiry": "soon"}), "the token cannot be valid for 'soon': invalid expiry expression"),
        (json!({"expiry": "999y 12m"}), ""),
        (json!({"name": ""}), "No name provided"),
        (json!({"certificate": "AAAA"}), "a token is asked for and a certificate given"),
        (json!({"projects": ["lxc"]}), "projects are given, but the certificate is not restricted"),
    ] {
        let (status, error) = post(change).await;
        if why.is_empty() {
            assert_eq!(status, StatusCode::CREATED, "{error}");
        } else {
            assert!(status == StatusCode::BAD_REQUEST && error.starts_with(why), "{status} {error}");
        }
    }
    let (status, error) = post(json!({"restricted": true, "projects": ["nowhere"]})).await;
    assert_eq!((status, error.as_str()), (NOT_FOUND, "Project not found"));
}

#[tokio::test]
async fn a_bearer_token_is_warned_of_in_the_last_third_of_its_life() {
    let bench = Bench::new();
    let warned = async || {
        crate::expiry::check(&bench.app);
        let warnings = bench.metadata(&Who::Socket, "/1.0/warnings?recursion=1").await;
        warnings.as_array().unwrap().len()
    };
    for (expiry, warnings) in [("", 0), ("10d", 0), ("1y", 0), ("2S", 1)] {
        bench.bearer(json!({}), expiry).await;
        if warnings > 0 {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
        assert_eq!(warned().await, warnings, "{expiry}");
    }
}

#[tokio::test]
async fn the_ends_of_certificates_are_figures() {
    let bench = Bench::new();
    let now = crate::clock::seconds_now();
    let ends = |now: i64| {
        let ends = crate::expiry::ends(&bench.app.store.load(), &bench.app.tls, now);
        ends.into_iter().map(|end| (end.certificate, end.end_seconds)).collect::<BTreeMap<_, _>>()
    };
    let year = 365 * 24 * 3600;
    let own = ends(now);
    assert_eq!(own.keys().collect::<Vec<_>>(), [&"server"]);
    assert!(own["server"] > (now + 9 * year).unsigned_abs(), "{own:?}");
    bench.bearer(json!({}), "1d").await;
    assert_eq!(ends(now), own, "a token is no certificate");

    let later = bench.trust(CertificateType::Metrics, None);
    let later = ParsedCertificate::parse(&later).unwrap().not_after();
    assert_eq!(ends(now)["trusted"], later.unsigned_abs());
    let ca = Ca::new("ca");
    let sooner = ca.sign(1, None);
    let post = json!({"name": "x", "type": "metrics", "certificate": crate::pem::encode(&sooner)});
    assert_eq!(bench.change("POST", "/1.0/certificates", post).await.0, StatusCode::CREATED);
    let sooner = ParsedCertificate::parse(&sooner).unwrap().not_after();
    assert!(sooner < now + year);
    assert_eq!(ends(now)["trusted"], sooner.unsigned_abs());
    assert_eq!(ends(sooner)["trusted"], later.unsigned_abs(), "one that has ended does not hide the next");

    std::fs::write(bench.app.tls.identity().dir().join("server.ca"), ca.pem).unwrap();
    bench.app.tls.authority().reload();
    assert_eq!(ends(now).len(), 3, "{:?}", ends(now));
}

#[tokio::test]
async fn an_expired_bearer_token_opens_nothing() {
    let bench = Bench::new();
    let (token, _) = bench.bearer(json!({}), "1d").await;
    assert_eq!(bench.with_token(&Who::Nobody, &token, "GET", "/1.0/metrics", "").await.0, OK);
    let (token, path) = bench.bearer(json!({}), "1S").await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(bench.with_token(&Who::Nobody, &token, "GET", "/1.0/metrics", "").await.0, FORBIDDEN);
    assert_eq!(bench.get(&Who::Socket, &path).await.0, OK, "it is still listed");
}

#[tokio::test]
async fn a_join_token_is_used_once_for_the_certificate_of_the_connection() {
    let bench = Bench::new();
    bench.join_token("old", CertificateType::Client, None, None);
    bench.join_token("new", CertificateType::Metrics, Some(&["lxc"]), Some(i64::MAX));
    let wrong = "not authorized: the token is wrong, or it was used or revoked";
    let who = stranger();
    for token in ["password", &encoded("older"), &encoded(""), "e30="] {
        assert_eq!(bench.join(&who, "password", token).await, (403, wrong.to_owned()), "{token}");
    }
    assert_eq!(bench.join(&who, "password", "").await, (403, "not authorized".to_owned()));
    assert_eq!(bench.join(&Who::Nobody, "password", &encoded("old")).await.0, 400, "it shows no certificate");

    assert_eq!(bench.join(&who, "password", &encoded("old")).await, (201, String::new()));
    assert_eq!(bench.metadata(&who, "/1.0").await["auth"], json!("trusted"));
    assert_eq!(bench.join(&stranger(), "password", &encoded("old")).await, (403, wrong.to_owned()));
    let again = bench.join(&who, "trust_token", &encoded("new")).await;
    assert_eq!(again, (400, "Client is already trusted".to_owned()));

    let scraper = stranger();
    assert_eq!(bench.join(&scraper, "trust_token", &encoded("new")).await.0, 201);
    let metrics = bench.get(&scraper, "/1.0/metrics").await.1;
    assert_eq!(shown(&metrics), (BTreeSet::from(["lxc"]), false));
    assert_eq!(bench.metadata(&Who::Socket, "/1.0/operations").await, json!({}));
    let entries = bench.metadata(&Who::Socket, "/1.0/certificates?recursion=1").await;
    let mut names: Vec<_> =
        entries.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["new", "old"]);
}

#[tokio::test]
async fn a_join_token_opens_nothing_else_and_not_for_everybody() {
    let bench = Bench::new();
    bench.join_token("late", CertificateType::Client, None, Some(1_000_000_001));
    bench.join_token("good", CertificateType::Client, None, None);
    let expired = "not authorized: the token has expired, ask for a new one";
    // The second one took what had expired by then along, so there is another.
    bench.join_token("later", CertificateType::Client, None, Some(1_000_000_001));
    assert_eq!(bench.join(&stranger(), "password", &encoded("later")).await, (403, expired.to_owned()));
    let own = certificate();
    let foreign = json!({"type": "client", "password": encoded("good"), "certificate": crate::pem::encode(&certificate())});
    let who = Who::Shows(Entrance::Https, own.clone());
    let (status, text) =
        bench.request(&who, request("POST", "/1.0/certificates", Body::from(foreign.to_string()))).await;
    assert!(status == StatusCode::BAD_REQUEST && text.contains("not for another one"), "{text}");
    for body in ["", "{", "[]", "{\"password\": 1}"] {
        let (status, text) =
            bench.request(&who, request("POST", "/1.0/certificates", Body::from(body))).await;
        assert!(status == FORBIDDEN && text.contains("\"not authorized\""), "{body}: {text}");
    }
    for trusted in [CertificateType::Client, CertificateType::Metrics] {
        let restricted = Who::Shows(Entrance::Https, bench.trust(trusted, Some(&["lxc"])));
        assert!(matches!(bench.join(&restricted, "password", &encoded("good")).await.0, 400 | 403));
    }
    // A client may post the certificate that it shows.
    let same =
        json!({"type": "client", "password": encoded("good"), "certificate": crate::pem::encode(&own)});
    let (status, text) =
        bench.request(&who, request("POST", "/1.0/certificates", Body::from(same.to_string()))).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
}

#[tokio::test]
async fn two_who_show_one_join_token_at_once_do_not_both_get_in() {
    let bench = Bench::new();
    for round in 0..5 {
        let secret = format!("s{round}");
        bench.join_token(&secret, CertificateType::Client, None, None);
        let (token, first, second) = (encoded(&secret), stranger(), stranger());
        let (a, b) =
            tokio::join!(bench.join(&first, "password", &token), bench.join(&second, "password", &token));
        let mut statuses = [a.0, b.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 403]);
    }
    assert_eq!(bench.app.store.load().certificates.len(), 5);
}

#[tokio::test]
async fn join_tokens_are_operations_that_only_the_unrestricted_see() {
    let bench = Bench::new();
    bench.join_token("a", CertificateType::Client, Some(&["lxc"]), Some(4_000_000_000));
    let operation = bench.metadata(&Who::Socket, "/1.0/operations/id-of-a").await;
    assert_eq!((&operation["class"], &operation["status_code"]), (&json!("token"), &json!(103)));
    let metadata = &operation["metadata"];
    assert_eq!((&metadata["secret"], &metadata["expiresAt"]), (&json!("a"), &json!("2096-10-02T07:06:40Z")));
    assert_eq!(metadata["fingerprint"], json!(bench.app.tls.identity().fingerprint()));
    assert_eq!(metadata["request"]["projects"], json!(["lxc"]));
    let listed = bench.metadata(&Who::Socket, "/1.0/operations?recursion=1").await;
    assert_eq!(listed["running"], json!([operation]));
    let paths = json!({"running": ["/1.0/operations/id-of-a"]});
    for query in ["", "?project=default", "?all-projects=true"] {
        assert_eq!(bench.metadata(&Who::Socket, &format!("/1.0/operations{query}")).await, paths, "{query}");
    }
    assert_eq!(bench.metadata(&Who::Socket, "/1.0/operations?project=lxc").await, json!({}));

    let restricted =
        Who::Shows(Entrance::Https, bench.trust(CertificateType::Client, Some(&["lxc", "default"])));
    assert_eq!(bench.metadata(&restricted, "/1.0/operations?recursion=1").await, json!({}));
    for (method, path, expected) in [
        ("GET", "/1.0/operations/id-of-a", NOT_FOUND),
        ("GET", "/1.0/operations/id-of-a/wait", NOT_FOUND),
        ("DELETE", "/1.0/operations/id-of-a", FORBIDDEN),
    ] {
        assert_eq!(
            bench.request(&restricted, request(method, path, Body::empty())).await.0,
            expected,
            "{method}"
        );
    }
    for path in ["/1.0/operations", "/1.0/operations/id-of-a", "/1.0/operations/id-of-a/wait"] {
        assert_eq!(bench.get(&stranger(), path).await.0, FORBIDDEN);
    }
    assert_eq!(bench.change("DELETE", "/1.0/operations/id-of-a", Value::Null).await.0, OK);
    let gone = bench.change("DELETE", "/1.0/operations/id-of-a", Value::Null).await;
    assert_eq!(gone, (NOT_FOUND, "Operation not found".to_owned()));
    assert_eq!(bench.join(&stranger(), "password", &encoded("a")).await.0, 403);
}

#[tokio::test]
async fn who_waits_for_a_join_token_learns_that_it_was_used() {
    let bench = Bench::new();
    bench.join_token("a", CertificateType::Client, None, None);
    let path = "/1.0/operations/id-of-a/wait?timeout=";
    let waited = bench.metadata(&Who::Socket, &format!("{path}0")).await;
    assert_eq!(waited["status"], json!("Running"));
    assert_eq!(bench.get(&Who::Socket, &format!("{path}x")).await.0, StatusCode::BAD_REQUEST);
    let waiting =
        tokio::spawn(bench.request(&Who::Socket, request("GET", &format!("{path}-1"), Body::empty())));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    assert_eq!(bench.join(&stranger(), "password", &encoded("a")).await.0, 201);
    let (status, text) = waiting.await.unwrap();
    assert!(status == OK && text.contains("\"Cancelled\""), "{text}");
}

#[tokio::test]
async fn an_authority_decides_who_may_be_trusted() {
    let bench = Bench::new();
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let put = |name: &str, content: &[u8]| {
        std::fs::write(bench.app.tls.identity().dir().join(name), content).unwrap();
        bench.app.tls.authority().reload();
    };
    let unsigned = bench.trust(CertificateType::Client, None);
    put("server.ca", ca.pem.as_bytes());
    let metrics =
        async |der: &[u8]| bench.get(&Who::Shows(Entrance::Https, der.to_vec()), "/1.0/metrics").await.0;
    assert_eq!(metrics(&unsigned).await, FORBIDDEN, "an entry of old is not enough");

    let post = |der: &[u8]| json!({"name": "x", "type": "metrics", "certificate": crate::pem::encode(der)});
    let (signed, server) = (ca.sign(1, None), ca.sign(2, Some(rcgen::ExtendedKeyUsagePurpose::ServerAuth)));
    let (status, error) = bench.change("POST", "/1.0/certificates", post(&other.sign(1, None))).await;
    assert!(
        status == StatusCode::BAD_REQUEST && error.contains("not signed by this server's authority"),
        "{error}"
    );
    assert_eq!(metrics(&signed).await, FORBIDDEN, "it has no entry");
    assert_eq!(bench.change("POST", "/1.0/certificates", post(&signed)).await.0, StatusCode::CREATED);
    assert_eq!(metrics(&signed).await, OK);

    bench.join_token("a", CertificateType::Client, None, None);
    assert_eq!(bench.join(&stranger(), "password", &encoded("a")).await.0, 400);
    let joining = Who::Shows(Entrance::Https, ca.sign(5, None));
    assert_eq!(bench.join(&joining, "password", &encoded("a")).await.0, 201);

    let new = ca.sign(3, None);
    let trust = |value: &str| json!({"config": {"core.trust_ca_certificates": value}});
    assert_eq!(bench.change("PATCH", "/1.0", trust("true")).await.0, OK);
    assert_eq!((metrics(&new).await, metrics(&server).await), (OK, FORBIDDEN));
    let who = Who::Shows(Entrance::Https, new.clone());
    assert_eq!(bench.metadata(&who, "/1.0").await["auth"], json!("trusted"));
    // An entry keeps its rights.
    let who = Who::Shows(Entrance::Https, signed.clone());
    assert_eq!(bench.get(&who, "/1.0/instances").await.0, FORBIDDEN);
    assert_eq!(metrics(&other.sign(3, None)).await, FORBIDDEN);

    put("ca.crl", ca.revoke(&[1, 3], time::Duration::days(1)).0.as_bytes());
    assert_eq!((metrics(&new).await, metrics(&signed).await), (FORBIDDEN, FORBIDDEN));
    put("ca.crl", b"rubbish");
    assert_eq!(metrics(&ca.sign(4, None)).await, FORBIDDEN, "what is revoked cannot be told");
    // Tokens are no certificates.
    let (token, _) = bench.bearer(json!({}), "").await;
    assert_eq!(bench.with_token(&Who::Nobody, &token, "GET", "/1.0/metrics", "").await.0, OK);
}

#[tokio::test]
async fn a_restriction_is_lifted_as_the_clients_do_it() {
    let bench = Bench::new();
    let der = bench.trust(CertificateType::Client, Some(&["lxc"]));
    let path = format!("/1.0/certificates/{}", miharu_store::fingerprint(&der));
    let put = json!({"name": "x", "type": "client", "restricted": false, "projects": ["lxc"]});
    assert_eq!(bench.change("PUT", &path, put).await.0, OK);
    let entry = bench.metadata(&Who::Socket, &path).await;
    assert_eq!((&entry["restricted"], &entry["projects"]), (&json!(false), &json!([])));
    assert_eq!(bench.get(&Who::Shows(Entrance::Https, der), "/1.0/certificates").await.0, OK);
}

#[tokio::test]
async fn there_is_an_end_to_tokens() {
    let bench = Bench::new();
    let der = certificate();
    for number in 0..20 {
        bench.join_token(&format!("t{number}"), CertificateType::Client, None, None);
    }
    let token = json!({"name": "x", "type": "metrics", "bearer_token": true});
    let (status, error) = bench.change("POST", "/1.0/certificates", token).await;
    assert!(status == StatusCode::BAD_REQUEST && error.starts_with("there are 20 tokens already"), "{error}");
    let hash = SecretHash::of("x");
    assert!(bench.app.store.load().certificates.values().all(|entry| entry.token.as_ref() != Some(&hash)));
    assert_eq!(bench.join(&Who::Shows(Entrance::Https, der), "password", &encoded("t19")).await.0, 201);
}

#[tokio::test]
async fn an_entry_that_changed_meanwhile_is_not_overwritten() {
    let bench = Bench::new();
    let fingerprint = miharu_store::fingerprint(&bench.trust(CertificateType::Metrics, None));
    let path =
        format!("/1.0/certificates/{}", fingerprint.chars().take(8).collect::<String>().to_uppercase());
    let tag = async || {
        let shown = bench.send(&Who::Socket, request("GET", &path, Body::empty())).await;
        shown.headers()[ETAG].clone()
    };
    let before = tag().await;
    let change = |method: &str, name: &str| {
        let body = json!({"name": name, "type": "metrics"}).to_string();
        let mut request = request(method, &path, Body::from(body));
        request.headers_mut().insert(IF_MATCH, before.clone());
        bench.request(&Who::Socket, request)
    };
    assert_eq!(change("PUT", "first").await.0, OK);
    assert_ne!(tag().await, before);
    for method in ["PUT", "PATCH"] {
        assert_eq!(change(method, "second").await.0, StatusCode::PRECONDITION_FAILED, "{method}");
    }
    assert_eq!(bench.metadata(&Who::Socket, &path).await["name"], json!("first"));
    // What PATCH leaves out stays, and another certificate cannot take the place of the one that is there.
    assert_eq!(bench.change("PATCH", &path, json!({"description": "d"})).await.0, OK);
    let entry = bench.metadata(&Who::Socket, &path).await;
    assert_eq!((&entry["name"], &entry["description"]), (&json!("first"), &json!("d")));
    let other = json!({"name": "x", "type": "metrics", "certificate": crate::pem::encode(&certificate())});
    assert_eq!(bench.change("PUT", &path, other).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(bench.get(&Who::Socket, "/1.0/certificates/a").await.0, NOT_FOUND, "one digit is no prefix");
}

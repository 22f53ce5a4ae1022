//! The web page: who gets it, and how it is guarded.

use super::*;

#[tokio::test]
async fn the_page_is_for_trusted_clients_and_all_others_are_told_how_to_become_one() {
    let bench = Bench::new();
    let shows = |der: Vec<u8>| Who::Shows(Entrance::Https, der);
    let own = Some(&["lxc"][..]);
    let table = [
        (Who::Socket, OK),
        (shows(bench.trust(CertificateType::Client, None)), OK),
        (shows(bench.trust(CertificateType::Client, own)), OK),
        (shows(bench.trust(CertificateType::Metrics, None)), FORBIDDEN),
        (shows(bench.trust(CertificateType::Metrics, own)), FORBIDDEN),
        (shows(certificate()), FORBIDDEN),
        (Who::Nobody, FORBIDDEN),
    ];
    for (who, expected) in &table {
        for path in ["/ui/", "/ui/index.html", "/ui/js/main.js", "/ui/vendor/uPlot.esm.js"] {
            let response = bench.send(who, request("GET", path, Body::empty())).await;
            assert_eq!(response.status(), *expected, "{who:?} {path}");
            let headers = response.headers();
            let policy = headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
            assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
            let expected = [
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
                ("cache-control", "no-cache"),
            ];
            for (name, value) in expected {
                assert_eq!(headers[name], value, "{path}");
            }
        }
    }
    let (_, body) = bench.get(&Who::Nobody, "/ui/").await;
    assert!(body.contains("miharu webui") && body.contains("証明書"), "{body}");
    // That it is a trusted one is looked at with each request.
    let (Who::Shows(_, der), _) = &table[1] else { unreachable!() };
    let path = format!("/1.0/certificates/{}", miharu_store::fingerprint(der));
    assert_eq!(bench.change("DELETE", &path, Value::Null).await.0, OK);
    assert_eq!(bench.get(&table[1].0, "/ui/").await.0, FORBIDDEN);
}

#[tokio::test]
async fn files_are_kept_by_their_tag_and_compressed() {
    let bench = Bench::new();
    let get = async |path: &str, name: &'static str, value: &str| {
        let mut asked = request("GET", path, Body::empty());
        asked.headers_mut().insert(name, value.parse().unwrap());
        let response = bench.send(&Who::Socket, asked).await;
        let (head, body) = response.into_parts();
        (head.status, head.headers, axum::body::to_bytes(body, usize::MAX).await.unwrap())
    };
    let (_, plain, text) = get("/ui/js/main.js", "accept-encoding", "identity").await;
    assert_eq!(plain["content-type"], "text/javascript; charset=utf-8");
    let mut tags = BTreeSet::from([plain[ETAG].to_str().unwrap().to_owned()]);
    for encoding in ["gzip", "zstd"] {
        let (status, headers, body) = get("/ui/js/main.js", "accept-encoding", encoding).await;
        assert_eq!((status, headers["content-encoding"].to_str().unwrap()), (OK, encoding));
        assert!(body.len() < text.len());
        tags.insert(headers[ETAG].to_str().unwrap().to_owned());
    }
    assert_eq!(tags.len(), 3, "each form has its own");
    let tag = plain[ETAG].to_str().unwrap();
    for known in [tag, "\"x\", *", &format!("\"x\", W/{tag}")] {
        let (status, _, body) = get("/ui/js/main.js", "if-none-match", known).await;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{known}");
    }
    assert_eq!(get("/ui/js/main.js", "if-none-match", "\"x\"").await.0, OK);
}

#[tokio::test]
async fn there_is_nothing_else_below_it() {
    let bench = Bench::new();
    let response = bench.send(&Who::Socket, request("GET", "/ui", Body::empty())).await;
    assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
    assert_eq!(response.headers()["location"], "/ui/");
    for path in [
        "/ui/x",
        "/ui/js",
        "/ui/js/",
        "/ui//index.html",
        "/ui/../Cargo.toml",
        "/ui/%2e%2e/x",
        "/ui/%ff",
        "/uix",
    ] {
        assert_eq!(bench.get(&Who::Socket, path).await.0, NOT_FOUND, "{path}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let (status, _) = bench.request(&Who::Socket, request(method, "/ui/", Body::empty())).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{method}");
    }
    let (status, body) = bench.request(&Who::Socket, request("HEAD", "/ui/", Body::empty())).await;
    assert_eq!((status, body.len()), (OK, 0));
    assert!(bench.get(&Who::Socket, "/").await.1.contains("[\"/1.0\"]"));
}

//! What instances use, by right, and what of it is asked for wrongly.

use proptest::prelude::*;

use super::*;

impl Bench {
    async fn names(&self, who: &Who, query: &str) -> Vec<String> {
        let usage = self.metadata(who, &format!("/1.0/usage{query}")).await;
        let name = |instance: &Value| {
            format!("{}/{}", instance["project"].as_str().unwrap(), instance["name"].as_str().unwrap())
        };
        usage["instances"].as_array().unwrap().iter().map(name).collect()
    }
}

#[tokio::test]
async fn usage_is_for_those_who_may_read_metrics_and_shows_them_the_same_instances() {
    let bench = Bench::new();
    let shows = |der: Vec<u8>| Who::Shows(Entrance::Https, der);
    let (own, nowhere) = (Some(&["lxc"][..]), Some(&["nowhere"][..]));
    let all: &[&str] = &["default/c1", "lxc/c1", "lxc/u1"];
    let lxc: &[&str] = &["lxc/c1", "lxc/u1"];
    let table = [
        (Who::Socket, Some(all)),
        (Who::Nobody, None),
        (shows(certificate()), None),
        (shows(bench.trust(CertificateType::Metrics, None)), Some(all)),
        (shows(bench.trust(CertificateType::Metrics, own)), Some(lxc)),
        (shows(bench.trust(CertificateType::Client, None)), Some(all)),
        (shows(bench.trust(CertificateType::Client, own)), Some(lxc)),
        (shows(bench.trust(CertificateType::Client, nowhere)), Some(&[])),
    ];
    for (who, seen) in &table {
        let history = |path: &'static str| bench.get(who, path);
        let Some(seen) = seen else {
            assert_eq!(bench.get(who, "/1.0/usage").await.0, FORBIDDEN, "{who:?}");
            assert_eq!(history("/1.0/instances/u1/history").await.0, FORBIDDEN, "{who:?}");
            continue;
        };
        assert_eq!(bench.names(who, "").await, *seen, "{who:?}");
        let of_lxc: Vec<_> = seen.iter().filter(|name| name.starts_with("lxc/")).collect();
        assert_eq!(bench.names(who, "?project=lxc&project=nowhere").await.iter().collect::<Vec<_>>(), of_lxc);
        let expected = if of_lxc.is_empty() { NOT_FOUND } else { OK };
        assert_eq!(history("/1.0/instances/u1/history").await.0, expected, "{who:?}");
        assert_eq!(history("/1.0/instances/u1/history?project=lxc").await.0, expected, "{who:?}");
        let expected = if seen.len() == 3 { OK } else { NOT_FOUND };
        assert_eq!(history("/1.0/instances/c1/history?project=default").await.0, expected, "{who:?}");
        assert_eq!(history("/1.0/instances/nobody/history").await.0, NOT_FOUND, "{who:?}");
    }
    // Of two that are called the same, who sees one alone need not say which.
    let (status, body) = bench.get(&Who::Socket, "/1.0/instances/c1/history").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(body.contains("name one of: default, lxc"), "{body}");
    assert_eq!(bench.get(&table[6].0, "/1.0/instances/c1/history").await.0, OK);

    let metrics = Who::Shows(Entrance::Metrics, bench.trust(CertificateType::Metrics, None));
    for path in ["/1.0/usage", "/1.0/instances/u1/history", "/ui/", "/ui"] {
        assert_eq!(bench.get(&metrics, path).await.0, NOT_FOUND, "{path} on core.metrics_address");
    }
}

#[tokio::test]
async fn usage_says_what_is_known_and_nothing_else() {
    let bench = Bench::new();
    let usage = bench.metadata(&Who::Socket, "/1.0/usage?recent=true").await;
    assert_eq!(usage["interval"], Value::Null);
    let instance = &usage["instances"][2];
    assert_eq!((&instance["name"], &instance["type"]), (&json!("u1"), &json!("container")));
    assert_eq!(instance["figures"], json!({"processes": 3.0}));
    assert_eq!((&instance["location"], instance.get("recent")), (&json!("none"), None));
    let history = bench.metadata(&Who::Socket, "/1.0/instances/u1/history").await;
    assert_eq!((&history["step"], history.get("missing")), (&json!(30.0), None));
    let processes = history["figures"]["processes"].as_array().unwrap();
    assert_eq!((processes.len(), &processes[119]), (120, &json!(3.0)));
    assert!(processes[..119].iter().all(Value::is_null));
    assert_eq!(history["figures"].as_object().unwrap().len(), 1);
    let end = history["end"].as_f64().unwrap();
    let now = crate::cache::epoch_seconds(std::time::SystemTime::now()).unwrap();
    assert!((-1.0..31.0).contains(&(end - now)), "{end}, now {now}");

    let off = json!({"config": {"ui.history": "false"}});
    assert_eq!(bench.change("PATCH", "/1.0", off).await.0, OK);
    let history = bench.metadata(&Who::Socket, "/1.0/instances/u1/history").await;
    assert_eq!((&history["missing"], &history["figures"]), (&json!("off"), &json!({})));
    assert_eq!(bench.names(&Who::Socket, "").await.len(), 3);
}

#[tokio::test]
async fn an_answer_that_is_long_is_compressed_for_who_likes_that() {
    let bench = Bench::new();
    let mut asked = request("GET", "/1.0/instances/u1/history", Body::empty());
    asked.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
    let response = bench.send(&Who::Socket, asked).await;
    // 119 times `null` and a number make less than that worth it.
    assert_eq!(response.headers().get("content-encoding"), None);
    assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(response.headers()["vary"], "Accept-Encoding");
}

#[tokio::test]
async fn who_may_not_ask_for_more_collections_gets_what_the_cache_has() {
    let bench = Bench::new();
    let metrics = Who::Shows(Entrance::Https, bench.trust(CertificateType::Metrics, None));
    bench.names(&Who::Socket, "").await;
    let begun = || bench.app.cache.last().unwrap().begun();
    let first = begun();
    tokio::time::sleep(std::time::Duration::from_millis(1050)).await;
    bench.names(&metrics, "?max_age=1").await;
    assert_eq!(begun(), first);
    bench.names(&Who::Socket, "?max_age=3600").await;
    assert_eq!(begun(), first, "no older than the cache has them");
    bench.names(&Who::Socket, "?max_age=1").await;
    assert!(begun() > first);
    let usage = bench.metadata(&Who::Socket, "/1.0/usage").await;
    assert!(usage["interval"].as_f64().unwrap() >= 1.0, "{usage}");
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_refused_in_words() {
    let bench = Bench::new();
    let wrong = [
        ("max_age=0", "max_age: expected seconds, from 1 to 3600"),
        ("max_age=0.5", "max_age: expected seconds, from 1 to 3600"),
        ("max_age=nan", "max_age: expected seconds, from 1 to 3600"),
        ("max_age=inf", "max_age: expected seconds, from 1 to 3600"),
        ("max_age=-1", "max_age: expected seconds, from 1 to 3600"),
        ("max_age=3601", "max_age: expected seconds, from 1 to 3600"),
        ("recent=perhaps", "recent: expected true or false"),
        ("target=other", "there is no member 'other': this server is in no cluster"),
    ];
    for (query, words) in wrong {
        let (status, body) = bench.get(&Who::Socket, &format!("/1.0/usage?{query}")).await;
        let expected = if query.starts_with("target") { NOT_FOUND } else { StatusCode::BAD_REQUEST };
        assert_eq!(status, expected, "{query}");
        assert!(body.contains(words), "{query}: {body}");
    }
    for right in ["max_age=1", "max_age=3600", "max_age=", "recent=", "recent=0", "recent=1", "target="] {
        assert_eq!(bench.get(&Who::Socket, &format!("/1.0/usage?{right}")).await.0, OK, "{right}");
    }
}

#[test]
fn no_query_brings_the_server_down() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bench = runtime.block_on(async { Bench::new() });
    let words = proptest::collection::vec((0_usize..5, "[ -~]{0,20}|\\PC{0,20}"), 0..6);
    let config = proptest::test_runner::Config { cases: 64, ..Default::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&words, |pairs| {
            let names = ["project", "recent", "max_age", "target", "x"];
            let escape =
                |text: &str| crate::respond::path("", text).replace("/1.0//", "").replace('/', "%2F");
            let query: Vec<_> =
                pairs.iter().map(|(name, value)| format!("{}={}", names[*name], escape(value))).collect();
            let query = query.join("&");
            for path in ["/1.0/usage", "/1.0/instances/u1/history"] {
                let (status, _) = runtime.block_on(bench.get(&Who::Socket, &format!("{path}?{query}")));
                prop_assert!(status != StatusCode::INTERNAL_SERVER_ERROR, "{path}?{query}: {status}");
            }
            Ok(())
        })
        .unwrap();
}

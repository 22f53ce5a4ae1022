//! What a lone server answers to those who take it for a member of a cluster, and what is refused before etcd is asked.

use super::*;

#[tokio::test]
async fn a_lone_server_has_no_members_and_answers_for_itself_alone() {
    let bench = Bench::new();
    for (method, path) in [
        ("POST", "/1.0/cluster/members"),
        ("PUT", "/1.0/cluster/certificate"),
        ("DELETE", "/1.0/cluster/members/b"),
        ("PATCH", "/1.0/cluster/members/b"),
        ("POST", "/1.0/cluster/members/b/state"),
        ("POST", "/1.0/cluster/groups"),
    ] {
        let answer = bench.change(method, path, json!({})).await;
        assert_eq!(
            answer,
            (StatusCode::BAD_REQUEST, "Server is not clustered".to_owned()),
            "{method} {path}"
        );
    }
    let (status, error) = bench.change("PUT", "/1.0/cluster", json!({"enabled": false})).await;
    assert_eq!((status, error.as_str()), (StatusCode::BAD_REQUEST, "Server is not clustered"));
    let (status, body) = bench.get(&Who::Socket, "/1.0/metrics?target=b").await;
    assert!(status == NOT_FOUND && body.contains("in no cluster"), "{body}");
    let stranger = Who::Shows(Entrance::Metrics, certificate());
    assert_eq!(bench.get(&stranger, "/1.0/metrics?target=b").await.0, FORBIDDEN);
    assert_eq!(bench.get(&Who::Socket, "/1.0/metrics?target=").await.0, OK);
}

#[tokio::test]
async fn what_makes_no_cluster_is_refused_before_etcd_is_asked() {
    let bench = Bench::new();
    for (body, words) in [
        (json!({"server_name": "a", "enabled": true}), "--store etcd://"),
        (json!({"server_name": "a", "enabled": true, "store": {"url": "http://x"}}), "invalid etcd store"),
        (json!({"server_name": "a", "enabled": true, "store": {"url": "etcd://x", "user": "u"}}), "password"),
        (
            json!({"server_name": "a", "enabled": true, "store": {"url": "etcd://x"}, "san": ["no name"]}),
            "'no name'",
        ),
        (json!({"server_name": "a b", "enabled": true, "store": {"url": "etcd://x"}}), "invalid member name"),
        (json!({"enabled": true, "cluster_token": "x"}), "no join token"),
    ] {
        let (status, error) = bench.change("PUT", "/1.0/cluster", body).await;
        assert!(status == StatusCode::BAD_REQUEST && error.contains(words), "{status} {error}");
    }
    for who in [Who::Nobody, Who::Shows(Entrance::Https, bench.trust(CertificateType::Metrics, None))] {
        let body = Body::from(json!({"enabled": false}).to_string());
        assert_eq!(bench.request(&who, request("PUT", "/1.0/cluster", body)).await.0, FORBIDDEN);
    }
    assert!(bench.app.store.load().cluster.is_none());
}

use super::*;
use crate::testing::{Canned, Fake};

#[test]
fn only_this_host_may_reach_it() {
    let fake = Fake::start(vec![]);
    for address in ["0.0.0.0:0", "192.0.2.1:8500", "[::]:0"] {
        let (result, _) = fake.miharu(&["webui", "--address", address]);
        let error = result.unwrap_err();
        assert!(matches!(&error, Failure::Usage(words) if words.contains("loopback")), "{error}");
    }
    assert!(fake.requests().is_empty());
}

#[test]
fn a_daemon_without_a_page_is_told_before_a_browser_is_opened() {
    let fake = Fake::start(vec![Canned::error(404, "not found")]);
    let (result, out) = fake.miharu(&["webui", "local:", "--no-browser"]);
    assert!(result.unwrap_err().to_string().contains("not found"));
    assert_eq!(out, "");
    assert_eq!(fake.requests()[0].line(), "GET /ui/");
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let fake = Fake::start(vec![Canned::text("<!doctype html>")]);
    let address = taken.local_addr().unwrap().to_string();
    let (result, _) = fake.miharu(&["webui", "--address", &address]);
    let error = result.unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
}

#[tokio::test]
async fn what_passes_goes_to_the_daemon_without_the_cookie_and_comes_back_as_it_was() {
    let fake = Fake::start(vec![Canned::text("u1 0.5").etag("\"tag\"")]);
    let client = fake.client();
    let socket = client.socket();
    let request = Request::builder().uri("/1.0/usage?recent=true").header("cookie", "secret=1");
    let request = request.header("accept-encoding", "gzip").header("if-none-match", "\"x\"");
    let (head, ()) = request.body(()).unwrap().into_parts();
    let response = relay(socket, &head).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        (&response.headers()["etag"], &response.headers()["cache-control"]),
        (&"\"tag\"".parse().unwrap(), &"no-store".parse().unwrap())
    );
    assert_eq!(response.headers().get("connection"), None);
    let asked = fake.requests().remove(0);
    assert_eq!(asked.line(), "GET /1.0/usage?recent=true");
    assert_eq!((asked.header("cookie"), asked.header("if-none-match")), (None, Some("\"x\"")));
    assert_eq!(asked.header("accept-encoding"), Some("gzip"));
    // Then it listens no more.
    let response = relay(socket, &head).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["content-type"], "application/json");
}

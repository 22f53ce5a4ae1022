//! The readers of what comes over the network, for `miharu-fuzz`; each panics where what it read breaks its own rules.

mod server;

use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, IF_MATCH};
use http::{HeaderName, HeaderValue, StatusCode};
use miharu_metrics::{Format, InstanceType};
use rustls::pki_types::CertificateDer;

use crate::auth::{Caller, MetricsRight};
use crate::cache::Found;
use crate::listen::frames::Frames;
use crate::negotiate::{self, Encoding};
use crate::respond::{self, Parameters};
use crate::routes::{events, foreign, instances::filter::Filter};
use crate::tls::authority::revoked::Revoked;
use crate::tls::{authority, identity, verifier};
use crate::{forward, pem, requests, secrets};

pub use server::Server;

/// A request without its body: the target, then a header a line.
pub fn request(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let Some(Ok(target)) = lines.next().map(std::str::from_utf8) else { return };
    let mut builder = Request::builder().uri(target);
    for line in lines.take(64) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = parts.next().and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
        if let (Some(name), Some(value)) = (name, value) {
            builder = builder.header(name, value);
        }
    }
    let Ok(request) = builder.body(Body::empty()) else { return };
    let _ = (foreign::is_foreign(&request), requests::entity(request.uri().path()));
    let headers = request.headers();
    let named = |name: &HeaderName, word: &str| {
        let text = |value: &HeaderValue| value.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains(word));
        headers.get_all(name).into_iter().any(text)
    };
    assert!(
        negotiate::format(headers) == Format::Text || named(&ACCEPT, "application/openmetrics-text"),
        "a form that nobody asked for"
    );
    let encoding = negotiate::encoding(headers);
    assert!(
        encoding == Encoding::Identity
            || named(&ACCEPT_ENCODING, "") && !encoding.compress(Bytes::new()).is_empty()
    );
    let _ = respond::check_match(headers, "a").is_ok() || headers.contains_key(IF_MATCH);
    if let MetricsRight::Projects(names) = forward::right_of(headers) {
        let again: BTreeSet<String> =
            names.iter().filter_map(|name| forward::decoded(&forward::encoded(name))).collect();
        assert_eq!(again, names, "a right that changes on its way");
    }
    if let Some(parameters) = Parameters::of(request.uri()) {
        let _ = (parameters.recursion(), parameters.projects());
        let _ = events::topics(&Caller::Client, parameters.get("type").unwrap_or_default());
        filter(parameters.get("filter").unwrap_or_default().as_bytes());
    }
}

/// The value of the parameter `filter`.
pub fn filter(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let path = respond::path("instances", text);
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic()) && path.matches('/').count() == 3);
    let Ok(filter) = Filter::parse(text) else { return };
    for (project, name) in [("default", "u1"), ("docker/shop", text)] {
        let _ = filter.matches(&Found {
            project: project.to_owned(),
            name: name.to_owned(),
            instance_type: InstanceType::Container,
            runtime: "lxc".to_owned(),
            id: name.to_owned(),
            image: None,
            pid: Some(1),
        });
    }
}

/// What a client or another member sends as a body, a token, or a certificate to be trusted.
pub fn body(bytes: &[u8]) {
    let said = forward::refusal(StatusCode::BAD_GATEWAY, bytes);
    assert!(said.chars().count() < 400 && !said.contains(|c: char| c.is_control()));
    let _ = serde_json::from_slice::<miharu_api::CertificatesPost>(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = secrets::read_join_token(text);
    if let Some(der) = pem::decode(text) {
        assert_eq!(pem::decode(&pem::encode(&der)), Some(der));
    }
}

/// A certificate that a client shows in a handshake: its key is found in it, or it is refused.
pub fn shown(der: &[u8]) {
    let _ = verifier::has_key(&CertificateDer::from(der));
}

/// `server.ca` and `ca.crl`, or a server's certificate and key, divided by a zero byte where they are PEM.
pub fn authority(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let issuers = authority::authorities(first).unwrap_or_default();
    let known: Vec<&[u8]> = issuers.iter().map(|issuer| issuer.der.as_slice()).collect();
    for list in [second, bytes] {
        if let Ok(revoked) = Revoked::read(list, &known) {
            assert!(!known.is_empty(), "a list that nobody signed");
            assert!(!revoked.contains(b"nobody", b"1"));
        }
    }
    if let (Ok(certificate), Ok(key)) = (std::str::from_utf8(first), std::str::from_utf8(second)) {
        assert!(
            identity::check(certificate, key).is_ok_and(|der| !der.is_empty())
                || identity::check(certificate, "").is_err()
        );
    }
}

/// What a client of HTTP/2 sends behind its preface, in pieces as long as the first byte says: however it is cut, the same is found.
pub fn frames(bytes: &[u8]) {
    let Some((cut, sent)) = bytes.split_first() else { return };
    let now = tokio::time::Instant::now();
    let sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", sent].concat();
    let (mut whole, mut pieces) = (Frames::new(now), Frames::new(now));
    whole.wrote(usize::from(*cut) * 64);
    pieces.wrote(usize::from(*cut) * 64);
    let at_once = whole.read(&sent, now);
    let cut = sent.chunks(usize::from(*cut).max(1)).try_for_each(|piece| pieces.read(piece, now));
    assert!(at_once == cut && whole.is_partial() == pieces.is_partial(), "{at_once:?} {cut:?}");
}

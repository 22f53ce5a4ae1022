//! Asks another member of the cluster for its metrics, on behalf of somebody whose rights were found out here.
//!
//! Both members show their own `server.crt`. The other one trusts this one because the list of members says so, and is told
//! how far the rights of whoever asked go. It answers for itself alone, so there is no way round in a circle.

mod places;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use miharu_api::Envelope;
use miharu_store::Member;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::auth::MetricsRight;
use crate::respond::{Answer, ApiError};
use crate::tls::{Identity, MEMBER_NAME, member};
use crate::unread::{Gathering, Recipient};
use places::Places;

/// For whom a member asks: `*` for everything, else the projects, separated by commas. It counts from a member alone.
const RIGHTS: HeaderName = HeaderName::from_static("miharu-rights");
/// The scrape timeout that Prometheus tells.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// How long a connection may take to be made, at one address.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long the whole may take, when who asks has no less patience. A collection takes 4 s at most.
const LIMIT: Duration = Duration::from_secs(8);
/// What is kept of a scrape's patience for the way back.
const MARGIN: Duration = Duration::from_millis(500);
/// The longest answer: some hundred thousand series, or the words of an error.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

/// The way to the other members.
#[derive(Debug, Default)]
pub(crate) struct Forward {
    places: Places,
}

/// What is asked for, and for whom.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The path, and a query of which the projects are no part.
    pub(crate) path: &'a str,
    pub(crate) query: &'a [(&'a str, &'a str)],
    pub(crate) right: MetricsRight,
    pub(crate) projects: Option<BTreeSet<String>>,
    pub(crate) headers: &'a HeaderMap,
}

/// What a request says of the rights of whoever is behind it. What is not understood is none.
pub(crate) fn right_of(headers: &HeaderMap) -> MetricsRight {
    let mut values = headers.get_all(RIGHTS).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else { return MetricsRight::None };
    match value.to_str() {
        Ok("*") => MetricsRight::All,
        Ok(names) => {
            let names = names.split(',').filter(|name| !name.is_empty()).map(decoded);
            names.collect::<Option<BTreeSet<_>>>().map_or(MetricsRight::None, MetricsRight::Projects)
        }
        Err(_) => MetricsRight::None,
    }
}

fn right_to_text(right: &MetricsRight) -> Option<String> {
    match right {
        MetricsRight::All => Some("*".to_owned()),
        MetricsRight::Projects(names) => {
            Some(names.iter().map(|name| encoded(name)).collect::<Vec<_>>().join(","))
        }
        MetricsRight::None => None,
    }
}

/// Percent-encodes all but letters, digits, `-`, `.` and `_`.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        out.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(out).ok()
}

impl Forward {
    /// What this member tells of its instances: its metrics, or what they use.
    ///
    /// # Errors
    /// 503 with what went wrong when it cannot be reached, does not answer as it should, or too much is asked for at a time.
    pub(crate) async fn ask(
        &self,
        identity: &Identity,
        member: &Member,
        wanted: Wanted<'_>,
        recipient: &Recipient,
    ) -> Answer {
        let name = &member.name;
        let away = |reason: String| {
            let message = format!("the cluster member {name} cannot be asked: {reason}");
            tracing::debug!("{message}");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        };
        let busy = |reason: String| ApiError::busy(away(reason).message);
        let _place = self.places.take(name, recipient.counts_for()).map_err(busy)?;
        let gathering = recipient.gathers()?;
        let patience = patience(wanted.headers);
        match timeout(patience, exchange(identity, member, &wanted, patience, &gathering)).await {
            Ok(answer) => answer.map_err(away),
            Err(_) => Err(away(format!("it did not answer within {:.1} s", patience.as_secs_f64()))),
        }
    }
}

/// How long who asks waits, if that is less than the limit.
fn patience(headers: &HeaderMap) -> Duration {
    let told = headers.get(&SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let told = told.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
    told.map_or(LIMIT, |told| told.saturating_sub(MARGIN).clamp(MARGIN, LIMIT))
}

async fn exchange(
    identity: &Identity,
    member: &Member,
    wanted: &Wanted<'_>,
    patience: Duration,
    gathering: &Gathering,
) -> Result<Response, String> {
    let end = Instant::now() + patience;
    let stream = connect(identity, member).await?;
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the connection, which ends with its sender and the answer.
    let connection = tokio::spawn(connection);
    let left = end.saturating_duration_since(Instant::now()).saturating_sub(MARGIN / 2);
    let answer = async {
        let response = sender.send_request(request(wanted, left)?).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        Ok::<_, String>((head, gather(body, gathering).await?))
    };
    let answer = timeout_at(end, answer).await;
    connection.abort();
    let (head, body) = answer.map_err(|_| "it does not answer in time".to_owned())??;
    match head.status {
        StatusCode::OK => {}
        // It was asked, and understood: what it says of the question is the answer.
        status @ (StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::CONFLICT) => {
            return Ok(ApiError::new(status, said(&body)).into_response());
        }
        status => return Err(refusal(status, &body)),
    }
    let mut response = Response::new(Body::from(body));
    for name in [CONTENT_TYPE, CONTENT_ENCODING, VARY] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// The whole of an answer, counted while it grows.
async fn gather(body: Incoming, gathering: &Gathering) -> Result<Bytes, String> {
    let (mut body, mut gathered) = (Limited::new(body, ANSWER_LIMIT), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("its answer broke off: {error}"))?;
        let Ok(data) = frame.into_data() else { continue };
        gathering.grown(gathered.len() + data.len()).map_err(|full| full.to_string())?;
        gathered.extend_from_slice(&data);
    }
    gathered.shrink_to_fit();
    Ok(Bytes::from(gathered))
}

/// A connection to wherever it says that it is; somebody else may be there.
async fn connect(identity: &Identity, member: &Member) -> Result<TlsStream<TcpStream>, String> {
    let way = member::way_to(identity, member.certificate.der());
    let (config, server) = way.map_err(|error| format!("{error:#}"))?;
    let connector = TlsConnector::from(config);
    let mut words = Vec::new();
    for address in [&member.address, &member.metrics_address].into_iter().flatten() {
        let connecting = async {
            let stream = TcpStream::connect(address.as_str()).await?;
            // Requests are written whole: waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            connector.connect(server.clone(), stream).await
        };
        match timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => words.push(format!("{address}: {error}")),
            Err(_) => words.push(format!("{address}: no answer")),
        }
    }
    if words.is_empty() {
        return Err("it listens nowhere: set core.https_address or core.metrics_address there".to_owned());
    }
    Err(words.join("; "))
}

fn request(wanted: &Wanted<'_>, left: Duration) -> Result<Request<Empty<Bytes>>, String> {
    let mut path = wanted.path.to_owned();
    let projects = wanted.projects.iter().flatten().map(|project| ("project", project.as_str()));
    for (at, (name, value)) in projects.chain(wanted.query.iter().copied()).enumerate() {
        path.push(if at == 0 { '?' } else { '&' });
        path.push_str(name);
        path.push('=');
        path.push_str(&encoded(value));
    }
    let rights = right_to_text(&wanted.right).ok_or("who asks may read nothing")?;
    let mut request = Request::get(path).header(HOST, MEMBER_NAME).header(RIGHTS, rights);
    for name in [ACCEPT, ACCEPT_ENCODING] {
        for value in wanted.headers.get_all(&name) {
            request = request.header(&name, value);
        }
    }
    let left =
        HeaderValue::from_str(&format!("{:.3}", left.as_secs_f64())).map_err(|error| error.to_string())?;
    request.header(SCRAPE_TIMEOUT, left).body(Empty::new()).map_err(|error| error.to_string())
}

/// The words of an error.
fn said(body: &[u8]) -> String {
    let said = serde_json::from_slice::<Envelope<serde_json::Value>>(body).map(|envelope| envelope.error);
    said.unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect()
}

/// What a member said instead of an answer.
pub(crate) fn refusal(status: StatusCode, body: &[u8]) -> String {
    match status {
        StatusCode::FORBIDDEN => {
            "it does not take this server for a member: is one of the two out of step?".to_owned()
        }
        status => format!("it answered {status}: {}", said(body)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::unread::tests::connected;

    #[test]
    fn rights_are_passed_on_as_they_are_and_nothing_is_none() {
        let names =
            |names: &[&str]| MetricsRight::Projects(names.iter().map(|name| (*name).to_owned()).collect());
        for right in [MetricsRight::All, names(&[]), names(&["*", "a,b", "docker/shop", "é %"])] {
            let text = right_to_text(&right).unwrap();
            assert_eq!(right_of(&HeaderMap::from_iter([(RIGHTS, text.parse().unwrap())])), right);
        }
        assert_eq!(right_to_text(&MetricsRight::None), None);
        assert_eq!(right_of(&HeaderMap::new()), MetricsRight::None);
        let mut twice = HeaderMap::new();
        twice.append(RIGHTS, HeaderValue::from_static("a"));
        twice.append(RIGHTS, HeaderValue::from_static("*"));
        assert_eq!(right_of(&twice), MetricsRight::None);
        for wrong in ["%", "%zz", "a,%4", "%FF"] {
            let headers = HeaderMap::from_iter([(RIGHTS, wrong.parse().unwrap())]);
            assert_eq!(right_of(&headers), MetricsRight::None, "{wrong}");
        }
    }

    #[test]
    fn patience_is_that_of_who_asks_within_the_limit() {
        let of = |text: &str| patience(&HeaderMap::from_iter([(SCRAPE_TIMEOUT, text.parse().unwrap())]));
        assert_eq!(of("5"), Duration::from_millis(4500));
        assert_eq!((of("60"), of("x"), of("-1"), of("nan")), (LIMIT, LIMIT, LIMIT, LIMIT));
        assert_eq!(of("0.1"), MARGIN);
        assert_eq!(patience(&HeaderMap::new()), LIMIT);
    }

    /// A member that takes connections at this address and says nothing.
    fn member(name: &str, address: String) -> Member {
        let der = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap().cert.der().clone();
        Member {
            name: name.to_owned(),
            id: name.to_owned(),
            certificate: miharu_store::ParsedCertificate::parse(&der).unwrap(),
            joined_at: 0,
            address: Some(address),
            metrics_address: None,
        }
    }

    #[tokio::test]
    async fn who_asks_a_member_that_is_silent_waits_for_a_few_and_holds_up_no_other_member() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path(), || vec!["host".to_owned()]).unwrap();
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (silent, other) = (listen(), listen());
        let address = |listener: &std::net::TcpListener| listener.local_addr().unwrap().to_string();
        let (silent_one, other_one) = (member("silent", address(&silent)), member("other", address(&other)));
        let forward = Forward::default();
        let headers = HeaderMap::from_iter([(SCRAPE_TIMEOUT, HeaderValue::from_static("1.5"))]);
        let unread = std::sync::Arc::default();
        let (client, free) = (connected(&unread, 1), Recipient::of(&unread, &http::Extensions::new()));
        let ask = |member, recipient| {
            let wanted =
                Wanted { path: "/", query: &[], right: MetricsRight::All, projects: None, headers: &headers };
            forward.ask(&identity, member, wanted, recipient)
        };
        for (who, refused, words) in [
            (&client, 36, "4 requests of yours to it are under way already"),
            (&free, 24, "16 requests to it are under way already"),
        ] {
            let begin = Instant::now();
            let asks = (0..40).map(|_| ask(&silent_one, who)).chain([ask(&other_one, who)]);
            let asked = futures_util::future::join_all(asks).await;
            let answers: Vec<String> = asked.into_iter().map(|answer| answer.unwrap_err().message).collect();
            assert_eq!(answers.iter().filter(|text| text.contains(words)).count(), refused, "{answers:?}");
            assert!(answers.last().unwrap().contains("did not answer within 1.0 s"), "{answers:?}");
            assert!(begin.elapsed() >= Duration::from_secs(1));
        }
    }

    proptest! {
        #[test]
        fn every_name_survives(name in any::<String>()) {
            let text = encoded(&name);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','));
            prop_assert_eq!(decoded(&text), Some(name));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = decoded(&text);
        }
    }
}

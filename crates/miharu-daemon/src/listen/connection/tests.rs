//! Tests of what a connection is given time for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use arc_swap::ArcSwap;
use axum::routing::get;
use miharu_store::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::super::gate::{Gate, Limits, Source};
use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET /` on `https://h`, by the static table of RFC 7541, and the same for `/x`.
const GET: &[u8] = &[0x82, 0x87, 0x84, 0x01, 1, b'h'];
const GET_SHORT: &[u8] = &[0x82, 0x87, 0x04, 2, b'/', b'x', 0x01, 1, b'h'];
const GOAWAY: u8 = 7;

/// A stranger's connection to a server that has a long answer and a short one.
fn connect(
    protocol: Protocol,
    requests_per_second: &str,
) -> (DuplexStream, JoinHandle<()>, watch::Sender<bool>) {
    let keys = BTreeMap::from([("core.requests_per_second".to_owned(), requests_per_second.to_owned())]);
    let limits = Limits::of(&Config::replace(&keys).unwrap().settings());
    let ticket = Gate::new(Arc::new(ArcSwap::from_pointee(limits)))
        .admit(Source::V4(Ipv4Addr::new(192, 0, 2, 1)))
        .unwrap();
    let router =
        Router::new().route("/", get(|| async { vec![b'a'; 1 << 20] })).route("/x", get(|| async { "x" }));
    let (stop, stopped) = watch::channel(false);
    let server = Server { router, stop: stopped, permits: Arc::new(Semaphore::new(1)) };
    let (client, stream) = tokio::io::duplex(16 * 1024);
    let peer = Peer { entrance: Entrance::Metrics, certificate: None };
    let serving = tokio::spawn(server.serve(Accepted { stream, peer, protocol, ticket }));
    (client, serving, stop)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn ask(stream: u32, head: &[u8]) -> Vec<u8> {
    frame(1, 5, stream, head)
}

/// Reads whatever there is until the server ends the connection.
async fn all(mut client: DuplexStream) -> Vec<u8> {
    let mut read = Vec::new();
    let _ = client.read_to_end(&mut read).await;
    read
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_http2_has_a_minute_whatever_else_is_asked_and_read() {
    let (client, serving, _stop) = connect(Protocol::Http2, "10000");
    let begin = Instant::now();
    let (mut read, mut write) = tokio::io::split(client);
    let reader = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while !matches!(read.read(&mut buffer).await, Ok(0) | Err(_)) {}
    });
    // Of each answer two bytes may be sent: the long one stays, and the short ones go.
    write.write_all(PREFACE).await.unwrap();
    write.write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 2])).await.unwrap();
    write.write_all(&ask(1, GET)).await.unwrap();
    let mut stream = 3;
    while !serving.is_finished() && begin.elapsed() < 3 * super::super::activity::ANSWER_LIMIT {
        let _ = write.write_all(&ask(stream, GET_SHORT)).await;
        stream += 2;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let took = begin.elapsed().as_secs();
    assert!((59..=62).contains(&took), "{took} s, {stream}");
    reader.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_leaves_the_connection_as_long_as_it_asks() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (client, serving, _stop) = connect(protocol, "10000");
        let (mut read, mut write) = tokio::io::split(client);
        let reader = tokio::spawn(async move {
            let (mut buffer, mut total) = ([0; 4096], 0);
            while let Ok(more @ 1..) = read.read(&mut buffer).await {
                total += more;
            }
            total
        });
        if protocol == Protocol::Http2 {
            write.write_all(PREFACE).await.unwrap();
            // Windows for all that there is to come.
            write.write_all(&frame(4, 0, 0, &[0, 4, 0, 0xff, 0xff, 0xff])).await.unwrap();
            write.write_all(&frame(8, 0, 0, &0x3fff_ffff_u32.to_be_bytes())).await.unwrap();
        }
        for number in 0..9 {
            let request = match protocol {
                Protocol::Http1 => b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
                Protocol::Http2 => ask(2 * number + 1, GET),
            };
            write.write_all(&request).await.unwrap();
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert!(!serving.is_finished(), "{protocol:?} {number}");
        }
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert!(serving.is_finished(), "{protocol:?}: idle");
        let total = reader.await.unwrap();
        assert!(total > 9 << 20, "{protocol:?}: {total}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_asking_too_often_has_to_connect_anew() {
    let (mut client, serving, _stop) = connect(Protocol::Http1, "10");
    client.write_all(&b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n".repeat(200)).await.unwrap();
    let answers = String::from_utf8(all(client).await).unwrap();
    serving.await.unwrap();
    let count = |text: &str| answers.matches(text).count();
    assert_eq!((count("HTTP/1.1 200"), count("HTTP/1.1 429")), (10, 20), "{answers}");
    assert_eq!(count("connection: close"), 1);

    let (client, serving, _stop) = connect(Protocol::Http2, "10");
    let begin = Instant::now();
    let (mut read, mut write) = tokio::io::split(client);
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        let _ = read.read_to_end(&mut all).await;
        all
    });
    write.write_all(PREFACE).await.unwrap();
    write.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    for number in 0..10_000 {
        if write.write_all(&ask(2 * number + 1, GET_SHORT)).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    serving.await.unwrap();
    assert!(begin.elapsed() < LAST_WORDS + Duration::from_secs(2), "{:?}", begin.elapsed());
    let sent = reader.await.unwrap();
    let (mut rest, mut kinds) = (sent.as_slice(), Vec::new());
    while let [high, middle, low, kind, ..] = *rest {
        kinds.push(kind);
        let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap();
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn who_asks_a_little_too_often_stays() {
    let (client, serving, _stop) = connect(Protocol::Http1, "10");
    let (mut read, mut write) = tokio::io::split(client);
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        let _ = read.read_to_end(&mut all).await;
        String::from_utf8(all).unwrap()
    });
    // 12 a second, of which 10 are answered.
    for _ in 0..120 {
        write.write_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(83)).await;
    }
    assert!(!serving.is_finished());
    tokio::time::sleep(Duration::from_secs(31)).await;
    let answers = reader.await.unwrap();
    assert!(answers.matches("HTTP/1.1 429").count() > 5, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 0);
}

//! Floods of HTTP/2 frames, written by hand: no library would send them.

use std::time::Duration;

use anyhow::{Result, ensure};
use miharu_e2e::need;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{Rig, builder, config, source, tls};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Settings that set nothing.
pub(crate) const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// `GET /` on `https://localhost`, by the static table of RFC 7541.
const GET: &[u8] = &[0x82, 0x87, 0x84, 0x01, 9, b'l', b'o', b'c', b'a', b'l', b'h', b'o', b's', b't'];
/// The same for `/1.0/metrics`.
const GET_METRICS: &[u8] = &[
    0x82, 0x87, 0x04, 12, b'/', b'1', b'.', b'0', b'/', b'm', b'e', b't', b'r', b'i', b'c', b's', 0x01, 1,
    b'h',
];
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame, RFC 9113 section 4.1.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The stream's number of the request of this number.
pub(crate) fn stream(number: u32) -> u32 {
    2 * number + 1
}

/// Frames without end: those of each round by its number.
type Flood = fn(u32) -> Vec<u8>;

const FLOODS: [(&str, Flood); 11] = [
    ("rapid reset", |number| {
        let head = frame(1, END_HEADERS | END_STREAM, stream(number), GET);
        [head, frame(3, 0, stream(number), &8_u32.to_be_bytes())].concat()
    }),
    ("requests beyond their rate", |number| frame(1, END_HEADERS | END_STREAM, stream(number), GET)),
    ("settings", |_| SETTINGS.to_vec()),
    ("settings of a table", |number| {
        frame(4, 0, 0, &[&[0, 1][..], &(number % 2 * 4096).to_be_bytes()].concat())
    }),
    ("ping", |number| frame(6, 0, 0, &u64::from(number).to_be_bytes())),
    ("priority", |number| frame(2, 0, stream(number % 1000), &[0, 0, 0, 0, 7])),
    ("window updates", |_| frame(8, 0, 0, &1_u32.to_be_bytes())),
    ("a head without end", |number| match number {
        0 => frame(1, END_STREAM, 1, GET),
        _ => frame(9, 0, 1, &[0x00, 1, b'x', 1, b'y'].repeat(100)),
    }),
    ("a head of nothing without end", |number| match number {
        0 => frame(1, END_STREAM, 1, GET),
        _ => frame(9, 0, 1, b""),
    }),
    ("empty data", |number| match number {
        0 => frame(1, END_HEADERS, 1, GET),
        _ => frame(0, 0, 1, b""),
    }),
    ("frames of a kind that nobody knows", |_| frame(77, 0, 0, &[0; 64])),
];

/// Sends a flood until the server ends the connection; the number of rounds until then. What the server says is read or not.
async fn flood(rig: &Rig, from: usize, flood: Flood, reads: bool) -> Result<u32> {
    let stream = tls(source(from), rig.address, &config("h2")).await?;
    let (mut read, mut write) = tokio::io::split(stream);
    write.write_all(PREFACE).await?;
    write.write_all(&SETTINGS).await?;
    let reader = tokio::spawn(async move {
        let mut buffer = [0; 16 * 1024];
        while reads && !matches!(read.read(&mut buffer).await, Ok(0) | Err(_)) {}
        // Kept open by who does not read.
        if !reads { Some(read) } else { None }
    });
    let sending = async {
        let mut number = 0;
        loop {
            let rounds: Vec<u8> = (number..number + 20).flat_map(flood).collect();
            if write.write_all(&rounds).await.is_err() || write.flush().await.is_err() {
                return number;
            }
            number += 20;
            tokio::task::yield_now().await;
        }
    };
    let sent = tokio::time::timeout(Duration::from_secs(10), sending).await;
    reader.abort();
    sent.map_err(|_| anyhow::anyhow!("the connection is open after 10 s"))
}

#[test]
fn floods_end_the_connection_that_they_come_by() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    let (rounds, cost) = rig.under(async {
        let mut rounds = Vec::new();
        for (at, (what, frames)) in FLOODS.into_iter().enumerate() {
            for reads in [true, false] {
                let sent = flood(&rig, at, frames, reads).await.map_err(|error| error.context(what))?;
                rounds.push((what, reads, sent));
            }
        }
        Ok(rounds)
    })?;
    println!("{rounds:?}");
    assert!(cost.memory < 32 << 20, "{cost:?}");
    rig.settles()
}

#[test]
fn windows_of_one_byte_and_thousands_of_requests_cost_a_bounded_amount_of_memory() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    let (certificate, key) = rig.trusted()?;
    let mut config = builder().with_client_auth_cert(certificate, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = std::sync::Arc::new(config);
    let ((), cost) = rig.under(async {
        let mut open = Vec::new();
        for number in 0..50 {
            let mut stream = tls(source(number), rig.address, &config).await?;
            stream.write_all(PREFACE).await?;
            // SETTINGS_INITIAL_WINDOW_SIZE is 1: of each answer one byte may be sent.
            stream.write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 1])).await?;
            let asks: Vec<u8> = (0..64)
                .flat_map(|ask| frame(1, END_HEADERS | END_STREAM, self::stream(ask), GET_METRICS))
                .collect();
            stream.write_all(&asks).await?;
            open.push(stream);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut answer = [0; 64];
        for stream in &mut open {
            ensure!(stream.read(&mut answer).await? > 0, "no answer at all");
        }
        Ok(())
    })?;
    assert!(cost.memory < 64 << 20, "{cost:?}");
    rig.settles()
}

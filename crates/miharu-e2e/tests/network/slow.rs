//! Those who take their time: with the handshake, with the head of a request, with reading the answer.

use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::need;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::http2;
use crate::rig::{Rig, builder, config, run, source, tcp, tls, until_closed};

/// The first bytes of a ClientHello that goes on for 500 more.
const HALF_HELLO: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 252];

/// Sends something byte by byte until the server ends the connection.
async fn drip(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, byte: u8) -> Result<Duration> {
    let begin = std::time::Instant::now();
    let mut buffer = [0; 4096];
    loop {
        anyhow::ensure!(begin.elapsed() < Duration::from_secs(20), "open after 20 s");
        tokio::select! {
            read = stream.read(&mut buffer) => if matches!(read, Ok(0) | Err(_)) { return Ok(begin.elapsed()) },
            () = tokio::time::sleep(Duration::from_millis(300)) => {
                if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                    return Ok(begin.elapsed());
                }
            }
        }
    }
}

#[test]
fn slow_handshakes_are_ended_after_three_seconds_and_keep_nobody_out() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    let (ended, cost) = rig.under(async {
        let mut open = JoinSet::new();
        for number in 0..2000 {
            let address = rig.address;
            open.spawn(async move {
                let mut stream = tcp(source(number % 100), address).await?;
                stream.write_all(&HALF_HELLO).await?;
                drip(stream, 0).await
            });
            if number % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let mut times = Vec::new();
        while let Some(ended) = open.join_next().await {
            // An address that has used up its rate is reset at once.
            times.extend(ended?.ok());
        }
        Ok(times)
    })?;
    let slowest = ended.iter().max().context("no handshake was begun")?;
    assert!(*slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(cost.memory < 64 << 20, "{cost:?}");
    rig.settles()
}

#[test]
fn a_head_has_three_seconds_in_both_protocols() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    let (times, _) = rig.under(async {
        let mut open = JoinSet::new();
        for (at, alpn) in ["http/1.1", "h2", "h2", "h2"].into_iter().enumerate() {
            for number in 0..20 {
                let (address, config) = (rig.address, config(alpn));
                open.spawn(async move {
                    let mut stream = tls(source(number), address, &config).await?;
                    let begun = match at {
                        0 => b"GET /1.0 HTTP/1.1\r\nHost: h\r\nX: ".to_vec(),
                        // The preface alone, a head without its end, and the first byte of a frame.
                        1 => http2::PREFACE[..10].to_vec(),
                        2 => [http2::PREFACE, &http2::SETTINGS, &http2::frame(1, 0, 1, &[0x82])].concat(),
                        _ => [http2::PREFACE, &http2::SETTINGS, &[0, 0, 200]].concat(),
                    };
                    stream.write_all(&begun).await?;
                    let took = if at == 0 {
                        drip(stream, b'a').await?
                    } else {
                        until_closed(&mut stream, Duration::from_secs(10)).await?
                    };
                    Ok::<_, anyhow::Error>((at, took))
                });
            }
        }
        let mut times = Vec::new();
        while let Some(ended) = open.join_next().await {
            times.push(ended??);
        }
        Ok(times)
    })?;
    assert_eq!(times.len(), 80);
    for (kind, took) in times {
        assert!(took < miharu_e2e::shell::patient(Duration::from_secs(10)), "{kind}: {took:?}");
    }
    rig.settles()
}

#[test]
fn who_does_not_read_its_answers_costs_a_bounded_amount_of_memory() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    let (certificate, key) = rig.trusted()?;
    let mut config = builder().with_client_auth_cert(certificate, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = std::sync::Arc::new(config);
    let ((), cost) = rig.under(async {
        let mut open = Vec::new();
        for number in 0..100 {
            let mut stream = tls(source(number), rig.address, &config).await?;
            // Far more answers than any buffer holds.
            let asks = b"GET /1.0/metrics HTTP/1.1\r\nHost: h\r\n\r\n".repeat(200);
            let _ = tokio::time::timeout(Duration::from_millis(50), stream.write_all(&asks)).await;
            open.push(stream);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        drop(open);
        Ok(())
    })?;
    assert!(cost.memory < 64 << 20, "{cost:?}");
    rig.settles()
}

#[test]
fn huge_heads_and_many_headers_are_refused() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    let ask = |head: Vec<u8>| {
        run(async {
            let mut stream = tls(source(1), rig.address, &config("http/1.1")).await?;
            // It may be refused, and closed, before all of it was sent.
            let _ = stream.write_all(&head).await;
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await?;
            Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
        })
    };
    let with = |headers: String| {
        format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n").into_bytes()
    };
    assert!(ask(with(String::new()))?.contains(" 200"));
    for (what, head) in [
        ("one of 100 kB", with(format!("X: {}\r\n", "x".repeat(100_000)))),
        ("one of 10 MB", with(format!("X: {}\r\n", "x".repeat(10_000_000)))),
        ("1,000", with("X: x\r\n".repeat(1000))),
        ("100,000", with("X: x\r\n".repeat(100_000))),
        ("a target of 1 MB", format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(1 << 20)).into_bytes()),
        ("a body of chunks without end", [
            b"POST /1.0/certificates HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".to_vec(),
            b"1;x=y\r\n{\r\n".repeat(2 << 20),
        ].concat()),
        ("two lengths", with("Content-Length: 1\r\nContent-Length: 2\r\n".to_owned())),
        ("a length beyond all", with("Content-Length: 99999999999999999999999\r\n".to_owned())),
        ("no name", with(": x\r\n".to_owned())),
        ("nothing but zeroes", vec![0; 100_000]),
    ] {
        let answer = ask(head)?;
        assert!(answer.is_empty() || answer.contains(" 4"), "{what}: {answer}");
    }
    let ((), cost) = rig.under(async {
        for number in 0..200 {
            let mut stream = tls(source(number % 20), rig.address, &config("http/1.1")).await?;
            let _ = stream.write_all(&with(format!("X: {}\r\n", "x".repeat(1 << 20)))).await;
        }
        Ok(())
    })?;
    assert!(cost.memory < 32 << 20, "{cost:?}");
    rig.settles()
}

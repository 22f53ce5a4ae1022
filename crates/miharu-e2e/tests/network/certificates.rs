//! Certificates of every kind that a client may show.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::tls::{self, Certificate};
use miharu_e2e::{need, scratch, shell};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{self, Rig, builder, run, source};

/// Shows a certificate whatever the server asks for, fitting or not.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn key(pair: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(pair.serialize_der()).into()
}

/// The first line of the answer for metrics to whoever shows these; an error where the handshake fails.
fn ask(
    rig: &Rig,
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
    from: usize,
) -> Result<String> {
    let certified = CertifiedKey::new(chain, any_supported_type(key)?);
    let mut config = builder().with_client_cert_resolver(Arc::new(Shows(Arc::new(certified))));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    run(async {
        let mut stream = rig::tls(source(from), rig.address, &Arc::new(config)).await?;
        stream.write_all(b"GET /1.0/metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        tokio::time::timeout(shell::patient(Duration::from_secs(10)), stream.read_to_end(&mut answer))
            .await??;
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer.lines().next().context("no answer")?.to_owned())
    })
}

fn params() -> CertificateParams {
    CertificateParams::new(vec!["attacker.example".to_owned()]).expect("a name")
}

/// A certificate of more than so many bytes: its name, which stands in it twice, is that long.
fn long(pair: &KeyPair, bytes: usize) -> Result<CertificateDer<'static>> {
    let mut params = params();
    params.distinguished_name.push(DnType::CommonName, "x".repeat(bytes / 2));
    Ok(params.self_signed(pair)?.der().clone())
}

#[test]
fn keys_of_every_kind_get_an_answer_or_an_end() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    let dir = scratch::dir("keys")?;
    for (name, key, good) in [
        ("rsa2048", "rsa:2048", true),
        ("rsa4096", "rsa:4096", true),
        ("rsa1024", "rsa:1024", false),
        ("p521", "ec -pkeyopt ec_paramgen_curve:secp521r1", false),
        ("k256", "ec -pkeyopt ec_paramgen_curve:secp256k1", false),
        ("ed448", "ed448", false),
        ("pss", "rsa-pss -pkeyopt rsa_keygen_bits:2048", false),
    ] {
        let line = format!(
            "openssl req -x509 -newkey {key} -nodes -keyout {name}.key -out {name}.crt -days 9 -subj /CN=x"
        );
        shell::output(std::process::Command::new("/bin/sh").args(["-c", &line]).current_dir(&dir))?;
        let client =
            Certificate { crt: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        let server = rig.daemon.dir.join("server.crt");
        let reply = tls::ask(&rig.address.to_string(), "/1.0/metrics", &server, Some(&client), &[]);
        match reply {
            Ok(reply) => ensure!(reply.status == 403, "{name}: {}", reply.status),
            Err(error) => ensure!(!good, "{name}: {error:#}"),
        }
    }
    rig.scraper()?.get("/1.0/metrics", &[])?;
    rig.settles()
}

#[test]
fn certificates_of_every_kind_open_nothing_and_break_nothing() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    let pair = KeyPair::generate()?;
    let good = params().self_signed(&pair)?.der().clone();
    let other = KeyPair::generate()?;

    // Well-formed ones get an answer, and it is no.
    let mut strangers = vec![("a stranger's", good.clone())];
    for (what, from, to) in
        [("expired", 2000, 2001), ("not yet valid", 2090, 2095), ("ends before it begins", 2050, 2001)]
    {
        let mut params = params();
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
        strangers.push((what, params.self_signed(&pair)?.der().clone()));
    }
    strangers.push(("of 60 kB", long(&pair, 60_000)?));
    for (at, (what, certificate)) in strangers.into_iter().enumerate() {
        let answer = ask(&rig, vec![certificate], &key(&pair), at)?;
        ensure!(answer == "HTTP/1.1 403 Forbidden", "{what}: {answer}");
    }
    for (at, algorithm) in
        [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384]
            .into_iter()
            .enumerate()
    {
        let pair = KeyPair::generate_for(algorithm)?;
        let answer = ask(&rig, vec![params().self_signed(&pair)?.der().clone()], &key(&pair), 20 + at)?;
        ensure!(answer == "HTTP/1.1 403 Forbidden", "{algorithm:?}: {answer}");
    }
    let chain: Vec<_> = std::iter::repeat_n(good.clone(), 100).collect();
    ensure!(ask(&rig, chain, &key(&pair), 30)? == "HTTP/1.1 403 Forbidden", "a chain of 100");

    // Others fail the handshake.
    let mut cases = vec![
        ("somebody else's key", good.clone(), key(&other)),
        ("of 1 MB", long(&pair, 1 << 20)?, key(&pair)),
        ("empty", CertificateDer::from(Vec::new()), key(&pair)),
        ("no DER", CertificateDer::from(b"-----BEGIN CERTIFICATE-----".to_vec()), key(&pair)),
        ("cut short", CertificateDer::from(good[..good.len() / 2].to_vec()), key(&pair)),
        (
            "a length without an end",
            CertificateDer::from(vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
            key(&pair),
        ),
        ("nested deeply", CertificateDer::from([0x30, 0x80].repeat(20_000)), key(&pair)),
    ];
    let trusted = rig.trusted()?.0.remove(0);
    cases.push(("the trusted one without its key", trusted, key(&pair)));
    for (at, (what, certificate, key)) in cases.into_iter().enumerate() {
        let answer = ask(&rig, vec![certificate], &key, 40 + at);
        ensure!(answer.is_err(), "{what}: {answer:?}");
    }

    // One byte after the other is another one.
    let mut answered = 0;
    let ((), cost) = rig.under(async {
        for at in (0..good.len()).step_by(7) {
            let mut broken = good.to_vec();
            broken[at] ^= 0x5a;
            let (rig, pair) = (&rig, &pair);
            let answer = std::thread::scope(|scope| {
                scope
                    .spawn(|| ask(rig, vec![CertificateDer::from(broken)], &key(pair), 100 + at))
                    .join()
                    .expect("no panic")
            });
            if let Ok(answer) = answer {
                ensure!(answer == "HTTP/1.1 403 Forbidden", "byte {at}: {answer}");
                answered += 1;
            }
        }
        Ok(())
    })?;
    println!("with a broken byte: {answered} answered with 403");
    ensure!(cost.memory < 32 << 20, "{cost:?}");
    ensure!(!rig.daemon.log().contains("panicked"), "{}", rig.daemon.log());
    rig.settles()
}

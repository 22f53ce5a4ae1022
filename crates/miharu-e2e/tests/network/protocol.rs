//! Which protocols, ciphers, groups and features a client can have, asked for one by one with openssl: what testssl.sh looks at.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::{need, shell};

use crate::rig::Rig;

const TLS13: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
const TLS12: [&str; 3] =
    ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];

/// What `openssl s_client` says of a connection with these arguments, and whether there was one.
fn client(rig: &Rig, args: &[&str]) -> Result<(bool, String)> {
    // At security level 0 the client itself refuses nothing, so that it is the server that does.
    let level = if args.contains(&"-cipher") { &[][..] } else { &["-cipher", "ALL:@SECLEVEL=0"] };
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &rig.address.to_string(), "-servername", "localhost"])
        .args(level)
        .args(args)
        .stdin(Stdio::null())
        .output()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let connected = text.contains("New, TLSv")
        && !text.contains("Cipher is (NONE)")
        && !text.contains("no peer certificate");
    Ok((connected, text))
}

fn refused(rig: &Rig, args: &[&str]) -> Result<()> {
    let (connected, text) = client(rig, args)?;
    ensure!(!connected, "{args:?} is taken: {text}");
    Ok(())
}

fn taken(rig: &Rig, args: &[&str], words: &[&str]) -> Result<String> {
    let (connected, text) = client(rig, args)?;
    ensure!(connected, "{args:?} is refused: {text}");
    for word in words {
        ensure!(text.contains(word), "{args:?} without {word}: {text}");
    }
    Ok(text)
}

#[test]
fn only_modern_protocols_ciphers_and_groups_are_spoken() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    rig.daemon.miharu(&["config", "set", "core.handshakes_per_address", "1000"])?;
    let text = taken(&rig, &["-tls1_3", "-alpn", "h2,http/1.1"], &["ALPN protocol: h2", "TLSv1.3"])?;
    ensure!(text.contains("Compression: NONE") || text.contains("No compression"), "{text}");
    for suite in TLS13 {
        taken(&rig, &["-tls1_3", "-ciphersuites", suite], &[suite])?;
    }
    refused(&rig, &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256"])?;
    for group in ["X25519", "P-256", "P-384"] {
        taken(&rig, &["-tls1_3", "-groups", group], &[])?;
    }
    for group in ["P-521", "X448", "ffdhe2048", "ffdhe8192"] {
        refused(&rig, &["-tls1_3", "-groups", group])?;
    }
    // By default nothing older; the client is told so by an alert, not by silence.
    for version in ["-tls1_2", "-tls1_1", "-tls1"] {
        refused(&rig, &[version])?;
    }
    let (_, text) = client(&rig, &["-tls1_2"])?;
    ensure!(text.contains("protocol version"), "{text}");
    refused(&rig, &["-alpn", "smtp"])?;
    Ok(())
}

#[test]
fn tls_1_2_has_only_what_is_still_good_and_no_way_down_to_it() -> Result<()> {
    need!(Tls);
    let rig = Rig::start()?;
    rig.daemon.miharu(&[
        "config",
        "set",
        "core.tls_minimum_version=1.2",
        "core.handshakes_per_address=1000",
    ])?;
    taken(&rig, &[], &["TLSv1.3"])?;
    let text = taken(&rig, &["-tls1_2"], &["TLSv1.2", "Secure Renegotiation IS supported"])?;
    ensure!(text.contains("Extended master secret: yes"), "{text}");
    for version in ["-tls1_1", "-tls1"] {
        refused(&rig, &[version])?;
    }
    let listed = shell::run("openssl", ["ciphers", "-tls1_2", "-s", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"])?;
    let mut asked = 0;
    for cipher in listed.trim().split(':').filter(|name| !name.starts_with("TLS_")) {
        let args = ["-tls1_2", "-cipher", &format!("{cipher}:@SECLEVEL=0")];
        match TLS12.contains(&cipher) {
            true => drop(taken(&rig, &args, &[cipher])?),
            false => refused(&rig, &args)?,
        }
        asked += 1;
    }
    ensure!(asked > 50, "openssl knows only {asked} ciphers: {listed}");
    // Who asks for another handshake on the same connection gets none, and the log does not say so each time.
    let mut session = Command::new("openssl")
        .args(["s_client", "-connect", &rig.address.to_string(), "-tls1_2", "-msg"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It takes an R at the beginning of what it reads for a command; before it is connected it reads nothing.
    std::thread::sleep(shell::patient(Duration::from_secs(1)));
    std::io::Write::write_all(session.stdin.as_mut().context("stdin")?, b"R\n")?;
    std::thread::sleep(Duration::from_secs(1));
    drop(session.stdin.take());
    let output = session.wait_with_output()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(text.contains("RENEGOTIATING"), "{text}");
    ensure!(text.matches(", ServerHello\n").count() == 1, "{text}");
    ensure!(!rig.daemon.log().contains("NoRenegotiation"), "{}", rig.daemon.log());
    // Who could have had TLS 1.3 and was talked out of it finds that in the server's random, RFC 8446 section 4.1.3.
    let (_, text) = client(&rig, &["-tls1_2", "-msg"])?;
    let hello = text.split("ServerHello").nth(1).context("no ServerHello")?;
    let bytes: String = hello.split("<<<").next().unwrap_or_default().split_whitespace().collect();
    ensure!(bytes.contains("444f574e47524401"), "no sentinel: {hello}");
    Ok(())
}

//! One certificate for all: served by every member on every listener, and renewed without a restart.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use miharu_e2e::cluster::{Cluster, SOON};
use miharu_e2e::tls::Certificate;
use miharu_e2e::{need, scratch, shell};

#[test]
fn a_new_certificate_reaches_every_listener_of_every_member_without_a_restart() -> Result<()> {
    need!(Containers, Etcd, Tls);
    let cluster = Cluster::start()?;
    let client = Certificate::create("metrics")?;
    let crt = client.crt.to_str().context("path")?;
    cluster.first().miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    cluster.becomes(&client, &[200, 200, 200])?;
    let first = fs::read_to_string(cluster.first().dir.join("cluster.crt"))?;
    let text = names(&cluster.first().dir.join("cluster.crt"))?;
    assert!(text.contains("DNS:abydos"), "{text}");
    for member in &cluster.members {
        assert_eq!(fs::read_to_string(member.dir.join("cluster.crt"))?, first, "{}", member.name);
        let key = fs::metadata(member.dir.join("cluster.key"))?;
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&key) & 0o777, 0o600, "{}", member.name);
        for address in [member.https_address(), member.metrics_address()] {
            assert_eq!(cluster.ask(&address, "/1.0/metrics", Some(&client), &[])?.status, 200, "{address}");
        }
    }
    let pids: Vec<_> =
        cluster.members.iter().map(|member| Ok(member.daemon()?.pid())).collect::<Result<_>>()?;

    let dir = scratch::dir("tls")?;
    let line = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout new.key -out new.crt -days 30 \
                -subj /CN=hdc -addext subjectAltName=DNS:abydos,DNS:langara,DNS:orilla";
    shell::output(Command::new("/bin/sh").args(["-c", line]).current_dir(&dir))?;
    let (new, key) = (dir.join("new.crt"), dir.join("new.key"));
    let rubbish = cluster.members[1].miharu(&[
        "cluster",
        "update-certificate",
        key.to_str().context("path")?,
        key.to_str().context("path")?,
    ]);
    assert!(rubbish.is_err(), "a key was taken for a certificate");
    cluster.members[1].miharu(&[
        "cluster",
        "update-certificate",
        new.to_str().context("path")?,
        key.to_str().context("path")?,
    ])?;
    let fingerprint = Certificate { crt: new, key }.fingerprint()?;
    for member in &cluster.members {
        for address in [member.https_address(), member.metrics_address()] {
            shell::wait_for(&address, SOON, || {
                let shown = cluster
                    .outside
                    .command("sh")
                    .args(["-c", "openssl s_client -connect \"$0\" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"])
                    .arg(&address)
                    .output()
                    .ok()?;
                let shown = String::from_utf8_lossy(&shown.stdout).replace(':', "").to_lowercase();
                shown.trim().ends_with(&fingerprint).then_some(())
            })?;
        }
    }
    let now: Vec<_> =
        cluster.members.iter().map(|member| Ok(member.daemon()?.pid())).collect::<Result<_>>()?;
    assert_eq!(now, pids);
    cluster.becomes(&client, &[200, 200, 200])?;

    // One that miharu makes is for all members that there are, and for every name that the last one had.
    cluster.members[2].miharu(&["cluster", "update-certificate"])?;
    for member in &cluster.members {
        shell::wait_for("a certificate for all members", SOON, || {
            let text = names(&member.dir.join("cluster.crt")).ok()?;
            let all = cluster.members.iter().all(|of| {
                text.contains(&format!("DNS:{}", of.name))
                    && text.contains(&format!("IP Address:{}", of.host.address))
            });
            all.then_some(())
        })?;
    }
    cluster.becomes(&client, &[200, 200, 200])?;
    Ok(())
}

/// The names that a certificate is for.
fn names(certificate: &Path) -> Result<String> {
    let args = ["x509", "-noout", "-ext", "subjectAltName", "-in"].map(std::ffi::OsStr::new);
    shell::run("openssl", args.into_iter().chain([certificate.as_os_str()]))
}

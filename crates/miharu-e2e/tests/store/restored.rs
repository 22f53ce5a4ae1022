//! An etcd that was restored from a snapshot: what was lost is nowhere, not even with a member that was not there meanwhile.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use miharu_e2e::miharud::free_port;
use miharu_e2e::{need, scratch, shell};
use miharu_store::cluster::{Enable, Join};
use miharu_store::{Change, EtcdAccess};

use super::killed::start;
use super::{HOUR, Member, PATIENCE, certificate, entry, eventually, served};

/// A process that is killed when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn etcd(data: &Path, client: &str, peer: &str) -> Result<Killed> {
    let log = File::create(data.with_extension("log"))?;
    let child = Command::new("etcd")
        .arg("--name=n1")
        .arg(format!("--data-dir={}", data.display()))
        .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
        .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
        .arg(format!("--initial-cluster=n1={peer}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    Ok(Killed(child))
}

#[test]
fn what_a_restored_etcd_has_lost_is_trusted_by_nobody() -> Result<()> {
    need!(Etcd);
    let dir = scratch::dir("restored")?;
    let (client, peer) =
        (format!("http://127.0.0.1:{}", free_port()?), format!("http://127.0.0.1:{}", free_port()?));
    let first = etcd(&dir.join("first"), &client, &peer)?;
    let access = EtcdAccess::parse(&client.replace("http", "etcd"))?;
    let (a, b) = (Member::alone("a")?, Member::alone("b")?);
    let make = || Enable {
        access: access.clone(),
        member: "a".to_owned(),
        certificate: certificate().der().to_vec(),
        served: served(),
    };
    eventually("etcd", PATIENCE, || a.store.cluster_enable(make()).is_ok())?;
    let invitation = a.store.cluster_invite("b", HOUR)?;
    let certificate = certificate().der().to_vec();
    b.store.cluster_join(Join { invitation, access: access.clone(), certificate })?;
    let path = b.path.clone();
    drop(b);

    let mut b = Killed(start(&format!("watch|{}", path.display()))?);
    let lines = BufReader::new(b.0.stdout.take().context("its output")?).lines();
    let said = Arc::new(Mutex::new(String::new()));
    let hears = Arc::clone(&said);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some(trusted) = line.strip_prefix("trusts ") {
                *hears.lock().unwrap() = trusted.to_owned();
            }
        }
    });
    let snapshot = dir.join("snapshot");
    let endpoint = format!("--endpoints={client}");
    let (file, data) = (snapshot.display().to_string(), dir.join("second"));
    shell::run("env", ["ETCDCTL_API=3", "etcdctl", &endpoint, "snapshot", "save", &file])?;
    let (lost, lost_fingerprint) = entry("lost");
    a.commit(&Change::AddCertificate(lost))?;
    eventually("b to trust it", PATIENCE, || *said.lock().unwrap() == lost_fingerprint)?;
    let pid = b.0.id().to_string();
    shell::run("kill", ["-STOP", &pid])?;

    drop(first);
    let (to, cluster) = (format!("--data-dir={}", data.display()), format!("--initial-cluster=n1={peer}"));
    let own = format!("--initial-advertise-peer-urls={peer}");
    let restore =
        ["ETCDCTL_API=3", "etcdctl", "snapshot", "restore", &file, &to, "--name=n1", &cluster, &own];
    shell::run("env", restore)?;
    let _second = etcd(&data, &client, &peer)?;
    let mut kept = Vec::new();
    for _ in 0..6 {
        let (entry, fingerprint) = entry("kept");
        eventually("a change", PATIENCE, || {
            matches!(
                a.commit(&Change::AddCertificate(entry.clone())),
                Ok(_) | Err(miharu_store::Error::Exists(_))
            )
        })?;
        kept.push(fingerprint);
    }
    assert!(!a.trusts(&lost_fingerprint));
    shell::run("kill", ["-CONT", &pid])?;
    kept.sort();
    let kept = kept.join(",");
    eventually("b to have what etcd has", PATIENCE, || *said.lock().unwrap() == kept)?;
    Ok(())
}

//! SIGKILL at random moments, from the start of the daemon on, while one client changes the configuration and another whom it trusts.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miharu_e2e::miharud::{ask, program};
use miharu_e2e::{Miharud, scratch, shell};
use serde_json::{Value, json};

use crate::{Numbers, is_chaos};

/// The part of the state that one client changes: what it knows to be made, and what it asked for without an answer.
struct Part {
    made: BTreeMap<String, Value>,
    asked: Option<BTreeMap<String, Value>>,
}

impl Part {
    /// Takes note of what is there now, which has to be the one or the other. Whether it is what was asked for last.
    fn found(&mut self, found: BTreeMap<String, Value>) -> Result<bool> {
        let asked = self.asked.take();
        let is_asked = asked.as_ref() == Some(&found);
        ensure!(
            is_asked || self.made == found,
            "found: {found:#?}\nmade: {:#?}\nasked for: {asked:#?}",
            self.made
        );
        self.made = found;
        Ok(is_asked)
    }

    /// Asks for a change that leads to `next`; nothing when the daemon is gone.
    fn change(
        &mut self,
        socket: &std::path::Path,
        (method, path, body): (&str, &str, &Value),
        next: BTreeMap<String, Value>,
    ) -> Option<()> {
        self.asked = Some(next);
        let reply = ask(socket, method, path, &[], &body.to_string()).ok()?;
        assert!(reply.status < 300, "{method} {path} {body}: {} {}", reply.status, reply.text());
        self.made = self.asked.take()?;
        Some(())
    }
}

/// All keys become this number at once.
fn configure(part: &mut Part, socket: &std::path::Path, number: u64) -> Option<()> {
    let keys = ["user.a", "user.b", "user.c", "user.d"];
    let next: BTreeMap<String, Value> =
        keys.iter().map(|key| ((*key).to_owned(), json!(number.to_string()))).collect();
    part.change(socket, ("PATCH", "/1.0", &json!({ "config": next })), next)
}

/// One certificate is trusted, limited to other projects, or trusted no more.
fn trust(
    part: &mut Part,
    socket: &std::path::Path,
    numbers: &mut Numbers,
    known: &[(String, String)],
) -> Option<()> {
    let (fingerprint, certificate) = &known[numbers.below(known.len() as u64) as usize];
    let projects: Vec<String> = (0..=numbers.below(4)).map(|number| format!("p{number}")).collect();
    let path = format!("/1.0/certificates/{fingerprint}");
    let mut body = json!({ "name": "n", "type": "metrics", "restricted": true, "projects": projects });
    let mut next = part.made.clone();
    if !part.made.contains_key(fingerprint) {
        next.insert(fingerprint.clone(), json!(projects));
        body["certificate"] = json!(certificate);
        part.change(socket, ("POST", "/1.0/certificates", &body), next)
    } else if numbers.below(3) == 0 {
        next.remove(fingerprint);
        part.change(socket, ("DELETE", &path, &json!({})), next)
    } else {
        next.insert(fingerprint.clone(), json!(projects));
        part.change(socket, ("PUT", &path, &body), next)
    }
}

fn configured(daemon: &Miharud) -> Result<BTreeMap<String, Value>> {
    let config = daemon.get("/1.0")?.json()?["metadata"]["config"].take();
    let config: BTreeMap<String, Value> = serde_json::from_value(config)?;
    Ok(config.into_iter().filter(|(key, _)| key.starts_with("user.")).collect())
}

fn trusted(daemon: &Miharud) -> Result<BTreeMap<String, Value>> {
    let all = daemon.get("/1.0/certificates?recursion=1")?.json()?["metadata"].take();
    let all: Vec<Value> = serde_json::from_value(all)?;
    let entry = |entry: Value| {
        let fingerprint = entry["fingerprint"].as_str().context("a fingerprint")?.to_owned();
        ensure!(entry["restricted"] == true, "{entry}");
        Ok((fingerprint, entry["projects"].clone()))
    };
    all.into_iter().map(entry).collect()
}

#[test]
fn what_was_acknowledged_is_there_and_nothing_is_half_made() -> Result<()> {
    let rounds: u64 = if is_chaos() { 500 } else { 20 };
    let known: Vec<(String, String)> = (0..12)
        .map(|_| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            (miharu_store::fingerprint(certificate.der()), STANDARD.encode(certificate.der()))
        })
        .collect();
    let dir = scratch::dir("killed")?;
    let daemon = Miharud::in_dir(&dir, &[])?;
    for number in 0..4 {
        let made =
            daemon.ask("POST", "/1.0/projects", &[], &json!({ "name": format!("p{number}") }).to_string())?;
        ensure!(made.status == 201, "{}", made.text());
    }
    drop(daemon);

    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut config = Part { made: BTreeMap::new(), asked: None };
    let mut trust_store = Part { made: BTreeMap::new(), asked: None };
    let (mut changes, mut cut_short, mut made_all_the_same, mut before_ready) = (0, 0, 0, 0);
    let socket = dir.join("unix.socket");
    for round in 0..rounds {
        // Every fourth is killed while it starts.
        if round % 4 == 3 {
            let log = std::fs::File::options().append(true).open(dir.join("log"))?;
            let mut child = Command::new(program("miharud")?)
                .arg("--dir")
                .arg(&dir)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
            let note = scratch::Entry::Process(child.id()).note()?;
            std::thread::sleep(Duration::from_micros(numbers.below(120_000)));
            child.kill()?;
            child.wait()?;
            drop(note);
            before_ready += 1;
        }
        let daemon = Miharud::in_dir(&dir, &[]).with_context(|| format!("round {round}"))?;
        for (part, found) in [(&mut config, configured(&daemon)?), (&mut trust_store, trusted(&daemon)?)] {
            cut_short += u64::from(part.asked.is_some());
            made_all_the_same += u64::from(part.found(found).with_context(|| format!("round {round}"))?);
        }
        // After so many changes, and somewhere between two of them.
        let (most, moment) = (numbers.below(12) as usize, Duration::from_micros(numbers.below(30_000)));
        let mut choices = Numbers(numbers.below(u64::MAX) | 1);
        let pid = daemon.pid();
        let acknowledged = AtomicUsize::new(0);
        let count = |()| acknowledged.fetch_add(1, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let one = scope.spawn(|| {
                let mut number = round << 20;
                while configure(&mut config, &socket, number).map(count).is_some() {
                    number += 1;
                }
            });
            let other = scope.spawn(|| {
                while trust(&mut trust_store, &socket, &mut choices, &known).map(count).is_some() {}
            });
            let waited = shell::wait_for("changes", Duration::from_secs(30), || {
                (acknowledged.load(Ordering::Relaxed) >= most).then_some(())
            });
            std::thread::sleep(moment);
            let killed = shell::run("kill", ["-KILL", &pid.to_string()]);
            one.join().unwrap();
            other.join().unwrap();
            waited.and(killed)
        })?;
        changes += acknowledged.into_inner();
    }
    let daemon = Miharud::in_dir(&dir, &[])?;
    config.found(configured(&daemon)?)?;
    trust_store.found(trusted(&daemon)?)?;
    println!(
        "killed {rounds} times at work and {before_ready} times at its start: {changes} changes were acknowledged, {cut_short} were \
         not, of which {made_all_the_same} were made"
    );
    ensure!(changes > 0 && cut_short > 0, "nothing was cut short");
    daemon.stop()
}

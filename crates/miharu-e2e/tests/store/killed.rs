//! A member that is killed at any moment: what it was told to be made is made, everywhere, and nothing is half done.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::{etcd, need};
use miharu_store::cluster::{Invitation, Join};
use miharu_store::{Change, EtcdAccess};

use super::{HOUR, Member, PATIENCE, certificate, cluster, common, config, entry, eventually};

/// The variable that makes this program a member that is going to be killed.
const ROLE: &str = "MIHARU_TEST_VICTIM";

/// This program again, as a process of its own that runs only the test `victim`.
pub(super) fn start(role: &str) -> Result<Child> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args(["--exact", "killed::victim", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
}

/// Not a test of its own but what the others kill.
#[test]
fn victim() -> Result<()> {
    let Ok(role) = std::env::var(ROLE) else { return Ok(()) };
    let mut words = role.split('|');
    let (what, path) = (words.next().unwrap_or_default(), PathBuf::from(words.next().unwrap_or_default()));
    let mut out = std::io::stdout();
    let member = Member::again(&path)?;
    writeln!(out, "\nready")?;
    if what == "join" {
        let invitation = Invitation::from_token(words.next().unwrap_or_default()).unwrap();
        let access = invitation.access.clone();
        let certificate = certificate().der().to_vec();
        member.store.cluster_join(Join { invitation, access, certificate })?;
        writeln!(out, "joined")?;
        return Ok(());
    }
    if what == "enable" {
        super::enable(&member, "a", EtcdAccess::parse(words.next().unwrap_or_default())?)?;
        writeln!(out, "enabled")?;
        return Ok(());
    }
    if what == "watch" {
        loop {
            let trusted: Vec<String> = member.state().certificates.keys().cloned().collect();
            writeln!(out, "trusts {}", trusted.join(","))?;
            out.flush()?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    loop {
        let (entry, fingerprint) = entry("x");
        match member.commit(&Change::AddCertificate(entry)) {
            Ok(_) => writeln!(out, "made {fingerprint}")?,
            Err(error) => writeln!(out, "failed {error}")?,
        }
        out.flush()?;
    }
}

#[test]
fn nothing_that_was_made_is_lost_when_the_writer_is_killed() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let mut members = cluster(&etcd, &["a", "b"])?;
    let (b, a) = (members.pop().unwrap(), members.pop().unwrap());
    let path = b.path.clone();
    drop(b);
    let mut made = Vec::new();
    for round in 0..40_u64 {
        let mut child = start(&format!("write|{}", path.display()))?;
        let out = child.stdout.take().context("its output")?;
        // Another writer, so that there are conflicts at that moment, too.
        a.commit(&config(&a.state(), "user.round", &round.to_string())).ok();
        let reader = std::thread::spawn(move || -> Vec<String> {
            BufReader::new(out).lines().map_while(Result::ok).collect()
        });
        std::thread::sleep(Duration::from_millis(150 + round * 37 % 300));
        child.kill()?;
        child.wait()?;
        let lines = reader.join().unwrap();
        made.extend(lines.iter().filter_map(|line| line.strip_prefix("made ").map(str::to_owned)));
    }
    println!("{} changes were made by a writer that was killed 40 times", made.len());
    assert!(made.len() > 40, "{}", made.len());
    let b = Member::again(&path)?;
    let known = b.state();
    b.in_step()?;
    eventually("both to agree", PATIENCE, || common(&a.state()) == common(&b.state()))?;
    for fingerprint in &made {
        assert!(
            a.trusts(fingerprint) && known.certificates.contains_key(fingerprint),
            "{fingerprint} is lost"
        );
    }
    let in_etcd = etcd.keys("/miharu/certificates/")?.len();
    assert_eq!(in_etcd, a.state().certificates.len());
    assert!(in_etcd <= made.len() + 40, "at most one unheard of a round");
    Ok(())
}

#[test]
fn who_is_killed_while_joining_is_a_member_or_is_none() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let members = cluster(&etcd, &["a"])?;
    let a = &members[0];
    let (mut joined, mut alone) = (0, 0);
    for round in 0..40_u64 {
        let name = format!("j{round}");
        let joiner = Member::alone(&name)?;
        let (own, own_fingerprint) = entry("own");
        joiner.commit(&Change::AddCertificate(own))?;
        let path = joiner.path.clone();
        drop(joiner);
        let token = a.store.cluster_invite(&name, HOUR)?.to_token();
        let mut child = start(&format!("join|{}|{token}", path.display()))?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        while lines.next().transpose()?.is_some_and(|line| line != "ready") {}
        std::thread::sleep(Duration::from_micros(round * 700));
        child.kill()?;
        child.wait()?;

        let again = Member::again(&path)?;
        let is_member = !etcd.keys(&format!("/miharu/members/{name}"))?.is_empty();
        // What it is, it knows as soon as it has looked.
        eventually("it to know", PATIENCE, || again.state().cluster.is_some() == is_member)?;
        if is_member {
            joined += 1;
            again.in_step()?;
            assert!(!again.trusts(&own_fingerprint));
            eventually("it to be able to change something", PATIENCE, || {
                again.commit(&config(&again.state(), "user.last", &name)).is_ok()
            })?;
            a.commit(&Change::RemoveMember(name))?;
        } else {
            alone += 1;
            assert!(again.trusts(&own_fingerprint));
            eventually("it to be free", PATIENCE, || {
                again.commit(&config(&again.state(), "user.a", &round.to_string())).is_ok()
            })?;
            // Its token is still good.
            let invitation = Invitation::from_token(&token).unwrap();
            let access = invitation.access.clone();
            again.store.cluster_join(Join {
                invitation,
                access,
                certificate: certificate().der().to_vec(),
            })?;
            a.commit(&Change::RemoveMember(name))?;
        }
    }
    println!("killed while joining: {joined} were members, {alone} were not");
    Ok(())
}

#[test]
fn who_is_killed_while_making_a_cluster_is_its_member_or_is_alone() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let (mut made, mut alone) = (0, 0);
    for round in 0..30_u64 {
        let server = Member::alone("s")?;
        let (own, fingerprint) = entry("own");
        server.commit(&Change::AddCertificate(own))?;
        let path = server.path.clone();
        drop(server);
        let mut child = start(&format!("enable|{}|{}/p{round}", path.display(), etcd.url()))?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        while lines.next().transpose()?.is_some_and(|line| line != "ready") {}
        std::thread::sleep(Duration::from_millis(round * 2));
        child.kill()?;
        child.wait()?;

        let again = Member::again(&path)?;
        let is_made = !etcd.keys(&format!("/p{round}/cluster"))?.is_empty();
        eventually("it to know", PATIENCE, || again.state().cluster.is_some() == is_made)?;
        eventually("it to be able to change something", PATIENCE, || {
            again.commit(&config(&again.state(), "user.a", &round.to_string())).is_ok()
        })?;
        assert!(again.trusts(&fingerprint), "it loses nothing either way");
        if is_made {
            made += 1;
            again.in_step()?;
        } else {
            alone += 1;
            super::enable(&again, "a", EtcdAccess::parse(&format!("{}/again{round}", etcd.url()))?)?;
        }
    }
    println!("killed while making a cluster: {made} made it, {alone} did not");
    Ok(())
}

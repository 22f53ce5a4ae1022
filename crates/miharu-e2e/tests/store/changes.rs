//! What is changed on one member is on all, within a second; of two changes at once one is made.

use std::sync::Barrier;

use anyhow::{Context, Result};
use miharu_e2e::{etcd, need};
use miharu_store::cluster::{Leave, MemberStatus, Report};
use miharu_store::{CertificateType, Change, DeclaredProject, Error, JoinToken, Secret, SecretHash, State};

use super::{
    Member, PATIENCE, SECOND, SOON, access, cluster, common, config, enable, entry, eventually, served,
};

#[test]
fn a_change_of_any_kind_is_on_all_members_within_a_second_and_there_after_a_restart() -> Result<()> {
    need!(Etcd, Tls);
    let etcd = etcd::plan().tls().users().start()?;
    let members = cluster(&etcd, &["a", "b", "c"])?;
    let [a, b, c] = members.as_slice() else { panic!("three members") };
    let everywhere = |what: &str, so: &dyn Fn(&State) -> bool| {
        eventually(what, SECOND, || members.iter().all(|member| so(&member.state())))
    };

    let (client, fingerprint) = entry("prometheus");
    a.commit(&Change::AddCertificate(client.clone()))?;
    let took = everywhere("trust", &|state| state.certificates.contains_key(&fingerprint))?;
    println!("a certificate was trusted everywhere after {took:?}");
    let mut narrower = client.clone();
    narrower.projects = Some(std::iter::once("docker/shop".to_owned()).collect());
    b.commit(&Change::UpdateCertificate(narrower.clone()))?;
    everywhere("a restriction", &|state| {
        state.certificates.get(&fingerprint).is_some_and(|entry| **entry == narrower)
    })?;
    let (mut bearer, bearer_fingerprint) = entry("bearer");
    bearer.token = Some(SecretHash::of("hush"));
    c.commit(&Change::AddCertificate(bearer))?;
    everywhere("a bearer token", &|state| state.bearer_token("hush").is_some())?;
    c.commit(&Change::AddProject("docker/shop".to_owned(), DeclaredProject::default()))?;
    everywhere("a project", &|state| state.projects.contains_key("docker/shop"))?;
    let token = JoinToken {
        id: "1".to_owned(),
        secret: Secret::new("join-hush".to_owned()),
        name: "new".to_owned(),
        description: String::new(),
        certificate_type: CertificateType::Client,
        projects: None,
        created_at: 0,
        expires_at: None,
    };
    a.commit(&Change::AddJoinToken(token))?;
    everywhere("a join token", &|state| state.join_token("join-hush").is_some())?;
    let (redeemer, redeemed) = entry("redeemer");
    b.commit(&Change::Redeem("1".to_owned(), redeemer))?;
    everywhere("a used token", &|state| {
        state.join_tokens.is_empty() && state.certificates.contains_key(&redeemed)
    })?;
    b.commit(&config(&b.state(), "metrics.prefix", "lxd"))?;
    everywhere("the configuration", &|state| state.config.settings().prefix_lxd)?;
    b.commit(&config(&b.state(), "core.metrics_address", ":9199"))?;
    assert_eq!(b.state().config.get("core.metrics_address"), ":9199");
    assert_eq!(a.state().config.get("core.metrics_address"), "", "an address is each member's own");
    let next = served();
    a.commit(&Change::ClusterCertificate(next.clone()))?;
    everywhere("the certificate", &|state| {
        let served = state.cluster.as_ref().and_then(|cluster| cluster.certificate.clone());
        served.is_some_and(|served| *served == next)
    })?;
    c.commit(&Change::RemoveCertificate(fingerprint.clone()))?;
    let took = everywhere("a revocation", &|state| !state.certificates.contains_key(&fingerprint))?;
    println!("a certificate was revoked everywhere after {took:?}");

    // Nothing that opens a door lies open in etcd.
    let dump = format!("{:?}", etcd.keys("/miharu/")?);
    for secret in ["hush", "PRIVATE KEY"] {
        assert!(!dump.contains(secret), "{secret} can be read in etcd");
    }
    assert!(dump.contains(&bearer_fingerprint));

    let states: Vec<_> = members.iter().map(|member| common(&member.state())).collect();
    drop(etcd);
    for (member, state) in members.into_iter().zip(states) {
        let path = member.path.clone();
        drop(member);
        let again = Member::again(&path)?;
        assert_eq!(common(&again.state()), state, "the last copy");
        let served = again.cluster()?.certificate.clone().context("a certificate to serve with")?;
        assert_eq!(*served, next);
    }
    Ok(())
}

#[test]
fn of_two_changes_at_once_one_is_made_and_the_other_is_told() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let members = cluster(&etcd, &["a", "b"])?;
    let [a, b] = members.as_slice() else { panic!("two members") };
    for round in 0..30 {
        eventually("both in step", SOON, || common(&a.state()) == common(&b.state()))?;
        let barrier = Barrier::new(2);
        let change = |member: &Member, who: &str| {
            let state = member.state();
            let change = config(&state, "user.who", &format!("{who}{round}"));
            barrier.wait();
            member
                .store
                .commit(&change, Some(state.revision))
                .map(|state| state.config.get("user.who").to_owned())
        };
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(|| change(b, "b"));
            (change(a, "a"), other.join().unwrap())
        });
        let (winner, loser) = match (one, two) {
            (Ok(value), Err(error)) | (Err(error), Ok(value)) => (value, error),
            (Ok(one), Ok(two)) => panic!("both were made: {one}, {two}"),
            (Err(one), Err(two)) => panic!("none was made: {one}, {two}"),
        };
        assert!(matches!(loser, Error::Conflict { .. }), "{loser}");
        eventually("the winner's value everywhere", SOON, || {
            members.iter().all(|member| member.state().config.get("user.who") == winner)
        })?;
    }
    Ok(())
}

#[test]
fn changes_that_fit_any_state_are_all_made_whoever_comes_first() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let members = cluster(&etcd, &["a", "b", "c"])?;
    let added: Vec<String> = std::thread::scope(|scope| {
        let add = |member: &'_ Member| {
            let mut added = Vec::new();
            for _ in 0..20 {
                let (entry, fingerprint) = entry("x");
                member.commit(&Change::AddCertificate(entry)).unwrap();
                added.push(fingerprint);
            }
            added
        };
        let threads: Vec<_> = members.iter().map(|member| scope.spawn(move || add(member))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    eventually("all of them everywhere", SOON, || {
        members.iter().all(|member| added.iter().all(|fingerprint| member.trusts(fingerprint)))
    })?;
    // The same one twice is refused, by whichever member.
    let (one, fingerprint) = entry("twice");
    members[0].commit(&Change::AddCertificate(one.clone()))?;
    assert!(matches!(members[1].commit(&Change::AddCertificate(one)), Err(Error::Exists(_))));
    members[2].commit(&Change::RemoveCertificate(fingerprint.clone()))?;
    assert!(matches!(members[1].commit(&Change::RemoveCertificate(fingerprint)), Err(Error::NotFound(_))));
    Ok(())
}

#[test]
fn members_know_of_each_other_who_is_there_and_what_runs_there() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let mut members = cluster(&etcd, &["a", "b"])?;
    let b = members.pop().unwrap();
    let a = members.pop().unwrap();
    let report = Report {
        version: "0.1.0".to_owned(),
        instances: 7,
        address: Some("b.example:8443".to_owned()),
        metrics_address: Some("b.example:9100".to_owned()),
    };
    b.store.cluster_report(report.clone());
    let of_b = || a.store.cluster_presence().members.get("b").cloned().unwrap_or_default();
    eventually("b's report", PATIENCE, || of_b().instances == Some(7))?;
    assert_eq!((of_b().status, of_b().version.as_deref()), (MemberStatus::Online, Some("0.1.0")));
    let address_of_b = |address: &str| {
        eventually("b's address", SOON, || {
            a.cluster().is_ok_and(|cluster| {
                cluster.members.get("b").is_some_and(|b| b.address.as_deref() == Some(address))
            })
        })
    };
    address_of_b("b.example:8443")?;
    b.store.cluster_report(Report { address: Some("b.example:8444".to_owned()), ..report });
    address_of_b("b.example:8444")?;
    drop(b);
    eventually("b's goodbye", SOON, || of_b().status == MemberStatus::Offline)?;
    assert!(of_b().last_seen.is_some() && of_b().instances == Some(7));
    assert_eq!(a.store.presence().members["a"].status, MemberStatus::Online);
    Ok(())
}

#[test]
fn who_leaves_is_one_of_its_own_and_who_is_removed_is_trusted_and_trusts_no_more() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let members = cluster(&etcd, &["a", "b", "c"])?;
    let [a, b, c] = members.as_slice() else { panic!("three members") };
    let (client, fingerprint) = entry("client");
    a.commit(&Change::AddCertificate(client))?;
    eventually("trust", SOON, || c.trusts(&fingerprint))?;
    let own = |member: &Member| {
        let cluster = member.cluster().unwrap();
        cluster.members[&cluster.member].certificate.der().to_vec()
    };
    let (of_b, of_c) = (own(b), own(c));
    assert!(a.cluster()?.member_with(&of_c).is_some());

    assert!(matches!(a.commit(&Change::RemoveMember("a".to_owned())), Err(Error::Refused(_))));
    assert!(matches!(a.commit(&Change::RemoveMember("x".to_owned())), Err(Error::NotFound(_))));
    a.commit(&Change::RemoveMember("c".to_owned()))?;
    eventually("c's removal", SOON, || {
        let gone =
            |member: &Member| member.cluster().is_ok_and(|cluster| cluster.member_with(&of_c).is_none());
        gone(a) && gone(b) && c.cluster().is_ok_and(|cluster| cluster.removed)
    })?;
    assert!(!c.trusts(&fingerprint) && c.cluster()?.member_with(&of_b).is_none());
    assert!(c.cluster()?.certificate.is_none());
    assert!(matches!(c.commit(&config(&c.state(), "user.a", "1")), Err(Error::Refused(_))));
    eventually("its copy to say so", SOON, || {
        let again = scratch_copy(c).and_then(|path| Member::again(&path));
        again.is_ok_and(|again| {
            again.cluster().is_ok_and(|cluster| cluster.removed) && !again.trusts(&fingerprint)
        })
    })?;
    let alone = c.store.cluster_leave(Leave::Orderly)?;
    assert!(alone.cluster.is_none() && alone.certificates.is_empty());
    c.commit(&config(&c.state(), "user.a", "1"))?;

    let alone = b.store.cluster_leave(Leave::Orderly)?;
    assert!(alone.cluster.is_none() && alone.certificates.contains_key(&fingerprint));
    eventually("b's leaving", SOON, || a.cluster().is_ok_and(|cluster| cluster.members.len() == 1))?;
    a.store.cluster_leave(Leave::Orderly)?;
    assert!(etcd.keys("/miharu/")?.is_empty(), "the last one takes the cluster with it");
    enable(b, "b", access(&etcd)?)?;
    assert!(b.trusts(&fingerprint), "a new cluster begins with what its first member has");
    Ok(())
}

/// A member's database as it is now, elsewhere.
fn scratch_copy(member: &Member) -> Result<std::path::PathBuf> {
    let path = miharu_e2e::scratch::dir("copy")?.join("miharu.db");
    std::fs::copy(&member.path, &path)?;
    Ok(path)
}

//! Nobody gets in without a token that was made for it, is fresh and was not used.

use std::time::Duration;

use anyhow::Result;
use miharu_e2e::{etcd, need};
use miharu_store::cluster::{Invitation, Join};
use miharu_store::{Change, Error, EtcdAccess, Secret};

use super::{HOUR, Member, SOON, access, certificate, cluster, config, enable, entry, eventually};

fn join(member: &Member, invitation: &Invitation, access: &EtcdAccess) -> Result<(), Error> {
    let certificate = certificate().der().to_vec();
    let join = Join { invitation: invitation.clone(), access: access.clone(), certificate };
    member.store.cluster_join(join).map(drop)
}

fn refused(result: Result<(), Error>, words: &str) {
    match result {
        Err(Error::Refused(said)) => assert!(said.contains(words), "{said}"),
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn a_token_lets_one_server_in_once() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let access = access(&etcd)?;
    let members = cluster(&etcd, &["a"])?;
    let a = &members[0];
    let (b, stranger) = (Member::alone("b")?, Member::alone("x")?);
    let (own, own_fingerprint) = entry("of b alone");
    b.commit(&Change::AddCertificate(own))?;
    b.commit(&config(&b.state(), "core.https_address", ":8444"))?;
    b.commit(&config(&b.state(), "metrics.prefix", "lxd"))?;

    let token = a.store.cluster_invite("b", HOUR)?.to_token();
    let invitation = Invitation::from_token(&token).unwrap();
    eventually("the invitation", SOON, || {
        a.cluster().is_ok_and(|cluster| cluster.invitations.contains_key("b"))
    })?;
    join(&b, &invitation, &invitation.access)?;
    let state = b.state();
    assert!(!b.trusts(&own_fingerprint), "what b trusted alone is given up");
    assert_eq!(state.config.get("core.https_address"), ":8444", "addresses stay");
    assert!(!state.config.settings().prefix_lxd);
    eventually("the new member", SOON, || {
        a.cluster().is_ok_and(|cluster| cluster.members.contains_key("b") && cluster.invitations.is_empty())
    })?;
    let served = |member: &Member| member.cluster().unwrap().certificate.clone().unwrap();
    assert_eq!(served(a), served(&b));

    refused(join(&stranger, &invitation, &access), "was used");
    refused(join(&b, &invitation, &access), "member of the cluster");
    a.commit(&Change::RemoveMember("b".to_owned()))?;
    refused(join(&stranger, &invitation, &access), "was used, has expired");
    assert!(matches!(a.store.cluster_invite("a", HOUR), Err(Error::Exists(_))));
    for name in ["", "a/b", "..", "x y"] {
        assert!(matches!(a.store.cluster_invite(name, HOUR), Err(Error::Refused(_))), "{name}");
    }
    assert!(stranger.state().cluster.is_none());
    Ok(())
}

#[test]
fn a_token_that_is_forged_or_expired_or_of_another_cluster_lets_nobody_in() -> Result<()> {
    need!(Etcd);
    let (etcd, other) = (etcd::plan().start()?, etcd::plan().start()?);
    let way = access(&etcd)?;
    let members = cluster(&etcd, &["a"])?;
    let strangers = cluster(&other, &["a"])?;
    let (a, stranger) = (&members[0], Member::alone("x")?);

    let good = a.store.cluster_invite("b", HOUR)?;
    let forged = Invitation { secret: Secret::new("0".repeat(64)), ..good.clone() };
    refused(join(&stranger, &forged, &way), "forged");
    let altered = Invitation { fingerprint: "0".repeat(64), ..good.clone() };
    refused(join(&stranger, &altered, &way), "forged");
    let renamed = Invitation { member: "c".to_owned(), ..good.clone() };
    refused(join(&stranger, &renamed, &way), "was used, has expired");
    let of_another = strangers[0].store.cluster_invite("b", HOUR)?;
    refused(join(&stranger, &of_another, &way), "another cluster");
    let disguised = Invitation { cluster: good.cluster.clone(), ..of_another };
    refused(join(&stranger, &disguised, &way), "forged");
    let empty = EtcdAccess::parse(&format!("{}/nothing", etcd.url()))?;
    refused(join(&stranger, &good, &empty), "no cluster under /nothing/");
    let nowhere = EtcdAccess::parse("etcd://127.0.0.1:1")?;
    assert!(matches!(join(&stranger, &good, &nowhere), Err(Error::Away(_))));

    let newer = a.store.cluster_invite("b", HOUR)?;
    refused(join(&stranger, &good, &way), "made last");
    a.store.cluster_revoke_invitation("b")?;
    assert!(matches!(a.store.cluster_revoke_invitation("b"), Err(Error::NotFound(_))));
    refused(join(&stranger, &newer, &way), "was used, has expired");

    // etcd ends it, whatever the joining host's clock says.
    let short = a.store.cluster_invite("b", Duration::from_secs(1))?;
    let patient = Invitation { expires_at: i64::MAX, ..short.clone() };
    eventually("its end", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(500));
        etcd.keys("/miharu/invitations/").is_ok_and(|keys| keys.is_empty())
    })?;
    refused(join(&stranger, &patient, &way), "was used, has expired");
    refused(join(&stranger, &short, &way), "has expired");
    assert!(stranger.state().cluster.is_none() && a.cluster()?.members.len() == 1);
    stranger.commit(&config(&stranger.state(), "user.a", "1"))?;
    Ok(())
}

#[test]
fn of_many_who_use_one_token_at_once_one_gets_in() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let way = access(&etcd)?;
    let members = cluster(&etcd, &["a"])?;
    let invitation = members[0].store.cluster_invite("b", HOUR)?;
    let joiners: Vec<Member> = (0..8).map(|_| Member::alone("j")).collect::<Result<_>>()?;
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            joiners.iter().map(|member| scope.spawn(|| join(member, &invitation, &way))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    for (member, result) in joiners.iter().zip(results) {
        assert_eq!(member.state().cluster.is_some(), result.is_ok());
        if let Err(error) = result {
            assert!(matches!(error, Error::Refused(_)), "{error}");
        }
    }
    Ok(())
}

#[test]
fn of_many_who_make_a_cluster_in_one_place_one_does() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let way = access(&etcd)?;
    let servers: Vec<Member> = (0..4).map(|_| Member::alone("s")).collect::<Result<_>>()?;
    // Each of them trusts something, and only the one's own may be trusted in the end.
    let mut own = Vec::new();
    for server in &servers {
        for _ in 0..30 {
            let (entry, fingerprint) = entry("own");
            server.commit(&Change::AddCertificate(entry))?;
            own.push(fingerprint);
        }
    }
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(number, server)| {
                let way = way.clone();
                scope.spawn(move || enable(server, &format!("s{number}"), way))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let made: Vec<usize> = (0..4).filter(|number| results[*number].is_ok()).collect();
    assert_eq!(made.len(), 1, "{results:?}");
    assert_eq!(etcd.keys("/miharu/certificates/")?.len(), 30);
    let winner = made[0];
    assert!(own[winner * 30..][..30].iter().all(|fingerprint| servers[winner].trusts(fingerprint)));
    for (number, server) in servers.iter().enumerate().filter(|(number, _)| *number != winner) {
        assert!(server.state().cluster.is_none());
        assert_eq!(server.state().certificates.len(), 30, "s{number} keeps what it had");
        assert!(matches!(enable(server, "late", way.clone()), Err(Error::Refused(_))));
    }
    Ok(())
}

#[test]
fn a_cluster_is_made_only_where_nothing_else_lies() -> Result<()> {
    need!(Etcd);
    let etcd = etcd::plan().start()?;
    let server = Member::alone("s")?;
    let at = |prefix: &str| EtcdAccess::parse(&format!("{}/{prefix}", etcd.url())).unwrap();
    let refused = |prefix: &str, words: &str| match enable(&server, "s", at(prefix)) {
        Err(Error::Refused(said)) => assert!(said.contains(words), "{said}"),
        other => panic!("{prefix}: {other:?}"),
    };
    etcd.ctl(&["put", "/registry/pods/x", "1"])?;
    refused("registry", "something else lies under /registry/ in etcd, such as /registry/pods/x");
    // What a cut-off attempt left is no obstacle, and is not trusted.
    let source = Member::alone("o")?;
    let (stranger, fingerprint) = entry("stranger");
    source.commit(&Change::AddCertificate(stranger))?;
    enable(&source, "o", at("source"))?;
    let key = format!("certificates/{fingerprint}");
    let leftover = etcd.ctl(&["get", &format!("/source/{key}"), "--print-value-only"])?;
    source.store.cluster_leave(miharu_store::cluster::Leave::Orderly)?;
    etcd.ctl(&["put", &format!("/prod/{key}"), "--", leftover.trim()])?;
    enable(&server, "s", at("prod"))?;
    assert!(etcd.keys("/prod/certificates/")?.is_empty() && !server.trusts(&fingerprint));
    let other = Member::alone("t")?;
    for (prefix, words) in [("prod/eu", "a cluster under /prod/"), ("prod", "a cluster under /prod/ already")]
    {
        match enable(&other, "t", at(prefix)) {
            Err(Error::Refused(said)) => assert!(said.contains(words), "{said}"),
            other => panic!("{prefix}: {other:?}"),
        }
    }
    etcd.ctl(&["put", "/prod/of-a-later-version", "1"])?;
    server.store.cluster_leave(miharu_store::cluster::Leave::Orderly)?;
    assert_eq!(etcd.keys("/")?.len(), 2, "what is not the cluster's stays");
    Ok(())
}

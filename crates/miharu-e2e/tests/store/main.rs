//! The store of a cluster's members on a real etcd: what is changed on one is on all, and whatever dies in the middle leaves a
//! state that was one. No daemon is needed: a member is a `Store`.
#![allow(clippy::disallowed_methods, reason = "the writer that is killed is a process of its own")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failure here is a failed test"
)]

mod changes;
mod hostile;
mod joining;
mod killed;
mod outage;
mod restored;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::etcd::Etcd;
use miharu_e2e::{scratch, shell};
use miharu_store::cluster::{Enable, Join};
use miharu_store::{
    Certificate, CertificateType, Change, Cluster, ClusterCertificate, Error, EtcdAccess, ParsedCertificate,
    Secret, State, Store,
};

/// How long trust and its end may take to be everywhere.
const SECOND: Duration = Duration::from_secs(1);
/// How long other things may take that take milliseconds on a machine with nothing else to do.
const SOON: Duration = Duration::from_secs(5);
/// How long the way back from a failure may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a join token is valid here.
const HOUR: Duration = Duration::from_secs(3600);

/// A member: its store and where that is.
struct Member {
    store: Store,
    path: PathBuf,
}

impl Member {
    fn alone(name: &str) -> Result<Self> {
        let path = scratch::dir(name)?.join("miharu.db");
        Ok(Self { store: Store::open(&path)?, path })
    }

    fn again(path: &Path) -> Result<Self> {
        Ok(Self { store: Store::open(path)?, path: path.to_owned() })
    }

    fn state(&self) -> Arc<State> {
        self.store.load()
    }

    fn cluster(&self) -> Result<Arc<Cluster>> {
        self.state().cluster.clone().context("it is a member")
    }

    fn commit(&self, change: &Change) -> Result<Arc<State>, Error> {
        self.store.commit(change, None)
    }

    fn trusts(&self, fingerprint: &str) -> bool {
        self.state().certificates.contains_key(fingerprint)
    }

    /// Waits until it is in step.
    fn in_step(&self) -> Result<()> {
        let in_step = || {
            let status = self.store.sync_status()?;
            (status.trouble.is_none() && status.age? < Duration::from_secs(4)).then_some(())
        };
        shell::wait_for("a member in step", PATIENCE, in_step)
            .with_context(|| format!("{:?}", self.store.sync_status()))
    }
}

/// A cluster of these members on this etcd.
fn cluster(etcd: &Etcd, names: &[&str]) -> Result<Vec<Member>> {
    let access = access(etcd)?;
    let mut members: Vec<Member> = Vec::new();
    for name in names {
        let member = Member::alone(name)?;
        match members.first() {
            None => drop(enable(&member, name, access.clone())?),
            Some(first) => {
                let invitation = first.store.cluster_invite(name, HOUR)?;
                let join =
                    Join { invitation, access: access.clone(), certificate: certificate().der().to_vec() };
                member.store.cluster_join(join)?;
            }
        }
        members.push(member);
    }
    for member in &members {
        eventually("every member to know every member", SOON, || {
            member.cluster().is_ok_and(|cluster| cluster.members.len() == names.len())
        })?;
    }
    Ok(members)
}

fn enable(member: &Member, name: &str, access: EtcdAccess) -> Result<Arc<State>, Error> {
    let certificate = certificate().der().to_vec();
    member.store.cluster_enable(Enable { access, member: name.to_owned(), certificate, served: served() })
}

/// How members get into this etcd.
fn access(etcd: &Etcd) -> Result<EtcdAccess> {
    let mut access = EtcdAccess::parse(&etcd.url())?;
    if let Some(dir) = &etcd.tls {
        let read = |name: &str| std::fs::read_to_string(dir.join(name));
        access = access.with_tls(read("ca.crt")?);
        access.client_pem = Some((read("client.crt")?, Secret::new(read("client.key")?)));
    }
    if let Some((_, password)) = etcd.access_env() {
        access.user = Some(("miharu".to_owned(), Secret::new(password.to_owned())));
    }
    Ok(access)
}

/// A certificate as clients and servers have.
fn certificate() -> ParsedCertificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
    ParsedCertificate::parse(params.self_signed(&key).unwrap().der()).unwrap()
}

/// A certificate to serve with.
fn served() -> ClusterCertificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["cluster".to_owned()]).unwrap().self_signed(&key).unwrap();
    ClusterCertificate { certificate_pem: certificate.pem(), key_pem: Secret::new(key.serialize_pem()) }
}

/// An entry of the trust store, and its fingerprint.
fn entry(name: &str) -> (Certificate, String) {
    let certificate = certificate();
    let fingerprint = certificate.fingerprint().to_owned();
    let entry = Certificate {
        name: name.to_owned(),
        description: String::new(),
        certificate_type: CertificateType::Metrics,
        projects: None,
        certificate,
        token: None,
    };
    (entry, fingerprint)
}

/// The configuration of a state with one key changed.
fn config(state: &State, key: &str, value: &str) -> Change {
    let values = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    Change::Config(state.config.merge(&values).unwrap())
}

/// Waits for something; how long it took.
fn eventually(what: &str, patience: Duration, mut so: impl FnMut() -> bool) -> Result<Duration> {
    let begin = Instant::now();
    loop {
        if so() {
            return Ok(begin.elapsed());
        }
        anyhow::ensure!(begin.elapsed() < patience, "waited {patience:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What two members have to agree on.
fn common(state: &State) -> (Vec<String>, BTreeMap<String, String>, Vec<String>, Vec<String>) {
    let keys = |state: &State| state.certificates.keys().cloned().collect();
    let mut values: BTreeMap<String, String> = state.config.values().clone();
    values.retain(|key, _| !miharu_store::cluster::is_member_key(key));
    let members = state.cluster.iter().flat_map(|cluster| cluster.members.keys().cloned()).collect();
    (keys(state), values, state.projects.keys().cloned().collect(), members)
}

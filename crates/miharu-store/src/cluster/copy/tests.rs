//! The copy without etcd: what it makes of what it is told, in whatever order that comes.

use std::path::Path;

use super::*;
use crate::certificate::tests::der;
use crate::cluster::codec::ClusterDoc;
use crate::cluster::rpc::KeyValue;
use crate::cluster::seal::SealKey;
use crate::cluster::{Member, codec};
use crate::{Certificate, CertificateType, ParsedCertificate, Store};

const PREFIX: &str = "/miharu/";

fn stored() -> Stored {
    let access = EtcdAccess::parse("etcd://127.0.0.1:1").unwrap();
    let membership = Membership {
        cluster: "c".to_owned(),
        cluster_name: "miharu".to_owned(),
        member: "a".to_owned(),
        member_id: "1".to_owned(),
        seal: SealKey::new().unwrap(),
        prefix: PREFIX.to_owned(),
        endpoints: Vec::new(),
    };
    Stored { membership, access, pending: false, removed: false, synced_at: now() }
}

fn kv(key: &str, value: impl Into<Vec<u8>>, revision: i64) -> KeyValue {
    KeyValue {
        key: format!("{PREFIX}{key}").into_bytes(),
        create_revision: 2,
        mod_revision: revision,
        value: value.into(),
        lease: 0,
    }
}

fn put(key: &str, value: impl Into<Vec<u8>>, revision: i64) -> Event {
    Event { kind: 0, kv: Some(kv(key, value, revision)) }
}

fn deleted(key: &str, revision: i64) -> Event {
    Event { kind: 1, kv: Some(kv(key, "", revision)) }
}

fn parsed() -> ParsedCertificate {
    ParsedCertificate::parse(&der(&rcgen::PKCS_ECDSA_P256_SHA256)).unwrap()
}

fn entry() -> (String, Vec<u8>) {
    let entry = Certificate {
        name: "x".to_owned(),
        description: String::new(),
        certificate_type: CertificateType::Metrics,
        projects: None,
        certificate: parsed(),
        token: None,
    };
    (format!("certificates/{}", entry.certificate.fingerprint()), codec::write_certificate(&entry))
}

fn cluster_doc(id: &str) -> Vec<u8> {
    codec::write_cluster(&ClusterDoc { format: 1, id: id.to_owned(), created_at: 0 })
}

/// A copy of a cluster that trusts one certificate, at revision 10.
fn copy(path: &Path) -> (Shared, Stored, String) {
    let stored = stored();
    let shared = Shared::open(Database::open(path).unwrap(), None).unwrap();
    shared.begin_joining(&stored).unwrap();
    let member = Member {
        name: "a".to_owned(),
        id: "1".to_owned(),
        certificate: parsed(),
        joined_at: 0,
        address: None,
        metrics_address: None,
    };
    let (key, value) = entry();
    let entries = vec![
        kv("cluster", cluster_doc("c"), 2),
        kv("members/a", codec::write_member(&member), 2),
        kv("revision", "5", 10),
        kv(&key, value, 10),
    ];
    let listing = Listing { revision: 10, etcd: 1, entries, too_long: Vec::new() };
    shared.adopt(&stored, listing).unwrap();
    (shared, stored, key)
}

fn trusted(shared: &Shared) -> usize {
    shared.state.load().certificates.len()
}

#[test]
fn a_change_made_here_is_there_once_whether_the_watch_or_the_answer_is_first() {
    let dir = tempfile::tempdir().unwrap();
    let (shared, _, known) = copy(&dir.path().join("miharu.db"));
    let (key, value) = entry();
    let writes = [(key.clone(), Some(value.clone())), ("revision".to_owned(), Some(b"6".to_vec()))];
    shared.take_made(12, &writes).unwrap();
    let state = shared.state.load_full();
    assert_eq!((trusted(&shared), state.revision), (2, 2));
    // The watch is behind: what it brings of an earlier moment, and of this one, changes nothing.
    shared.take_events(PREFIX, 11, vec![put("alive/b", "", 11)]).unwrap();
    shared.take_events(PREFIX, 12, vec![put(&key, value.clone(), 12), put("revision", "6", 12)]).unwrap();
    assert_eq!((trusted(&shared), shared.state.load().revision), (2, 2));

    // The watch is ahead: another member took it back before the answer came.
    let news =
        vec![deleted(&known, 13), put("revision", "7", 13), deleted(&key, 14), put("revision", "8", 14)];
    shared.take_events(PREFIX, 14, news).unwrap();
    let late = [(known, Some(value)), ("revision".to_owned(), Some(b"7".to_vec()))];
    shared.take_made(13, &late).unwrap();
    assert_eq!(trusted(&shared), 0);
}

#[test]
fn what_was_shown_is_in_the_database_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("miharu.db");
    let (shared, ..) = copy(&path);
    let own = BTreeMap::from([("core.metrics_address".to_owned(), ":9101".to_owned())]);
    shared.take_own(own).unwrap();
    let (key, value) = entry();
    shared.take_events(PREFIX, 11, vec![put(&key, value, 11), put("revision", "6", 11)]).unwrap();
    shared.flush().unwrap();
    let shown = shared.state.load_full();
    drop(shared);
    let again = Store::open(&path).unwrap();
    let state = again.load();
    assert_eq!((state.revision, state.certificates.len()), (shown.revision, 2));
    assert_eq!(state.config.get("core.metrics_address"), ":9101");
    assert!(again.sync_status().unwrap().trouble.is_some(), "etcd is not there");
}

#[test]
fn a_revocation_holds_though_the_disk_does_not_take_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("miharu.db");
    let (shared, _, known) = copy(&path);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    shared.take_events(PREFIX, 11, vec![deleted(&known, 11), put("revision", "6", 11)]).unwrap();
    assert_eq!(trusted(&shared), 0);
    assert!(shared.flush().unwrap_err().to_string().contains("could not be stored"));
    assert_eq!(shared.seen().1, 0, "everything is read and stored again");
    other.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn who_empties_etcd_takes_nothing_from_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (shared, stored, known) = copy(&dir.path().join("miharu.db"));
    let news =
        vec![deleted(&known, 11), deleted("members/a", 11), deleted("cluster", 11), deleted("revision", 11)];
    assert!(shared.take_events(PREFIX, 11, news).is_err());
    assert!(shared.take_events(PREFIX, 12, vec![put("cluster", cluster_doc("another"), 12)]).is_err());
    assert!(shared.take_listing(&stored, Listing { revision: 12, etcd: 1, ..Listing::default() }).is_err());
    assert_eq!(trusted(&shared), 1);
    assert!(!shared.state.load().cluster.as_ref().unwrap().removed);
    assert!(shared.local().mirror.as_ref().is_some_and(|mirror| !mirror.removed && mirror.base() == 10));
}

#[test]
fn an_age_is_counted_from_the_last_moment_in_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("miharu.db");
    let (shared, stored, _) = copy(&path);
    assert!(shared.age().unwrap() < Duration::from_secs(5));
    drop(shared);
    let aged = |synced_at| {
        let stored = Stored { synced_at, ..stored.clone() };
        Shared::open(Database::open(&path).unwrap(), Some(&stored)).unwrap().age()
    };
    let hour = aged(now() - 3600).unwrap();
    assert!((3600..3700).contains(&hour.as_secs()), "{hour:?}");
    assert_eq!(aged(now() + 3600), None, "the clock was set back: nobody can tell");
}

//! The store as a whole: what is committed is there after a restart, and nothing else is.

use std::os::unix::fs::PermissionsExt;

use super::certificate::tests::der;
use super::*;

fn certificate(name: &str, projects: Option<&[&str]>) -> Certificate {
    Certificate {
        name: name.to_owned(),
        description: String::new(),
        certificate_type: CertificateType::Metrics,
        projects: projects.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        certificate: ParsedCertificate::parse(&der(&rcgen::PKCS_ECDSA_P384_SHA384)).unwrap(),
    }
}

fn config(key: &str, value: &str) -> Change {
    let values = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    Change::Config(Config::replace(&values).unwrap())
}

#[test]
fn what_is_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("miharu.db");
    let restricted = certificate("a", Some(&["default", "docker/shop"]));
    let store = Store::open(&path).unwrap();
    store.commit(&config("metrics.prefix", "lxd"), None).unwrap();
    store.commit(&Change::AddCertificate(restricted.clone()), None).unwrap();
    let project = DeclaredProject { description: "the shop".to_owned() };
    store.commit(&Change::AddProject("docker/shop".to_owned(), project.clone()), None).unwrap();
    drop(store);

    let state = Store::open(&path).unwrap().load();
    assert_eq!(state.revision, 3);
    assert!(state.config.settings().prefix_lxd);
    assert_eq!(**state.certificates.get(restricted.certificate.fingerprint()).unwrap(), restricted);
    assert_eq!(state.projects.get("docker/shop"), Some(&project));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_change_of_an_older_revision_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("miharu.db")).unwrap();
    store.commit(&config("user.a", "1"), Some(0)).unwrap();
    let late = store.commit(&config("user.a", "2"), Some(0));
    assert!(matches!(late, Err(Error::Conflict { expected: 0, found: 1 })));
    assert_eq!(store.load().config.get("user.a"), "1");
}

#[test]
fn a_certificate_is_added_changed_and_removed_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("miharu.db")).unwrap();
    let mut entry = certificate("a", Some(&["x"]));
    let fingerprint = entry.certificate.fingerprint().to_owned();
    store.commit(&Change::AddCertificate(entry.clone()), None).unwrap();
    assert!(matches!(store.commit(&Change::AddCertificate(entry.clone()), None), Err(Error::Exists(_))));
    entry.projects = None;
    let state = store.commit(&Change::UpdateCertificate(entry.clone()), None).unwrap();
    assert_eq!(state.certificates.get(&fingerprint).unwrap().projects, None);
    let state = store.commit(&Change::RemoveCertificate(fingerprint.clone()), None).unwrap();
    assert!(state.certificates.is_empty());
    assert!(matches!(store.commit(&Change::RemoveCertificate(fingerprint), None), Err(Error::NotFound(_))));
    assert_eq!(store.load().revision, 3);
}

#[test]
fn a_reader_keeps_the_state_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("miharu.db")).unwrap();
    let before = store.load();
    store.commit(&config("user.a", "1"), None).unwrap();
    assert_eq!((before.revision, store.load().revision), (0, 1));
    assert!(before.config.values().is_empty());
}

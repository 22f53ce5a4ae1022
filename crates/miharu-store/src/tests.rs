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
        token: None,
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

fn join_token(id: &str, projects: Option<&[&str]>, expires_at: Option<i64>) -> JoinToken {
    JoinToken {
        id: id.to_owned(),
        secret: Secret::new(format!("secret of {id}")),
        name: "new".to_owned(),
        description: "of a colleague".to_owned(),
        certificate_type: CertificateType::Client,
        projects: projects.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        created_at: 100,
        expires_at,
    }
}

#[test]
fn a_join_token_is_used_once_and_with_its_certificate_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("miharu.db");
    let store = Store::open(&path).unwrap();
    let (first, second) = (join_token("1", Some(&["a", "b"]), Some(200)), join_token("2", None, None));
    store.commit(&Change::AddJoinToken(first.clone()), None).unwrap();
    store.commit(&Change::AddJoinToken(second), None).unwrap();
    drop(store);

    let store = Store::open(&path).unwrap();
    assert_eq!(store.load().join_token("secret of 1").map(|token| (**token).clone()), Some(first));
    assert!(store.load().join_token("secret of 3").is_none());
    let entry = certificate("a", None);
    let state = store.commit(&Change::Redeem("1".to_owned(), entry.clone()), None).unwrap();
    assert!(state.certificates.contains_key(entry.certificate.fingerprint()));
    assert!(state.join_token("secret of 1").is_none());
    let again = store.commit(&Change::Redeem("1".to_owned(), certificate("b", None)), None);
    assert!(matches!(again, Err(Error::NotFound(_))));
    // The certificate is there already, so the token stays what it is worth.
    let known = store.commit(&Change::Redeem("2".to_owned(), entry), None);
    assert!(matches!(known, Err(Error::Exists(_))));
    let state = store.load();
    assert_eq!((state.join_tokens.len(), state.certificates.len()), (1, 1));
    store.commit(&Change::RemoveJoinToken("2".to_owned()), None).unwrap();
    assert!(matches!(store.commit(&Change::RemoveJoinToken("2".to_owned()), None), Err(Error::NotFound(_))));
}

#[test]
fn expired_join_tokens_go_when_another_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("miharu.db")).unwrap();
    for (id, expires_at) in [("1", Some(100)), ("2", Some(101)), ("3", None)] {
        store.commit(&Change::AddJoinToken(join_token(id, Some(&["a"]), expires_at)), None).unwrap();
    }
    store.commit(&Change::AddJoinToken(join_token("4", None, None)), None).unwrap();
    assert_eq!(store.load().join_tokens.keys().collect::<Vec<_>>(), ["2", "3", "4"]);
}

#[test]
fn a_bearer_token_is_found_by_its_secret_and_by_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("miharu.db");
    let token = Certificate { token: Some(SecretHash::of("s")), ..certificate("prometheus", Some(&["a"])) };
    let store = Store::open(&path).unwrap();
    store.commit(&Change::AddCertificate(certificate("other", None)), None).unwrap();
    store.commit(&Change::AddCertificate(token.clone()), None).unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.load().bearer_token("s").map(|entry| (**entry).clone()), Some(token));
    for wrong in ["", "S", "s ", "other"] {
        assert!(store.load().bearer_token(wrong).is_none(), "{wrong}");
    }
    let text = std::fs::read(&path).unwrap();
    assert!(text.windows(10).any(|window| window == b"prometheus"), "the name is in the file");
}

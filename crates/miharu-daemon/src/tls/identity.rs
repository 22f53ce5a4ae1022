//! The certificate that the server shows: its own, made on the first start and picked up again when its files change, or the
//! one of its cluster.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use arc_swap::ArcSwap;
use miharu_store::ParsedCertificate;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use crate::ends::Lasts as _;
use crate::sandbox::keys;

/// How often a handshake looks whether the files have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a certificate made here is valid.
const VALIDITY: time::Duration = time::Duration::days(3652);

/// The name by which members of a cluster ask one another for the server's own certificate instead of the one that all of
/// them show. No host has it (RFC 2606).
pub(crate) const MEMBER_NAME: &str = "member.miharu.invalid";

/// The certificate and key that the server shows.
#[derive(Debug)]
pub(crate) struct Identity {
    dir: PathBuf,
    current: ArcSwap<Shown>,
    /// What the server shows where it proves to be itself and no other member: `server.crt`.
    own: ArcSwap<Shown>,
    /// Whether what is shown comes from the cluster, not from files; held while the one or the other is put in place.
    of_cluster: Mutex<bool>,
    /// When the files were looked at last, and what they were; held for a few stat calls.
    looked: Mutex<(Instant, Option<Stamp>)>,
}

/// What is shown now.
#[derive(Debug)]
struct Shown {
    certified: Arc<CertifiedKey>,
    pem: String,
    fingerprint: String,
    /// When it ends, in seconds since 1970, where that can be read.
    not_after: Option<i64>,
}

/// What tells two versions of the files apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Vec<(PathBuf, u64, u64, i64, i64)>);

impl Identity {
    /// Reads the certificate in `dir`, or makes one for these names and addresses.
    pub(crate) fn open(dir: &Path, names: impl FnOnce() -> Vec<String>) -> anyhow::Result<Self> {
        let (certificate, key) = (dir.join("server.crt"), dir.join("server.key"));
        match (keys::is_there(&certificate), keys::is_there(&key)) {
            (true, true) => {}
            // A start that was cut short leaves a key alone: it gets its certificate now.
            (false, _) => make(&certificate, &key, names())?,
            // Clients pin the certificate, so one without its key is for a person to judge.
            (true, false) => {
                let error = anyhow!(
                    "{certificate} is there but {key} is not: put the key back, or begin with a certificate that nobody has yet: \
                     mv {certificate} {certificate}.without-key",
                    certificate = certificate.display(),
                    key = key.display()
                );
                return Err(error).that_lasts();
            }
        }
        warn_of_readers(&key);
        let stamp = stamp(dir);
        let current = ArcSwap::from_pointee(load(pair(dir))?);
        let own = ArcSwap::from_pointee(load((certificate, key))?);
        let looked = Mutex::new((Instant::now(), stamp));
        Ok(Self { dir: dir.to_owned(), current, own, of_cluster: Mutex::new(false), looked })
    }

    /// The server's own certificate, DER, whatever it shows.
    pub(crate) fn own_der(&self) -> Vec<u8> {
        self.own.load().certified.cert.first().map(|der| der.to_vec()).unwrap_or_default()
    }

    /// The server's own certificate and key.
    pub(super) fn own(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.own.load().certified)
    }

    /// Shows the cluster's certificate from now on, and keeps a copy of it in files, for people to take elsewhere. What the
    /// disk does not take is shown all the same.
    ///
    /// # Errors
    /// When it is none, or not of this key. What was shown before stays.
    pub(crate) fn show_cluster(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        let shown = read(certificate.as_bytes(), key.as_bytes())?;
        let mut of_cluster = self.of_cluster.lock().unwrap_or_else(PoisonError::into_inner);
        *of_cluster = true;
        if shown.fingerprint != self.current.load().fingerprint {
            tracing::info!(fingerprint = shown.fingerprint, "shows the cluster's certificate");
            self.current.store(Arc::new(shown));
        }
        if let Err(error) = write_cluster(&self.dir, certificate, key) {
            tracing::warn!("the cluster's certificate could not be copied: {error}");
        }
        Ok(())
    }

    /// Whether it is the cluster's certificate that is shown.
    pub(crate) fn shows_cluster(&self) -> bool {
        *self.of_cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the server's own certificate again, and takes the cluster's away.
    pub(crate) fn forget_cluster(&self) {
        let mut of_cluster = self.of_cluster.lock().unwrap_or_else(PoisonError::into_inner);
        *of_cluster = false;
        if let Err(error) = remove_cluster(&self.dir) {
            tracing::warn!("the copy of the cluster's certificate could not be removed: {error}");
        }
        self.current.store(self.own.load_full());
        tracing::info!("shows the server's own certificate");
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The certificate, PEM.
    pub(crate) fn pem(&self) -> String {
        self.current.load().pem.clone()
    }

    /// SHA-256 of the certificate's DER.
    pub(crate) fn fingerprint(&self) -> String {
        self.current.load().fingerprint.clone()
    }

    /// When the certificate ends, in seconds since 1970.
    pub(crate) fn not_after(&self) -> Option<i64> {
        self.current.load().not_after
    }

    /// Reads the files again, if they changed since the last look and that is a while ago.
    pub(crate) fn reload_if_changed(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.0.elapsed() < LOOK_INTERVAL {
            return;
        }
        let found = stamp(&self.dir);
        let changed = found != looked.1;
        *looked = (Instant::now(), found);
        drop(looked);
        if changed {
            self.reload();
        }
    }

    /// Reads the files again. A pair that is broken, or half written, leaves the old one in place; the next change of
    /// the files is another chance.
    pub(crate) fn reload(&self) {
        match load((self.dir.join("server.crt"), self.dir.join("server.key"))) {
            Ok(own) => self.own.store(Arc::new(own)),
            Err(error) => tracing::warn!("server.crt stays as it was: {error:#}"),
        }
        let of_cluster = self.of_cluster.lock().unwrap_or_else(PoisonError::into_inner);
        if *of_cluster {
            return;
        }
        match load(pair(&self.dir)) {
            Ok(shown) => {
                if shown.fingerprint != self.current.load().fingerprint {
                    tracing::info!(fingerprint = shown.fingerprint, "the server's certificate was replaced");
                }
                self.current.store(Arc::new(shown));
            }
            Err(error) => tracing::warn!("the server's certificate stays as it was: {error:#}"),
        }
    }
}

impl Identity {
    /// Makes the server's own certificate anew for these names, with the key that it has: so one file is replaced, and a
    /// kill at any moment leaves a pair that fits.
    ///
    /// # Errors
    /// For what cannot be a name, and where the cluster's certificate is shown: its members share that.
    pub(crate) fn renew(&self, own: Vec<String>, further: Vec<String>) -> anyhow::Result<()> {
        let (certificate, key) = (self.dir.join("server.crt"), self.dir.join("server.key"));
        let shown = pair(&self.dir).0;
        if shown != certificate {
            bail!("{} is shown in the place of {}", shown.display(), certificate.display());
        }
        // Who put a link there renews what it leads to in another way, and this would cut it off from that.
        if let Ok(target) = std::fs::read_link(&certificate) {
            bail!(
                "{shown} is a link to {}: renew the certificate there, in the way in which it was made. For one that miharud makes \
                 itself take the link away first: rm {shown}",
                target.display(),
                shown = certificate.display()
            );
        }
        if let Some(name) = further.iter().find(|name| !is_name(name)) {
            bail!("'{name}' is neither a host name nor an address");
        }
        let mut seen = BTreeSet::new();
        let names = own.into_iter().chain(further).filter(|name| seen.insert(name.clone())).collect();
        make(&certificate, &key, names)?;
        self.reload();
        Ok(())
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = if hello.server_name() == Some(MEMBER_NAME) { &self.own } else { &self.current };
        Some(Arc::clone(&shown.load().certified))
    }
}

/// Makes the certificate of a new cluster, or a new one for an old cluster: certificate and key, PEM.
///
/// # Errors
/// For what cannot be a name.
pub(crate) fn make_cluster(names: &[String], further: &[String]) -> anyhow::Result<(String, String)> {
    if let Some(name) = further.iter().find(|name| !is_name(name)) {
        bail!("'{name}' is neither a host name nor an address");
    }
    let mut seen = BTreeSet::new();
    let valid = names.iter().filter(|name| is_name(name)).chain(further);
    let names: Vec<String> = valid.filter(|name| seen.insert((*name).clone())).cloned().collect();
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).context("no key could be made")?;
    Ok((sign(&pair, names)?, pair.serialize_pem()))
}

/// Checks that a certificate and a key can be shown, and tells the certificate's DER.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn check(certificate: &str, key: &str) -> anyhow::Result<Vec<u8>> {
    let shown = read(certificate.as_bytes(), key.as_bytes())?;
    shown.certified.cert.first().map(|der| der.to_vec()).context("no certificate in PEM form")
}

/// Takes the copy of the cluster's certificate away.
pub(crate) fn remove_cluster(dir: &Path) -> io::Result<()> {
    for name in ["cluster.key", "cluster.crt"] {
        match std::fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Keeps a copy of the cluster's certificate in files. One that is cut short leaves a pair that does not fit, which is
/// written anew at the next start, before it is read.
pub(crate) fn write_cluster(dir: &Path, certificate: &str, key: &str) -> io::Result<()> {
    for (name, text, mode) in [("cluster.key", key, 0o600), ("cluster.crt", certificate, 0o644)] {
        let path = dir.join(name);
        if keys::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            continue;
        }
        write(&path, text, mode)?;
    }
    Ok(())
}

/// Whether a client could look for a server under this: an address, or a host name, which may begin with `*.`.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !label.is_empty() && label.len() <= 63 && label.bytes().all(known)
    };
    name.parse::<IpAddr>().is_ok()
        || name.len() <= 253 && name.strip_prefix("*.").unwrap_or(name).split('.').all(label)
}

/// The pair in use: the cluster's where there is one, else the server's own.
fn pair(dir: &Path) -> (PathBuf, PathBuf) {
    let cluster = (dir.join("cluster.crt"), dir.join("cluster.key"));
    if keys::is_there(&cluster.0) && keys::is_there(&cluster.1) {
        return cluster;
    }
    (dir.join("server.crt"), dir.join("server.key"))
}

fn stamp(dir: &Path) -> Option<Stamp> {
    let (certificate, key) = pair(dir);
    let own = [dir.join("server.crt"), dir.join("server.key")];
    let stamps = [certificate, key].into_iter().chain(own).map(|path| {
        let meta = keys::metadata(&path).ok()?;
        Some((path, meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    });
    stamps.collect::<Option<Vec<_>>>().map(Stamp)
}

fn load((certificate, key): (PathBuf, PathBuf)) -> anyhow::Result<Shown> {
    let pem = keys::read(&certificate).with_context(|| unreadable(&certificate))?;
    let key_pem = keys::read(&key).with_context(|| unreadable(&key))?;
    let cannot = || {
        format!(
            "{} and {} cannot be shown; put back a certificate and the key that belongs to it, both as PEM",
            certificate.display(),
            key.display()
        )
    };
    read(&pem, &key_pem).with_context(cannot).that_lasts()
}

/// What cannot be read, and whose it is.
fn unreadable(path: &Path) -> String {
    let shown = path.display();
    match keys::metadata(path) {
        Ok(meta) if meta.is_file() => format!(
            "{shown} belongs to user {} and group {} with mode {:o}; chown it to the user that miharud runs as",
            meta.uid(),
            meta.gid(),
            meta.mode() & 0o7777
        ),
        Ok(meta) if meta.is_dir() => format!("{shown} is a directory, and has to be a file"),
        Ok(_) => format!("{shown} is no regular file"),
        Err(_) => match std::fs::read_link(path) {
            Ok(target) => format!("{shown} is a link to {}", target.display()),
            Err(_) => shown.to_string(),
        },
    }
}

/// The directory can be passed by all, so that the key's own mode keeps them out.
fn warn_of_readers(key: &Path) {
    if keys::metadata(key).is_ok_and(|meta| meta.mode() & 0o007 != 0) {
        tracing::warn!(
            "{0} can be read by every user: chmod 600 {0}, and get a new key if somebody could have",
            key.display()
        );
    }
}

fn read(pem: &[u8], key_pem: &[u8]) -> anyhow::Result<Shown> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .context("no certificate in PEM form")?;
    let Some(leaf) = chain.first() else { bail!("no certificate in PEM form") };
    let shown_pem = crate::pem::encode(leaf);
    let fingerprint = miharu_store::fingerprint(leaf);
    let not_after = ParsedCertificate::parse(leaf).ok().map(|certificate| certificate.not_after());
    let private = PrivateKeyDer::from_pem_slice(key_pem).context("no private key in PEM form")?;
    let signing = any_supported_type(&private).context("the private key")?;
    let certified = CertifiedKey::new(chain, signing);
    // A key that cannot tell its public half is taken as it is.
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(error) => return Err(error).context("the key is not the certificate's"),
    }
    Ok(Shown { certified: Arc::new(certified), pem: shown_pem, fingerprint, not_after })
}

/// Makes a certificate as api.md says: P-384, self-signed, for a server, no authority.
fn make(certificate: &Path, key: &Path, names: Vec<String>) -> anyhow::Result<()> {
    if !keys::is_there(key) {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).context("no key could be made")?;
        write(key, &pair.serialize_pem(), 0o600).with_context(|| key.display().to_string())?;
    }
    let pair = keys::read(key).with_context(|| unreadable(key))?;
    let pair = KeyPair::from_pem(&String::from_utf8_lossy(&pair));
    let pair = pair.with_context(|| key.display().to_string()).that_lasts()?;
    let pem = sign(&pair, names)?;
    write(certificate, &pem, 0o644).with_context(|| certificate.display().to_string())?;
    tracing::info!(path = %certificate.display(), "made the server's certificate");
    Ok(())
}

/// A certificate as api.md says, PEM.
fn sign(pair: &KeyPair, names: Vec<String>) -> anyhow::Result<String> {
    let common_name = names.first().cloned().unwrap_or_else(|| "localhost".to_owned());
    let mut params = CertificateParams::new(names).context("names for the server's certificate")?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "miharu");
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now;
    params.not_after = now + VALIDITY;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let signed = params.self_signed(pair).context("the server's certificate could not be signed")?;
    Ok(signed.pem())
}

/// Writes a file, whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let draft = path.with_extension("new");
    // One left by a daemon that was cut short is of no worth.
    let _ = std::fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    fn names() -> Vec<String> {
        vec!["host".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]
    }

    #[test]
    fn the_first_start_makes_a_pair_and_the_second_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path(), names).unwrap();
        let second = Identity::open(dir.path(), || panic!("not made again")).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        let mode = std::fs::metadata(dir.path().join("server.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let shown = first.current.load();
        let (_, certificate) = X509Certificate::from_der(&shown.certified.cert[0]).unwrap();
        assert!(!certificate.is_ca());
        assert!(certificate.extended_key_usage().unwrap().unwrap().value.server_auth);
        let sans = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(sans.value.general_names.len(), 3);
        let seconds =
            certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
        assert_eq!(seconds, VALIDITY.whole_seconds());
        assert_eq!(first.not_after(), Some(certificate.validity().not_after.timestamp()));
    }

    #[test]
    fn a_renewed_certificate_is_shown_at_once_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path(), names).unwrap();
        let before = identity.fingerprint();
        let further = |name: &str| vec![name.to_owned()];
        identity.renew(names(), further("host")).unwrap();
        assert_ne!(identity.fingerprint(), before);
        for name in ["not a name", "\u{e9}", "", "a..b", "https://host", "10.0.0.1:9100", "x*"] {
            assert!(identity.renew(names(), further(name)).is_err(), "{name}");
        }
        for name in ["metrics.example.org", "*.example.org", "10.0.0.1", "2001:db8::1", "my_host"] {
            assert!(identity.renew(names(), further(name)).is_ok(), "{name}");
        }
        let after = Identity::open(dir.path(), names).unwrap();
        assert_eq!(identity.fingerprint(), after.fingerprint());

        for (own, cluster) in [("server.crt", "cluster.crt"), ("server.key", "cluster.key")] {
            std::fs::copy(dir.path().join(own), dir.path().join(cluster)).unwrap();
        }
        let error = identity.renew(names(), further("host")).unwrap_err();
        assert!(error.to_string().contains("cluster.crt is shown"), "{error}");
    }

    #[test]
    fn a_link_to_anothers_certificate_is_not_replaced_by_an_own_one() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(Identity::open(other.path(), names).unwrap());
        for name in ["server.key", "server.crt"] {
            std::os::unix::fs::symlink(other.path().join(name), dir.path().join(name)).unwrap();
        }
        let identity = Identity::open(dir.path(), || panic!("it is there")).unwrap();
        let (before, link) = (identity.fingerprint(), dir.path().join("server.crt"));
        let error = identity.renew(names(), Vec::new()).unwrap_err().to_string();
        let target = other.path().join("server.crt");
        assert!(error.contains(&format!("is a link to {}", target.display())), "{error}");
        assert_eq!((std::fs::read_link(&link).unwrap(), identity.fingerprint()), (target.clone(), before));
        let untouched = std::fs::read(&target).unwrap();
        // What it says to do helps, and the other's files stay as they are.
        std::fs::remove_file(&link).unwrap();
        identity.renew(names(), Vec::new()).unwrap();
        assert!(link.symlink_metadata().unwrap().is_file());
        assert_ne!(identity.fingerprint(), Identity::open(other.path(), names).unwrap().fingerprint());
        assert_eq!(std::fs::read(&target).unwrap(), untouched);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(Identity::open(dir.path(), names).unwrap());
        for name in ["server.key", "server.crt"] {
            let (path, aside) = (dir.path().join(name), dir.path().join("aside"));
            std::fs::rename(&path, &aside).unwrap();
            std::os::unix::fs::symlink("/nowhere/at/all", &path).unwrap();
            let error = format!("{:#}", Identity::open(dir.path(), names).unwrap_err());
            assert!(error.contains(&format!("{name} is a link to /nowhere/at/all")), "{error}");
            assert!(path.is_symlink(), "{name}");
            std::fs::rename(&aside, &path).unwrap();
        }
        Identity::open(dir.path(), || panic!("not made again")).unwrap();
    }

    #[test]
    fn a_replaced_pair_is_taken_and_a_broken_one_is_not() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let identity = Identity::open(dir.path(), names).unwrap();
        let before = identity.fingerprint();
        let replacement = Identity::open(other.path(), names).unwrap();

        std::fs::copy(other.path().join("server.crt"), dir.path().join("server.crt")).unwrap();
        identity.reload();
        assert_eq!(identity.fingerprint(), before, "the certificate does not fit the key yet");
        std::fs::copy(other.path().join("server.key"), dir.path().join("server.key")).unwrap();
        identity.reload();
        assert_eq!(identity.fingerprint(), replacement.fingerprint());
        std::fs::write(dir.path().join("server.crt"), "rubbish").unwrap();
        identity.reload();
        assert_eq!(identity.fingerprint(), replacement.fingerprint());
    }
}

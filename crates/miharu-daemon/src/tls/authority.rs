//! PKI mode: with `server.ca` in the daemon's directory, client certificates count only when that authority signed them and
//! `ca.crl` does not revoke them.
//!
//! Both files are read again when they change. One that cannot be used refuses every certificate: what it would have
//! forbidden cannot be told any more.

pub(crate) mod revoked;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use revoked::Revoked;

use crate::sandbox::keys;

/// How often a request looks whether the files have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The certificate authority of the clients, if there is one.
#[derive(Debug)]
pub(crate) struct Authority {
    dir: PathBuf,
    current: ArcSwap<Loaded>,
    /// When the files were looked at last, and what they were; held for two stat calls.
    looked: Mutex<(Instant, [Stamp; 2])>,
}

/// What the authority says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no authority: only the trust store counts.
    NoAuthority,
    /// It signed the certificate, and has not revoked it.
    Signed(Purpose),
    /// It did not sign it, or has revoked it, or nobody can tell.
    Refused,
}

/// What the authority signed a certificate for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To show to servers, or for anything.
    Client,
    /// For other things alone, such as to be a server.
    Other,
}

/// What the files say.
#[derive(Debug)]
enum Loaded {
    Absent,
    Broken(String),
    InForce(InForce),
}

#[derive(Debug)]
struct InForce {
    authorities: Vec<Issuer>,
    revoked: Revoked,
}

/// A certificate of the authority.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// Its subject, DER: what the certificates that it signed name as their issuer.
    subject: Vec<u8>,
    pub(crate) der: Vec<u8>,
    /// When it ends, in seconds since 1970.
    not_after: i64,
}

/// What tells two versions of a file apart; `None` when there is none.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Authority {
    /// Reads `server.ca` and `ca.crl` in `dir`.
    pub(crate) fn open(dir: &Path) -> Self {
        let stamps = stamps(dir);
        let loaded = load(dir);
        say(&loaded);
        Self {
            dir: dir.to_owned(),
            current: ArcSwap::from_pointee(loaded),
            looked: Mutex::new((Instant::now(), stamps)),
        }
    }

    /// What it says of a certificate at that moment.
    pub(crate) fn judge(&self, der: &[u8], now: SystemTime) -> Verdict {
        self.reload_if_changed();
        match &**self.current.load() {
            Loaded::Absent => Verdict::NoAuthority,
            Loaded::Broken(_) => Verdict::Refused,
            Loaded::InForce(force) => force.judge(der, now).unwrap_or(Verdict::Refused),
        }
    }

    /// When the first of its certificates that have not ended by that moment does, both in seconds since 1970.
    pub(crate) fn first_end(&self, now: i64) -> Option<i64> {
        let current = self.current.load();
        let Loaded::InForce(force) = &**current else { return None };
        force.authorities.iter().map(|issuer| issuer.not_after).filter(|end| *end > now).min()
    }

    /// What is wrong with its files at that moment, for people.
    pub(crate) fn problems(&self, now: SystemTime) -> Vec<String> {
        self.reload_if_changed();
        match &**self.current.load() {
            Loaded::Absent => Vec::new(),
            Loaded::Broken(problem) => vec![format!("no client certificate is accepted: {problem}")],
            Loaded::InForce(force) => {
                let mut problems = Vec::new();
                let now = asn1(now);
                if !force.authorities.iter().any(|issuer| issuer.holds_at(now)) {
                    problems.push("no client certificate is accepted: server.ca has expired".to_owned());
                }
                if force.revoked.is_overdue(now) {
                    problems.push(
                        "ca.crl is overdue: what was revoked since its last update is still accepted, so \
                         fetch a newer list"
                            .to_owned(),
                    );
                }
                problems
            }
        }
    }

    /// Reads the files again, if they changed since the last look and that is a while ago.
    fn reload_if_changed(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.0.elapsed() < LOOK_INTERVAL {
            return;
        }
        let found = stamps(&self.dir);
        let changed = found != looked.1;
        *looked = (Instant::now(), found);
        // Read under the lock, so that no older content can take the place of a newer one.
        if changed {
            self.reload();
        }
    }

    /// Reads the files again.
    pub(crate) fn reload(&self) {
        let loaded = load(&self.dir);
        say(&loaded);
        self.current.store(Arc::new(loaded));
    }
}

impl InForce {
    /// `None` for what is refused.
    fn judge(&self, der: &[u8], now: SystemTime) -> Option<Verdict> {
        let now = asn1(now);
        let (_, leaf) = X509Certificate::from_der(der).ok()?;
        if !leaf.validity().is_valid_at(now) || !is_sound(&leaf) {
            return None;
        }
        let issuer = leaf.issuer().as_raw();
        let signed = self.authorities.iter().filter(|known| known.subject == issuer).any(|known| {
            X509Certificate::from_der(&known.der).is_ok_and(|(_, authority)| {
                authority.validity().is_valid_at(now)
                    && leaf.verify_signature(Some(authority.public_key())).is_ok()
            })
        });
        if !signed || self.revoked.contains(issuer, leaf.raw_serial()) {
            return None;
        }
        let usage = leaf.extended_key_usage().ok()?;
        let for_clients = usage.is_none_or(|usage| usage.value.any || usage.value.client_auth);
        Some(Verdict::Signed(if for_clients { Purpose::Client } else { Purpose::Other }))
    }
}

impl Issuer {
    fn holds_at(&self, now: ASN1Time) -> bool {
        X509Certificate::from_der(&self.der).is_ok_and(|(_, it)| it.validity().is_valid_at(now))
    }
}

/// Whether the signature names one algorithm, and one that cannot be forged.
fn is_sound(certificate: &X509Certificate<'_>) -> bool {
    let algorithm = &certificate.signature_algorithm.algorithm;
    certificate.signature_algorithm == certificate.tbs_certificate.signature
        && *algorithm != OID_PKCS1_SHA1WITHRSA
        && *algorithm != OID_SHA1_WITH_RSA
}

fn asn1(moment: SystemTime) -> ASN1Time {
    let seconds = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
        .unwrap_or(ASN1Time::now())
}

fn stamps(dir: &Path) -> [Stamp; 2] {
    ["server.ca", "ca.crl"].map(|name| {
        let meta = keys::metadata(&dir.join(name)).ok()?;
        Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    })
}

fn say(loaded: &Loaded) {
    match loaded {
        Loaded::Absent => {}
        Loaded::Broken(problem) => tracing::error!("no client certificate is accepted: {problem}"),
        Loaded::InForce(force) => tracing::info!(
            authorities = force.authorities.len(),
            revoked = force.revoked.len(),
            "client certificates have to be signed by server.ca"
        ),
    }
}

fn load(dir: &Path) -> Loaded {
    match read(dir) {
        Ok(Some(force)) => Loaded::InForce(force),
        Ok(None) => Loaded::Absent,
        Err(error) => Loaded::Broken(format!("{error:#}")),
    }
}

fn read(dir: &Path) -> anyhow::Result<Option<InForce>> {
    let path = dir.join("server.ca");
    let Some(text) = file(&path)? else { return Ok(None) };
    let authorities = authorities(&text).with_context(|| path.display().to_string())?;
    let path = dir.join("ca.crl");
    let revoked = match file(&path)? {
        None => Revoked::default(),
        Some(list) => {
            let issuers: Vec<&[u8]> = authorities.iter().map(|issuer| issuer.der.as_slice()).collect();
            Revoked::read(&list, &issuers).with_context(|| path.display().to_string())?
        }
    };
    Ok(Some(InForce { authorities, revoked }))
}

/// A file's content, `None` when there is none. Only that: one that may not be read, or a link that leads nowhere, is an error.
fn file(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match keys::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !keys::is_there(path) => Ok(None),
        other => other.map(Some).with_context(|| path.display().to_string()),
    }
}

/// The certificates of `server.ca`: one or several, PEM.
pub(crate) fn authorities(text: &[u8]) -> anyhow::Result<Vec<Issuer>> {
    let mut found = Vec::new();
    for pem in Pem::iter_from_buffer(text) {
        let pem = pem.context("broken PEM")?;
        ensure!(pem.label == "CERTIFICATE", "a {} where certificates are expected", pem.label);
        let (rest, certificate) = X509Certificate::from_der(&pem.contents).context("broken certificate")?;
        ensure!(rest.is_empty(), "unexpected data after a certificate");
        let name = certificate.subject();
        ensure!(certificate.is_ca(), "the certificate of '{name}' is none of an authority (CA:TRUE)");
        let usage = certificate.key_usage().context("broken key usage")?;
        ensure!(
            usage.is_none_or(|usage| usage.value.key_cert_sign()),
            "the key of '{name}' is not for signing certificates"
        );
        let not_after = certificate.validity().not_after.timestamp();
        found.push(Issuer { subject: name.as_raw().to_vec(), der: pem.contents.clone(), not_after });
    }
    ensure!(!found.is_empty(), "no certificate in PEM form");
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests;

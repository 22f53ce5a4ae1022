//! What each key in etcd holds: JSON, read as what anybody could have written there.
//!
//! | key under the prefix | what |
//! |---|---|
//! | `cluster` | the cluster's id, format and age |
//! | `revision` | a number that grows with every change of what is trusted or configured; each change compares it |
//! | `config` | the server keys that all members share |
//! | `certificate` | the certificate that all serve with, its key sealed |
//! | `certificates/FINGERPRINT` | an entry of the trust store |
//! | `tokens/ID` | a join token of a client, its secret sealed |
//! | `projects/NAME` | a declared project |
//! | `members/NAME` | a member |
//! | `invitations/NAME` | a join token of a member, as a hash, with the seal's key sealed under the secret; it hangs on a lease |
//! | `alive/NAME` | there for as long as the member keeps its lease |
//! | `claim` | who is making the cluster right now; it hangs on a lease |
//! | `~status/NAME` | what the member said of itself last: version, instances, when |
//! | `~writers/NAME` | the last change of that member, by a random id: how a change whose answer was lost is found again |
//!
//! What begins with `~` is read when it is wanted. Members watch all that sorts before it: if each were told whenever the number
//! of another's instances changes, a thousand would be told a hundred thousand times a second.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::seal::{NoRandom, SealKey};
use super::{ClusterCertificate, Member, PendingInvitation};
use crate::certificate::{Certificate, CertificateType, ParsedCertificate};
use crate::token::{JoinToken, Secret, SecretHash};
use crate::{DeclaredProject, fingerprint};

/// The format of what is written here. A store of a later one is left alone.
pub(crate) const FORMAT: u32 = 1;
/// The longest value of a key, in bytes; that of the configuration is longer.
const VALUE_LIMIT: usize = 64 * 1024;
pub(crate) const CONFIG_LIMIT: usize = 1024 * 1024;

/// What follows the prefix of the keys that no member watches.
pub(crate) const UNWATCHED: &str = "~";

/// What a key is, by its name under the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyName<'a> {
    Cluster,
    Revision,
    Config,
    Certificate,
    Certificates(&'a str),
    Tokens(&'a str),
    Projects(&'a str),
    Members(&'a str),
    Invitations(&'a str),
    Alive(&'a str),
    Claim,
    /// A later version's.
    Unknown,
}

impl<'a> KeyName<'a> {
    pub(crate) fn of(key: &'a str) -> Self {
        match key.split_once('/') {
            None => match key {
                "cluster" => Self::Cluster,
                "revision" => Self::Revision,
                "config" => Self::Config,
                "certificate" => Self::Certificate,
                "claim" => Self::Claim,
                _ => Self::Unknown,
            },
            Some(("certificates", name)) => Self::Certificates(name),
            Some(("tokens", name)) => Self::Tokens(name),
            Some(("projects", name)) => Self::Projects(name),
            Some(("members", name)) => Self::Members(name),
            Some(("invitations", name)) => Self::Invitations(name),
            Some(("alive", name)) => Self::Alive(name),
            Some(_) => Self::Unknown,
        }
    }

    /// Whether the database keeps it: not what is true of a moment only.
    pub(crate) fn is_kept(self) -> bool {
        !matches!(self, Self::Alive(_) | Self::Claim | Self::Unknown)
    }
}

/// `cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterDoc {
    pub(crate) format: u32,
    pub(crate) id: String,
    pub(crate) created_at: i64,
}

#[derive(Serialize, Deserialize)]
struct CertificateDoc {
    name: String,
    description: String,
    r#type: String,
    /// Written even where it says nothing new: a document without it must not open more than one with it.
    restricted: bool,
    projects: BTreeSet<String>,
    der: String,
    token: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct TokenDoc {
    secret: String,
    name: String,
    description: String,
    r#type: String,
    restricted: bool,
    projects: BTreeSet<String>,
    created_at: i64,
    expires_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct ProjectDoc {
    description: String,
}

#[derive(Serialize, Deserialize)]
struct MemberDoc {
    id: String,
    certificate: String,
    joined_at: i64,
    address: Option<String>,
    metrics_address: Option<String>,
}

/// `invitations/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InvitationDoc {
    pub(crate) id: String,
    /// SHA-256 of the secret, hexadecimal.
    pub(crate) secret: String,
    /// The cluster's key, sealed under the secret.
    pub(crate) seal: String,
    /// The fingerprint of the cluster's certificate that the token tells.
    pub(crate) fingerprint: String,
    pub(crate) created_at: i64,
    pub(crate) expires_at: i64,
}

#[derive(Serialize, Deserialize)]
struct ServedDoc {
    certificate: String,
    key: String,
}

/// `~status/NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatusDoc {
    pub(crate) version: String,
    pub(crate) instances: u64,
    /// In seconds since 1970, by the member's clock.
    pub(crate) seen_at: i64,
}

/// Reads a value of at most `limit` bytes.
fn read<T: DeserializeOwned>(value: &[u8], limit: usize) -> Result<T, String> {
    if value.len() > limit {
        return Err(format!("it is longer than {limit} bytes"));
    }
    // serde_json says a line and a column, and of the text a single character at most.
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

fn write<T: Serialize>(doc: &T) -> Vec<u8> {
    // Maps with strings for keys, strings and numbers can always be written.
    serde_json::to_vec(doc).unwrap_or_default()
}

fn certificate_type(word: &str) -> Result<CertificateType, String> {
    CertificateType::parse(word).ok_or_else(|| "it is of an unknown type".to_owned())
}

fn der(text: &str) -> Result<ParsedCertificate, String> {
    let der = STANDARD.decode(text).map_err(|_| "its certificate is no base64".to_owned())?;
    ParsedCertificate::parse(&der).map_err(|error| error.to_string())
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

pub(crate) fn read_cluster(value: &[u8]) -> Result<ClusterDoc, String> {
    let doc: ClusterDoc = read(value, VALUE_LIMIT)?;
    if doc.format > FORMAT {
        return Err(format!(
            "its format is {}, this version knows up to {FORMAT}: update miharu",
            doc.format
        ));
    }
    Ok(doc)
}

pub(crate) fn write_cluster(doc: &ClusterDoc) -> Vec<u8> {
    write(doc)
}

/// The number in `revision`; one that cannot be read counts as none, as only its being another than before matters. So does one
/// from which nobody could count on.
pub(crate) fn read_revision(value: &[u8]) -> u64 {
    counted(value).filter(|number| *number < u64::MAX).unwrap_or_default()
}

/// What `revision` holds after one more change: the next number, and the change's random id, so that two histories that part
/// after a snapshot never agree by chance. The last number that can be counted on from is followed by the first.
pub(crate) fn next_revision(number: u64, id: &str) -> String {
    let next = number.checked_add(1).filter(|next| *next < u64::MAX).unwrap_or(1);
    format!("{next} {id}")
}

fn counted(value: &[u8]) -> Option<u64> {
    number(value.split(|byte| *byte == b' ').next()?)
}

pub(crate) fn read_config(value: &[u8]) -> Result<BTreeMap<String, String>, String> {
    read(value, CONFIG_LIMIT)
}

pub(crate) fn write_config(values: &BTreeMap<String, String>) -> Vec<u8> {
    write(values)
}

pub(crate) fn read_certificate(name: &str, value: &[u8]) -> Result<Certificate, String> {
    let doc: CertificateDoc = read(value, VALUE_LIMIT)?;
    let certificate = der(&doc.der)?;
    if certificate.fingerprint() != name {
        return Err("its name is not its fingerprint".to_owned());
    }
    let token = match doc.token {
        None => None,
        Some(hash) => Some(SecretHash::from_hex(&hash).ok_or("its token's hash is none")?),
    };
    Ok(Certificate {
        name: doc.name,
        description: doc.description,
        certificate_type: certificate_type(&doc.r#type)?,
        projects: doc.restricted.then_some(doc.projects),
        certificate,
        token,
    })
}

pub(crate) fn write_certificate(entry: &Certificate) -> Vec<u8> {
    write(&CertificateDoc {
        name: entry.name.clone(),
        description: entry.description.clone(),
        r#type: entry.certificate_type.as_str().to_owned(),
        restricted: entry.projects.is_some(),
        projects: entry.projects.clone().unwrap_or_default(),
        der: STANDARD.encode(entry.certificate.der()),
        token: entry.token.as_ref().map(SecretHash::to_hex),
    })
}

/// What a secret is sealed for: one place in one cluster.
fn context(cluster: &str, place: &str) -> String {
    format!("{cluster}/{place}")
}

pub(crate) fn read_token(id: &str, value: &[u8], seal: &SealKey, cluster: &str) -> Result<JoinToken, String> {
    let doc: TokenDoc = read(value, VALUE_LIMIT)?;
    let secret = seal.open(&context(cluster, &format!("tokens/{id}")), &doc.secret);
    let secret = secret.map_err(|error| error.to_string())?;
    let secret = String::from_utf8(secret).map_err(|_| "its secret is no text".to_owned())?;
    Ok(JoinToken {
        id: id.to_owned(),
        secret: Secret::new(secret),
        name: doc.name,
        description: doc.description,
        certificate_type: certificate_type(&doc.r#type)?,
        projects: doc.restricted.then_some(doc.projects),
        created_at: doc.created_at,
        expires_at: doc.expires_at,
    })
}

pub(crate) fn write_token(token: &JoinToken, seal: &SealKey, cluster: &str) -> Result<Vec<u8>, NoRandom> {
    let place = context(cluster, &format!("tokens/{}", token.id));
    Ok(write(&TokenDoc {
        secret: seal.seal(&place, token.secret.reveal().as_bytes())?,
        name: token.name.clone(),
        description: token.description.clone(),
        r#type: token.certificate_type.as_str().to_owned(),
        restricted: token.projects.is_some(),
        projects: token.projects.clone().unwrap_or_default(),
        created_at: token.created_at,
        expires_at: token.expires_at,
    }))
}

pub(crate) fn read_project(value: &[u8]) -> Result<DeclaredProject, String> {
    let doc: ProjectDoc = read(value, VALUE_LIMIT)?;
    Ok(DeclaredProject { description: doc.description })
}

pub(crate) fn write_project(project: &DeclaredProject) -> Vec<u8> {
    write(&ProjectDoc { description: project.description.clone() })
}

pub(crate) fn read_member(name: &str, value: &[u8]) -> Result<Member, String> {
    if !is_member_name(name) {
        return Err("it is no name of a member".to_owned());
    }
    let doc: MemberDoc = read(value, VALUE_LIMIT)?;
    let address = |text: Option<String>| match text {
        Some(text) => crate::ListenAddress::parse(&text, 0).map(|_| Some(text)),
        None => Ok(None),
    };
    Ok(Member {
        name: name.to_owned(),
        id: doc.id,
        certificate: der(&doc.certificate)?,
        joined_at: doc.joined_at,
        address: address(doc.address)?,
        metrics_address: address(doc.metrics_address)?,
    })
}

pub(crate) fn write_member(member: &Member) -> Vec<u8> {
    write(&MemberDoc {
        id: member.id.clone(),
        certificate: STANDARD.encode(member.certificate.der()),
        joined_at: member.joined_at,
        address: member.address.clone(),
        metrics_address: member.metrics_address.clone(),
    })
}

pub(crate) fn read_invitation(value: &[u8]) -> Result<InvitationDoc, String> {
    read(value, VALUE_LIMIT)
}

pub(crate) fn write_invitation(doc: &InvitationDoc) -> Vec<u8> {
    write(doc)
}

impl InvitationDoc {
    pub(crate) fn pending(&self) -> PendingInvitation {
        PendingInvitation { id: self.id.clone(), created_at: self.created_at, expires_at: self.expires_at }
    }
}

/// Where the seal's key is sealed for a new member.
pub(crate) fn invitation_context(cluster: &str, name: &str) -> String {
    context(cluster, &format!("invitations/{name}"))
}

pub(crate) fn read_served(value: &[u8], seal: &SealKey, cluster: &str) -> Result<ClusterCertificate, String> {
    let doc: ServedDoc = read(value, VALUE_LIMIT)?;
    let key =
        seal.open(&served_context(cluster, &doc.certificate), &doc.key).map_err(|error| error.to_string())?;
    let key = String::from_utf8(key).map_err(|_| "its key is no text".to_owned())?;
    Ok(ClusterCertificate { certificate_pem: doc.certificate, key_pem: Secret::new(key) })
}

pub(crate) fn write_served(
    served: &ClusterCertificate,
    seal: &SealKey,
    cluster: &str,
) -> Result<Vec<u8>, NoRandom> {
    let place = served_context(cluster, &served.certificate_pem);
    let key = seal.seal(&place, served.key_pem.reveal().as_bytes())?;
    Ok(write(&ServedDoc { certificate: served.certificate_pem.clone(), key }))
}

/// The key is sealed for its own certificate, so that no other can be put in its place.
fn served_context(cluster: &str, certificate: &str) -> String {
    context(cluster, &format!("certificate/{}", fingerprint(certificate.as_bytes())))
}

pub(crate) fn read_status(value: &[u8]) -> Result<StatusDoc, String> {
    let mut doc: StatusDoc = read(value, VALUE_LIMIT)?;
    doc.version = doc.version.chars().filter(|c| !c.is_control()).take(100).collect();
    Ok(doc)
}

pub(crate) fn write_status(doc: &StatusDoc) -> Vec<u8> {
    write(doc)
}

/// Whether a key under a prefix is one that an earlier cluster could have left there, by its name and by what it holds: another
/// program's `config` or `members/1` is not.
pub(crate) fn could_be_ours(key: &str, value: &[u8]) -> bool {
    fn is<T: DeserializeOwned>(value: &[u8]) -> bool {
        read::<T>(value, VALUE_LIMIT).is_ok()
    }
    match KeyName::of(key) {
        KeyName::Cluster => is::<ClusterDoc>(value),
        KeyName::Revision => counted(value).is_some(),
        KeyName::Alive(_) => number(value).is_some(),
        KeyName::Config => read_config(value).is_ok(),
        KeyName::Certificate => is::<ServedDoc>(value),
        KeyName::Certificates(name) => read_certificate(name, value).is_ok(),
        KeyName::Tokens(_) => is::<TokenDoc>(value),
        KeyName::Projects(_) => is::<ProjectDoc>(value),
        KeyName::Members(name) => read_member(name, value).is_ok(),
        KeyName::Invitations(_) => is::<InvitationDoc>(value),
        // Who made it holds a lease, and it is gone soon.
        KeyName::Claim => true,
        KeyName::Unknown => key.starts_with(UNWATCHED),
    }
}

/// Whether a member may be called so: what a host may be called, and `_`.
#[must_use]
pub(crate) fn is_member_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::certificate::tests::der as new_der;

    fn parsed() -> ParsedCertificate {
        ParsedCertificate::parse(&new_der(&rcgen::PKCS_ECDSA_P256_SHA256)).unwrap()
    }

    fn entry(projects: Option<&[&str]>, token: Option<SecretHash>) -> Certificate {
        Certificate {
            name: "n".to_owned(),
            description: "d".to_owned(),
            certificate_type: CertificateType::Metrics,
            projects: projects.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            certificate: parsed(),
            token,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let seal = SealKey::new().unwrap();
        for entry in
            [entry(None, None), entry(Some(&["a"]), None), entry(Some(&[]), Some(SecretHash::of("s")))]
        {
            let name = entry.certificate.fingerprint();
            assert_eq!(read_certificate(name, &write_certificate(&entry)), Ok(entry.clone()));
        }
        let member = Member {
            name: "a".to_owned(),
            id: "1".to_owned(),
            certificate: parsed(),
            joined_at: 7,
            address: Some("a.example:8443".to_owned()),
            metrics_address: None,
        };
        assert_eq!(read_member("a", &write_member(&member)), Ok(member));
        let served =
            ClusterCertificate { certificate_pem: "crt".to_owned(), key_pem: Secret::new("hush".to_owned()) };
        let written = write_served(&served, &seal, "c").unwrap();
        assert!(!String::from_utf8_lossy(&written).contains("hush"));
        assert_eq!(read_served(&written, &seal, "c"), Ok(served));
        assert!(read_served(&written, &seal, "another").is_err());
        let swapped = String::from_utf8(written).unwrap().replace("crt", "xyz");
        assert!(read_served(swapped.as_bytes(), &seal, "c").is_err(), "the certificate is another");
    }

    #[test]
    fn a_restriction_that_is_left_out_opens_nothing() {
        let entry = entry(Some(&["a"]), None);
        let mut doc: serde_json::Value = serde_json::from_slice(&write_certificate(&entry)).unwrap();
        doc.as_object_mut().unwrap().remove("restricted");
        assert!(read_certificate(entry.certificate.fingerprint(), &write(&doc)).is_err());
        let other = write_certificate(&self::entry(None, None));
        assert!(read_certificate(entry.certificate.fingerprint(), &other).is_err(), "another's certificate");
    }

    #[test]
    fn what_another_program_has_written_is_not_taken_for_a_cluster_s() {
        let member = br#"{"id":"1","certificate":"","joined_at":0,"address":null,"metrics_address":null}"#;
        let theirs: [(&str, &[u8]); 9] = [
            ("config", b"[server]"),
            ("config", br#"{"port":1}"#),
            ("members/1", b"10.0.0.1"),
            ("members/1", member),
            ("certificates/web", b"-----BEGIN CERTIFICATE-----"),
            ("projects/x", b"{}"),
            ("revision", b"v7"),
            ("cluster", b"eu"),
            ("leader", b"a"),
        ];
        for (key, value) in theirs {
            assert!(!could_be_ours(key, value), "{key}");
        }
        let entry = entry(Some(&["a"]), None);
        let seal = SealKey::new().unwrap();
        let served =
            ClusterCertificate { certificate_pem: "crt".to_owned(), key_pem: Secret::new("hush".to_owned()) };
        let ours = [
            (format!("certificates/{}", entry.certificate.fingerprint()), write_certificate(&entry)),
            ("certificate".to_owned(), write_served(&served, &seal, "c").unwrap()),
            ("projects/x".to_owned(), write_project(&DeclaredProject::default())),
            ("config".to_owned(), write_config(&BTreeMap::new())),
            ("revision".to_owned(), b"7".to_vec()),
            ("claim".to_owned(), b"id".to_vec()),
            ("~status/a".to_owned(), write_status(&StatusDoc::default())),
        ];
        for (key, value) in ours {
            assert!(could_be_ours(&key, &value), "{key}");
        }
    }

    #[test]
    fn there_is_always_a_next_revision() {
        for (text, number) in [
            ("7", 7),
            ("7 0b1c", 7),
            (" 7", 0),
            ("18446744073709551614", u64::MAX - 1),
            ("18446744073709551615", 0),
            ("-1", 0),
            ("x", 0),
        ] {
            assert_eq!(read_revision(text.as_bytes()), number, "{text}");
            let next = next_revision(read_revision(text.as_bytes()), "id");
            assert!(next.ends_with(" id") && read_revision(next.as_bytes()) > 0, "{next}");
        }
    }

    #[test]
    fn names_of_members_are_those_of_hosts() {
        for name in ["a", "host-1.example", "A_1"] {
            assert!(is_member_name(name), "{name}");
        }
        for name in ["", "-a", ".", "..", "a/b", "a b", "\u{e9}", &"a".repeat(64)] {
            assert!(!is_member_name(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(value in proptest::collection::vec(any::<u8>(), 0..200), name in any::<String>()) {
            let seal = SealKey::new().unwrap();
            let _ = read_cluster(&value);
            let _ = read_config(&value);
            let _ = read_certificate(&name, &value);
            let _ = read_token(&name, &value, &seal, "c");
            let _ = read_project(&value);
            let _ = read_member(&name, &value);
            let _ = read_invitation(&value);
            let _ = read_served(&value, &seal, "c");
            let _ = read_status(&value);
            let _ = KeyName::of(&name);
        }
    }
}

//! The readers of keys, tokens, certificates and of what etcd holds, for `miharu-fuzz`. Each panics where what it read breaks the
//! reader's own rules.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cluster::EtcdAccess;
use crate::cluster::Invitation;
use crate::cluster::codec::{self, KeyName};
use crate::cluster::mirror::{Entry, Membership, Mirror};
use crate::cluster::seal::SealKey;
use crate::token::SecretHash;
use crate::{Config, Expiry, KEYS, ListenAddress, ParsedCertificate};

/// A server key and its value, divided by `=`; without one the text is tried as the value of every key.
pub fn server_key(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let pairs: Vec<(&str, &str)> = match text.split_once('=') {
        Some(pair) => vec![pair],
        None => KEYS.iter().map(|key| (key.name, text)).collect(),
    };
    for (key, value) in pairs {
        let Ok(config) = Config::default().merge(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
        else {
            continue;
        };
        // What was taken is taken again in the form in which it is kept, and means something.
        let kept = config.values().clone();
        assert_eq!(Config::default().merge(&kept).as_ref().map(Config::values), Ok(&kept), "{key}");
        let settings = config.settings();
        assert!(settings.collect_timeout.as_secs() <= 3600 && settings.cache.as_secs() <= 86_400);
        for name in [value, "u1", "lxc/u1", ""] {
            let _ = (settings.excluded_families.matches(name), settings.excluded_families.matches(key));
        }
    }
}

/// What else people write: addresses, spans of time, where etcd is, a member's join token.
pub fn words(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(address) = ListenAddress::parse(text, 9100) {
        let again = ListenAddress::parse(&address.to_string(), 1).map(|again| again.port);
        assert_eq!(again, Ok(address.port), "{text:?}");
    }
    if let Ok(span) = Expiry::parse(text) {
        assert!(span.after(1_800_000_000).is_none_or(|end| end > 1_800_000_000));
        assert!(span.length().as_secs() > 0);
    }
    if let Ok(access) = EtcdAccess::parse(text) {
        assert!(!access.endpoints().is_empty() && !access.cluster_name().is_empty());
    }
    for token in [text.to_owned(), STANDARD.encode(text)] {
        if let Ok(invitation) = Invitation::from_token(&token) {
            assert!(codec::is_member_name(&invitation.member));
        }
    }
    if let Some(hash) = SecretHash::from_hex(text) {
        assert_eq!(hash.to_hex(), text.to_ascii_lowercase());
    }
}

/// A certificate's DER.
pub fn certificate(der: &[u8]) {
    let Ok(certificate) = ParsedCertificate::parse(der) else { return };
    assert!(certificate.der() == der && certificate.fingerprint().len() == 64);
    let moment = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
    assert!(!certificate.is_valid_at(moment) || certificate.not_before() <= certificate.not_after());
}

/// What etcd tells: changes, divided by zero bytes, each a key, a newline and its value; a key alone is gone.
pub fn etcd(bytes: &[u8]) {
    let Some(seal) = SealKey::restore(&[7; 32]) else { return };
    let text = |text: &str| text.to_owned();
    let mut mirror = Mirror::new(Membership {
        cluster: text("id"),
        cluster_name: text("miharu"),
        member: text("a"),
        member_id: text("1"),
        seal,
        prefix: text("/miharu/"),
        endpoints: Vec::new(),
    });
    for (revision, change) in (1..).zip(bytes.split(|byte| *byte == 0).take(64)) {
        let mut parts = change.splitn(2, |byte| *byte == b'\n');
        let Some(Ok(key)) = parts.next().map(std::str::from_utf8) else { continue };
        let entry =
            parts.next().map(|value| Entry { value: value.to_vec(), created: revision, modified: revision });
        if let Some(entry) = &entry {
            let _ =
                (KeyName::of(key), codec::read_status(&entry.value), codec::could_be_ours(key, &entry.value));
            let next = codec::next_revision(codec::read_revision(&entry.value), "x");
            assert!(codec::read_revision(next.as_bytes()) > 0);
        }
        let _ = mirror.apply(key, entry, 1_800_000_000);
    }
    mirror.settle();
    let state = mirror.state(1, &BTreeMap::new());
    let _ = (state.config.settings(), mirror.presence(1_800_000_000), mirror.has_others());
    assert!(state.certificates.iter().all(|(name, entry)| entry.certificate.fingerprint() == name));
    assert!(mirror.members().keys().all(|name| codec::is_member_name(name)));
    assert!(mirror.bad_keys().len() <= 64);
    assert!(!mirror.removed || state.certificates.is_empty() && state.join_tokens.is_empty());
}

//! Secrets that lie in etcd are sealed, so that reading etcd alone gives none of them away.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

/// A key that seals and opens; it never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SealKey([u8; 32]);

/// What was sealed is not what the key and the context open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was not sealed by a member of this cluster")]
pub(crate) struct NotSealed;

/// The system has no random numbers to give.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system has no random numbers to give")]
pub(crate) struct NoRandom;

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// A new random UUID (RFC 9562, version 4).
pub(crate) fn uuid() -> Result<String, NoRandom> {
    let value = u128::from_be_bytes(random()?);
    let value = value & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let text = format!("{value:032x}");
    let part = |range| text.get(range).unwrap_or_default();
    Ok(format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)))
}

impl SealKey {
    /// A new one.
    pub(crate) fn new() -> Result<Self, NoRandom> {
        random().map(Self)
    }

    /// One that was kept.
    pub(crate) fn restore(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The key that comes from a secret of 32 random bytes, for this one purpose.
    pub(crate) fn derived(secret: &str, purpose: &str) -> Result<Self, NotSealed> {
        let mut key = [0; 32];
        let info = [purpose.as_bytes()];
        let okm = Salt::new(HKDF_SHA256, b"miharu").extract(secret.as_bytes());
        okm.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).map_err(|_| NotSealed)?;
        Ok(Self(key))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Seals a secret for a context, which has to be the same when it is opened: base64 of the nonce and what was sealed.
    pub(crate) fn seal(&self, context: &str, secret: &[u8]) -> Result<String, NoRandom> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut text = secret.to_vec();
        let key = UnboundKey::new(&AES_256_GCM, &self.0).map_err(|_| NoRandom)?;
        LessSafeKey::new(key)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut text,
            )
            .map_err(|_| NoRandom)?;
        Ok(STANDARD.encode([nonce.as_slice(), &text].concat()))
    }

    /// Opens what [`seal`](Self::seal) made.
    pub(crate) fn open(&self, context: &str, sealed: &str) -> Result<Vec<u8>, NotSealed> {
        let mut bytes = STANDARD.decode(sealed).map_err(|_| NotSealed)?;
        let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(NotSealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotSealed)?;
        let key = UnboundKey::new(&AES_256_GCM, &self.0).map_err(|_| NotSealed)?;
        let opened = LessSafeKey::new(key).open_in_place(nonce, Aad::from(context.as_bytes()), text);
        opened.map(|opened| opened.to_vec()).map_err(|_| NotSealed)
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_in_its_context_alone() {
        let key = SealKey::new().unwrap();
        let sealed = key.seal("a", b"hush").unwrap();
        assert_eq!(key.open("a", &sealed).unwrap(), b"hush");
        assert_eq!(key.open("b", &sealed), Err(NotSealed));
        assert_eq!(SealKey::new().unwrap().open("a", &sealed), Err(NotSealed));
        for rubbish in ["", "x", "AAAA", sealed.split_at(4).1, sealed.split_at(sealed.len() - 4).0] {
            assert_eq!(key.open("a", rubbish), Err(NotSealed), "{rubbish}");
        }
        assert_ne!(sealed, key.seal("a", b"hush").unwrap(), "a nonce is used once");
    }

    #[test]
    fn keys_of_one_secret_differ_by_their_purpose() {
        let key = |purpose| SealKey::derived("secret", purpose).unwrap();
        assert_eq!(key("a"), key("a"));
        assert_ne!(key("a"), key("b"));
        assert!(!format!("{:?}", key("a")).contains('['));
    }

    #[test]
    fn a_uuid_is_one() {
        let id = uuid().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!((id.as_bytes()[14], id.matches('-').count()), (b'4', 4));
        assert_ne!(id, uuid().unwrap());
    }
}

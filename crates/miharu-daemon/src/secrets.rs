//! Random secrets and names, and how the tokens that hold them are written.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use miharu_api::JoinToken;

/// The longest text that is looked at as a join token, in bytes.
const TOKEN_LIMIT: usize = 64 * 1024;

/// The system has no random numbers to give.
#[derive(Debug, thiserror::Error)]
#[error("the system has no random numbers to give")]
pub(crate) struct NoRandom;

/// Random bytes from the system.
fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// A new secret of a join token: 32 bytes in hexadecimal digits, as in Incus.
pub(crate) fn join_secret() -> Result<String, NoRandom> {
    Ok(hex(&random::<32>()?))
}

/// A new bearer token: 32 bytes behind a word that says whose they are, for those who find it and those who search for
/// secrets that got lost.
pub(crate) fn bearer_token() -> Result<String, NoRandom> {
    Ok(format!("miharu-{}", URL_SAFE_NO_PAD.encode(random::<32>()?)))
}

/// A new random UUID (RFC 9562, version 4).
pub(crate) fn uuid() -> Result<String, NoRandom> {
    let value = u128::from_be_bytes(random()?);
    let value = value & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    Ok(format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        value >> 96,
        value >> 80 & 0xffff,
        value >> 64 & 0xffff,
        value >> 48 & 0xffff,
        value & 0xffff_ffff_ffff
    ))
}

/// What a client shows as a join token, if it is one.
pub(crate) fn read_join_token(text: &str) -> Option<JoinToken> {
    read_json_token(text)
}

/// What a client shows as a token that is base64 of some JSON.
pub(crate) fn read_json_token<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    let text = text.trim();
    if text.len() > TOKEN_LIMIT {
        return None;
    }
    let json = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?;
    serde_json::from_slice(&json).ok()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_random_is_never_the_same_and_has_its_form() {
        assert_ne!(join_secret().unwrap(), join_secret().unwrap());
        let token = bearer_token().unwrap();
        assert_ne!(token, bearer_token().unwrap());
        assert_eq!(token.len(), "miharu-".len() + 43);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        let id = uuid().unwrap();
        let parts: Vec<&str> = id.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{id}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_that_is_shown_as_a_token_panics(text in ".{0,200}", json in "[{}\"a-z:\\[\\],0-9]{0,60}") {
            let _ = read_join_token(&text);
            let _ = read_join_token(&STANDARD.encode(json));
        }
    }

    #[test]
    fn join_tokens_are_read_as_clients_send_them() {
        let text =
            "eyJjbGllbnRfbmFtZSI6IngiLCJmaW5nZXJwcmludCI6ImZmIiwiYWRkcmVzc2VzIjpudWxsLCJzZWNyZXQiOiJzIn0=";
        for text in [text, text.trim_end_matches('='), &format!("{text}\n")] {
            let token = read_join_token(text).unwrap();
            assert_eq!((token.client_name.as_str(), token.secret.as_str()), ("x", "s"), "{text}");
        }
        for wrong in ["", "s", "%%%", "e30", "bnVsbA==", "W10="] {
            assert!(read_join_token(wrong).is_none_or(|token| token.secret.is_empty()), "{wrong}");
        }
    }
}

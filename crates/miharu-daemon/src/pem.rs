//! Certificates as PEM, the form in which the API shows them and people keep them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A certificate's DER as PEM, with lines of 64 characters.
pub(crate) fn encode(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::with_capacity(text.len() + text.len() / 64 + 64);
    pem.push_str(BEGIN);
    for (index, character) in text.chars().enumerate() {
        if index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push('\n');
    pem.push_str(END);
    pem.push('\n');
    pem
}

/// The DER in what a client posts: base64 of it, as the API asks, or PEM.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let body = match text.split_once(BEGIN) {
        None => text,
        Some((_, rest)) => rest.split_once(END)?.0,
    };
    let compact: String = body.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    STANDARD.decode(compact).ok().filter(|der| !der.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_and_base64_are_read_back() {
        let der: Vec<u8> = (0..200).collect();
        let pem = encode(&der);
        assert!(pem.lines().all(|line| line.len() <= 64));
        assert_eq!(decode(&pem), Some(der.clone()));
        assert_eq!(decode(&STANDARD.encode(&der)), Some(der));
        for wrong in ["", "%", BEGIN, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}

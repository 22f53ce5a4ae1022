//! The verifier of client certificates: any certificate may be shown, only the signature over the handshake must hold,
//! which proves that the client has its key. Who it is gets decided per request, by the trust store.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Takes any certificate whose key signed the handshake.
#[derive(Debug)]
pub(super) struct AnyClient {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyClient {
    pub(super) fn new(algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { algorithms }
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        with_key(end_entity, |_| Ok(()))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        with_key(cert, |key| {
            // A scheme of TLS 1.2 does not fix the curve, so it stands for several algorithms: the one of this key
            // decides.
            let candidates = self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
            let algorithm = candidates
                .flat_map(|(_, algorithms)| *algorithms)
                .find(|algorithm| algorithm.public_key_alg_id().as_ref() == key.algorithm)
                .ok_or(Error::InvalidCertificate(CertificateError::BadSignature))?;
            algorithm
                .verify_signature(key.key, message, signed.signature())
                .map_err(|_| Error::InvalidCertificate(CertificateError::BadSignature))
        })?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Checks that the handshake of TLS 1.3 was signed with the certificate's key.
pub(super) fn verify_tls13(
    message: &[u8],
    cert: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    with_key(cert, |key| {
        let info = SubjectPublicKeyInfoDer::from(key.info);
        verify_tls13_signature_with_raw_key(message, &info, signed, algorithms)
    })
}

/// Whether a key is found in a certificate.
pub(crate) fn has_key(cert: &CertificateDer<'_>) -> bool {
    with_key(cert, |_| Ok(())).is_ok()
}

/// A certificate's public key, in the parts that a signature is checked with.
struct RawKey<'a> {
    /// The whole SubjectPublicKeyInfo.
    info: &'a [u8],
    /// What its AlgorithmIdentifier contains.
    algorithm: &'a [u8],
    key: &'a [u8],
}

/// Finds the key in a certificate of any version: rustls' own parser knows version 3 only, and openssl makes version 1
/// where no extension is asked for.
fn with_key<T>(
    cert: &CertificateDer<'_>,
    check: impl FnOnce(RawKey<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, certificate) = X509Certificate::from_der(cert).map_err(|_| bad())?;
    let info = certificate.public_key();
    let algorithm = contents(info.raw).and_then(contents).ok_or_else(bad)?;
    check(RawKey { info: info.raw, algorithm, key: &info.subject_public_key.data })
}

/// What the first element of some DER contains.
fn contents(der: &[u8]) -> Option<&[u8]> {
    let (first, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    rest.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_found_and_never_beyond_the_end() {
        assert_eq!(contents(&[0x30, 2, 1, 2, 3]), Some(&[1, 2][..]));
        let mut long = vec![0x30, 0x81, 200];
        long.extend([7; 200]);
        assert_eq!(contents(&long), Some(&[7; 200][..]));
        assert_eq!(contents(&[0x30, 0x82, 0, 1, 9]), Some(&[9][..]));
        for short in [&[][..], &[0x30], &[0x30, 3, 1], &[0x30, 0x81], &[0x30, 0x82, 1], &[0x30, 0x85, 1, 1]] {
            assert_eq!(contents(short), None);
        }
    }
}

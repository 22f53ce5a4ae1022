//! Handshakes: which certificates a client may show, and that it must have their key.

use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, ProtocolVersion, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

/// What the client shows, whether or not it fits together.
#[derive(Debug)]
struct Shows(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// The client side is not what is tested: it takes any server.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn tls(versions: Versions) -> (tempfile::TempDir, Tls) {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path(), || vec!["host".to_owned()]).unwrap();
    let tls = Tls::new(Arc::new(identity), versions).unwrap();
    (dir, tls)
}

/// Shakes hands and exchanges a byte; what the server learns: the client's certificate, if it showed one.
async fn handshake(
    tls: &Tls,
    version: &'static rustls::SupportedProtocolVersion,
    shows: Option<CertifiedKey>,
) -> std::io::Result<Option<Vec<u8>>> {
    let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_cert_resolver(Arc::new(Shows(shows.map(Arc::new))));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let client = async {
        let name = ServerName::try_from("host").unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, near).await?;
        // In TLS 1.3 a client learns only now whether the server took its certificate.
        stream.read_u8().await
    };
    let server = async {
        let mut stream = TlsAcceptor::from(tls.config()).accept(far).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        let session = stream.get_ref().1;
        Ok(session.peer_certificates().and_then(<[_]>::first).map(|der| der.to_vec()))
    };
    let (client, server) = tokio::join!(client, server);
    client.and(server)
}

fn self_signed(algorithm: &'static SignatureAlgorithm) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate =
        CertificateParams::new(vec!["metrics.local".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn certified(certificate: CertificateDer<'static>, key: &PrivateKeyDer<'static>) -> CertifiedKey {
    CertifiedKey::new(vec![certificate], any_supported_type(key).unwrap())
}

/// The certificate as version 1: without the version and without extensions.
fn version_one(certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
    fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], contents].concat()
    }
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    let tbs = &parsed.tbs_certificate;
    let raw: &[u8] = tbs.as_ref();
    // After the header of the whole comes the version, `a0 03 02 01 02`; before the extensions ends the key.
    let version = raw.windows(5).position(|window| window == [0xa0, 3, 2, 1, 2]).unwrap();
    let key = tbs.subject_pki.raw;
    let end = raw.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    let tbs = element(0x30, &raw[version + 5..end]);
    // Nobody checks its own signature, so any will do.
    let algorithm = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    let signature = element(0x03, &[0; 65]);
    CertificateDer::from(element(0x30, &[tbs, algorithm.to_vec(), signature].concat()))
}

const ALGORITHMS: [&SignatureAlgorithm; 3] =
    [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];

#[tokio::test]
async fn any_certificate_is_taken_whose_key_the_client_has() {
    let (_dir, tls) = tls(Versions::Tls12And13);
    for version in [&TLS12, &TLS13] {
        assert_eq!(handshake(&tls, version, None).await.unwrap(), None);
        for algorithm in ALGORITHMS {
            let (certificate, key) = self_signed(algorithm);
            let shown = handshake(&tls, version, Some(certified(certificate.clone(), &key))).await.unwrap();
            assert_eq!(shown.as_deref(), Some(certificate.as_ref()), "{algorithm:?} {version:?}");

            let old = version_one(&certificate);
            let shown = handshake(&tls, version, Some(certified(old.clone(), &key))).await.unwrap();
            assert_eq!(shown.as_deref(), Some(old.as_ref()), "version 1, {algorithm:?} {version:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let (_dir, tls) = tls(Versions::Tls12And13);
    for version in [&TLS12, &TLS13] {
        for algorithm in ALGORITHMS {
            let (stolen, _) = self_signed(algorithm);
            let (_, own_key) = self_signed(algorithm);
            for shown in [version_one(&stolen), stolen] {
                let outcome = handshake(&tls, version, Some(certified(shown, &own_key))).await;
                assert!(outcome.is_err(), "{algorithm:?} {version:?}");
            }
        }
        let (_, key) = self_signed(&rcgen::PKCS_ED25519);
        let rubbish = CertificateDer::from(b"no certificate".to_vec());
        assert!(handshake(&tls, version, Some(certified(rubbish, &key))).await.is_err());
    }
}

#[tokio::test]
async fn an_older_version_is_spoken_only_when_asked_for() {
    let (_dir, tls) = tls(Versions::Tls13);
    assert!(handshake(&tls, &TLS12, None).await.is_err());
    assert!(handshake(&tls, &TLS13, None).await.is_ok());
    tls.set_versions(Versions::Tls12And13).unwrap();
    assert!(handshake(&tls, &TLS12, None).await.is_ok());
    assert_eq!(TLS12.version, ProtocolVersion::TLSv1_2);
}

/// A member asks another one; what the other learns, and what it shows to others meanwhile.
async fn asks(from: &Tls, other: &Tls, known: &[u8]) -> std::io::Result<Vec<u8>> {
    let (config, name) = member::way_to(from.identity(), known).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let client = async {
        let mut stream = TlsConnector::from(config).connect(name, near).await?;
        stream.read_u8().await
    };
    let server = async {
        let mut stream = TlsAcceptor::from(other.config()).accept(far).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        Ok(shown.map(|der| der.to_vec()).unwrap_or_default())
    };
    let (client, server) = tokio::join!(client, server);
    client.and(server)
}

#[tokio::test]
async fn members_show_one_another_their_own_certificates_and_take_no_other() {
    let ((_a, a), (_b, b)) = (tls(Versions::Tls13), tls(Versions::Tls13));
    let (certificate, key) = identity::make_cluster(&["hdc".to_owned()], &[]).unwrap();
    for one in [&a, &b] {
        one.identity().show_cluster(&certificate, &key).unwrap();
    }
    let cluster = identity::check(&certificate, &key).unwrap();
    assert_eq!(asks(&a, &b, &b.identity().own_der()).await.unwrap(), a.identity().own_der());
    // Neither the cluster's certificate nor another member's will do, whoever has their keys.
    for known in [&cluster, &a.identity().own_der(), &Vec::new()] {
        assert!(asks(&a, &b, known).await.is_err());
    }
}

#[tokio::test]
async fn the_cluster_s_certificate_takes_the_place_of_the_server_s_own_and_goes_again() {
    let (dir, tls) = tls(Versions::Tls13);
    let identity = tls.identity();
    let own = identity.fingerprint();
    let (first, second) =
        (identity::make_cluster(&["a".to_owned()], &[]), identity::make_cluster(&["a".to_owned()], &[]));
    let ((first, first_key), (second, second_key)) = (first.unwrap(), second.unwrap());
    identity.show_cluster(&first, &first_key).unwrap();
    let shown = identity.fingerprint();
    assert_ne!(shown, own);
    assert!(identity.show_cluster(&first, &second_key).is_err(), "another key");
    identity.reload();
    assert_eq!(
        (identity.fingerprint(), miharu_store::fingerprint(&identity.own_der())),
        (shown.clone(), own.clone())
    );
    identity.show_cluster(&second, &second_key).unwrap();
    assert_ne!(identity.fingerprint(), shown);
    assert_eq!(std::fs::read_to_string(dir.path().join("cluster.crt")).unwrap(), second);
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dir.path().join("cluster.key")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert!(identity.renew(vec!["host".to_owned()], Vec::new()).is_err(), "members know one another by it");
    identity.forget_cluster();
    assert_eq!(identity.fingerprint(), own);
    assert!(!dir.path().join("cluster.crt").exists() && !dir.path().join("cluster.key").exists());
}

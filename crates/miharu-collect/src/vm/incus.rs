//! The agent that Incus and LXD put into their guests: HTTPS over vsock, with the certificates that they keep beside the machine.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use miharu_api::report::Report;
use miharu_instances::Vsock;
use miharu_linux::Roots;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::bounds::MAX_ANSWER;
use super::certificates;
use super::session::Source;
use super::stream;

/// The agent's vsock port.
const PORT: u32 = 8443;

/// The agent of one guest.
#[derive(Debug)]
pub(crate) struct IncusAgent {
    roots: Roots,
    how: Vsock,
    certificates: PathBuf,
    connection: Option<SendRequest<Empty<Bytes>>>,
    /// Whether something in the guest took the last connection, or this host is to blame that nobody could.
    is_heard: bool,
}

impl IncusAgent {
    pub(crate) fn new(roots: &Roots, how: Vsock, certificates: PathBuf) -> Self {
        Self { roots: roots.clone(), how, certificates, connection: None, is_heard: false }
    }

    async fn connect(&mut self, until: Instant) -> io::Result<SendRequest<Empty<Bytes>>> {
        let config = match self.config(until).await {
            Ok(config) => config,
            Err(error) => {
                // Without certificates there is no agent, and who is slow once may be so on account of this host's load.
                let is_fault = !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::TimedOut);
                self.is_heard = is_fault;
                return Err(error);
            }
        };
        let stream = stream::guest_port(&self.roots, &self.how, PORT).await?;
        self.is_heard = true;
        // The name does not matter: the certificate itself is known.
        let name = ServerName::try_from("agent").map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // It ends with the stream, or once the sender is dropped.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// How it is to be talked to.
    async fn config(&self, until: Instant) -> io::Result<ClientConfig> {
        let [server, client, key] = certificates::ALL.read(&self.roots, &self.certificates, until).await?;
        client_config(&server, &client, &key).map_err(|error| {
            let place = self.certificates.display();
            io::Error::other(format!("the certificates in {place} are of no use: {error}"))
        })
    }
}

impl Source for IncusAgent {
    /// Nothing where the machine's owner has switched its metrics off.
    type Told = Option<Report>;

    async fn ask(&mut self, until: Instant) -> io::Result<Option<Report>> {
        let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.connect(until).await?,
        };
        let request = Request::get("/1.0/metrics")
            .header(header::HOST, "agent")
            .body(Empty::new())
            .map_err(io::Error::other)?;
        connection.ready().await.map_err(io::Error::other)?;
        let response = connection.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        self.connection = Some(connection);
        match status {
            StatusCode::OK => Ok(Some(parse(&body)?)),
            StatusCode::FORBIDDEN => Ok(None),
            status => Err(io::Error::other(format!("the agent answered {status}"))),
        }
    }

    fn is_heard(&self) -> bool {
        self.is_heard
    }

    fn reset(&mut self) {
        self.connection = None;
        self.is_heard = false;
    }
}

pub(super) fn parse(body: &[u8]) -> io::Result<Report> {
    #[derive(Deserialize)]
    struct Envelope {
        metadata: Report,
    }
    Ok(serde_json::from_slice::<Envelope>(body)?.metadata)
}

fn client_config(
    server: &[u8],
    client: &[u8],
    key: &[u8],
) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(ring::default_provider());
    let pinned = CertificateDer::from_pem_slice(server)?;
    let chain = CertificateDer::pem_slice_iter(client).collect::<Result<Vec<_>, _>>()?;
    let verifier = Arc::new(Pinned { certificate: pinned, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?;
    Ok(config)
}

/// Takes the one certificate that is kept beside the machine, and no other; whether the other end has its key is seen by its
/// signature over the handshake.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if shown.as_ref() == self.certificate.as_ref() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("not the certificate that is kept beside the machine".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificates::{CLIENT, CLIENT_KEY, SERVER};
    use super::*;
    use std::convert::Infallible;
    use std::path::Path;
    use std::time::Duration;

    use http_body_util::Full;
    use hyper::Response;
    use hyper::server::conn::http1 as server;
    use hyper::service::service_fn;
    use rustls::ServerConfig;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;
    use tokio_rustls::TlsAcceptor;

    /// Asks for a certificate and takes the one that it was given.
    #[derive(Debug)]
    struct OnlyThis(Pinned);

    impl ClientCertVerifier for OnlyThis {
        fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
            &[]
        }

        fn verify_client_cert(
            &self,
            shown: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _now: UnixTime,
        ) -> Result<ClientCertVerified, rustls::Error> {
            assert_eq!(shown, &self.0.certificate);
            Ok(ClientCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls12_signature(message, certificate, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls13_signature(message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }

    /// Keeps certificates in `directory` as Incus does, and serves an agent behind a vhost-user vsock device there.
    fn serve(directory: &Path, shown: Shown, status: StatusCode, body: &'static str) {
        let make = || rcgen::generate_simple_self_signed(vec!["agent".to_owned()]).unwrap();
        let (kept, client, other) = (make(), make(), make());
        let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
        write(SERVER, kept.cert.pem());
        write(CLIENT, client.cert.pem());
        write(CLIENT_KEY, client.signing_key.serialize_pem());
        let own = match shown {
            Shown::Kept => kept,
            Shown::Other => other,
        };
        let provider = Arc::new(ring::default_provider());
        let pinned = Pinned { certificate: client.cert.der().clone(), provider: Arc::clone(&provider) };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(OnlyThis(pinned)))
            .with_single_cert(
                vec![own.cert.der().clone()],
                PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into(),
            )
            .unwrap();
        let listener = UnixListener::bind(directory.join("vsock")).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut line = [0; 13];
                stream.read_exact(&mut line).await.unwrap();
                assert_eq!(&line, b"CONNECT 8443\n");
                stream.write_all(b"OK 7\n").await.unwrap();
                let Ok(stream) = TlsAcceptor::from(Arc::new(config.clone())).accept(stream).await else {
                    continue;
                };
                let answer = service_fn(move |request: Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/1.0/metrics");
                    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                });
                let connection = server::Builder::new().serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(connection);
            }
        });
    }

    #[derive(Clone, Copy)]
    enum Shown {
        Kept,
        Other,
    }

    async fn ask(
        shown: Shown,
        status: StatusCode,
        body: &'static str,
    ) -> (IncusAgent, io::Result<Option<Report>>) {
        let directory = tempfile::tempdir().unwrap();
        serve(directory.path(), shown, status, body);
        let how = Vsock::Unix(directory.path().join("vsock"));
        let mut agent = IncusAgent::new(&Roots::default(), how, directory.path().to_owned());
        let answer = agent.ask(Instant::now() + Duration::from_secs(5)).await;
        (agent, answer)
    }

    const NEWER: &str = r#"{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":
        {"cpu_seconds_total":[{"cpu":"cpu0","cpu_seconds_user":1.5}],"cpus":0,"memory":{"memory_mem_total_bytes":7}}}"#;
    const OLDER: &str = r#"{"type":"sync","metadata":{"cpu_seconds_total":{"cpu0":{"cpu_seconds_user":1.5}},"cpus":0,
        "memory":{"memory_mem_total_bytes":7}}}"#;

    #[tokio::test]
    async fn both_forms_are_read_over_one_connection() {
        for form in [NEWER, OLDER] {
            let (mut agent, answer) = ask(Shown::Kept, StatusCode::OK, form).await;
            let report = answer.unwrap().unwrap();
            assert_eq!((report.cpu[0].cpu.as_str(), report.memory.memory_mem_total_bytes), ("cpu0", Some(7)));
            // The certificates and the socket are gone by now.
            assert!(agent.ask(Instant::now()).await.unwrap().is_some());
        }
    }

    #[tokio::test]
    async fn switched_off_metrics_are_no_failure() {
        assert!(ask(Shown::Kept, StatusCode::FORBIDDEN, "{}").await.1.unwrap().is_none());
        assert!(ask(Shown::Kept, StatusCode::INTERNAL_SERVER_ERROR, "{}").await.1.is_err());
        assert!(ask(Shown::Kept, StatusCode::OK, "garbage").await.1.is_err());
    }

    #[tokio::test]
    async fn another_certificate_is_refused() {
        assert!(ask(Shown::Other, StatusCode::OK, NEWER).await.1.is_err());
    }

    #[tokio::test]
    async fn what_is_wrong_with_its_certificates_is_told_of_an_agent_that_never_answered() {
        let base = tempfile::tempdir().unwrap();
        let place = base.path().join("machine");
        std::fs::create_dir(&place).unwrap();
        let mut agent =
            IncusAgent::new(&Roots::at(base.path()), Vsock::Unix("/vsock".into()), PathBuf::from("/machine"));
        let until = || Instant::now() + Duration::from_secs(60);
        assert!(agent.ask(until()).await.is_err());
        assert!(!agent.is_heard(), "there may be no agent");
        for name in [SERVER, CLIENT] {
            std::fs::write(place.join(name), name).unwrap();
        }
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, place.join(CLIENT_KEY), fifo, 0o600.into(), 0).unwrap();
        let error = agent.ask(until()).await.unwrap_err();
        let expected = "the certificates in /machine cannot be read: it is not a regular file";
        assert_eq!((error.to_string().as_str(), agent.is_heard()), (expected, true));
        agent.reset();
        assert!(!agent.is_heard());
        std::fs::remove_file(place.join(CLIENT_KEY)).unwrap();
        std::fs::write(place.join(CLIENT_KEY), CLIENT_KEY).unwrap();
        let error = agent.ask(until()).await.unwrap_err();
        assert!(error.to_string().starts_with("the certificates in /machine are of no use: "), "{error}");
        assert!(agent.is_heard());
    }
}

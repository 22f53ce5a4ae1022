//! A scraper that keeps its connection, as Prometheus does: HTTP/1.1 over a unix socket or over mutual TLS, one request after the
//! other, the body read into one buffer.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::miharud::Reply;
use crate::tls::Certificate;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An open connection.
pub struct Scraper {
    stream: Box<dyn Stream>,
    /// What was received and belongs to no answer yet.
    received: Vec<u8>,
    /// The size of the last body, as it came over the wire.
    pub wire_bytes: usize,
}

impl std::fmt::Debug for Scraper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scraper").field("wire_bytes", &self.wire_bytes).finish_non_exhaustive()
    }
}

/// No answer takes longer, not even a peer's with hundreds of containers.
const PATIENCE: Duration = Duration::from_secs(60);

impl Scraper {
    /// Connects to a unix socket.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn unix(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::over(Box::new(stream)))
    }

    /// Connects in the clear to `ADDRESS:PORT`.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn tcp(address: &str) -> Result<Self> {
        Ok(Self::over(Box::new(connect(address)?)))
    }

    /// Connects with TLS 1.3 and shows a client certificate; of the server it takes none but `server`.
    ///
    /// # Errors
    /// When nobody listens, or the handshake fails.
    pub fn tls(address: &str, server: &Path, client: &Certificate) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pinned = Pinned {
            certificate: CertificateDer::from_pem_slice(&fs::read(server)?)
                .context("the server's certificate")?,
            provider: Arc::clone(&provider),
        };
        let certificate =
            CertificateDer::from_pem_slice(&fs::read(&client.crt)?).context("the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&fs::read(&client.key)?).context("the key")?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pinned))
            .with_client_auth_cert(vec![certificate], key)?;
        let name = ServerName::try_from("localhost")?;
        let mut connection = ClientConnection::new(Arc::new(config), name)?;
        let mut stream = connect(address)?;
        // Now and not with the first request: a server does not wait for long.
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).context("TLS")?;
        }
        Ok(Self::over(Box::new(StreamOwned::new(connection, stream))))
    }

    fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream, received: Vec::new(), wire_bytes: 0 }
    }

    /// Asks with GET and these further header lines; any status but 200 is an error.
    ///
    /// # Errors
    /// When there is no answer of status 200.
    pub fn get(&mut self, path: &str, headers: &[&str]) -> Result<Reply> {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
        for header in headers {
            request += header;
            request += "\r\n";
        }
        request += "\r\n";
        self.stream.write_all(request.as_bytes())?;
        self.stream.flush()?;
        let head = self.head()?;
        let mut reply = Reply::parse(&head)?;
        reply.body = if reply.headers.get("transfer-encoding").is_some_and(|value| value.contains("chunked"))
        {
            self.chunked()?
        } else {
            let length = reply.headers.get("content-length").context("an answer without a length")?;
            let length = length.parse().with_context(|| length.clone())?;
            self.take(length)?
        };
        self.wire_bytes = reply.body.len();
        ensure!(reply.status == 200, "{path}: {}: {}", reply.status, reply.text());
        Ok(reply)
    }

    fn head(&mut self) -> Result<Vec<u8>> {
        self.until(b"\r\n\r\n")
    }

    fn chunked(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let line = String::from_utf8_lossy(&line);
            let digits = line.trim().split(';').next().unwrap_or_default();
            let length = usize::from_str_radix(digits, 16).with_context(|| format!("chunk {digits:?}"))?;
            body.append(&mut self.take(length)?);
            self.until(b"\r\n")?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    /// What comes up to and with `end`.
    fn until(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        let mut looked = 0;
        loop {
            let rest = self.received.get(looked..).unwrap_or_default();
            if let Some(at) = rest.windows(end.len()).position(|window| window == end) {
                return self.take(looked + at + end.len());
            }
            looked = self.received.len().saturating_sub(end.len());
            self.more()?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        self.received.reserve(length.saturating_sub(self.received.len()));
        while self.received.len() < length {
            self.more()?;
        }
        let rest = self.received.split_off(length);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    fn more(&mut self) -> Result<()> {
        let mut piece = [0; 64 * 1024];
        let read = match self.stream.read(&mut piece) {
            // Whoever wants more asks again.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            read => read?,
        };
        if read == 0 {
            bail!("the server closed the connection");
        }
        self.received.extend_from_slice(piece.get(..read).unwrap_or_default());
        Ok(())
    }
}

fn connect(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Takes one server certificate and no other.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity != self.certificate {
            return Err(rustls::Error::General("another certificate than the server's".into()));
        }
        Ok(ServerCertVerified::assertion())
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
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A scraper of a server that answers each request with the next of these, in pieces of few bytes.
    fn against(answers: &'static [&'static str]) -> (tempfile::TempDir, Scraper) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let _ = stream.read(&mut [0; 1000]).unwrap();
                for piece in answer.as_bytes().chunks(3) {
                    stream.write_all(piece).unwrap();
                }
            }
        });
        let scraper = Scraper::unix(&socket).unwrap();
        (dir, scraper)
    }

    #[test]
    fn one_connection_carries_answers_of_both_forms() {
        let (_dir, mut scraper) = against(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 503 No\r\ncontent-length: 3\r\n\r\nwhy",
        ]);
        assert_eq!(scraper.get("/", &[]).unwrap().text(), "hello");
        assert_eq!(scraper.get("/", &[]).unwrap().text(), "abc0123456789");
        assert_eq!(scraper.wire_bytes, 13);
        assert_eq!(scraper.get("/", &[]).unwrap().text(), "");
        assert!(scraper.get("/", &[]).unwrap_err().to_string().contains("503: why"));
        assert!(scraper.get("/", &[]).is_err());
    }
}

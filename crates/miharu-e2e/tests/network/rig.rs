//! What every attack needs: a daemon to attack, scrapers that watch, connections from many addresses.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::tls::Certificate;
use miharu_e2e::{Miharud, measure, shell};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a scrape may take: what Prometheus waits.
const SCRAPE_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two scrapes.
const PAUSE: Duration = Duration::from_millis(200);

/// A daemon that serves its API on loopback and trusts one client.
pub(crate) struct Rig {
    pub(crate) daemon: Miharud,
    pub(crate) address: SocketAddr,
    client: Certificate,
    /// Resident memory, bytes, and open sockets, before anything happened.
    before: (u64, usize),
}

/// What an attack cost.
#[derive(Debug)]
pub(crate) struct Cost {
    pub(crate) scrapes: usize,
    pub(crate) slowest: Duration,
    /// The highest that resident memory has been above where it began, bytes.
    pub(crate) memory: u64,
    pub(crate) cpu: Duration,
    pub(crate) took: Duration,
}

impl Rig {
    pub(crate) fn start() -> Result<Self> {
        Self::of(Miharud::with(&[])?)
    }

    pub(crate) fn of(daemon: Miharud) -> Result<Self> {
        let client = Certificate::create("scraper")?;
        let crt = client.crt.to_str().context("path")?;
        daemon.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
        let address = daemon.listen("core.https_address")?.parse()?;
        let mut rig = Self { daemon, address, client, before: (0, 0) };
        rig.scraper()?.get("/1.0/metrics", &[])?;
        rig.before = rig.held()?;
        Ok(rig)
    }

    /// Resident memory, bytes, and open sockets. Other files are those of instances, which come and go on their own.
    fn held(&self) -> Result<(u64, usize)> {
        let pid = self.daemon.pid();
        let is_socket = |file: &std::fs::DirEntry| {
            std::fs::read_link(file.path()).is_ok_and(|what| what.to_string_lossy().starts_with("socket:"))
        };
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
        Ok((measure::memory(pid, "VmRSS")?, files.flatten().filter(is_socket).count()))
    }

    /// A scraper with the trusted certificate and a new connection.
    pub(crate) fn scraper(&self) -> Result<Scraper> {
        Scraper::tls(&self.address.to_string(), &self.daemon.dir.join("server.crt"), &self.client)
    }

    /// The trusted certificate and its key.
    pub(crate) fn trusted(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        use rustls::pki_types::pem::PemObject;
        let certificate = CertificateDer::from_pem_file(&self.client.crt).context("certificate")?;
        let key = PrivateKeyDer::from_pem_file(&self.client.key).context("key")?;
        Ok((vec![certificate], key))
    }

    /// Lets an attack run while one scraper keeps its connection and another one connects for every scrape, and `miharu` is used
    /// on the unix socket. Each scrape has to be answered in time.
    pub(crate) fn under<T, F>(&self, attack: F) -> Result<(T, Cost)>
    where
        F: Future<Output = Result<T>>,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let (pid, begin) = (self.daemon.pid(), Instant::now());
        let cpu = measure::cpu(pid)?;
        let watchers = [self.watch(Keeps::Connection, &stop)?, self.watch(Keeps::Nothing, &stop)?];
        let peak = watch_memory(pid, &stop);
        let outcome = run(attack);
        let listed = self.daemon.miharu(&["config", "show"]);
        stop.store(true, Ordering::Relaxed);
        let mut cost = Cost {
            scrapes: 0,
            slowest: Duration::ZERO,
            memory: peak.join().expect("no panic").saturating_sub(self.before.0),
            cpu: measure::cpu(pid)?.saturating_sub(cpu),
            took: begin.elapsed(),
        };
        for watcher in watchers {
            let watched = watcher.join().expect("no panic");
            let (scrapes, slowest) =
                watched.with_context(|| format!("the server says: {}", self.daemon.log()))?;
            cost.scrapes += scrapes;
            cost.slowest = cost.slowest.max(slowest);
        }
        listed.context("the unix socket")?;
        println!("{cost:?}");
        Ok((outcome?, cost))
    }

    fn watch(&self, keeps: Keeps, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<(usize, Duration)>>> {
        let mut kept = self.scraper()?;
        kept.get("/1.0/metrics", &[])?;
        let (address, server) = (self.address.to_string(), self.daemon.dir.join("server.crt"));
        let (client, stop) = (self.client.clone(), Arc::clone(stop));
        Ok(std::thread::spawn(move || {
            let (mut scrapes, mut slowest) = (0, Duration::ZERO);
            // An attack may be over within a moment.
            while scrapes < 3 || !stop.load(Ordering::Relaxed) {
                let begin = Instant::now();
                let scraped = match keeps {
                    Keeps::Connection => kept.get("/1.0/metrics", &[]),
                    Keeps::Nothing => Scraper::tls(&address, &server, &client)
                        .and_then(|mut fresh| fresh.get("/1.0/metrics", &[])),
                };
                let took = begin.elapsed();
                scraped.with_context(|| {
                    format!("scrape {scrapes} of the one that keeps {keeps:?}, after {took:?}")
                })?;
                ensure!(took < shell::patient(SCRAPE_LIMIT), "a scrape took {took:?}");
                (scrapes, slowest) = (scrapes + 1, slowest.max(took));
                std::thread::sleep(PAUSE);
            }
            Ok((scrapes, slowest))
        }))
    }

    /// Waits until nothing is held any more of what was: connections are gone, and so are their descriptors.
    pub(crate) fn settles(&self) -> Result<()> {
        let (_, sockets) = self.before;
        let mut held = 0;
        shell::wait_for("the descriptors of before", Duration::from_secs(40), || {
            held = self.held().ok()?.1;
            // What asks runtimes and the kernel has a few of its own now and then.
            (held <= sockets + 8).then_some(())
        })
        .with_context(|| format!("{held} open sockets, {sockets} before"))
    }
}

#[derive(Debug, Clone, Copy)]
enum Keeps {
    Connection,
    Nothing,
}

fn watch_memory(pid: u32, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut peak = 0;
        while !stop.load(Ordering::Relaxed) {
            peak = peak.max(measure::memory(pid, "VmRSS").unwrap_or_default());
            std::thread::sleep(Duration::from_millis(50));
        }
        peak
    })
}

/// Runs an attack on a thread of its own.
pub(crate) fn run<T>(attack: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(attack)
}

/// One of the attackers' addresses.
pub(crate) fn source(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).expect("few");
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 9, 0, 1).to_bits() + number)
}

/// Connects from an address.
pub(crate) async fn tcp(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    connect(TcpSocket::new_v4()?, from, to).await
}

async fn connect(socket: TcpSocket, from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    // So that tens of thousands of them need no port of their own each.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let stream = tokio::time::timeout(Duration::from_secs(5), socket.connect(to));
    stream.await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

/// Connects from an address, over TLS.
pub(crate) async fn tls(
    from: Ipv4Addr,
    to: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    shake(tcp(from, to).await?, config).await
}

/// The same, by who takes next to nothing of what is sent before it is read.
pub(crate) async fn tls_with_small_buffers(
    from: Ipv4Addr,
    to: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(2048)?;
    shake(connect(socket, from, to).await?, config).await
}

async fn shake(stream: TcpStream, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    tokio::time::timeout(Duration::from_secs(10), connecting)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

/// How an attacker speaks TLS, without a certificate of its own.
pub(crate) fn config(alpn: &str) -> Arc<ClientConfig> {
    let mut config = builder().with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// How one speaks TLS that takes any server.
pub(crate) fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
}

/// Reads until the server ends the connection; how long that took.
pub(crate) async fn until_closed(
    stream: &mut (impl AsyncReadExt + Unpin),
    limit: Duration,
) -> Result<Duration> {
    let begin = Instant::now();
    let mut buffer = vec![0; 16 * 1024];
    let closed = async { while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(shell::patient(limit), closed)
        .await
        .with_context(|| format!("open after {limit:?}"))?;
    Ok(begin.elapsed())
}

/// An attacker does not care whom it attacks, and saves the CPU time.
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

//! The two TCP listeners: opened, moved and closed as the server keys say, without losing the old before the new stands.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use miharu_store::address::Host;
use miharu_store::{Config, ListenAddress, Settings};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::activity::Protocol;
use super::connection::{CONNECTIONS, HANDSHAKE_LIMIT};
use super::gate::{Gate, Limits, SharedLimits, Source, Ticket};
use super::{Accepted, Entrance, Peer, PeerCertificate, Server, bind};
use crate::sandbox;
use crate::tls::Tls;
use crate::warnings::{Kind, Problem, Warnings};

/// The first pause before a listener that could not be bound at start-up is tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The pause after the system had no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the log tells of that.
const ACCEPT_TELL: Duration = Duration::from_secs(30);

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub(crate) struct BindError {
    pub(crate) key: &'static str,
    pub(crate) address: String,
    reason: String,
    in_use: bool,
}

/// Who holds the port of an address, for people.
pub(crate) type PortHolder = Arc<dyn Fn(&ListenAddress) -> Option<String> + Send + Sync>;

/// The TCP listeners.
pub(crate) struct Listeners {
    tls: Arc<Tls>,
    holder: PortHolder,
    warnings: Warnings,
    limits: SharedLimits,
    /// One change at a time; held while sockets are bound, which takes no longer than a name's look-up.
    slots: Mutex<[Slot; 2]>,
}

/// One of them.
struct Slot {
    key: &'static str,
    entrance: Entrance,
    router: Router,
    /// Where the server key says; the listener may still be waiting for its address.
    wanted: Option<ListenAddress>,
    open: Option<Open>,
}

/// A listener that accepts.
struct Open {
    local: Option<std::net::SocketAddr>,
    stop: watch::Sender<bool>,
    permits: Arc<Semaphore>,
    accepting: JoinHandle<()>,
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listeners")
    }
}

fn wanted(settings: &Settings) -> [Option<ListenAddress>; 2] {
    [settings.https_address.clone(), settings.metrics_address.clone()]
}

impl Listeners {
    pub(crate) fn new(
        tls: Arc<Tls>,
        holder: PortHolder,
        warnings: Warnings,
        https: Router,
        metrics: Router,
    ) -> Arc<Self> {
        let slot = |key, entrance, router| Slot { key, entrance, router, wanted: None, open: None };
        let slots = [
            slot("core.https_address", Entrance::Https, https),
            slot("core.metrics_address", Entrance::Metrics, metrics),
        ];
        let limits = Arc::new(ArcSwap::from_pointee(Limits::of(&Config::default().settings())));
        Arc::new(Self { tls, holder, warnings, limits, slots: Mutex::new(slots) })
    }

    /// What the server keys allow; the unix socket is a listener, too.
    pub(crate) fn limits(&self) -> SharedLimits {
        Arc::clone(&self.limits)
    }

    /// Puts the limits of connections in force, for those that come from now on.
    pub(crate) fn limit(&self, settings: &Settings) {
        self.limits.store(Arc::new(Limits::of(settings)));
    }

    /// Opens what the settings ask for; what cannot be bound is tried again with a growing pause.
    pub(crate) async fn start(self: &Arc<Self>, settings: &Settings) {
        self.limit(settings);
        let mut slots = self.slots.lock().await;
        for (slot, wanted) in slots.iter_mut().zip(wanted(settings)) {
            let Some(address) = wanted else { continue };
            slot.wanted = Some(address.clone());
            match self.bind(slot.key, &address).await {
                Ok(listener) => slot.open(listener, &self.tls, &self.limits),
                Err(error) => {
                    self.warn(&error);
                    tokio::spawn(Arc::clone(self).retry(slot.key, address));
                }
            }
        }
    }

    /// Moves the listeners to where the settings say. On an error all of them are as they were.
    pub(crate) async fn apply(self: &Arc<Self>, settings: &Settings) -> Result<(), BindError> {
        let mut slots = self.slots.lock().await;
        let mut changes: Vec<(usize, Option<ListenAddress>)> = Vec::new();
        for (index, (slot, wanted)) in slots.iter().zip(wanted(settings)).enumerate() {
            if slot.wanted != wanted {
                changes.push((index, wanted));
            }
        }
        if changes.is_empty() {
            self.limit(settings);
            return Ok(());
        }
        let bound = match self.bind_all(&*slots, &changes).await {
            // The address may be taken by a listener of ours that is about to move: they make room, and come back if
            // the new ones fail all the same.
            Err(error) if error.in_use && frees_port(&*slots, &changes, &error) => {
                for (index, _) in &changes {
                    if let Some(slot) = slots.get_mut(*index) {
                        slot.close().await;
                    }
                }
                match self.bind_all(&*slots, &changes).await {
                    Ok(bound) => bound,
                    Err(error) => {
                        self.reopen(&mut *slots, &changes).await;
                        return Err(error);
                    }
                }
            }
            other => other?,
        };
        for ((index, wanted), listener) in changes.into_iter().zip(bound) {
            let Some(slot) = slots.get_mut(index) else { continue };
            slot.close().await;
            slot.wanted = wanted;
            self.warnings.clear(Kind::Listener, slot.key);
            match listener {
                Some(listener) => slot.open(listener, &self.tls, &self.limits),
                None => tracing::info!(key = slot.key, "stopped listening"),
            }
        }
        self.limit(settings);
        Ok(())
    }

    /// Where the HTTPS listener is, if it is open.
    pub(crate) async fn https_address(&self) -> Option<std::net::SocketAddr> {
        let slots = self.slots.lock().await;
        slots.iter().find(|slot| slot.entrance == Entrance::Https)?.open.as_ref()?.local
    }

    /// Stops accepting, and ends connections after what they are doing. Comes back when all are gone.
    pub(crate) async fn stop(&self) {
        let mut slots = self.slots.lock().await;
        let mut permits = Vec::new();
        for slot in slots.iter_mut() {
            slot.wanted = None;
            permits.extend(slot.open.as_ref().map(|open| Arc::clone(&open.permits)));
            slot.close().await;
        }
        drop(slots);
        for permits in permits {
            let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
            let _gone = permits.acquire_many(all).await;
        }
    }

    async fn bind_all(
        &self,
        slots: &[Slot],
        changes: &[(usize, Option<ListenAddress>)],
    ) -> Result<Vec<Option<TcpListener>>, BindError> {
        let mut bound = Vec::with_capacity(changes.len());
        for (index, wanted) in changes {
            let key = slots.get(*index).map_or("", |slot| slot.key);
            bound.push(match wanted {
                Some(address) => Some(self.bind(key, address).await?),
                None => None,
            });
        }
        Ok(bound)
    }

    /// Opens again what was closed to make room for what then failed.
    async fn reopen(self: &Arc<Self>, slots: &mut [Slot], changes: &[(usize, Option<ListenAddress>)]) {
        for (index, _) in changes {
            let Some(slot) = slots.get_mut(*index) else { continue };
            let Some(address) = slot.wanted.clone() else { continue };
            match self.bind(slot.key, &address).await {
                Ok(listener) => slot.open(listener, &self.tls, &self.limits),
                Err(error) => {
                    self.warn(&error);
                    tokio::spawn(Arc::clone(self).retry(slot.key, address));
                }
            }
        }
    }

    async fn bind(&self, key: &'static str, address: &ListenAddress) -> Result<TcpListener, BindError> {
        let error = match bind::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        let in_use = error.kind() == std::io::ErrorKind::AddrInUse;
        let (look, asked) = (Arc::clone(&self.holder), address.clone());
        let holder = if in_use { sandbox::look(move || look(&asked)).await.ok().flatten() } else { None };
        let reason = match holder {
            Some(holder) => format!("the port is held by {holder}"),
            None if in_use => "the port is in use".to_owned(),
            None if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                "this host has no such address".to_owned()
            }
            None if is_link_local(address) => {
                "it is a link-local address, which means nothing without an interface: use one that is not, \
                 a name, or none for all interfaces"
                    .to_owned()
            }
            None => error.to_string(),
        };
        Err(BindError { key, address: address.to_string(), reason, in_use })
    }

    fn warn(&self, error: &BindError) {
        let message = format!("{}: {error}; trying again", error.key);
        self.warnings.set(Problem::of_server(Kind::Listener, error.key, message));
    }

    async fn retry(self: Arc<Self>, key: &'static str, address: ListenAddress) {
        let mut pause = RETRY.0;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
            let mut slots = self.slots.lock().await;
            let Some(slot) = slots.iter_mut().find(|slot| slot.key == key) else { return };
            // Set to something else in the meantime, or open.
            if slot.wanted.as_ref() != Some(&address) || slot.open.is_some() {
                return;
            }
            match self.bind(key, &address).await {
                Ok(listener) => {
                    slot.open(listener, &self.tls, &self.limits);
                    self.warnings.clear(Kind::Listener, key);
                    return;
                }
                Err(error) => self.warn(&error),
            }
        }
    }
}

/// Whether it is one of fe80::/10, which each interface has, so that the kernel wants to know on which.
fn is_link_local(address: &ListenAddress) -> bool {
    matches!(address.host, Host::Ip(IpAddr::V6(ip)) if ip.is_unicast_link_local())
}

/// Whether closing the listeners that change could make room: one of them is on the port that is in use.
fn frees_port(slots: &[Slot], changes: &[(usize, Option<ListenAddress>)], error: &BindError) -> bool {
    let ports = changes.iter().filter_map(|(index, _)| slots.get(*index)?.open.as_ref()?.local);
    let port = error.address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    ports.into_iter().any(|local| Some(local.port()) == port)
}

impl Slot {
    fn open(&mut self, listener: TcpListener, tls: &Arc<Tls>, limits: &SharedLimits) {
        let local = listener.local_addr().ok();
        tracing::info!(key = self.key, address = local.map(tracing::field::display), "listening");
        let (stop, stopped) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let server = Server { router: self.router.clone(), stop: stopped, permits: Arc::clone(&permits) };
        let accepting = tokio::spawn(accept(
            listener,
            self.entrance,
            server,
            Arc::clone(tls),
            Gate::new(Arc::clone(limits)),
        ));
        self.open = Some(Open { local, stop, permits, accepting });
    }

    /// Stops accepting; when this comes back the address is free. Connections end after what they are doing.
    async fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        // Nobody listens to it any more when the listener's task has ended by itself.
        let _ = open.stop.send(true);
        open.accepting.abort();
        let _ = open.accepting.await;
    }
}

async fn accept(listener: TcpListener, entrance: Entrance, server: Server, tls: Arc<Tls>, gate: Arc<Gate>) {
    let mut trouble = Trouble::default();
    loop {
        // There are always enough; they let one wait until all are gone.
        let Ok(permit) = Arc::clone(&server.permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => match gate.admit(Source::of(from.ip())) {
                Some(ticket) => {
                    tokio::spawn(handshake(
                        stream,
                        entrance,
                        server.clone(),
                        Arc::clone(&tls),
                        ticket,
                        permit,
                    ));
                }
                None => {
                    // A reset, so that nothing is left of it in the kernel either.
                    let _ = stream.set_zero_linger();
                }
            },
            Err(error) => trouble.accepting(&error, &listener, &gate).await,
        }
    }
}

/// What kept connections from being accepted.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    told: Option<Instant>,
}

impl Trouble {
    /// Makes room where the system has no descriptor or memory left for a connection that waits, and waits for a moment.
    ///
    /// The kernel wants a descriptor before it looks whether anybody is there, so the error alone is no reason to end a
    /// connection that may have taken the last one.
    pub(super) async fn accepting(&mut self, error: &std::io::Error, listener: &impl AsFd, gate: &Gate) {
        let lacking = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
        let is_lacking = lacking.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
        if is_lacking && !somebody_waits(listener) {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            return;
        }
        if self.told.is_none_or(|told| told.elapsed() >= ACCEPT_TELL) {
            tracing::warn!("a connection could not be accepted: {error}");
            self.told = Some(Instant::now());
        }
        if is_lacking {
            gate.make_room();
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

fn somebody_waits(listener: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    // A look that fails is no reason to leave somebody waiting.
    poll(&mut fds, Some(&Timespec::default())) != Ok(0)
}

async fn handshake(
    stream: TcpStream,
    entrance: Entrance,
    server: Server,
    tls: Arc<Tls>,
    ticket: Ticket,
    permit: OwnedSemaphorePermit,
) {
    // Answers are written whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(tls.config());
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)) => accepted,
        () = ticket.revoked() => {
            tracing::debug!("TLS handshake: it makes room for another connection");
            return;
        }
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!("TLS handshake: {error}");
            return;
        }
        Err(_) => {
            tracing::debug!("TLS handshake: too slow");
            return;
        }
    };
    let (_, session) = stream.get_ref();
    let certificate = session
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(|der| Arc::new(PeerCertificate::new(der.clone().into_owned())));
    let protocol = if session.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
    let peer = Peer { entrance, certificate };
    server.serve(Accepted { stream, peer, protocol, ticket }).await;
    drop(permit);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::TcpListener as StdListener;

    use super::*;
    use crate::tls::{Identity, Versions};

    fn listeners(dir: &std::path::Path) -> (Arc<Listeners>, Warnings) {
        let identity = Arc::new(Identity::open(dir, || vec!["host".to_owned()]).unwrap());
        let tls = Arc::new(Tls::new(identity, Versions::Tls13).unwrap());
        let holder: PortHolder = Arc::new(|_| Some("a test (pid 1)".to_owned()));
        let warnings = Warnings::default();
        (Listeners::new(tls, holder, warnings.clone(), Router::new(), Router::new()), warnings)
    }

    fn settings(https: &str, metrics: &str) -> Settings {
        let values = [("core.https_address", https), ("core.metrics_address", metrics)];
        let values: BTreeMap<_, _> = values.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Config::replace(&values).unwrap().settings()
    }

    /// A port that was free a moment ago.
    fn free_port() -> u16 {
        StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn answers(port: u16) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn listeners_move_swap_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let (listeners, _) = listeners(dir.path());
        let (a, b) = (free_port(), free_port());
        let (local_a, local_b) = (format!("127.0.0.1:{a}"), format!("127.0.0.1:{b}"));
        listeners.start(&settings(&local_a, &local_b)).await;
        assert!(answers(a) && answers(b));
        // From one address to all of them on the same port, and the two in each other's place.
        listeners.apply(&settings(&format!(":{a}"), &local_b)).await.unwrap();
        listeners.apply(&settings(&local_b, &local_a)).await.unwrap();
        assert_eq!(listeners.https_address().await.unwrap().port(), b);
        assert!(answers(a) && answers(b));
        listeners.apply(&settings(&local_b, "")).await.unwrap();
        assert!(!answers(a) && answers(b));
        listeners.stop().await;
        assert!(!answers(b));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_address_that_is_taken_leaves_everything_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (listeners, _) = listeners(dir.path());
        let held = StdListener::bind("127.0.0.1:0").unwrap();
        let taken = held.local_addr().unwrap();
        let (a, b) = (free_port(), free_port());
        listeners.start(&settings(&format!("127.0.0.1:{a}"), "")).await;
        // The HTTPS listener would have to make room for the metrics listener, whose own place stays free, but its new
        // one is taken.
        let wanted = settings(&taken.to_string(), &format!("127.0.0.1:{a}"));
        let error = listeners.apply(&wanted).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot listen on {taken}: the port is held by a test (pid 1)")
        );
        assert!(answers(a));
        let error =
            listeners.apply(&settings(&format!("127.0.0.1:{b}"), &taken.to_string())).await.unwrap_err();
        assert_eq!(error.key, "core.metrics_address");
        assert!(answers(a) && !answers(b));
        listeners.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_link_local_address_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (listeners, _) = listeners(dir.path());
        let error = listeners.apply(&settings("", "[fe80::1]:9100")).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on [fe80::1]:9100: it is a link-local address"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_address_that_is_taken_at_the_start_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (listeners, warnings) = listeners(dir.path());
        let held = StdListener::bind("127.0.0.1:0").unwrap();
        let taken = held.local_addr().unwrap();
        listeners.start(&settings("", &taken.to_string())).await;
        assert_eq!(warnings.count(), 1);
        drop(held);
        for _ in 0..100 {
            if warnings.count() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(warnings.count() == 0 && answers(taken.port()));
        listeners.stop().await;
    }
}

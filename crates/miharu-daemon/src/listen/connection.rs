//! One connection: who is at the other end, its requests, its deadlines, its graceful end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, RETRY_AFTER};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt;

use super::Entrance;
use super::activity::{Activity, Protocol, Watched};
use super::gate::Ticket;
use crate::respond::ApiError;
use crate::unread::{guarded, whole};

/// The most memory that the head of a request may take.
const HEAD_BYTES: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 64;
/// Requests of a connection that are refused, beyond those that are not, before it ends.
const REFUSALS: u32 = 20;
/// How long such a connection has to take its last answers. Behind a reverse proxy they may be others': a scrape under way, which is
/// collected for up to 4 s.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
pub(crate) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(3);
/// Connections at once on one listener, whatever the gate lets in: some more than `core.connections` may say.
pub(crate) const CONNECTIONS: usize = 1 << 17;

/// Who is at the other end of a connection; every request carries it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) entrance: Entrance,
    pub(crate) certificate: Option<Arc<PeerCertificate>>,
}

/// The certificate that a client showed, and proved to have the key of.
#[derive(Debug)]
pub(crate) struct PeerCertificate {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) fingerprint: String,
}

impl PeerCertificate {
    pub(crate) fn new(der: CertificateDer<'static>) -> Self {
        let fingerprint = miharu_store::fingerprint(&der);
        Self { der, fingerprint }
    }
}

/// A connection that is ready for HTTP.
#[derive(Debug)]
pub(crate) struct Accepted<S> {
    pub(crate) stream: S,
    pub(crate) peer: Peer,
    pub(crate) protocol: Protocol,
    pub(crate) ticket: Ticket,
}

/// What serves the connections of one listener.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) router: Router,
    /// Becomes true when connections are to end after what they are doing.
    pub(crate) stop: watch::Receiver<bool>,
    /// A permit a connection, which bounds them, and lets one wait until all are gone.
    pub(crate) permits: Arc<Semaphore>,
}

impl Server {
    /// Serves one connection to its end.
    pub(crate) async fn serve<S>(mut self, accepted: Accepted<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Accepted { stream, peer, protocol, ticket } = accepted;
        ticket.arrived();
        let standing = ticket.standing().clone();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().max_buf_size(HEAD_BYTES);
        builder.http2().max_concurrent_streams(STREAMS);
        let builder = match protocol {
            Protocol::Http1 => builder.http1_only(),
            Protocol::Http2 => builder.http2_only(),
        };
        let activity = Activity::new(protocol);
        let (requests, router) = (activity.clone(), self.router);
        let refusals = Refusals::default();
        let enough = Arc::clone(&refusals.enough);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (in_flight, asking) = (requests.request(), standing.asks());
            let router = router.clone();
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(standing.clone());
            let refused = match standing.may_ask() {
                true => {
                    refusals.forgive();
                    None
                }
                false => Some(refusals.count()),
            };
            let activity = requests.clone();
            async move {
                if let Some(then) = refused {
                    drop((in_flight, asking));
                    return Ok(too_many(then));
                }
                let response = router.oneshot(request.map(Body::new)).await;
                let response = match response {
                    Ok(response) => Ok(watched(response, &activity).await),
                    Err(never) => Err::<_, Infallible>(never),
                };
                drop((in_flight, asking));
                response
            }
        });
        let stream = TokioIo::new(Watched::new(stream, activity.clone()));
        // A WebSocket leaves the connection, its deadlines and its permit behind, and brings its own.
        let mut connection = pin!(builder.serve_connection_with_upgrades(stream, service));
        let mut alarm = pin!(sleep_until(Instant::now()));
        let mut stopping = false;
        loop {
            // Polled together, so that the deadline is looked at whenever the connection has moved.
            let watched = poll_fn(|cx| {
                if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Ended::ByItself(result));
                }
                let Some(deadline) = activity.deadline() else { return Poll::Pending };
                if alarm.deadline() != deadline {
                    alarm.as_mut().reset(deadline);
                }
                alarm.as_mut().poll(cx).map(|()| Ended::ByDeadline)
            });
            tokio::select! {
                ended = watched => {
                    match ended {
                        Ended::ByItself(Err(error)) => tracing::debug!("connection: {error}"),
                        Ended::ByItself(Ok(())) => {}
                        Ended::ByDeadline => tracing::debug!("connection closed: too slow, or idle"),
                    }
                    return;
                }
                () = ticket.revoked() => {
                    tracing::debug!("connection closed: it makes room for another one");
                    return;
                }
                () = enough.notified() => {
                    tracing::debug!("connection closed: it goes on asking too often");
                    activity.ends_within(LAST_WORDS);
                    connection.as_mut().graceful_shutdown();
                }
                _ = self.stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// How often requests of a connection were refused.
#[derive(Debug, Default)]
struct Refusals {
    /// Less those that were not.
    more: AtomicU32,
    /// Told once there were enough.
    enough: Arc<Notify>,
}

impl Refusals {
    /// Counts a request that is refused. Who goes on asking has to connect anew, which has a rate, too, and costs the client more
    /// than the server.
    fn count(&self) -> Then {
        if self.more.fetch_add(1, Ordering::Relaxed) + 1 < REFUSALS {
            return Then::GoesOn;
        }
        self.enough.notify_one();
        Then::Ends
    }

    /// Forgives one, for a request that is answered.
    fn forgive(&self) {
        let less = |more: u32| more.checked_sub(1);
        // None to forgive is as good.
        let _ = self.more.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoesOn,
    Ends,
}

/// The response, whose body has its own time to be read.
async fn watched(response: Response, activity: &Activity) -> Response {
    let (head, body) = response.into_parts();
    let body = match whole(body).await {
        Ok(bytes) => Body::from(guarded(bytes, activity.answer())),
        Err(body) => body,
    };
    Response::from_parts(head, body)
}

/// The answer to a stranger that asks too often.
fn too_many(then: Then) -> Response {
    let message = "too many requests from your address: see core.requests_per_second";
    let mut response = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message).into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    if then == Then::Ends {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

enum Ended {
    ByItself(Result<(), Box<dyn std::error::Error + Send + Sync>>),
    ByDeadline,
}

#[cfg(test)]
mod tests;

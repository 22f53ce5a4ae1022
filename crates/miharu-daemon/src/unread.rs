//! What answers hold that nobody has read yet: a budget of bytes, of which each client has a share, and turns for what costs much
//! to make.
//!
//! An answer is counted until the last of its bytes was sent or thrown away, wherever in HTTP/1.1's or HTTP/2's queues it waits. One
//! buffer that is sent to many counts once for each client, and once for all of them.

mod book;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::listen::{Entrance, Peer, Source, Standing};
use crate::respond::ApiError;
use book::{Book, Group};

/// Answers about some projects that are rendered at the same time, for all who are trusted and for all strangers.
const RENDERINGS: (usize, usize) = (4, 2);
/// How long a client waits for its own earlier requests.
const TURN_LIMIT: Duration = Duration::from_secs(8);

/// For whom an answer's bytes were made. As an extension of a response it says so of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// They are kept with their collection, for whoever asks next.
    ForAll,
    /// They were made for this answer.
    ForOne,
}

/// Whom unread answers, and requests to other members, are counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Who is trusted, by the fingerprint of its certificate.
    Certificate(String),
    /// Anybody else, by its address.
    At(Source),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(fingerprint) => {
                write!(f, "the certificate {}", fingerprint.get(..12).unwrap_or(fingerprint))
            }
            Self::At(source) => source.fmt(f),
        }
    }
}

/// Why there is no answer: what was not read yet holds too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("too many answers to you were not read yet: read them, or ask for less at a time")]
    OfClient,
    #[error("answers that were not read yet hold too much memory: try again")]
    OfAll,
    #[error("your earlier requests take too long: ask for less at a time")]
    Turn,
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        Self::busy(full.to_string())
    }
}

/// What is unread, and who makes what.
#[derive(Debug)]
pub(crate) struct Unread {
    /// Held for a few look-ups when an answer is given and when it has been sent.
    book: Mutex<Book>,
    renderings: Semaphore,
    renderings_of_strangers: Semaphore,
}

impl Default for Unread {
    fn default() -> Self {
        let (trusted, strangers) = RENDERINGS;
        Self {
            book: Mutex::default(),
            renderings: Semaphore::new(trusted),
            renderings_of_strangers: Semaphore::new(strangers),
        }
    }
}

impl Unread {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is being sent.
#[derive(Debug)]
struct Hold {
    unread: Arc<Unread>,
    client: Client,
    place: usize,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.unread.book().leave(&self.client, self.place);
    }
}

/// Who an answer is for. Every request carries it.
#[derive(Debug, Clone)]
pub(crate) struct Recipient {
    unread: Arc<Unread>,
    peer: Option<Peer>,
    standing: Option<Standing>,
}

impl Recipient {
    /// Who sent a request with these extensions.
    pub(crate) fn of(unread: &Arc<Unread>, extensions: &http::Extensions) -> Self {
        let (peer, standing) = (extensions.get::<Peer>().cloned(), extensions.get::<Standing>().cloned());
        Self { unread: Arc::clone(unread), peer, standing }
    }

    /// Whom to count for. Who is trusted is known once the rights of its first request were looked at.
    pub(crate) fn client(&self) -> Client {
        let shown = self.peer.as_ref().and_then(|peer| peer.certificate.as_ref());
        match (&self.standing, shown) {
            (Some(standing), Some(shown)) if standing.is_trusted() => {
                Client::Certificate(shown.fingerprint.clone())
            }
            (Some(standing), _) => Client::At(standing.source()),
            // A request that came by no connection is the daemon's own.
            (None, _) => Client::At(Source::User(0)),
        }
    }

    /// Whom to count for, unless nothing is.
    pub(crate) fn counts_for(&self) -> Option<Client> {
        (!self.is_free()).then(|| self.client())
    }

    /// Whether nothing is counted: whoever may open the unix socket may do everything.
    fn is_free(&self) -> bool {
        self.standing.is_none() || self.peer.as_ref().is_some_and(|peer| peer.entrance == Entrance::Unix)
    }

    fn group(&self) -> Group {
        match self.standing.as_ref().is_some_and(Standing::is_trusted) {
            true => Group::Trusted,
            false => Group::Strangers,
        }
    }

    fn hold(&self, group: Group, place: usize, bytes: usize, made: Made) -> Result<Hold, Full> {
        let client = self.client();
        self.unread.book().enter(&client, group, place, bytes, made)?;
        Ok(Hold { unread: Arc::clone(&self.unread), client, place })
    }

    /// Waits until what the client has asked for before, of what costs much, was made. Nothing waits on the unix socket.
    ///
    /// # Errors
    /// Where the client reads too little of what it asks for, or asks for too much.
    pub(crate) async fn turn(&self) -> Result<Option<Turn>, Full> {
        if self.is_free() {
            return Ok(None);
        }
        let client = self.client();
        let turn = self.unread.book().turn(&client)?;
        let waiting = Waiting { unread: Arc::clone(&self.unread), client };
        let Ok(Ok(permit)) = timeout(TURN_LIMIT, turn.acquire_owned()).await else {
            return Err(self.unread.book().refuse(&waiting.client, Full::Turn));
        };
        // What was made meanwhile may have been too much.
        self.unread.book().turn(&waiting.client)?;
        Ok(Some(Turn { _permit: permit, _waiting: waiting }))
    }

    /// A place among the answers that are being rendered. Who is trusted never waits for strangers.
    pub(crate) async fn rendering(&self) -> Option<SemaphorePermit<'_>> {
        let places = match self.group() {
            Group::Strangers if !self.is_free() => &self.unread.renderings_of_strangers,
            _ => &self.unread.renderings,
        };
        places.acquire().await.ok()
    }

    /// Counts what is read from elsewhere for this client, until it is an answer.
    ///
    /// # Errors
    /// Where there is no room for anything more.
    pub(crate) fn gathers(&self) -> Result<Gathering, Full> {
        // A place of its own in memory, which what grows may not have.
        let place = Box::new(0);
        let at = std::ptr::from_ref::<u8>(&place).addr();
        let hold = match self.is_free() {
            true => None,
            false => Some(self.hold(Group::Gathered, at, 0, Made::ForOne)?),
        };
        Ok(Gathering { hold, _place: place })
    }

    /// The response, its body counted until it was read; a refusal where there is no room for it.
    pub(crate) async fn counted(&self, response: Response) -> Response {
        if self.is_free() {
            return response;
        }
        let made = response.extensions().get::<Made>().copied().unwrap_or(Made::ForOne);
        let (head, body) = response.into_parts();
        let bytes = match whole(body).await {
            Ok(bytes) => bytes,
            Err(body) => return Response::from_parts(head, body),
        };
        match self.hold(self.group(), bytes.as_ptr().addr(), bytes.len(), made) {
            Ok(hold) => Response::from_parts(head, Body::from(guarded(bytes, hold))),
            Err(full) => ApiError::from(full).into_response(),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Recipient {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::internal("a request without a recipient");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// What is being read from elsewhere.
#[derive(Debug)]
pub(crate) struct Gathering {
    hold: Option<Hold>,
    _place: Box<u8>,
}

impl Gathering {
    /// It is so many bytes by now.
    ///
    /// # Errors
    /// Where there is no room for them.
    pub(crate) fn grown(&self, bytes: usize) -> Result<(), Full> {
        let Some(hold) = &self.hold else { return Ok(()) };
        hold.unread.book().grow(&hold.client, hold.place, bytes)
    }
}

/// A client's turn, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    /// Dropped last, when the turn is nobody's any more.
    _waiting: Waiting,
}

/// Whoever waits for a turn, or has it.
#[derive(Debug)]
struct Waiting {
    unread: Arc<Unread>,
    client: Client,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.unread.book().tidy(&self.client);
    }
}

/// The bytes of a body that has a length and something in it; else the body as it was.
pub(crate) async fn whole(body: Body) -> Result<Bytes, Body> {
    if body.size_hint().exact().is_none_or(|length| length == 0) {
        return Err(body);
    }
    // It is there, in one piece, and not copied.
    axum::body::to_bytes(body, usize::MAX).await.map_err(|error| {
        tracing::error!("an answer broke off: {error}");
        Body::empty()
    })
}

/// The bytes, and with the last piece of them that is dropped the guard.
pub(crate) fn guarded<G: Send + 'static>(bytes: Bytes, guard: G) -> Bytes {
    Bytes::from_owner(Guarded { _guard: guard, bytes })
}

struct Guarded<G> {
    /// Dropped before the bytes: once these are freed, their place may be that of somebody else's answer, and its own place in the book has
    /// to be struck by then.
    _guard: G,
    bytes: Bytes,
}

impl<G> AsRef<[u8]> for Guarded<G> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! What a connection is doing, and by when it must have done it.
//!
//! hyper has one time-out for the head of a request, which runs between requests too; here a client has 3 s to send a
//! head that it began, but may keep an idle connection for 30 s, as Prometheus does between two scrapes.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How long the head of a request may take from its first byte.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(3);
/// How long a connection may be without a request, and an answer without being read.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Writes of at least so many bytes are an answer on its way; less may be HTTP/2's own talk, which keeps no connection
/// alive.
const PROGRESS_BYTES: usize = 1024;

/// Which protocol a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// What a connection is doing. Shared by its stream, its requests and its watchdog.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    protocol: Protocol,
    /// Held for a few assignments.
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    in_flight: usize,
    reading_head: bool,
    deadline: Option<Instant>,
}

impl Activity {
    pub(crate) fn new(protocol: Protocol) -> Self {
        let deadline = Some(Instant::now() + IDLE_LIMIT);
        Self { protocol, inner: Arc::new(Mutex::new(Inner { in_flight: 0, reading_head: false, deadline })) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the connection is to be closed, if nothing happens until then; none while a request is being answered.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.lock().deadline
    }

    /// A request is being answered for as long as the guard lives.
    pub(crate) fn request(&self) -> InFlight {
        let mut inner = self.lock();
        inner.in_flight += 1;
        inner.reading_head = false;
        inner.deadline = None;
        InFlight(self.clone())
    }

    fn read(&self) {
        // HTTP/2 frames come at any time without a request; there the idle limit alone counts.
        if self.protocol == Protocol::Http2 {
            return;
        }
        let mut inner = self.lock();
        if inner.in_flight == 0 && !inner.reading_head {
            inner.reading_head = true;
            inner.deadline = Some(Instant::now() + HEAD_LIMIT);
        }
    }

    fn wrote(&self, bytes: usize) {
        let mut inner = self.lock();
        if bytes >= PROGRESS_BYTES && inner.in_flight == 0 && !inner.reading_head {
            inner.deadline = Some(Instant::now() + IDLE_LIMIT);
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct InFlight(Activity);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.in_flight = inner.in_flight.saturating_sub(1);
        if inner.in_flight == 0 {
            inner.deadline = Some(Instant::now() + IDLE_LIMIT);
        }
    }
}

/// A stream that tells its connection's activity.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    activity: Activity,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, activity: Activity) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.activity.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, buffers))?;
        self.activity.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(activity: &Activity) -> Option<Duration> {
        activity.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_3_seconds_and_an_idle_connection_30() {
        let activity = Activity::new(Protocol::Http1);
        assert_eq!(left(&activity), Some(IDLE_LIMIT));
        activity.read();
        assert_eq!(left(&activity), Some(HEAD_LIMIT));
        tokio::time::advance(Duration::from_secs(1)).await;
        activity.read();
        assert_eq!(left(&activity), Some(HEAD_LIMIT - Duration::from_secs(1)), "more bytes win no time");
        let request = activity.request();
        assert_eq!(left(&activity), None);
        drop(request);
        assert_eq!(left(&activity), Some(IDLE_LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_of_http2_neither_shorten_nor_lengthen() {
        let activity = Activity::new(Protocol::Http2);
        tokio::time::advance(Duration::from_secs(10)).await;
        activity.read();
        activity.wrote(17);
        assert_eq!(left(&activity), Some(Duration::from_secs(20)));
        activity.wrote(PROGRESS_BYTES);
        assert_eq!(left(&activity), Some(IDLE_LIMIT));
    }
}

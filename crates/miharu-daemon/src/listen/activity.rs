//! What a connection is doing, and by when it must have done it.
//!
//! hyper has one time-out for the head of a request, which runs between requests too; here a client has 3 s to send a
//! head that it began, but may keep an idle connection for 30 s, as Prometheus does between two scrapes. An answer has to be read
//! within a minute: what is not read is kept in memory.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::Frames;

/// How long the head of a request may take from its first byte.
pub(crate) const HEAD_LIMIT: Duration = Duration::from_secs(3);
/// How long a connection may be without a request, and without any answer being read.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// How long an answer may take to be read, whatever progress there is.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(60);
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
    /// Held for a few assignments, and while the frames of what was read are counted.
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    in_flight: usize,
    reading_head: bool,
    deadline: Option<Instant>,
    /// By when each answer that was not read yet has to be, in the order in which they were given.
    unread: BTreeMap<u64, Instant>,
    /// The number of the last answer.
    last: u64,
    /// By when it has to be over, whatever happens.
    end: Option<Instant>,
    /// Of HTTP/2: where in its frames the client is, and by when it has to have sent the rest of what it began.
    frames: Option<Frames>,
    rest_deadline: Option<Instant>,
}

impl Activity {
    pub(crate) fn new(protocol: Protocol) -> Self {
        let now = Instant::now();
        let inner = Inner {
            in_flight: 0,
            reading_head: false,
            deadline: Some(now + IDLE_LIMIT),
            unread: BTreeMap::new(),
            last: 0,
            end: None,
            frames: (protocol == Protocol::Http2).then(|| Frames::new(now)),
            // Who has negotiated HTTP/2 begins with its preface at once.
            rest_deadline: (protocol == Protocol::Http2).then(|| now + HEAD_LIMIT),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the connection is to be closed, if nothing happens until then; none while a request is being answered and nothing
    /// is owed or unread.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let inner = self.lock();
        let oldest = inner.unread.first_key_value().map(|(_, deadline)| *deadline);
        [inner.deadline, inner.rest_deadline, oldest, inner.end].into_iter().flatten().min()
    }

    /// The connection is not to last for longer than this from now, whatever else it does.
    pub(crate) fn ends_within(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut inner = self.lock();
        inner.end = Some(inner.end.map_or(end, |before| before.min(end)));
    }

    /// An answer is unread for as long as the guard lives. Requests that are made meanwhile win no time for it.
    pub(crate) fn answer(&self) -> UnreadAnswer {
        let mut inner = self.lock();
        inner.last += 1;
        let number = inner.last;
        inner.unread.insert(number, Instant::now() + ANSWER_LIMIT);
        UnreadAnswer { activity: self.clone(), number }
    }

    /// A request is being answered for as long as the guard lives.
    pub(crate) fn request(&self) -> InFlight {
        let mut inner = self.lock();
        inner.in_flight += 1;
        inner.reading_head = false;
        inner.deadline = None;
        InFlight(self.clone())
    }

    fn read(&self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        // HTTP/2 frames come at any time without a request; there the idle limit counts, and that none stays half sent.
        if let Some(frames) = &mut inner.frames {
            let now = Instant::now();
            frames
                .read(bytes, now)
                .map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))?;
            inner.rest_deadline =
                if frames.is_partial() { inner.rest_deadline.or(Some(now + HEAD_LIMIT)) } else { None };
            return Ok(());
        }
        if inner.in_flight == 0 && !inner.reading_head {
            inner.reading_head = true;
            inner.deadline = Some(Instant::now() + HEAD_LIMIT);
        }
        Ok(())
    }

    fn wrote(&self, bytes: usize) {
        let mut inner = self.lock();
        if let Some(frames) = &mut inner.frames {
            frames.wrote(bytes);
        }
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

/// An answer that was given and has not been sent to its end.
#[derive(Debug)]
pub(crate) struct UnreadAnswer {
    activity: Activity,
    number: u64,
}

impl Drop for UnreadAnswer {
    fn drop(&mut self) {
        self.activity.lock().unread.remove(&self.number);
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
        match buffer.filled().get(before..) {
            None | Some([]) => Poll::Ready(Ok(())),
            Some(bytes) => Poll::Ready(self.activity.read(bytes)),
        }
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
        activity.read(b"G").unwrap();
        assert_eq!(left(&activity), Some(HEAD_LIMIT));
        tokio::time::advance(Duration::from_secs(1)).await;
        activity.read(b"G").unwrap();
        assert_eq!(left(&activity), Some(HEAD_LIMIT - Duration::from_secs(1)), "more bytes win no time");
        let request = activity.request();
        assert_eq!(left(&activity), None);
        drop(request);
        assert_eq!(left(&activity), Some(IDLE_LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_of_http2_neither_shorten_nor_lengthen() {
        let activity = Activity::new(Protocol::Http2);
        assert_eq!(left(&activity), Some(HEAD_LIMIT));
        activity.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        activity.read(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).unwrap();
        activity.wrote(17);
        assert_eq!(left(&activity), Some(Duration::from_secs(20)));
        activity.wrote(PROGRESS_BYTES);
        assert_eq!(left(&activity), Some(IDLE_LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_of_http2_has_3_seconds_too_even_while_others_are_answered() {
        let activity = Activity::new(Protocol::Http2);
        activity.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let _request = activity.request();
        assert_eq!(left(&activity), None);
        activity.read(&[0, 0, 1, 1, 0, 0, 0, 0, 1]).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        activity.read(&[7]).unwrap();
        assert_eq!(left(&activity), Some(HEAD_LIMIT - Duration::from_secs(1)), "its last frame has not come");
        activity.read(&[0, 0, 0, 9, 4, 0, 0, 0, 1]).unwrap();
        assert_eq!(left(&activity), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_within_a_minute() {
        let activity = Activity::new(Protocol::Http1);
        drop(activity.request());
        let answer = activity.answer();
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(10)).await;
            activity.wrote(PROGRESS_BYTES);
        }
        assert_eq!(left(&activity), Some(Duration::from_secs(10)));
        drop(answer);
        drop(activity.request());
        assert_eq!(left(&activity), Some(IDLE_LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn other_requests_win_no_time_for_an_answer_that_is_not_read() {
        let activity = Activity::new(Protocol::Http2);
        activity.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let first = activity.answer();
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(11)).await;
            drop(activity.request());
            drop(activity.answer());
        }
        let second = activity.answer();
        assert_eq!(left(&activity), Some(Duration::from_secs(5)));
        let _request = activity.request();
        assert_eq!(left(&activity), Some(Duration::from_secs(5)), "even while another one is answered");
        drop(first);
        assert_eq!(left(&activity), Some(ANSWER_LIMIT), "the next one has its own time");
        drop(second);
        assert_eq!(left(&activity), None);
        activity.ends_within(Duration::from_secs(1));
        assert_eq!(left(&activity), Some(Duration::from_secs(1)));
    }
}

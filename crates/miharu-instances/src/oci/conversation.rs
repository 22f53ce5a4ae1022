//! One conversation over a unix socket, by a thread that waits for nothing else.
//!
//! There is no reactor behind it: tokio's keeps a pipe for signals that all runtimes of a process share, by its number, and the
//! thread of names has a descriptor table of its own (see [`miharu_linux::apart::Apart`]), where that number means nothing.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use hyper::rt::{Executor, ReadBufCursor};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How much is read at once, bytes.
const PIECE: usize = 8 << 10;

/// A connection as hyper wants it. It says what it waits for, and [`converse`] waits.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    socket: Rc<UnixStream>,
    waits: Rc<Waits>,
    tasks: Tasks,
}

/// What a conversation needs of its socket to go on.
#[derive(Debug, Default)]
struct Waits {
    reads: Cell<bool>,
    writes: Cell<bool>,
}

/// What goes on beside a conversation, such as what keeps a connection going, until that has ended.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    running: Rc<RefCell<Vec<Task>>>,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Connects to a socket, without waiting for who listens there.
///
/// # Errors
/// As connect(2).
pub(crate) fn connect(path: &Path) -> io::Result<Stream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let socket = Rc::new(UnixStream::from(socket));
    Ok(Stream { socket, waits: Rc::default(), tasks: Tasks::default() })
}

/// Speaks on a connection until `talk` is done, and closes it; nothing where that is not done by `end`.
pub(crate) fn converse<T, F>(stream: Stream, talk: impl FnOnce(Stream) -> F, end: Instant) -> Option<T>
where
    F: Future<Output = T>,
{
    let (socket, waits, tasks) = (Rc::clone(&stream.socket), Rc::clone(&stream.waits), stream.tasks.clone());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    let mut talk = pin!(talk(stream));
    let done = loop {
        waits.reads.set(false);
        waits.writes.set(false);
        if let Poll::Ready(done) = talk.as_mut().poll(&mut context) {
            break Some(done);
        }
        tasks.poll(&mut context);
        let now = Instant::now();
        if now >= end {
            break None;
        }
        if woken.take() {
            continue;
        }
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, waits.reads.get());
        wanted.set(PollFlags::OUT, waits.writes.get());
        let Ok(left) = Timespec::try_from(end - now) else { break None };
        // Who waits for neither waits for ever.
        if wanted.is_empty() {
            break None;
        }
        match rustix::event::poll(&mut [PollFd::new(&*socket, wanted)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break None,
        }
    };
    // Some of them hold one of these themselves.
    tasks.end();
    done
}

/// Whether something is to be looked at again.
#[derive(Default)]
struct Woken(AtomicBool);

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Stream {
    /// Where to put what goes on beside the conversation.
    pub(crate) fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }
}

impl Tasks {
    /// Adds one.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.running.borrow_mut().push(Box::pin(task));
    }

    fn poll(&self, context: &mut Context<'_>) {
        let mut tasks = self.running.take();
        tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        // They may have started others meanwhile, which nobody has looked at.
        let mut running = self.running.borrow_mut();
        if !running.is_empty() {
            context.waker().wake_by_ref();
        }
        running.append(&mut tasks);
    }

    fn end(&self) {
        // An end may start others.
        loop {
            let tasks = self.running.take();
            if tasks.is_empty() {
                return;
            }
            drop(tasks);
        }
    }
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// What came of a call, where it would not have had to wait.
fn ready<T>(result: io::Result<T>, waits: &Cell<bool>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            waits.set(true);
            Poll::Pending
        }
        done => Poll::Ready(done),
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = [0; PIECE];
        let room = buffer.remaining().min(PIECE);
        let Some(place) = piece.get_mut(..room) else { return Poll::Ready(Ok(())) };
        let read = ready((&*self.socket).read(place), &self.waits.reads);
        read.map_ok(|length| buffer.put_slice(place.get(..length).unwrap_or_default()))
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready((&*self.socket).write(bytes), &self.waits.writes)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }
}

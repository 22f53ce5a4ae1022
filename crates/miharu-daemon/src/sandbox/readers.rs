//! The threads that look at instances: all of them are started by one thread, so that they are restricted as it is.

use std::io;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::{Outcome, rights};

/// What starts readers. It is never dropped: who stops the daemon does not wait for what hangs.
static READERS: OnceLock<Runtime> = OnceLock::new();

/// Starts the thread that starts readers, `limit` of them at once at most. Tells whether it is kept from writing.
///
/// # Errors
/// Where it cannot be started.
pub(super) fn start(limit: usize) -> io::Result<Outcome> {
    let begin = move || {
        let reading = super::only_read(rights::of_readers());
        // With a worker of its own, which the calling thread hands on its restrictions to: where the system gives no further thread what
        // is to be done then waits, and a runtime without a worker would panic.
        let readers = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(limit)
            .thread_name("looking")
            .build()?;
        // It is started once.
        let _ = READERS.set(readers);
        Ok(reading)
    };
    let thread = std::thread::Builder::new().name("looking".to_owned()).spawn(begin)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
}

/// Does something that blocks on a thread that may look at instances. As [`tokio::task::spawn_blocking`], which would start a thread
/// of the caller's kind.
pub(crate) fn look<T, F>(work: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let Some(readers) = READERS.get() else { return tokio::task::spawn_blocking(work) };
    readers.spawn(async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Broken off: the daemon stops.
                Err(_) => std::future::pending().await,
            },
        }
    })
}

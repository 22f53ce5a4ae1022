//! The cluster's own thread: one runtime, one connection to etcd, for as long as this server is a member.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use super::Report;
use super::client::Client;
use super::copy::{Shared, Stored};
use super::sync::{Wires, run};
use crate::Error;

/// How long the thread may take to say goodbye to etcd when the server stops.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection is waited for while not all endpoints have failed, and once they have.
const PATIENCE: Duration = Duration::from_secs(8);
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// How long another connection than one that came to nothing is waited for.
const OTHER_PATIENCE: Duration = Duration::from_millis(2500);

/// The connection, as others than the thread see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    /// It is there while the copy is kept in step over it.
    pub(crate) client: Option<Client>,
    /// Which one it is, in this run.
    pub(crate) number: u64,
    /// How many attempts have failed since it was there.
    pub(crate) failed: usize,
}

/// The thread, and the wires to it.
#[derive(Debug)]
pub(crate) struct Engine {
    handle: Handle,
    link: watch::Receiver<Link>,
    /// How many places etcd is at.
    endpoints: usize,
    report: watch::Sender<Report>,
    stop: watch::Sender<bool>,
    /// Whether nothing is kept in step any more; the runtime lives on for those who still use it.
    ended: watch::Receiver<bool>,
    /// That nobody uses the runtime any more.
    unused: watch::Sender<bool>,
    /// Told by who found that the connection leads nowhere.
    broken: watch::Sender<u64>,
    thread: Option<JoinHandle<()>>,
}

/// A runtime for one thread.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { path: "the cluster's runtime".to_owned(), source })
}

impl Engine {
    /// Starts the thread.
    pub(crate) fn start(shared: &Arc<Shared>, stored: Stored) -> Result<Self, Error> {
        let runtime = runtime()?;
        let handle = runtime.handle().clone();
        let (link_in, link) = watch::channel(Link::default());
        let (report, report_out) = watch::channel(Report::default());
        let (stop, stop_out) = watch::channel(false);
        let (ended_in, ended) = watch::channel(false);
        let (unused, mut unused_out) = watch::channel(false);
        let (broken, broken_out) = watch::channel(0);
        let wires = Wires { link: link_in, report: report_out, stop: stop_out, broken: broken_out };
        let endpoints = stored.access.endpoints().len();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    run(&shared, &stored, wires).await;
                    ended_in.send_replace(true);
                    // Its sender is gone only with the last who could use the runtime.
                    let _ = unused_out.wait_for(|unused| *unused).await;
                });
                runtime.shutdown_background();
            })
            .map_err(|source| Error::Io { path: "the cluster's thread".to_owned(), source })?;
        Ok(Self { handle, link, endpoints, report, stop, ended, unused, broken, thread: Some(thread) })
    }

    /// Keeps nothing in step any more, and waits for the end of what is being done.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        self.block_on(async {
            let ending = tokio::time::timeout(STOP_LIMIT, ended.wait_for(|ended| *ended)).await;
            if ending.is_err() {
                tracing::warn!("the cluster's thread takes long to end");
            }
        });
    }

    /// Does something on the thread's runtime, and waits for it. Only for threads that may block.
    pub(crate) fn block_on<T>(&self, doing: impl Future<Output = T>) -> T {
        self.handle.block_on(doing)
    }

    /// The connection. One that was lost just now is waited for, as another endpoint may take over; where all have failed,
    /// only a moment.
    pub(crate) async fn link(&self) -> Option<Client> {
        let mut link = self.link.clone();
        let all_failed = link.borrow().failed >= self.endpoints;
        let patience = if all_failed { SHORT_PATIENCE } else { PATIENCE };
        let settled =
            link.wait_for(|link| link.client.is_some() || (!all_failed && link.failed >= self.endpoints));
        tokio::time::timeout(patience, settled).await.ok()?.ok()?.client.clone()
    }

    /// The connection and its number. After a call over this one came to nothing, another one is waited for a moment; that it is
    /// still the same then may mean that it was etcd's majority that was missing.
    pub(crate) async fn link_after(&self, number: Option<u64>) -> Option<(Client, u64)> {
        if let Some(number) = number {
            let mut link = self.link.clone();
            let _ = tokio::time::timeout(OTHER_PATIENCE, link.wait_for(|link| link.number != number)).await;
        }
        let client = self.link().await?;
        Some((client, self.link.borrow().number))
    }

    /// Tells that a call over the connection came to nothing.
    pub(crate) fn broken(&self) {
        self.broken.send_modify(|times| *times += 1);
    }

    /// What this member tells of itself from now on.
    pub(crate) fn report(&self, report: Report) {
        self.report.send_if_modified(|last| {
            let differs = *last != report;
            *last = report;
            differs
        });
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.unused.send_replace(true);
        let Some(thread) = self.thread.take() else { return };
        let begin = std::time::Instant::now();
        while !thread.is_finished() && begin.elapsed() < STOP_LIMIT {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() && thread.join().is_err() {
            tracing::warn!("the cluster's thread ended in a panic");
        }
    }
}

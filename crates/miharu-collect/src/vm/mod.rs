//! Virtual machines: their guests asked through agents, their monitors through QMP or libvirt, and the host where they are silent.
//!
//! [`Guests`] keeps a [`session::Session`] a machine from one collection to the next, on threads of its own: what hangs there
//! costs a timer and no thread. The codecs ([`qmp`], [`qga`], [`report`], [`xdr`]) read bytes and know no socket.

mod agent;
pub(crate) mod backoff;
mod bounds;
mod certificates;
mod disks;
pub(crate) mod fuzzing;
mod guard;
mod guest_agent;
pub(crate) mod host;
mod incus;
mod libvirt_source;
mod monitor;
pub(crate) mod origin;
mod qga;
pub(crate) mod qmp;
mod report;
mod served;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod xdr;

use std::collections::HashMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use miharu_instances::{Incarnation, Instance, Vm};
use miharu_linux::Roots;
use miharu_linux::block::Layers;
use tokio::runtime::{Builder, Runtime};

use crate::Options;

pub use origin::Origin;
pub use report::Addresses;
pub(crate) use served::{Facts, Served, serve};
pub(crate) use session::{Age, Told};
use session::{Limits, Session};

/// How much longer than a question may take its asker waits for what came of it.
const SLACK: Duration = Duration::from_millis(50);

/// The guests of this host.
#[derive(Debug)]
pub(crate) struct Guests {
    roots: Roots,
    /// Started with the first machine, as most hosts have none; nothing where no thread could be started.
    runtime: OnceLock<Option<Runtime>>,
    /// Held for look-ups only.
    sessions: Mutex<HashMap<Incarnation, Known>>,
}

/// A session, and what it was made of.
#[derive(Debug)]
struct Known {
    vm: Vm,
    layers: Layers,
    /// Locked while it is being asked, so that one that is late is not asked twice.
    session: Arc<tokio::sync::Mutex<Session>>,
}

/// Questions under way.
#[derive(Debug)]
pub(crate) struct Asking {
    count: usize,
    until: Instant,
    answers: mpsc::Receiver<(Incarnation, Answer)>,
}

/// What came of one machine's questions.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) told: Told,
    pub(crate) took: Duration,
}

impl Guests {
    pub(crate) fn new(roots: Roots) -> Self {
        Self { roots, runtime: OnceLock::new(), sessions: Mutex::default() }
    }

    /// Begins to ask all of `machines` at once; what is not known `until` then is given up. A source that was lost is spoken of
    /// for as long as `options.agent_grace`. Machines that are not among these are forgotten.
    pub(crate) fn ask(&self, machines: &[(Arc<Instance>, Age)], until: Instant, options: &Options) -> Asking {
        let Options { disk_layers: layers, agent_grace: memory, balloon_interval, .. } = *options;
        let (sender, answers) = mpsc::channel();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *sessions);
        let mut count = 0;
        for (instance, age) in machines {
            let Some(vm) = &instance.vm else { continue };
            let known = before.remove(&instance.incarnation);
            let known = known.filter(|known| is_asked_alike(&known.vm, vm) && known.layers == layers);
            let known = known.unwrap_or_else(|| Known {
                vm: vm.clone(),
                layers,
                session: Arc::new(tokio::sync::Mutex::new(Session::new(&self.roots, vm, layers))),
            });
            if let Some(runtime) = self.runtime() {
                let session = Arc::clone(&known.session);
                let limits = Limits { until: until.into(), age: *age, memory, balloon_interval };
                let (incarnation, sender) = (instance.incarnation, sender.clone());
                count += 1;
                runtime.spawn(async move {
                    let start = Instant::now();
                    let Ok(mut session) = session.try_lock() else { return };
                    let told = session.ask(limits).await;
                    // Nobody may wait any more; the next collection will.
                    let _ = sender.send((incarnation, Answer { told, took: start.elapsed() }));
                });
            }
            sessions.insert(instance.incarnation, known);
        }
        Asking { count, until, answers }
    }

    fn runtime(&self) -> Option<&Runtime> {
        let start = || {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(2)
                .thread_name("guests")
                .enable_all()
                .build();
            runtime
                .inspect_err(|error| tracing::error!(%error, "no thread can be started to ask guests"))
                .ok()
        };
        self.runtime.get_or_init(start).as_ref()
    }
}

/// Whether a session for the one machine will do for the other: a tap or a disk that was plugged in changes nothing about who
/// can be asked.
fn is_asked_alike(one: &Vm, other: &Vm) -> bool {
    let way = |vm: &Vm| {
        let Vm { monitors, channels, vsock, certificates, owner, .. } = vm.clone();
        (monitors, channels, vsock, certificates, owner)
    };
    way(one) == way(other)
}

impl Drop for Guests {
    fn drop(&mut self) {
        // Whoever drops this may himself run on tokio, where waiting for a runtime's end panics.
        if let Some(Some(runtime)) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Asking {
    /// Waits for the answers.
    pub(crate) fn finish(self) -> HashMap<Incarnation, Answer> {
        let mut answers = HashMap::with_capacity(self.count);
        while answers.len() < self.count {
            let left = (self.until + SLACK).saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok((incarnation, answer)) => {
                    answers.insert(incarnation, answer);
                }
                Err(_) => break,
            }
        }
        answers
    }
}

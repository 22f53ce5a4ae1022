//! The host as a source of figures: discovery and collection in one, behind the cache.

use std::borrow::Cow;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use miharu_collect::{Collector, Options, Roots};
use miharu_instances::{Chosen, Discovery, DriverOptions, Instance, Kind, drivers};
use miharu_metrics::server::Process;
use miharu_metrics::{InstanceType, ServerFigures, Snapshot};
use miharu_store::Store;
use tokio::sync::Mutex;

use crate::cache::{Found, Gathered, Source, epoch_seconds};
use crate::clock::seconds_now;
use crate::cluster::counts_here;
use crate::expiry::ends;
use crate::requests::Requests;
use crate::sandbox;
use crate::tls::Tls;
use crate::warnings::{Group, Kind as WarningKind, Problem, Warnings};

/// How long a request waits for a scan of the host.
const SCAN_LIMIT: Duration = Duration::from_secs(3);

/// How often it is looked whether another scan has ended.
const PAUSE: Duration = Duration::from_millis(2);

/// What the figures of the server itself are made of.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) started: Instant,
    pub(crate) warnings: Warnings,
    pub(crate) requests: Arc<Requests>,
    pub(crate) store: Arc<Store>,
    pub(crate) tls: Arc<Tls>,
}

impl Own {
    /// How many operations are in progress: the join tokens that can still be used, as the API has it. Those of a cluster are
    /// counted by one member each.
    fn operations(&self) -> u64 {
        let state = self.store.load();
        let clients = state.usable_join_tokens(seconds_now()).map(|token| &token.id);
        let cluster = state.cluster.as_deref().filter(|cluster| !cluster.removed);
        let members = cluster.into_iter().flat_map(|cluster| cluster.invitations.values()).map(|it| &it.id);
        clients.chain(members).filter(|id| counts_here(cluster, id)).count() as u64
    }
}

/// The one search for instances, which scrapes and other requests share: what it knows of each instance takes descriptors.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    roots: Roots,
    /// Nothing before the first scan. The inner lock is held for a scan, the outer one for a look.
    current: Arc<StdMutex<Option<Current>>>,
}

/// A discovery, and the drivers that it has.
#[derive(Debug, Clone)]
struct Current {
    drivers: DriverOptions,
    discovery: Arc<StdMutex<Discovery>>,
}

impl Current {
    fn new(roots: &Roots, options: &DriverOptions) -> Self {
        let discovery = Discovery::new(roots.clone(), drivers(options));
        Self { drivers: options.clone(), discovery: Arc::new(StdMutex::new(discovery)) }
    }
}

impl Search {
    pub(crate) fn of(roots: &Roots) -> Self {
        Self { roots: roots.clone(), current: Arc::default() }
    }

    /// The discovery with the drivers asked for. One with others is left to a scan that may still use it.
    fn with(&self, options: &DriverOptions) -> Arc<StdMutex<Discovery>> {
        let mut current = lock(&self.current);
        let known = current.take().filter(|current| current.drivers == *options);
        let known = known.unwrap_or_else(|| Current::new(&self.roots, options));
        Arc::clone(&current.insert(known).discovery)
    }

    /// Searches for the instances that are served, for `patience` at most where another scan goes on.
    fn scan(&self, chosen: &Chosen, patience: Duration) -> Result<miharu_instances::Scan, String> {
        let discovery = self.with(&chosen.drivers);
        let end = Instant::now() + patience;
        loop {
            let scan = match discovery.try_lock() {
                Ok(mut discovery) => discovery.scan(),
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().scan(),
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err("the search for instances did not end in time".to_owned());
                }
            };
            let mut scan = scan.map_err(|error| format!("instances cannot be found: {error}"))?;
            chosen.choose(&mut scan);
            return Ok(scan);
        }
    }

    /// Begins anew where a scan hangs; that one is left to itself.
    fn renew_if_stuck(&self) {
        let mut current = lock(&self.current);
        if let Some(stuck) = current.take_if(|current| current.discovery.try_lock().is_err()) {
            *current = Some(Current::new(&self.roots, &stuck.drivers));
        }
    }
}

fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host.
pub(crate) struct Host {
    search: Search,
    collector: Collector,
    own: Own,
}

impl Host {
    /// A source for the first time, or in place of one that hangs.
    pub(crate) fn new(roots: &Roots, search: Search, own: Own) -> Self {
        search.renew_if_stuck();
        Self { search, collector: Collector::new(roots.clone()).starting(sandbox::open_devices), own }
    }
}

impl Source for Host {
    fn collect(&mut self, options: &Options) -> Result<Gathered, String> {
        let begun = Instant::now();
        let scan = self.search.scan(&options.chosen, options.collect_timeout)?;
        let options = &left_of(options, begun.elapsed());
        let collection = self.collector.collect(&scan.instances, options);
        let mut problems: Vec<Problem> = scan.warnings.iter().map(Problem::from).collect();
        problems.extend(collection.warnings.iter().map(Problem::from));
        problems.extend(descriptors(&collection.process));
        self.own.warnings.replace(Group::Collection, problems);
        let server = ServerFigures {
            uptime: Some(self.own.started.elapsed()),
            operations: Some(self.own.operations()),
            warnings: Some(self.own.warnings.count() as u64),
            cluster_sync_age: self.own.store.sync_status().and_then(|status| status.age),
            certificates: ends(&self.own.store.load(), &self.own.tls, seconds_now()),
            api_requests: self.own.requests.figures(),
            collect_duration: Some(begun.elapsed()),
            collect_timestamp_seconds: epoch_seconds(collection.started),
            process: collection.process,
            runtimes: collection.runtimes,
        };
        let found = scan.instances.iter().map(|instance| found(instance)).collect();
        let snapshot = Snapshot::new(collection.instances, server);
        Ok(Gathered { snapshot, found, guests: collection.guests, host: collection.host })
    }
}

/// The options for a collection whose time is partly spent: where thousands of instances appear at once the search for them takes
/// seconds, and a collection that came back so much later would be given up with all that it has read.
fn left_of(options: &Options, spent: Duration) -> Cow<'_, Options> {
    /// Less makes no difference to whoever waits.
    const SHORT: Duration = Duration::from_millis(250);
    if spent < SHORT {
        return Cow::Borrowed(options);
    }
    let whole = options.collect_timeout;
    Cow::Owned(Options { collect_timeout: whole.saturating_sub(spent).max(whole / 4), ..options.clone() })
}

/// Connections and files that are kept open share one limit; what is beyond it fails.
fn descriptors(process: &Process) -> Option<Problem> {
    let (open, limit) = (process.open_fds?, process.max_fds?);
    let message = format!(
        "{open} of {limit} file descriptors are in use: raise the limit (LimitNOFILE= of the service), or close \
         connections"
    );
    let is_low = open >= limit / 10 * 9;
    is_low.then(|| Problem::of_server(WarningKind::Descriptors, "", message))
}

/// Who runs now, told by a thread that may block.
pub(crate) trait Scan: Send {
    fn scan(&mut self, chosen: &Chosen) -> Result<Vec<Found>, String>;

    /// The same as who finds them knows them.
    fn instances(&mut self, chosen: &Chosen) -> Result<Vec<Arc<Instance>>, String>;
}

impl Scan for Search {
    fn scan(&mut self, chosen: &Chosen) -> Result<Vec<Found>, String> {
        Ok(self.instances(chosen)?.iter().map(|instance| found(instance)).collect())
    }

    fn instances(&mut self, chosen: &Chosen) -> Result<Vec<Arc<Instance>>, String> {
        Ok(Self::scan(self, chosen, SCAN_LIMIT)?.instances)
    }
}

/// Finds instances for requests that need no figures, without waiting for a collection.
#[derive(Clone)]
pub(crate) struct Finder {
    /// Held for a scan. An async lock, so that requests wait for a scan that hangs without a thread each.
    scanner: Arc<Mutex<Box<dyn Scan>>>,
}

impl std::fmt::Debug for Finder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Finder")
    }
}

impl Finder {
    pub(crate) fn new(scanner: Box<dyn Scan>) -> Self {
        Self { scanner: Arc::new(Mutex::new(scanner)) }
    }

    /// The instances that run now and are served.
    ///
    /// # Errors
    /// Why they cannot be told, for people.
    pub(crate) async fn find(&self, chosen: Arc<Chosen>) -> Result<Vec<Found>, String> {
        self.look(move |scanner| scanner.scan(&chosen)).await
    }

    /// As [`Finder::find`], for who reads them.
    ///
    /// # Errors
    /// As [`Finder::find`].
    pub(crate) async fn instances(&self, chosen: Arc<Chosen>) -> Result<Vec<Arc<Instance>>, String> {
        self.look(move |scanner| scanner.instances(&chosen)).await
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut dyn Scan) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let scanner = Arc::clone(&self.scanner);
        let work = async {
            let mut scanner = scanner.lock_owned().await;
            let scan = sandbox::look(move || look(&mut **scanner));
            scan.await.map_err(|error| error.to_string())?
        };
        let late = |_| Err("the search for instances did not end in time".to_owned());
        tokio::time::timeout(SCAN_LIMIT, work).await.unwrap_or_else(late)
    }
}

fn instance_type(instance: &Instance) -> InstanceType {
    match instance.kind {
        Kind::Container => InstanceType::Container,
        Kind::VirtualMachine => InstanceType::VirtualMachine,
    }
}

/// Whether it is this one.
pub(crate) fn is_found(instance: &Instance, found: &Found) -> bool {
    (&instance.project, &instance.name, instance_type(instance))
        == (&found.project, &found.name, found.instance_type)
}

fn found(instance: &Instance) -> Found {
    Found {
        project: instance.project.clone(),
        name: instance.name.clone(),
        instance_type: instance_type(instance),
        runtime: instance.runtime.to_owned(),
        id: instance.id.clone(),
        image: instance.image.clone(),
        pid: Some(instance.incarnation.init_pid),
    }
}

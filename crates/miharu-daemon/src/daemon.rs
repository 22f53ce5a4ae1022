//! The daemon's life: start in the right order, run until a signal, stop without waiting for what hangs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use miharu_collect::Roots;
use miharu_collect::host::{Buffer, Capabilities, Cost, listener, own_addresses};
use miharu_store::address;
use miharu_store::{State, Store};
use rustix::process::Resource;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::args::Args;
use crate::cache::{Cache, Source, Wish};
use crate::changes;
use crate::ends::{self, Lasting};
use crate::events::Events;
use crate::forward::Forward;
use crate::listen::{Listeners, PortHolder, UnixListener};
use crate::machine::Machine;
use crate::plan::Plans;
use crate::requests::Requests;
use crate::routes;
use crate::sandbox;
use crate::source::{Finder, Host, Own, Search};
use crate::state_dir::{StateDir, group_id};
use crate::tls::identity::{remove_cluster, write_cluster};
use crate::tls::{Identity, Tls, Versions};
use crate::usage::Usage;
use crate::warnings::Warnings;
use crate::watchdog;

/// How long requests in progress may take to end when the daemon stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// The exit status after a second signal: what a shell reports for SIGTERM.
const IMPATIENT: i32 = 143;

/// Threads that serve connections, at most.
const WORKERS: usize = 4;
/// Threads for what blocks: collections, renderings, commits.
const BLOCKING_THREADS: usize = 64;

/// Runs the daemon until it is told to stop.
pub(crate) fn run(args: &Args, events: Events) -> anyhow::Result<()> {
    raise_descriptor_limit();
    // What runs here waits for the kernel far more than it computes: a core more would only spread it.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS);
    // Besides, what starts the threads that look at instances, its worker, what reads certificates, and what opens devices.
    can_start(workers + 4)?;
    let lock = StateDir::open(&args.dir)?;
    // Threads inherit what is in force for who starts them, so this comes before there are any.
    sandbox::enter(args.sandbox, &args.dir, BLOCKING_THREADS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("miharud")
        .build()
        .context("the runtime cannot be started")?;
    let result = runtime.block_on(serve(args, events));
    // Threads that hang on a dead file system are left behind, not waited for.
    runtime.shutdown_background();
    drop(lock);
    result
}

async fn serve(args: &Args, events: Events) -> anyhow::Result<()> {
    // Signals are caught before anything is made that would have to be cleaned up.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;

    let dir = &args.dir;
    let group = args.group.as_deref().map(group_id).transpose()?;
    let roots = args.roots();
    let (app, warnings) = app(dir, &roots, events)?;
    let settings = app.store.load().config.settings();

    let unix = UnixListener::bind(&dir.join("unix.socket"), group)?;
    let listeners = Listeners::new(
        Arc::clone(&app.tls),
        port_holder(roots.clone()),
        warnings,
        routes::all(&app),
        routes::metrics_only(&app),
    );
    // Set here alone, so it cannot be set already.
    let _ = app.listeners.set(Arc::clone(&listeners));
    listeners.start(&settings).await;
    let unix = unix.serve(routes::all(&app), listeners.limits());

    if let Some(limit) = sd_notify::watchdog_enabled() {
        tokio::spawn(watchdog::watch(routes::all(&app), limit));
    }
    tokio::spawn(crate::events::watch(Arc::clone(&app)));
    tokio::spawn(crate::expiry::watch(Arc::clone(&app)));
    tokio::spawn(crate::copy::watch(Arc::clone(&app.store), app.warnings.clone()));
    tokio::spawn(crate::cluster::watch(Arc::clone(&app)));
    tokio::spawn(crate::usage::watch(Arc::clone(&app)));
    say_what_is_missing(&roots).await;
    notify(NotifyState::Ready);
    let of_first = Arc::clone(&app);
    tokio::spawn(async move { say_what_runs(&of_first).await });

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                tracing::info!("reading the server's certificate and the clients' authority again");
                app.tls.reload();
            }
        }
    }

    tracing::info!("stopping");
    notify(NotifyState::Stopping);
    let of_goodbye = Arc::clone(&app);
    let goodbye = tokio::task::spawn_blocking(move || of_goodbye.store.cluster_goodbye());
    let stopped = async { tokio::join!(unix.stop(), listeners.stop(), app.events.close(), goodbye) };
    tokio::select! {
        ended = tokio::time::timeout(STOP_LIMIT, stopped) => {
            if ended.is_err() {
                tracing::warn!("requests in progress were cut off after {} s", STOP_LIMIT.as_secs());
            }
        }
        _ = terminate.recv() => std::process::exit(IMPATIENT),
        _ = interrupt.recv() => std::process::exit(IMPATIENT),
    }
    Ok(())
}

fn app(dir: &Path, roots: &Roots, events: Events) -> anyhow::Result<(Arc<App>, Warnings)> {
    let machine = Machine::read(roots);
    let store = Store::open(&dir.join("miharu.db")).map_err(of_store)?;
    let store = Arc::new(store);
    let settings = store.load().config.settings();
    prepare_files(dir, &store.load());
    let identity = Arc::new(Identity::open(dir, || machine.certificate_names(&own_addresses(roots)))?);
    let tls = Arc::new(Tls::new(identity, Versions::of(&settings))?);
    let requests = Arc::new(Requests::default());
    let warnings = Warnings::new(events.clone());
    let own = Own {
        started: Instant::now(),
        warnings: warnings.clone(),
        requests: Arc::clone(&requests),
        store: Arc::clone(&store),
        tls: Arc::clone(&tls),
    };
    let host = roots.clone();
    let search = Search::of(roots);
    let of_scrapes = search.clone();
    let make_source = move || Box::new(Host::new(&host, of_scrapes.clone(), own.clone())) as Box<dyn Source>;
    let app = App {
        store,
        cache: Cache::new(Box::new(make_source)),
        finder: Finder::new(Box::new(search)),
        tls,
        machine,
        roots: roots.clone(),
        requests,
        events,
        warnings: warnings.clone(),
        plans: Plans::default(),
        listeners: std::sync::OnceLock::new(),
        changes: tokio::sync::Mutex::default(),
        told: changes::Told::default(),
        forward: Forward::default(),
        unread: Arc::default(),
        usage: Usage::default(),
    };
    crate::cluster::show_certificate(&app, &app.store.load());
    Ok((Arc::new(app), warnings))
}

/// What the store says, whose words name their cause already.
fn of_store(error: miharu_store::Error) -> anyhow::Error {
    let lasts = match &error {
        miharu_store::Error::Unusable { .. } => true,
        miharu_store::Error::OutOfReach { kind, .. } => ends::stays(*kind),
        _ => false,
    };
    let told = anyhow::anyhow!("{error}");
    if lasts { Lasting(told).into() } else { told }
}

/// The copy of the cluster's certificate is written before it is read: one that was cut short would else fit no key. Who was
/// removed from the cluster shows nothing of it.
fn prepare_files(dir: &Path, state: &State) {
    let Some(cluster) = &state.cluster else { return };
    let done = match cluster.certificate.as_ref().filter(|_| !cluster.removed) {
        Some(served) => write_cluster(dir, &served.certificate_pem, served.key_pem.reveal()),
        None => remove_cluster(dir),
    };
    if let Err(error) = done {
        tracing::warn!("the files of the cluster's certificate stay as they are: {error}");
    }
}

fn port_holder(roots: Roots) -> PortHolder {
    Arc::new(move |address| {
        let ip = if let address::Host::Ip(ip) = address.host { Some(ip) } else { None };
        let holder = listener(&roots, ip, address.port)?;
        Some(format!("{} (pid {})", holder.comm, holder.pid))
    })
}

async fn say_what_is_missing(roots: &Roots) {
    let roots = roots.clone();
    let read = sandbox::look(move || Capabilities::of_this_thread(&roots, &mut Buffer::new()));
    let Ok(read) = read.await else { return };
    match read {
        Ok(capabilities) => {
            for missing in capabilities.missing() {
                match missing.cost {
                    Cost::Figures => tracing::warn!("without {}: {}", missing.name, missing.purpose),
                    Cost::Setting => tracing::debug!("without {}: {}", missing.name, missing.purpose),
                }
            }
        }
        Err(error) => tracing::warn!("capabilities cannot be told: {error}"),
    }
}

/// The first collection, so that the first scrape finds instances identified and their files open.
async fn say_what_runs(app: &App) {
    let plan = app.plan();
    let wish = Wish { options: Arc::clone(&plan.scrape), max_age: Duration::ZERO, patience: None };
    match app.cache.get(wish).await {
        Ok(collected) if collected.gathered.found.is_empty() => {
            tracing::info!("ready; no instances found: they are served as soon as some run");
        }
        Ok(collected) => tracing::info!(instances = collected.gathered.found.len(), "ready"),
        Err(error) => tracing::warn!("ready, but {error}"),
    }
}

/// Connections and kept files share the limit, and shells set the soft one low.
fn raise_descriptor_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the limit of open files stays as it was: {error}");
    }
}

/// Tries whether the system gives so many threads at once. The runtime panics where it does not, which says less.
fn can_start(threads: usize) -> anyhow::Result<()> {
    let gate = std::sync::RwLock::new(());
    std::thread::scope(|scope| {
        // Nobody ends before all have begun, or the last one was refused.
        let _closed = gate.write();
        (0..threads)
            .try_for_each(|_| std::thread::Builder::new().spawn_scoped(scope, || drop(gate.read())).map(drop))
            .context(
                "no thread can be started: allow more of them (TasksMax= of the unit, pids.max, ulimit -u)",
            )
    })
}

/// Tells the service manager, where there is one.
pub(crate) fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("the service manager was not told: {error}");
    }
}

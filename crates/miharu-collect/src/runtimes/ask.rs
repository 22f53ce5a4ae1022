//! The questions to a daemon, and what becomes of those that it does not answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use miharu_linux::Roots;
use miharu_metrics::server::{Project, StoragePool};
use miharu_metrics::{Part, Wanted};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{Connection, no_answer};
use super::wire::{self, Envelope, Listed, ListedPool, PoolResources, ProjectState};
use super::{Answer, LONGEST_INTERVAL, Server, find};
use crate::vm::backoff::{Backoff, LONGEST_PAUSE};

/// How long one daemon may take for everything. One that hangs is noticed by its first answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long it may take to tell the size of one pool. Some drivers ask another machine for it.
const POOL_DEADLINE: Duration = Duration::from_secs(5);

/// The most projects that are told. The daemon is asked for each.
const MAX_PROJECTS: usize = 500;

/// The most storage pools that are told.
const MAX_POOLS: usize = 64;

/// Asks these daemons all at once, and writes down what each told.
pub(super) fn all(roots: &Roots, servers: &mut [(&PathBuf, &mut Server)], wanted: Wanted) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            for (_, server) in servers {
                server.problems = vec![format!("Incus and LXD cannot be asked: {error}")];
            }
            return;
        }
    };
    runtime.block_on(async {
        let mut asking = JoinSet::new();
        for (index, (directory, server)) in servers.iter().enumerate() {
            let place = roots.host_path(directory).map(|place| place.join(find::SOCKET));
            if let Some(place) = place.filter(|_| server.backoff.is_over(std::time::Instant::now())) {
                let pools = server.pools.clone();
                asking.spawn(async move { (index, one(place, pools, wanted).await) });
            }
        }
        while let Some(done) = asking.join_next().await {
            let Ok((index, result)) = done else { continue };
            if let Some((directory, server)) = servers.get_mut(index) {
                note(directory, server, result);
            }
        }
    });
}

/// What one daemon told in one round.
struct Told {
    answer: Answer,
    asked: Instant,
    pools: Pools,
    problems: Vec<String>,
}

/// The failures of each pool.
type Pools = std::collections::BTreeMap<String, Backoff>;

fn note(directory: &Path, server: &mut Server, result: io::Result<Told>) {
    let whose = format!("the {} daemon of {}", server.title(), directory.display());
    match result {
        Ok(told) => {
            server.backoff.answered();
            server.failures = 0;
            server.pools = told.pools;
            server.problems = told.problems.iter().map(|problem| format!("{whose}: {problem}")).collect();
            server.answer = Some((told.answer, told.asked.into_std()));
        }
        Err(error) => {
            server.backoff.failed(std::time::Instant::now(), LONGEST_INTERVAL);
            server.failures = server.failures.saturating_add(1);
            // One that is just starting refuses for a moment; one that hangs does so in silence.
            let is_wrong = error.kind() == io::ErrorKind::TimedOut || server.failures > 1;
            if !is_wrong {
                return;
            }
            server.problems = vec![format!(
                "{whose} does not answer ({error}); what it told of its projects and storage pools is served until it is too old"
            )];
        }
    }
}

async fn one(place: PathBuf, pools: Pools, wanted: Wanted) -> io::Result<Told> {
    let asked = Instant::now();
    let mut told = Told { answer: Answer::default(), asked, pools, problems: Vec::new() };
    let questions = async {
        let mut connection = Connection::open(&place).await?;
        let voice = voice(&mut connection).await?;
        if wanted.has(Part::Projects) && voice == Voice::OfAll {
            told.answer.projects = projects(&mut connection, &mut told.problems).await?;
        }
        if wanted.has(Part::StoragePools) {
            let Told { pools, problems, .. } = &mut told;
            told.answer.pools = storage_pools(&mut connection, &place, voice, pools, problems).await?;
        }
        Ok(())
    };
    match timeout_at(asked + DEADLINE, questions).await {
        Ok(result) => result.map(|()| told),
        Err(_) => Err(no_answer(DEADLINE)),
    }
}

/// What a daemon's figures are told for. Every member of a cluster knows all of its projects and what its members share:
/// only one of them tells these, so that sums over hosts are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    OfAll,
    OfItself,
}

async fn voice(connection: &mut Connection) -> io::Result<Voice> {
    let about = parsed::<wire::About>(&connection.get("/1.0").await?)?;
    if !about.is_clustered() {
        return Ok(Voice::OfAll);
    }
    let members = connection.get("/1.0/cluster/members?recursion=1").await?;
    let is_leader = about.leads(&parsed::<Vec<wire::ClusterMember>>(&members)?);
    Ok(if is_leader { Voice::OfAll } else { Voice::OfItself })
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a Bytes) -> io::Result<T> {
    Ok(serde_json::from_slice::<Envelope<T>>(body)?.metadata)
}

async fn projects(connection: &mut Connection, problems: &mut Vec<String>) -> io::Result<Vec<Project>> {
    let body = connection.get("/1.0/projects?recursion=1").await?;
    let mut projects: Vec<Project> =
        parsed::<Vec<Listed<'_>>>(&body)?.iter().filter_map(wire::project).collect();
    projects.sort_by(|a, b| a.name.cmp(&b.name));
    projects.dedup_by(|later, first| later.name == first.name);
    if projects.len() > MAX_PROJECTS {
        problems.push(format!("only {MAX_PROJECTS} of its {} projects are served", projects.len()));
        projects.truncate(MAX_PROJECTS);
    }
    let mut there = Vec::with_capacity(projects.len());
    for mut project in projects {
        let path = format!("/1.0/projects/{}/state", wire::encoded(&project.name));
        match connection.get(&path).await {
            Ok(body) => wire::add_state(&mut project, parsed::<ProjectState>(&body)?),
            // It was deleted since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        there.push(project);
    }
    Ok(there)
}

/// The pools with their sizes. Each is asked on a connection of its own: one that hangs holds up no other, and is asked less
/// and less often, as each question may leave a program behind that hangs, too.
async fn storage_pools(
    connection: &mut Connection,
    place: &Path,
    voice: Voice,
    failures: &mut Pools,
    problems: &mut Vec<String>,
) -> io::Result<Vec<StoragePool>> {
    let body = connection.get("/1.0/storage-pools?recursion=1").await?;
    let mut listed = parsed::<Vec<ListedPool>>(&body)?;
    listed.retain(|pool| voice == Voice::OfAll || !pool.is_shared());
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    listed.dedup_by(|later, first| later.name == first.name);
    listed.truncate(MAX_POOLS);
    failures.retain(|name, _| listed.iter().any(|pool| pool.name == *name));
    let mut asking = JoinSet::new();
    for pool in listed {
        let now = std::time::Instant::now();
        if failures.get(&pool.name).is_some_and(|failures| !failures.is_over(now)) {
            problems.push(format!(
                "its storage pool {} did not tell its size and is left alone for a while",
                pool.name
            ));
            continue;
        }
        let place = place.to_owned();
        asking.spawn(async move {
            let size = timeout(POOL_DEADLINE, size(&place, &pool)).await;
            (pool.name, size.unwrap_or_else(|_| Err(no_answer(POOL_DEADLINE))))
        });
    }
    let mut pools = Vec::new();
    while let Some(done) = asking.join_next().await {
        let Ok((name, size)) = done else { continue };
        match size {
            Ok(pool) => {
                failures.remove(&name);
                pools.extend(pool);
            }
            Err(error) => {
                let failures = failures.entry(name.clone()).or_default();
                failures.failed(std::time::Instant::now(), LONGEST_PAUSE);
                problems.push(format!("its storage pool {name} does not tell its size: {error}"));
            }
        }
    }
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pools)
}

async fn size(place: &Path, pool: &ListedPool) -> io::Result<Option<StoragePool>> {
    let path = format!("/1.0/storage-pools/{}/resources", wire::encoded(&pool.name));
    let body = Connection::open(place).await?.get(&path).await?;
    Ok(wire::pool(pool, &parsed::<PoolResources>(&body)?))
}

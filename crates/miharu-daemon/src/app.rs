//! What every request shares.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use miharu_collect::Roots;
use miharu_instances::Chosen;
use miharu_store::{Change, Error, State, Store};

use crate::cache::{Cache, Collected, Found, Wish};
use crate::changes::{self, Told};
use crate::events::Events;
use crate::forward::Forward;
use crate::listen::Listeners;
use crate::machine::Machine;
use crate::plan::{Plan, Plans};
use crate::requests::Requests;
use crate::respond::ApiError;
use crate::source::Finder;
use crate::tls::Tls;
use crate::unread::Unread;
use crate::usage::Usage;
use crate::warnings::Warnings;

/// The project that every server of this API has.
pub(crate) const DEFAULT_PROJECT: &str = "default";

/// How often a change is made anew on a state that others have changed meanwhile.
pub(crate) const ATTEMPTS: u32 = 10;

/// What every request shares.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Arc<Store>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) finder: Finder,
    pub(crate) tls: Arc<Tls>,
    pub(crate) machine: Machine,
    pub(crate) roots: Roots,
    pub(crate) requests: Arc<Requests>,
    /// Where what happens is told.
    pub(crate) events: Events,
    /// What is wrong.
    pub(crate) warnings: Warnings,
    pub(crate) plans: Plans,
    /// Set once they exist; they hold the routes, which hold this.
    pub(crate) listeners: OnceLock<Arc<Listeners>>,
    /// Held from the check of a change to its commit, so that changes come one after the other.
    pub(crate) changes: tokio::sync::Mutex<()>,
    /// What was told of changes that were made here, so that the cluster's echo of them is not told again.
    pub(crate) told: Told,
    /// The way to the other members.
    pub(crate) forward: Forward,
    /// What answers hold that nobody has read yet.
    pub(crate) unread: Arc<Unread>,
    /// What instances use, and used.
    pub(crate) usage: Usage,
}

impl App {
    /// What the server keys say.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plans.of(self.store.load())
    }

    /// The instances that are served, as the server keys have it.
    pub(crate) fn chosen(&self) -> Arc<Chosen> {
        Arc::clone(&self.plan().whole.chosen)
    }

    /// The figures of a collection that has all of these instances, if that can be: for one that was started after the
    /// last collection another one is made at once.
    pub(crate) async fn figures_of(&self, wanted: &[Found]) -> Result<Arc<Collected>, String> {
        let plan = self.plan();
        let wish = |max_age| Wish { options: Arc::clone(&plan.whole), max_age, patience: None };
        let collected = self.cache.get(wish(plan.settings.cache)).await?;
        if wanted.iter().all(|instance| collected.figures_of(instance).is_some()) {
            return Ok(collected);
        }
        // Figures that lack a new instance are better than none.
        Ok(self.cache.get(wish(Duration::ZERO)).await.unwrap_or(collected))
    }

    /// Who runs now; where that cannot be told in time, who ran at the last collection.
    pub(crate) async fn found(&self) -> Result<Vec<Found>, ApiError> {
        match self.finder.find(self.chosen()).await {
            Ok(found) => Ok(found),
            Err(error) => match self.cache.last() {
                Some(last) => Ok(last.gathered.found.clone()),
                None => Err(ApiError::new(http::StatusCode::SERVICE_UNAVAILABLE, error)),
            },
        }
    }

    /// The names of all projects: declared, found, and the default one.
    pub(crate) async fn projects(&self) -> BTreeSet<String> {
        let found = self.found().await.unwrap_or_default();
        let mut names: BTreeSet<String> = found.into_iter().map(|instance| instance.project).collect();
        names.extend(self.store.load().projects.keys().cloned());
        names.insert(DEFAULT_PROJECT.to_owned());
        names
    }

    /// Commits a change on a thread that may block.
    pub(crate) async fn commit(self: &Arc<Self>, change: Change) -> Result<Arc<State>, Error> {
        self.commit_on(change, None).await
    }

    /// Commits a change, if the state is still the one from which it was made.
    pub(crate) async fn commit_from(
        self: &Arc<Self>,
        change: Change,
        from: &State,
    ) -> Result<Arc<State>, Error> {
        self.commit_on(change, Some(from.revision)).await
    }

    async fn commit_on(self: &Arc<Self>, change: Change, expected: Option<u64>) -> Result<Arc<State>, Error> {
        self.blocking(move |app| {
            let before = app.store.load();
            if before.cluster.is_some() {
                app.told.expect(&change);
            }
            let after = app.store.commit(&change, expected).inspect_err(|_| app.told.forget(&change))?;
            changes::tell(app, &before, &change);
            Ok(after)
        })
        .await
    }

    /// Does something with the store on a thread that may block.
    pub(crate) async fn blocking<T, F>(self: &Arc<Self>, doing: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Self>) -> Result<T, Error> + Send + 'static,
    {
        let app = Arc::clone(self);
        // It is broken off only when the daemon stops; that is an error like any other of the database.
        tokio::task::spawn_blocking(move || doing(&app)).await.unwrap_or_else(|error| {
            Err(Error::Io { path: "miharu.db".to_owned(), source: std::io::Error::other(error) })
        })
    }

    /// What this server is called: its name in the cluster, else the host's.
    pub(crate) fn server_name(&self) -> String {
        self.member().unwrap_or_else(|| self.machine.name.clone())
    }

    /// Where something of this server's is, as the API has it: the member's name, or `none` on a lone server.
    pub(crate) fn location(&self) -> String {
        self.member().unwrap_or_else(|| "none".to_owned())
    }

    fn member(&self) -> Option<String> {
        let state = self.store.load();
        state.cluster.as_ref().filter(|cluster| !cluster.removed).map(|cluster| cluster.member.clone())
    }

    /// Whether nobody is trusted any more but who may open the unix socket: the server was taken out of its cluster, or its
    /// copy of whom the cluster trusts is older than `cluster.trust_max_age`.
    pub(crate) fn trust_has_ended(&self, state: &State) -> bool {
        let Some(cluster) = &state.cluster else { return false };
        if cluster.removed {
            return true;
        }
        let Some(limit) = self.plan().settings.trust_max_age else { return false };
        let status = self.store.sync_status().unwrap_or_default();
        // An age that cannot be told may be any.
        status.age.is_none_or(|age| age > limit)
    }

    /// Runs a change to its end, even when the client that asked for it goes away in the middle.
    pub(crate) async fn change<T, F>(change: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        tokio::spawn(change).await.unwrap_or_else(|error| Err(ApiError::internal(error)))
    }
}

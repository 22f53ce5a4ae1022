//! A change in a cluster: one etcd transaction that compares what the change was made from, then the local copy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::{Answer, COMMIT_LIMIT, Plan, attempt};
use super::codec::CONFIG_LIMIT;
use super::copy::Shared;
use super::engine::Engine;
use super::seal;
use super::writes::writes_of;
use crate::{Change, Error, State};

/// How long the watch is waited for, where it has to bring what is known to have happened.
const WATCH_PATIENCE: Duration = Duration::from_secs(3);
/// How often a change that fits any state is made anew on another's.
const ROUNDS: u32 = 20;
/// The longest value of a key; etcd takes 1.5 MiB in one request.
const VALUE_LIMIT: usize = 64 * 1024;

impl Shared {
    /// Makes a change in the cluster.
    pub(crate) fn commit(
        &self,
        engine: &Engine,
        change: &Change,
        expected: Option<u64>,
    ) -> Result<Arc<State>, Error> {
        let begin = Instant::now();
        let mut looked = false;
        for _ in 0..ROUNDS {
            let plan = match self.plan(change, expected) {
                // Another member's change may be on its way here.
                Err(Error::NotFound(_) | Error::Exists(_)) if !looked => {
                    looked = true;
                    self.look(engine);
                    continue;
                }
                plan => plan?,
            };
            let Some(plan) = plan else { return Ok(self.state.load_full()) };
            if plan.writes.is_empty() {
                self.take_own(plan.own.unwrap_or_default())
                    .map_err(|failure| Error::Refused(failure.to_string()))?;
                return Ok(self.state.load_full());
            }
            let prefix = self.prefix()?;
            let writes = plan.with_revision();
            let answer = engine.block_on(attempt(engine, &prefix, &plan, &writes, &self.member()?, begin));
            match answer? {
                Answer::Made(revision) => {
                    if let Err(failure) = self.take_made(revision, &writes) {
                        // The change is made, and in force here; only the disk does not have it yet.
                        self.trouble(&failure.to_string());
                        engine.broken();
                    }
                    if let Some(own) = plan.own {
                        self.take_own(own).map_err(|failure| {
                            Error::Refused(format!(
                                "the cluster's keys were changed, this server's own were not: {failure}"
                            ))
                        })?;
                    }
                    return Ok(self.state.load_full());
                }
                Answer::Late(revision) => {
                    let found = self.caught_up(engine, revision);
                    if expected.is_some() || !fits_any_state(change) || begin.elapsed() >= COMMIT_LIMIT {
                        let expected = expected.unwrap_or_else(|| found.saturating_sub(1));
                        return Err(Error::Conflict { expected, found });
                    }
                }
            }
        }
        let found = self.state.load().revision;
        Err(Error::Conflict { expected: found.saturating_sub(1), found })
    }

    fn plan(&self, change: &Change, expected: Option<u64>) -> Result<Option<Plan>, Error> {
        let local = self.local();
        let state = self.state.load_full();
        let Some(mirror) = local.mirror.as_ref() else {
            return Err(Error::Refused(
                "this server is still joining a cluster; try again in a moment".to_owned(),
            ));
        };
        if mirror.removed {
            return Err(Error::Refused(
                "this server was removed from the cluster; leave it (`miharu cluster leave`) to change it alone".to_owned(),
            ));
        }
        if let Some(expected) = expected.filter(|expected| *expected != state.revision) {
            return Err(Error::Conflict { expected, found: state.revision });
        }
        let (writes, own) = writes_of(change, &state, mirror, &local.own)?;
        if writes.is_empty() && own.is_none() {
            return Ok(None);
        }
        for (key, value) in &writes {
            let limit = if key == "config" { CONFIG_LIMIT } else { VALUE_LIMIT };
            if value.as_ref().is_some_and(|value| value.len() > limit) {
                return Err(Error::Refused(format!(
                    "{key} would be longer than {limit} bytes, too long for the cluster"
                )));
            }
        }
        let member = format!("members/{}", mirror.membership.member);
        Ok(Some(Plan {
            writes,
            own,
            base: mirror.base(),
            number: mirror.number,
            joined: mirror.stamp(&member).0,
            id: new_id()?,
        }))
    }

    /// Waits until the watch has brought what etcd holds now, where that can be told.
    pub(crate) fn look(&self, engine: &Engine) {
        let Ok(prefix) = self.prefix() else { return };
        let newest = engine.block_on(async {
            let (found, _) = engine.link().await?.get(&format!("{prefix}revision")).await.ok()?;
            found.map(|kv| kv.mod_revision)
        });
        if let Some(newest) = newest {
            self.caught_up(engine, newest);
        }
    }

    /// Waits until the watch has brought a revision; the revision of the state then.
    fn caught_up(&self, engine: &Engine, revision: i64) -> u64 {
        let mut changes = self.changed.subscribe();
        engine.block_on(async {
            let seen = async {
                while self.local().mirror.as_ref().is_some_and(|mirror| mirror.base() < revision) {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(WATCH_PATIENCE, seen).await;
        });
        self.state.load().revision
    }

    /// What every key begins with.
    pub(crate) fn prefix(&self) -> Result<String, Error> {
        let local = self.local();
        local.mirror.as_ref().map(|mirror| mirror.membership.prefix.clone()).ok_or_else(not_clustered)
    }

    /// What this member is called.
    pub(crate) fn member(&self) -> Result<String, Error> {
        let local = self.local();
        local.mirror.as_ref().map(|mirror| mirror.membership.member.clone()).ok_or_else(not_clustered)
    }
}

/// This server is in no cluster.
pub(crate) fn not_clustered() -> Error {
    Error::Refused("this server is in no cluster".to_owned())
}

/// How this server's joining went is not known yet.
pub(crate) fn still_joining() -> Error {
    Error::Refused(
        "this server was cut short while it joined a cluster, and has not reached etcd since to see how that went; \
         `miharu cluster leave --force` gives it up"
            .to_owned(),
    )
}

/// A random id.
pub(crate) fn new_id() -> Result<String, Error> {
    seal::uuid().map_err(|error| Error::Refused(error.to_string()))
}

/// Whether the change means the same whatever else has changed: it can be made on the state that another has left.
fn fits_any_state(change: &Change) -> bool {
    !matches!(change, Change::Config(_) | Change::UpdateCertificate(_) | Change::ClusterCertificate(_))
}

//! A change in a cluster: one etcd transaction that compares what the change was made from, then the local copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{Client, Failure, Outcome, created_at, delete, modified_at, put};
use super::codec::{self, CONFIG_LIMIT};
use super::copy::Shared;
use super::engine::Engine;
use super::mirror::Mirror;
use super::{MEMBER_KEYS, is_member_key, seal};
use crate::{Change, Error, State};

/// How long a change may take, all attempts together.
const COMMIT_LIMIT: Duration = Duration::from_secs(10);
/// How long the watch is waited for, where it has to bring what is known to have happened.
const WATCH_PATIENCE: Duration = Duration::from_secs(3);
/// How often a change that fits any state is made anew on another's.
const ROUNDS: u32 = 20;
/// The longest value of a key; etcd takes 1.5 MiB in one request.
const VALUE_LIMIT: usize = 64 * 1024;

/// Keys under the prefix that get a value, or go.
pub(crate) type Writes = Vec<(String, Option<Vec<u8>>)>;

/// A change, worked out on one state.
struct Plan {
    /// Without the revision, which goes with all of them.
    writes: Writes,
    /// This member's own keys, where they change.
    own: Option<BTreeMap<String, String>>,
    /// The change before it, in etcd's revisions, and that one's number.
    base: i64,
    number: u64,
    /// When this member joined.
    joined: i64,
    /// A random id, by which the change is found again.
    id: String,
}

/// How an attempt ended that etcd has answered.
enum Answer {
    Made(i64),
    /// Another change came first; it made this revision.
    Late(i64),
}

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

impl Plan {
    fn with_revision(&self) -> Writes {
        let mut writes = self.writes.clone();
        writes.push(("revision".to_owned(), Some((self.number + 1).to_string().into_bytes())));
        writes
    }
}

/// Asks etcd until it says whether the change was made. One that is asked for again after its answer got lost is not made
/// twice: it compares the same revision, and is known by its id.
async fn attempt(
    engine: &Engine,
    prefix: &str,
    plan: &Plan,
    writes: &Writes,
    member: &str,
    begin: Instant,
) -> Result<Answer, Error> {
    let key = |name: &str| format!("{prefix}{name}");
    let (own, writer) = (key(&format!("members/{member}")), key(&format!("~writers/{member}")));
    let looked_at = [key("revision"), own.clone(), writer.clone()];
    let mut lost = None;
    loop {
        let Some(client) = engine.link().await else {
            return Err(match lost {
                None => Error::Away("there is no connection to it now".to_owned()),
                Some(words) => Error::Uncertain(words),
            });
        };
        let compare = vec![modified_at(&key("revision"), plan.base), created_at(&own, plan.joined)];
        let mut operations: Vec<_> = writes
            .iter()
            .map(|(name, value)| match value {
                Some(value) => put(&key(name), value.clone(), 0),
                None => delete(&key(name)),
            })
            .collect();
        operations.push(put(&writer, plan.id.clone(), 0));
        match client.transact(compare, operations, &looked_at).await {
            Ok(Outcome::Done(revision)) => return Ok(Answer::Made(revision)),
            Ok(Outcome::Differs(found)) => {
                let [revision, own, writer] = found.as_slice() else {
                    return Err(Error::Uncertain("an answer that is none".to_owned()));
                };
                if let Some(made) = writer.as_ref().filter(|kv| kv.value == plan.id.as_bytes()) {
                    return Ok(Answer::Made(made.mod_revision));
                }
                if own.as_ref().is_none_or(|kv| kv.create_revision != plan.joined) {
                    return Err(Error::Refused("this server was removed from the cluster".to_owned()));
                }
                return Ok(Answer::Late(revision.as_ref().map_or(0, |kv| kv.mod_revision)));
            }
            Err(Failure::Away(words)) => {
                engine.broken();
                if begin.elapsed() >= COMMIT_LIMIT {
                    return Err(Error::Uncertain(words));
                }
                lost = Some(words);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(failure) => return Err(refused(&client, &failure, lost)),
        }
    }
}

fn refused(client: &Client, failure: &Failure, lost: Option<String>) -> Error {
    match lost {
        Some(words) => Error::Uncertain(words),
        None => Error::Away(format!("{}: {failure}", client.endpoint)),
    }
}

/// Whether the change means the same whatever else has changed: it can be made on the state that another has left.
fn fits_any_state(change: &Change) -> bool {
    !matches!(change, Change::Config(_) | Change::UpdateCertificate(_) | Change::ClusterCertificate(_))
}

/// What a change writes, and this member's own keys where they change.
fn writes_of(
    change: &Change,
    state: &State,
    mirror: &Mirror,
    own: &BTreeMap<String, String>,
) -> Result<(Writes, Option<BTreeMap<String, String>>), Error> {
    let (seal, cluster) = (&mirror.membership.seal, mirror.membership.cluster.as_str());
    let no_random = |error: seal::NoRandom| Error::Refused(error.to_string());
    let writes = match change {
        Change::Config(config) => {
            let (mine, mut shared): (BTreeMap<_, _>, BTreeMap<_, _>) =
                config.values().clone().into_iter().partition(|(key, _)| is_member_key(key));
            // What a later version's members have set is not theirs to lose.
            let foreign = mirror.shared().iter().filter(|(key, _)| {
                crate::keys::find(key).is_none()
                    && !crate::keys::is_user_key(key)
                    && !MEMBER_KEYS.contains(&key.as_str())
            });
            shared.extend(foreign.map(|(key, value)| (key.clone(), value.clone())));
            let writes = if shared == *mirror.shared() {
                Vec::new()
            } else {
                vec![("config".to_owned(), Some(codec::write_config(&shared)))]
            };
            return Ok((writes, Some(mine).filter(|mine| mine != own)));
        }
        Change::AddCertificate(entry) => vec![add_certificate(entry, state)?],
        Change::UpdateCertificate(entry) => {
            let fingerprint = entry.certificate.fingerprint();
            let known = state.certificates.get(fingerprint);
            let known = known.ok_or_else(|| Error::NotFound(format!("certificate {fingerprint}")))?;
            let entry = crate::Certificate { token: known.token.clone(), ..entry.clone() };
            vec![(certificate_key(fingerprint), Some(codec::write_certificate(&entry)))]
        }
        Change::RemoveCertificate(fingerprint) => {
            if !state.certificates.contains_key(fingerprint) {
                return Err(Error::NotFound(format!("certificate {fingerprint}")));
            }
            vec![(certificate_key(fingerprint), None)]
        }
        Change::AddJoinToken(token) => {
            let expired = state.join_tokens.values().filter(|known| known.has_expired(token.created_at));
            let mut writes: Writes = expired.take(100).map(|known| (token_key(&known.id), None)).collect();
            let written = codec::write_token(token, seal, cluster).map_err(no_random)?;
            writes.push((token_key(&token.id), Some(written)));
            writes
        }
        Change::RemoveJoinToken(id) => vec![(known_token(id, state)?, None)],
        Change::Redeem(id, entry) => vec![(known_token(id, state)?, None), add_certificate(entry, state)?],
        Change::AddProject(name, project) => {
            if state.projects.contains_key(name) {
                return Err(Error::Exists(format!("project {name}")));
            }
            vec![(format!("projects/{name}"), Some(codec::write_project(project)))]
        }
        Change::RemoveProject(name) => {
            if !state.projects.contains_key(name) {
                return Err(Error::NotFound(format!("project {name}")));
            }
            vec![(format!("projects/{name}"), None)]
        }
        Change::ClusterCertificate(served) => {
            vec![(
                "certificate".to_owned(),
                Some(codec::write_served(served, seal, cluster).map_err(no_random)?),
            )]
        }
        Change::RemoveMember(name) => {
            if *name == mirror.membership.member {
                return Err(Error::Refused(
                    "a server does not remove itself from its cluster: it leaves".to_owned(),
                ));
            }
            // One whose entry cannot be read is taken out like any other.
            if mirror.stamp(&format!("members/{name}")).0 == 0 {
                return Err(Error::NotFound(format!("member {name}")));
            }
            traces(name).map(|key| (key, None)).to_vec()
        }
    };
    Ok((writes, None))
}

/// The keys that there are of a member.
pub(crate) fn traces(name: &str) -> [String; 4] {
    ["members", "alive", "~status", "~writers"].map(|kind| format!("{kind}/{name}"))
}

fn certificate_key(fingerprint: &str) -> String {
    format!("certificates/{fingerprint}")
}

fn token_key(id: &str) -> String {
    format!("tokens/{id}")
}

fn known_token(id: &str, state: &State) -> Result<String, Error> {
    if state.join_tokens.contains_key(id) {
        Ok(token_key(id))
    } else {
        Err(Error::NotFound(format!("join token {id}")))
    }
}

fn add_certificate(entry: &crate::Certificate, state: &State) -> Result<(String, Option<Vec<u8>>), Error> {
    let fingerprint = entry.certificate.fingerprint();
    if state.certificates.contains_key(fingerprint) {
        return Err(Error::Exists(format!("certificate {fingerprint}")));
    }
    Ok((certificate_key(fingerprint), Some(codec::write_certificate(entry))))
}

//! Asks etcd to make a change until it says whether it did.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::client::{Failure, Outcome, created_at, delete, modified_at, put};
use super::codec;
use super::engine::Engine;
use super::rpc::KeyValue;
use super::writes::Writes;
use crate::Error;

/// How long a change may take, all attempts together.
pub(crate) const COMMIT_LIMIT: Duration = Duration::from_secs(10);
/// How long one attempt may take.
const ASK_LIMIT: Duration = Duration::from_millis(2500);

/// A change, worked out on one state.
pub(crate) struct Plan {
    /// Without the revision, which goes with all of them.
    pub(crate) writes: Writes,
    /// This member's own keys, where they change.
    pub(crate) own: Option<BTreeMap<String, String>>,
    /// The change before it, in etcd's revisions, and that one's number.
    pub(crate) base: i64,
    pub(crate) number: u64,
    /// When this member joined.
    pub(crate) joined: i64,
    /// A random id, by which the change is found again.
    pub(crate) id: String,
}

/// How an attempt ended that etcd has answered.
pub(crate) enum Answer {
    Made(i64),
    /// Another change came first; it made this revision.
    Late(i64),
}

impl Plan {
    /// What it writes, and the next number.
    pub(crate) fn with_revision(&self) -> Writes {
        let mut writes = self.writes.clone();
        writes.push(("revision".to_owned(), Some(codec::next_revision(self.number, &self.id).into_bytes())));
        writes
    }
}

/// Asks etcd until it says whether the change was made, or the time since `begin` is over.
pub(crate) async fn attempt(
    engine: &Engine,
    prefix: &str,
    plan: &Plan,
    writes: &Writes,
    member: &str,
    begin: Instant,
) -> Result<Answer, Error> {
    let asked = Cell::new(false);
    let left = COMMIT_LIMIT.saturating_sub(begin.elapsed());
    match timeout(left, ask(engine, prefix, plan, writes, member, &asked)).await {
        Ok(answer) => answer,
        Err(_) => {
            engine.broken();
            let words = format!("no answer within {} s", COMMIT_LIMIT.as_secs());
            Err(if asked.get() { Error::Uncertain(words) } else { Error::Away(words) })
        }
    }
}

/// A change that is asked for again after its answer got lost is not made twice: it compares the same revision, and is known by
/// its id.
async fn ask(
    engine: &Engine,
    prefix: &str,
    plan: &Plan,
    writes: &Writes,
    member: &str,
    asked: &Cell<bool>,
) -> Result<Answer, Error> {
    let key = |name: &str| format!("{prefix}{name}");
    let (own, writer) = (key(&format!("members/{member}")), key(&format!("~writers/{member}")));
    let looked_at = [key("revision"), own.clone(), writer.clone()];
    let (mut before, mut lost, mut denied) = (None, None, false);
    loop {
        let Some((client, number)) = engine.link_after(before).await else {
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
        asked.set(true);
        // One that went to a leader that died is answered by nobody; it is soon asked for again.
        let making = timeout(ASK_LIMIT, client.transact(compare, operations, &looked_at)).await;
        match making.unwrap_or_else(|_| Err(Failure::Away("no answer".to_owned()))) {
            Ok(Outcome::Done(revision)) => return Ok(Answer::Made(revision)),
            Ok(Outcome::Differs(found)) => return judge(plan, &found),
            Err(Failure::Away(words)) => lost = Some(words),
            Err(Failure::TooLong) => lost = Some(Failure::TooLong.to_string()),
            // A login that has expired is made anew with the next connection.
            Err(Failure::Denied(_)) if !denied => denied = true,
            Err(failure) => {
                return Err(match (lost, failure) {
                    (Some(words), _) => Error::Uncertain(words),
                    (None, Failure::Unexpected(words)) => {
                        Error::Refused(format!("etcd does not take this change: {words}"))
                    }
                    (None, failure) => Error::Away(format!("{}: {failure}", client.endpoint)),
                });
            }
        }
        engine.broken();
        before = Some(number);
    }
}

/// What came instead of the change.
fn judge(plan: &Plan, found: &[Option<KeyValue>]) -> Result<Answer, Error> {
    let [revision, own, writer] = found else {
        return Err(Error::Uncertain("an answer that is none".to_owned()));
    };
    if let Some(made) = writer.as_ref().filter(|kv| kv.value == plan.id.as_bytes()) {
        return Ok(Answer::Made(made.mod_revision));
    }
    if own.as_ref().is_none_or(|kv| kv.create_revision != plan.joined) {
        return Err(Error::Refused("this server was removed from the cluster".to_owned()));
    }
    Ok(Answer::Late(revision.as_ref().map_or(0, |kv| kv.mod_revision)))
}

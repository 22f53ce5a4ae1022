//! The making of a cluster in etcd, and its end.

use super::client::{Client, Listing, Outcome, created_at, delete, delete_all, holds, put};
use super::codec::{self, ClusterDoc, FORMAT, UNWATCHED};
use super::copy::{Stored, now};
use super::lifecycle::{Trouble, connect, maybe};
use super::mirror::Membership;
use super::rpc::RequestOp;
use super::writes::Writes;
use super::{ClusterCertificate, Member, is_member_key, seal};
use crate::{Error, State};

/// How long the making of a cluster may take, all its transactions together, in seconds.
const CLAIM_SECONDS: i64 = 30;
/// How many keys go into one transaction; etcd takes 128.
const BATCH: usize = 100;
/// What there can be of a cluster, beside single keys.
const FOLDERS: [&str; 7] =
    ["certificates/", "tokens/", "projects/", "members/", "invitations/", "alive/", UNWATCHED];

/// Everything that a new cluster begins with but the keys that make it one.
pub(crate) fn initial_writes(
    state: &State,
    stored: &Stored,
    served: &ClusterCertificate,
    member: &Member,
) -> Result<(Writes, Writes), Error> {
    let Membership { cluster, seal, .. } = &stored.membership;
    let no_random = |error: seal::NoRandom| Error::Refused(error.to_string());
    let shared = state.config.values().iter().filter(|(key, _)| !is_member_key(key));
    let shared = shared.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut first: Writes = Vec::new();
    for (fingerprint, entry) in &state.certificates {
        first.push((format!("certificates/{fingerprint}"), Some(codec::write_certificate(entry))));
    }
    for (name, project) in &state.projects {
        first.push((format!("projects/{name}"), Some(codec::write_project(project))));
    }
    for (id, token) in &state.join_tokens {
        first.push((
            format!("tokens/{id}"),
            Some(codec::write_token(token, seal, cluster).map_err(no_random)?),
        ));
    }
    let doc = ClusterDoc { format: FORMAT, id: cluster.clone(), created_at: now() };
    let last: Writes = vec![
        ("config".to_owned(), Some(codec::write_config(&shared))),
        ("certificate".to_owned(), Some(codec::write_served(served, seal, cluster).map_err(no_random)?)),
        (format!("members/{}", member.name), Some(codec::write_member(member))),
        ("revision".to_owned(), Some(codec::next_revision(0, &member.id).into_bytes())),
        ("cluster".to_owned(), Some(codec::write_cluster(&doc))),
    ];
    Ok((first, last))
}

/// Makes the cluster in etcd. Nobody else makes one there meanwhile, and none is there before its last transaction.
pub(crate) async fn make(stored: &Stored, (first, last): &(Writes, Writes)) -> Result<Listing, Trouble> {
    let prefix = &stored.access.prefix;
    let key = |name: &str| format!("{prefix}{name}");
    let (claim, cluster, id) = (key("claim"), key("cluster"), stored.membership.member_id.as_str());
    let client = connect(&stored.access).await?;
    check_place(&client, prefix).await?;
    let lease = client.grant(CLAIM_SECONDS).await?;
    let compare = vec![created_at(&claim, 0), created_at(&cluster, 0)];
    let looked_at = [cluster.clone()];
    if let Outcome::Differs(found) =
        client.transact(compare, vec![put(&claim, id, lease)], &looked_at).await?
    {
        let words = if found.iter().any(Option::is_some) {
            format!(
                "etcd holds a cluster under {prefix} already: join it with a token of a member's, or name another prefix; one whose \
                 members are all gone is taken out with `etcdctl del --prefix {prefix}`"
            )
        } else {
            format!(
                "another server is making this cluster right now; if it was cut short, try again in {CLAIM_SECONDS} s"
            )
        };
        return Err(Trouble::Not(Error::Refused(words)));
    }
    let mine = || vec![holds(&claim, id), created_at(&cluster, 0)];
    let taken =
        || Trouble::Not(Error::Refused("another server made this cluster at the same moment".to_owned()));
    // What an attempt that was cut short has left.
    let clear = FOLDERS.iter().map(|name| delete_all(&key(name))).collect();
    if client.transact(mine(), clear, &[]).await? == Outcome::Differs(Vec::new()) {
        return Err(taken());
    }
    let write =
        |(name, value): &(String, Option<Vec<u8>>)| put(&key(name), value.clone().unwrap_or_default(), 0);
    for batch in first.chunks(BATCH) {
        if client.transact(mine(), batch.iter().map(write).collect(), &[]).await?
            == Outcome::Differs(Vec::new())
        {
            return Err(taken());
        }
    }
    let mut decisive: Vec<_> = last.iter().map(write).collect();
    decisive.push(delete(&claim));
    match client.transact(mine(), decisive, &[]).await {
        Ok(Outcome::Done(_)) => {}
        Ok(Outcome::Differs(_)) => return Err(taken()),
        Err(failure) => return Err(maybe(failure)),
    }
    client.list(prefix).await.map_err(maybe)
}

/// That nothing else lies under the prefix, and that it lies under no other cluster's: that one would take this one for a part
/// of it.
async fn check_place(client: &Client, prefix: &str) -> Result<(), Trouble> {
    let refused = |words: String| Trouble::Not(Error::Refused(words));
    let above = prefix.char_indices().filter(|(_, c)| *c == '/').filter_map(|(at, _)| prefix.get(..=at));
    for above in above.filter(|above| above.len() > 1 && *above != prefix) {
        let (found, _) = client.get(&format!("{above}cluster")).await?;
        if found.is_some() {
            return Err(refused(format!(
                "etcd holds a cluster under {above}, so none can be made under {prefix}"
            )));
        }
    }
    let found = client.list_all(prefix).await?;
    let cluster = format!("{prefix}cluster");
    if found
        .entries
        .iter()
        .any(|kv| kv.key == cluster.as_bytes() && codec::could_be_ours("cluster", &kv.value))
    {
        // Which is said next, whatever else lies in it.
        return Ok(());
    }
    let kept = found.entries.iter().map(|kv| (&kv.key, kv.value.as_slice()));
    // What is too long to be read is none of ours.
    for (key, value) in kept.chain(found.too_long.iter().map(|key| (key, [].as_slice()))) {
        let key = String::from_utf8_lossy(key).into_owned();
        if !codec::could_be_ours(key.strip_prefix(prefix).unwrap_or(&key), value) {
            let key: String = key.chars().filter(|c| !c.is_control()).take(120).collect();
            return Err(refused(format!(
                "something else lies under {prefix} in etcd, such as {key}; name another prefix (etcd://HOST/PREFIX)"
            )));
        }
    }
    Ok(())
}

/// Takes a cluster out of etcd, and nothing else that may lie there.
pub(crate) fn everything(prefix: &str) -> Vec<RequestOp> {
    let keys = ["cluster", "revision", "config", "certificate", "claim"];
    let keys = keys.iter().map(|name| delete(&format!("{prefix}{name}")));
    keys.chain(FOLDERS.iter().map(|name| delete_all(&format!("{prefix}{name}")))).collect()
}

//! How a token becomes a membership.

use super::client::{Client, Listing, Outcome, created_at, delete, modified_at, put};
use super::codec::{self, InvitationDoc};
use super::copy::{Stored, now};
use super::lifecycle::{ROUNDS, Trouble, connect, maybe};
use super::seal::SealKey;
use super::{Invitation, Member};
use crate::Error;
use crate::token::SecretHash;

/// The token as etcd knows it, and the cluster's key from it.
pub(crate) async fn invited(
    client: &Client,
    stored: &Stored,
    invitation: &Invitation,
) -> Result<SealKey, Trouble> {
    let (_, doc) = known(client, stored, invitation).await?;
    let place = codec::invitation_context(&invitation.cluster, &invitation.member);
    let key = stored.membership.seal.open(&place, &doc.seal).ok().and_then(|key| SealKey::restore(&key));
    key.ok_or_else(|| {
        refused("the join token does not fit what the cluster knows of it: it is forged or damaged")
    })
}

fn refused(words: &str) -> Trouble {
    Trouble::Not(Error::Refused(words.to_owned()))
}

/// The token's key as it is now.
async fn known(
    client: &Client,
    stored: &Stored,
    invitation: &Invitation,
) -> Result<(i64, InvitationDoc), Trouble> {
    let prefix = &stored.access.prefix;
    let name = &invitation.member;
    let keys = [
        format!("{prefix}cluster"),
        format!("{prefix}invitations/{name}"),
        format!("{prefix}members/{name}"),
    ];
    let (found, _) = client.get_all(&keys).await?;
    let [cluster, invited, member] = found.as_slice() else {
        return Err(refused("etcd gave an answer that is none"));
    };
    let Some(cluster) = cluster else {
        return Err(Trouble::Not(Error::Refused(format!("etcd holds no cluster under {prefix}"))));
    };
    let cluster = codec::read_cluster(&cluster.value)
        .map_err(|reason| refused(&format!("{prefix}cluster: {reason}")))?;
    if cluster.id != invitation.cluster {
        return Err(refused("the join token is of another cluster than the one that etcd holds"));
    }
    if member.is_some() {
        return Err(Trouble::Not(Error::Refused(format!(
            "the cluster has a member {name} already: the join token was used, or the member has to be removed first"
        ))));
    }
    let Some(invited) = invited else {
        return Err(refused("the join token was used, has expired or was taken back; have a new one made"));
    };
    let doc = codec::read_invitation(&invited.value)
        .map_err(|reason| refused(&format!("the join token: {reason}")))?;
    let hash = SecretHash::of(invitation.secret.reveal());
    if !SecretHash::from_hex(&doc.secret).is_some_and(|known| known.matches(&hash)) {
        return Err(refused(
            "the join token is not the one that was made last for this member, or it is forged",
        ));
    }
    if doc.fingerprint != invitation.fingerprint {
        return Err(refused(
            "the join token tells another certificate of the cluster than it was made with: it is forged",
        ));
    }
    if doc.expires_at <= now() {
        return Err(refused("the join token has expired; have a new one made"));
    }
    Ok((invited.mod_revision, doc))
}

/// Uses the token up and puts the member in its place, in one transaction.
pub(crate) async fn redeem(
    stored: &Stored,
    invitation: &Invitation,
    member: &Member,
) -> Result<Listing, Trouble> {
    let prefix = &stored.access.prefix;
    let key = |name: &str| format!("{prefix}{name}");
    let client = connect(&stored.access).await?;
    let (token, own) =
        (key(&format!("invitations/{}", member.name)), key(&format!("members/{}", member.name)));
    for _ in 0..ROUNDS {
        let (made, _) = known(&client, stored, invitation).await?;
        let (revision, _) = client.get(&key("revision")).await?;
        let (base, number) = revision.map_or((0, 0), |kv| (kv.mod_revision, codec::read_revision(&kv.value)));
        let compare =
            vec![modified_at(&token, made), created_at(&own, 0), modified_at(&key("revision"), base)];
        let writes = vec![
            delete(&token),
            put(&own, codec::write_member(member), 0),
            put(&key("revision"), codec::next_revision(number, &member.id), 0),
        ];
        match client.transact(compare, writes, &[]).await {
            Ok(Outcome::Done(_)) => return client.list(prefix).await.map_err(maybe),
            // Another change came first; if it was the token's use, the next look finds out.
            Ok(Outcome::Differs(_)) => {}
            Err(failure) => return Err(maybe(failure)),
        }
    }
    Err(Trouble::Not(Error::Away("other changes kept coming first; try again".to_owned())))
}

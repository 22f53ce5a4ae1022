//! How a server becomes a member of a cluster, invites others, and is one of its own again.

use std::time::Duration;

use super::client::{Client, Failure, Listing, Outcome, created_at, delete, modified_at, put};
use super::codec::{self, InvitationDoc, is_member_name};
use super::commit::{new_id, not_clustered, still_joining};
use super::copy::{Stored, now};
use super::engine::{Engine, runtime};
use super::founding::{everything, initial_writes, make};
use super::joining::{invited, redeem};
use super::mirror::Membership;
use super::seal::{self, SealKey};
use super::writes::traces;
use super::{ClusterCertificate, EtcdAccess, Invitation, Member};
use crate::certificate::ParsedCertificate;
use crate::token::{Secret, SecretHash};
use crate::{Error, State, Store};

/// How often a join is tried again because something else was changed at that moment.
pub(crate) const ROUNDS: u32 = 50;
/// The longest a join token may last.
const LIFETIME_LIMIT: Duration = Duration::from_secs(366 * 86_400);

/// Makes a cluster of this server.
#[derive(Debug, Clone)]
pub struct Enable {
    /// Where etcd is.
    pub access: EtcdAccess,
    /// What this server is called in the cluster.
    pub member: String,
    /// The DER of the certificate that it shows to other members, its `server.crt`.
    pub certificate: Vec<u8>,
    /// What all members are going to serve with.
    pub served: ClusterCertificate,
}

/// Makes this server a member of a cluster.
#[derive(Debug, Clone)]
pub struct Join {
    /// The token that was made by a member.
    pub invitation: Invitation,
    /// Where etcd is, if that is not what the token says, and how this server logs in there.
    pub access: EtcdAccess,
    /// As [`Enable::certificate`].
    pub certificate: Vec<u8>,
}

/// How a server leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// The others are told, or it stays.
    Orderly,
    /// It leaves though etcd cannot be told; another member has to remove it.
    Forced,
}

/// Why a server did not become a member.
pub(crate) enum Trouble {
    /// Nothing was changed.
    Not(Error),
    /// An answer got lost at the decisive moment.
    Maybe(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Not(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Not(Error::Away(failure.to_string()))
    }
}

impl Store {
    /// Makes a cluster of this server: what it has configured and trusts is the cluster's from now on.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is a member already, a name is none, or etcd holds a cluster under this prefix;
    /// [`Error::Away`] and [`Error::Uncertain`] as with [`commit`](Self::commit).
    pub fn cluster_enable(&self, enable: Enable) -> Result<std::sync::Arc<State>, Error> {
        let _writer = self.writer();
        self.alone()?;
        check_name(&enable.member)?;
        enable.access.check().map_err(|error| Error::Refused(error.to_string()))?;
        let certificate = own_certificate(&enable.certificate)?;
        let membership = Membership {
            cluster: new_id()?,
            cluster_name: enable.access.cluster_name().to_owned(),
            member: enable.member.clone(),
            member_id: new_id()?,
            seal: SealKey::new().map_err(|error| Error::Refused(error.to_string()))?,
            prefix: enable.access.prefix.clone(),
            endpoints: enable.access.endpoints().to_vec(),
        };
        let stored = stored(membership, enable.access.clone());
        let member = new_member(&stored, certificate);
        let writes = initial_writes(&self.load(), &stored, &enable.served, &member)?;
        self.become_member(&stored, make(&stored, &writes))
    }

    /// Makes this server a member of the cluster that invited it. What it has trusted until now, and configured but its
    /// addresses, is given up for what the cluster has.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is a member already, or the token is not one that this cluster has made for this use;
    /// [`Error::Away`] and [`Error::Uncertain`] as with [`commit`](Self::commit).
    pub fn cluster_join(&self, join: Join) -> Result<std::sync::Arc<State>, Error> {
        let _writer = self.writer();
        self.alone()?;
        let invitation = &join.invitation;
        check_name(&invitation.member)?;
        join.access.check().map_err(|error| Error::Refused(error.to_string()))?;
        if invitation.expires_at <= now() {
            return Err(Error::Refused(
                "the join token has expired by this server's clock; have a new one made".to_owned(),
            ));
        }
        let certificate = own_certificate(&join.certificate)?;
        let purpose = |error: seal::NotSealed| Error::Refused(error.to_string());
        // The cluster's own key comes with the first look at etcd.
        let envelope = SealKey::derived(invitation.secret.reveal(), "invitation").map_err(purpose)?;
        let membership = Membership {
            cluster: invitation.cluster.clone(),
            cluster_name: join.access.cluster_name().to_owned(),
            member: invitation.member.clone(),
            member_id: new_id()?,
            seal: envelope,
            prefix: join.access.prefix.clone(),
            endpoints: join.access.endpoints().to_vec(),
        };
        let mut stored = stored(membership, join.access.clone());
        let looking = async {
            let client = connect(&stored.access).await?;
            invited(&client, &stored, invitation).await
        };
        let seal = runtime()?.block_on(looking).map_err(Trouble::into_error)?;
        stored.membership.seal = seal;
        let member = new_member(&stored, certificate);
        self.become_member(&stored, redeem(&stored, invitation, &member))
    }

    /// Makes a token by which a server becomes the member of this name, once, within this time. One made before for the name
    /// is worth nothing any more.
    ///
    /// # Errors
    /// [`Error::Refused`] when the name is none, [`Error::Exists`] when there is such a member; [`Error::Away`] and
    /// [`Error::Uncertain`] as with [`commit`](Self::commit).
    pub fn cluster_invite(&self, name: &str, lifetime: Duration) -> Result<Invitation, Error> {
        let _writer = self.writer();
        check_name(name)?;
        let lifetime = lifetime.min(LIFETIME_LIMIT).max(Duration::from_secs(1));
        let engine = self.engine().ok_or_else(not_clustered)?;
        let no_random = |error: seal::NoRandom| Error::Refused(error.to_string());
        // One of this name may have gone a moment ago.
        self.shared.look(&engine);
        let (membership, joined, served) = {
            let local = self.shared.local();
            let mirror = local.mirror.as_ref().filter(|mirror| !mirror.removed).ok_or_else(not_clustered)?;
            if mirror.members().contains_key(name) {
                return Err(Error::Exists(format!("member {name}")));
            }
            let own = format!("members/{}", mirror.membership.member);
            (mirror.membership.clone(), mirror.stamp(&own).0, mirror.served())
        };
        let stored = self.shared.disk().membership()?.ok_or_else(not_clustered)?;
        let key = |name: String| format!("{}{name}", stored.access.prefix);
        let secret = Secret::new(hex(&seal::random::<32>().map_err(no_random)?));
        let envelope = SealKey::derived(secret.reveal(), "invitation")
            .map_err(|error| Error::Refused(error.to_string()))?;
        let place = codec::invitation_context(&membership.cluster, name);
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let fingerprint = served.as_deref().and_then(fingerprint_of).unwrap_or_default();
        let doc = InvitationDoc {
            id: new_id()?,
            fingerprint: fingerprint.clone(),
            secret: SecretHash::of(secret.reveal()).to_hex(),
            seal: envelope.seal(&place, membership.seal.bytes()).map_err(no_random)?,
            created_at: now(),
            expires_at: now().saturating_add(seconds),
        };
        engine.block_on(async {
            let client = link(&engine).await?;
            let lease = client.grant(seconds).await.map_err(away)?;
            let compare = vec![
                created_at(&key(format!("members/{name}")), 0),
                created_at(&key(format!("members/{}", membership.member)), joined),
            ];
            let write = put(&key(format!("invitations/{name}")), codec::write_invitation(&doc), lease);
            match client.transact(compare, vec![write], &[]).await {
                Ok(Outcome::Done(_)) => Ok(()),
                Ok(Outcome::Differs(_)) => {
                    // It would end by itself, hours later.
                    let _ = client.revoke(lease).await;
                    Err(Error::Exists(format!("member {name}")))
                }
                Err(Failure::Away(words)) => Err(Error::Uncertain(words)),
                Err(failure) => Err(away(failure)),
            }
        })?;
        // How a member logs in to etcd is its own, so that a token that leaks later gives nothing away.
        let access = EtcdAccess { client_pem: None, user: None, ..stored.access };
        Ok(Invitation {
            member: name.to_owned(),
            cluster: membership.cluster,
            access,
            fingerprint,
            secret,
            expires_at: doc.expires_at,
        })
    }

    /// Takes a token of [`cluster_invite`](Self::cluster_invite) back, by the name that it is for.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; [`Error::Away`] and [`Error::Uncertain`] as with [`commit`](Self::commit).
    pub fn cluster_revoke_invitation(&self, name: &str) -> Result<(), Error> {
        let _writer = self.writer();
        let engine = self.engine().ok_or_else(not_clustered)?;
        let key = format!("{}invitations/{name}", self.shared.prefix()?);
        engine.block_on(async {
            let client = link(&engine).await?;
            let (found, _) = client.get(&key).await.map_err(away)?;
            let found = found.ok_or_else(|| Error::NotFound(format!("a join token for member {name}")))?;
            match client.transact(vec![modified_at(&key, found.mod_revision)], vec![delete(&key)], &[]).await
            {
                Ok(Outcome::Done(_)) => Ok(()),
                Ok(Outcome::Differs(_)) => Err(Error::NotFound(format!("a join token for member {name}"))),
                Err(Failure::Away(words)) => Err(Error::Uncertain(words)),
                Err(failure) => Err(away(failure)),
            }
        })
    }

    /// Makes this server one of its own again, with a copy of what the cluster has configured and trusts; one that was removed
    /// trusts nobody. The last member to leave takes the cluster with it.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is no member; [`Error::Away`] and [`Error::Uncertain`] as with [`commit`](Self::commit),
    /// unless it is forced.
    pub fn cluster_leave(&self, how: Leave) -> Result<std::sync::Arc<State>, Error> {
        let _writer = self.writer();
        let state = self.load();
        if self.shared.local().pending {
            if how == Leave::Orderly {
                return Err(still_joining());
            }
            self.set_engine(None);
            self.shared.give_up_joining()?;
            return Ok(state);
        }
        let cluster = state.cluster.clone().ok_or_else(not_clustered)?;
        if how == Leave::Orderly && !cluster.removed {
            let engine = self.engine().ok_or_else(not_clustered)?;
            self.say_goodbye(&engine, &cluster.member)?;
        }
        // The thread is stopped first, so that it does not see this member's absence as its removal.
        self.set_engine(None);
        self.shared.leave(&state)?;
        Ok(self.load())
    }

    fn say_goodbye(&self, engine: &Engine, member: &str) -> Result<(), Error> {
        let prefix = self.shared.prefix()?;
        let key = |name: &str| format!("{prefix}{name}");
        let own = format!("members/{member}");
        for _ in 0..ROUNDS {
            let (base, number, joined, others) = {
                let local = self.shared.local();
                let mirror = local.mirror.as_ref().ok_or_else(not_clustered)?;
                (mirror.base(), mirror.number, mirror.stamp(&own).0, mirror.has_others())
            };
            let compare = vec![modified_at(&key("revision"), base), created_at(&key(&own), joined)];
            let writes = if others {
                let mut writes: Vec<_> = traces(member).iter().map(|name| delete(&key(name))).collect();
                writes.push(put(&key("revision"), codec::next_revision(number, &new_id()?), 0));
                writes
            } else {
                everything(&prefix)
            };
            let outcome = engine.block_on(async {
                let client = link(engine).await?;
                client.transact(compare, writes, &[key(&own)]).await.map_err(|failure| match failure {
                    Failure::Away(words) => Error::Uncertain(words),
                    failure => away(failure),
                })
            })?;
            match outcome {
                Outcome::Done(_) => return Ok(()),
                // Gone already: an earlier attempt whose answer got lost, or another member's doing.
                Outcome::Differs(found) if found.iter().all(Option::is_none) => return Ok(()),
                // Something else has changed meanwhile; the watch brings it.
                Outcome::Differs(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        Err(Error::Away("other changes kept coming first; try again".to_owned()))
    }

    fn alone(&self) -> Result<(), Error> {
        match &self.load().cluster {
            Some(cluster) => Err(Error::Refused(format!(
                "this server is a member of the cluster {} already, as {}",
                cluster.name, cluster.member
            ))),
            None if self.shared.local().pending => Err(still_joining()),
            None => Ok(()),
        }
    }

    /// Notes the intent, does the decisive thing in etcd, and becomes a member. A kill at any moment leaves the note, by which
    /// the next start finds out how it went.
    fn become_member(
        &self,
        stored: &Stored,
        deciding: impl Future<Output = Result<Listing, Trouble>>,
    ) -> Result<std::sync::Arc<State>, Error> {
        self.shared.begin_joining(stored)?;
        // The thread of an earlier attempt has nothing left to do.
        self.set_engine(None);
        let decided = runtime()?.block_on(deciding);
        let pending = Stored { pending: true, ..stored.clone() };
        match decided {
            Ok(listing) => {
                self.shared.adopt(stored, listing)?;
                self.set_engine(Some(Engine::start(&self.shared, stored.clone())?));
                Ok(self.load())
            }
            Err(Trouble::Not(error)) => {
                self.shared.give_up_joining()?;
                Err(error)
            }
            Err(Trouble::Maybe(error)) => {
                self.set_engine(Some(Engine::start(&self.shared, pending)?));
                Err(error)
            }
        }
    }
}

impl Trouble {
    fn into_error(self) -> Error {
        match self {
            Self::Not(error) | Self::Maybe(error) => error,
        }
    }
}

fn stored(membership: Membership, access: EtcdAccess) -> Stored {
    Stored { membership, access, pending: false, removed: false, synced_at: now() }
}

fn away(failure: Failure) -> Error {
    Error::Away(failure.to_string())
}

fn check_name(name: &str) -> Result<(), Error> {
    if is_member_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    Err(Error::Refused(format!(
        "invalid member name '{shown}': letters, digits, '.', '_' and '-', 63 at most, a letter or digit first"
    )))
}

fn own_certificate(der: &[u8]) -> Result<ParsedCertificate, Error> {
    ParsedCertificate::parse(der)
        .map_err(|error| Error::Refused(format!("the server's own certificate: {error}")))
}

fn new_member(stored: &Stored, certificate: ParsedCertificate) -> Member {
    Member {
        name: stored.membership.member.clone(),
        id: stored.membership.member_id.clone(),
        certificate,
        joined_at: now(),
        address: None,
        metrics_address: None,
    }
}

/// The fingerprint of the first certificate in the PEM.
fn fingerprint_of(served: &ClusterCertificate) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(served.certificate_pem.as_bytes()).ok()?;
    Some(crate::fingerprint(&pem.contents))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

async fn link(engine: &Engine) -> Result<Client, Error> {
    let none = || Error::Away("there is no connection to it now".to_owned());
    engine.link().await.ok_or_else(none)
}

/// The first endpoint that answers.
pub(crate) async fn connect(access: &EtcdAccess) -> Result<Client, Trouble> {
    let mut words = Vec::new();
    for endpoint in access.endpoints() {
        match Client::connect(access, endpoint).await {
            // One that has no majority behind it connects, but reads nothing.
            Ok(client) => match client.get(&format!("{}cluster", access.prefix)).await {
                Ok(_) => return Ok(client),
                Err(failure) => words.push(format!("{endpoint}: {failure}")),
            },
            Err(failure) => words.push(format!("{endpoint}: {failure}")),
        }
    }
    Err(Trouble::Not(Error::Away(words.join("; "))))
}

/// The decisive transaction may have been made.
pub(crate) fn maybe(failure: Failure) -> Trouble {
    match failure {
        Failure::Unexpected(_) | Failure::Denied(_) => failure.into(),
        Failure::Away(_) | Failure::TooLong => Trouble::Maybe(Error::Uncertain(failure.to_string())),
    }
}

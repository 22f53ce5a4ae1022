//! What etcd holds under the prefix, as this member saw it last, taken apart key by key as it comes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::codec::{self, ClusterDoc, InvitationDoc, KeyName, StatusDoc};
use super::rpc::KeyValue;
use super::seal::SealKey;
use super::{
    BadKey, Cluster, ClusterCertificate, Member, MemberPresence, MemberStatus, Presence, is_member_key,
};
use crate::config::Config;
use crate::keys::{find, is_user_key};
use crate::token::JoinToken;
use crate::{Certificate, DeclaredProject, State};

/// How many keys that cannot be read are named.
const BAD_KEYS_LIMIT: usize = 20;

/// Who this member is.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// The cluster's id.
    pub(crate) cluster: String,
    /// What people call the cluster.
    pub(crate) cluster_name: String,
    /// What this server is called in it.
    pub(crate) member: String,
    /// The id that it was given when it joined.
    pub(crate) member_id: String,
    /// What secrets in etcd are sealed with.
    pub(crate) seal: SealKey,
    /// What every key of the cluster begins with.
    pub(crate) prefix: String,
    /// Where etcd is, for people to see.
    pub(crate) endpoints: Vec<String>,
}

/// A key as etcd holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: Vec<u8>,
    /// The revision at which it was made.
    pub(crate) created: i64,
    /// The revision of its last change.
    pub(crate) modified: i64,
}

impl From<KeyValue> for Entry {
    fn from(kv: KeyValue) -> Self {
        Self { value: kv.value, created: kv.create_revision, modified: kv.mod_revision }
    }
}

/// What is to be done to the row of a key in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Row {
    Put(String, Entry),
    Delete(String),
}

/// What etcd holds, as seen last.
#[derive(Debug, Clone)]
pub(crate) struct Mirror {
    pub(crate) membership: Membership,
    /// The revision up to which it has been read. 0 for a copy from the database.
    pub(crate) revision: i64,
    /// Of which etcd that is a revision.
    pub(crate) etcd: u64,
    /// When each key was made and changed.
    stamps: BTreeMap<String, (i64, i64)>,
    cluster: Option<ClusterDoc>,
    pub(crate) number: u64,
    /// What the key `revision` holds, which no other change has written.
    pub(crate) mark: Vec<u8>,
    /// The keys that all members share, those that this version does not know among them.
    shared: BTreeMap<String, String>,
    certificates: BTreeMap<String, Arc<Certificate>>,
    tokens: BTreeMap<String, Arc<JoinToken>>,
    projects: BTreeMap<String, DeclaredProject>,
    members: BTreeMap<String, Arc<Member>>,
    invitations: BTreeMap<String, InvitationDoc>,
    served: Option<Arc<ClusterCertificate>>,
    alive: BTreeMap<String, i64>,
    status: BTreeMap<String, StatusDoc>,
    /// When this member saw another's lease end, in seconds since 1970.
    gone: BTreeMap<String, i64>,
    bad: BTreeMap<String, String>,
    pub(crate) removed: bool,
}

impl Mirror {
    /// One that has seen nothing yet.
    pub(crate) fn new(membership: Membership) -> Self {
        Self {
            membership,
            revision: 0,
            etcd: 0,
            stamps: BTreeMap::new(),
            cluster: None,
            number: 0,
            mark: Vec::new(),
            shared: BTreeMap::new(),
            certificates: BTreeMap::new(),
            tokens: BTreeMap::new(),
            projects: BTreeMap::new(),
            members: BTreeMap::new(),
            invitations: BTreeMap::new(),
            served: None,
            alive: BTreeMap::new(),
            status: BTreeMap::new(),
            gone: BTreeMap::new(),
            bad: BTreeMap::new(),
            removed: false,
        }
    }

    /// The same member's next look at everything. What cannot be read now, and would take away what protects, stays as it
    /// was; so does what this member saw of the others' leaving.
    pub(crate) fn successor(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            gone: self.gone.clone(),
            status: self.status.clone(),
            ..Self::new(self.membership.clone())
        }
    }

    /// When the key was made and changed last, 0 where it is not there.
    pub(crate) fn stamp(&self, key: &str) -> (i64, i64) {
        self.stamps.get(key).copied().unwrap_or_default()
    }

    /// Which change of the configuration or of what is trusted was the last.
    pub(crate) fn base(&self) -> i64 {
        self.stamp("revision").1
    }

    /// The id of the cluster that was found.
    pub(crate) fn found_cluster(&self) -> Option<&ClusterDoc> {
        self.cluster.as_ref()
    }

    /// Takes what a key holds now, or that it is gone; `now` in seconds since 1970. What is older than what is known already is
    /// passed over. The answer says what the database has to do.
    pub(crate) fn apply(&mut self, key: &str, entry: Option<Entry>, now: i64) -> Option<Row> {
        let name = KeyName::of(key);
        let kept = name.is_kept();
        let Some(entry) = entry else {
            self.stamps.remove(key);
            self.bad.remove(key);
            self.forget(name, now);
            return kept.then(|| Row::Delete(key.to_owned()));
        };
        if entry.modified < self.stamp(key).1 {
            return None;
        }
        self.stamps.insert(key.to_owned(), (entry.created, entry.modified));
        match self.learn(name, &entry, now) {
            Ok(()) => {
                self.bad.remove(key);
                kept.then(|| Row::Put(key.to_owned(), entry))
            }
            Err(reason) => {
                tracing::warn!(key = shown(key), "a key of the cluster cannot be read: {reason}");
                self.bad.insert(key.to_owned(), reason);
                // What protects goes on as it was; anything else that cannot be read counts for nothing.
                let protects = matches!(name, KeyName::Config | KeyName::Cluster | KeyName::Certificate);
                if protects || name == KeyName::Members(&self.membership.member.clone()) {
                    return None;
                }
                self.forget(name, now);
                kept.then(|| Row::Delete(key.to_owned()))
            }
        }
    }

    /// A key whose value was too long to be fetched.
    pub(crate) fn too_long(&mut self, key: &str) {
        self.bad.insert(key.to_owned(), "it is too long to be read".to_owned());
    }

    fn learn(&mut self, name: KeyName<'_>, entry: &Entry, now: i64) -> Result<(), String> {
        let value = entry.value.as_slice();
        let (seal, cluster) = (&self.membership.seal, self.membership.cluster.as_str());
        match name {
            KeyName::Cluster => self.cluster = Some(codec::read_cluster(value)?),
            KeyName::Revision => (self.number, self.mark) = (codec::read_revision(value), value.to_vec()),
            KeyName::Config => self.shared = codec::read_config(value)?,
            KeyName::Certificate => self.served = Some(Arc::new(codec::read_served(value, seal, cluster)?)),
            KeyName::Certificates(name) => {
                let entry = codec::read_certificate(name, value)?;
                self.certificates.insert(name.to_owned(), Arc::new(entry));
            }
            KeyName::Tokens(id) => {
                let token = codec::read_token(id, value, seal, cluster)?;
                self.tokens.insert(id.to_owned(), Arc::new(token));
            }
            KeyName::Projects(name) => {
                self.projects.insert(name.to_owned(), codec::read_project(value)?);
            }
            KeyName::Members(name) => {
                let member = codec::read_member(name, value)?;
                if name == self.membership.member && member.id != self.membership.member_id {
                    self.removed = true;
                }
                self.members.insert(name.to_owned(), Arc::new(member));
            }
            KeyName::Invitations(name) => {
                self.invitations.insert(name.to_owned(), codec::read_invitation(value)?);
            }
            KeyName::Alive(name) => {
                self.alive.insert(name.to_owned(), now);
            }
            KeyName::Claim | KeyName::Unknown => {}
        }
        Ok(())
    }

    fn forget(&mut self, name: KeyName<'_>, now: i64) {
        match name {
            KeyName::Cluster => self.cluster = None,
            KeyName::Revision => (self.number, self.mark) = (0, Vec::new()),
            KeyName::Config => self.shared.clear(),
            KeyName::Certificate => self.served = None,
            KeyName::Certificates(name) => drop(self.certificates.remove(name)),
            KeyName::Tokens(id) => drop(self.tokens.remove(id)),
            KeyName::Projects(name) => drop(self.projects.remove(name)),
            KeyName::Members(name) => {
                self.removed |= name == self.membership.member;
                self.members.remove(name);
                self.gone.remove(name);
            }
            KeyName::Invitations(name) => drop(self.invitations.remove(name)),
            KeyName::Alive(name) => {
                if self.alive.remove(name).is_some() && self.members.contains_key(name) {
                    self.gone.insert(name.to_owned(), now);
                }
            }
            KeyName::Claim | KeyName::Unknown => {}
        }
    }

    /// After everything was read: whether this member is still one.
    pub(crate) fn settle(&mut self) {
        let own = self.stamps.contains_key(&format!("members/{}", self.membership.member));
        self.removed |= !own;
    }

    /// The keys that all members share.
    pub(crate) fn shared(&self) -> &BTreeMap<String, String> {
        &self.shared
    }

    /// What all members serve with.
    pub(crate) fn served(&self) -> Option<Arc<ClusterCertificate>> {
        self.served.clone()
    }

    pub(crate) fn members(&self) -> &BTreeMap<String, Arc<Member>> {
        &self.members
    }

    /// Everything as of a revision of the local copy, with this member's own keys. A server that was removed trusts nobody by
    /// what the cluster trusted.
    pub(crate) fn state(&self, revision: u64, own: &BTreeMap<String, String>) -> State {
        let mut values: BTreeMap<String, String> = self
            .shared
            .iter()
            .filter(|(key, _)| !is_member_key(key) && (find(key).is_some() || is_user_key(key)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        values.extend(own.iter().filter(|(key, _)| is_member_key(key)).map(|(k, v)| (k.clone(), v.clone())));
        let cluster = Cluster {
            id: self.membership.cluster.clone(),
            name: self.membership.cluster_name.clone(),
            member: self.membership.member.clone(),
            endpoints: self.membership.endpoints.clone(),
            members: self.members.clone(),
            certificate: self.served.clone().filter(|_| !self.removed),
            invitations: self.invitations.iter().map(|(name, doc)| (name.clone(), doc.pending())).collect(),
            removed: self.removed,
        };
        State {
            revision,
            config: Config::restore(values),
            certificates: if self.removed { BTreeMap::new() } else { self.certificates.clone() },
            join_tokens: if self.removed { BTreeMap::new() } else { self.tokens.clone() },
            projects: self.projects.clone(),
            cluster: Some(Arc::new(cluster)),
        }
    }

    /// Who is there; `now` in seconds since 1970.
    pub(crate) fn presence(&self, now: i64) -> Presence {
        let of = |name: &String| {
            let status = self.status.get(name);
            let here = self.alive.contains_key(name) || *name == self.membership.member;
            let said = status.map(|status| status.seen_at);
            MemberPresence {
                status: if here { MemberStatus::Online } else { MemberStatus::Offline },
                last_seen: if here { Some(now) } else { self.gone.get(name).copied().or(said) },
                version: status.map(|status| status.version.clone()),
                instances: status.map(|status| status.instances),
            }
        };
        Presence { members: self.members.keys().map(|name| (name.clone(), of(name))).collect() }
    }

    /// What the members said of themselves last.
    pub(crate) fn take_statuses(&mut self, statuses: BTreeMap<String, StatusDoc>) {
        self.status = statuses;
    }

    /// Whether there are other members than this one, those that cannot be read among them.
    pub(crate) fn has_others(&self) -> bool {
        let from = "members/".to_owned();
        let keys = self.stamps.range(from..).map_while(|(key, _)| key.strip_prefix("members/"));
        keys.into_iter().any(|name| name != self.membership.member)
    }

    /// The keys that cannot be read.
    pub(crate) fn bad_keys(&self) -> Vec<BadKey> {
        let named = self.bad.iter().take(BAD_KEYS_LIMIT);
        named.map(|(key, reason)| BadKey { key: shown(key), reason: reason.clone() }).collect()
    }
}

/// A key as a person may see it.
fn shown(key: &str) -> String {
    key.chars().map(|c| if c.is_control() { '?' } else { c }).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::der;
    use crate::{CertificateType, ParsedCertificate};

    fn mirror() -> Mirror {
        Mirror::new(Membership {
            cluster: "c".to_owned(),
            cluster_name: "miharu".to_owned(),
            member: "a".to_owned(),
            member_id: "1".to_owned(),
            seal: SealKey::new().unwrap(),
            prefix: "/miharu/".to_owned(),
            endpoints: Vec::new(),
        })
    }

    fn at(value: impl Into<Vec<u8>>, modified: i64) -> Option<Entry> {
        Some(Entry { value: value.into(), created: 1, modified })
    }

    fn member(name: &str, id: &str) -> Vec<u8> {
        codec::write_member(&Member {
            name: name.to_owned(),
            id: id.to_owned(),
            certificate: ParsedCertificate::parse(&der(&rcgen::PKCS_ECDSA_P256_SHA256)).unwrap(),
            joined_at: 0,
            address: None,
            metrics_address: None,
        })
    }

    #[test]
    fn a_certificate_that_cannot_be_read_any_more_is_not_trusted_any_more() {
        let mut mirror = mirror();
        let certificate = ParsedCertificate::parse(&der(&rcgen::PKCS_ED25519)).unwrap();
        let key = format!("certificates/{}", certificate.fingerprint());
        let entry = Certificate {
            name: "x".to_owned(),
            description: String::new(),
            certificate_type: CertificateType::Metrics,
            projects: None,
            certificate,
            token: None,
        };
        assert!(matches!(mirror.apply(&key, at(codec::write_certificate(&entry), 2), 0), Some(Row::Put(..))));
        assert_eq!(mirror.state(1, &BTreeMap::new()).certificates.len(), 1);
        assert!(mirror.apply(&key, at("rubbish", 1), 0).is_none(), "older than what is known");
        assert_eq!(mirror.apply(&key, at("{\u{7}", 3), 0), Some(Row::Delete(key.clone())));
        assert!(mirror.state(1, &BTreeMap::new()).certificates.is_empty());
        assert_eq!(mirror.bad_keys().len(), 1);
        mirror.apply(&key, None, 0);
        assert!(mirror.bad_keys().is_empty());
    }

    #[test]
    fn a_configuration_that_cannot_be_read_leaves_the_last_one_in_force() {
        let mut mirror = mirror();
        let values = BTreeMap::from([
            ("metrics.prefix".to_owned(), "lxd".to_owned()),
            ("core.https_address".to_owned(), ":1".to_owned()),
            ("of.a.later.version".to_owned(), "1".to_owned()),
        ]);
        mirror.apply("config", at(codec::write_config(&values), 2), 0);
        assert_eq!(mirror.apply("config", at("[]", 3), 0), None);
        let own = BTreeMap::from([
            ("core.metrics_address".to_owned(), ":9101".to_owned()),
            ("metrics.prefix".to_owned(), "incus".to_owned()),
        ]);
        let mut next = mirror.successor();
        next.apply("config", at("[]", 3), 0);
        for mirror in [mirror, next] {
            let state = mirror.state(1, &own);
            assert!(state.config.settings().prefix_lxd);
            assert_eq!(state.config.get("core.https_address"), "", "an address is each member's own");
            assert_eq!(state.config.get("core.metrics_address"), ":9101");
            assert_eq!(mirror.bad_keys().len(), 1);
        }
    }

    #[test]
    fn who_was_removed_knows_it_and_trusts_nobody() {
        let mut here = mirror();
        here.apply("members/a", at(member("a", "1"), 2), 0);
        here.settle();
        assert!(!here.removed);
        let mut gone = here.clone();
        gone.apply("members/a", None, 0);
        let mut replaced = here.clone();
        replaced.apply("members/a", at(member("a", "2"), 3), 0);
        let mut absent = here.successor();
        absent.settle();
        for mirror in [gone, replaced, absent] {
            assert!(mirror.removed && mirror.state(1, &BTreeMap::new()).cluster.unwrap().removed);
        }
        here.apply("members/a", at("rubbish", 4), 0);
        assert!(!here.removed, "a key that cannot be read takes nobody out");
    }

    #[test]
    fn a_member_that_cannot_be_read_is_a_member() {
        let mut mirror = mirror();
        mirror.apply("members/a", at(member("a", "1"), 2), 0);
        mirror.apply("projects/x", at("{}", 2), 0);
        assert!(!mirror.has_others());
        mirror.apply("members/b", at("rubbish", 3), 0);
        assert!(mirror.has_others() && !mirror.members().contains_key("b"));
    }

    #[test]
    fn a_member_is_away_from_the_end_of_its_lease() {
        let mut mirror = mirror();
        mirror.apply("members/b", at(member("b", "2"), 2), 0);
        assert_eq!(
            mirror.presence(9).members["b"],
            MemberPresence { status: MemberStatus::Offline, ..Default::default() }
        );
        let status = StatusDoc { version: "0.1\u{1b}".to_owned(), instances: 3, seen_at: 5 };
        let read = codec::read_status(&codec::write_status(&status)).unwrap();
        mirror.take_statuses(BTreeMap::from([("b".to_owned(), read)]));
        mirror.apply("alive/b", at("", 4), 6);
        let presence = &mirror.presence(9).members["b"];
        assert_eq!((presence.status, presence.last_seen), (MemberStatus::Online, Some(9)));
        assert_eq!(presence.version.as_deref(), Some("0.1"));
        mirror.apply("alive/b", None, 10);
        let presence = &mirror.presence(20).members["b"];
        assert_eq!(
            (presence.status, presence.last_seen, presence.instances),
            (MemberStatus::Offline, Some(10), Some(3))
        );
        assert!(!mirror.presence(20).members.contains_key("stranger"));
    }
}

//! What each kind of change writes under the prefix.

use std::collections::BTreeMap;

use super::codec;
use super::mirror::Mirror;
use super::{MEMBER_KEYS, is_member_key, seal};
use crate::{Change, Error, State};

/// Keys under the prefix that get a value, or go.
pub(crate) type Writes = Vec<(String, Option<Vec<u8>>)>;

/// What a change writes, and this member's own keys where they change.
pub(crate) fn writes_of(
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

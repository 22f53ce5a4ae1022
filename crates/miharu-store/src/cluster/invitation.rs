//! The token by which a server joins a cluster.
//!
//! It carries a secret, of which etcd holds a hash, and under which the cluster's key is sealed there until the token is used.
//! So etcd alone tells neither, and a token that was used, has expired or was taken back opens nothing any more.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::codec::is_member_name;
use super::settings::EtcdAccess;
use crate::token::Secret;

/// The longest text that is looked at as a token, in bytes.
const LIMIT: usize = 64 * 1024;
/// The only version there is.
const VERSION: u32 = 1;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// What the new member is going to be called.
    pub member: String,
    /// The cluster's id.
    pub cluster: String,
    /// Where etcd is. Who logs in to it, and shows what, is each member's own to say.
    pub access: EtcdAccess,
    /// The fingerprint of the certificate that the cluster served with when the token was made.
    pub fingerprint: String,
    /// What the token is worth.
    pub secret: Secret,
    /// From when on it is worth nothing, in seconds since 1970.
    pub expires_at: i64,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    member: String,
    cluster: String,
    store: String,
    ca: Option<String>,
    fingerprint: String,
    secret: String,
    expires_at: i64,
}

impl Invitation {
    /// The token.
    #[must_use]
    pub fn to_token(&self) -> String {
        let written = Written {
            version: VERSION,
            member: self.member.clone(),
            cluster: self.cluster.clone(),
            store: self.access.url(),
            ca: self.access.ca_pem.clone(),
            fingerprint: self.fingerprint.clone(),
            secret: self.secret.reveal().to_owned(),
            expires_at: self.expires_at,
        };
        // Strings and numbers can always be written.
        STANDARD.encode(serde_json::to_vec(&written).unwrap_or_default())
    }

    /// Reads a token.
    ///
    /// # Errors
    /// What is wrong with it, for people. Nothing of the token is in it.
    pub fn from_token(text: &str) -> Result<Self, String> {
        let none = || "this is no join token of a cluster, or a part of it is missing".to_owned();
        let text: String = text.split_ascii_whitespace().collect();
        if text.len() > LIMIT {
            return Err(none());
        }
        let json = STANDARD.decode(text).map_err(|_| none())?;
        let written: Written = serde_json::from_slice(&json).map_err(|_| none())?;
        if written.version != VERSION {
            return Err("this join token is of another version of miharu".to_owned());
        }
        if !is_member_name(&written.member) {
            return Err(none());
        }
        let mut access = EtcdAccess::parse(&written.store).map_err(|error| error.to_string())?;
        access.ca_pem = written.ca;
        Ok(Self {
            member: written.member,
            cluster: written.cluster,
            access,
            fingerprint: written.fingerprint,
            secret: Secret::new(written.secret),
            expires_at: written.expires_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made_whatever_the_terminal_broke() {
        let invitation = Invitation {
            member: "b".to_owned(),
            cluster: "id".to_owned(),
            access: EtcdAccess::parse("etcd://10.0.0.1,10.0.0.2/x").unwrap(),
            fingerprint: "00".to_owned(),
            secret: Secret::new("hush".to_owned()),
            expires_at: 7,
        };
        let token = invitation.to_token();
        let (head, tail) = token.split_at(20);
        let broken = format!(" {head}\n{tail} ");
        assert_eq!(Invitation::from_token(&broken), Ok(invitation.clone()));
        assert!(!format!("{invitation:?}").contains("hush"));
        for wrong in ["", "x", head, &STANDARD.encode("{}")] {
            assert!(Invitation::from_token(wrong).unwrap_err().contains("no join token"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = Invitation::from_token(&text);
            let _ = Invitation::from_token(&STANDARD.encode(text));
        }
    }
}

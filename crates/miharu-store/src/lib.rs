//! The server's lasting state: its configuration, the certificates that it trusts and the projects declared for them.
//!
//! Readers get an immutable snapshot, [`State`]; a change is one [`Store::commit`], one SQLite transaction, so that a
//! kill at any moment leaves the old state or the new one.
#![forbid(unsafe_code)]

pub mod address;
pub mod certificate;
pub mod config;
mod database;
pub mod expiry;
pub mod globs;
pub mod keys;
pub mod token;
pub mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

pub use address::ListenAddress;
pub use certificate::{Certificate, CertificateError, CertificateType, ParsedCertificate, fingerprint};
pub use config::{Config, ConfigError, Settings};
pub use expiry::Expiry;
pub use globs::{DeviceGlobs, Globs, InstanceGlobs};
pub use keys::{DRIVERS, KEYS, Key, Kind};
pub use token::{JoinToken, Secret, SecretHash};
pub use words::Selected;

/// Everything that is stored, as of one revision.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Grows by one with every commit.
    pub revision: u64,
    /// The server keys that are set.
    pub config: Config,
    /// The trust store, by fingerprint; bearer tokens are in it, too.
    pub certificates: BTreeMap<String, Arc<Certificate>>,
    /// The join tokens that were not used yet, by their UUID; expired ones may be among them.
    pub join_tokens: BTreeMap<String, Arc<JoinToken>>,
    /// The projects that were declared, by name.
    pub projects: BTreeMap<String, DeclaredProject>,
}

impl State {
    /// The entry of the bearer token with this secret. As long as the search takes tells nothing of the secrets there are:
    /// every one is looked at.
    #[must_use]
    pub fn bearer_token(&self, secret: &str) -> Option<&Arc<Certificate>> {
        let hash = SecretHash::of(secret);
        let tokens = self.certificates.values().filter_map(|entry| Some((entry, entry.token.as_ref()?)));
        tokens.fold(None, |found, (entry, token)| if token.matches(&hash) { Some(entry) } else { found })
    }

    /// The join tokens that can still be used at that moment, in seconds since 1970.
    pub fn usable_join_tokens(&self, now: i64) -> impl Iterator<Item = &Arc<JoinToken>> {
        self.join_tokens.values().filter(move |token| !token.has_expired(now))
    }

    /// The join token with this secret, expired or not; searched as [`bearer_token`](Self::bearer_token) does.
    #[must_use]
    pub fn join_token(&self, secret: &str) -> Option<&Arc<JoinToken>> {
        let hash = SecretHash::of(secret);
        self.join_tokens.values().fold(None, |found, token| {
            if SecretHash::of(token.secret.reveal()).matches(&hash) { Some(token) } else { found }
        })
    }
}

/// A project that was declared with `POST /1.0/projects`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclaredProject {
    /// What people say of it.
    pub description: String,
}

/// One change of the state. What it holds has been checked by its types already.
#[derive(Debug, Clone)]
pub enum Change {
    /// The whole configuration becomes this.
    Config(Config),
    /// A certificate is trusted.
    AddCertificate(Certificate),
    /// The entry of a certificate that is trusted already becomes this.
    UpdateCertificate(Certificate),
    /// The certificate of this fingerprint is not trusted any more.
    RemoveCertificate(String),
    /// A join token is made; those that have expired by then go.
    AddJoinToken(JoinToken),
    /// The join token of this UUID is worth nothing any more.
    RemoveJoinToken(String),
    /// The join token of this UUID is used up, and the certificate of its user is trusted.
    Redeem(String, Certificate),
    /// A project is declared.
    AddProject(String, DeclaredProject),
    /// A project is not declared any more.
    RemoveProject(String),
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state changed since the caller looked.
    #[error("the state changed in the meantime (revision {found}, expected {expected})")]
    Conflict {
        /// The revision that the caller knew.
        expected: u64,
        /// The revision that holds.
        found: u64,
    },
    /// What should be added is there.
    #[error("{0} already exists")]
    Exists(String),
    /// What should be changed is not there.
    #[error("{0} not found")]
    NotFound(String),
    /// SQLite failed.
    #[error("{path}: {source}")]
    Database {
        /// The database's file.
        path: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The database is of a newer version, or is none.
    #[error("{path}: {source}")]
    Schema {
        /// The database's file.
        path: String,
        /// What is wrong with it.
        source: rusqlite_migration::Error,
    },
    /// The file could not be made or given its permissions.
    #[error("{path}: {source}")]
    Io {
        /// The database's file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The store.
#[derive(Debug)]
pub struct Store {
    /// What readers see; replaced only after a commit is on the disk.
    state: ArcSwap<State>,
    /// The only writer. A plain lock: it is held for a transaction of a few rows, by a thread that may block.
    database: Mutex<database::Database>,
}

impl Store {
    /// Opens the database at `path`, or makes it with mode 0600, and brings it to this version's schema.
    ///
    /// # Errors
    /// When the file cannot be opened, is no database, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut database = database::Database::open(path)?;
        let state = database.load()?;
        Ok(Self { state: ArcSwap::from_pointee(state), database: Mutex::new(database) })
    }

    /// The state as of now. It never changes under the caller.
    #[must_use]
    pub fn load(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Makes one change, and returns the state that it leads to. With `expected`, only if the state is still that
    /// revision. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Exists`] or [`Error::NotFound`] when the change does not fit the state; the
    /// others when the disk does not take it. Nothing has changed then.
    pub fn commit(&self, change: &Change, expected: Option<u64>) -> Result<Arc<State>, Error> {
        // A panic in the middle of a transaction rolls it back, so a poisoned lock guards a sound database.
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let state = Arc::new(database.commit(change, expected)?);
        self.state.store(Arc::clone(&state));
        Ok(state)
    }
}

#[cfg(test)]
mod tests;

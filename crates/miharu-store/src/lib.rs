//! The server's lasting state: its configuration, the certificates that it trusts and the projects declared for them.
//!
//! Readers get an immutable snapshot, [`State`]; a change is one [`Store::commit`], one SQLite transaction, so that a
//! kill at any moment leaves the old state or the new one. In a cluster it is one etcd transaction first, see [`cluster`].
#![forbid(unsafe_code)]

pub mod address;
pub mod certificate;
pub mod cluster;
pub mod config;
mod database;
pub mod expiry;
#[doc(hidden)]
pub mod fuzzing;
pub mod globs;
pub mod keys;
pub mod token;
pub mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use cluster::commit::still_joining;
use cluster::copy::Shared;
use cluster::engine::Engine;

pub use address::ListenAddress;
pub use certificate::{Certificate, CertificateError, CertificateType, ParsedCertificate, fingerprint};
pub use cluster::{Cluster, ClusterCertificate, EtcdAccess, Member, Presence, Report, SyncStatus};
pub use config::{Config, ConfigError, Settings};
pub use expiry::Expiry;
pub use globs::{DeviceGlobs, Globs, InstanceGlobs};
pub use keys::{DRIVERS, KEYS, Key, Kind};
pub use token::{JoinToken, Secret, SecretHash};
pub use words::Selected;

/// The version of the SQLite that is compiled in.
#[must_use]
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// Everything that is stored, as of one revision.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Grows by one with every change that is seen here; each server counts for itself.
    pub revision: u64,
    /// The server keys that are set.
    pub config: Config,
    /// The trust store, by fingerprint; bearer tokens are in it, too.
    pub certificates: BTreeMap<String, Arc<Certificate>>,
    /// The join tokens that were not used yet, by their UUID; expired ones may be among them.
    pub join_tokens: BTreeMap<String, Arc<JoinToken>>,
    /// The projects that were declared, by name.
    pub projects: BTreeMap<String, DeclaredProject>,
    /// The cluster that this server is a member of.
    pub cluster: Option<Arc<Cluster>>,
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
    /// All members of the cluster serve with this certificate from now on.
    ClusterCertificate(ClusterCertificate),
    /// The member of this name, not this server, is none any more.
    RemoveMember(String),
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
    /// It makes no sense here, or was not allowed, and asking again will not help. Nothing has changed.
    #[error("{0}")]
    Refused(String),
    /// etcd cannot be reached, or does not take it now. Nothing has changed.
    #[error("the cluster's etcd cannot be reached or refuses this server, so nothing was changed: {0}")]
    Away(String),
    /// etcd was asked, and its answer got lost.
    #[error("etcd did not say whether the change was made ({0}); look again when the cluster is in step")]
    Uncertain(String),
    /// SQLite failed.
    #[error("{path}: {source}. {}", advice(path, source))]
    Database {
        /// The database's file.
        path: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The database is damaged, of a newer version, or none of ours, and is so until somebody mends it. It was left as it is.
    #[error("{path}: {what}. {advice}")]
    Unusable {
        /// The database's file.
        path: String,
        /// What is wrong with it.
        what: String,
        /// What to do, with commands.
        advice: String,
    },
    /// The system does not let the database be opened, or copied before it is brought to this version. It was left as it is.
    #[error("{path}: {what}. {advice}")]
    OutOfReach {
        /// The database's file.
        path: String,
        /// What cannot be done, and what the system says to it.
        what: String,
        /// What to do.
        advice: String,
        /// What the system says, in a word.
        kind: std::io::ErrorKind,
    },
    /// The system refused something else.
    #[error("{path}: {source}")]
    Io {
        /// What it is about.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What to do about SQLite's refusal in the middle of its work.
fn advice(path: &str, error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        // SQLite does not tell why it could not open its journal, but what is tried now fails for the same reason.
        Some(ErrorCode::CannotOpen) if has_no_descriptor(path) => {
            "Nothing was changed: miharud may open no more files. Raise LimitNOFILE= of its service, or let in fewer connections \
             (core.connections), and try again"
        }
        Some(ErrorCode::DiskFull) => {
            "Nothing was changed: make room on the file system of the state directory"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "Nothing was changed: look whether the file system of the state directory is mounted read-write, and whether the \
             directory and the file belong to the user that miharud runs as"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "Nothing was changed: another program has the database open, such as sqlite3 or a backup; try again when it has ended"
        }
        Some(ErrorCode::SystemIoFailure) => {
            "Look in the kernel's log for what is the matter with the disk, and whether the change was made"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "The file was damaged while miharud ran: start it again, and it says how to go back to the last copy"
        }
        _ => "The change was not made",
    }
}

/// Whether this process, or the whole system, has no descriptor left to open the file with.
fn has_no_descriptor(path: &str) -> bool {
    /// ENFILE and EMFILE of errno(3), on every architecture of Linux.
    const NONE_LEFT: [i32; 2] = [23, 24];
    let failed = std::fs::File::open(path).err().and_then(|error| error.raw_os_error());
    failed.is_some_and(|number| NONE_LEFT.contains(&number))
}

/// How long it may take to ask what the members said of themselves.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// The store.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// Held by who changes something, from the look at the state to its end, so that changes made here come one after the
    /// other. In a cluster that can take seconds; only threads that may block take it.
    writer: Mutex<()>,
    /// The cluster's thread; the lock is held to look at it only.
    engine: Mutex<Option<Arc<Engine>>>,
}

impl Store {
    /// Opens the database at `path`, or makes it with mode 0600, and brings it to this version's schema. A member of a cluster
    /// begins with its last known copy, and gets in step in the background.
    ///
    /// # Errors
    /// When the file cannot be opened, is no database, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut database = database::Database::open(path)?;
        let stored = database.membership()?;
        let shared = Arc::new(Shared::open(database, stored.as_ref())?);
        let store = Self { shared, writer: Mutex::new(()), engine: Mutex::new(None) };
        if let Some(stored) = stored {
            store.set_engine(Some(Engine::start(&store.shared, stored)?));
        }
        Ok(store)
    }

    /// The state as of now. It never changes under the caller.
    #[must_use]
    pub fn load(&self) -> Arc<State> {
        self.shared.state.load_full()
    }

    /// Makes one change, and returns the state that it leads to. With `expected`, only if the state is still that
    /// revision: give the revision of the state from which the change was made. Blocks for as long as the disk takes, and
    /// in a cluster for as long as etcd takes, 10 seconds at most.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Exists`] or [`Error::NotFound`] when the change does not fit the state;
    /// [`Error::Away`] or [`Error::Uncertain`] when etcd does not take it; the others when the disk does not take it.
    /// Nothing has changed then, unless it is uncertain.
    pub fn commit(&self, change: &Change, expected: Option<u64>) -> Result<Arc<State>, Error> {
        let _writer = self.writer();
        let (is_pending, is_member) = {
            let local = self.shared.local();
            (local.pending, local.mirror.is_some())
        };
        if is_pending {
            return Err(still_joining());
        }
        if is_member {
            let engine = self.engine().ok_or_else(|| Error::Away("this server is stopping".to_owned()))?;
            return self.shared.commit(&engine, change, expected);
        }
        let mut disk = self.shared.disk();
        let state = disk.commit(change, expected).inspect_err(|error| self.show_stored(&mut disk, error))?;
        self.shared.local().revision = state.revision;
        self.shared.show(state);
        Ok(self.load())
    }

    /// Tells of every change of the state, whoever made it: the number is the state's revision. Who is slow sees the last one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Tells why the copy beside the database is not as of the last change, while it is not.
    #[must_use]
    pub fn uncopied(&self) -> watch::Receiver<Option<String>> {
        self.shared.disk().uncopied()
    }

    /// Tries that copy once more where it could not be written; [`uncopied`](Self::uncopied) tells what came of it. Blocks for as
    /// long as the disk takes.
    ///
    /// # Errors
    /// When the database cannot be read, or was damaged since the start: it is not copied then.
    pub fn copy_again(&self) -> Result<(), Error> {
        self.shared.disk().copy_again()
    }

    /// As [`presence`](Self::presence), after what the members said of themselves last was read from etcd, where that answers
    /// within two seconds. Blocks for as long.
    #[must_use]
    pub fn cluster_presence(&self) -> Presence {
        if let (Some(engine), Ok(prefix)) = (self.engine(), self.shared.prefix()) {
            engine.block_on(async {
                let asking = async {
                    if let Some(client) = engine.link().await {
                        // What is known already is the answer then.
                        let _ = cluster::sync::ask_statuses(&self.shared, &prefix, &client).await;
                    }
                };
                let _ = tokio::time::timeout(ASK_LIMIT, asking).await;
            });
        }
        self.presence()
    }

    /// Who of the cluster is there now; empty for a server that is in none. What others said of themselves, version and
    /// instances, may be a minute old.
    #[must_use]
    pub fn presence(&self) -> Presence {
        self.shared.presence()
    }

    /// How the copy stands to etcd; nothing for a server that is in no cluster.
    #[must_use]
    pub fn sync_status(&self) -> Option<SyncStatus> {
        self.load().cluster.as_ref().map(|_| self.shared.sync_status())
    }

    /// Whether this server was about to become a member of a cluster, and etcd has not told yet how that went. Changes are
    /// refused meanwhile; leaving by force gives it up.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        self.shared.local().pending
    }

    /// Tells the other members what this one is; it may be called as often as one likes.
    pub fn cluster_report(&self, report: Report) {
        if let Some(engine) = self.engine() {
            engine.report(report);
        }
    }

    /// Tells the other members that this one is about to stop, within two seconds, and stops keeping in step. For who does not
    /// drop the store when the server ends.
    pub fn cluster_goodbye(&self) {
        self.set_engine(None);
    }

    /// After a failure of the disk: what is shown is what is stored, should the change have been made all the same.
    fn show_stored(&self, disk: &mut database::Database, error: &Error) {
        if !matches!(error, Error::Database { .. }) {
            return;
        }
        if let Ok(state) = disk.load()
            && state.revision != self.load().revision
        {
            self.shared.local().revision = state.revision;
            self.shared.show(state);
        }
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_engine(&self, engine: Option<Engine>) {
        let before = {
            let mut held = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *held, engine.map(Arc::new))
        };
        // Its end is waited for outside of the lock.
        if let Some(before) = before {
            before.stop();
        }
    }
}

#[cfg(test)]
mod tests;

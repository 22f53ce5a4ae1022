//! The SQLite side of the store: schema, reading everything, and one transaction a change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use rusqlite_migration::M;
use tokio::sync::watch;

use crate::certificate::{Certificate, CertificateType, ParsedCertificate};
use crate::config::Config;
use crate::token::SecretHash;
use crate::{Change, DeclaredProject, Error, State};

mod cluster;
mod copies;
mod digest;
mod opening;
mod tokens;

#[cfg(test)]
mod tests;

pub(crate) use cluster::{Whole, Write};
use digest::Seal;

/// What this program notes as its version in what it writes.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The schema, one step a version that changed it; steps are only ever added. A file of each of these schemas is in
/// `database/schemas`, as SQL, and has to be read for ever. The table `written` keeps its columns for ever, too: older versions
/// read there whose file they refuse. Each step after the fourth ends with `UPDATE written SET digest = NULL`, as the digest is of
/// the tables that were before it.
const STEPS: &[M<'_>] = &[
    M::up(
        "CREATE TABLE revision (only INTEGER PRIMARY KEY CHECK (only = 1), value INTEGER NOT NULL) STRICT;
     INSERT INTO revision VALUES (1, 0);
     CREATE TABLE config (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
     CREATE TABLE certificates (
         fingerprint TEXT PRIMARY KEY,
         der BLOB NOT NULL,
         type TEXT NOT NULL,
         name TEXT NOT NULL,
         description TEXT NOT NULL,
         restricted INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE certificate_projects (
         fingerprint TEXT NOT NULL REFERENCES certificates ON DELETE CASCADE,
         project TEXT NOT NULL,
         PRIMARY KEY (fingerprint, project)
     ) STRICT;
     CREATE TABLE projects (name TEXT PRIMARY KEY, description TEXT NOT NULL) STRICT;",
    ),
    M::up(
        "ALTER TABLE certificates ADD COLUMN token BLOB;
     CREATE TABLE join_tokens (
         id TEXT PRIMARY KEY,
         secret TEXT NOT NULL UNIQUE,
         name TEXT NOT NULL,
         description TEXT NOT NULL,
         type TEXT NOT NULL,
         restricted INTEGER NOT NULL,
         created_at INTEGER NOT NULL,
         expires_at INTEGER
     ) STRICT;
     CREATE TABLE join_token_projects (
         id TEXT NOT NULL REFERENCES join_tokens ON DELETE CASCADE,
         project TEXT NOT NULL,
         PRIMARY KEY (id, project)
     ) STRICT;",
    ),
    M::up(cluster::STEP),
    M::up(
        "CREATE TABLE written (only INTEGER PRIMARY KEY CHECK (only = 1), version TEXT NOT NULL, digest BLOB) STRICT;
     INSERT INTO written VALUES (1, '', NULL);",
    ),
];

/// An open database.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    file: PathBuf,
    path: String,
    /// Why the copy is not as of the last change, if it is not.
    uncopied: watch::Sender<Option<String>>,
}

impl Database {
    /// Opens the file, or makes it. What cannot be used stays as it is.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connection = opening::open(path)?;
        let mut database = Self {
            connection,
            file: path.to_owned(),
            path: path.display().to_string(),
            uncopied: watch::channel(None).0,
        };
        // All of it can be read, before it takes the place of the copy.
        let all = database.connection.transaction().and_then(|transaction| read(&transaction));
        all.map_err(|source| opening::unusable(path, source))?;
        if let Err(source) = digest::claim(&database.connection, VERSION) {
            // A disk that takes nothing is no reason not to serve what is there.
            tracing::warn!("{}: nothing can be written: {source}", database.path);
        }
        database.keep_copy();
        Ok(database)
    }

    pub(crate) fn load(&mut self) -> Result<State, Error> {
        let failed = failed(&self.path);
        let transaction = self.begin(TransactionBehavior::Deferred)?;
        read(&transaction).map_err(&failed)
    }

    pub(crate) fn commit(&mut self, change: &Change, expected: Option<u64>) -> Result<State, Error> {
        let failed = failed(&self.path);
        let transaction = self.begin(TransactionBehavior::Immediate)?;
        let found = read_revision(&transaction).map_err(&failed)?;
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(Error::Conflict { expected, found });
        }
        apply(&transaction, change).map_err(|refusal| match refusal {
            Refusal::Is(error) => error,
            Refusal::Sql(source) => failed(source),
        })?;
        transaction.execute("UPDATE revision SET value = value + 1", []).map_err(&failed)?;
        let state = read(&transaction).map_err(&failed)?;
        digest::seal(&transaction, VERSION).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        self.keep_copy();
        Ok(state)
    }

    /// Begins to read or to change what this program has stored, and nothing else: what was damaged since the start is not shown,
    /// does not become part of a new digest, and does not take the place of the copy.
    fn begin(&mut self, behavior: TransactionBehavior) -> Result<Transaction<'_>, Error> {
        let failed = failed(&self.path);
        let transaction = self.connection.transaction_with_behavior(behavior).map_err(&failed)?;
        match digest::check(&transaction).map_err(&failed)? {
            Seal::Broken => Err(opening::changed(&self.file)),
            Seal::Whole | Seal::Missing => Ok(transaction),
        }
    }

    /// Brings the copy beside the database up to date, so that it trusts nobody who is trusted no more. The change is made
    /// whether or not this succeeds; [`uncopied`](Self::uncopied) tells.
    fn keep_copy(&self) {
        let copy = copies::beside(&self.file, copies::BACKUP);
        let trouble = copies::write(&self.connection, &copy).err().map(|error| error.told(&copy));
        self.uncopied.send_if_modified(|told| {
            let is_news = *told != trouble;
            *told = trouble;
            is_news
        });
    }

    /// Tells why the copy is not as of the last change, while it is not.
    pub(crate) fn uncopied(&self) -> watch::Receiver<Option<String>> {
        self.uncopied.subscribe()
    }

    /// Tries the copy once more where it could not be written. What was damaged since is not copied.
    pub(crate) fn copy_again(&mut self) -> Result<(), Error> {
        if self.uncopied.borrow().is_some() {
            drop(self.begin(TransactionBehavior::Deferred)?);
            self.keep_copy();
        }
        Ok(())
    }
}

/// What SQLite's refusal is for who asked for something.
fn failed(path: &str) -> impl Fn(rusqlite::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Database { path: path.clone(), source }
}

/// Why a change was not made.
enum Refusal {
    Is(Error),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn apply(transaction: &Transaction<'_>, change: &Change) -> Result<(), Refusal> {
    match change {
        Change::Config(config) => cluster::write_values(transaction, config.values())?,
        Change::AddCertificate(certificate) => add_certificate(transaction, certificate)?,
        Change::UpdateCertificate(certificate) => {
            let fingerprint = certificate.certificate.fingerprint();
            let changed = transaction.execute(
                "UPDATE certificates SET type = ?2, name = ?3, description = ?4, restricted = ?5
                 WHERE fingerprint = ?1",
                params![
                    fingerprint,
                    certificate.certificate_type.as_str(),
                    certificate.name,
                    certificate.description,
                    certificate.projects.is_some(),
                ],
            )?;
            found(changed, || format!("certificate {fingerprint}"))?;
            set_projects(transaction, certificate)?;
        }
        Change::RemoveCertificate(fingerprint) => {
            let changed =
                transaction.execute("DELETE FROM certificates WHERE fingerprint = ?1", [fingerprint])?;
            found(changed, || format!("certificate {fingerprint}"))?;
        }
        Change::AddJoinToken(token) => tokens::add(transaction, token)?,
        Change::RemoveJoinToken(id) => {
            found(tokens::remove(transaction, id)?, || format!("join token {id}"))?
        }
        Change::Redeem(id, certificate) => {
            found(tokens::remove(transaction, id)?, || format!("join token {id}"))?;
            add_certificate(transaction, certificate)?;
        }
        Change::AddProject(name, project) => {
            let added = transaction.execute(
                "INSERT INTO projects (name, description) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                params![name, project.description],
            )?;
            if added == 0 {
                return Err(Refusal::Is(Error::Exists(format!("project {name}"))));
            }
        }
        Change::RemoveProject(name) => {
            let changed = transaction.execute("DELETE FROM projects WHERE name = ?1", [name])?;
            found(changed, || format!("project {name}"))?;
        }
        Change::ClusterCertificate(_) | Change::RemoveMember(_) => {
            return Err(Refusal::Is(Error::Refused("this server is in no cluster".to_owned())));
        }
    }
    Ok(())
}

fn add_certificate(transaction: &Transaction<'_>, certificate: &Certificate) -> Result<(), Refusal> {
    if write_certificate(transaction, certificate)? == 0 {
        let fingerprint = certificate.certificate.fingerprint();
        return Err(Refusal::Is(Error::Exists(format!("certificate {fingerprint}"))));
    }
    Ok(())
}

/// Adds an entry of the trust store; how many that are, as one that is there stays as it is.
fn write_certificate(transaction: &Transaction<'_>, certificate: &Certificate) -> rusqlite::Result<usize> {
    let fingerprint = certificate.certificate.fingerprint();
    let added = transaction.execute(
        "INSERT INTO certificates (fingerprint, der, type, name, description, restricted, token)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        params![
            fingerprint,
            certificate.certificate.der(),
            certificate.certificate_type.as_str(),
            certificate.name,
            certificate.description,
            certificate.projects.is_some(),
            certificate.token.as_ref().map(SecretHash::bytes),
        ],
    )?;
    if added > 0 {
        set_projects(transaction, certificate)?;
    }
    Ok(added)
}

fn found(changed: usize, what: impl FnOnce() -> String) -> Result<(), Refusal> {
    if changed == 0 { Err(Refusal::Is(Error::NotFound(what()))) } else { Ok(()) }
}

fn set_projects(transaction: &Transaction<'_>, certificate: &Certificate) -> rusqlite::Result<()> {
    let fingerprint = certificate.certificate.fingerprint();
    transaction.execute("DELETE FROM certificate_projects WHERE fingerprint = ?1", [fingerprint])?;
    let mut insert = transaction
        .prepare_cached("INSERT INTO certificate_projects (fingerprint, project) VALUES (?1, ?2)")?;
    for project in certificate.projects.iter().flatten() {
        insert.execute(params![fingerprint, project])?;
    }
    Ok(())
}

fn read_revision(transaction: &Transaction<'_>) -> rusqlite::Result<u64> {
    let revision: i64 = transaction.query_row("SELECT value FROM revision", [], |row| row.get(0))?;
    Ok(u64::try_from(revision).unwrap_or_default())
}

fn read(transaction: &Transaction<'_>) -> rusqlite::Result<State> {
    let revision = read_revision(transaction)?;

    let values = read_values(transaction)?;
    let mut query = transaction.prepare_cached("SELECT name, description FROM projects")?;
    let projects = query
        .query_map([], |row| Ok((row.get(0)?, DeclaredProject { description: row.get(1)? })))?
        .collect::<rusqlite::Result<BTreeMap<String, DeclaredProject>>>()?;

    let certificates = read_certificates(transaction)?;
    let join_tokens = tokens::read(transaction)?;
    Ok(State {
        revision,
        config: Config::restore(values),
        certificates,
        join_tokens,
        projects,
        cluster: None,
    })
}

fn read_values(transaction: &Transaction<'_>) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut query = transaction.prepare_cached("SELECT key, value FROM config")?;
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn read_certificates(transaction: &Transaction<'_>) -> rusqlite::Result<BTreeMap<String, Arc<Certificate>>> {
    let mut certificates = BTreeMap::new();
    let mut query = transaction
        .prepare_cached("SELECT der, type, name, description, restricted, token FROM certificates")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let der: Vec<u8> = row.get(0)?;
        let word: String = row.get(1)?;
        // What a newer version stored and this one does not know is trusted for nothing.
        let Some(certificate_type) = CertificateType::parse(&word) else {
            tracing::warn!("a certificate of unknown type '{word}' is not trusted");
            continue;
        };
        let token = match row.get::<_, Option<Vec<u8>>>(5)? {
            None => None,
            Some(hash) => match SecretHash::restore(&hash) {
                Some(hash) => Some(hash),
                None => {
                    tracing::warn!("a bearer token in the trust store is not trusted: its hash is damaged");
                    continue;
                }
            },
        };
        match ParsedCertificate::restore(&der) {
            Err(error) => tracing::warn!("a certificate in the trust store is not trusted: {error}"),
            Ok(certificate) => {
                let entry = Certificate {
                    name: row.get(2)?,
                    description: row.get(3)?,
                    certificate_type,
                    projects: row.get::<_, bool>(4)?.then(Default::default),
                    certificate,
                    token,
                };
                certificates.insert(entry.certificate.fingerprint().to_owned(), entry);
            }
        }
    }

    let mut query = transaction.prepare_cached("SELECT fingerprint, project FROM certificate_projects")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let fingerprint: String = row.get(0)?;
        // Projects of one that is not restricted are kept for the day when it is, but limit nothing.
        if let Some(projects) = certificates.get_mut(&fingerprint).and_then(|entry| entry.projects.as_mut()) {
            projects.insert(row.get(1)?);
        }
    }
    Ok(certificates.into_iter().map(|(fingerprint, entry)| (fingerprint, Arc::new(entry))).collect())
}

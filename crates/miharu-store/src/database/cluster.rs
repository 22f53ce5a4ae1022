//! The cluster in the database: who this member is, and the last known copy of what etcd holds.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

use super::{Database, VERSION, digest, failed, opening, read, read_revision, read_values};
use crate::cluster::EtcdAccess;
use crate::cluster::copy::Stored;
use crate::cluster::mirror::{Entry, Membership, Mirror, Row};
use crate::cluster::seal::SealKey;
use crate::{Error, State};

/// The tables of a cluster's member.
pub(super) const STEP: &str = "CREATE TABLE cluster (
         only INTEGER PRIMARY KEY CHECK (only = 1),
         id TEXT NOT NULL,
         member TEXT NOT NULL,
         member_id TEXT NOT NULL,
         access TEXT NOT NULL,
         seal BLOB NOT NULL,
         pending INTEGER NOT NULL,
         removed INTEGER NOT NULL,
         synced_at INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE cluster_copy (
         key TEXT PRIMARY KEY,
         value BLOB NOT NULL,
         created INTEGER NOT NULL,
         modified INTEGER NOT NULL
     ) STRICT;";

/// What becomes of the copy.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    /// Rows that change, in their order.
    pub(crate) rows: &'a [Row],
    /// Whether these rows are all that there is.
    pub(crate) whole: Whole,
    /// This member's own keys.
    pub(crate) own: &'a BTreeMap<String, String>,
    /// The revision of the state that this makes.
    pub(crate) revision: u64,
    /// When it was in step, in seconds since 1970.
    pub(crate) synced_at: i64,
    pub(crate) removed: bool,
}

/// Whether rows are added to what is there or take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    Added,
    Replaced,
}

impl Database {
    /// Who this member is, if it is one or was about to become one.
    pub(crate) fn membership(&mut self) -> Result<Option<Stored>, Error> {
        let found = self.within(|transaction| {
            let row = transaction
                .query_row(
                    "SELECT id, member, member_id, access, seal, pending, removed, synced_at FROM cluster",
                    [],
                    |row| {
                        Ok((
                            (row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?),
                            (row.get::<_, String>(3)?, row.get::<_, Vec<u8>>(4)?),
                            (row.get::<_, bool>(5)?, row.get::<_, bool>(6)?, row.get::<_, i64>(7)?),
                        ))
                    },
                )
                .optional()?;
            let Some(((cluster, member, member_id), (access, seal), (pending, removed, synced_at))) = row
            else {
                return Ok(None);
            };
            let access = EtcdAccess::from_json(&access);
            let (Ok(access), Some(seal)) = (access, SealKey::restore(&seal)) else {
                // Only this program writes it, so this is a damaged file.
                return Err(rusqlite::Error::InvalidQuery);
            };
            let membership = Membership {
                cluster,
                cluster_name: access.cluster_name().to_owned(),
                member,
                member_id,
                seal,
                prefix: access.prefix.clone(),
                endpoints: access.endpoints().to_vec(),
            };
            Ok(Some(Stored { membership, access, pending, removed, synced_at }))
        });
        found.map_err(|error| match error {
            // What is there and cannot be read stays so.
            Error::Database { source, .. } => opening::unusable(&self.file, source),
            other => other,
        })
    }

    /// The last known copy, and the revision and the own keys that belong to it.
    pub(crate) fn copy(&mut self, stored: &Stored) -> Result<(Mirror, u64, BTreeMap<String, String>), Error> {
        self.within(|transaction| {
            let mut mirror = Mirror::new(stored.membership.clone());
            let mut query = transaction.prepare("SELECT key, value, created, modified FROM cluster_copy")?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let entry = Entry { value: row.get(1)?, created: row.get(2)?, modified: row.get(3)? };
                mirror.apply(&row.get::<_, String>(0)?, Some(entry), 0);
            }
            mirror.removed = stored.removed;
            Ok((mirror, read_revision(transaction)?, read_values(transaction)?))
        })
    }

    /// Notes that this server is about to become a member. Until [`finish_joining`](Self::finish_joining) nothing else changes.
    pub(crate) fn begin_joining(&mut self, stored: &Stored) -> Result<(), Error> {
        let Stored { membership, access, .. } = stored;
        self.change(|transaction| {
            transaction.execute("DELETE FROM cluster_copy", [])?;
            transaction.execute(
                "INSERT OR REPLACE INTO cluster VALUES (1, ?1, ?2, ?3, ?4, ?5, 1, 0, 0)",
                params![
                    membership.cluster,
                    membership.member,
                    membership.member_id,
                    access.to_json(),
                    membership.seal.bytes()
                ],
            )?;
            Ok(())
        })
    }

    /// It did not become one.
    pub(crate) fn give_up_joining(&mut self) -> Result<(), Error> {
        self.change(|transaction| transaction.execute("DELETE FROM cluster WHERE pending = 1", []).map(drop))
    }

    /// It did: what it trusted until now is given up for what the cluster trusts.
    pub(crate) fn finish_joining(&mut self, rows: &[Row], synced_at: i64) -> Result<u64, Error> {
        self.change(|transaction| {
            transaction.execute_batch(
                "DELETE FROM certificate_projects; DELETE FROM certificates; DELETE FROM projects;
                 DELETE FROM join_token_projects; DELETE FROM join_tokens; DELETE FROM cluster_copy;",
            )?;
            let mut own = read_values(transaction)?;
            own.retain(|key, _| crate::cluster::is_member_key(key));
            write_values(transaction, &own)?;
            write_rows(transaction, rows)?;
            transaction
                .execute("UPDATE cluster SET pending = 0, removed = 0, synced_at = ?1", [synced_at])?;
            grow(transaction)
        })
    }

    /// Writes a change of the copy.
    pub(crate) fn write_copy(&mut self, write: &Write<'_>) -> Result<(), Error> {
        let is_another = self.within(|transaction| {
            if write.whole == Whole::Replaced {
                transaction.execute("DELETE FROM cluster_copy", [])?;
            }
            write_rows(transaction, write.rows)?;
            write_values(transaction, write.own)?;
            transaction.execute(
                "UPDATE cluster SET removed = ?1, synced_at = ?2",
                params![write.removed, write.synced_at],
            )?;
            let before = read_revision(transaction)?;
            let revision = i64::try_from(write.revision).unwrap_or(i64::MAX);
            transaction.execute("UPDATE revision SET value = ?1", [revision])?;
            digest::seal(transaction, VERSION)?;
            Ok(before != write.revision)
        })?;
        // Every minute it is noted that nothing has changed.
        if is_another {
            self.keep_copy();
        }
        Ok(())
    }

    /// The server is one of its own again, with this for its state.
    pub(crate) fn leave(&mut self, last: &State) -> Result<State, Error> {
        self.change(|transaction| {
            transaction.execute_batch("DELETE FROM cluster; DELETE FROM cluster_copy;")?;
            write_values(transaction, last.config.values())?;
            for certificate in last.certificates.values() {
                super::write_certificate(transaction, certificate)?;
            }
            for (name, project) in &last.projects {
                transaction.execute(
                    "INSERT OR REPLACE INTO projects (name, description) VALUES (?1, ?2)",
                    params![name, project.description],
                )?;
            }
            grow(transaction)?;
            read(transaction)
        })
    }

    /// Makes a change as one transaction, and brings the copy beside the database up to date.
    fn change<T>(&mut self, run: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, Error> {
        let result = self.within(|transaction| {
            let result = run(transaction)?;
            digest::seal(transaction, VERSION)?;
            Ok(result)
        })?;
        self.keep_copy();
        Ok(result)
    }

    /// Does something as one transaction.
    fn within<T>(&mut self, run: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, Error> {
        let failed = failed(&self.path);
        let transaction = self.begin(TransactionBehavior::Immediate)?;
        let result = run(&transaction).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        Ok(result)
    }
}

fn grow(transaction: &Transaction<'_>) -> rusqlite::Result<u64> {
    transaction.execute("UPDATE revision SET value = value + 1", [])?;
    read_revision(transaction)
}

pub(super) fn write_values(
    transaction: &Transaction<'_>,
    values: &BTreeMap<String, String>,
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM config", [])?;
    let mut insert = transaction.prepare_cached("INSERT INTO config (key, value) VALUES (?1, ?2)")?;
    for (key, value) in values {
        insert.execute(params![key, value])?;
    }
    Ok(())
}

fn write_rows(transaction: &Transaction<'_>, rows: &[Row]) -> rusqlite::Result<()> {
    let mut put = transaction.prepare_cached(
        "INSERT OR REPLACE INTO cluster_copy (key, value, created, modified) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut delete = transaction.prepare_cached("DELETE FROM cluster_copy WHERE key = ?1")?;
    for row in rows {
        match row {
            Row::Put(key, entry) => put.execute(params![key, entry.value, entry.created, entry.modified])?,
            Row::Delete(key) => delete.execute([key])?,
        };
    }
    Ok(())
}

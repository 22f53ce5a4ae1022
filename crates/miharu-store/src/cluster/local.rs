//! What a member has in memory beside the state, and what of it the database does not have yet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::client::Failure;
use super::copy::now;
use super::mirror::{Mirror, Row};
use crate::Error;
use crate::database::{Database, Whole, Write};

/// What is in memory beside the state.
#[derive(Debug)]
pub(crate) struct Local {
    /// Whether this server was about to become a member, and how that went is not known yet.
    pub(crate) pending: bool,
    /// In a cluster.
    pub(crate) mirror: Option<Mirror>,
    /// This member's own keys.
    pub(crate) own: BTreeMap<String, String>,
    pub(crate) revision: u64,
    /// Rows that the database has to get, and whether they are all.
    pub(super) rows: Vec<Row>,
    whole: Whole,
    pub(super) is_written: bool,
    pub(super) noted: Option<Instant>,
}

impl Local {
    /// As the database has it.
    pub(super) fn stored(
        pending: bool,
        mirror: Option<Mirror>,
        own: BTreeMap<String, String>,
        revision: u64,
    ) -> Self {
        Self {
            pending,
            mirror,
            own,
            revision,
            rows: Vec::new(),
            whole: Whole::Added,
            is_written: true,
            noted: None,
        }
    }

    /// Notes what has to be written.
    pub(super) fn owe(&mut self, rows: Vec<Row>, whole: Whole) {
        if whole == Whole::Replaced {
            self.rows.clear();
            self.whole = whole;
        }
        self.rows.extend(rows);
        self.is_written = false;
    }

    /// Writes what is owed; `age` after the copy was in step.
    pub(super) fn pay(&mut self, disk: &mut Database, age: Option<Duration>) -> Result<(), Failure> {
        let debt = self.debt(age);
        self.paid(debt.map_or(Ok(()), |debt| debt.write(disk)))
    }

    /// What is owed to the database, from now on by who asked.
    pub(super) fn debt(&mut self, age: Option<Duration>) -> Option<Debt> {
        let mirror = self.mirror.as_ref()?;
        self.is_written = true;
        Some(Debt {
            rows: std::mem::take(&mut self.rows),
            whole: std::mem::replace(&mut self.whole, Whole::Added),
            own: self.own.clone(),
            revision: self.revision,
            synced_at: now() - i64::try_from(age.map_or(0, |age| age.as_secs())).unwrap_or_default(),
            removed: mirror.removed,
        })
    }

    pub(super) fn paid(&mut self, result: Result<(), Error>) -> Result<(), Failure> {
        match result {
            Ok(()) => {
                self.noted = Some(Instant::now());
                Ok(())
            }
            Err(error) => {
                // All of it is read and stored again.
                if let Some(mirror) = self.mirror.as_mut() {
                    mirror.revision = 0;
                }
                Err(Failure::Unexpected(format!("the local copy could not be stored: {error}")))
            }
        }
    }
}

/// What the database has to get.
pub(super) struct Debt {
    rows: Vec<Row>,
    whole: Whole,
    own: BTreeMap<String, String>,
    revision: u64,
    synced_at: i64,
    removed: bool,
}

impl Debt {
    pub(super) fn write(&self, disk: &mut Database) -> Result<(), Error> {
        disk.write_copy(&Write {
            rows: &self.rows,
            whole: self.whole,
            own: &self.own,
            revision: self.revision,
            synced_at: self.synced_at,
            removed: self.removed,
        })
    }
}

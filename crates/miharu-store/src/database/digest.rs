//! A digest of everything that is stored. SQLite finds damage in what holds its pages together, and none in the values that
//! lie on them: a bit that falls over there could make a certificate's rights others.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

/// What is read for it, always in the same order. The schema is part of it, as it has rules of its own; but what SQLite makes
/// for itself, as its tools' `ANALYZE` does, says nothing of what is stored.
pub(super) const QUERIES: [&str; 10] = [
    "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND substr(name, 1, 7) != 'sqlite_' ORDER BY name",
    "SELECT only, value FROM revision ORDER BY only",
    "SELECT key, value FROM config ORDER BY key",
    "SELECT fingerprint, der, type, name, description, restricted, token FROM certificates ORDER BY fingerprint",
    "SELECT fingerprint, project FROM certificate_projects ORDER BY fingerprint, project",
    "SELECT name, description FROM projects ORDER BY name",
    "SELECT id, secret, name, description, type, restricted, created_at, expires_at FROM join_tokens ORDER BY id",
    "SELECT id, project FROM join_token_projects ORDER BY id, project",
    "SELECT only, id, member, member_id, access, seal, pending, removed, synced_at FROM cluster",
    "SELECT key, value, created, modified FROM cluster_copy ORDER BY key",
];

/// The digest of what the connection sees.
fn of(connection: &Connection) -> rusqlite::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    for query in QUERIES {
        // No table looks like the one before it with more rows.
        digest.update([0xff]);
        let mut statement = connection.prepare_cached(query)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                let (kind, bytes): (u8, &[u8]) = match row.get_ref(column)? {
                    ValueRef::Null => (0, &[]),
                    ValueRef::Integer(number) => {
                        digest.update([1]);
                        digest.update(number.to_be_bytes());
                        continue;
                    }
                    // No column holds one; if one does, it is told from others.
                    ValueRef::Real(number) => {
                        digest.update([2]);
                        digest.update(number.to_be_bytes());
                        continue;
                    }
                    ValueRef::Text(text) => (3, text),
                    ValueRef::Blob(bytes) => (4, bytes),
                };
                digest.update([kind]);
                digest.update((bytes.len() as u64).to_be_bytes());
                digest.update(bytes);
            }
        }
    }
    Ok(digest.finalize().into())
}

/// Whether what is stored is what was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seal {
    Whole,
    Broken,
    /// There is none: an older version wrote it, or somebody who changes it by hand took it away.
    Missing,
}

/// Notes what is stored as of now, and by which version. Part of every change.
pub(super) fn seal(connection: &Connection, version: &str) -> rusqlite::Result<()> {
    let digest = of(connection)?;
    connection.prepare_cached("UPDATE written SET version = ?1, digest = ?2")?.execute((version, digest))?;
    Ok(())
}

/// Makes what an older version wrote, or somebody by hand, this version's from now on.
pub(super) fn claim(connection: &Connection, version: &str) -> rusqlite::Result<()> {
    let (by, is_sealed) =
        connection.query_row("SELECT version, digest IS NOT NULL FROM written", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
        })?;
    if by == version && is_sealed { Ok(()) } else { seal(connection, version) }
}

/// Looks whether anything but this program has changed what is stored.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<Seal> {
    let row = connection.query_row("SELECT digest FROM written", [], |row| row.get::<_, Option<Vec<u8>>>(0));
    Ok(match row.optional()?.flatten() {
        None => Seal::Missing,
        Some(noted) if noted == of(connection)? => Seal::Whole,
        Some(_) => Seal::Broken,
    })
}

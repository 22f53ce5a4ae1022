//! Opening the database: what is there is looked at before anything is written, and what is of no use stays as it is.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::Migrations;

use super::digest::{self, Seal};
use super::{STEPS, VERSION, copies};
use crate::Error;

/// Opens the file, or makes it, and brings it to the schema of this version.
pub(super) fn open(path: &Path) -> Result<Connection, Error> {
    prepare(path)?;
    let reading = |source: rusqlite::Error| unusable(path, source);
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(reading)?;
    // EXTRA syncs the directory, too, once the journal is gone: after a power cut its name could be back, and the next start would
    // roll back a change that was acknowledged.
    connection.pragma_update(None, "synchronous", "EXTRA").map_err(reading)?;
    connection.pragma_update(None, "foreign_keys", "ON").map_err(reading)?;
    // The daemon writes nowhere but in its own directory, and SQLite's temporary files would be in /var/tmp.
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(reading)?;
    sound(&connection).map_err(reading)?.map_or(Ok(()), |what| Err(damaged(path, what)))?;

    let version = version(&connection).map_err(reading)?;
    let latest = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    is_ours(&connection, path, version)?;
    if version > latest {
        return Err(newer(&connection, path, version));
    }
    if version == latest && digest::check(&connection).map_err(reading)? == Seal::Broken {
        return Err(changed(path));
    }
    // A rollback journal with full synchronisation: whatever kills the daemon or the machine, the next start finds
    // the old state or the new one, in one file.
    connection.pragma_update(None, "journal_mode", "DELETE").map_err(reading)?;
    if version < latest {
        migrate(&mut connection, path, version)?;
    }
    Ok(connection)
}

/// Looks at the file itself, and makes it where there is none.
fn prepare(path: &Path) -> Result<(), Error> {
    let shown = || path.display().to_string();
    let there = match std::fs::metadata(path) {
        Ok(meta) => Some(meta),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(denied(path, None, error)),
    };
    if there.as_ref().is_some_and(|meta| !meta.is_file()) {
        let what = "it is not a regular file";
        return Err(Error::Unusable { path: shown(), what: what.to_owned(), advice: copies::advice(path) });
    }
    // One that is empty was cut short before anything was in it, unless there is a copy of what was.
    if there.as_ref().is_none_or(|meta| meta.len() == 0)
        && let Some(way_back) = copies::way_back(path, copies::BACKUP, "damaged")
    {
        let what = if there.is_some() { "it is empty, and was not" } else { "it is gone" };
        let copy = copies::beside(path, copies::BACKUP);
        let advice = format!(
            "{way_back}\nTo begin anew without any configuration and trust: rm {}",
            copies::word(&copy.display().to_string())
        );
        return Err(Error::Unusable { path: shown(), what: what.to_owned(), advice });
    }
    // The file holds who may see what: it is the daemon's alone from its first moment on, and SQLite gives its
    // journal the same mode.
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.and_then(|file| close_to_others(&file)).map_err(|error| denied(path, there.as_ref(), error))
}

fn close_to_others(file: &File) -> io::Result<()> {
    // Who is not the owner may not set the mode, and does not have to where it is right.
    if file.metadata()?.mode() & 0o777 == 0o600 {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(0o600))
}

fn denied(path: &Path, there: Option<&Metadata>, source: io::Error) -> Error {
    let shown = path.display().to_string();
    let quoted = copies::word(&shown);
    let dir = path.parent().unwrap_or(path).display();
    let advice = match source.kind() {
        io::ErrorKind::PermissionDenied => match there {
            Some(meta) => format!(
                "It belongs to user {} and group {} with mode {:o}; it has to belong to the user that miharud runs as, with \
                 mode 600: chown that user {quoted}; chmod 600 {quoted}",
                meta.uid(),
                meta.gid(),
                meta.mode() & 0o7777
            ),
            None => format!("The directory {dir} has to belong to the user that miharud runs as"),
        },
        io::ErrorKind::ReadOnlyFilesystem => {
            format!(
                "miharud has to write below {dir}: look why it is read-only (dmesg), and mount it read-write"
            )
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("Make room on the file system of {dir}")
        }
        _ => format!("miharud has to be able to write {shown}"),
    };
    Error::OutOfReach {
        path: shown,
        what: format!("it cannot be opened ({source})"),
        advice,
        kind: source.kind(),
    }
}

/// What SQLite finds wrong with what holds the file together.
fn sound(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then_some(found))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Another program's database gets none of our tables.
fn is_ours(connection: &Connection, path: &Path, version: i64) -> Result<(), Error> {
    let count = |query: &str| -> Result<i64, Error> {
        connection.query_row(query, [], |row| row.get(0)).map_err(|source| unusable(path, source))
    };
    let tables = count("SELECT count(*) FROM sqlite_schema")?;
    let ours =
        count("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('revision', 'config')")?;
    if version == 0 && tables == 0 || version > 0 && ours == 2 {
        return Ok(());
    }
    let what = "it is a database, but none of miharud's";
    Err(Error::Unusable {
        path: path.display().to_string(),
        what: what.to_owned(),
        advice: copies::advice(path),
    })
}

/// A newer version's, which says who that is.
fn newer(connection: &Connection, path: &Path, version: i64) -> Error {
    let by = connection
        .query_row("SELECT version FROM written", [], |row| row.get::<_, String>(0))
        .ok()
        .filter(|by| !by.is_empty() && by.len() <= 64 && !by.contains(char::is_control));
    if by.as_deref() == Some(VERSION) {
        // Nobody newer was there: it is the number that has changed.
        return damaged(path, format!("miharud {VERSION} wrote it, and knows no schema {version}"));
    }
    let by = by.map_or("a newer miharud".to_owned(), |by| format!("miharud {by}"));
    let before = (1..=STEPS.len()).rev().find_map(|old| copies::way_back(path, &copy_of(old), "newer"));
    let advice = match before {
        Some(way_back) => {
            format!("Install that version again, or go without what was changed since. {way_back}")
        }
        None => "Install that version again, or put a copy in its place that this one wrote".to_owned(),
    };
    Error::Unusable {
        path: path.display().to_string(),
        what: format!("{by} wrote it (schema {version}), and this is {VERSION} (schema {})", STEPS.len()),
        advice,
    }
}

/// The ending of the copy that is made before a file of an older schema is changed.
fn copy_of(version: impl std::fmt::Display) -> String {
    format!("schema{version}")
}

/// Makes the tables, or takes the file of an older version to this schema, with a copy of it as it was.
fn migrate(connection: &mut Connection, path: &Path, version: i64) -> Result<(), Error> {
    if version > 0 {
        let copy = copies::beside(path, &copy_of(version));
        copies::write(connection, &copy).map_err(|error| Error::OutOfReach {
            kind: error.kind(),
            path: path.display().to_string(),
            what: format!(
                "it is of an older version, and could not be copied to {} first ({error})",
                copy.display()
            ),
            advice: format!(
                "Make room, or let miharud write, in {}",
                path.parent().unwrap_or(path).display()
            ),
        })?;
        tracing::info!(copy = %copy.display(), "the database is of an older version, and was copied");
    }
    Migrations::from_slice(STEPS).to_latest(connection).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => unusable(path, err),
        other => damaged(path, other),
    })
}

/// Somebody or something else has changed what is stored.
pub(super) fn changed(path: &Path) -> Error {
    damaged(path, "its content is not what miharud stored")
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    let what = format!("it is damaged ({what}), and was left as it is");
    Error::Unusable { path: path.display().to_string(), what, advice: copies::advice(path) }
}

/// What SQLite's refusal means for who has to put it right.
pub(super) fn unusable(path: &Path, source: rusqlite::Error) -> Error {
    let of_the_file = !matches!(
        source.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure
                | ErrorCode::PermissionDenied
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::NoLargeFileSupport
        )
    );
    if of_the_file {
        damaged(path, source)
    } else {
        Error::Database { path: path.display().to_string(), source }
    }
}

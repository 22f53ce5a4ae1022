//! Copies of the database beside it, and how to go back to one: after each change the state as it was left, and before a
//! new version changes the schema the file as the old one wrote it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};
use time::OffsetDateTime;

/// What the copy as of the last change is called, after the database's own name.
pub(super) const BACKUP: &str = "backup";

/// The path of the database with a further ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Why there is no new copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCopy {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("its path is not UTF-8")]
    Path,
}

impl NoCopy {
    /// What the system says, in a word.
    pub(super) fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => io::ErrorKind::StorageFull,
                Some(ErrorCode::ReadOnly) => io::ErrorKind::ReadOnlyFilesystem,
                _ => io::ErrorKind::Other,
            },
            Self::Path => io::ErrorKind::InvalidFilename,
        }
    }

    /// What to do about it, for a copy of that name.
    fn advice(&self, copy: &Path) -> String {
        let in_the_way = [copy.to_owned(), beside(copy, "new")].into_iter().find(|path| path.is_dir());
        if let Some(path) = in_the_way {
            return format!("move the directory {} away", word(&path.display().to_string()));
        }
        let dir = copy.parent().unwrap_or(copy).display();
        match self.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("make room on the file system of {dir}")
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                format!("look why the file system of {dir} is read-only (dmesg)")
            }
            io::ErrorKind::PermissionDenied => {
                format!("{dir} has to belong to the user that miharud runs as")
            }
            _ => format!("look what is the matter with {dir}"),
        }
    }

    /// What happened, to what, and what to do.
    pub(super) fn told(&self, copy: &Path) -> String {
        format!(
            "{} cannot be written ({self}), so it may lack the last changes, and whoever goes back to it would trust whom these took \
             trust from: {}; it is tried again every minute",
            copy.display(),
            self.advice(copy)
        )
    }
}

/// Writes a whole copy of what is committed; what had that name stays until the new one is on the disk.
pub(super) fn write(connection: &Connection, to: &Path) -> Result<(), NoCopy> {
    let draft = beside(to, "new");
    // One left by a daemon that was killed here is of no worth.
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // SQLite takes an empty file, and leaves its mode alone.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = connection
        .execute("VACUUM INTO ?1", [draft.to_str().ok_or(NoCopy::Path)?])
        .map_err(NoCopy::from)
        .and_then(|_| Ok(file.sync_all()?))
        .and_then(|()| Ok(std::fs::rename(&draft, to)?));
    if let Err(error) = written {
        // A disk that is full wants its room back.
        let _ = std::fs::remove_file(&draft);
        return Err(error);
    }
    match to.parent() {
        Some(dir) => Ok(File::open(dir)?.sync_all()?),
        None => Ok(()),
    }
}

/// The way back to the copy of that ending, as commands that can be pasted; nothing where there is none.
/// What is there is put aside under `aside`.
pub(super) fn way_back(path: &Path, ending: &str, aside: &str) -> Option<String> {
    let copy = beside(path, ending);
    let meta = std::fs::metadata(&copy).ok().filter(|meta| meta.is_file() && meta.len() > 0)?;
    let at = meta.modified().map(OffsetDateTime::from).ok()?;
    let beside = |ending: &str| word(&format!("{}{ending}", path.display()));
    Some(format!(
        "To go back to the copy of {} {:02}:{:02} UTC, stop miharud and run: mv {path} {aside}; rm -f {} {} {}; cp -p {copy} {path}",
        at.date(),
        at.hour(),
        at.minute(),
        beside("-journal"),
        beside("-wal"),
        beside("-shm"),
        path = beside(""),
        aside = beside(&format!(".{aside}")),
        copy = word(&copy.display().to_string()),
    ))
}

/// One word for a shell, whatever is in it.
pub(super) fn word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@:".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What to do about a database that is of no use.
pub(super) fn advice(path: &Path) -> String {
    way_back(path, BACKUP, "damaged").unwrap_or_else(|| {
        let shown = path.display().to_string();
        format!(
            "There is no copy {shown}.{BACKUP}. Put a copy of your own in its place, or begin anew without any configuration \
             and trust: mv {} {}",
            word(&shown),
            word(&format!("{shown}.damaged"))
        )
    })
}

//! podman's state files: its database, which knows everything, and the storage library's list, which knows names and shows
//! by its change when one is given.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use miharu_linux::Roots;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde::Deserialize;

use super::bolt;
use crate::oci::files::{self, UsersPlace};

/// The longest database of a user's that is read, bytes; root's is not read whole.
const MAX_DATABASE: u64 = 64 << 20;

/// How long a writer is waited for.
const BUSY: Duration = Duration::from_millis(200);

/// What podman notes of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) name: String,
    /// The id of its pod.
    pub(super) pod: Option<String>,
    pub(super) labels: Option<HashMap<String, String>>,
    /// Whether it holds the namespaces of its pod.
    #[serde(rename = "pause")]
    pub(super) is_infra: bool,
    #[serde(rename = "rootfsImageName")]
    pub(super) image: Option<String>,
}

/// Whose files they are, and how they are opened.
#[derive(Debug)]
pub(super) enum Whose {
    System(Roots),
    /// A user's below the home directory: the host's path of that, and the place.
    User(PathBuf, UsersPlace),
}

impl Whose {
    fn open(&self, path: &Path) -> io::Result<File> {
        let elsewhere = || io::Error::other("it is not where it could be believed");
        match self {
            Self::System(roots) => files::open_systems(&roots.host_path(path).ok_or_else(elsewhere)?),
            Self::User(home, place) => place.open(path.strip_prefix(home).map_err(|_| elsewhere())?),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let elsewhere = || io::Error::other("it is not where it could be believed");
        match self {
            Self::System(roots) => files::read_systems(&roots.host_path(path).ok_or_else(elsewhere)?),
            Self::User(home, place) => place.read(path.strip_prefix(home).map_err(|_| elsewhere())?),
        }
    }

    /// The path of a file as this process sees it.
    pub(super) fn place(&self, path: &Path) -> Option<PathBuf> {
        match self {
            Self::System(roots) => roots.host_path(path),
            Self::User(home, place) => Some(place.path().join(path.strip_prefix(home).ok()?)),
        }
    }
}

/// What is known of a container, and the name of its pod.
pub(super) type Known = (Record, Option<String>);

/// What the database below the storage directory `root` tells of a container, and which file that is.
///
/// # Errors
/// Why it tells nothing, for people.
pub(super) fn look_up(whose: &Whose, root: &Path, id: &str) -> Result<(Known, PathBuf), String> {
    let mut problem = format!("there is no database of podman's in {}", root.display());
    for (name, kind) in
        [("db.sql", Kind::Sqlite), ("libpod/db.sql", Kind::Sqlite), ("libpod/bolt_state.db", Kind::Bolt)]
    {
        let path = root.join(name);
        let database = match Database::open(whose, &path, kind) {
            Ok(database) => database,
            Err(Trouble::Absent) => continue,
            Err(Trouble::Other(why)) => {
                problem = format!("{}: {why}", path.display());
                continue;
            }
        };
        match database.container(id) {
            Ok(Some(found)) => return Ok((found, path)),
            // After an upgrade the other kind may still lie there.
            Ok(None) => problem = format!("{} does not know it", path.display()),
            Err(why) => problem = format!("{}: {why}", path.display()),
        }
    }
    Err(problem)
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Sqlite,
    Bolt,
}

enum Database {
    Sqlite(Connection),
    Bolt(File),
}

enum Trouble {
    Absent,
    Other(String),
}

impl Database {
    fn open(whose: &Whose, path: &Path, kind: Kind) -> Result<Self, Trouble> {
        let other = |error: &dyn std::fmt::Display| Trouble::Other(error.to_string());
        let file = whose.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Trouble::Absent,
            _ => other(&error),
        })?;
        let connection = match (kind, whose) {
            (Kind::Bolt, _) => return Ok(Self::Bolt(file)),
            (Kind::Sqlite, Whose::System(roots)) => {
                let place = roots.host_path(path).ok_or(Trouble::Absent)?;
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
                    | OpenFlags::SQLITE_OPEN_NO_MUTEX
                    | OpenFlags::SQLITE_OPEN_NOFOLLOW;
                Connection::open_with_flags(place, flags).map_err(|e| other(&e))?
            }
            (Kind::Sqlite, Whose::User(..)) => of_memory(file).map_err(|e| other(&e))?,
        };
        connection.busy_timeout(BUSY).map_err(|e| other(&e))?;
        Ok(Self::Sqlite(connection))
    }

    /// A container, and the name of its pod.
    fn container(&self, id: &str) -> Result<Option<Known>, String> {
        let text = match self {
            Self::Sqlite(connection) => {
                row(connection, "SELECT JSON FROM ContainerConfig WHERE ID = ?1", id)?
            }
            Self::Bolt(file) => bolt_config(file, b"ctr", id)?,
        };
        let Some(text) = text else { return Ok(None) };
        let record: Record = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let pod = match &record.pod {
            Some(pod) if !pod.is_empty() => {
                Some(self.pod(pod)?.ok_or("it does not know the container's pod")?)
            }
            _ => None,
        };
        Ok(Some((record, pod)))
    }

    fn pod(&self, id: &str) -> Result<Option<String>, String> {
        let text = match self {
            Self::Sqlite(connection) => row(connection, "SELECT JSON FROM PodConfig WHERE ID = ?1", id)?,
            Self::Bolt(file) => bolt_config(file, b"pod", id)?,
        };
        let Some(text) = text else { return Ok(None) };
        let record: Record = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        Ok(Some(record.name))
    }
}

/// A user's database is read into memory as a whole: SQLite opens further files beside one that it opens by its name.
fn of_memory(mut file: File) -> Result<Connection, Box<dyn std::error::Error>> {
    let length = file.metadata()?.len();
    if length > MAX_DATABASE {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
    }
    let mut connection = Connection::open_in_memory()?;
    let bytes = file.by_ref().take(length);
    connection.deserialize_read_exact("main", bytes, usize::try_from(length)?, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

fn row(connection: &Connection, query: &str, id: &str) -> Result<Option<String>, String> {
    connection.query_row(query, [id], |row| row.get(0)).optional().map_err(|error| error.to_string())
}

fn bolt_config(file: &File, bucket: &[u8], id: &str) -> Result<Option<String>, String> {
    let value = bolt::get(file, &[bucket, id.as_bytes(), b"config"]).map_err(|error| error.to_string())?;
    value.map(String::from_utf8).transpose().map_err(|_| "it holds no text".to_owned())
}

/// An entry of the storage library's lists.
#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Stored {
    id: String,
    names: Option<Vec<String>>,
}

/// The files in which the storage library lists containers, in the directory of these: those that outlive the host's
/// boot, and those that need not.
pub(super) const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// The names of the containers in one of [`LISTS`].
///
/// # Errors
/// Where it cannot be read, or is not what it should be.
pub(super) fn names(whose: &Whose, list: &Path) -> io::Result<HashMap<String, String>> {
    parse_names(&whose.read(list)?)
}

fn parse_names(text: &[u8]) -> io::Result<HashMap<String, String>> {
    let stored: Vec<Stored> = serde_json::from_slice(text)?;
    let name = |entry: Stored| Some((entry.id, entry.names?.into_iter().next()?));
    Ok(stored.into_iter().filter_map(name).collect())
}

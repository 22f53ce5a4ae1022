//! podman's state files: its database, which knows everything, and the storage library's list, which knows names and shows
//! by its change when one is given.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use miharu_linux::Roots;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde::Deserialize;

use super::bolt;
use crate::docker::record::Image;
use crate::oci::files::{self, UsersFile, UsersPlace};
use crate::oci::names::Renames;

/// The longest database of a user's that is read, bytes; root's is not read whole.
const MAX_DATABASE: u64 = 64 << 20;

/// How long a question to it may take.
const QUERY: Duration = Duration::from_millis(500);

/// After so many steps of SQLite's machine the time is looked at.
const STEPS: i32 = 1000;

/// How long a writer is waited for.
const BUSY: Duration = Duration::from_millis(200);

/// What podman notes of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(super) name: String,
    /// The id of its pod.
    pub(super) pod: Option<String>,
    pub(super) labels: Option<HashMap<String, String>>,
    /// Whether it holds the namespaces of its pod.
    #[serde(rename = "pause")]
    pub(super) is_infra: bool,
    #[serde(rename = "rootfsImageID")]
    pub(super) image_id: Option<String>,
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

    /// How it shows that a file is written anew.
    pub(super) fn change(&self, path: &Path) -> Option<Renames> {
        match self {
            Self::System(roots) => roots.host_path(path).map(Renames::Change),
            Self::User(home, place) => {
                let relative = path.strip_prefix(home).ok()?.to_owned();
                Some(Renames::ChangeOfUsers(UsersFile { place: place.clone(), relative }))
            }
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
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
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
pub(crate) fn of_memory(mut file: File) -> Result<Connection, Box<dyn std::error::Error>> {
    let length = file.metadata()?.len();
    if length > MAX_DATABASE {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
    }
    let mut connection = Connection::open_in_memory()?;
    let bytes = file.by_ref().take(length);
    connection.deserialize_read_exact("main", bytes, usize::try_from(length)?, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // A table that was made for it can take for ever to look through.
    let begun = Instant::now();
    connection.progress_handler(STEPS, Some(move || begun.elapsed() >= QUERY))?;
    Ok(connection)
}

pub(crate) fn row(connection: &Connection, query: &str, id: &str) -> Result<Option<String>, String> {
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

/// The configuration of an image, which the storage of that directory of containers keeps beside them. Its own name there is
/// `sha256:ID`, and whatever has more than digits, small letters and points is written in base64.
pub(super) fn image(whose: &Whose, containers: &Path, id: &str) -> Option<Image> {
    let driver = containers.file_name()?.to_str()?.strip_suffix("-containers")?;
    let file = format!("={}", BASE64.encode(format!("sha256:{id}")));
    Image::parse(
        &whose.read(&containers.with_file_name(format!("{driver}-images")).join(id).join(file)).ok()?,
    )
}

pub(crate) fn parse_names(text: &[u8]) -> io::Result<HashMap<String, String>> {
    let stored: Vec<Stored> = serde_json::from_slice(text)?;
    let name = |entry: Stored| Some((entry.id, entry.names?.into_iter().next()?));
    Ok(stored.into_iter().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_storages_list() {
        let text = br#"[{"id":"a","names":["one","x"],"metadata":"{}"},{"id":"b","names":null},{"id":"c"}]"#;
        assert_eq!(parse_names(text).unwrap(), HashMap::from([("a".to_owned(), "one".to_owned())]));
        assert!(parse_names(b"{}").is_err() && parse_names(b"").is_err());
    }

    #[test]
    fn a_users_database_is_read_from_memory() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("db.sql");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE ContainerConfig(ID TEXT, JSON TEXT); INSERT INTO ContainerConfig \
            VALUES('a', '{\"name\":\"web\",\"pod\":\"p\"}'), ('b', x'00'), ('c', 'x'), ('d', '{\"name\":\"db\"}')").unwrap();
        drop(connection);
        let own = rustix::process::geteuid().as_raw();
        let whose = Whose::User("/home/ann".into(), UsersPlace::new(base.path().to_owned(), own));
        let look = |id: &str| look_up(&whose, Path::new("/home/ann"), id);
        assert_eq!(look("d").unwrap().0.0.name, "db");
        assert_eq!(look("d").unwrap().1, Path::new("/home/ann/db.sql"));
        assert!(look("a").unwrap_err().contains("PodConfig"), "it has no such table");
        for (id, problem) in
            [("b", "Invalid column type"), ("c", "expected value"), ("z", "does not know it")]
        {
            assert!(look(id).unwrap_err().contains(problem), "{:?}", look(id));
        }
        assert!(look_up(&whose, Path::new("/var/lib"), "d").unwrap_err().contains("believed"));
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "DROP TABLE ContainerConfig; CREATE VIEW ContainerConfig AS WITH RECURSIVE n(ID) AS \
            (SELECT 0 UNION ALL SELECT ID + 1 FROM n) SELECT ID, 'x' AS JSON FROM n",
            )
            .unwrap();
        drop(connection);
        let begun = Instant::now();
        assert!(look("d").is_err(), "a view could count for ever");
        assert!(begun.elapsed() < QUERY * 40);
        for text in [&b""[..], b"rubbish", &[b'x'; 5000]] {
            std::fs::write(&path, text).unwrap();
            assert!(look("d").is_err());
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..200), json in "[\\[{\"a-z:,}\\]]{0,60}") {
            let _ = parse_names(&text);
            let _ = parse_names(json.as_bytes());
            let _ = serde_json::from_str::<Record>(&json);
        }
    }
}

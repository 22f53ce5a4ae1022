//! Files of every schema are read, and files that are damaged, foreign or newer are refused, left as they are, and there is a
//! way back.

use std::os::unix::fs::PermissionsExt;
use std::process::ExitStatus;

use proptest::prelude::*;
use rusqlite_migration::Migrations;

use super::*;
use crate::DeclaredProject;

/// A file of each schema, as SQL; the first is schema 1.
const SCHEMAS: [&str; 4] = [
    include_str!("schemas/1.sql"),
    include_str!("schemas/2.sql"),
    include_str!("schemas/3.sql"),
    include_str!("schemas/4.sql"),
];

/// A folder with a database in it, as SQL says.
struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn of(sql: &str) -> Self {
        let folder = Self::new();
        Connection::open(folder.path()).unwrap().execute_batch(sql).unwrap();
        folder
    }

    /// One that this version has written, with its copy.
    fn current() -> Self {
        let folder = Self::of(SCHEMAS[3]);
        folder.open().unwrap();
        folder
    }

    /// In a folder whose name a shell would take for several words.
    fn path(&self) -> PathBuf {
        let dir = self.dir.path().join("it's; here");
        std::fs::create_dir_all(&dir).unwrap();
        dir.join("miharu.db")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        copies::beside(&self.path(), ending)
    }

    fn open(&self) -> Result<Database, Error> {
        Database::open(&self.path())
    }

    fn state(&self) -> State {
        self.open().unwrap().load().unwrap()
    }

    /// Opens it in vain; what it says, and that the file is what it was.
    fn refused(&self) -> String {
        let before = std::fs::read(self.path()).ok();
        let error = self.open().expect_err("it is of no use").to_string();
        assert_eq!(std::fs::read(self.path()).ok(), before, "it was left as it is");
        assert!(error.starts_with(&self.path().display().to_string()), "{error}");
        error
    }

    /// Does what an error tells to do.
    fn go_back(&self, error: &str) {
        let commands = error.split_once("stop miharud and run: ").expect(error).1;
        assert!(shell(commands.lines().next().unwrap()).success(), "{error}");
    }
}

#[allow(clippy::disallowed_methods, reason = "the commands of an error are tried as they stand there")]
fn shell(commands: &str) -> ExitStatus {
    std::process::Command::new("sh").args(["-ec", commands]).status().unwrap()
}

fn set(state: &State, key: &str, value: &str) -> Change {
    let values = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    Change::Config(state.config.merge(&values).unwrap())
}

/// What is stored, to be compared.
fn told(state: &State) -> String {
    format!("{:?} {:?} {:?} {:?}", state.config, state.certificates, state.join_tokens, state.projects)
}

#[test]
fn a_file_of_every_schema_keeps_what_it_holds_and_a_copy_of_what_it_was() {
    assert_eq!(SCHEMAS.len(), STEPS.len(), "a new schema needs a file of its own in database/schemas");
    for (old, sql) in (1..).zip(SCHEMAS) {
        let folder = Folder::of(sql);
        if (4..STEPS.len()).contains(&old) {
            // What it noted is of other tables than there are afterwards, whatever it was.
            Connection::open(folder.path())
                .unwrap()
                .execute("UPDATE written SET digest = x'00'", [])
                .unwrap();
        }
        let state = folder.state();
        assert_eq!(state.revision, 7);
        assert!(state.config.settings().prefix_lxd);
        assert_eq!(state.config.get("user.note"), "h\u{f6}st's;");
        assert_eq!(state.config.get("core.metrics_address"), "127.0.0.1:9100");
        let entry = state.certificates.values().next().unwrap();
        assert_eq!((entry.name.as_str(), entry.description.as_str()), ("prom", "of the shop"));
        assert_eq!(entry.projects.iter().flatten().collect::<Vec<_>>(), ["docker/shop", "lxc"]);
        assert_eq!(state.projects["docker/shop"].description, "the shop");
        assert_eq!(state.join_tokens.contains_key("0b7a"), old >= 2);
        let copy = folder.beside(&format!("schema{old}"));
        assert_eq!(copy.exists(), old < STEPS.len(), "schema {old}");
        if old < STEPS.len() {
            assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
            let version: usize = Connection::open(copy)
                .unwrap()
                .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
                .unwrap()
                .try_into()
                .unwrap();
            assert_eq!(version, old);
        }
    }
}

#[test]
fn the_files_of_the_schemas_have_those_schemas() {
    let schema = |connection: &Connection| -> Vec<(String, String)> {
        let mut query = connection
            .prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
            .unwrap();
        let rows = query.query_map([], |row| {
            let sql: String = row.get(1)?;
            Ok((row.get(0)?, sql.split_whitespace().collect::<Vec<_>>().join(" ")))
        });
        rows.unwrap().map(Result::unwrap).collect()
    };
    for (version, sql) in (1..).zip(SCHEMAS) {
        let (from_file, mut from_steps) =
            (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
        from_file.execute_batch(sql).unwrap();
        Migrations::from_slice(&STEPS[..version]).to_latest(&mut from_steps).unwrap();
        assert_eq!(schema(&from_file), schema(&from_steps), "schema {version}");
    }
}

#[test]
fn every_column_is_part_of_the_digest() {
    let folder = Folder::current();
    let connection = Connection::open(folder.path()).unwrap();
    let mut query = connection
        .prepare(
            "SELECT tables.name, columns.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
             WHERE tables.type = 'table' AND tables.name != 'written'",
        )
        .unwrap();
    let columns = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let columns: Vec<(String, String)> = columns.map(Result::unwrap).collect();
    assert!(columns.len() > 30);
    for (table, column) in columns {
        let from = format!(" FROM {table}");
        let read = digest::QUERIES.iter().find_map(|query| {
            let (columns, rest) = query.strip_prefix("SELECT ")?.split_once(&from)?;
            (rest.is_empty() || rest.starts_with(' ')).then(|| columns.split(", ").collect::<Vec<_>>())
        });
        assert!(read.is_some_and(|read| read.contains(&column.as_str())), "{table}.{column}");
    }
}

#[test]
fn a_newer_file_is_refused_and_names_who_wrote_it() {
    let folder = Folder::of(SCHEMAS[2]);
    folder.open().unwrap();
    Connection::open(folder.path())
        .unwrap()
        .execute_batch("UPDATE written SET version = '9.1.0'; CREATE TABLE more (x); PRAGMA user_version = 5")
        .unwrap();
    let error = folder.refused();
    assert!(error.contains("miharud 9.1.0 wrote it (schema 5)"), "{error}");
    assert!(error.contains(&format!("this is {VERSION} (schema 4)")), "{error}");
    // The copy that was made before the schema changed is of use to this version.
    folder.go_back(&error);
    assert_eq!(folder.state().revision, 7);

    Connection::open(folder.path())
        .unwrap()
        .execute_batch("DROP TABLE written; PRAGMA user_version = 99")
        .unwrap();
    std::fs::remove_file(folder.beside("schema3")).unwrap();
    let error = folder.refused();
    assert!(
        error.contains("a newer miharud wrote it (schema 99)") && error.contains("Install that version"),
        "{error}"
    );
}

#[test]
fn a_schema_that_is_none_of_the_version_that_wrote_it_is_damage() {
    let folder = Folder::current();
    let before = told(&folder.state());
    Connection::open(folder.path()).unwrap().pragma_update(None, "user_version", 65_540).unwrap();
    let error = folder.refused();
    assert!(error.contains("it is damaged") && !error.contains("Install that version"), "{error}");
    folder.go_back(&error);
    assert_eq!(told(&folder.state()), before);
}

#[test]
fn another_programs_database_is_left_alone() {
    for sql in [
        "CREATE TABLE bookmarks (x)",
        "CREATE TABLE bookmarks (x); PRAGMA user_version = 2",
        "PRAGMA user_version = 3",
        "CREATE TABLE config (x); PRAGMA user_version = 77",
    ] {
        let error = Folder::of(sql).refused();
        assert!(error.contains("none of miharud's"), "{sql}: {error}");
        assert!(error.contains("There is no copy"), "{sql}: {error}");
    }
}

#[test]
fn the_copy_is_as_of_the_last_change_and_brings_it_back() {
    let folder = Folder::new();
    let mut database = folder.open().unwrap();
    let state = database.load().unwrap();
    database.commit(&set(&state, "user.a", "1"), None).unwrap();
    let project = Change::AddProject("x".to_owned(), DeclaredProject::default());
    database.commit(&project, None).unwrap();
    drop(database);
    let copy = folder.beside("backup");
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let before = folder.state();
    assert_eq!(before.revision, 2);

    type Damage = fn(&Path, &[u8]);
    let kinds: [(&str, &str, Damage); 8] = [
        ("cut in half", "damaged", |path, bytes| std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap()),
        ("cut within a page", "damaged", |path, bytes| {
            std::fs::write(path, &bytes[..bytes.len() - 700]).unwrap();
        }),
        ("a header of zeros", "damaged", |path, bytes| {
            let mut bytes = bytes.to_vec();
            bytes[..100].fill(0);
            std::fs::write(path, bytes).unwrap();
        }),
        ("all zeros", "damaged", |path, bytes| std::fs::write(path, vec![0; bytes.len()]).unwrap()),
        ("text", "damaged", |path, _| {
            std::fs::write(path, "[server]\naddress = :8444\n".repeat(99)).unwrap()
        }),
        ("empty", "it is empty", |path, _| std::fs::write(path, "").unwrap()),
        ("gone", "it is gone", |path, _| std::fs::remove_file(path).unwrap()),
        ("a value changed", "not what miharud stored", |path, _| {
            let connection = Connection::open(path).unwrap();
            connection.execute_batch("UPDATE config SET value = '2'").unwrap();
        }),
    ];
    for (kind, words, damage) in kinds {
        let bytes = std::fs::read(folder.path()).unwrap();
        damage(&folder.path(), &bytes);
        let error = folder.refused();
        assert!(error.contains(words), "{kind}: {error}");
        if kind == "gone" {
            std::fs::copy(&copy, folder.path()).unwrap();
        } else {
            folder.go_back(&error);
            assert!(folder.beside("damaged").exists(), "{kind}: the damaged file is kept");
        }
        let state = folder.state();
        assert_eq!((told(&state), state.revision), (told(&before), before.revision), "{kind}");
    }
}

#[test]
fn damage_while_it_is_open_is_neither_sealed_nor_copied() {
    type Damage = fn(&Path, &Database);
    let kinds: [(&str, Damage); 2] = [
        ("by another program", |path, _| {
            Connection::open(path).unwrap().execute("UPDATE certificates SET restricted = 0", []).unwrap();
        }),
        ("on the disk", |path, database| {
            let mut bytes = std::fs::read(path).unwrap();
            let is_there = |at: &usize| bytes[*at..].starts_with(b"docker/shop");
            let places: Vec<usize> = (0..bytes.len()).filter(is_there).collect();
            assert!(!places.is_empty());
            places.into_iter().for_each(|at| bytes[at] ^= 1);
            std::fs::write(path, bytes).unwrap();
            // SQLite keeps what it has read; that it reads anew has other causes as well.
            database.connection.execute_batch("PRAGMA shrink_memory").unwrap();
        }),
    ];
    for (kind, damage) in kinds {
        let folder = Folder::current();
        let mut database = folder.open().unwrap();
        let before = database.load().unwrap();
        damage(&folder.path(), &database);
        let files = || [folder.path(), folder.beside("backup")].map(|path| std::fs::read(path).unwrap());
        let left = files();
        let change = set(&before, "user.a", "1");
        let refusals = [
            database.commit(&change, None).map(drop),
            database.give_up_joining(),
            database.leave(&before).map(drop),
            database.load().map(drop),
        ];
        for refusal in refusals {
            let error = refusal.expect_err(kind).to_string();
            assert!(error.contains("not what miharud stored") && error.contains("stop miharud"), "{error}");
        }
        assert!(files() == left, "{kind}: both were left as they are");
        drop(database);
        folder.go_back(&folder.refused());
        let state = folder.state();
        assert_eq!((told(&state), state.revision), (told(&before), before.revision), "{kind}");
    }
}

#[test]
fn what_is_no_file_is_refused_and_left() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path()).unwrap();
    let error = folder.open().unwrap_err().to_string();
    assert!(error.contains("not a regular file") && error.contains("mv "), "{error}");
    assert!(folder.path().is_dir());
}

#[test]
fn who_changes_it_by_hand_can_say_so() {
    let folder = Folder::current();
    let connection = Connection::open(folder.path()).unwrap();
    connection.execute_batch("DELETE FROM config WHERE key = 'core.metrics_address'").unwrap();
    assert!(folder.refused().contains("not what miharud stored"));
    connection.execute_batch("UPDATE written SET digest = NULL").unwrap();
    assert_eq!(folder.state().config.get("core.metrics_address"), "");
    assert_eq!(digest::check(&connection).unwrap(), Seal::Whole);
}

#[test]
fn what_lies_beside_it_does_no_harm() {
    let noise = [0xa5_u8; 5000];
    let journal = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    for (ending, content) in [
        ("-journal", &noise[..]),
        ("-journal", &journal[..]),
        ("-journal", &[]),
        ("-wal", &noise[..]),
        ("-wal", &[]),
        ("-shm", &noise[..]),
        (".backup.new", &noise[..]),
        (".backup", &noise[..]),
    ] {
        let folder = Folder::current();
        let before = told(&folder.state());
        std::fs::write(format!("{}{ending}", folder.path().display()), content).unwrap();
        assert_eq!(told(&folder.state()), before, "{ending}");
        // And what is committed then is there.
        let mut database = folder.open().unwrap();
        let state = database.load().unwrap();
        database.commit(&set(&state, "user.a", "1"), None).unwrap();
        drop(database);
        assert_eq!(folder.state().config.get("user.a"), "1", "{ending}");
    }
    // Somebody has looked at it with a tool that keeps a log beside it.
    let folder = Folder::current();
    let before = told(&folder.state());
    let other = Connection::open(folder.path()).unwrap();
    other.pragma_update(None, "journal_mode", "WAL").unwrap();
    drop(other);
    assert_eq!(told(&folder.state()), before);
}

#[test]
fn what_a_tool_notes_for_itself_is_no_damage() {
    for tool in ["ANALYZE", "VACUUM", "REINDEX", "PRAGMA optimize = 0x10002", "PRAGMA integrity_check"] {
        let folder = Folder::current();
        let mut running = folder.open().unwrap();
        let state = running.load().unwrap();
        Connection::open(folder.path()).unwrap().execute_batch(tool).unwrap();
        running.commit(&set(&state, "user.a", "1"), None).expect(tool);
        drop(running);
        assert_eq!(folder.state().config.get("user.a"), "1", "{tool}");
    }
    // What has rules of its own is one that somebody made.
    let folder = Folder::current();
    let rule = "CREATE TRIGGER sqlitelike AFTER INSERT ON config BEGIN DELETE FROM projects; END";
    Connection::open(folder.path()).unwrap().execute_batch(rule).unwrap();
    assert!(folder.refused().contains("not what miharud stored"));
}

#[test]
fn a_copy_that_cannot_be_written_holds_no_change_up() {
    let folder = Folder::current();
    std::fs::remove_file(folder.beside("backup")).unwrap();
    std::fs::create_dir(folder.beside("backup")).unwrap();
    let mut database = folder.open().unwrap();
    let state = database.load().unwrap();
    database.commit(&set(&state, "user.a", "1"), None).unwrap();
    drop(database);
    assert_eq!(folder.state().config.get("user.a"), "1");
    assert!(!folder.beside("backup.new").exists());
}

/// Each of them opens a file and waits for the disk, so that there are fewer than of others unless somebody asks for more.
fn few() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(60))
}

proptest! {
    #![proptest_config(few())]

    /// Whatever bytes of the file become others, it is refused, or nothing that is stored has changed.
    #[test]
    fn bytes_that_change_are_noticed(changes in proptest::collection::vec((any::<proptest::sample::Index>(), 1_u8..), 1..4)) {
        thread_local! {
            static CURRENT: (Vec<u8>, String) = {
                let folder = Folder::current();
                let told = told(&folder.state());
                (std::fs::read(folder.path()).unwrap(), told)
            };
        }
        let (mut bytes, before) = CURRENT.with(Clone::clone);
        for (at, by) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= by;
        }
        let folder = Folder::new();
        std::fs::write(folder.path(), &bytes).unwrap();
        match folder.open() {
            Ok(mut database) => prop_assert_eq!(told(&database.load().unwrap()), before),
            Err(error) => {
                prop_assert!(error.to_string().contains("miharu.db: it"), "{}", error);
                prop_assert_eq!(std::fs::read(folder.path()).unwrap(), bytes);
            }
        }
    }
}

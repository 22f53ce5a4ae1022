//! A state directory in disorder: each is refused with what is wrong with which file, and what to do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use miharu_e2e::{Miharud, need, scratch};

use crate::{LASTS, gives_up};

/// A user that has nothing and may nothing.
const NOBODY: u32 = 65534;

/// What becomes that user's program.
fn as_nobody() -> Command {
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args([
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]);
    command
}

/// A directory that a daemon has made and used, and left in good order.
fn used() -> Result<std::path::PathBuf> {
    let dir = scratch::dir("files")?;
    let daemon = Miharud::in_dir(&dir, &[])?;
    daemon.miharu(&["config", "set", "user.word", "kept"])?;
    daemon.stop()?;
    Ok(dir)
}

fn copy(from: &Path) -> Result<std::path::PathBuf> {
    let to = scratch::dir("files")?;
    miharu_e2e::shell::run("cp", ["-a".as_ref(), from.join(".").as_os_str(), to.as_os_str()])?;
    Ok(to)
}

fn word(dir: &Path) -> Result<String> {
    let daemon = Miharud::in_dir(dir, &[])?;
    let word = daemon.miharu(&["config", "get", "user.word"])?;
    daemon.stop()?;
    Ok(word.trim().to_owned())
}

/// Damages a copy, and looks what is said of it.
type Case = (&'static str, &'static [&'static str], fn(&Path) -> Result<()>);

const CASES: &[Case] = &[
    ("the database cut short", &["miharu.db: it is damaged", "cp -p", "miharu.db.backup"], |dir| {
        let bytes = fs::read(dir.join("miharu.db"))?;
        Ok(fs::write(dir.join("miharu.db"), &bytes[..bytes.len() / 2])?)
    }),
    ("the database gone", &["miharu.db: it is gone", "cp -p"], |dir| {
        Ok(fs::remove_file(dir.join("miharu.db"))?)
    }),
    ("a directory for a database", &["miharu.db: it is not a regular file"], |dir| {
        fs::remove_file(dir.join("miharu.db"))?;
        Ok(fs::create_dir(dir.join("miharu.db"))?)
    }),
    ("a link to nowhere for a database", &["miharu.db: it is gone"], |dir| {
        fs::remove_file(dir.join("miharu.db"))?;
        Ok(symlink("/nowhere/at/all", dir.join("miharu.db"))?)
    }),
    ("a key gone", &["server.crt is there but", "server.key is not", "put the key back"], |dir| {
        Ok(fs::remove_file(dir.join("server.key"))?)
    }),
    ("another's key", &["server.key", "the key is not the certificate's", "put"], |dir| {
        let other = scratch::dir("other")?;
        Miharud::in_dir(&other, &[])?.stop()?;
        fs::copy(other.join("server.key"), dir.join("server.key"))?;
        Ok(())
    }),
    ("an empty key", &["server.key", "no private key in PEM form"], |dir| {
        Ok(fs::write(dir.join("server.key"), "")?)
    }),
    ("an empty certificate", &["server.crt", "no certificate in PEM form"], |dir| {
        Ok(fs::write(dir.join("server.crt"), "")?)
    }),
    ("noise for a certificate", &["server.crt", "no certificate in PEM form"], |dir| {
        Ok(fs::write(dir.join("server.crt"), [0xa5; 9000])?)
    }),
    ("a directory for a certificate", &["server.crt", "directory"], |dir| {
        fs::remove_file(dir.join("server.crt"))?;
        Ok(fs::create_dir(dir.join("server.crt"))?)
    }),
    ("a file for a socket", &["unix.socket", "not a socket"], |dir| {
        Ok(fs::write(dir.join("unix.socket"), "x")?)
    }),
];

#[test]
fn what_is_in_disorder_is_named_and_left_alone() -> Result<()> {
    let good = used()?;
    for (case, words, damage) in CASES {
        let dir = copy(&good)?;
        damage(&dir).context(*case)?;
        let before = lasting(&dir)?;
        let said = gives_up(Command::new("env"), &dir, LASTS).context(*case)?;
        for word in *words {
            ensure!(said.contains(word), "{case}: '{word}' is not in: {said}");
        }
        let after = lasting(&dir)?;
        ensure!(before == after, "{case}: of {:?} became {:?}", before.keys(), after.keys());
    }
    assert_eq!(word(&good)?, "kept");
    Ok(())
}

/// What is in a state directory to stay, by its name: mode and contents of a file, and where a link leads.
fn lasting(dir: &Path) -> Result<BTreeMap<OsString, (u32, Vec<u8>)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let kind = metadata.file_type();
        let contents = if kind.is_file() {
            fs::read(entry.path())?
        } else if kind.is_symlink() {
            fs::read_link(entry.path())?.into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        if !kind.is_socket() {
            found.insert(entry.file_name(), (metadata.mode(), contents));
        }
    }
    Ok(found)
}

#[test]
fn files_of_another_user_are_named_with_their_owner() -> Result<()> {
    need!(Containers);
    let good = used()?;
    let owned = |what: &str, path: &dyn Fn(&Path) -> std::path::PathBuf, words: &[&str]| -> Result<()> {
        let dir = copy(&good)?;
        miharu_e2e::shell::run("chown", ["-R", &format!("{NOBODY}:{NOBODY}"), &dir.display().to_string()])?;
        chown(path(&dir), Some(0), Some(0))?;
        fs::set_permissions(dir.join("server.key"), fs::Permissions::from_mode(0o600))?;
        let said = gives_up(as_nobody(), &dir, LASTS).context(what.to_owned())?;
        for word in words {
            ensure!(said.contains(word), "{what}: '{word}' is not in: {said}");
        }
        Ok(())
    };
    owned(
        "database",
        &|dir| dir.join("miharu.db"),
        &[
            "miharu.db: it cannot be opened (Permission denied",
            "belongs to user 0 and group 0 with mode 600",
            "chown",
        ],
    )?;
    owned("key", &|dir| dir.join("server.key"), &["server.key", "Permission denied", "chown"])?;
    owned("directory", &Path::to_owned, &["unix.socket", "Permission denied", "has to belong"])?;

    // What others could read is told of.
    let dir = copy(&good)?;
    fs::set_permissions(dir.join("server.key"), fs::Permissions::from_mode(0o644))?;
    fs::set_permissions(dir.join("miharu.db"), fs::Permissions::from_mode(0o666))?;
    let daemon = Miharud::in_dir(&dir, &[])?;
    let mode = fs::metadata(dir.join("miharu.db"))?.permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "the database is closed to others");
    ensure!(daemon.log().contains("server.key can be read by every user"), "{}", daemon.log());
    daemon.stop()
}

//! The daemon's state directory: made on the first start, locked while the daemon runs.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;

use crate::ends::Lasts as _;

/// The directory, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    _lock: File,
}

impl StateDir {
    /// Makes the directory where it is missing, with mode 0711 so that the socket's group can reach the socket, and locks
    /// it: two daemons on one state would each undo what the other does.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let cannot_be = |done: &str| {
            let path = path.display();
            format!(
                "{path}: the state directory cannot be {done} (run as root, or name another one with --dir)"
            )
        };
        let made = || cannot_be("made");
        let opened = || cannot_be("opened");
        let new = !path.exists();
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o711).create(path) {
            if let Some((link, target)) = link_to_nothing(path) {
                bail!(
                    "{}: the state directory cannot be made: {} is a link to {}, which is not there (mount or make that, or \
                     name another directory with --dir)",
                    path.display(),
                    link.display(),
                    target.display()
                );
            }
            return Err(error).with_context(made);
        }
        if new {
            // A strict umask would shut the group out of the socket. One that was there is as its owner wants it.
            std::fs::set_permissions(path, Permissions::from_mode(0o711)).with_context(made)?;
        }
        let lock = File::open(path).with_context(opened)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!(
                    "another miharud is running: it holds {} (stop it, or name another directory with --dir)",
                    path.display()
                )
            }
            Err(error) => Err(error).with_context(opened),
        }
    }
}

/// The link of this path that leads to where nothing is, and what it says. The system tells of one only that something is there already,
/// which would last; what it leads to may be mounted a moment later.
fn link_to_nothing(path: &Path) -> Option<(&Path, PathBuf)> {
    let is_absent =
        |link: &&Path| std::fs::metadata(link).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    path.ancestors().filter(is_absent).find_map(|link| Some((link, std::fs::read_link(link).ok()?)))
}

/// The number of a group, by its name in group(5) or as a number.
pub(crate) fn group_id(group: &str) -> anyhow::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").context("/etc/group")?;
    find_group(&groups, group)
        .with_context(|| format!("there is no group '{group}' in /etc/group (see --group)"))
        .that_lasts()
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = StateDir::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o711);
        let error = StateDir::open(&path).unwrap_err();
        assert!(error.to_string().starts_with("another miharud is running"), "{error}");
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn a_link_to_what_is_not_mounted_yet_may_pass_and_what_is_in_the_way_lasts() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target, file) =
            (dir.path().join("miharu"), dir.path().join("volume"), dir.path().join("file"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        std::fs::write(&file, "").unwrap();
        for path in [link.clone(), link.join("state")] {
            let error = StateDir::open(&path).unwrap_err();
            assert_eq!(crate::ends::status(&error), 1, "{error:#}");
            let said = format!("{} is a link to {}, which", link.display(), target.display());
            assert!(error.to_string().contains(&said), "{error:#}");
        }
        assert!(!target.exists(), "nothing is made below what is to be mounted");
        for path in [file.clone(), file.join("state")] {
            assert_eq!(crate::ends::status(&StateDir::open(&path).unwrap_err()), 78, "{}", path.display());
        }
        std::fs::create_dir(&target).unwrap();
        StateDir::open(&link.join("state")).unwrap();
    }

    #[test]
    fn groups_go_by_name() {
        let groups = "root:x:0:\nmiharu:x:994:alice,bob\n";
        assert_eq!(find_group(groups, "miharu"), Some(994));
        assert_eq!(find_group(groups, "alice"), None);
        assert_eq!(group_id("42").unwrap(), 42);
    }
}

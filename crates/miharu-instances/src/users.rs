//! What the host calls a user: `/etc/passwd`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use miharu_linux::Roots;
use miharu_linux::read::{Buffer, lines, number};

/// A user of the host's own file; those of a directory service have no line there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// The login name.
    pub(crate) name: String,
    /// The number.
    pub(crate) uid: u32,
    /// The home directory, as the host's paths go.
    pub(crate) home: PathBuf,
}

/// What a user is called.
pub(crate) fn name(roots: &Roots, uid: u32) -> Option<String> {
    find(roots, |user| user.uid == uid).map(|user| user.name)
}

/// The user of this name.
pub(crate) fn named(roots: &Roots, name: &str) -> Option<User> {
    find(roots, |user| user.name == name)
}

fn find(roots: &Roots, is_wanted: impl Fn(&User) -> bool) -> Option<User> {
    let mut buffer = Buffer::new();
    let text = buffer.read(&roots.host_path(Path::new("/etc/passwd"))?).ok()?;
    lines(text).filter_map(parse).find(is_wanted)
}

/// A line of passwd(5): name, password, number, group, comment, home directory, shell.
pub(crate) fn parse(line: &[u8]) -> Option<User> {
    let mut parts = line.split(|b| *b == b':');
    let name = String::from_utf8_lossy(parts.next()?).into_owned();
    let uid = u32::try_from(number(parts.nth(1)?)?).ok()?;
    let home = parts.nth(2).map(|home| PathBuf::from(OsStr::from_bytes(home))).unwrap_or_default();
    (!name.is_empty()).then_some(User { name, uid, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("etc")).unwrap();
        std::fs::write(
            base.path().join("etc/passwd"),
            "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/home/ann:/\n:x:7\n",
        )
        .unwrap();
        let roots = Roots::at(base.path());
        assert_eq!(name(&roots, 1000).as_deref(), Some("ann"));
        assert_eq!(name(&roots, 7), None);
        let ann = named(&roots, "ann").unwrap();
        assert_eq!((ann.uid, ann.home.as_path()), (1000, Path::new("/home/ann")));
        assert_eq!(named(&roots, "bob"), None);
        assert_eq!(name(&roots, 1), None);
    }
}

//! What the host calls a user, and whose processes share a limit: `/etc/passwd`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use miharu_linux::Roots;
use miharu_linux::read::{Buffer, lines, number};

use crate::driver::is_trusted;

/// User ids below this are the system's accounts (`SYS_UID_MAX` of login.defs(5)).
const FIRST_USER: u32 = 1000;

/// Accounts that runtimes run machines as, whatever their number is.
const OF_RUNTIMES: &[&str] = &["incus", "libvirt-qemu", "lxd", "nobody", "qemu"];

/// How long it is remembered who has an account.
const REMEMBERED: Duration = Duration::from_secs(60);

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

/// Those whose processes share a limit, so that nobody takes the places of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Share {
    /// Root, and whoever this process runs as.
    Root,
    /// An account of the system's, which is nobody's tenant.
    System(u32),
    /// A user.
    User(u32),
    /// All numbers that `/etc/passwd` has no name for: a user may have many thousands of them (subuid(5)).
    Nameless,
}

impl Share {
    /// Whether this is a user's, who may be anybody.
    pub(crate) fn is_a_users(self) -> bool {
        matches!(self, Self::User(_) | Self::Nameless)
    }
}

/// Who has an account, as it was a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    read: Option<Instant>,
    /// By number: whether that is one of the system's.
    accounts: BTreeMap<u32, bool>,
}

impl Accounts {
    /// Users of these numbers, and nobody else.
    #[cfg(test)]
    pub(crate) fn of(users: &[u32]) -> Self {
        Self { read: Some(Instant::now()), accounts: users.iter().map(|uid| (*uid, false)).collect() }
    }

    /// With whom the processes of a user share a limit.
    pub(crate) fn share(&mut self, roots: &Roots, uid: u32) -> Share {
        if is_trusted(uid) {
            return Share::Root;
        }
        if uid < FIRST_USER {
            return Share::System(uid);
        }
        if self.read.is_none_or(|read| read.elapsed() >= REMEMBERED) {
            self.read = Some(Instant::now());
            self.accounts.clear();
            let accounts = &mut self.accounts;
            let _ = find(roots, |user| {
                let is_systems = OF_RUNTIMES.contains(&user.name.as_str());
                accounts.entry(user.uid).and_modify(|known| *known |= is_systems).or_insert(is_systems);
                false
            });
        }
        match self.accounts.get(&uid) {
            Some(true) => Share::System(uid),
            Some(false) => Share::User(uid),
            None => Share::Nameless,
        }
    }
}

/// What a user is called.
pub(crate) fn name(roots: &Roots, uid: u32) -> Option<String> {
    find(roots, |user| user.uid == uid).map(|user| user.name)
}

/// The user of this name.
pub(crate) fn named(roots: &Roots, name: &str) -> Option<User> {
    find(roots, |user| user.name == name)
}

fn find(roots: &Roots, is_wanted: impl FnMut(&User) -> bool) -> Option<User> {
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
            "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/home/ann:/\n:x:7\nlibvirt-qemu:x:64055:64055::/:/\n",
        )
        .unwrap();
        let roots = Roots::at(base.path());
        assert_eq!(name(&roots, 1000).as_deref(), Some("ann"));
        assert_eq!(name(&roots, 7), None);
        let ann = named(&roots, "ann").unwrap();
        assert_eq!((ann.uid, ann.home.as_path()), (1000, Path::new("/home/ann")));
        assert_eq!(named(&roots, "bob"), None);
        assert_eq!(name(&roots, 1), None);
        let mut accounts = Accounts::default();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!((accounts.share(&roots, 0), accounts.share(&roots, own)), (Share::Root, Share::Root));
        assert_eq!(accounts.share(&roots, 107), Share::System(107));
        assert_eq!(accounts.share(&roots, 1000), Share::User(1000));
        assert_eq!(accounts.share(&roots, 64_055), Share::System(64_055));
        assert_eq!(accounts.share(&roots, 100_000), Share::Nameless);
        assert!(accounts.share(&roots, 100_001).is_a_users() && !accounts.share(&roots, 64_055).is_a_users());
    }
}

//! Runtimes' state files: regular ones, of an owner who may be believed, within a size.
//!
//! Where a user could put something, no link is followed and nothing but a regular file of that user's is opened. Such a
//! file can still hang in a file system of the user's own, so it is read in a thread of names alone.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};

use crate::driver::is_trusted;

/// The longest state file that is read, bytes: `containers.json` of thousands of containers.
const MAX_FILE: u64 = 16 << 20;

/// Reads a file of the system's: root's, in directories of root's.
///
/// # Errors
/// Where it cannot be read, is no regular file, another user's, or too long.
pub(crate) fn read_systems(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    check(&stat, is_trusted(stat.st_uid))?;
    read(file)
}

/// A directory that root made for a user, such as the user's home.
#[derive(Debug)]
pub(crate) struct UsersPlace {
    path: PathBuf,
    uid: u32,
}

impl UsersPlace {
    /// `path` as this process sees it; its own components are root's choice and may be links.
    pub(crate) fn new(path: PathBuf, uid: u32) -> Self {
        Self { path, uid }
    }

    /// Reads a file below it.
    ///
    /// # Errors
    /// As [`read_systems`], and where a link is on the way.
    pub(crate) fn read(&self, relative: &Path) -> io::Result<Vec<u8>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let open = |flags| rustix::fs::openat2(place.as_fd(), relative, flags, Mode::empty(), resolve);
        let found = rustix::fs::fstat(open(OFlags::PATH | OFlags::CLOEXEC)?)?;
        check(&found, found.st_uid == self.uid)?;
        let file = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC)?;
        let opened = rustix::fs::fstat(&file)?;
        if (opened.st_dev, opened.st_ino) != (found.st_dev, found.st_ino) {
            return Err(ErrorKind::Interrupted.into());
        }
        read(file)
    }
}

fn check(stat: &Stat, is_owned: bool) -> io::Result<()> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a regular file"));
    }
    if !is_owned {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    if u64::try_from(stat.st_size).is_ok_and(|size| size > MAX_FILE) {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

/// One that grows meanwhile is cut off.
fn read(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(file).take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! Runtimes' state files: regular ones, of an owner who may be believed, within a size.
//!
//! Where a user could put something, no link is followed and nothing but a regular file of that user's is opened. Such a
//! file can still hang in a file system of the user's own, so it is read in a thread of names alone.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use miharu_linux::opening::{Opening, open_below};
use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::driver::is_trusted;

/// The longest state file that is read, bytes: `containers.json` of thousands of containers.
const MAX_FILE: u64 = 16 << 20;

/// Reads a file of the system's: root's, in directories of root's.
///
/// # Errors
/// Where it cannot be read, is no regular file, another user's, or too long.
pub(crate) fn read_systems(path: &Path) -> io::Result<Vec<u8>> {
    read(open_systems(path)?)
}

/// Opens a file of the system's, and nothing that is none: a device may be started by that.
///
/// # Errors
/// As [`read_systems`], of any length.
pub(crate) fn open_systems(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let is_systems = |stat: Stat| check(&stat, is_trusted(stat.st_uid));
    is_systems(rustix::fs::lstat(path)?)?;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    is_systems(rustix::fs::fstat(&file)?)?;
    Ok(file.into())
}

/// A directory that root made for a user, such as the user's home.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
        read(self.open(relative)?)
    }

    /// Opens a file below it.
    ///
    /// # Errors
    /// As [`UsersPlace::read`], of any length.
    pub(crate) fn open(&self, relative: &Path) -> io::Result<File> {
        let found = rustix::fs::fstat(self.open_as(relative, Opening::PlaceBeneath)?)?;
        check(&found, found.st_uid == self.uid)?;
        let file = self.open_as(relative, Opening::FileBeneath)?;
        let opened = rustix::fs::fstat(&file)?;
        if (opened.st_dev, opened.st_ino) != (found.st_dev, found.st_ino) {
            return Err(io::Error::other("it was replaced"));
        }
        Ok(file.into())
    }

    fn open_as(&self, relative: &Path, opening: Opening) -> io::Result<OwnedFd> {
        let own = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open(&self.path, own, Mode::empty())?;
        open_below(place.as_fd(), relative, opening)
    }
}

/// A file in a user's place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UsersFile {
    pub(crate) place: UsersPlace,
    /// Where it is below the place.
    pub(crate) relative: PathBuf,
}

impl UsersFile {
    /// Its size and times, without opening it.
    ///
    /// # Errors
    /// Where it is gone, or a link is on the way.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        File::from(self.place.open_as(&self.relative, Opening::PlaceBeneath)?).metadata()
    }
}

fn check(stat: &Stat, is_owned: bool) -> io::Result<()> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a regular file"));
    }
    if !is_owned {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    Ok(())
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

//! One open cgroup directory, and reading its files so that a file that is not there and a cgroup that is not there
//! any more are told apart.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::read::Buffer;

/// What all readers of one collection share: the buffer, and the files that gave nothing.
pub(super) struct Reading<'a> {
    buffer: &'a mut Buffer,
    pub(super) problems: Vec<Error>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(buffer: &'a mut Buffer) -> Self {
        Self { buffer, problems: Vec::new() }
    }
}

/// An open cgroup directory. It stands for one incarnation: after the cgroup is removed every file of it is missing,
/// even when another cgroup has taken its name.
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    missed: bool,
}

impl Directory {
    /// Opens the cgroup.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| Error::io(&path, e.into()))?;
        Ok(Self { fd, path, missed: false })
    }

    /// Opens a cgroup above an instance's. One that is gone says nothing: the instance's own is gone too, and tells so.
    pub(super) fn open_ancestor(path: PathBuf, reading: &mut Reading<'_>) -> Option<Self> {
        match Self::open(path) {
            Ok(directory) => Some(directory),
            Err(Error::Gone(_)) => None,
            Err(problem) => {
                reading.problems.push(problem);
                None
            }
        }
    }

    /// What `parse` makes of the file `name`. A file that is not there gives nothing, as which files a cgroup has
    /// depends on the kernel and on the controllers; one that cannot be read, or that `parse` cannot understand,
    /// is noted as a problem.
    pub(super) fn parse<T>(
        &mut self,
        name: &str,
        reading: &mut Reading<'_>,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        match reading.buffer.read_at(self.fd.as_fd(), Path::new(name), || self.path.join(name)) {
            Ok(text) => {
                let parsed = parse(text);
                if parsed.is_none() {
                    let path = self.path.join(name);
                    reading.problems.push(Error::Parse { path, what: "what the kernel writes there" });
                }
                parsed
            }
            Err(Error::Gone(_)) => {
                self.missed = true;
                None
            }
            // Pressure files without pressure accounting (psi=0) answer so.
            Err(Error::Io { source, .. })
                if source.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) =>
            {
                None
            }
            Err(problem) => {
                reading.problems.push(problem);
                None
            }
        }
    }

    /// Whether the cgroup has child cgroups: a directory has a link from each directory in it, from its parent and from
    /// itself.
    pub(super) fn has_children(&self) -> Option<bool> {
        let links = rustix::fs::fstat(&self.fd).ok()?.st_nlink;
        if links >= 2 {
            return Some(links > 2);
        }
        // Not a cgroup but a recorded tree on a file system that does not count a directory's links (btrfs, overlay).
        let entries = std::fs::read_dir(&self.path).ok()?;
        Some(entries.flatten().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())))
    }

    /// Whether the cgroup was there all the time; to be asked at the end.
    ///
    /// # Errors
    /// [`Error::Gone`] when it was removed since it was opened.
    pub(super) fn still_there(&self) -> Result<()> {
        if !self.missed {
            return Ok(());
        }
        // Every cgroup has this file, on both versions.
        rustix::fs::statat(&self.fd, "cgroup.procs", AtFlags::SYMLINK_NOFOLLOW)
            .map(drop)
            .map_err(|e| Error::io(&self.path, e.into()))
    }
}

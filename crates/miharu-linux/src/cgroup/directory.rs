//! One cgroup's control files, kept open or opened for one reading, so that a file that is not there and a cgroup that is
//! not there any more are told apart.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::ancestors::Place;
use super::parts::Parts;
use crate::error::{Error, Result};
use crate::kept::{Budget, KeptFile};
use crate::read::{Buffer, Ends, LIMIT, Outcome};

/// After so many readings a file that was not there is looked for again: a controller may have been enabled since.
const AGAIN: u8 = 16;

/// What all readers of one collection share: the buffer, and the files that gave nothing.
pub(super) struct Reading<'a> {
    buffer: &'a mut Buffer,
    /// What is to be read.
    pub(super) parts: Parts,
    pub(super) problems: Vec<Error>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, parts: Parts) -> Self {
        Self { buffer, parts, problems: Vec::new() }
    }
}

/// The control files of one instance that stay open between its readings. It belongs to one incarnation of the instance.
#[derive(Debug, Default)]
pub struct Kept {
    budget: Budget,
    directories: Vec<KeptDirectory>,
    /// Where the next one is expected: a reading takes them in the order of the one before.
    next: usize,
}

impl Kept {
    /// Nothing yet; what will be kept counts against `budget`. The default keeps nothing ever.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self { budget, ..Self::default() }
    }

    /// The cgroup at `place`, ready to be read.
    ///
    /// # Errors
    /// [`Error::Gone`] where none of its files is kept and it is not there, and the others as they say.
    pub(super) fn open<'k>(&'k mut self, place: Place<'k>) -> Result<Directory<'k>> {
        let is_next = self.directories.get(self.next).is_some_and(|directory| directory.is_at(place));
        let found = if is_next {
            Some(self.next)
        } else {
            self.directories.iter().position(|directory| directory.is_at(place))
        };
        let index = match found {
            Some(index) => index,
            None => {
                let new = KeptDirectory::new(place, &self.budget, &self.directories);
                // There are a few, and they stay for as long as the instance runs.
                self.directories.reserve_exact(1);
                self.directories.push(new);
                self.directories.len() - 1
            }
        };
        self.next = if index + 1 < self.directories.len() { index + 1 } else { 0 };
        let budget = &self.budget;
        let kept = self.directories.get_mut(index).map(|directory| (directory, budget));
        let mut directory = Directory { place, fd: None, kept, missed: false };
        if directory.begin()
            && let Err(problem) = directory.fd().map(drop)
        {
            directory.forget();
            return Err(problem);
        }
        Ok(directory)
    }
}

/// What is kept of one cgroup.
#[derive(Debug)]
struct KeptDirectory {
    hierarchy: Arc<OsStr>,
    cgroup: Arc<OsStr>,
    /// The directory itself, where something is asked of it in every reading.
    fd: Option<KeptFile>,
    files: Vec<(Arc<OsStr>, KeptFile)>,
    /// Where the next one is expected, as with directories.
    next: usize,
    /// Names of files that it does not have.
    absent: Vec<Arc<OsStr>>,
    readings: u8,
}

impl KeptDirectory {
    /// Nothing of this place yet. Its path is mostly that of its sisters in other hierarchies.
    fn new(place: Place<'_>, budget: &Budget, sisters: &[Self]) -> Self {
        let cgroup = place.cgroup.as_os_str();
        let same = sisters.iter().find(|sister| *sister.cgroup == *cgroup);
        Self {
            hierarchy: budget.name(place.hierarchy.as_os_str()),
            cgroup: same.map_or_else(|| Arc::from(cgroup), |sister| Arc::clone(&sister.cgroup)),
            fd: None,
            files: Vec::new(),
            next: 0,
            absent: Vec::new(),
            readings: 0,
        }
    }

    fn is_at(&self, place: Place<'_>) -> bool {
        *self.hierarchy == *place.hierarchy.as_os_str() && *self.cgroup == *place.cgroup.as_os_str()
    }

    fn file(&mut self, name: &str) -> Option<&KeptFile> {
        let is_it = |(kept, _): &(Arc<OsStr>, KeptFile)| **kept == *name;
        let is_next = self.files.get(self.next).is_some_and(is_it);
        let index = if is_next { self.next } else { self.files.iter().position(is_it)? };
        self.next = if index + 1 < self.files.len() { index + 1 } else { 0 };
        self.files.get(index).map(|(_, file)| file)
    }

    fn forget(&mut self) {
        self.fd = None;
        self.files.clear();
        self.absent.clear();
    }
}

/// One cgroup during a reading. What is open of it stands for one incarnation: after the cgroup is removed every file of
/// it is missing (kept ones answer ENODEV), even when another cgroup has taken its name.
pub(super) struct Directory<'k> {
    place: Place<'k>,
    fd: Option<OwnedFd>,
    kept: Option<(&'k mut KeptDirectory, &'k Budget)>,
    missed: bool,
}

impl<'k> Directory<'k> {
    /// Opens a cgroup above an instance's. One that is gone says nothing: the instance's own is gone too, and tells so.
    pub(super) fn open_ancestor(place: Place<'k>, reading: &mut Reading<'_>) -> Option<Self> {
        let mut directory = Self { place, fd: None, kept: None, missed: false };
        match directory.fd() {
            Ok(_) => Some(directory),
            Err(Error::Gone(_)) => None,
            Err(problem) => {
                reading.problems.push(problem);
                None
            }
        }
    }

    /// Begins a reading; whether nothing is kept that would tell if the cgroup is still there.
    fn begin(&mut self) -> bool {
        let Some((kept, _)) = &mut self.kept else { return true };
        kept.readings = kept.readings.wrapping_add(1);
        if kept.readings >= AGAIN {
            kept.readings = 0;
            kept.absent.clear();
        }
        kept.files.is_empty()
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
        match self.read(name, reading.buffer) {
            Ok(Some(text)) => {
                let parsed = parse(text);
                if parsed.is_none() {
                    let path = self.path().join(name);
                    reading.problems.push(Error::Parse { path, what: "what the kernel writes there" });
                }
                parsed
            }
            Ok(None) => None,
            Err(problem) => {
                reading.problems.push(problem);
                None
            }
        }
    }

    /// The text of the file `name`, nothing where there is no such file.
    fn read<'b>(&mut self, name: &str, buffer: &'b mut Buffer) -> Result<Option<&'b [u8]>> {
        let result = match self.read_kept(name, buffer) {
            Some(result) => result,
            None => self.read_opened(name, buffer)?,
        };
        match result {
            Ok(()) => {
                buffer.note(Outcome::Read, || self.path().join(name));
                Ok(Some(buffer.text()))
            }
            Err(Errno::NOENT) => {
                self.missed = true;
                buffer.note(Outcome::Absent, || self.path().join(name));
                self.note_absent(name);
                Ok(None)
            }
            // The cgroup is gone, which says nothing of the files of another one that gets its name.
            Err(Errno::NODEV) => {
                self.missed = true;
                Ok(None)
            }
            // Pressure files without pressure accounting (psi=0) answer so.
            Err(Errno::OPNOTSUPP) => {
                buffer.note(Outcome::Unserved, || self.path().join(name));
                self.note_absent(name);
                Ok(None)
            }
            Err(Errno::FBIG) => Err(Error::TooLong { path: self.path().join(name), limit: LIMIT }),
            Err(e) => Err(Error::io(&self.path().join(name), e.into())),
        }
    }

    /// Reads a kept file; nothing where it is to be opened. One that is known not to be there answers like one that the
    /// kernel does not serve.
    fn read_kept(&mut self, name: &str, buffer: &mut Buffer) -> Option<std::result::Result<(), Errno>> {
        let (kept, _) = self.kept.as_mut()?;
        let Some(file) = kept.file(name) else {
            return kept.absent.iter().any(|absent| **absent == *name).then_some(Err(Errno::OPNOTSUPP));
        };
        match buffer.reread(file.as_fd(), Ends::InOnePiece) {
            // This cgroup is gone. Its path may lead to another one by now, or to nothing.
            Err(Errno::NODEV) => {
                self.forget();
                None
            }
            result => Some(result.map(drop)),
        }
    }

    /// Opens a file, reads it, and keeps it where that is allowed.
    fn read_opened(&mut self, name: &str, buffer: &mut Buffer) -> Result<std::result::Result<(), Errno>> {
        let directory = match self.fd() {
            Ok(directory) => directory,
            // It had kept files until a moment ago.
            Err(Error::Gone(_)) => return Ok(Err(Errno::NODEV)),
            Err(problem) => return Err(problem),
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(e) => return Ok(Err(e)),
        };
        let result = buffer.reread(file.as_fd(), Ends::InOnePiece).map(drop);
        if let (Ok(()), Some((kept, budget))) = (&result, &mut self.kept)
            && let Ok(file) = budget.keep(file)
        {
            kept.files.reserve_exact(1);
            kept.files.push((budget.name(OsStr::new(name)), file));
        }
        Ok(result)
    }

    fn note_absent(&mut self, name: &str) {
        if let Some((kept, budget)) = &mut self.kept
            && budget.limit() > 0
            && !kept.absent.iter().any(|absent| **absent == *name)
        {
            kept.absent.reserve_exact(1);
            kept.absent.push(budget.name(OsStr::new(name)));
        }
    }

    /// Whether the cgroup has child cgroups: a directory has a link from each directory in it, from its parent and from
    /// itself.
    pub(super) fn has_children(&mut self) -> Option<bool> {
        let links = rustix::fs::fstat(self.fd().ok()?).ok()?.st_nlink;
        if let (Some((kept, budget)), Some(fd)) = (&mut self.kept, self.fd.take()) {
            match budget.keep(fd) {
                Ok(fd) => kept.fd = Some(fd),
                Err(fd) => self.fd = Some(fd),
            }
        }
        if links >= 2 {
            return Some(links > 2);
        }
        // Not a cgroup but a recorded tree on a file system that does not count a directory's links (btrfs, overlay).
        let entries = std::fs::read_dir(self.path()).ok()?;
        Some(entries.flatten().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())))
    }

    /// Whether the cgroup was there all the time; to be asked at the end.
    ///
    /// # Errors
    /// [`Error::Gone`] when it was removed since it was opened.
    pub(super) fn still_there(&mut self) -> Result<()> {
        if !self.missed {
            return Ok(());
        }
        // Every cgroup has this file, on both versions.
        let is_there = self.fd().map(|fd| rustix::fs::statat(fd, "cgroup.procs", AtFlags::SYMLINK_NOFOLLOW));
        let result = is_there
            .and_then(|result| result.map(drop).map_err(|e| Error::io(&self.place.directory(), e.into())));
        if result.is_err() {
            self.forget();
        }
        result
    }

    /// Forgets what is kept: another cgroup may get the name.
    fn forget(&mut self) {
        self.fd = None;
        if let Some((kept, _)) = &mut self.kept {
            kept.forget();
        }
    }

    /// The open directory.
    fn fd(&mut self) -> Result<BorrowedFd<'_>> {
        let kept = self.kept.as_ref().and_then(|(kept, _)| kept.fd.as_ref());
        if let Some(fd) = kept {
            return Ok(fd.as_fd());
        }
        let fd = match self.fd.take() {
            Some(fd) => fd,
            None => open(&self.place.directory())?,
        };
        let fd: &OwnedFd = self.fd.insert(fd);
        Ok(fd.as_fd())
    }

    fn path(&self) -> PathBuf {
        self.place.directory()
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io(path, e.into()))
}

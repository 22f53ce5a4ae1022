//! Reading small kernel files whole, into one buffer that is used again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
pub use crate::text::{fields, keyed, lines, number, number_file};

/// More than any kernel file that miharu reads whole: `mountinfo` of a container with thousands of mounts is the
/// longest.
pub const LIMIT: usize = 4 << 20;

/// A buffer that kernel files are read into, one after another, without a new allocation for each.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// Which files were looked for, where notes are taken of that.
    looks: Option<Vec<Look>>,
}

/// A file that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The file.
    pub path: PathBuf,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of looking for a file. One that is there and may not be read is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was read.
    Read,
    /// There is none.
    Absent,
    /// The kernel has it and does not fill it, such as a pressure file without pressure accounting.
    Unserved,
}

impl Buffer {
    /// An empty buffer; it grows to the longest file read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer that takes notes of which files are read into it, for who wants to know where a figure comes from.
    #[must_use]
    pub fn noting() -> Self {
        Self { looks: Some(Vec::new()), ..Self::default() }
    }

    /// The notes taken since the last call, in the order of the looks; none where none are taken.
    pub fn take_looks(&mut self) -> Vec<Look> {
        self.looks.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes a note, where notes are taken.
    pub(crate) fn note(&mut self, outcome: Outcome, path: impl FnOnce() -> PathBuf) {
        if let Some(looks) = &mut self.looks {
            looks.push(Look { path: path(), outcome });
        }
    }

    /// Reads the file at `path`, at most [`LIMIT`] bytes.
    ///
    /// # Errors
    /// [`Error::Gone`] where there is no such file, and the others as they say.
    pub fn read(&mut self, path: &Path) -> Result<&[u8]> {
        self.read_at(rustix::fs::CWD, path, || path.to_owned())
    }

    /// Reads the file `name` in the open directory `dir`; `place` names the whole path for an error.
    ///
    /// # Errors
    /// As [`Buffer::read`].
    pub fn read_at(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &Path,
        place: impl Fn() -> PathBuf,
    ) -> Result<&[u8]> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(|e| {
            if e == Errno::NOENT {
                self.note(Outcome::Absent, &place);
            }
            Error::io(&place(), e.into())
        })?;
        self.fill(&file).map_err(|e| match e {
            Errno::FBIG => Error::TooLong { path: place(), limit: LIMIT },
            e => Error::io(&place(), e.into()),
        })?;
        self.note(Outcome::Read, &place);
        Ok(&self.bytes)
    }

    /// Reads an open file anew from its beginning, as far as `ends` says, without an error's path, which only the caller
    /// knows.
    ///
    /// # Errors
    /// What the kernel says (ENODEV for a control file of a cgroup that is gone), and EFBIG past [`LIMIT`].
    pub(crate) fn reread(&mut self, file: BorrowedFd<'_>, ends: Ends) -> std::result::Result<&[u8], Errno> {
        self.bytes.clear();
        loop {
            self.make_room();
            let room = self.bytes.capacity() - self.bytes.len();
            let at = self.bytes.len() as u64;
            match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut self.bytes), at) {
                Ok(0) => return Ok(&self.bytes),
                Ok(_) if self.bytes.len() > LIMIT => return Err(Errno::FBIG),
                Ok(read) if ends.after(read, room) => return Ok(&self.bytes),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// What was read last.
    pub(crate) fn text(&self) -> &[u8] {
        &self.bytes
    }

    fn make_room(&mut self) {
        if self.bytes.capacity() - self.bytes.len() < 4096 {
            self.bytes.reserve(self.bytes.len().max(16 << 10));
        }
    }

    fn fill(&mut self, file: &OwnedFd) -> std::result::Result<(), Errno> {
        self.bytes.clear();
        loop {
            self.make_room();
            let spare = rustix::buffer::spare_capacity(&mut self.bytes);
            match rustix::io::read(file.as_fd(), spare) {
                Ok(0) => return Ok(()),
                Ok(_) if self.bytes.len() > LIMIT => return Err(Errno::FBIG),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// How the end of a file is known without one more call that reads nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The kernel writes the file in one piece (`single_open`, every control file of a cgroup that is read here), so a
    /// read that leaves room was the last.
    InOnePiece,
    /// The kernel writes line by line and hands out what fills at most a page (`seq_file`), so a read that leaves room for
    /// one more line in a page was the last.
    InLines {
        /// The longest line that the kernel could write, bytes.
        longest: usize,
    },
}

/// The smallest page of any machine.
const PAGE: usize = 4096;

impl Ends {
    /// Whether a read of `read` bytes, where there was room for `room`, was the last.
    fn after(self, read: usize, room: usize) -> bool {
        match self {
            Self::InOnePiece => read < room,
            Self::InLines { longest } => read.saturating_add(longest) < room.min(PAGE),
        }
    }
}

//! Reading small kernel files whole, into one buffer that is used again.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memchr::memchr;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
pub use crate::text::{fields, keyed, lines, number, number_file};

/// More than any kernel file that miharu reads whole: `mountinfo` of a container with thousands of mounts is the
/// longest.
pub const LIMIT: usize = 4 << 20;

/// The most that is looked at of a file that is read by lines, bytes.
const LONGEST: usize = 64 << 20;

/// What to do with a line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// It is wanted.
    Keep,
    /// It is not.
    Drop,
    /// Neither it nor what comes after it.
    End,
}

/// Whether all of a file was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Extent {
    /// It was.
    #[default]
    Whole,
    /// There is more of it.
    Cut,
}

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
        let file = self.open_at(dir, name, &place)?;
        self.fill(&file).map_err(|e| match e {
            Errno::FBIG => Error::TooLong { path: place(), limit: LIMIT },
            e => Error::io(&place(), e.into()),
        })?;
        self.note(Outcome::Read, &place);
        Ok(&self.bytes)
    }

    /// Reads the file `name` in the open directory `dir` line by line, and keeps what `sort` says, `limit` bytes of it at most. So a file that
    /// somebody makes long costs no more than what is wanted of it, and never fails for its length.
    ///
    /// # Errors
    /// As [`Buffer::read`], but for the length.
    pub(crate) fn read_lines_at(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &Path,
        place: impl Fn() -> PathBuf,
        limit: usize,
        sort: impl FnMut(&[u8]) -> Take,
    ) -> Result<(&[u8], Extent)> {
        let file = self.open_at(dir, name, &place)?;
        let extent = self.fill_lines(&file, limit, sort).map_err(|e| Error::io(&place(), e.into()))?;
        self.note(Outcome::Read, &place);
        Ok((&self.bytes, extent))
    }

    fn open_at(&mut self, dir: BorrowedFd<'_>, name: &Path, place: &impl Fn() -> PathBuf) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(|e| {
            if e == Errno::NOENT {
                self.note(Outcome::Absent, place);
            }
            Error::io(&place(), e.into())
        })
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

impl Buffer {
    fn fill_lines(
        &mut self,
        file: &OwnedFd,
        limit: usize,
        mut sort: impl FnMut(&[u8]) -> Take,
    ) -> std::result::Result<Extent, Errno> {
        self.bytes.clear();
        // Lines that are kept, then one that has not been read to its end, in which there is none.
        let (mut kept, mut looked, mut total) = (0, 0, 0_usize);
        loop {
            self.make_room();
            let read = match rustix::io::read(file.as_fd(), rustix::buffer::spare_capacity(&mut self.bytes)) {
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e),
            };
            total = total.saturating_add(read);
            let is_end = read == 0;
            let mut from = kept;
            loop {
                let rest = self.bytes.get(looked..).unwrap_or_default();
                let end = match memchr(b'\n', rest) {
                    Some(at) => looked + at + 1,
                    None if is_end && from < self.bytes.len() => self.bytes.len(),
                    None => break,
                };
                let line = self.bytes.get(from..end).unwrap_or_default();
                let take = sort(line.strip_suffix(b"\n").unwrap_or(line));
                if take == Take::End || (take == Take::Keep && kept + line.len() > limit) {
                    self.bytes.truncate(kept);
                    return Ok(Extent::Cut);
                }
                if take == Take::Keep {
                    let length = line.len();
                    self.bytes.copy_within(from..end, kept);
                    kept += length;
                }
                (from, looked) = (end, end);
            }
            let left = self.bytes.len() - from;
            self.bytes.copy_within(from.., kept);
            self.bytes.truncate(kept + left);
            looked = self.bytes.len();
            if is_end {
                return Ok(Extent::Whole);
            }
            if left > limit || total > LONGEST {
                self.bytes.truncate(kept);
                return Ok(Extent::Cut);
            }
        }
    }
}

/// Reads a regular file of at most `limit` bytes. Nothing else is opened: a pipe would be waited for, and a device may be started by that.
/// No link at the end of the path is followed.
///
/// # Errors
/// What the kernel says, and where it is no regular file or longer.
pub fn regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let found = std::fs::symlink_metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let opened = file.metadata()?;
    if (opened.dev(), opened.ino()) != (found.dev(), found.ino()) {
        return Err(io::Error::other("it was replaced"));
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use proptest::prelude::*;

    use super::*;

    fn lines_of(text: &[u8], limit: usize, sort: impl FnMut(&[u8]) -> Take) -> (Vec<u8>, Extent) {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("file"), text).unwrap();
        let mut buffer = Buffer::new();
        let path = base.path().join("file");
        let read = buffer.read_lines_at(rustix::fs::CWD, &path, || path.clone(), limit, sort);
        let (text, extent) = read.unwrap();
        (text.to_owned(), extent)
    }

    #[test]
    fn lines_are_kept_dropped_and_cut() {
        let text = b"one\ntwo\n\nthree\nfour";
        let all = |_: &[u8]| Take::Keep;
        assert_eq!(lines_of(text, 100, all), (text.to_vec(), Extent::Whole));
        assert_eq!(lines_of(text, 12, all), (b"one\ntwo\n\n".to_vec(), Extent::Cut));
        assert_eq!(lines_of(b"", 100, all), (Vec::new(), Extent::Whole));
        let short = |line: &[u8]| if line.len() > 3 { Take::Drop } else { Take::Keep };
        assert_eq!(lines_of(text, 9, short), (b"one\ntwo\n\n".to_vec(), Extent::Whole));
        let until = |line: &[u8]| if line == b"three" { Take::End } else { Take::Keep };
        assert_eq!(lines_of(text, 100, until), (b"one\ntwo\n\n".to_vec(), Extent::Cut));
        // A line that never ends is given up.
        let long = [b"one\n".as_slice(), &[b'x'; 100_000]].concat();
        assert_eq!(lines_of(&long, 50_000, all), (b"one\n".to_vec(), Extent::Cut));
    }

    #[test]
    fn nothing_but_a_regular_file_is_opened() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        let memory = rustix::fs::memfd_create("text", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", memory.as_raw_fd()), path("memory")).unwrap();
        assert_eq!(regular(&path("file"), 4).unwrap(), b"text");
        assert_eq!(regular(&path("file"), 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        for name in ["link", "fifo", "socket", "memory", ".", "absent"] {
            assert!(regular(&path(name), 4).is_err(), "{name}");
        }
        assert!(regular(Path::new("/dev/null"), 4).is_err());
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_a_whole_reading_has(
            lines in proptest::collection::vec(
                // A pattern of thousands of characters would be made character by character.
                prop_oneof![".{0,40}", (0..20_000_usize).prop_map(|length| "x".repeat(length))],
                0..20,
            ),
            seed in any::<u64>(),
        ) {
            let text = lines.iter().map(|line| format!("{}\n", line.replace('\n', " "))).collect::<String>();
            let is_wanted = |line: &[u8]| !(line.len() as u64 ^ seed).is_multiple_of(3);
            let expected: Vec<u8> = text.split_inclusive('\n').map(str::as_bytes)
                .filter(|line| is_wanted(line.strip_suffix(b"\n").unwrap())).collect::<Vec<_>>().concat();
            let sort = |line: &[u8]| if is_wanted(line) { Take::Keep } else { Take::Drop };
            prop_assert_eq!(lines_of(text.as_bytes(), LIMIT, sort), (expected, Extent::Whole));
        }
    }
}

//! Opening what is below a directory in one of four ways, openat2(2).
//!
//! The ways are constants in memory that cannot be written to, and each has one address. So a seccomp filter, which sees addresses and
//! not what is there, can tell them from any other way, such as one that writes.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{OFlags, ResolveFlags};

use crate::sys;

/// `struct open_how` of linux/openat2.h.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct How {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// A way to open. No link is followed in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Where something is, without opening it (O_PATH); `/` and `..` stay below the directory.
    PlaceInRoot,
    /// The same, where the kernel knows the way by heart: nothing is waited for, and where a file system would have to be asked the answer
    /// is EAGAIN. Since Linux 5.12; before, EINVAL.
    PlaceInRootCached,
    /// As [`Opening::PlaceInRoot`]; a path that leaves the directory is an error.
    PlaceBeneath,
    /// For reading, without waiting for whoever else would have to open it; a path that leaves the directory is an error.
    FileBeneath,
}

const fn how(flags: OFlags, resolve: ResolveFlags) -> How {
    let resolve = resolve.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
    How { flags: flags.union(OFlags::CLOEXEC).bits() as u64, mode: 0, resolve: resolve.bits() }
}

static PLACE_IN_ROOT: How = how(OFlags::PATH, ResolveFlags::IN_ROOT);
static PLACE_IN_ROOT_CACHED: How = how(OFlags::PATH, ResolveFlags::IN_ROOT.union(ResolveFlags::CACHED));
static PLACE_BENEATH: How = how(OFlags::PATH, ResolveFlags::BENEATH);
static FILE_BENEATH: How =
    how(OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY), ResolveFlags::BENEATH);

impl Opening {
    fn how(self) -> &'static How {
        match self {
            Self::PlaceInRoot => &PLACE_IN_ROOT,
            Self::PlaceInRootCached => &PLACE_IN_ROOT_CACHED,
            Self::PlaceBeneath => &PLACE_BENEATH,
            Self::FileBeneath => &FILE_BENEATH,
        }
    }
}

/// Opens what is at `path` below a directory.
///
/// # Errors
/// As openat2(2).
pub fn open_below(directory: BorrowedFd<'_>, path: &Path, opening: Opening) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    sys::openat2(directory, &path, opening.how())
}

/// Where the ways are in memory: the only third arguments of openat2(2) there are in this program.
#[must_use]
pub fn openings() -> [u64; 4] {
    [Opening::PlaceInRoot, Opening::PlaceInRootCached, Opening::PlaceBeneath, Opening::FileBeneath]
        .map(|opening| std::ptr::from_ref(opening.how()).addr() as u64)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_below_is_opened_and_nothing_by_a_link() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", base.path().join("link")).unwrap();
        let dir = std::fs::File::open(base.path()).unwrap();
        for opening in [Opening::PlaceInRoot, Opening::PlaceBeneath, Opening::FileBeneath] {
            let open = |path: &str| open_below(dir.as_fd(), Path::new(path), opening);
            open("file").unwrap();
            assert!(open("link").is_err(), "{opening:?}");
            assert!(open("absent").is_err(), "{opening:?}");
            assert_eq!(open("/file").is_ok(), opening == Opening::PlaceInRoot, "{opening:?}");
        }
        let file = open_below(dir.as_fd(), Path::new("file"), Opening::FileBeneath).unwrap();
        assert_eq!(io::read_to_string(std::fs::File::from(file)).unwrap(), "x");
    }

    #[test]
    fn each_way_has_one_place() {
        let mut all = openings();
        all.sort_unstable();
        assert!(all.windows(2).all(|two| two[0] != two[1]));
    }
}

//! What can go wrong with a kernel file, sorted by what the caller does next.

use std::path::{Path, PathBuf};

/// The result of reading a kernel file.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a kernel file gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, process or cgroup is not there (any more): ENOENT, ESRCH, ENODEV, ENOTDIR. The caller drops what it
    /// was about, without noise.
    #[error("{} is not there", .0.display())]
    Gone(PathBuf),
    /// The file is there and this process may not read it (EACCES, EPERM).
    #[error("{}: {source}", path.display())]
    Denied {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Any other failure to read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The text is not what this kernel file holds.
    #[error("{} does not hold {what}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The file is longer than anything the kernel writes there.
    #[error("{}: longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
}

impl Error {
    /// Sorts an I/O error on `path`.
    #[must_use]
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        use rustix::io::Errno;
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::SRCH | Errno::NODEV | Errno::NOTDIR) => Self::Gone(path.to_owned()),
            Some(Errno::ACCESS | Errno::PERM) => Self::Denied { path: path.to_owned(), source },
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    /// Whether what was read has vanished.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone(_))
    }
}

//! `mountinfo`: which of an instance's mounts get a file system series, and which of those are only a directory on a
//! file system of the host.
//!
//! Everything here is a decision on text; nothing is opened. The rules are those of metrics.md, "File systems". The
//! format is proc_pid_mountinfo(5): an instance's own file shows the mounts below its own root, under its own paths.

mod host;
mod line;
mod select;
mod tree;

use std::path::PathBuf;

use crate::read::number;

pub use host::{HostLines, HostMounts, LeftOut};
pub use line::{Line, parse, unescape};
pub use select::select;

/// The most mounts of one instance that are looked at; inside, anybody can make as many as `fs.mount-max` lets them.
pub const MAX_MOUNTS: usize = 4096;

/// The most mounts of the host that are looked at.
pub const MAX_HOST_MOUNTS: usize = 65_536;

/// The most of the lines of an instance's mounts that is looked at, bytes.
pub const MAX_TEXT: usize = 4 << 20;

/// The same of the host's mounts: a line of an overlay has the paths of all its layers.
pub const MAX_HOST_TEXT: usize = 32 << 20;

/// The most of that which is of FUSE mounts of users: fusermount(1) makes a thousand for whoever asks, under paths of four kilobytes.
pub const MAX_USERS_TEXT: usize = 256 << 10;

/// The most file systems of one instance that are reported.
pub const MAX_FILE_SYSTEMS: usize = 64;

/// One mount, a line of mountinfo with its escapes decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount's number, the `STATX_MNT_ID` of what lies on it.
    pub id: u64,
    /// The mount that it is mounted on.
    pub parent: u64,
    /// The device number of its file system, as `stat` would show it for most.
    pub device: Device,
    /// The directory (or file) of the file system that is mounted; `/` for the whole.
    pub root: PathBuf,
    /// Where it is mounted, as the processes of that mount namespace see it.
    pub mountpoint: PathBuf,
    /// The type, such as `ext4` or `fuse.lxcfs`.
    pub fstype: String,
    /// What was mounted, such as `/dev/sda1`; any text at all for some types.
    pub source: String,
    /// The options of the file system, commas between them, escapes still in place.
    pub super_options: Vec<u8>,
}

impl Mount {
    /// Who answers for the size of its file system.
    #[must_use]
    pub fn kind(&self) -> Kind {
        select::kind(self.fstype.as_bytes())
    }
}

/// Who answers for the size of a file system, and so whether the answer may never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The kernel, out of its memory, whatever becomes of the disk.
    Disk,
    /// Another file system that it is stacked on, which may be of any kind, or the disk itself; and whatever is of an unknown type.
    Unsure,
    /// A process or another machine.
    Remote,
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Its major part; 0 for file systems without a block device.
    pub major: u32,
    /// Its minor part.
    pub minor: u32,
}

impl Device {
    /// Parses `major:minor`, as the kernel's files have it.
    #[must_use]
    pub fn parse(field: &[u8]) -> Option<Self> {
        let colon = field.iter().position(|b| *b == b':')?;
        let part = |bytes: Option<&[u8]>| bytes.and_then(number).and_then(|n| u32::try_from(n).ok());
        Some(Self { major: part(field.get(..colon))?, minor: part(field.get(colon + 1..))? })
    }
}

/// What to do with file systems that a process or another machine answers for, as asking them can block for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RemoteFilesystems {
    /// Leave them out, and all that is mounted below them.
    #[default]
    Skip,
    /// Treat them as any other.
    Ask,
}

/// A file system that an instance gets a series for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// The mounts that show it, the one that names it best first. The first of them that is a directory counts.
    pub mounts: Vec<Mount>,
}

/// Whose a file system is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sharing {
    /// The instance's alone: its own volume or image.
    Own,
    /// The host has it mounted for others as well: the instance has a directory on it.
    Shared(SharedOn),
}

/// The file system of the host that an instance has a directory on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedOn {
    /// The `device` label: the source of the host's mount.
    pub device: String,
    /// The host's mount. Where its size differs from what the instance is shown, a project quota gives the instance a
    /// size of its own, and the file system does not count as shared.
    pub mount: Mount,
}

#[cfg(test)]
mod tests;

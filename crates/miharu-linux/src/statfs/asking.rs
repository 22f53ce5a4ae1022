//! What a thread that asks does: it opens a mount's place, makes sure that it is that mount, and asks for the sizes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};

use super::{Answer, Identity, Reply, Request, Sizes, Target, Whose};
use crate::error::{Error, Result};
use crate::mounts::Device;
use crate::opening::{Opening, open_below};
use crate::process::ProcDir;
use crate::read::Buffer;
use crate::roots::Roots;

/// How a mount is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Where the kernel knows the way by heart, so that no file system on it is asked: whatever has been mounted there
    /// since the mounts were read, nothing is waited for.
    Cached,
    /// Whoever is on the way may be asked.
    Patient,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The way there has to be looked up with patience, or who answers there may need it.
    Uncached,
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Opens, checks and asks, in the calling thread. `None` where that has to be done with patience.
pub(super) fn answer(roots: &Roots, request: &Request, lookup: Lookup, buffer: &mut Buffer) -> Option<Reply> {
    match try_answer(roots, request, lookup, buffer) {
        Ok(answer) => Some(Reply::from(Ok(answer))),
        Err(Failure::Error(error)) => Some(Reply::from(Err(error))),
        Err(Failure::Uncached) => None,
    }
}

fn try_answer(
    roots: &Roots,
    request: &Request,
    lookup: Lookup,
    buffer: &mut Buffer,
) -> std::result::Result<Option<Answer>, Failure> {
    let root = match request.whose {
        Whose::Host => host_root(roots)?,
        Whose::Process { pid, .. } if request.identity == Identity::SeenAfterwards => {
            let path = roots.proc.join(pid.to_string()).join("root");
            rustix::fs::open(&path, DIRECTORY, Mode::empty()).map_err(|e| Error::io(&path, e.into()))?
        }
        Whose::Process { pid, start_ticks } => {
            let process = ProcDir::open(roots, pid)?;
            if process.stat(buffer)?.starttime != start_ticks {
                return Ok(None);
            }
            root_of(&process)?
        }
    };
    for (mount, target) in request.targets.iter().enumerate() {
        if let Some(sizes) = sizes_of(root.as_fd(), target, lookup)? {
            return Ok(Some(Answer { mount, sizes }));
        }
    }
    Ok(None)
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What a process sees as `/`.
fn root_of(process: &ProcDir) -> Result<OwnedFd> {
    rustix::fs::openat(process.as_fd(), "root", DIRECTORY, Mode::empty())
        .map_err(|e| Error::io(&process.path().join("root"), e.into()))
}

/// The host's `/`: that of process 1, or, where even root may not look into that, the one that miharu sees. The
/// comparison of mount numbers shows whether these are the same.
fn host_root(roots: &Roots) -> Result<OwnedFd> {
    let denied = match ProcDir::open(roots, 1).and_then(|process| root_of(&process)) {
        Err(error @ Error::Denied { .. }) => error,
        other => return other,
    };
    let Some(base) = roots.host_path(Path::new("/")) else { return Err(denied) };
    rustix::fs::open(&base, DIRECTORY, Mode::empty()).map_err(|e| Error::io(&base, e.into()))
}

/// The sizes at one mount point below `root`; `None` where something else than that mount is seen there, it is no
/// directory, or its file system has no size.
fn sizes_of(
    root: BorrowedFd<'_>,
    target: &Target,
    lookup: Lookup,
) -> std::result::Result<Option<Sizes>, Failure> {
    let error = |e: rustix::io::Errno| Error::io(&target.mountpoint, e.into());
    let relative = target.mountpoint.strip_prefix("/").unwrap_or(Path::new(""));
    let opened;
    let place = if relative == Path::new("") {
        root
    } else {
        let Some(place) = look_up(root, relative, lookup)? else { return Ok(None) };
        opened = place;
        opened.as_fd()
    };
    let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let number = if target.unique.is_some() { UNIQUE } else { StatxFlags::MNT_ID };
    let seen = rustix::fs::statx(place, "", at, StatxFlags::TYPE | number).map_err(error)?;
    if FileType::from_raw_mode(seen.stx_mode.into()) != FileType::Directory {
        return Ok(None);
    }
    let told = StatxFlags::from_bits_retain(seen.stx_mask);
    let is_that_mount = if told.contains(UNIQUE) {
        Some(seen.stx_mnt_id) == target.unique
    } else if told.contains(StatxFlags::MNT_ID) {
        seen.stx_mnt_id == target.mount_id
    } else {
        // Before Linux 5.8 only the device tells.
        Device { major: seen.stx_dev_major, minor: seen.stx_dev_minor } == target.device
    };
    // A number that a mount had may be that of another one since; a disk has its own.
    let is_that_disk = target.device.major == 0
        || target.device == Device { major: seen.stx_dev_major, minor: seen.stx_dev_minor };
    if !is_that_mount || !is_that_disk {
        return Ok(None);
    }
    // In place of the mount that was seen there may be another one with its number, which is nobody to ask in a hurry. FUSE and NFS have no
    // block device, and do not say of a file whether it may be changed, as most others do.
    let may_be_another = lookup == Lookup::Cached && target.device.major == 0;
    if may_be_another && !seen.stx_attributes_mask.contains(StatxAttributes::IMMUTABLE) {
        return Err(Failure::Uncached);
    }
    let figures = rustix::fs::fstatfs(place).map_err(error)?;
    let unit = match u64::try_from(figures.f_frsize) {
        Ok(0) | Err(_) => u64::try_from(figures.f_bsize).unwrap_or(0),
        Ok(unit) => unit,
    };
    if figures.f_blocks == 0 || unit == 0 {
        return Ok(None);
    }
    let bytes = |blocks: u64| blocks.saturating_mul(unit);
    let counts_files = figures.f_files > 0;
    Ok(Some(Sizes {
        size: bytes(figures.f_blocks),
        free: bytes(figures.f_bfree),
        avail: bytes(figures.f_bavail),
        files: counts_files.then_some(figures.f_files),
        files_free: counts_files.then_some(figures.f_ffree),
    }))
}

/// `STATX_MNT_ID_UNIQUE`, since Linux 6.8.
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// How often a look-up is tried that waits for nobody: one that meets a change of any mount of the host's breaks off.
const TRIES: usize = 3;

/// What is seen at a path below `root`, without opening it; `None` where nothing is.
pub(super) fn look_up(
    root: BorrowedFd<'_>,
    path: &Path,
    lookup: Lookup,
) -> std::result::Result<Option<OwnedFd>, Failure> {
    // O_PATH opens nothing yet, so no device or FIFO can do harm, and without O_DIRECTORY no automount is started.
    let patient = || Ok(open_below(root, path, Opening::PlaceInRoot).ok());
    if lookup == Lookup::Patient {
        return patient();
    }
    for _ in 0..TRIES {
        match open_below(root, path, Opening::PlaceInRootCached) {
            Ok(place) => return Ok(Some(place)),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            // Before Linux 5.12 no look-up leaves out what has to be asked.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return patient(),
            Err(_) => return Ok(None),
        }
    }
    Err(Failure::Uncached)
}

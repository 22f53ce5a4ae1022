//! Which of an instance's file systems are only a directory on one of the host's.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::line::Line;
use super::tree::Tree;
use super::{Device, Kind, MAX_HOST_MOUNTS, MAX_USERS_TEXT, Mount, SharedOn, Sharing, line, parse};
use crate::read::{Extent, Take, number};

/// Which lines of the host's mountinfo are looked at, so that no user can have those of others left out.
#[derive(Debug, Default)]
pub struct HostLines {
    count: usize,
    /// How many bytes are of users' mounts.
    of_users: usize,
    /// The same by user.
    by_user: HashMap<u64, usize>,
}

impl HostLines {
    /// Whether this line, the next one of the file, is looked at.
    pub fn sort(&mut self, line: &[u8]) -> Take {
        if let Some(user) = parse(line, 1).first().and_then(user_of) {
            self.of_users = self.of_users.saturating_add(line.len());
            let own = self.by_user.entry(user).or_default();
            *own = own.saturating_add(line.len());
            if self.of_users > MAX_USERS_TEXT {
                return Take::Drop;
            }
        }
        self.count += 1;
        if self.count > MAX_HOST_MOUNTS { Take::End } else { Take::Keep }
    }

    /// What is left out of the file, of which so much was read.
    #[must_use]
    pub fn left_out(&self, extent: Extent) -> Vec<LeftOut> {
        let rest = (extent == Extent::Cut).then_some(LeftOut::Rest);
        let most = self.by_user.iter().max_by_key(|(user, bytes)| (**bytes, **user));
        let of_users = most.filter(|_| self.of_users > MAX_USERS_TEXT);
        rest.into_iter().chain(of_users.map(|(user, _)| LeftOut::OfUsers { most: *user })).collect()
    }
}

/// Which of the host's mounts are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Those past [`MAX_HOST_MOUNTS`] or [`super::MAX_HOST_TEXT`].
    Rest,
    /// Some of users', past [`MAX_USERS_TEXT`].
    OfUsers {
        /// The number of the user who has the most.
        most: u64,
    },
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rest => write!(f, "the host has more mounts than are looked at")?,
            Self::OfUsers { most } => {
                write!(
                    f,
                    "users have more FUSE file systems mounted than are looked at, user {most} the most of them"
                )?;
            }
        }
        write!(f, ": a directory on one that is left out is told as an instance's own file system")
    }
}

/// The number of the user other than root who mounted it: by fusermount(1), which has the kernel note who that was.
fn user_of(line: &Line<'_>) -> Option<u64> {
    if !line.fstype.starts_with(b"fuse") {
        return None;
    }
    let mut options = line.super_options.split(|byte| *byte == b',');
    let user = number(options.find_map(|option| option.strip_prefix(b"user_id=".as_slice()))?)?;
    (user != 0).then_some(user)
}

/// The host's own mounts (`/proc/1/mountinfo`), read once a collection, to tell an instance's own volume from a
/// directory on one of the host's.
#[derive(Debug, Clone, Default)]
pub struct HostMounts {
    mounts: Vec<Mount>,
    /// Indices into them by device, those of one device in the order of the file.
    by_device: Vec<(Device, usize)>,
    /// Made for the first overlay: hosts without one need no walk.
    tree: OnceLock<Tree>,
}

impl HostMounts {
    /// Parses the host's mountinfo.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mounts: Vec<Mount> = parse(text, MAX_HOST_MOUNTS).iter().map(Line::to_mount).collect();
        let mut by_device: Vec<_> = mounts.iter().map(|mount| mount.device).zip(0..).collect();
        by_device.sort_unstable();
        Self { mounts, by_device, tree: OnceLock::new() }
    }

    /// Whose the file system of `mount` is, for an instance whose directory on the host is called `directory`
    /// (`c1`, `project_c1`): runtimes mount an instance's own volume at a directory of that name, or at a `rootfs` in
    /// it.
    #[must_use]
    pub fn sharing(&self, mount: &Mount, directory: &OsStr) -> Sharing {
        let device = match mount.fstype.as_str() {
            "overlay" | "overlayfs" => self.below(mount),
            _ => Some(mount.device),
        };
        let Some(device) = device else { return Sharing::Own };
        if self.of_device(device).any(|host| is_own_volume(host, directory)) {
            return Sharing::Own;
        }
        // The mount of the whole file system names the device best, then the shortest path.
        let best = self.of_device(device).min_by_key(|host| (host.root != Path::new("/"), order(host)));
        best.map_or(Sharing::Own, |host| {
            Sharing::Shared(SharedOn { device: host.source.clone(), mount: host.clone() })
        })
    }

    /// The device of the file system that an overlay writes to.
    fn below(&self, overlay: &Mount) -> Option<Device> {
        let upper = upper_directory(&overlay.super_options)?;
        let tree = self.tree.get_or_init(|| Tree::new(&self.mounts));
        let below = tree.walk(&self.mounts, upper.as_os_str().as_bytes()).mount?;
        Some(below.device)
    }

    /// The remote file system that has to answer for that of `mount`: an overlay asks the one that it writes to. Where the host does not
    /// have the overlay mounted, its paths may be of anybody's view.
    #[must_use]
    pub fn behind(&self, mount: &Mount) -> Option<Device> {
        if !matches!(mount.fstype.as_str(), "overlay" | "overlayfs") {
            return None;
        }
        self.of_device(mount.device).next()?;
        let below = self.below(mount)?;
        self.of_device(below).any(|host| host.kind() == Kind::Remote).then_some(below)
    }

    fn of_device(&self, device: Device) -> impl Iterator<Item = &Mount> {
        let first = self.by_device.partition_point(|(of, _)| *of < device);
        let from = self.by_device.get(first..).unwrap_or_default().iter();
        from.take_while(move |(of, _)| *of == device).filter_map(|(_, index)| self.mounts.get(*index))
    }
}

/// The shortest mount point first; equally long ones by their bytes.
fn order(mount: &Mount) -> (usize, &[u8], u64) {
    let bytes = mount.mountpoint.as_os_str().as_bytes();
    (bytes.len(), bytes, mount.id)
}

/// Whether the host has a whole file system mounted for the instance of that directory name. No runtime mounts one right
/// below `/`, where a disk of the host may well have an instance's name (`/data`).
fn is_own_volume(host: &Mount, directory: &OsStr) -> bool {
    let place = match host.mountpoint.file_name() {
        Some(name) if name == "rootfs" => host.mountpoint.parent().unwrap_or(&host.mountpoint),
        _ => &host.mountpoint,
    };
    host.root == Path::new("/")
        && !directory.is_empty()
        && place.file_name() == Some(directory)
        && place.parent().is_some_and(|parent| parent != Path::new("/"))
}

/// The directory that an overlay writes to: its sizes are those of the file system it lies on.
fn upper_directory(super_options: &[u8]) -> Option<PathBuf> {
    let value = super_options
        .split(|b| *b == b',')
        .find_map(|option| option.strip_prefix(b"upperdir=".as_slice()))?;
    Some(line::path(value)).filter(|upper| upper.is_absolute())
}

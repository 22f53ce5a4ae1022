//! Which of an instance's file systems are only a directory on one of the host's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::line::Line;
use super::tree::Tree;
use super::{Device, MAX_HOST_MOUNTS, MAX_USERS_TEXT, Mount, SharedOn, Sharing, line, parse};
use crate::read::Take;

/// Which lines of the host's mountinfo are looked at, so that no user can have those of others left out.
#[derive(Debug, Default)]
pub struct HostLines {
    count: usize,
    /// How many bytes are of users' mounts.
    of_users: usize,
}

impl HostLines {
    /// Whether this line, the next one of the file, is looked at.
    pub fn sort(&mut self, line: &[u8]) -> Take {
        if parse(line, 1).first().is_some_and(is_users) {
            self.of_users = self.of_users.saturating_add(line.len());
            if self.of_users > MAX_USERS_TEXT {
                return Take::Drop;
            }
        }
        self.count += 1;
        if self.count > MAX_HOST_MOUNTS { Take::End } else { Take::Keep }
    }
}

/// Whether a user other than root mounted it: by fusermount(1), which has the kernel note who that was.
fn is_users(line: &Line<'_>) -> bool {
    let mut options = line.super_options.split(|byte| *byte == b',');
    let user = options.find_map(|option| option.strip_prefix(b"user_id=".as_slice()));
    line.fstype.starts_with(b"fuse") && user.is_some_and(|user| user != b"0")
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

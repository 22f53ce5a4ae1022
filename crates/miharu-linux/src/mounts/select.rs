//! Which mounts of an instance get a file system series.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::line::{Line, unescape};
use super::tree::Tree;
use super::{Device, FileSystem, Kind, MAX_FILE_SYSTEMS, Mount, RemoteFilesystems};

/// The most mounts of one device that are tried one after another (a bind of a single file is no file system).
const MAX_TRIED: usize = 8;

/// The most mounts of one instance whose path is followed; thousands of long ones would cost a scrape its time.
const MAX_WALKS: usize = 512;

/// The longest mount point, device name and type, in bytes, that becomes a label.
pub(super) const MAX_LABEL: usize = 1024;

/// The file systems of an instance, out of its own mounts: `/` first, then by mount point.
#[must_use]
pub fn select(mounts: &[Line<'_>], remote: RemoteFilesystems) -> Vec<FileSystem> {
    // Most containers have one mount at their root and none that needs a path followed.
    let tree = OnceCell::new();
    let Some(root) = root(mounts, &tree) else { return Vec::new() };
    if is_pseudo(root.fstype) || (is_remote(root.fstype) && remote == RemoteFilesystems::Skip) {
        // Every path of the instance begins on that root, so nothing below it can be reached without it either.
        return Vec::new();
    }
    let is_candidate =
        |mount: &&Line<'_>| mount.device != root.device && mount.id != root.id && !is_left_out(mount, remote);
    let mut candidates: Vec<Candidate<'_>> = mounts.iter().filter(is_candidate).map(Candidate::new).collect();
    candidates.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut by_device: BTreeMap<Device, Vec<Candidate<'_>>> = BTreeMap::new();
    for candidate in candidates.into_iter().take(MAX_WALKS) {
        let mount = candidate.mount;
        let reached = tree.get_or_init(|| Tree::new(mounts)).walk(mounts, mount.mountpoint);
        let is_seen = reached.mount.is_some_and(|top| top.id == mount.id);
        if is_seen && (!reached.remote || remote == RemoteFilesystems::Ask) {
            by_device.entry(mount.device).or_default().push(candidate);
        }
    }
    let mut others: Vec<Vec<Candidate<'_>>> = by_device.into_values().collect();
    others.sort_by(|a, b| a.first().map(Candidate::order).cmp(&b.first().map(Candidate::order)));
    let mut chosen = vec![FileSystem { mounts: vec![root.to_mount()] }];
    for group in others.into_iter().take(MAX_FILE_SYSTEMS - 1) {
        let mounts: Vec<Mount> = group.iter().take(MAX_TRIED).map(|one| one.mount.to_mount()).collect();
        chosen.push(FileSystem { mounts });
    }
    chosen
}

/// What one sees at `/`.
fn root<'m, 't>(mounts: &'m [Line<'t>], tree: &OnceCell<Tree>) -> Option<&'m Line<'t>> {
    let mut at_root = mounts.iter().filter(|mount| mount.mountpoint == b"/");
    let first = at_root.next()?;
    let is_mounted_on_none = first.parent == first.id || mounts.iter().all(|mount| mount.id != first.parent);
    if is_mounted_on_none && at_root.next().is_none() {
        return Some(first);
    }
    tree.get_or_init(|| Tree::new(mounts)).root(mounts)
}

/// A mount that may get a series.
struct Candidate<'m> {
    mount: &'m Line<'m>,
    mountpoint: Cow<'m, [u8]>,
}

impl<'m> Candidate<'m> {
    fn new(mount: &'m Line<'m>) -> Self {
        Self { mount, mountpoint: unescape(mount.mountpoint) }
    }

    /// The shortest mount point names a device; equally long ones are taken by their bytes.
    fn order(&self) -> (usize, &[u8], u64) {
        (self.mountpoint.len(), &self.mountpoint, self.mount.id)
    }
}

/// Mounts below an instance's root that never get a series.
fn is_left_out(mount: &Line<'_>, remote: RemoteFilesystems) -> bool {
    let fstype = mount.fstype;
    is_pseudo(fstype)
        || matches!(fstype, b"tmpfs" | b"ramfs" | b"overlay" | b"overlayfs" | b"aufs" | b"fuse.lxcfs")
        || fstype.starts_with(b"fuse.fuse-overlayfs")
        || (is_remote(fstype) && remote == RemoteFilesystems::Skip)
        || [mount.mountpoint, mount.source, fstype].into_iter().any(is_long)
}

/// Whether a field is too long for a label, escapes decoded.
fn is_long(field: &[u8]) -> bool {
    field.len() > MAX_LABEL && unescape(field).len() > MAX_LABEL
}

/// File systems that hold no data of their own.
fn is_pseudo(fstype: &[u8]) -> bool {
    matches!(
        fstype,
        b"autofs"
            | b"binder"
            | b"binfmt_misc"
            | b"bpf"
            | b"cgroup"
            | b"cgroup2"
            | b"configfs"
            | b"debugfs"
            | b"devpts"
            | b"devtmpfs"
            | b"efivarfs"
            | b"fusectl"
            | b"hugetlbfs"
            | b"mqueue"
            | b"nfsd"
            | b"nsfs"
            | b"proc"
            | b"pstore"
            | b"resctrl"
            | b"rpc_pipefs"
            | b"securityfs"
            | b"selinuxfs"
            | b"smackfs"
            | b"sysfs"
            | b"tracefs"
            | b"usbfs"
            | b"xenfs"
    )
}

/// Who answers for the size of a file system of that type.
pub(super) fn kind(fstype: &[u8]) -> Kind {
    if is_remote(fstype) {
        return Kind::Remote;
    }
    if is_told_from_memory(fstype) { Kind::Disk } else { Kind::Unsure }
}

/// File systems of which the kernel counts what is used while it is mounted, so that statfs(2) reads nothing. FAT, for one, may have to
/// read the whole of its table, ZFS waits for a pool that is suspended, and what is stacked asks what lies below.
fn is_told_from_memory(fstype: &[u8]) -> bool {
    matches!(
        fstype,
        b"bcachefs"
            | b"btrfs"
            | b"erofs"
            | b"ext2"
            | b"ext3"
            | b"ext4"
            | b"f2fs"
            | b"iso9660"
            | b"jfs"
            | b"ramfs"
            | b"reiserfs"
            | b"rootfs"
            | b"squashfs"
            | b"tmpfs"
            | b"udf"
            | b"xfs"
    )
}

/// File systems behind which a process or another machine stands, which may never answer.
pub(super) fn is_remote(fstype: &[u8]) -> bool {
    fstype == b"fuse"
        || fstype.starts_with(b"fuse.")
        || matches!(
            fstype,
            b"9p"
                | b"acfs"
                | b"afs"
                | b"autofs"
                | b"beegfs"
                | b"ceph"
                | b"cifs"
                | b"coda"
                | b"fuseblk"
                | b"gfs2"
                | b"glusterfs"
                | b"gpfs"
                | b"lustre"
                | b"ncpfs"
                | b"nfs"
                | b"nfs4"
                | b"ocfs2"
                | b"orangefs"
                | b"pvfs2"
                | b"smb2"
                | b"smb3"
                | b"smbfs"
                | b"vboxsf"
                | b"virtiofs"
        )
}

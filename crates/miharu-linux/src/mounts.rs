//! `mountinfo`: which of an instance's mounts get a file system series, and which of those are only a directory on a
//! file system of the host.
//!
//! Everything here is a decision on text; nothing is opened. The rules are those of metrics.md, "File systems". The
//! format is proc_pid_mountinfo(5): an instance's own file shows the mounts below its own root, under its own paths.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::read::{lines, number};

/// The most mounts of one instance that are looked at; inside, anybody can make as many as `fs.mount-max` lets them.
pub const MAX_MOUNTS: usize = 4096;

/// The most mounts of the host that are looked at.
pub const MAX_HOST_MOUNTS: usize = 65_536;

/// The most file systems of one instance that are reported.
pub const MAX_FILE_SYSTEMS: usize = 64;

/// The most mounts of one device that are tried one after another (a bind of a single file is no file system).
const MAX_TRIED: usize = 8;

/// The most mounts of one instance whose path is followed; thousands of long ones would cost a scrape its time.
const MAX_WALKS: usize = 512;

/// The longest mount point, device name and type, in bytes, that becomes a label.
const MAX_LABEL: usize = 1024;

/// One line of mountinfo.
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

/// Parses at most `limit` lines of mountinfo; a line that is none is skipped.
#[must_use]
pub fn parse(text: &[u8], limit: usize) -> Vec<Mount> {
    lines(text).filter_map(parse_line).take(limit).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    // A single blank divides the fields, so that an empty source stays a field.
    let mut parts = line.split(|b| *b == b' ');
    let id = number(parts.next()?)?;
    let parent = number(parts.next()?)?;
    let device = Device::parse(parts.next()?)?;
    let root = path(parts.next()?);
    let mountpoint = path(parts.next()?);
    let _options = parts.next()?;
    // Any number of optional fields, closed by a single hyphen.
    parts.by_ref().find(|part| *part == b"-")?;
    let fstype = String::from_utf8_lossy(&unescape(parts.next()?)).into_owned();
    let source = String::from_utf8_lossy(&unescape(parts.next()?)).into_owned();
    let super_options = parts.next().unwrap_or_default().to_vec();
    if fstype.is_empty() || !mountpoint.is_absolute() {
        return None;
    }
    Some(Mount { id, parent, device, root, mountpoint, fstype, source, super_options })
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(unescape(field)))
}

/// Decodes `\ooo`, by which the kernel writes blanks, tabs, newlines and backslashes; a backslash that begins no such
/// escape stays what it is.
#[must_use]
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = |at: usize| tail.get(at).map(|b| b.wrapping_sub(b'0')).filter(|digit| *digit < 8);
        if let (b'\\', Some(a @ 0..=3), Some(b), Some(c)) = (*first, octal(0), octal(1), octal(2)) {
            out.push(a << 6 | b << 3 | c);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// The file systems of an instance, out of its own mounts: `/` first, then by mount point.
#[must_use]
pub fn select(mounts: &[Mount], remote: RemoteFilesystems) -> Vec<FileSystem> {
    let tree = Tree::new(mounts);
    let Some(root) = tree.root() else { return Vec::new() };
    if is_pseudo(&root.fstype) || (is_remote(&root.fstype) && remote == RemoteFilesystems::Skip) {
        // Every path of the instance begins on that root, so nothing below it can be reached without it either.
        return Vec::new();
    }
    let is_candidate =
        |mount: &&Mount| mount.id != root.id && mount.device != root.device && !is_left_out(mount, remote);
    let mut candidates: Vec<&Mount> = mounts.iter().filter(is_candidate).collect();
    candidates.sort_by(|a, b| order(a).cmp(&order(b)));
    let mut by_device: BTreeMap<Device, Vec<&Mount>> = BTreeMap::new();
    for mount in candidates.into_iter().take(MAX_WALKS) {
        let reached = tree.walk(&mount.mountpoint);
        let is_seen = reached.mount.is_some_and(|top| top.id == mount.id);
        if is_seen && (!reached.remote || remote == RemoteFilesystems::Ask) {
            by_device.entry(mount.device).or_default().push(mount);
        }
    }
    let mut others: Vec<FileSystem> = by_device
        .into_values()
        .map(|group| FileSystem { mounts: group.into_iter().take(MAX_TRIED).cloned().collect() })
        .collect();
    others.sort_by(|a, b| a.mounts.first().map(order).cmp(&b.mounts.first().map(order)));
    let first = FileSystem { mounts: vec![root.clone()] };
    std::iter::once(first).chain(others).take(MAX_FILE_SYSTEMS).collect()
}

/// The shortest mount point names a device; equally long ones are taken by their bytes.
fn order(mount: &Mount) -> (usize, &[u8], u64) {
    let bytes = mount.mountpoint.as_os_str().as_bytes();
    (bytes.len(), bytes, mount.id)
}

/// Mounts below an instance's root that never get a series.
fn is_left_out(mount: &Mount, remote: RemoteFilesystems) -> bool {
    let fstype = mount.fstype.as_str();
    is_pseudo(fstype)
        || matches!(fstype, "tmpfs" | "ramfs" | "overlay" | "overlayfs" | "aufs" | "fuse.lxcfs")
        || fstype.starts_with("fuse.fuse-overlayfs")
        || (is_remote(fstype) && remote == RemoteFilesystems::Skip)
        || mount.mountpoint.as_os_str().len() > MAX_LABEL
        || mount.source.len() > MAX_LABEL
        || fstype.len() > MAX_LABEL
}

/// File systems that hold no data of their own.
fn is_pseudo(fstype: &str) -> bool {
    matches!(
        fstype,
        "autofs"
            | "binder"
            | "binfmt_misc"
            | "bpf"
            | "cgroup"
            | "cgroup2"
            | "configfs"
            | "debugfs"
            | "devpts"
            | "devtmpfs"
            | "efivarfs"
            | "fusectl"
            | "hugetlbfs"
            | "mqueue"
            | "nfsd"
            | "nsfs"
            | "proc"
            | "pstore"
            | "resctrl"
            | "rpc_pipefs"
            | "securityfs"
            | "selinuxfs"
            | "smackfs"
            | "sysfs"
            | "tracefs"
            | "usbfs"
            | "xenfs"
    )
}

/// File systems behind which a process or another machine stands, which may never answer.
fn is_remote(fstype: &str) -> bool {
    fstype == "fuse"
        || fstype.starts_with("fuse.")
        || matches!(
            fstype,
            "9p" | "acfs"
                | "afs"
                | "autofs"
                | "beegfs"
                | "ceph"
                | "cifs"
                | "coda"
                | "fuseblk"
                | "gfs2"
                | "glusterfs"
                | "gpfs"
                | "lustre"
                | "ncpfs"
                | "nfs"
                | "nfs4"
                | "ocfs2"
                | "orangefs"
                | "pvfs2"
                | "smb2"
                | "smb3"
                | "smbfs"
                | "vboxsf"
                | "virtiofs"
        )
}

/// Mounts by where they are mounted, to walk a path as the kernel would.
struct Tree<'m> {
    first: Option<&'m Mount>,
    children: HashMap<(u64, &'m OsStr), &'m Mount>,
}

/// Where a walk ended.
struct Reached<'m> {
    mount: Option<&'m Mount>,
    /// Whether the way there, the end not counted, leads over a remote file system.
    remote: bool,
}

impl<'m> Tree<'m> {
    fn new(mounts: &'m [Mount]) -> Self {
        let ids: std::collections::HashSet<u64> = mounts.iter().map(|mount| mount.id).collect();
        let is_first = |mount: &&Mount| {
            mount.mountpoint == Path::new("/") && (mount.parent == mount.id || !ids.contains(&mount.parent))
        };
        let children = mounts
            .iter()
            .filter(|mount| mount.parent != mount.id)
            .map(|mount| ((mount.parent, mount.mountpoint.as_os_str()), mount))
            .collect();
        Self { first: mounts.iter().find(is_first), children }
    }

    /// What one sees at `/`.
    fn root(&self) -> Option<&'m Mount> {
        self.walk(Path::new("/")).mount
    }

    /// Follows `path` from the root, at every component onto whatever is mounted there last.
    fn walk(&self, path: &Path) -> Reached<'m> {
        let mut reached = Reached { mount: self.first, remote: false };
        // A file that lies could make the mounts a ring; a real walk passes each of them once at most.
        let mut steps = self.children.len();
        let mut prefixes: Vec<&Path> = path.ancestors().collect();
        prefixes.reverse();
        for prefix in prefixes {
            while let Some(next) =
                reached.mount.and_then(|mount| self.children.get(&(mount.id, prefix.as_os_str())))
            {
                reached.remote |= reached.mount.is_some_and(|mount| is_remote(&mount.fstype));
                reached.mount = Some(next);
                let Some(left) = steps.checked_sub(1) else { return reached };
                steps = left;
            }
        }
        reached
    }
}

/// The host's own mounts (`/proc/1/mountinfo`), read once a collection, to tell an instance's own volume from a
/// directory on one of the host's.
#[derive(Debug, Clone, Default)]
pub struct HostMounts {
    mounts: Vec<Mount>,
    by_device: HashMap<Device, Vec<usize>>,
}

impl HostMounts {
    /// Parses the host's mountinfo.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mounts = parse(text, MAX_HOST_MOUNTS);
        let mut by_device: HashMap<Device, Vec<usize>> = HashMap::new();
        for (index, mount) in mounts.iter().enumerate() {
            by_device.entry(mount.device).or_default().push(index);
        }
        Self { mounts, by_device }
    }

    /// Whose the file system of `mount` is, for an instance whose directory on the host is called `directory`
    /// (`c1`, `project_c1`): runtimes mount an instance's own volume at a directory of that name, or at a `rootfs` in
    /// it.
    #[must_use]
    pub fn sharing(&self, mount: &Mount, directory: &OsStr) -> Sharing {
        let on_host: Vec<&Mount> = if matches!(mount.fstype.as_str(), "overlay" | "overlayfs") {
            let upper = upper_directory(&mount.super_options);
            let below = upper.and_then(|upper| Tree::new(&self.mounts).walk(&upper).mount);
            below.map(|below| self.of_device(below.device).collect()).unwrap_or_default()
        } else {
            self.of_device(mount.device).collect()
        };
        if on_host.iter().any(|host| is_own_volume(host, directory)) {
            return Sharing::Own;
        }
        // The mount of the whole file system names the device best, then the shortest path.
        let best = on_host.into_iter().min_by_key(|host| (host.root != Path::new("/"), order(host)));
        best.map_or(Sharing::Own, |host| {
            Sharing::Shared(SharedOn { device: host.source.clone(), mount: host.clone() })
        })
    }

    fn of_device(&self, device: Device) -> impl Iterator<Item = &Mount> {
        self.by_device.get(&device).into_iter().flatten().filter_map(|index| self.mounts.get(*index))
    }
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
    Some(path(value)).filter(|upper| upper.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(text: &str, remote: RemoteFilesystems) -> Vec<String> {
        select(&parse(text.as_bytes(), MAX_MOUNTS), remote)
            .iter()
            .map(|fs| fs.mounts.iter().map(|m| m.mountpoint.to_string_lossy()).collect::<Vec<_>>().join("|"))
            .collect()
    }

    /// What an LXC container with lxcfs, a tmpfs, a disk and binds of files shows.
    const CONTAINER: &str = "\
100 50 254:0 /lxc/u1/rootfs / rw - ext4 /dev/vda rw
101 100 0:50 / /proc rw - proc proc rw
102 101 0:60 /proc/cpuinfo /proc/cpuinfo rw - fuse.lxcfs lxcfs rw
103 100 0:51 / /dev rw - tmpfs none rw
104 103 0:6 /null /dev/null rw - devtmpfs devtmpfs rw
105 100 7:1 / /srv/data rw shared:3 master:7 - ext4 /dev/loop1 rw
106 100 7:1 /sub /srv/d rw - ext4 /dev/loop1 rw
107 100 254:0 /etc/hosts /etc/hosts rw - ext4 /dev/vda rw
108 100 254:3 / /mnt/a\\040b\\134c\\012d rw - xfs /dev/vdc rw
109 100 0:70 / /mnt/fuse rw - fuse.sshfs h:/ rw
110 109 254:9 / /mnt/fuse/below rw - ext4 /dev/vdz rw
111 100 254:5 / /mnt/hidden/deep rw - ext4 /dev/vdd rw
112 100 0:71 / /mnt/hidden rw - overlay overlay rw
";

    #[test]
    fn escapes_are_decoded() {
        assert_eq!(unescape(br"a\040b\011\012\134\377\400\8x\"), b"a b\t\n\\\xff\\400\\8x\\");
    }

    #[test]
    fn a_container_gets_its_disks() {
        assert_eq!(
            points(CONTAINER, RemoteFilesystems::Skip),
            ["/", "/srv/d|/srv/data", "/mnt/a b\\c\nd"],
            "no pseudo, lxcfs, tmpfs, overlay, file of the root's device, FUSE, what is below it, or hidden mount"
        );
        assert_eq!(
            points(CONTAINER, RemoteFilesystems::Ask),
            ["/", "/srv/d|/srv/data", "/mnt/fuse", "/mnt/a b\\c\nd", "/mnt/fuse/below"]
        );
    }

    #[test]
    fn what_is_too_long_for_a_label_is_left_out() {
        let long = "x".repeat(MAX_LABEL + 1);
        let text = format!(
            "1 0 254:0 / / rw - ext4 s rw\n2 1 7:1 / /a rw - ext4 {long} rw\n3 1 7:2 / /{long} rw - ext4 s rw\n\
             4 1 7:3 / /b rw - fuse.{long} s rw\n5 1 7:4 / /c rw - ext4 s rw\n"
        );
        assert_eq!(points(&text, RemoteFilesystems::Ask), ["/", "/c"]);
    }

    #[test]
    fn the_last_mount_on_the_root_counts() {
        let text = "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 7:0 / / rw - ext4 /dev/loop0 rw\n\
                    3 1 254:7 / /old rw - ext4 /dev/vdx rw\n";
        assert_eq!(points(text, RemoteFilesystems::Skip), ["/"]);
        let selected = select(&parse(text.as_bytes(), 10), RemoteFilesystems::Skip);
        assert_eq!(selected[0].mounts[0].source, "/dev/loop0");
    }

    #[test]
    fn a_remote_root_is_not_asked_nor_anything_on_it() {
        let text = "1 0 0:9 / / rw - nfs4 h:/ rw\n2 1 7:0 / /x rw - ext4 /dev/loop0 rw\n";
        assert!(points(text, RemoteFilesystems::Skip).is_empty());
        assert_eq!(points(text, RemoteFilesystems::Ask), ["/", "/x"]);
    }

    #[test]
    fn malformed_lines_and_rings_do_no_harm() {
        let text = "x\n1 2\n3 4 5:6 / / rw\n7 8 a:b / / rw - ext4 s rw\n9 9 1:1 / / rw - ext4  rw\n";
        let mounts = parse(text.as_bytes(), MAX_MOUNTS);
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].source, "");
        let ring = "1 0 1:1 / / rw - ext4 a rw\n2 3 1:2 / /x rw - ext4 b rw\n3 2 1:3 / /x rw - ext4 c rw\n\
                    4 4 1:4 / /y rw - ext4 d rw\n";
        assert_eq!(points(ring, RemoteFilesystems::Skip), ["/"]);
        assert_eq!(parse(CONTAINER.as_bytes(), 3).len(), 3);
    }

    const HOST: &str = "\
27 1 254:0 / / rw - ext4 /dev/vda rw
30 27 253:1 / /var/lib/incus/storage-pools/lvm/containers/c1 rw - ext4 /dev/mapper/c1 rw
31 27 253:2 / /srv rw - xfs /dev/sdb rw
32 27 253:2 /pool /var/lib/incus/storage-pools/d rw - xfs /dev/sdb rw
33 27 253:3 / /var/lib/lxc/c1/rootfs rw - ext4 /dev/sdc rw
";

    fn sharing(line: &str, directory: &str) -> Option<String> {
        let mount = parse(line.as_bytes(), 1).remove(0);
        match HostMounts::parse(HOST.as_bytes()).sharing(&mount, OsStr::new(directory)) {
            Sharing::Own => None,
            Sharing::Shared(on) => Some(format!("{} {}", on.device, on.mount.mountpoint.display())),
        }
    }

    #[test]
    fn whose_a_file_system_is() {
        let root = |device: &str| format!("1 0 {device} /x / rw - ext4 src rw\n");
        assert_eq!(sharing(&root("254:0"), "c1"), Some("/dev/vda /".into()));
        assert_eq!(sharing(&root("253:2"), "c1"), Some("/dev/sdb /srv".into()));
        assert_eq!(sharing(&root("253:1"), "c1"), None);
        assert_eq!(sharing(&root("253:3"), "c1"), None);
        assert_eq!(
            sharing(&root("253:1"), "c2"),
            Some("/dev/mapper/c1 /var/lib/incus/storage-pools/lvm/containers/c1".into())
        );
        assert_eq!(sharing(&root("253:2"), "srv"), Some("/dev/sdb /srv".into()), "a disk of the host");
        assert_eq!(sharing(&root("7:7"), "c1"), None, "an image that only the instance has mounted");
        let overlay = |upper: &str| {
            format!("1 0 0:88 / / rw - overlay overlay rw,lowerdir=/l,upperdir={upper},workdir=/w\n")
        };
        assert_eq!(sharing(&overlay("/srv/up\\054x"), "c1"), Some("/dev/sdb /srv".into()));
        assert_eq!(sharing(&overlay("up"), "c1"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mounts = parse(&text, MAX_MOUNTS);
            let _ = select(&mounts, RemoteFilesystems::Ask);
        }

        #[test]
        fn odd_trees_end(
            rows in proptest::collection::vec((0u64..6, 0u64..6, 0u32..4, "(/[ab]{0,1}){1,3}"), 0..12)
        ) {
            let text: String = rows
                .iter()
                .map(|(id, parent, minor, at)| format!("{id} {parent} 8:{minor} / {at} rw - ext4 s rw\n"))
                .collect();
            let selected = select(&parse(text.as_bytes(), MAX_MOUNTS), RemoteFilesystems::Ask);
            let devices: std::collections::HashSet<_> = selected.iter().map(|fs| fs.mounts[0].device).collect();
            prop_assert_eq!(devices.len(), selected.len());
        }

        #[test]
        fn escapes_round_trip(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            let escaped: Vec<u8> = name
                .iter()
                .flat_map(|b| match b {
                    b' ' | b'\t' | b'\n' | b'\\' => format!("\\{b:03o}").into_bytes(),
                    b => vec![*b],
                })
                .collect();
            prop_assert_eq!(unescape(&escaped), name);
        }
    }
}

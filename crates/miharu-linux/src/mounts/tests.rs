//! Whole mount tables, as instances and hosts have them.

use std::ffi::OsStr;

use proptest::prelude::*;

use super::*;
use crate::read::Extent;

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
    assert_eq!(*unescape(br"a\040b\011\012\134\377\400\8x\"), *b"a b\t\n\\\xff\\400\\8x\\");
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
    let long = "x".repeat(select::MAX_LABEL + 1);
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
    assert_eq!(mounts[0].source, b"");
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
    let mount = parse(line.as_bytes(), 1)[0].to_mount();
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

#[test]
fn who_answers_for_a_size() {
    let kind =
        |fstype: &str| parse(format!("1 0 0:9 / / rw - {fstype} x rw\n").as_bytes(), 1)[0].to_mount().kind();
    for (fstype, expected) in [
        ("ext4", Kind::Disk),
        ("tmpfs", Kind::Disk),
        ("overlay", Kind::Unsure),
        ("ecryptfs", Kind::Unsure),
        ("vfat", Kind::Unsure),
        ("zfs", Kind::Unsure),
        ("of-tomorrow", Kind::Unsure),
        ("fuse.fuse-overlayfs", Kind::Remote),
        ("fuseblk", Kind::Remote),
        ("nfs4", Kind::Remote),
    ] {
        assert_eq!(kind(fstype), expected, "{fstype}");
    }
}

#[test]
fn a_remote_file_system_behind_an_overlay_of_the_hosts() {
    let overlay = |device: &str, upper: &str| {
        format!("90 27 {device} / /merged rw - overlay overlay rw,lowerdir=/l,upperdir={upper}\n")
    };
    let nfs = "40 27 0:44 / /nfs rw - nfs4 h:/ rw\n";
    let behind = |host: &str, own: &str| {
        HostMounts::parse(format!("{HOST}{nfs}{host}").as_bytes())
            .behind(&parse(own.as_bytes(), 1)[0].to_mount())
    };
    let there = overlay("0:88", "/nfs/up");
    assert_eq!(behind(&there, &there), Some(Device { major: 0, minor: 44 }));
    assert_eq!(behind("", &there), None, "a path of another view");
    let on_disk = overlay("0:88", "/srv/up");
    assert_eq!(behind(&on_disk, &on_disk), None);
    assert_eq!(behind(&there, nfs), None, "no overlay");
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
        prop_assert_eq!(unescape(&escaped).into_owned(), name);
    }
}

#[test]
fn users_cannot_have_other_mounts_of_the_host_left_out() {
    let of_user =
        |place: &str| format!("70 1 0:50 / /home/ann/{place} rw - fuse.x x rw,user_id=1000,group_id=1000\n");
    let long = of_user(&"a\\040".repeat(4000));
    let disk = "30 1 8:2 / /data rw - ext4 /dev/sda2 rw\n";
    let of_root = "31 1 0:51 / /mnt rw - fuse.sshfs x rw,user_id=0,group_id=0\n";
    let text = format!("{}{}{disk}{of_root}", of_user("first"), long.repeat(1000));
    let mut lines = HostLines::default();
    let kept: Vec<&str> =
        text.lines().filter(|line| lines.sort(line.as_bytes()) == crate::read::Take::Keep).collect();
    // Somebody else's that comes late is left out, too, and not to blame.
    let late = of_user("late").replace("1000", "1001");
    assert_eq!(lines.sort(late.trim().as_bytes()), crate::read::Take::Drop);
    assert_eq!(lines.left_out(Extent::Whole), [LeftOut::OfUsers { most: 1000 }]);
    assert_eq!(lines.left_out(Extent::Cut), [LeftOut::Rest, LeftOut::OfUsers { most: 1000 }]);
    let mut few = HostLines::default();
    assert_eq!(few.sort(late.trim().as_bytes()), crate::read::Take::Keep);
    assert_eq!(few.left_out(Extent::Whole), []);
    let size: usize = kept.iter().map(|line| line.len()).sum();
    assert!(size < MAX_USERS_TEXT + 1000, "{size}");
    assert_eq!(kept.iter().filter(|line| line.contains("/first ")).count(), 1);
    assert_eq!(kept.iter().rev().take(2).rev().copied().collect::<Vec<_>>(), [disk.trim(), of_root.trim()]);
    let many = (0..=MAX_HOST_MOUNTS).map(|_| lines.sort(disk.trim().as_bytes()));
    assert!(many.into_iter().any(|take| take == crate::read::Take::End), "root's own have an end, too");
}

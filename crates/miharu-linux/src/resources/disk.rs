//! Disks: `/sys/block` (Documentation/ABI/stable/sysfs-block).

use std::path::Path;

use super::device::{Origin, link_name, origin};
use super::{Files, entries};

/// The unit of the file `size`, whatever the disk's own sectors are.
const SECTOR: u64 = 512;

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// Its name.
    pub name: String,
    /// Its number, `major:minor`.
    pub number: Option<String>,
    /// What it is called by who made it.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its world-wide name.
    pub wwn: Option<String>,
    /// Which bus it is on: `scsi`, `nvme`, `virtio`, …
    pub bus: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// Bytes a logical block.
    pub block_size: Option<u64>,
    /// Whether it may not be written to.
    pub is_read_only: bool,
    /// Whether it can be taken out.
    pub is_removable: bool,
    /// Whether it turns.
    pub is_rotational: bool,
    /// Where it is plugged in.
    pub origin: Origin,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

/// A part of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Its number as a block device, `major:minor`.
    pub number: Option<String>,
    /// Which part it is.
    pub index: u64,
    /// Bytes.
    pub size: Option<u64>,
    /// Whether it may not be written to.
    pub is_read_only: bool,
}

pub(super) fn read(files: &mut Files<'_>) -> Vec<Disk> {
    let mut disks = Vec::new();
    for (name, path) in entries(&files.roots.sys.join("block")) {
        let device = path.join("device");
        // What no device stands behind is virtual.
        if !device.is_dir() {
            continue;
        }
        disks.push(Disk {
            number: files.text(&path.join("dev")),
            model: files.text(&device.join("model")),
            serial: files.text(&path.join("serial")).or_else(|| files.text(&device.join("serial"))),
            wwn: files.text(&path.join("wwid")).or_else(|| files.text(&device.join("wwid"))),
            bus: link_name(&device.join("subsystem")),
            size: size(files, &path),
            block_size: files.number(&path.join("queue/logical_block_size")),
            is_read_only: files.flag(&path.join("ro")),
            is_removable: files.flag(&path.join("removable")),
            is_rotational: files.flag(&path.join("queue/rotational")),
            origin: origin(files, &device),
            partitions: partitions(files, &path),
            name,
        });
    }
    disks
}

fn size(files: &mut Files<'_>, path: &Path) -> Option<u64> {
    files.number(&path.join("size"))?.checked_mul(SECTOR)
}

fn partitions(files: &mut Files<'_>, disk: &Path) -> Vec<Partition> {
    let mut partitions = Vec::new();
    for (name, path) in entries(disk) {
        let Some(index) = files.number(&path.join("partition")) else { continue };
        partitions.push(Partition {
            name,
            number: files.text(&path.join("dev")),
            index,
            size: size(files, &path),
            is_read_only: files.flag(&path.join("ro")),
        });
    }
    partitions.sort_by_key(|partition| partition.index);
    partitions
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::read::Buffer;
    use crate::roots::Roots;

    #[test]
    fn a_disk_is_read_with_its_parts_and_a_loop_device_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path().join("sys");
        let disk = sys.join("devices/pci0000:00/0000:00:02.0/virtio1/block/vda");
        for (path, text) in [
            ("dev", "254:0"),
            ("size", "2048"),
            ("removable", "0"),
            ("ro", "1"),
            ("vda10/partition", "10"),
            ("vda10/size", "8"),
            ("vda2/partition", "2"),
            ("../../numa_node", "-1"),
            ("../../../numa_node", "0"),
        ] {
            let path = disk.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        }
        symlink("../..", disk.join("device")).unwrap();
        std::fs::create_dir_all(sys.join("block/loop0")).unwrap();
        symlink("../devices/pci0000:00/0000:00:02.0/virtio1/block/vda", sys.join("block/vda")).unwrap();
        let roots = Roots::at(dir.path());
        let disks = read(&mut Files { roots: &roots, buffer: Buffer::new() });
        let [disk] = disks.as_slice() else { panic!("{disks:?}") };
        assert_eq!((disk.name.as_str(), disk.size, disk.is_read_only), ("vda", Some(1 << 20), true));
        assert_eq!(disk.origin.pci_address.as_deref(), Some("0000:00:02.0"));
        assert_eq!(disk.origin.node, Some(0));
        let parts: Vec<_> = disk.partitions.iter().map(|part| (part.index, part.size)).collect();
        assert_eq!(parts, [(2, None), (10, Some(4096))]);
    }
}

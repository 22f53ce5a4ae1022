//! Block devices by number: what they are called, and which of a stack of them is reported.
//!
//! `/sys/dev/block/M:m` links to the device's directory (sysfs, Documentation/ABI/stable/sysfs-block).

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::mounts::Device;
use crate::roots::Roots;

/// How deep a stack of devices is followed (LUKS on LVM on RAID on a partition is four).
const MAX_DEPTH: usize = 8;

/// Which devices of a stack are reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layers {
    /// The lowest alone, so that nothing is counted twice; no partitions, loop, ram and zram devices either.
    #[default]
    One,
    /// All that the kernel counts, as Incus and LXD do.
    All,
}

/// The host's block devices, each looked up once. Meant for one collection: numbers are given out again.
#[derive(Debug)]
pub struct BlockDevices {
    directory: PathBuf,
    known: HashMap<Device, Option<BlockDevice>>,
}

/// One block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// Its name, such as `sda`, `dm-0`, `cciss/c0d0`.
    pub name: String,
    /// For a partition the disk that it is a part of.
    pub disk: Option<Device>,
    /// The devices right below it.
    pub slaves: Vec<Device>,
}

impl BlockDevice {
    /// Whether its data lies in memory or in a file, whose own device counts it already.
    fn is_backed_elsewhere(&self) -> bool {
        ["loop", "ram", "zram"].iter().any(|kind| {
            let number = self.name.strip_prefix(kind);
            number.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        })
    }
}

impl BlockDevices {
    /// Nothing looked up yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { directory: roots.sys.join("dev/block"), known: HashMap::new() }
    }

    /// The device of a number; `None` where there is none (any more).
    pub fn get(&mut self, device: Device) -> Option<&BlockDevice> {
        let directory = &self.directory;
        self.known.entry(device).or_insert_with(|| look_up(directory, device)).as_ref()
    }

    /// The devices out of `counted` that get series, with their names, in the same order. Devices without a name are
    /// left out, and so is one whose lower layer is itself in the list; each name stands once.
    pub fn reported(&mut self, counted: &[Device], layers: Layers) -> Vec<(Device, String)> {
        let mut candidates: Vec<(Device, String)> = Vec::new();
        for device in counted {
            let Some(block) = self.get(*device) else { continue };
            let (name, is_partition) = (block.name.clone(), block.disk.is_some());
            if layers == Layers::All || !(is_partition || self.lies_elsewhere(*device, MAX_DEPTH)) {
                candidates.push((*device, name));
            }
        }
        let devices: HashSet<Device> = candidates.iter().map(|(device, _)| *device).collect();
        let mut names = HashSet::new();
        candidates.retain(|(device, name)| {
            let is_kept = layers == Layers::All || !self.stands_on(*device, &devices, MAX_DEPTH);
            is_kept && names.insert(name.clone())
        });
        candidates
    }

    /// Whether all data of `device` lies in memory or in files: a volume on a loop device (as LXD makes its LVM pools)
    /// is counted on the disk that holds the image, too.
    fn lies_elsewhere(&mut self, device: Device, depth: usize) -> bool {
        let Some(depth) = depth.checked_sub(1) else { return false };
        let disk = self.get(device).and_then(|block| block.disk);
        let Some(block) = self.get(disk.unwrap_or(device)) else { return false };
        let slaves = block.slaves.clone();
        block.is_backed_elsewhere()
            || (!slaves.is_empty() && slaves.into_iter().all(|slave| self.lies_elsewhere(slave, depth)))
    }

    /// Whether a device somewhere below `device` is among `others`.
    fn stands_on(&mut self, device: Device, others: &HashSet<Device>, depth: usize) -> bool {
        let Some(depth) = depth.checked_sub(1) else { return false };
        let slaves = self.get(device).map(|block| block.slaves.clone()).unwrap_or_default();
        slaves.into_iter().any(|slave| {
            // I/O of a partition is counted for its disk.
            let whole = self.get(slave).and_then(|block| block.disk).unwrap_or(slave);
            others.contains(&slave) || others.contains(&whole) || self.stands_on(whole, others, depth)
        })
    }
}

fn look_up(directory: &Path, device: Device) -> Option<BlockDevice> {
    let link = directory.join(format!("{}:{}", device.major, device.minor));
    let target = std::fs::read_link(&link).ok()?;
    // sysfs writes a slash in a device's name as an exclamation mark.
    let name = String::from_utf8_lossy(target.file_name()?.as_bytes()).replace('!', "/");
    let is_partition = link.join("partition").exists();
    // The link is followed first, so that its parent is the disk's directory.
    let disk = is_partition.then(|| number_of(&link.join("../dev"))).flatten();
    let slaves = std::fs::read_dir(link.join("slaves"))
        .map(|entries| entries.filter_map(|entry| number_of(&entry.ok()?.path().join("dev"))).collect())
        .unwrap_or_default();
    Some(BlockDevice { name, disk, slaves })
}

fn number_of(file: &Path) -> Option<Device> {
    Device::parse(std::fs::read(file).ok()?.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// `dm-1` (LUKS) on `dm-0` (LVM) on the partition `sda2` of `sda`; a loop device; `sdb` alone.
    fn tree() -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join("sys").join(path);
        std::fs::create_dir_all(at("dev/block")).unwrap();
        let device = |path: &str, number: &str| {
            std::fs::create_dir_all(at("devices").join(path).join("slaves")).unwrap();
            std::fs::write(at("devices").join(path).join("dev"), format!("{number}\n")).unwrap();
            symlink(format!("../../devices/{path}"), at("dev/block").join(number)).unwrap();
        };
        device("pci/sda", "8:0");
        device("pci/sda/sda2", "8:2");
        std::fs::write(at("devices/pci/sda/sda2/partition"), "2\n").unwrap();
        device("pci/cciss!c0d0", "8:16");
        for (name, number) in [("dm-0", "253:0"), ("dm-1", "253:1"), ("loop7", "7:7")] {
            device(&format!("virtual/{name}"), number);
        }
        symlink("../../../pci/sda/sda2", at("devices/virtual/dm-0/slaves/sda2")).unwrap();
        symlink("../../dm-0", at("devices/virtual/dm-1/slaves/dm-0")).unwrap();
        device("virtual/loop7/loop7p1", "259:1");
        std::fs::write(at("devices/virtual/loop7/loop7p1/partition"), "1\n").unwrap();
        for (name, number, below) in [("dm-2", "253:2", "loop7/loop7p1"), ("dm-3", "253:3", "dm-2")] {
            device(&format!("virtual/{name}"), number);
            symlink(format!("../../{below}"), at(&format!("devices/virtual/{name}/slaves/below"))).unwrap();
        }
        base
    }

    fn names(counted: &[(u32, u32)], layers: Layers) -> Vec<String> {
        let base = tree();
        let counted: Vec<Device> =
            counted.iter().map(|(major, minor)| Device { major: *major, minor: *minor }).collect();
        let mut devices = BlockDevices::new(&Roots::at(base.path()));
        devices.reported(&counted, layers).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn one_layer_of_a_stack_is_reported() {
        let all = [(8, 0), (8, 2), (253, 0), (253, 1), (7, 7), (8, 16), (9, 9)];
        assert_eq!(names(&all, Layers::One), ["sda", "cciss/c0d0"]);
        assert_eq!(names(&all, Layers::All), ["sda", "sda2", "dm-0", "dm-1", "loop7", "cciss/c0d0"]);
    }

    #[test]
    fn an_upper_layer_counts_where_the_lower_does_not() {
        assert_eq!(names(&[(253, 1), (253, 0)], Layers::One), ["dm-0"]);
        assert_eq!(names(&[(253, 1)], Layers::One), ["dm-1"]);
        assert_eq!(names(&[(253, 1), (8, 0), (8, 0)], Layers::One), ["sda"]);
    }

    #[test]
    fn a_volume_on_a_loop_device_is_counted_where_the_image_lies() {
        assert_eq!(names(&[(7, 7), (8, 0), (253, 2), (253, 3)], Layers::One), ["sda"]);
        assert_eq!(names(&[(253, 3)], Layers::One), Vec::<String>::new());
        assert_eq!(names(&[(253, 3)], Layers::All), ["dm-3"]);
    }

    #[test]
    fn a_number_without_a_device_has_no_name() {
        let mut devices = BlockDevices::new(&Roots::default());
        assert_eq!(devices.get(Device { major: 4095, minor: 1 }), None);
    }
}

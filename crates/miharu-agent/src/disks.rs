//! Block devices: `/proc/diskstats`, and which of them lie on others.

use std::collections::HashSet;

use miharu_api::report::{Disk, Layer, MAX_ROWS};
use miharu_linux::Roots;
use miharu_linux::block::{BlockDevices, Layers};
use miharu_linux::mounts::Device;
use miharu_linux::read::{fields, lines, number};

/// Bytes of a sector of `/proc/diskstats`, whatever the device's own are.
const SECTOR: u64 = 512;

/// Parses `/proc/diskstats` and tells the layers apart, disks first. Devices of upper layers that were never used (a guest has
/// a row of loop devices) are left out.
#[must_use]
pub fn read(roots: &Roots, diskstats: &[u8]) -> Vec<Disk> {
    let rows: Vec<(Device, Disk)> = lines(diskstats).filter_map(parse_line).collect();
    let counted: Vec<Device> = rows.iter().map(|(device, _)| *device).collect();
    let reported = BlockDevices::new(roots).reported(&counted, Layers::One);
    let lowest: HashSet<Device> = reported.into_iter().map(|(device, _)| device).collect();
    let (mut disks, uppers): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(device, _)| lowest.contains(device));
    disks.extend(uppers.into_iter().filter(|(_, disk)| is_used(disk)));
    let layered = disks.into_iter().take(MAX_ROWS).map(|(device, disk)| {
        let layer = if lowest.contains(&device) { Layer::Disk } else { Layer::Virtual };
        Disk { layer: Some(layer), ..disk }
    });
    layered.collect()
}

/// One line; see <https://docs.kernel.org/admin-guide/iostats.html>.
fn parse_line(line: &[u8]) -> Option<(Device, Disk)> {
    let mut parts = fields(line);
    let mut number_32 = || u32::try_from(number(parts.next()?)?).ok();
    let device = Device { major: number_32()?, minor: number_32()? };
    let name = String::from_utf8_lossy(parts.next()?).into_owned();
    let mut figures = [0; 8];
    for figure in &mut figures {
        *figure = number(parts.next()?)?;
    }
    let [reads, _, read_sectors, read_ms, writes, _, written_sectors, write_ms] = figures;
    let disk = Disk {
        device: name,
        disk_read_bytes: read_sectors.checked_mul(SECTOR),
        disk_reads_completed: Some(reads),
        disk_written_bytes: written_sectors.checked_mul(SECTOR),
        disk_writes_completed: Some(writes),
        disk_read_time_seconds: Some(read_ms as f64 / 1e3),
        disk_write_time_seconds: Some(write_ms as f64 / 1e3),
        layer: None,
    };
    Some((device, disk))
}

fn is_used(disk: &Disk) -> bool {
    disk.disk_reads_completed != Some(0) || disk.disk_writes_completed != Some(0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    const DISKSTATS: &[u8] = b"   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n   \
7       1 loop1 5 0 40 1 0 0 0 0 0 0 0\n 254       0 vda 100 3 2048 250 7 1 16 1500 0 9 9 0 0 0 0\n 254       1 vda1 90 3 2000 200 7 1 16 1500 0 9 9\n cut 1 2\n";

    fn tree() -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join("sys").join(path);
        fs::create_dir_all(at("dev/block")).unwrap();
        for (path, number) in [
            ("virtual/loop0", "7:0"),
            ("virtual/loop1", "7:1"),
            ("pci/vda", "254:0"),
            ("pci/vda/vda1", "254:1"),
        ] {
            fs::create_dir_all(at("devices").join(path).join("slaves")).unwrap();
            fs::write(at("devices").join(path).join("dev"), number).unwrap();
            symlink(format!("../../devices/{path}"), at("dev/block").join(number)).unwrap();
        }
        fs::write(at("devices/pci/vda/vda1/partition"), "1\n").unwrap();
        base
    }

    #[test]
    fn disks_come_first_and_upper_layers_are_marked() {
        let base = tree();
        let disks = read(&Roots::at(base.path()), DISKSTATS);
        let layers: Vec<_> = disks.iter().map(|disk| (disk.device.as_str(), disk.layer.unwrap())).collect();
        assert_eq!(
            layers,
            [("vda", Layer::Disk), ("loop1", Layer::Virtual), ("vda1", Layer::Virtual)],
            "loop0 was never used"
        );
        let first = &disks[0];
        assert_eq!((first.disk_reads_completed, first.disk_read_bytes), (Some(100), Some(1 << 20)));
        assert_eq!((first.disk_writes_completed, first.disk_written_bytes), (Some(7), Some(8192)));
        assert_eq!((first.disk_read_time_seconds, first.disk_write_time_seconds), (Some(0.25), Some(1.5)));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let base = tempfile::tempdir().unwrap();
            let _ = read(&Roots::at(base.path()), &text);
        }
    }
}

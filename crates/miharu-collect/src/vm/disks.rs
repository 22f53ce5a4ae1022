//! Which of a guest's block devices are reported: the lowest layer alone, as for the host (metrics.md, rule 7).
//!
//! A guest's `/sys` is not there to look into, so where its agent does not say what lies on what, names have to do.

use miharu_linux::block::Layers;
use miharu_metrics::figures::Disk;

/// What is known of a device's place in the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guess {
    /// It is the lowest layer.
    Lowest,
    /// It lies on others.
    Upper,
    /// Its name has to tell.
    ByName,
}

/// The devices that get series, in their order.
pub(crate) fn reported(disks: Vec<(Disk, Guess)>, layers: Layers) -> Vec<Disk> {
    if layers == Layers::All {
        return disks.into_iter().map(|(disk, _)| disk).collect();
    }
    let names: std::collections::HashSet<String> =
        disks.iter().map(|(disk, _)| disk.device.clone()).collect();
    let is_disk = |disk: &Disk, guess: Guess| match guess {
        Guess::Lowest => true,
        Guess::Upper => false,
        Guess::ByName => {
            let name = disk.device.as_str();
            !is_in_memory_or_file(name)
                && !is_stacked(name)
                && !whole_disk(name).is_some_and(|whole| names.contains(whole))
        }
    };
    // Where nothing but upper layers is told, what they lie on is not, and they count.
    let only_stacked = !disks.iter().any(|(disk, guess)| is_disk(disk, *guess));
    let is_kept = |disk: &Disk, guess: Guess| {
        is_disk(disk, guess) || (only_stacked && guess == Guess::ByName && is_stacked(&disk.device))
    };
    disks.into_iter().filter(|(disk, guess)| is_kept(disk, *guess)).map(|(disk, _)| disk).collect()
}

/// `loop0`, `ram1`, `zram0`: the data is in memory, or counted for another device.
fn is_in_memory_or_file(name: &str) -> bool {
    ["loop", "ram", "zram"].iter().any(|kind| is_numbered(name, kind))
}

/// `dm-0`, `md127`: made of other devices.
fn is_stacked(name: &str) -> bool {
    ["dm-", "md"].iter().any(|kind| is_numbered(name, kind))
}

fn is_numbered(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// What the disk would be called if the name is a partition's: `sda` of `sda1`, `nvme0n1` of `nvme0n1p2`.
fn whole_disk(name: &str) -> Option<&str> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() || stem.is_empty() {
        return None;
    }
    match stem.strip_suffix('p') {
        Some(whole) if whole.ends_with(|c: char| c.is_ascii_digit()) => Some(whole),
        _ => Some(stem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(names: &[&str]) -> Vec<String> {
        let disks = names
            .iter()
            .map(|name| (Disk { device: (*name).to_owned(), ..Disk::default() }, Guess::ByName))
            .collect();
        reported(disks, Layers::One).into_iter().map(|disk| disk.device).collect()
    }

    #[test]
    fn partitions_and_stacks_are_left_out() {
        assert_eq!(left(&["sda", "sda1", "sda2", "dm-0", "md0", "loop3", "ram0", "zram0"]), ["sda"]);
        assert_eq!(left(&["nvme0n1", "nvme0n1p1", "mmcblk0", "mmcblk0p2"]), ["nvme0n1", "mmcblk0"]);
        assert_eq!(left(&["vda", "vdb", "sr0", "fd0"]), ["vda", "vdb", "sr0", "fd0"]);
    }

    #[test]
    fn what_has_no_disk_below_it_counts() {
        assert_eq!(left(&["sda1"]), ["sda1"], "the whole disk is not told: Xen's guests have such ones");
        assert_eq!(left(&["dm-0", "loop0"]), ["dm-0"]);
        assert_eq!(left(&["vdpa", "loopy", "mdx", "日本1"]), ["vdpa", "loopy", "mdx", "日本1"]);
        assert_eq!(left(&[]), Vec::<String>::new());
    }

    #[test]
    fn an_agent_that_knows_is_believed() {
        let disk = |name: &str, guess| (Disk { device: name.to_owned(), ..Disk::default() }, guess);
        let disks = vec![disk("loop0", Guess::Lowest), disk("vda", Guess::Upper)];
        let left = reported(disks, Layers::One);
        assert_eq!((left.len(), left[0].device.as_str()), (1, "loop0"));
    }
}

//! Devices that are left out (`metrics.devices.exclude`): disks, network interfaces, file systems.

use std::sync::Arc;

use glob::Pattern;
use miharu_metrics::Figures;

use crate::filesystems::Found;

/// Patterns of the devices that are left out, by kind. A pattern has to match the whole of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excluded {
    /// Of block devices, by the label `device`.
    pub disks: Arc<[Pattern]>,
    /// Of network interfaces, by the label `device`.
    pub interfaces: Arc<[Pattern]>,
    /// Of file systems, by the mount point or what is mounted, with or without `/dev/` before it. Those of containers are
    /// not asked for their size.
    pub filesystems: Arc<[Pattern]>,
}

impl Excluded {
    /// Leaves out what is excluded of an instance's devices, `found` being its file systems that were not asked yet.
    pub(crate) fn leave_out(&self, figures: &mut Figures, found: &mut Found) {
        if !self.disks.is_empty() {
            figures.disks.retain(|disk| !matches(&self.disks, &disk.device));
        }
        if !self.interfaces.is_empty() {
            figures.interfaces.retain(|interface| !matches(&self.interfaces, &interface.device));
        }
        if !self.filesystems.is_empty() {
            figures.filesystems.retain(|row| !self.has_filesystem(&row.mountpoint, &row.device));
            found.retain(|mountpoint, source| !self.has_filesystem(mountpoint, source));
        }
    }

    fn has_filesystem(&self, mountpoint: &str, source: &str) -> bool {
        let names = [Some(mountpoint), Some(source), source.strip_prefix("/dev/")];
        names.into_iter().flatten().any(|name| matches(&self.filesystems, name))
    }
}

fn matches(patterns: &[Pattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use miharu_metrics::figures::{Disk, Filesystem, Interface};

    use super::*;

    fn patterns(list: &[&str]) -> Arc<[Pattern]> {
        list.iter().map(|text| Pattern::new(text).unwrap()).collect()
    }

    #[test]
    fn each_kind_has_its_own_patterns() {
        let disk = |device: &str| Disk { device: device.into(), ..Disk::default() };
        let interface = |device: &str| Interface { device: device.into(), ..Interface::default() };
        let filesystem = |device: &str, mountpoint: &str| Filesystem {
            device: device.into(),
            mountpoint: mountpoint.into(),
            ..Filesystem::default()
        };
        let mut figures = Figures {
            disks: vec![disk("loop0"), disk("vda")],
            interfaces: vec![interface("lo"), interface("loop0"), interface("eth0")],
            filesystems: vec![
                filesystem("/dev/loop0", "/"),
                filesystem("tank/x", "/run/x"),
                filesystem("/dev/vda", "/srv"),
            ],
            ..Figures::default()
        };
        let all = figures.clone();
        Excluded::default().leave_out(&mut figures, &mut Found::default());
        assert_eq!(figures, all);
        let excluded = Excluded {
            disks: patterns(&["loop*"]),
            interfaces: patterns(&["l?"]),
            filesystems: patterns(&["loop*", "/run/*"]),
        };
        excluded.leave_out(&mut figures, &mut Found::default());
        assert_eq!(figures.disks, [disk("vda")]);
        assert_eq!(figures.interfaces, [interface("loop0"), interface("eth0")]);
        assert_eq!(figures.filesystems, [filesystem("/dev/vda", "/srv")]);
    }
}

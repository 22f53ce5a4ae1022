//! Disk figures of containers that are on ZFS: those of their datasets, as no cgroup counts what ZFS does for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use miharu_instances::Instance;
use miharu_linux::read::Buffer;
use miharu_linux::zfs::{Dataset, Datasets};
use miharu_metrics::figures::Disk;

use crate::container::Raw;

/// The most datasets of one instance that are reported.
const MAX_DATASETS: usize = 64;

/// Puts the counters of each instance's datasets in the place of its cgroup's, where its root is one. What the cgroup counted
/// may be the same bytes on their way to the disks of the pool.
///
/// A dataset below those of two instances (one's root can lie below another's) is the nearer one's.
pub(crate) fn add(rows: &mut [(Arc<Instance>, Raw)], known: &Mutex<Datasets>) {
    let mut owners: HashMap<String, usize> = HashMap::new();
    for (index, (_, raw)) in rows.iter().enumerate() {
        for name in &raw.datasets {
            owners.entry(name.clone()).or_insert(index);
        }
    }
    if owners.is_empty() {
        return;
    }
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|pool| owners.keys().any(|name| pool_of(name) == pool));
    let (now, mut buffer) = (Instant::now(), Buffer::new());
    for (index, (_, raw)) in rows.iter_mut().enumerate() {
        if raw.datasets.is_empty() {
            continue;
        }
        let mut found: BTreeMap<String, Disk> = BTreeMap::new();
        for root in &raw.datasets {
            for dataset in known.below(root, now, &mut buffer) {
                if nearest(&owners, &dataset.name) == Some(index) && found.len() < MAX_DATASETS {
                    found.entry(dataset.name.clone()).or_insert_with(|| disk(dataset));
                }
            }
        }
        raw.figures.disks = found.into_values().collect();
    }
}

fn pool_of(dataset: &str) -> &str {
    dataset.split('/').next().unwrap_or_default()
}

/// Whose the dataset is: that of the longest name that it is below, or its own.
fn nearest(owners: &HashMap<String, usize>, dataset: &str) -> Option<usize> {
    let mut name = dataset;
    loop {
        if let Some(owner) = owners.get(name) {
            return Some(*owner);
        }
        name = name.rsplit_once('/')?.0;
    }
}

fn disk(dataset: Dataset) -> Disk {
    Disk {
        device: dataset.name,
        read_bytes: dataset.nread,
        reads_completed: dataset.reads,
        written_bytes: dataset.nwritten,
        writes_completed: dataset.writes,
        read_time: None,
        write_time: None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use miharu_instances::{Incarnation, Kind};
    use miharu_linux::Roots;
    use miharu_linux::cgroup::CgroupPaths;
    use miharu_linux::process::ProcDir;
    use miharu_metrics::{FamilySet, Wanted};

    use super::*;
    use crate::{Collector, Options};

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn count(base: &Path, file: &str, dataset: &str, reads: u64) {
        let text = format!(
            "36 1 0x01 7 2160 5 7\nname type data\ndataset_name 7 {dataset}\nwrites 4 1\nnwritten 4 2\nreads 4 {reads}\nnread 4 4\n"
        );
        write(&base.join("proc/spl/kstat/zfs/tank").join(file), &text);
    }

    /// A container called `name` whose first process has these mounts.
    fn container(base: &Path, pid: u32, name: &str, mountinfo: &str) -> Arc<Instance> {
        let proc = base.join(format!("proc/{pid}"));
        write(&proc.join("mountinfo"), mountinfo);
        write(&proc.join("net/dev"), "");
        write(&proc.join("stat"), &format!("{pid} (init) S 1 0 0 0 0 0 0 0 0 0 1 2 3 4 5 6 1 0 99 0\n"));
        Arc::new(Instance {
            project: "default".into(),
            name: name.into(),
            kind: Kind::Container,
            runtime: "incus",
            id: name.into(),
            init: Arc::new(ProcDir::open(&Roots::at(base), pid).unwrap()),
            cgroup: CgroupPaths::default(),
            incarnation: Incarnation { cgroup_inode: 0, init_pid: pid, init_start: 99 },
            vm: None,
            directory: name.into(),
            image: None,
            is_sandbox: false,
        })
    }

    /// The `device` and the reads of each disk row, by instance.
    fn disks(
        collector: &Collector,
        instances: &[Arc<Instance>],
        wanted: Wanted,
    ) -> Vec<(String, Vec<String>)> {
        let options = Options { wanted, ..Options::default() };
        let collection = collector.collect(instances, &options);
        let row = |disk: &Disk| format!("{} {}", disk.device, disk.reads_completed.unwrap());
        let of = |instance: &miharu_metrics::InstanceFigures| {
            (instance.name.clone(), instance.figures.disks.iter().map(row).collect())
        };
        let mut rows: Vec<_> = collection.instances.iter().map(of).collect();
        rows.sort();
        rows
    }

    #[test]
    fn a_container_on_zfs_has_the_figures_of_its_own_datasets() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let host = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
            30 27 0:50 / /pool/containers/c1 rw - zfs tank/containers/c1 rw\n\
            31 27 0:51 / /srv rw - zfs tank/srv rw\n\
            32 27 0:54 / /docker/zfs/graph/abc rw - zfs tank/docker/layer rw\n\
            33 27 0:55 / / rw - zfs tank rw\n";
        write(&base.join("proc/1/mountinfo"), host);
        write(&base.join("proc/1/net/dev"), "");
        for (file, dataset, reads) in [
            ("objset-0x36", "tank", 1),
            ("objset-0x80", "tank/srv", 2),
            ("objset-0x81", "tank/containers/c1", 3),
            ("objset-0x82", "tank/containers/c1/inner", 4),
            ("objset-0x83", "tank/containers/c1/nested", 5),
            ("objset-0x84", "tank/volume", 6),
            ("objset-0x85", "tank/containers/c10", 7),
            ("objset-0x86", "tank/docker/layer", 8),
        ] {
            count(base, file, dataset, reads);
        }
        let instances = [
            // Its own root and a volume that the host does not have; the host's /srv is not its own.
            container(
                base,
                77,
                "c1",
                "1 0 0:50 /rootfs / rw - zfs tank/containers/c1 rw\n2 1 0:51 / /srv rw - zfs tank/srv rw\n\
                 3 1 0:52 / /data rw - zfs tank/volume rw\n",
            ),
            // Its root lies below the other's.
            container(base, 78, "c2", "1 0 0:53 / / rw - zfs tank/containers/c1/nested rw\n"),
            // A directory on the host's own file system.
            container(base, 79, "c3", "1 0 0:51 /c3 / rw - zfs tank/srv rw\n"),
            container(base, 80, "c4", "1 0 254:0 /c4 / rw - ext4 /dev/vda rw\n"),
            // A whole dataset that the host has mounted under a name of no instance.
            container(base, 81, "c5", "1 0 0:54 / / rw - zfs tank/docker/layer rw\n"),
            // The host's own root.
            container(base, 82, "c6", "1 0 0:55 / / rw - zfs tank rw\n"),
        ];
        let collector = Collector::new(Roots::at(base));
        let expected = [
            ("c1", vec!["tank/containers/c1 3", "tank/containers/c1/inner 4", "tank/volume 6"]),
            ("c2", vec!["tank/containers/c1/nested 5"]),
            ("c3", Vec::new()),
            ("c4", Vec::new()),
            ("c5", vec!["tank/docker/layer 8"]),
            ("c6", Vec::new()),
        ]
        .map(|(name, rows)| (name.to_owned(), rows.into_iter().map(str::to_owned).collect::<Vec<_>>()));
        assert_eq!(disks(&collector, &instances, Wanted::all()), expected);
        // Not without file systems, either, and not where nobody wants disks.
        let only_disks = Wanted::by(FamilySet::all().without(|name| !name.contains("disk_")));
        assert_eq!(disks(&collector, &instances, only_disks), expected);
        let no_disks = Wanted::by(FamilySet::all().without(|name| name.starts_with("disk_")));
        assert!(disks(&collector, &instances, no_disks).iter().all(|(_, rows)| rows.is_empty()));
    }

    #[test]
    fn what_its_cgroup_counted_is_not_served_beside() {
        let base = tempfile::tempdir().unwrap();
        count(base.path(), "objset-0x81", "tank/c1", 3);
        let c1 = container(base.path(), 77, "c1", "");
        let by_cgroup = Disk { device: "sda".into(), read_bytes: Some(9), ..Disk::default() };
        let mut raw = Raw { datasets: vec!["tank/c1".into()], ..Raw::default() };
        raw.figures.disks = vec![by_cgroup.clone()];
        let mut other = Raw::default();
        other.figures.disks = vec![by_cgroup];
        let mut rows = [(Arc::clone(&c1), raw), (c1, other)];
        add(&mut rows, &Mutex::new(Datasets::new(&Roots::at(base.path()))));
        let devices = rows.map(|(_, raw)| raw.figures.disks[0].device.clone());
        assert_eq!(devices, ["tank/c1", "sda"]);
    }
}

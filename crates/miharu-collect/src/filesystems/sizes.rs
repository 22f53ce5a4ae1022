//! The sizes of what was chosen, for all instances at once, and whose they are.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use miharu_linux::mounts::{Device, FileSystem, Mount, Sharing};
use miharu_linux::statfs::{Answer, Identity, Pool, Reply, Request, Sizes};
use miharu_metrics::figures;

use super::{Chosen, Found, shared_on};

/// Whether file systems that an instance only has a directory on are reported (`metrics.shared_filesystems`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SharedFilesystems {
    /// They are, marked as shared.
    #[default]
    Serve,
    /// They are left out, as Incus does.
    LeaveOut,
}

/// The file systems of one instance with their sizes.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) rows: Vec<figures::Filesystem>,
    /// How many did not answer in time, or are left alone as they did not before.
    pub(crate) late: usize,
    /// How many this process may not look at.
    pub(crate) denied: usize,
    /// How many were not found where they are mounted.
    pub(crate) missing: usize,
}

/// Asks for the sizes of all instances' file systems at once, and puts them together. What is not known by `deadline` is absent.
pub(crate) fn measure(
    found: &[(Found, Identity)],
    pool: &Pool,
    shared: SharedFilesystems,
    deadline: Instant,
) -> Vec<Measured> {
    let mut requests = Vec::new();
    let mut of_host = Vec::new();
    let mut host_places: HashMap<Device, usize> = HashMap::new();
    for (found, identity) in found {
        for Chosen { sharing, request, .. } in found.chosen.iter() {
            requests.push(request.with(*identity));
            for on in sharing.iter().filter_map(shared_on) {
                host_places.entry(on.mount.device).or_insert_with(|| {
                    of_host.push(Request::host(&on.mount));
                    of_host.len() - 1
                });
            }
        }
    }
    let several = owned_by_several(found);
    let own = requests.len();
    requests.append(&mut of_host);
    let mut answers = pool.ask(requests, deadline);
    let host_answers = answers.split_off(own.min(answers.len()));
    let host_sizes = |mount: &Mount| {
        let reply = host_answers.get(*host_places.get(&mount.device)?)?;
        reply.answer().map(|answer| answer.sizes)
    };
    let mut answers = answers.into_iter();
    let mut all = Vec::with_capacity(found.len());
    for (found, _) in found {
        let mut measured = Measured { rows: Vec::with_capacity(found.chosen.len()), ..Measured::default() };
        for Chosen { file_system, sharing, .. } in found.chosen.iter() {
            // One answer for each, whether or not it makes a row.
            match answers.next().unwrap_or_default() {
                Reply::Sizes(answer) => {
                    measured.rows.extend(row(file_system, sharing, answer, host_sizes, &several, shared));
                }
                Reply::Nothing => measured.missing += 1,
                Reply::Denied => measured.denied += 1,
                Reply::Late => measured.late += 1,
            }
        }
        all.push(measured);
    }
    all
}

/// The devices that look like an instance's own and that several have: each mounted the same disk by itself, and
/// the host did not.
fn owned_by_several(found: &[(Found, Identity)]) -> HashSet<Device> {
    let (mut once, mut several) = (HashSet::new(), HashSet::new());
    for (found, _) in found {
        for one in found.chosen.iter().filter(|one| one.sharing.contains(&Sharing::Own)) {
            // All mounts of one of an instance's file systems are of one device, which no other one of its has.
            let device = one.file_system.mounts.first().map(|mount| mount.device);
            several.extend(device.filter(|device| !once.insert(*device)));
        }
    }
    several
}

/// Whether an instance is shown less than the whole of the host's file system: its directory has a project quota. Some
/// file systems' sizes (ZFS) move by themselves between two questions, which is no quota.
fn has_quota(own: Sizes, host: Sizes) -> bool {
    own.size < host.size.saturating_sub(host.size / 100)
}

fn row(
    file_system: &FileSystem,
    sharing: &[Sharing],
    answer: Answer,
    host_sizes: impl Fn(&Mount) -> Option<Sizes>,
    several: &HashSet<Device>,
    shared: SharedFilesystems,
) -> Option<figures::Filesystem> {
    let mount = file_system.mounts.get(answer.mount)?;
    // A project quota on the instance's directory shows a size of its own: then nothing is shared.
    let on = sharing.get(answer.mount).and_then(shared_on);
    let on = on.filter(|on| !host_sizes(&on.mount).is_some_and(|host| has_quota(answer.sizes, host)));
    let is_shared = on.is_some() || several.contains(&mount.device);
    if is_shared && shared == SharedFilesystems::LeaveOut {
        return None;
    }
    Some(figures::Filesystem {
        device: on.map_or_else(|| mount.source.clone(), |on| on.device.clone()),
        fstype: mount.fstype.clone(),
        mountpoint: mount.mountpoint.to_string_lossy().into_owned(),
        size_bytes: Some(answer.sizes.size),
        free_bytes: Some(answer.sizes.free),
        avail_bytes: Some(answer.sizes.avail),
        files: answer.sizes.files,
        files_free: answer.sizes.files_free,
        sharing: if is_shared { figures::Sharing::Shared } else { figures::Sharing::Own },
    })
}

#[cfg(test)]
mod tests {
    use super::super::made_up::instance;
    use super::*;

    fn sizes(size: u64) -> Sizes {
        Sizes { size, free: 5, avail: 4, files: None, files_free: None }
    }

    /// The rows of all instances, every file system of theirs with `own` bytes and every one of the host with `host`.
    fn rows(found: &[(Found, Identity)], own: u64, host: u64, shared: SharedFilesystems) -> Vec<String> {
        let several = owned_by_several(found);
        let mut rows = Vec::new();
        for (found, _) in found {
            for Chosen { file_system, sharing, .. } in found.chosen.iter() {
                let answer = Answer { mount: 0, sizes: sizes(own) };
                let row = row(file_system, sharing, answer, |_| Some(sizes(host)), &several, shared);
                rows.extend(row.map(|row| format!("{} {} {:?}", row.device, row.mountpoint, row.sharing)));
            }
        }
        rows
    }

    const DISK: &str = "1 0 7:1 / / rw - ext4 /dev/loop1 rw\n2 1 7:9 / /d rw - xfs /dev/loop9 rw\n";

    #[test]
    fn a_disk_that_several_instances_mount_is_shared() {
        let alone = [instance(10, "c1", DISK)];
        let expected = ["/dev/loop1 / Own", "/dev/loop9 /d Own"];
        assert_eq!(rows(&alone, 100, 100, SharedFilesystems::Serve), expected);
        let [first] = alone;
        let other = "1 0 7:2 / / rw - ext4 /dev/loop2 rw\n2 1 7:9 / /e rw - xfs /dev/loop9 rw\n";
        let both = [first, instance(11, "c2", other)];
        let expected =
            ["/dev/loop1 / Own", "/dev/loop9 /d Shared", "/dev/loop2 / Own", "/dev/loop9 /e Shared"];
        assert_eq!(rows(&both, 100, 100, SharedFilesystems::Serve), expected);
        let expected = ["/dev/loop1 / Own", "/dev/loop2 / Own"];
        assert_eq!(rows(&both, 100, 100, SharedFilesystems::LeaveOut), expected);
    }

    #[test]
    fn an_own_volume_stays_so_when_another_instance_sees_it() {
        let own = instance(10, "c1", "1 0 253:1 / / rw - ext4 /dev/mapper/c1 rw\n");
        let text = "1 0 254:0 /c2 / rw - ext4 /dev/vda rw\n2 1 253:1 /x /x rw - ext4 /dev/mapper/c1 rw\n";
        let found = [own, instance(11, "c2", text)];
        let expected = ["/dev/mapper/c1 / Own", "/dev/vda / Shared", "/dev/mapper/c1 /x Shared"];
        assert_eq!(rows(&found, 100, 100, SharedFilesystems::Serve), expected);
    }

    #[test]
    fn a_project_quota_is_smaller_and_a_size_that_moves_is_none() {
        let found = [instance(10, "c2", "1 0 254:0 /c2 / rw - ext4 /dev/vda rw\n")];
        assert_eq!(rows(&found, 10, 10_000, SharedFilesystems::LeaveOut), ["/dev/vda / Own"]);
        for moved in [9_999, 10_000, 10_001] {
            assert_eq!(rows(&found, moved, 10_000, SharedFilesystems::Serve), ["/dev/vda / Shared"]);
        }
    }
}

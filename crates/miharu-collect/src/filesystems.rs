//! An instance's file systems, chosen from its mounts; `sizes` asks for their sizes, and tells them apart from shared ones.

mod sizes;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use miharu_linux::mount_table::MountTable;
use miharu_linux::mounts::{self, FileSystem, HostMounts, Mount, RemoteFilesystems, SharedOn, Sharing};
use miharu_linux::process::ProcDir;
use miharu_linux::read::{Buffer, Extent, Take};
use miharu_linux::statfs::{Request, Whose};

pub use sizes::SharedFilesystems;
pub(crate) use sizes::measure;

/// The file systems of one instance before their sizes are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    chosen: Arc<[Chosen]>,
    /// What there is too much of to look at all of it.
    pub(crate) excess: Option<Excess>,
}

/// Of what an instance has more than is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Mounts,
    FileSystems,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounts => write!(
                f,
                "it has more than {} mounts, or {} MiB of them: file systems that are mounted after those are left out",
                mounts::MAX_MOUNTS,
                mounts::MAX_TEXT >> 20
            ),
            Self::FileSystems => write!(
                f,
                "it has {} file systems, as many as are served of one instance: further ones are left out",
                mounts::MAX_FILE_SYSTEMS
            ),
        }
    }
}

/// A file system that is asked for its size, and of each of its mounts whose it is.
#[derive(Debug, Clone)]
struct Chosen {
    file_system: FileSystem,
    sharing: Vec<Sharing>,
    request: Request,
}

impl Found {
    /// Keeps the mounts of which `keeps` is true for the mount point and for each name of what is mounted: the instance's
    /// own word, and the host's, which is the one that is served of a shared file system.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&str, &str) -> bool) {
        let keeps = |(mount, sharing): &(Mount, Sharing)| {
            let mountpoint = mount.mountpoint.to_string_lossy();
            keeps(&mountpoint, &mount.source)
                && shared_on(sharing).is_none_or(|on| keeps(&mountpoint, &on.device))
        };
        let kept = self.chosen.iter().filter_map(|one| {
            let mounts = one.file_system.mounts.iter().cloned().zip(one.sharing.iter().cloned());
            let (mounts, sharing): (Vec<_>, Vec<_>) = mounts.filter(keeps).unzip();
            (!mounts.is_empty()).then(|| {
                let file_system = FileSystem { mounts };
                Chosen { request: one.request.fewer(&file_system), file_system, sharing }
            })
        });
        self.chosen = kept.collect();
    }
}

impl Found {
    /// The ZFS datasets that are the instance's own, its root's first; none where its root is not on one.
    ///
    /// Docker and podman mount a layer's dataset under a name that tells no container, so a dataset that is an instance's
    /// whole root is its own as well, unless it is the host's.
    pub(crate) fn datasets(&self) -> Vec<String> {
        let slash = Path::new("/");
        let is_own = |mount: &Mount, sharing: &Sharing| match sharing {
            Sharing::Own => true,
            Sharing::Shared(on) => {
                mount.mountpoint == slash && mount.root == slash && on.mount.mountpoint != slash
            }
        };
        let own = |one: &Chosen| {
            let (mount, sharing) = (one.file_system.mounts.first()?, one.sharing.first()?);
            (mount.fstype == "zfs" && is_own(mount, sharing)).then(|| mount.source.clone())
        };
        let mut chosen = self.chosen.iter();
        let Some(root) = chosen.next().and_then(own) else { return Vec::new() };
        std::iter::once(root).chain(chosen.filter_map(own)).collect()
    }
}

/// What was chosen in the last collection, and out of what: most instances' mounts never change.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// What tells the mounts' text from another; the text itself is a kilobyte and more.
    mountinfo: Option<(Digest, Extent)>,
    remote: RemoteFilesystems,
    host: Option<Arc<HostMounts>>,
    /// The mounts of that text, where the kernel tells their numbers.
    table: Option<MountTable>,
    /// How often that table was taken for the process'.
    readings: u8,
    found: Found,
}

/// What stands for a text. An instance chooses what is in its own, so it is made with a key that nobody else knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digest {
    length: usize,
    hash: u64,
}

impl Digest {
    fn of(text: &[u8]) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self { length: text.len(), hash: KEY.hash_one(text) }
    }
}

/// After so many readings it is made sure that an instance's first process is still in the mount namespace that was chosen
/// from. One that left it is noticed at once, as no mount of another namespace has the number of one of this.
const AGAIN: u8 = 8;

impl Choice {
    /// What was chosen the last time, if the kernel tells that nothing has been mounted or unmounted since: that costs a
    /// tenth of reading the mounts' text.
    pub(crate) fn unchanged(
        &mut self,
        init: &ProcDir,
        host: &Arc<HostMounts>,
        remote: RemoteFilesystems,
    ) -> Option<Found> {
        let table = self.table.as_ref().filter(|_| self.is_under(host, remote))?;
        self.readings = (self.readings + 1) % AGAIN;
        let is_its = self.readings != 0 || table.is_of(init);
        (is_its && table.is_unchanged()).then(|| self.found.clone())
    }

    /// Has the mounts' text read the next time: one of them was not found where it was, as when it is moved.
    pub(crate) fn doubt(&mut self) {
        self.table = None;
    }

    fn is_under(&self, host: &Arc<HostMounts>, remote: RemoteFilesystems) -> bool {
        self.remote == remote && self.host.as_ref().is_some_and(|before| Arc::ptr_eq(before, host))
    }
}

/// Chooses from the mounts of an instance whose directory on the host is called `directory`. `choice` is what was chosen
/// the last time.
pub(crate) fn find(
    init: &ProcDir,
    whose: Whose,
    directory: &OsStr,
    host: &Arc<HostMounts>,
    remote: RemoteFilesystems,
    choice: &mut Choice,
    buffer: &mut Buffer,
) -> miharu_linux::Result<Found> {
    // Before the text: what is mounted in between is noticed the next time.
    let table = MountTable::read(init);
    let mut count = 0;
    let first = |_: &[u8]| {
        count += 1;
        if count > mounts::MAX_MOUNTS { Take::End } else { Take::Keep }
    };
    let (mountinfo, extent) = init.read_lines(buffer, "mountinfo", mounts::MAX_TEXT, first)?;
    let digest = Some((Digest::of(mountinfo), extent));
    // The same text may be of other mounts, which have the numbers of those that are gone.
    if choice.mountinfo == digest && choice.is_under(host, remote) && choice.table == table {
        return Ok(choice.found.clone());
    }
    let numbers = table.as_ref().map(MountTable::numbers).unwrap_or_default();
    let found = choose(mountinfo, extent, whose, directory, host, remote, &numbers);
    choice.table = table;
    choice.mountinfo = digest;
    choice.host = Some(Arc::clone(host));
    choice.remote = remote;
    choice.found = found.clone();
    Ok(found)
}

fn choose(
    mountinfo: &[u8],
    extent: Extent,
    whose: Whose,
    directory: &OsStr,
    host: &HostMounts,
    remote: RemoteFilesystems,
    numbers: &HashMap<u64, u64>,
) -> Found {
    let mounts = mounts::parse(mountinfo, mounts::MAX_MOUNTS);
    let chosen = mounts::select(&mounts, remote).into_iter().map(|file_system| {
        let sharing = file_system.mounts.iter().map(|mount| host.sharing(mount, directory)).collect();
        let behind = file_system.mounts.first().and_then(|mount| host.behind(mount));
        let mut request = Request::new(whose, &file_system).of_mounts(numbers);
        if let Some(device) = behind {
            request = request.behind(device);
        }
        Chosen { file_system, sharing, request }
    });
    let chosen: Arc<[Chosen]> = chosen.collect();
    let excess = match chosen.len() {
        _ if extent == Extent::Cut => Some(Excess::Mounts),
        mounts::MAX_FILE_SYSTEMS.. => Some(Excess::FileSystems),
        _ => None,
    };
    Found { chosen, excess }
}

fn shared_on(sharing: &Sharing) -> Option<&SharedOn> {
    match sharing {
        Sharing::Own => None,
        Sharing::Shared(on) => Some(on),
    }
}

/// What an instance with made-up mounts has, for the tests here and of `sizes`.
#[cfg(test)]
mod made_up;

#[cfg(test)]
mod tests {
    use super::made_up::{HOST, instance};
    use super::*;

    #[test]
    fn excluded_mounts_are_not_asked() {
        let text = "1 0 254:0 /c2 / rw - ext4 rootfs rw\n\
                    2 1 7:9 / /a rw - xfs /dev/loop9 rw\n3 1 7:9 /x /bb rw - xfs /dev/loop9 rw\n";
        let (mut found, _) = instance(10, "c2", text);
        let mountpoints = |found: &Found| -> Vec<Vec<String>> {
            let of = |one: &Chosen| {
                assert_eq!(one.file_system.mounts.len(), one.sharing.len());
                one.file_system.mounts.iter().map(|mount| mount.mountpoint.display().to_string()).collect()
            };
            found.chosen.iter().map(of).collect()
        };
        assert_eq!(mountpoints(&found), [vec!["/"], vec!["/a", "/bb"]]);
        found.retain(|mountpoint, _| mountpoint != "/a");
        assert_eq!(mountpoints(&found), [["/"], ["/bb"]], "the same disk elsewhere is not excluded");
        found.retain(|_, source| source != "/dev/loop9");
        assert_eq!(mountpoints(&found), [["/"]]);
        found.retain(|_, source| source != "/dev/vda");
        assert_eq!(mountpoints(&found).len(), 0, "the host's word for what is shared counts, too");
    }

    #[test]
    fn what_is_too_much_to_look_at_is_told() {
        let lines = |count: usize, line: &dyn Fn(usize) -> String| {
            let root = "1 0 254:0 /c9 / rw - ext4 /dev/vda rw\n".to_owned();
            (2..=count).fold(root, |text, number| text + &line(number))
        };
        let binds = |count| lines(count, &|id| format!("{id} 1 254:0 /c9/x /m{id} rw - ext4 /dev/vda rw\n"));
        let disks = |count| lines(count, &|id| format!("{id} 1 7:{id} / /d{id} rw - ext4 /dev/l{id} rw\n"));
        let host = Arc::new(HostMounts::parse(HOST.as_bytes()));
        let base = tempfile::tempdir().unwrap();
        let roots = miharu_linux::Roots::at(base.path());
        std::fs::create_dir_all(roots.proc.join("10")).unwrap();
        let found = |text: &str| {
            std::fs::write(roots.proc.join("10/mountinfo"), text).unwrap();
            let init = ProcDir::open(&roots, 10).unwrap();
            let whose = Whose::Process { pid: 10, start_ticks: 1 };
            let (mut choice, mut buffer) = Default::default();
            find(&init, whose, OsStr::new("c9"), &host, RemoteFilesystems::Skip, &mut choice, &mut buffer)
                .unwrap()
        };
        let excess = |text: &str| found(text).excess;
        assert_eq!(excess(&binds(mounts::MAX_MOUNTS)), None);
        assert_eq!(excess(&binds(mounts::MAX_MOUNTS + 1)), Some(Excess::Mounts));
        // A few of a megabyte each, which the kernel writes for names that are all blanks, cost the others nothing.
        let long = found(&lines(20, &|id| {
            format!("{id} 1 254:0 /c9/x /{} rw - ext4 /dev/vda rw\n", "\\040".repeat(250_000))
        }));
        assert_eq!((long.excess, long.chosen.len()), (Some(Excess::Mounts), 1));
        assert_eq!(excess(&disks(mounts::MAX_FILE_SYSTEMS - 1)), None);
        assert_eq!(excess(&disks(mounts::MAX_FILE_SYSTEMS + 1)), Some(Excess::FileSystems));
    }
}

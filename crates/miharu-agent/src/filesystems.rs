//! File systems, with their sizes, whatever hangs.
//!
//! statfs(2) of a dead NFS server never comes back. Local file systems and those behind which a process or another machine stands
//! are asked by threads of their own, so that the latter cost the former nothing.

use std::time::{Duration, Instant};

use miharu_api::report::Filesystem;
use miharu_linux::mounts::{self, FileSystem, RemoteFilesystems};
use miharu_linux::process::ProcDir;
use miharu_linux::read::Buffer;
use miharu_linux::statfs::{Pool, Request, Whose};
use miharu_linux::{Result, Roots};

/// How long an answer waits for a size. What hung once is not waited for again while it hangs.
const PATIENCE: Duration = Duration::from_millis(400);

/// The threads that ask, and what they found to hang.
#[derive(Debug)]
pub struct Filesystems {
    local: Pool,
    remote: Pool,
}

impl Filesystems {
    /// Threads are started when they are needed: one for each kind, further ones beside those that hang.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { local: Pool::new(roots.clone(), 1), remote: Pool::new(roots.clone(), 1) }
    }

    /// The file systems that this process sees, `/` first. One whose size cannot be had is left out.
    ///
    /// # Errors
    /// Where the mounts cannot be read.
    pub fn read(&self, roots: &Roots, buffer: &mut Buffer) -> Result<Vec<Filesystem>> {
        let own = ProcDir::open(roots, std::process::id())?;
        let whose = Whose::Process { pid: own.pid(), start_ticks: own.stat(buffer)?.starttime };
        let (local, remote) = divide(own.read(buffer, "mountinfo")?);
        let mut rows = measure(&self.local, whose, &local);
        rows.extend(measure(&self.remote, whose, &remote));
        Ok(rows)
    }
}

/// Chooses from mountinfo: local file systems, and remote ones with what is mounted below them.
fn divide(mountinfo: &[u8]) -> (Vec<FileSystem>, Vec<FileSystem>) {
    let mounts = mounts::parse(mountinfo, mounts::MAX_MOUNTS);
    let device = |file_system: &FileSystem| file_system.mounts.first().map(|mount| mount.device);
    let local = mounts::select(&mounts, RemoteFilesystems::Skip);
    let known: Vec<_> = local.iter().map(device).collect();
    let mut remote = mounts::select(&mounts, RemoteFilesystems::Ask);
    remote.retain(|file_system| !known.contains(&device(file_system)));
    let is_wanted = |file_system: &FileSystem| !is_image(file_system);
    (local.into_iter().filter(is_wanted).collect(), remote.into_iter().filter(is_wanted).collect())
}

/// Whether it is an image that is always full, as of a snap or a CD; a root is shown all the same.
fn is_image(file_system: &FileSystem) -> bool {
    file_system.mounts.first().is_some_and(|mount| {
        matches!(mount.fstype.as_str(), "squashfs" | "iso9660") && mount.mountpoint.as_os_str() != "/"
    })
}

fn measure(pool: &Pool, whose: Whose, file_systems: &[FileSystem]) -> Vec<Filesystem> {
    if file_systems.is_empty() {
        return Vec::new();
    }
    let requests = file_systems.iter().map(|file_system| Request::new(whose, file_system)).collect();
    let answers = pool.ask(requests, Instant::now() + PATIENCE);
    let rows = file_systems.iter().zip(answers).filter_map(|(file_system, answer)| {
        let answer = answer.answer()?;
        let mount = file_system.mounts.get(answer.mount)?;
        Some(Filesystem {
            device: mount.source.clone(),
            mountpoint: mount.mountpoint.to_string_lossy().into_owned(),
            fstype: mount.fstype.clone(),
            filesystem_avail_bytes: Some(answer.sizes.avail),
            filesystem_free_bytes: Some(answer.sizes.free),
            filesystem_size_bytes: Some(answer.sizes.size),
            filesystem_files: answer.sizes.files,
            filesystem_files_free: answer.sizes.files_free,
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"21 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
22 21 0:5 / /proc rw - proc proc rw\n\
23 21 0:30 / /mnt/nfs rw - nfs4 server:/export rw\n\
24 23 254:2 / /mnt/nfs/local rw - xfs /dev/vda2 rw\n\
25 21 254:3 / /data\\040disk rw - xfs /dev/vdb rw\n\
26 21 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro\n\
27 21 0:31 / /share rw - virtiofs share rw\n";

    fn names(file_systems: &[FileSystem]) -> Vec<&str> {
        file_systems.iter().map(|one| one.mounts[0].mountpoint.to_str().unwrap()).collect()
    }

    #[test]
    fn what_may_hang_is_apart() {
        let (local, remote) = divide(MOUNTINFO);
        assert_eq!(names(&local), ["/", "/data disk"]);
        assert_eq!(names(&remote), ["/share", "/mnt/nfs", "/mnt/nfs/local"]);
    }

    #[test]
    fn the_root_of_this_process() {
        let roots = Roots::default();
        let rows = Filesystems::new(&roots).read(&roots, &mut Buffer::new()).unwrap();
        let root = rows.iter().find(|row| row.mountpoint == "/").unwrap();
        let expected = rustix::fs::statvfs("/").unwrap();
        assert_eq!(root.filesystem_size_bytes, Some(expected.f_blocks * expected.f_frsize));
        assert!(root.filesystem_avail_bytes <= root.filesystem_free_bytes);
    }
}

//! An instance with the mounts that a test gives it, on a host that has two disks.

use std::collections::HashMap;
use std::ffi::OsStr;

use miharu_linux::mounts::{HostMounts, RemoteFilesystems};
use miharu_linux::read::Extent;
use miharu_linux::statfs::{Identity, Whose};

use super::{Found, choose};

/// The host's mounts.
pub(super) const HOST: &str = "27 1 254:0 / / rw - ext4 /dev/vda rw\n\
    31 27 253:1 / /pool/containers/c1 rw - ext4 /dev/mapper/c1 rw\n";

/// An instance called `directory` with these mounts.
pub(super) fn instance(pid: u32, directory: &str, mountinfo: &str) -> (Found, Identity) {
    let host = HostMounts::parse(HOST.as_bytes());
    let whose = Whose::Process { pid, start_ticks: 1 };
    let directory = OsStr::new(directory);
    let mountinfo = mountinfo.as_bytes();
    let found =
        choose(mountinfo, Extent::Whole, whose, directory, &host, RemoteFilesystems::Skip, &HashMap::new());
    (found, Identity::Asked)
}

//! The files of processes, mounts among them, and of the host.

use std::ffi::OsStr;
use std::hint::black_box;

use anyhow::Result;
use miharu_linux::host::{parse_meminfo, parse_uptime};
use miharu_linux::mounts::{self, HostMounts, RemoteFilesystems};
use miharu_linux::process;

use crate::Case;
use crate::recording::{file, longest_of_processes};

/// How many volumes the host has mounted in the case of a large one.
const VOLUMES: u32 = 500;

pub(crate) fn cases() -> Result<Vec<Case>> {
    let of = |name: &str| longest_of_processes("v1", name);
    let dev = of("net/dev")?;
    let stat = of("stat")?;
    let status = of("status")?;
    let cgroup = of("cgroup")?;
    let volumes = host_with_volumes();
    let meminfo = file("v1", "proc/meminfo")?;
    let uptime = file("v1", "proc/uptime")?;
    let host = HostMounts::parse(volumes.as_bytes());
    let mounted = of("mountinfo")?;
    let chosen = mounts::select(&mounts::parse(&mounted, mounts::MAX_MOUNTS), RemoteFilesystems::Skip);
    let mountinfo = mounted.clone();
    Ok(vec![
        Case::new("meminfo", move || parse_meminfo(&meminfo)),
        Case::new("uptime", move || parse_uptime(&uptime)),
        Case::new("net/dev", move || process::parse_net_dev(&dev)),
        Case::new("stat of a process", move || process::parse_stat(&stat)),
        Case::new("status of a process", move || process::parse_status(&status)),
        Case::new("cgroup of a process", move || process::parse_memberships(&cgroup)),
        Case::new("mountinfo, parsed", move || {
            black_box(mounts::parse(&mountinfo, mounts::MAX_MOUNTS)).len()
        }),
        Case::new("mountinfo, parsed and chosen from", move || {
            mounts::select(&mounts::parse(&mounted, mounts::MAX_MOUNTS), RemoteFilesystems::Skip)
        }),
        Case::new("mountinfo of a host with 500 volumes", move || HostMounts::parse(volumes.as_bytes())),
        Case::new("whose the file systems are", move || {
            let mounts = chosen.iter().flat_map(|file_system| &file_system.mounts);
            mounts.map(|mount| host.sharing(mount, OsStr::new("c7"))).collect::<Vec<_>>()
        }),
    ])
}

/// What Incus' LVM pools make of a host's mountinfo.
fn host_with_volumes() -> String {
    let volume = |number: u32| {
        format!(
            "{id} 27 253:{number} / /var/lib/incus/storage-pools/default/containers/c{number} rw,relatime shared:{id} - \
             ext4 /dev/mapper/default-containers_c{number} rw,discard,stripe=16\n",
            id = 100 + number
        )
    };
    let mut text = String::from("27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n");
    text.extend((0..VOLUMES).map(volume));
    text
}

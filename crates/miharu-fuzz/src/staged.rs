//! What needs a stage: a server, a far end of sockets, a host's files. One a thread, in a directory of its own that goes with it.

use std::cell::RefCell;
use std::path::Path;

use miharu_agent::report::Reporter;
use miharu_collect::fuzzing::Liar;
use miharu_linux::resources::Resources;
use miharu_linux::{Roots, addresses, socket};
use miharud::fuzzing::Server;
use tempfile::TempDir;

use crate::figures;

thread_local! {
    static SERVER: RefCell<Option<(Server, TempDir)>> = const { RefCell::new(None) };
    static LIAR: RefCell<Option<(Liar, TempDir)>> = const { RefCell::new(None) };
    static TREE: RefCell<Option<(Roots, TempDir)>> = const { RefCell::new(None) };
}

/// Requests through all routes.
pub(crate) fn server(bytes: &[u8]) {
    SERVER.with_borrow_mut(|stage| {
        // It is not put back where something broke, so that the next input has a new one.
        let set_up = match stage.take() {
            Some(stage) => Ok(stage),
            None => tempfile::tempdir()
                .map_err(anyhow::Error::from)
                .and_then(|directory| Ok((Server::new(directory.path())?, directory))),
        };
        assert!(set_up.is_ok(), "{:?}", set_up.err());
        let Ok((mut server, directory)) = set_up else { return };
        let asked = server.ask(bytes);
        assert!(asked.is_ok(), "{asked:?}");
        *stage = Some((server, directory));
    });
}

/// Whole conversations with guests, their agents and monitors.
pub(crate) fn conversation(bytes: &[u8]) {
    let told = LIAR.with_borrow_mut(|stage| {
        let set_up = match stage.take() {
            Some(stage) => Ok(stage),
            None => tempfile::tempdir().and_then(|directory| Ok((Liar::new(directory.path())?, directory))),
        };
        assert!(set_up.is_ok(), "{:?}", set_up.err());
        let Ok((liar, directory)) = set_up else { return Vec::new() };
        let told = liar.tell(bytes);
        *stage = Some((liar, directory));
        told
    });
    figures::check(told);
}

/// Files of a host that an input may have its own of; links lead from where the kernel has them.
const FILES: [&str; 64] = [
    "proc/cpuinfo",
    "proc/meminfo",
    "proc/loadavg",
    "proc/stat",
    "proc/vmstat",
    "proc/diskstats",
    "proc/pressure/cpu",
    "proc/pressure/memory",
    "proc/pressure/io",
    "proc/self/net/fib_trie",
    "proc/self/net/if_inet6",
    "proc/self/net/tcp",
    "proc/self/net/tcp6",
    "proc/1/stat",
    "proc/2/stat",
    "proc/2/task/2/children",
    "proc/sys/kernel/random/boot_id",
    "proc/sys/kernel/hostname",
    "sys/devices/system/cpu/online",
    "sys/devices/system/cpu/isolated",
    "sys/devices/system/cpu/cpu0/topology/core_id",
    "sys/devices/system/cpu/cpu0/topology/physical_package_id",
    "sys/devices/system/cpu/cpu0/topology/die_id",
    "sys/devices/system/cpu/cpu0/cache/index0/level",
    "sys/devices/system/cpu/cpu0/cache/index0/type",
    "sys/devices/system/cpu/cpu0/cache/index0/size",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
    "sys/devices/system/cpu/cpu1/topology/core_id",
    "sys/devices/system/cpu/cpu1/topology/physical_package_id",
    "sys/devices/system/node/node0/cpulist",
    "sys/devices/system/node/node0/meminfo",
    "sys/devices/system/node/node1/cpulist",
    "sys/devices/pci0/0000:00:02.0/numa_node",
    "sys/devices/pci0/0000:00:02.0/virtio1/vendor",
    "sys/devices/pci0/0000:00:02.0/virtio1/device",
    "sys/devices/pci0/0000:00:02.0/virtio1/model",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/dev",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/size",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/ro",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/removable",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/serial",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/wwid",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/queue/rotational",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/queue/logical_block_size",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/vda1/dev",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/vda1/partition",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/vda1/size",
    "sys/devices/pci0/0000:00:02.0/virtio1/block/vda/vda1/ro",
    "sys/devices/virtual/block/dm-0/dev",
    "sys/devices/virtual/block/dm-0/slaves/below/dev",
    "sys/devices/pci0/0000:00:03.0/net/eth0/address",
    "sys/devices/pci0/0000:00:03.0/net/eth0/type",
    "sys/devices/pci0/0000:00:03.0/net/eth0/dev_port",
    "sys/devices/pci0/0000:00:03.0/net/eth0/carrier",
    "sys/devices/pci0/0000:00:03.0/net/eth0/speed",
    "sys/devices/pci0/0000:00:03.0/net/eth0/duplex",
    "sys/class/dmi/id/product_uuid",
    "sys/class/dmi/id/chassis_type",
    "sys/class/dmi/id/chassis_serial",
    "sys/class/dmi/id/bios_vendor",
    "sys/class/dmi/id/board_name",
    "sys/class/dmi/id/product_name",
];

const LINKS: [(&str, &str); 9] = [
    ("sys/block/vda", "../devices/pci0/0000:00:02.0/virtio1/block/vda"),
    ("sys/devices/pci0/0000:00:02.0/virtio1/block/vda/device", "../.."),
    ("sys/devices/pci0/0000:00:02.0/virtio1/subsystem", "../../../../bus/virtio"),
    ("sys/class/net/eth0", "../../devices/pci0/0000:00:03.0/net/eth0"),
    ("sys/devices/pci0/0000:00:03.0/net/eth0/device", "../.."),
    ("sys/devices/pci0/0000:00:03.0/driver", "../../../bus/pci/drivers/e1000"),
    ("sys/dev/block/254:0", "../../devices/pci0/0000:00:02.0/virtio1/block/vda"),
    ("sys/dev/block/254:1", "../../devices/pci0/0000:00:02.0/virtio1/block/vda/vda1"),
    ("sys/dev/block/253:0", "../../devices/virtual/block/dm-0"),
];

/// A host's files, divided by zero bytes: which one, in one byte, and what is in it. What the host is made of, and what the agent
/// would tell if it were a guest.
pub(crate) fn tree(bytes: &[u8]) {
    TREE.with_borrow_mut(|stage| {
        let set_up = match stage.take() {
            Some(stage) => Ok(stage),
            None => tempfile::tempdir().and_then(|directory| {
                make_tree(directory.path())?;
                Ok((Roots::at(directory.path()), directory))
            }),
        };
        assert!(set_up.is_ok(), "{:?}", set_up.err());
        let Ok((roots, directory)) = set_up else { return };
        let parts = bytes.split(|byte| *byte == 0).take(FILES.len());
        let of_input = parts.filter_map(|part| {
            let (which, text) = part.split_first()?;
            Some((directory.path().join(FILES.get(usize::from(*which) % FILES.len())?), text))
        });
        let mut written = Vec::new();
        for (path, text) in of_input {
            let result = std::fs::write(&path, text);
            assert!(result.is_ok(), "{}: {result:?}", path.display());
            written.push(path);
        }
        check_resources(&Resources::read(&roots));
        check_report(&roots);
        assert!(addresses::own_addresses(&roots).len() <= 256);
        let _ = socket::listener(&roots, None, 8443);
        for path in written {
            // One that was written twice is gone the second time.
            let _ = std::fs::remove_file(path);
        }
        *stage = Some((roots, directory));
    });
}

fn make_tree(base: &Path) -> std::io::Result<()> {
    for file in FILES {
        if let Some(directory) = base.join(file).parent() {
            std::fs::create_dir_all(directory)?;
        }
    }
    for (link, target) in LINKS {
        let place = base.join(link);
        if let Some(directory) = place.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::os::unix::fs::symlink(target, place)?;
    }
    Ok(())
}

fn check_resources(resources: &Resources) {
    let memory = &resources.memory;
    if let (Some(used), Some(total)) = (memory.used, memory.total) {
        assert!(used <= total, "{memory:?}");
    }
    assert!(resources.load.averages.is_none_or(|averages| averages.into_iter().all(f64::is_finite)));
    let threads = resources.sockets.iter().flat_map(|socket| &socket.cores).map(|core| core.threads.len());
    assert!(threads.sum::<usize>() <= 2, "more than two CPUs");
    assert!(resources.disks.len() <= 1 && resources.cards.len() <= 1);
}

fn check_report(roots: &Roots) {
    let report = Reporter::new(roots.clone()).report();
    let pressure = report.pressure.into_iter().flat_map(|pressure| {
        [pressure.cpu_waiting_seconds, pressure.memory_stalled_seconds, pressure.io_waiting_seconds]
    });
    let disks = report.disk.iter().map(|disk| disk.disk_read_time_seconds);
    let boot = [report.boot_time_seconds];
    for seconds in pressure.chain(disks).chain(boot).flatten() {
        assert!(seconds.is_finite() && seconds >= 0.0, "{seconds}");
    }
    assert!(report.disk.len() <= 512 && report.cpu.len() <= 512);
}

//! CPUs: `/sys/devices/system/cpu` (Documentation/admin-guide/cputopology.rst) and `/proc/cpuinfo`.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Files, numbered};
use crate::host::CpuList;
use crate::read::{Buffer, lines, number};

/// A socket, and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Socket {
    /// `physical_package_id`.
    pub number: u64,
    /// Who made it: `vendor_id` of `/proc/cpuinfo`.
    pub vendor: Option<String>,
    /// What it is called: `model name` of `/proc/cpuinfo`.
    pub name: Option<String>,
    /// The caches that its first CPU sees.
    pub caches: Vec<Cache>,
    /// Its cores.
    pub cores: Vec<Core>,
    /// The lowest and highest frequency of its first CPU, MHz.
    pub frequency_range: Option<(u64, u64)>,
}

/// A cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// 1 for the one nearest to the core.
    pub level: u64,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// Bytes.
    pub size: u64,
}

/// A core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Core {
    /// `core_id`: its number within the socket.
    pub number: u64,
    /// `die_id`.
    pub die: u64,
    /// Its threads.
    pub threads: Vec<Thread>,
    /// The present frequency of its first thread, MHz.
    pub frequency: Option<u64>,
}

/// A thread: what the kernel calls a CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// The kernel's number of it.
    pub cpu: u64,
    /// The NUMA node that it belongs to, where the kernel tells one.
    pub node: Option<u64>,
    /// Whether it is kept out of the scheduler's balancing (`isolcpus=`).
    pub is_isolated: bool,
}

/// Reads the CPUs that are online: of others the kernel tells no place.
pub(super) fn read(files: &mut Files<'_>) -> Vec<Socket> {
    let system = files.roots.sys.join("devices/system");
    let directory = system.join("cpu");
    let nodes: Vec<(u64, CpuList)> = numbered(&system.join("node"), "node")
        .into_iter()
        .filter_map(|(node, path)| Some((node, list(files, &path.join("cpulist"))?)))
        .collect();
    let isolated = list(files, &directory.join("isolated")).unwrap_or_default();
    let cpuinfo = files.buffer.read(&files.roots.proc.join("cpuinfo")).map(parse_cpuinfo).unwrap_or_default();

    let mut sockets: BTreeMap<u64, Socket> = BTreeMap::new();
    for (cpu, path) in numbered(&directory, "cpu") {
        let topology = path.join("topology");
        let Some(core) = files.number(&topology.join("core_id")) else { continue };
        // Architectures without sockets say -1.
        let package = files.number(&topology.join("physical_package_id")).unwrap_or(0);
        let die = files.number(&topology.join("die_id")).unwrap_or(0);
        let scaling = path.join("cpufreq");
        let socket = sockets.entry(package).or_insert_with(|| {
            let (vendor, name) = cpuinfo.get(&cpu).cloned().unwrap_or_default();
            let limits = ["cpuinfo_min_freq", "cpuinfo_max_freq"]
                .map(|name| megahertz(&mut files.buffer, &scaling.join(name)));
            Socket {
                number: package,
                vendor,
                name,
                caches: caches(files, &path.join("cache")),
                cores: Vec::new(),
                frequency_range: limits[0].zip(limits[1]),
            }
        });
        let number = u32::try_from(cpu).unwrap_or(u32::MAX);
        let node = nodes.iter().find(|(_, cpus)| cpus.contains(number)).map(|(node, _)| *node);
        let thread = Thread { cpu, node, is_isolated: isolated.contains(number) };
        match socket.cores.iter_mut().find(|known| (known.number, known.die) == (core, die)) {
            Some(known) => known.threads.push(thread),
            None => {
                let frequency = megahertz(&mut files.buffer, &scaling.join("scaling_cur_freq"));
                socket.cores.push(Core { number: core, die, threads: vec![thread], frequency });
            }
        }
    }
    sockets.into_values().collect()
}

fn list(files: &mut Files<'_>, path: &Path) -> Option<CpuList> {
    files.buffer.read(path).ok().and_then(CpuList::parse)
}

/// Files of cpufreq hold kHz.
fn megahertz(buffer: &mut Buffer, path: &Path) -> Option<u64> {
    Some(buffer.read(path).ok().and_then(crate::read::number_file)? / 1000)
}

fn caches(files: &mut Files<'_>, directory: &Path) -> Vec<Cache> {
    let mut found = Vec::new();
    for (_, path) in numbered(directory, "index") {
        let (level, kind) = (files.number(&path.join("level")), files.text(&path.join("type")));
        let size = files.text(&path.join("size")).and_then(|text| parse_size(&text));
        if let (Some(level), Some(kind), Some(size)) = (level, kind, size) {
            found.push(Cache { level, kind, size });
        }
    }
    found
}

/// `48K`, `2M`.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    number(digits.as_bytes())?.checked_mul(unit)
}

type Named = (Option<String>, Option<String>);

/// The vendor and name of each CPU of x86's `/proc/cpuinfo`; other architectures tell other things.
fn parse_cpuinfo(text: &[u8]) -> BTreeMap<u64, Named> {
    let mut cpus: BTreeMap<u64, Named> = BTreeMap::new();
    let mut current = None;
    for line in lines(text) {
        let text = String::from_utf8_lossy(line);
        let Some((key, value)) = text.split_once(':') else { continue };
        let value = value.trim();
        match (key.trim(), current) {
            ("processor", _) => current = number(value.as_bytes()),
            ("vendor_id", Some(cpu)) => cpus.entry(cpu).or_default().0 = Some(value.to_owned()),
            ("model name", Some(cpu)) => cpus.entry(cpu).or_default().1 = Some(value.to_owned()),
            _ => {}
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roots::Roots;

    #[test]
    fn two_threads_of_a_core_are_joined_and_an_offline_cpu_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (cpu, package, core) in [(0, 0, 0), (1, 0, 1), (2, 0, 0), (10, 1, 0)] {
            let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            write(&format!("{topology}/physical_package_id"), &format!("{package}\n"));
            write(&format!("{topology}/core_id"), &format!("{core}\n"));
        }
        write("sys/devices/system/cpu/cpu3/online", "0\n");
        write("sys/devices/system/cpu/cpu0/cache/index0/level", "1\n");
        write("sys/devices/system/cpu/cpu0/cache/index0/type", "Data\n");
        write("sys/devices/system/cpu/cpu0/cache/index0/size", "48K\n");
        write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2600000\n");
        write("sys/devices/system/cpu/isolated", "2\n");
        write("sys/devices/system/node/node1/cpulist", "10\n");
        write("proc/cpuinfo", "processor\t: 0\nvendor_id\t: V\nmodel name\t: M 1\n\nprocessor\t: 10\n");
        let roots = Roots::at(dir.path());
        let sockets = read(&mut Files { roots: &roots, buffer: Buffer::new() });
        assert_eq!(sockets.len(), 2);
        let first = &sockets[0];
        assert_eq!((first.vendor.as_deref(), first.name.as_deref()), (Some("V"), Some("M 1")));
        assert_eq!(first.caches, [Cache { level: 1, kind: "Data".to_owned(), size: 48 << 10 }]);
        let threads: Vec<_> = first.cores[0].threads.iter().map(|it| (it.cpu, it.is_isolated)).collect();
        assert_eq!((threads, first.cores[0].frequency), (vec![(0, false), (2, true)], Some(2600)));
        assert_eq!((first.cores.len(), first.frequency_range), (2, None));
        assert_eq!(sockets[1].cores[0].threads[0].node, Some(1));
    }

    #[test]
    fn sizes_have_units() {
        let sizes = ["48K", "2M", "512", "x", ""].map(parse_size);
        assert_eq!(sizes, [Some(48 << 10), Some(2 << 20), Some(512), None, None]);
    }
}

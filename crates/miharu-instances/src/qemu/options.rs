//! What a QEMU was started with, out of its options.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::sections::Section;
use crate::vm::{Channel, Vm, Vsock};

/// The longest name that is taken; labels are served again and again.
const MAX_NAME: usize = 255;

/// The most monitors, ports or taps of one machine.
const MAX_ROWS: usize = 512;

/// A machine as its command line tells of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) name: Option<String>,
    pub(super) pidfile: Option<PathBuf>,
    /// Whether QEMU leaves its first process once it has begun.
    pub(super) is_daemon: bool,
    /// Whether it is no machine at all: libvirt starts such a QEMU to ask what it can do.
    pub(super) is_probe: bool,
    pub(crate) vm: Vm,
    /// The control socket of its vhost-user vsock device, to which QEMU connects.
    pub(super) vsock_socket: Option<PathBuf>,
}

/// The files of `-readconfig`.
pub(crate) fn files(sections: &[Section]) -> Vec<PathBuf> {
    sections.iter().filter_map(|section| Some(PathBuf::from(section.get("readconfig")?))).take(8).collect()
}

/// Makes relative paths absolute, by the directory in which QEMU runs, where that is known.
pub(crate) fn resolve(sections: &mut [Section], directory: Option<&Path>) {
    let Some(directory) = directory.filter(|path| path.is_absolute()).and_then(Path::to_str) else { return };
    for Section { group, entries } in sections {
        let is_path = |key: &str| match group.as_str() {
            "chardev" | "mon" => key == "path",
            "pidfile" | "readconfig" => true,
            _ => false,
        };
        for (_, value) in entries.iter_mut().filter(|(key, _)| is_path(key)) {
            if !value.is_empty() && !value.starts_with('/') {
                *value = format!("{}/{value}", directory.trim_end_matches('/'));
            }
        }
    }
}

impl Options {
    /// Out of all options, those of files too.
    pub(crate) fn new(sections: &[Section]) -> Self {
        let of = |group: &'static str| sections.iter().filter(move |section| section.group == group);
        let last = |group: &'static str, key: &str| of(group).rev().find_map(|section| section.get(key));
        let sockets = sockets(sections);
        let socket = |section: &Section| {
            let socket = sockets.get(section.get("chardev")?)?;
            socket.1.then(|| socket.0.clone())
        };
        let channels = of("device").filter(|device| device.get("driver") == Some("virtserialport"));
        let channel =
            |port: &Section| Some(Channel { port: bounded(port.get("name")?)?, socket: socket(port)? });
        let vsock = |section: &&Section| section.get("driver").is_some_and(|d| d.starts_with("vhost-vsock"));
        let user_vsock =
            |section: &&Section| section.get("driver").is_some_and(|d| d.starts_with("vhost-user-vsock"));
        let cid = of("device").find(vsock).and_then(|section| section.get("guest-cid")?.parse().ok());
        let vm = Vm {
            uuid: last("uuid", "uuid").and_then(bounded),
            configured_vcpus: vcpus(sections),
            configured_memory: last("m", "size").and_then(memory),
            monitors: of("mon").filter_map(|monitor| control(monitor, &socket)).take(MAX_ROWS).collect(),
            channels: channels.filter_map(channel).take(MAX_ROWS).collect(),
            vsock: cid.map(Vsock::Cid),
            taps: taps(sections),
            ..Vm::default()
        };
        Self {
            name: last("name", "guest").and_then(bounded),
            pidfile: last("pidfile", "pidfile").map(PathBuf::from),
            is_daemon: of("daemonize").next().is_some(),
            is_probe: last("machine", "type").or_else(|| last("M", "type")) == Some("none"),
            vm,
            vsock_socket: of("device")
                .find(user_vsock)
                .and_then(|section| Some(sockets.get(section.get("chardev")?)?.0.clone())),
        }
    }
}

/// A text that may become a label.
fn bounded(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= MAX_NAME).then(|| text.to_owned())
}

/// The unix sockets by the name of their character device, and whether QEMU listens on them.
fn sockets(sections: &[Section]) -> HashMap<&str, (PathBuf, bool)> {
    let devices = sections.iter().filter(|section| section.group == "chardev");
    let socket = |device: &Section| {
        let path = absolute(device.get("path")?)?;
        (device.get("backend") == Some("socket") && !device.is_on("abstract"))
            .then(|| (path, device.is_on("server")))
    };
    devices.filter_map(|device| Some((device.get("id")?, socket(device)?))).collect()
}

fn absolute(path: &str) -> Option<PathBuf> {
    Some(Path::new(path)).filter(|path| path.is_absolute()).map(Path::to_owned)
}

/// The socket of a QMP monitor, if QEMU listens on one.
fn control(monitor: &Section, socket: &dyn Fn(&Section) -> Option<PathBuf>) -> Option<PathBuf> {
    if monitor.get("mode") != Some("control") {
        return None;
    }
    match monitor.get("path") {
        Some(path) => absolute(path).filter(|_| monitor.is_on("server")),
        None => socket(monitor),
    }
}

/// `-smp 2`, `-smp cpus=2,maxcpus=8`, `-smp sockets=2,cores=2`; without any, one.
fn vcpus(sections: &[Section]) -> Option<u32> {
    let last = |key: &str| {
        let smp = sections.iter().filter(|section| section.group == "smp");
        smp.rev().find_map(|section| section.get(key)).map(str::parse::<u32>)
    };
    if let Some(cpus) = last("cpus") {
        return cpus.ok().filter(|cpus| *cpus > 0);
    }
    ["sockets", "dies", "clusters", "cores", "threads"]
        .into_iter()
        .filter_map(last)
        .try_fold(1u32, |product, factor| product.checked_mul(factor.ok()?))
        .filter(|cpus| *cpus > 0)
}

/// A size as QEMU takes it after `-m`: a decimal number with a unit, MiB where there is none.
pub(crate) fn memory(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text.strip_prefix(digits)?.to_ascii_lowercase().as_str() {
        "b" => 1,
        "k" => 1 << 10,
        "" | "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return None,
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let bytes = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if part.is_empty() {
        return Some(bytes);
    }
    let part: String = part.chars().take(9).collect();
    let scale = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = u128::from(part.parse::<u64>().ok()?).checked_mul(u128::from(unit))? / scale;
    bytes.checked_add(u64::try_from(part).ok()?)
}

/// The names of taps that QEMU was told to open.
fn taps(sections: &[Section]) -> Vec<String> {
    let networks =
        sections.iter().filter(|section| matches!(section.group.as_str(), "netdev" | "nic" | "net"));
    let taps = networks.filter(|network| network.get("type") == Some("tap"));
    taps.filter_map(|tap| bounded(tap.get("ifname")?)).take(MAX_ROWS).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sections::{of_command_line, of_file};
    use super::*;

    fn options(line: &str) -> Options {
        Options::new(&of_command_line(line.replace('|', "\0").as_bytes()))
    }

    #[test]
    fn a_machine_started_by_hand() {
        let found = options(
            "qemu-system-x86_64|-name|vm,process=qemu-vm,debug-threads=on|-m|256|-smp|2|-uuid|U|-pidfile|/w/pid\
             |-qmp|unix:/w/q1,server=on,wait=off|-qmp|unix:/w/q2,server=off|-chardev|socket,id=m,path=/w/q3,server=on\
             |-mon|chardev=m,mode=control|-chardev|socket,id=h,path=/w/hmp,server|-mon|h\
             |-chardev|socket,id=c0,path=/w/agent,server=on,wait=off|-device|virtserialport,chardev=c0,name=org.miharu.agent.0\
             |-chardev|socket,id=v,path=/w/vhost|-device|vhost-user-vsock-pci,chardev=v\
             |-netdev|tap,id=n0,ifname=tap7,script=no|-nic|user",
        );
        assert_eq!(found.name.as_deref(), Some("vm"));
        assert_eq!(found.pidfile.as_deref(), Some(Path::new("/w/pid")));
        assert!(!found.is_daemon && !found.is_probe);
        assert!(options("q|-S|-machine|none,accel=kvm:tcg").is_probe);
        assert_eq!(found.vsock_socket.as_deref(), Some(Path::new("/w/vhost")));
        let channel = Channel { port: "org.miharu.agent.0".into(), socket: "/w/agent".into() };
        let expected = Vm {
            uuid: Some("U".into()),
            configured_vcpus: Some(2),
            configured_memory: Some(256 << 20),
            monitors: vec!["/w/q1".into(), "/w/q3".into()],
            channels: vec![channel],
            taps: vec!["tap7".into()],
            ..Vm::default()
        };
        assert_eq!(found.vm, expected);
    }

    #[test]
    fn a_machine_of_incus() {
        let text = "[memory]\nsize = \"1024M\"\n[smp-opts]\ncpus = \"3\"\nmaxcpus = \"8\"\n[device \"qemu_vsock\"]\n\
                    driver = \"vhost-vsock-pci\"\nguest-cid = \"42\"\nvhostfd = \"5\"\n[chardev \"monitor\"]\n\
                    backend = \"socket\"\npath = \"/run/incus/v1/qemu.monitor\"\nserver = \"on\"\n[mon]\n\
                    chardev = \"monitor\"\nmode = \"control\"\n";
        let vm = Options::new(&of_file(text)).vm;
        assert_eq!((vm.configured_vcpus, vm.configured_memory), (Some(3), Some(1 << 30)));
        assert_eq!(vm.vsock, Some(Vsock::Cid(42)));
        assert_eq!(vm.monitors, [PathBuf::from("/run/incus/v1/qemu.monitor")]);
    }

    #[test]
    fn sizes_and_processors() {
        for (text, bytes) in
            [("512", 512 << 20), ("1.5G", 3 << 29), ("262144k", 256 << 20), ("2T", 2 << 40), ("7b", 7)]
        {
            assert_eq!(memory(text), Some(bytes), "{text}");
        }
        for bad in ["", "x", "1.x", "-1", "99999999999P", "1KiB"] {
            assert_eq!(memory(bad), None, "{bad}");
        }
        assert_eq!(options("q").vm.configured_vcpus, Some(1));
        assert_eq!(options("q|-smp|sockets=2,cores=3").vm.configured_vcpus, Some(6));
        assert_eq!(options("q|-smp|x").vm.configured_vcpus, None);
        assert_eq!(options("q|-smp|sockets=0,cores=3").vm.configured_vcpus, None);
        assert_eq!(options(&format!("q|-name|{}", "n".repeat(300))).name, None);
    }

    #[test]
    fn relative_paths_lie_where_qemu_runs() {
        let monitors = |line: &str| {
            let mut sections = of_command_line(line.replace('|', "\0").as_bytes());
            resolve(&mut sections, Some(Path::new("/srv/vm")));
            let options = Options::new(&sections);
            (options.vm.monitors, options.pidfile)
        };
        let line = "qemu|-qmp|unix:a.sock,server=on|-chardev|socket,id=c,path=./b,server=on|-mon|c,mode=control|-pidfile|p";
        let (found, pidfile) = monitors(line);
        assert_eq!(found, [PathBuf::from("/srv/vm/a.sock"), PathBuf::from("/srv/vm/./b")]);
        assert_eq!(pidfile, Some("/srv/vm/p".into()));
        assert_eq!(monitors("qemu|-qmp|unix:/x,server").0, [PathBuf::from("/x")]);
    }
}

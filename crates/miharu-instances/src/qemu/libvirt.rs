//! libvirt's domains, from the state that libvirtd keeps of each one that runs: `/run/libvirt/qemu/NAME.xml`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use miharu_linux::cgroup::CgroupPaths;
use miharu_linux::process::Memberships;
use miharu_linux::read::regular;

use crate::driver::is_trusted;
use crate::tree;
use crate::vm::{Channel, Owner, Vm, Vsock};
use crate::xml::{self, Element};

/// The most domains.
const MAX_DOMAINS: usize = 4096;

/// The longest state of one, bytes.
const MAX_DOMAIN: u64 = 4 << 20;

/// A running domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domain {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) vm: Vm,
}

/// The domains as they were read last, so that a file is read again only when it has changed.
#[derive(Debug, Default)]
pub(super) struct Domains {
    files: HashMap<OsString, (Stamp, Option<Domain>)>,
}

/// What changes when libvirtd writes a file again.
type Stamp = (u64, u64, i64, i64);

impl Domains {
    /// Reads the state of all domains in `run` (`/run`). Only root's files are believed.
    pub(super) fn read(&mut self, run: &Path) -> Vec<Domain> {
        let directory = run.join("libvirt/qemu");
        let mut known = std::mem::take(&mut self.files);
        let is_roots = std::fs::symlink_metadata(&directory).is_ok_and(|m| m.is_dir() && is_trusted(m.uid()));
        let entries = if is_roots { std::fs::read_dir(&directory).ok() } else { None };
        for entry in entries.into_iter().flatten().flatten().take(MAX_DOMAINS) {
            let name = entry.file_name();
            let Ok(metadata) = entry.metadata() else { continue };
            if !name.to_string_lossy().ends_with(".xml") || !metadata.is_file() || !is_trusted(metadata.uid())
            {
                continue;
            }
            let stamp = (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
            let domain = match known.remove(&name) {
                Some((before, domain)) if before == stamp => domain,
                _ => regular(&entry.path(), MAX_DOMAIN)
                    .ok()
                    .and_then(|text| parse(std::str::from_utf8(&text).ok()?)),
            };
            self.files.insert(name, (stamp, domain));
        }
        self.files.values().filter_map(|(_, domain)| domain.clone()).collect()
    }
}

/// Parses the state of a domain.
pub(crate) fn parse(text: &str) -> Option<Domain> {
    let status = xml::parse(text).filter(|status| status.name == "domstatus")?;
    let pid = status.attribute("pid")?.parse().ok().filter(|pid| *pid > 1)?;
    let domain = status.child("domain")?;
    let name = domain.child("name")?.text().to_owned();
    let devices = domain.child("devices")?;
    let vm = Vm {
        uuid: domain.child("uuid").map(|uuid| uuid.text().to_owned()),
        configured_vcpus: domain.child("vcpu").and_then(vcpus),
        configured_memory: domain.child("memory").and_then(memory),
        monitors: Vec::new(),
        channels: devices.children("channel").filter_map(channel).collect(),
        vsock: devices.children("vsock").find_map(vsock),
        certificates: None,
        disk_ids: devices.children("disk").filter_map(disk).collect(),
        taps: devices.children("interface").filter_map(tap).collect(),
        owner: Owner::Libvirt { domain: name.clone() },
    };
    (!name.is_empty()).then_some(Domain { pid, name, vm })
}

/// The vCPUs that are plugged in at the start.
fn vcpus(vcpu: &Element) -> Option<u32> {
    vcpu.attribute("current").unwrap_or_else(|| vcpu.text()).parse().ok()
}

/// A size with its unit, <https://libvirt.org/formatdomain.html#memory-allocation>: KiB where there is none.
fn memory(memory: &Element) -> Option<u64> {
    let unit: u64 = match memory.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    memory.text().parse::<u64>().ok()?.checked_mul(unit)
}

/// A virtio-serial port whose socket QEMU listens on.
fn channel(channel: &Element) -> Option<Channel> {
    let (source, target) = (channel.child("source")?, channel.child("target")?);
    if channel.attribute("type") != Some("unix")
        || source.attribute("mode").is_some_and(|mode| mode != "bind")
        || target.attribute("type") != Some("virtio")
    {
        return None;
    }
    Some(Channel {
        port: target.attribute("name")?.to_owned(),
        socket: PathBuf::from(source.attribute("path")?),
    })
}

/// What libvirt calls a disk, which a guest may call so, too, and the id of its device in QEMU.
fn disk(disk: &Element) -> Option<(String, String)> {
    let target = disk.child("target")?.attribute("dev")?;
    let id = disk.child("alias")?.attribute("name")?;
    Some((target.to_owned(), id.to_owned()))
}

fn vsock(vsock: &Element) -> Option<Vsock> {
    vsock.child("cid")?.attribute("address")?.parse().ok().map(Vsock::Cid)
}

/// The tap of an interface. One of type `direct` is a macvtap, which counts from the guest's side and is left out.
fn tap(interface: &Element) -> Option<String> {
    if matches!(interface.attribute("type"), Some("direct" | "hostdev" | "user" | "vhostuser" | "vdpa")) {
        return None;
    }
    Some(interface.child("target")?.attribute("dev")?.to_owned())
}

/// The domain's own cgroups: `machine/qemu-1-NAME.libvirt-qemu`, or systemd's `machine-qemu…scope`. What libvirt puts below
/// it (`emulator`, `vcpu0`, `libvirt`) is part of it.
pub(super) fn cgroups(memberships: &Memberships) -> CgroupPaths {
    tree::cgroup_paths(memberships, |_, path| {
        let mut own = PathBuf::new();
        for part in path {
            own.push(part);
            let name = part.to_string_lossy();
            if name.ends_with(".libvirt-qemu")
                || (name.starts_with("machine-qemu") && name.ends_with(".scope"))
            {
                return Some(own);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libvirt 9 writes, shortened.
    pub(super) const STATUS: &str = r"<!--
WARNING: THIS IS AN AUTO-GENERATED FILE.
-->
<domstatus state='running' reason='booted' pid='4711'>
  <monitor path='/var/lib/libvirt/qemu/domain-1-lvm1/monitor.sock' type='unix'/>
  <vcpus><vcpu id='0' pid='4720'/></vcpus>
  <domain type='qemu' id='1'>
    <name>lvm&quot;1,x</name>
    <uuid>2f7e6a6e-0000-4000-8000-000000000001</uuid>
    <memory unit='KiB'>262144</memory>
    <currentMemory unit='KiB'>131072</currentMemory>
    <vcpu placement='static' current='1'>2</vcpu>
    <devices>
      <disk type='file' device='disk'><target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>
      <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
      <channel type='unix'>
        <source mode='bind' path='/run/libvirt/qemu/channel/1-lvm1/org.test.agent'/>
        <target type='virtio' name='org.test.agent' state='disconnected'/>
      </channel>
      <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
      <interface type='network'><target dev='vnet0'/></interface>
      <interface type='direct'><target dev='macvtap0'/></interface>
      <vsock model='virtio'><cid auto='yes' address='3'/></vsock>
    </devices>
  </domain>
</domstatus>
";

    #[test]
    fn the_state_of_a_domain() {
        let domain = parse(STATUS).unwrap();
        assert_eq!((domain.pid, domain.name.as_str()), (4711, "lvm\"1,x"));
        let expected = Vm {
            uuid: Some("2f7e6a6e-0000-4000-8000-000000000001".into()),
            configured_vcpus: Some(1),
            configured_memory: Some(256 << 20),
            channels: vec![Channel {
                port: "org.test.agent".into(),
                socket: "/run/libvirt/qemu/channel/1-lvm1/org.test.agent".into(),
            }],
            vsock: Some(Vsock::Cid(3)),
            disk_ids: [("vda".to_owned(), "virtio-disk0".to_owned())].into(),
            taps: vec!["vnet0".into()],
            owner: Owner::Libvirt { domain: "lvm\"1,x".into() },
            ..Vm::default()
        };
        assert_eq!(domain.vm, expected);
        assert_eq!(parse("<domain/>"), None);
        assert_eq!(parse(&STATUS.replace("pid='4711'", "pid='0'")), None);
    }

    #[test]
    fn cgroups_end_at_the_domains_own() {
        let mut memberships = Memberships::default();
        memberships.v1.insert("cpu".into(), "machine/qemu-1-lvm1.libvirt-qemu/emulator".into());
        memberships.v1.insert("pids".into(), "user".into());
        memberships.unified = Some(r"machine.slice/machine-qemu\x2d1\x2dlvm1.scope/libvirt/emulator".into());
        let found = cgroups(&memberships);
        assert_eq!(found.unified, Some(r"machine.slice/machine-qemu\x2d1\x2dlvm1.scope".into()));
        assert_eq!(found.v1.get("cpu").unwrap(), Path::new("machine/qemu-1-lvm1.libvirt-qemu"));
        assert_eq!(found.v1.len(), 1);
    }
}

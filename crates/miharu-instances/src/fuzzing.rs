//! The readers of what users and runtimes wrote, for `miharu-fuzz`. Each takes whatever a file, an answer or a command line could
//! hold, and panics where what it read breaks the reader's own rules.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use prost::Message;
use rustix::fs::MemfdFlags;

use crate::containerd::question::{GetResponse, Question};
use crate::docker::record::{Image, Record};
use crate::kubernetes::cri::{self, Containers, Sandboxes};
use crate::kubernetes::pod::{self, Pod};
use crate::oci::{self, conmon, is_image, is_name};
use crate::podman::{bolt, question, state};
use crate::qemu::options::{self, Options};
use crate::qemu::sections::{self, Section};
use crate::qemu::{libvirt, taps, vsock, watch};
use crate::shim::bundle::Config;
use crate::shim::{command, name};
use crate::{Identity, libvirt_lxc, lxc, nspawn, users, xml};

/// An id as runtimes give them out.
const ID: &str = "f58f5aef7fdd2e59f29738e4ab05ba84d7acd067e06f4ebc20f45df8170504fd";

/// The bytes of a command line, of every program whose options are read.
pub fn command_line(line: &[u8]) {
    for is_system in [false, true] {
        if let Some(container) = lxc::monitor::parse(line, is_system) {
            assert!(container.path.is_absolute());
            assert!(!container.name.as_bytes().contains(&b'/') && !container.name.is_empty());
        }
    }
    if let Some(conmon) = conmon::parse(line) {
        assert!(conmon.bundle.is_none_or(|bundle| bundle.is_absolute()));
    }
    if let Some(command) = command::parse(line) {
        assert!(name::is_identifier(&command.namespace));
        assert!(command.id.is_none_or(|id| name::is_identifier(&id)));
        assert!(command.address.is_none_or(|address| address.is_absolute()));
    }
    let _ = nspawn::machine::options(line);
    if let Some(name) = libvirt_lxc::name(line) {
        assert!(!name.is_empty() && !name.contains('/'));
    }
    for (control, end) in vsock::pairs(line) {
        assert!(control.is_absolute() && end.is_absolute());
    }
    machine(sections::of_command_line(line));
}

/// A file of QEMU's `-readconfig`.
pub fn qemu_config(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    machine(sections::of_file(text));
    let _ = options::memory(text);
}

fn machine(mut sections: Vec<Section>) {
    assert!(sections.len() <= 8192);
    assert!(options::files(&sections).len() <= 8);
    options::resolve(&mut sections, Some(Path::new("/run/q")));
    let vm = Options::new(&sections).vm;
    assert!(vm.monitors.iter().all(|socket| socket.is_absolute()));
    assert!(vm.channels.iter().all(|channel| channel.socket.is_absolute() && channel.port.len() <= 255));
    assert!(vm.taps.iter().all(|tap| !tap.is_empty() && tap.len() <= 255));
    assert!(vm.configured_vcpus != Some(0), "a machine without a processor");
}

/// The state of a domain that libvirt keeps as XML.
pub fn domain_xml(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let document = xml::parse(text);
    let domain = libvirt::parse(text);
    let container = libvirt_lxc::state::parse(text, 4242);
    assert!(document.is_some() || domain.is_none() && container.is_none());
}

/// Small files and single lines that name somebody: passwd, machined's record, a shim's address, a tap's descriptor, a unit.
pub fn names(text: &[u8]) {
    assert!(users::parse(text).is_none_or(|user| !user.name.is_empty()));
    let _ = nspawn::machine::parse_record(text);
    let _ = crate::containerd::tasks::socket_name(text);
    assert!(taps::interface(text).is_none_or(|name| !name.is_empty() && !name.contains('\n')));
    let _ = watch::parse_loadavg(text);
    let name = OsStr::from_bytes(text);
    assert!(nspawn::machine::of_unit(name).is_none_or(|machine| !machine.is_empty()));
    assert!(name::container_id(name).is_none_or(|id| oci::is_id(id.as_bytes())));
    assert!(oci::id_of(name, "libpod").is_none_or(|id| oci::is_id(id.as_bytes())));
    if let Ok(text) = std::str::from_utf8(text) {
        check_pod(Pod::of_container_name(text));
    }
}

/// JSON of Docker, podman and OCI bundles. What podman tells of a container may have its pod behind a zero byte.
pub fn runtime_json(text: &[u8]) {
    let labels = Image::parse(text).map(Image::labels).unwrap_or_default();
    if let Some(record) = Record::parse(text) {
        check(record.identity(&labels));
        check_pod(record.pod());
        assert!(record.image_name().is_none_or(|image| is_image(&image)));
    }
    let mut parts = text.splitn(2, |byte| *byte == 0);
    let (container, pod) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    check(question::told(container, pod, &labels));
    let _ = serde_json::from_slice::<state::Record>(text);
    let _ = state::parse_names(text);
    if let Some(config) = Config::parse(text) {
        check_pod(Pod::of_annotations(&config.annotations));
        let _ = pod::image(&config.annotations);
        let path = Path::new("system.slice/docker-x.scope/below");
        if let Some(cgroup) = config.cgroup(ID, path) {
            assert!(path.starts_with(&cgroup), "a cgroup that is none of its init's");
        }
        assert!(config.data_roots().count() <= 4);
    }
}

/// Answers of containerd and of the Container Runtime Interface, without gRPC's frame.
pub fn runtime_protobuf(bytes: &[u8]) {
    if let Ok(GetResponse { container: Some(container) }) = GetResponse::decode(bytes) {
        let question = Question::new("default".to_owned(), ID.to_owned(), None, Vec::new());
        let name = question.nerdctls(&container.labels);
        check(Some(question.identity(name, Some(container.image))));
    }
    let container = Containers::decode(bytes).ok().and_then(|found| found.containers.into_iter().next());
    if let Ok(found) = Sandboxes::decode(bytes) {
        for sandbox in found.items {
            check_pod(cri::named(container.clone(), sandbox).map(|(pod, _)| pod));
        }
    }
}

/// podman's database as a Bolt file. The checksums of its meta pages are put right, as nothing else would be looked at.
pub fn bolt(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    for page in [0, 1024, 2048, 4096] {
        let Some(meta) = bytes.get(page + 16..page + 16 + 56) else { continue };
        let sum = bolt::fnv(meta).to_ne_bytes();
        if meta.starts_with(&0xED0C_DAED_u32.to_ne_bytes())
            && let Some(place) = bytes.get_mut(page + 72..page + 80)
        {
            place.copy_from_slice(&sum);
        }
    }
    let Some(file) = in_memory(&bytes) else { return };
    for keys in [&[&b"ctr"[..], b"a", b"config"][..], &[b"pod"], &[b"ctr", b""]] {
        if let Ok(Some(value)) = bolt::get(&file, keys) {
            assert!(value.len() <= bytes.len(), "more than there is in the file");
        }
    }
}

/// podman's database of a user's as an SQLite file.
pub fn sqlite(bytes: &[u8]) {
    let Some(connection) = in_memory(bytes).and_then(|file| state::of_memory(file).ok()) else { return };
    for query in
        ["SELECT JSON FROM ContainerConfig WHERE ID = ?1", "SELECT JSON FROM PodConfig WHERE ID = ?1"]
    {
        if let Ok(Some(text)) = state::row(&connection, query, "a") {
            let _ = serde_json::from_str::<state::Record>(&text);
        }
    }
}

fn in_memory(bytes: &[u8]) -> Option<File> {
    let mut file = File::from(rustix::fs::memfd_create("fuzzing", MemfdFlags::CLOEXEC).ok()?);
    file.write_all(bytes).ok()?;
    file.seek(SeekFrom::Start(0)).ok()?;
    Some(file)
}

fn check_pod(pod: Option<Pod>) {
    check(pod.map(|pod| pod.identity(None)));
}

/// What becomes labels is made of what runtimes allow in names.
fn check(identity: Option<Identity>) {
    let Some(Identity { project, name, image, .. }) = identity else { return };
    for part in project.split('/').chain(name.split('/')) {
        assert!(is_name(part), "{project:?} {name:?}");
    }
    assert!(image.is_none_or(|image| is_image(&image)));
}

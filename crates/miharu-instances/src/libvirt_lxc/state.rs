//! What libvirtd writes of a container that runs: `/run/libvirt/lxc/NAME.xml`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use miharu_linux::Roots;
use miharu_linux::read::Buffer;

use crate::driver::is_trusted;
use crate::xml::{self, Element};
use std::os::unix::fs::MetadataExt;

/// What is taken of a container's state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Its UUID.
    pub(super) uuid: Option<String>,
    /// The last component of where its root is on the host.
    pub(super) root: Option<OsString>,
}

/// The state of the container of that name whose controller is `pid`; only root's files are believed.
pub(super) fn read(roots: &Roots, name: &str, pid: u32, buffer: &mut Buffer) -> Option<State> {
    let directory = roots.run.join("libvirt/lxc");
    let file = directory.join(format!("{name}.xml"));
    let is_roots = |path: &Path| std::fs::symlink_metadata(path).ok().filter(|m| is_trusted(m.uid()));
    if !is_roots(&directory)?.is_dir() || !is_roots(&file)?.is_file() {
        return None;
    }
    parse(std::str::from_utf8(buffer.read(&file).ok()?).ok()?, pid)
}

/// Parses a container's state, if it is of the one with that controller.
pub(crate) fn parse(text: &str, pid: u32) -> Option<State> {
    let status = xml::parse(text).filter(|status| status.name == "domstatus")?;
    if status.attribute("pid")?.parse() != Ok(pid) {
        return None;
    }
    let domain = status.child("domain")?;
    let uuid = domain.child("uuid").map(Element::text).filter(|text| is_uuid(text)).map(str::to_owned);
    let root = domain.child("devices").and_then(|devices| devices.children("filesystem").find_map(root));
    Some(State { uuid, root: root.map(OsStr::to_owned) })
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// What the container's root is called on the host.
fn root(filesystem: &Element) -> Option<&OsStr> {
    if filesystem.child("target")?.attribute("dir") != Some("/") {
        return None;
    }
    let source = filesystem.child("source")?;
    Path::new(source.attribute("dir").or_else(|| source.attribute("file"))?).file_name()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What libvirt 9 writes, shortened.
    const STATUS: &str = "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n\
        <domstatus state='running' reason='booted' pid='18928'>\n  <init pid='18929'/>\n\
        <domain type='lxc' id='18928'>\n<name>web-1.x</name>\n\
        <uuid>f520aa47-9c61-46be-8fa1-69210f2dcbeb</uuid>\n<memory unit='KiB'>65536</memory>\n<devices>\n\
        <filesystem type='mount'><source dir='/srv/shared'/><target dir='/mnt'/></filesystem>\n\
        <filesystem type='mount' accessmode='passthrough'><source dir='/srv/web'/><target dir='/'/></filesystem>\n\
        </devices></domain>\n</domstatus>\n";

    #[test]
    fn the_state_of_a_container() {
        let expected =
            State { uuid: Some("f520aa47-9c61-46be-8fa1-69210f2dcbeb".into()), root: Some("web".into()) };
        assert_eq!(parse(STATUS, 18928), Some(expected));
        assert_eq!(parse(STATUS, 18929), None, "of another controller");
        assert_eq!(parse("<domain/>", 18928), None);
        let broken = STATUS.replace("f520aa47-", "../").replace("'/'", "'/x'");
        assert_eq!(parse(&broken, 18928), Some(State::default()));
    }

    proptest! {
        #[test]
        fn nothing_panics(at in 0..STATUS.len(), with in "[<>/='&a1]{0,4}") {
            let mut text = STATUS.to_owned();
            text.insert_str(at, &with);
            let _ = parse(&text, 18928);
        }
    }
}

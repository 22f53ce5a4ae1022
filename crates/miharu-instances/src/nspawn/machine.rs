//! What a machine is called: by machined, by its supervisor's command line, by its unit, by its directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use miharu_linux::Roots;
use miharu_linux::process::{ProcDir, arguments};
use miharu_linux::read::{lines, number, regular};

use super::{Machine, base_name};
use crate::tree::Top;

/// The longest name that is taken; machine names are host names, of 64 bytes at most.
const MAX_NAME: usize = 255;

/// The longest record of machined's, bytes.
const MAX_RECORD: u64 = 64 << 10;

/// The name of the machine that a unit would run: `machine-NAME.scope`, `systemd-nspawn@NAME.service`.
pub(crate) fn of_unit(unit: &OsStr) -> Option<OsString> {
    let unit = unit.as_bytes();
    let between = |start: &[u8], end: &[u8]| unit.strip_prefix(start)?.strip_suffix(end);
    let escaped = between(b"machine-", b".scope").or_else(|| between(b"systemd-nspawn@", b".service"))?;
    (!escaped.is_empty()).then(|| OsString::from_vec(unescape(escaped)))
}

/// Decodes a unit's name, systemd.unit(5): `\xHH` is a byte, `-` a slash. A machine's name holds no slash, so a bare
/// hyphen (of a scope that was made by hand) stays one.
fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((first, tail)) = rest.split_first() {
        let byte = tail
            .strip_prefix(b"x")
            .filter(|_| *first == b'\\')
            .and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok())
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// Names the machine of a supervisor in the unit's cgroup, if it is in one, with that init.
pub(super) fn name(roots: &Roots, supervisor: &ProcDir, unit: Option<&OsStr>, init: &Top) -> Option<Machine> {
    let command_line = supervisor.command_line().unwrap_or_default();
    let given = options(&command_line);
    let of_unit = unit.and_then(of_unit);
    let directory = given.directory.and_then(base_name).map(OsStr::to_owned);
    let name = given.name.map(|name| OsStr::from_bytes(name).to_owned());
    let name =
        name.or_else(|| registered(roots, init.process.pid())).or(of_unit).or_else(|| directory.clone());
    let name = name.filter(|name| !name.is_empty() && name.len() <= MAX_NAME)?;
    let directory = directory.unwrap_or_else(|| name.clone());
    Some(Machine { name: name.to_string_lossy().into_owned(), directory })
}

/// The name under which machined knows the machine of that leader. Its files are called after machines; beside them
/// lie links from units (`unit:…`) to them.
fn registered(roots: &Roots, leader: u32) -> Option<OsString> {
    let entries = std::fs::read_dir(roots.run.join("systemd/machines")).ok()?;
    entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).find_map(|entry| {
        let record = parse_record(&regular(&entry.path(), MAX_RECORD).ok()?);
        (record == Some(leader)).then(|| entry.file_name())
    })
}

/// The leader in machined's record of a machine of systemd-nspawn; `None` for others, such as libvirt's.
pub(crate) fn parse_record(text: &[u8]) -> Option<u32> {
    let value = |key: &[u8]| {
        let line = lines(text).find_map(|line| line.strip_prefix(key)?.strip_prefix(b"="))?;
        Some(line.trim_ascii())
    };
    if value(b"CLASS").is_some_and(|class| class != b"container")
        || value(b"SERVICE").is_some_and(|service| service != b"systemd-nspawn")
    {
        return None;
    }
    u32::try_from(number(value(b"LEADER")?)?).ok()
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options<'a> {
    name: Option<&'a [u8]>,
    directory: Option<&'a [u8]>,
}

/// The machine's name and directory or image among a supervisor's options, systemd-nspawn(1). The first word that is no
/// option begins the machine's own command.
pub(crate) fn options(command_line: &[u8]) -> Options<'_> {
    let mut found = Options::default();
    let mut arguments = arguments(command_line).skip(1);
    while let Some(argument) = arguments.next() {
        if argument == b"--" || !argument.starts_with(b"-") {
            break;
        }
        if let Some(long) = argument.strip_prefix(b"--") {
            let mut parts = long.splitn(2, |b| *b == b'=');
            let option = parts.next().unwrap_or_default();
            let takes_value = LONG_WITH_VALUE.iter().any(|known| known.as_bytes() == option);
            let value = parts.next().or_else(|| if takes_value { arguments.next() } else { None });
            match option {
                b"machine" => found.name = value,
                b"directory" | b"image" => found.directory = value,
                _ => {}
            }
        } else if let Some(cluster) = argument.strip_prefix(b"-") {
            let Some(at) = cluster.iter().position(|letter| WITH_VALUE.contains(letter)) else { continue };
            let attached = cluster.get(at + 1..).filter(|rest| !rest.is_empty());
            let value = attached.or_else(|| arguments.next());
            match cluster.get(at) {
                Some(b'M') => found.name = value,
                Some(b'D' | b'i') => found.directory = value,
                _ => {}
            }
        }
    }
    found
}

/// The short options that take a value, getopt(3).
const WITH_VALUE: &[u8] = b"DiuMSLZEpP";

/// The long options that take a value which may be the next word.
const LONG_WITH_VALUE: &[&str] = &[
    "directory",
    "template",
    "image",
    "oci-bundle",
    "root-hash",
    "verity-data",
    "root-hash-sig",
    "pivot-root",
    "chdir",
    "setenv",
    "user",
    "kill-signal",
    "machine",
    "hostname",
    "uuid",
    "property",
    "slice",
    "capability",
    "drop-capability",
    "ambient-capability",
    "system-call-filter",
    "rlimit",
    "oom-score-adjust",
    "cpu-affinity",
    "personality",
    "selinux-context",
    "selinux-apifs-context",
    "network-interface",
    "network-macvlan",
    "network-ipvlan",
    "network-veth-extra",
    "network-bridge",
    "network-zone",
    "network-namespace-path",
    "port",
    "bind",
    "bind-ro",
    "bind-user",
    "tmpfs",
    "overlay",
    "overlay-ro",
    "inaccessible",
    "settings",
    "resolv-conf",
    "timezone",
    "link-journal",
    "console",
    "load-credential",
    "set-credential",
    "private-users-ownership",
    "notify-ready",
    "suppress-sync",
    "background",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn given(line: &str) -> (String, String) {
        let line = line.replace('|', "\0");
        let found = options(line.as_bytes());
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"?")).into_owned();
        (text(found.name), text(found.directory))
    }

    #[test]
    fn names_on_a_command_line() {
        for line in [
            "systemd-nspawn|-q|-D|/r/n|-M|n1|--register=no|sh|-M|x",
            "systemd-nspawn|-qD/r/n|-Mn1|-b",
            "systemd-nspawn|--machine=n1|--directory|/r/n|-b",
            "systemd-nspawn|--bind|-M|--image=/r/n|--machine|n1|--|-Mx",
        ] {
            assert_eq!(given(line), ("n1".to_owned(), "/r/n".to_owned()), "{line}");
        }
        assert_eq!(given("systemd-nspawn|-x|sh|-M|x"), ("?".to_owned(), "?".to_owned()));
        assert_eq!(given("systemd-nspawn|-M"), ("?".to_owned(), "?".to_owned()));
    }

    #[test]
    fn names_of_units() {
        let name = |unit: &str| of_unit(OsStr::new(unit)).map(|name| name.to_string_lossy().into_owned());
        assert_eq!(name("machine-a\\x2db.scope").as_deref(), Some("a-b"));
        assert_eq!(name("machine-a-b.scope").as_deref(), Some("a-b"));
        assert_eq!(name("systemd-nspawn@web.service").as_deref(), Some("web"));
        assert_eq!(name("machine-a\\x2.scope").as_deref(), Some("a\\x2"));
        for other in ["machine-.scope", "machine.slice", "machine-x.service", "systemd-nspawn@.service"] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn records_of_machined() {
        let text = b"# This is private data.\nSCOPE=machine-n1.scope\nSERVICE=systemd-nspawn\nROOT=/r\nLEADER=4711\nCLASS=container\n";
        assert_eq!(parse_record(text), Some(4711));
        assert_eq!(parse_record(b"SERVICE=libvirt-qemu\nLEADER=1\nCLASS=vm\n"), None);
        assert_eq!(parse_record(b"LEADER=-1\n"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = options(&bytes);
            let _ = parse_record(&bytes);
            let _ = unescape(&bytes);
            let _ = of_unit(OsStr::from_bytes(&bytes));
        }
    }
}

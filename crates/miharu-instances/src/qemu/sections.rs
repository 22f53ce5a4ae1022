//! QEMU's options as groups of keys and values, from its command line and from the files of `-readconfig` alike.
//!
//! See qemu(1). A value that holds a comma doubles it; the first key of a group may be left out (`-name vm` is
//! `guest=vm`); devices may be written in JSON.

use miharu_linux::process::arguments;

/// The most groups that are kept.
const MAX_SECTIONS: usize = 4096;

/// The options that take no value. All others take the next argument, whatever it looks like.
const FLAGS: &[&str] = &[
    "h",
    "help",
    "version",
    "S",
    "snapshot",
    "nographic",
    "daemonize",
    "no-reboot",
    "no-shutdown",
    "nodefaults",
    "no-user-config",
    "enable-kvm",
    "no-acpi",
    "no-hpet",
    "no-fd-bootchk",
    "no-kvm",
    "mem-prealloc",
    "singlestep",
    "one-insn-per-tb",
    "only-migratable",
    "preconfig",
    "usb",
    "full-screen",
    "alt-grab",
    "ctrl-grab",
    "no-quit",
    "no-frame",
    "portrait",
    "win2k-hack",
    "xen-attach",
    "xen-domid-restrict",
    "enable-sync-profile",
    "semihosting",
    "old-param",
    "audio-help",
    "nouserconfig",
    "enable-fips",
    "rtc-td-hack",
    "curses",
    "sdl",
    "tdf",
];

/// The groups that are used, each with the key that its first value may be without.
const GROUPS: &[(&str, &str)] = &[
    ("name", "guest"),
    ("machine", "type"),
    ("M", "type"),
    ("m", "size"),
    ("smp", "cpus"),
    ("chardev", "backend"),
    ("mon", "chardev"),
    ("device", "driver"),
    ("netdev", "type"),
    ("nic", "type"),
    ("net", "type"),
    ("uuid", "uuid"),
    ("pidfile", "pidfile"),
    ("readconfig", "readconfig"),
];

/// One group: `-chardev socket,id=c0`, or `[chardev "c0"]` and its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// The option's name without dashes.
    pub(super) group: String,
    /// Keys and values in their order.
    pub(super) entries: Vec<(String, String)>,
}

impl Section {
    /// The value of a key; of one that is given twice the last counts.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether a key is switched on: `server`, `server=on`.
    pub(super) fn is_on(&self, key: &str) -> bool {
        matches!(self.get(key), Some("on" | "yes" | "true" | "y"))
    }
}

/// The options of a command line.
pub(crate) fn of_command_line(command_line: &[u8]) -> Vec<Section> {
    let mut arguments = arguments(command_line).skip(1);
    let mut found = Vec::new();
    while let Some(argument) = arguments.next() {
        let Some(option) = argument.strip_prefix(b"-").and_then(|rest| std::str::from_utf8(rest).ok()) else {
            continue;
        };
        let option = option.strip_prefix('-').unwrap_or(option);
        if FLAGS.contains(&option) {
            if option == "daemonize" {
                found.push(Section { group: option.to_owned(), entries: Vec::new() });
            }
            continue;
        }
        let Some(value) = arguments.next() else { break };
        if found.len() < MAX_SECTIONS {
            found.extend(section(option, &String::from_utf8_lossy(value)));
        }
    }
    found
}

fn section(option: &str, value: &str) -> Option<Section> {
    if matches!(option, "qmp" | "qmp-pretty") {
        return monitor(value);
    }
    // A path or an identifier is one value, commas and all.
    if matches!(option, "uuid" | "pidfile" | "readconfig") {
        return Some(Section {
            group: option.to_owned(),
            entries: vec![(option.to_owned(), value.to_owned())],
        });
    }
    let (group, implied) = GROUPS.iter().find(|(group, _)| *group == option)?;
    let entries = if value.starts_with('{') { json(value)? } else { keys_and_values(value, implied) };
    Some(Section { group: (*group).to_owned(), entries })
}

/// `-qmp unix:PATH,server=on,wait=off` and `-qmp chardev:ID`.
fn monitor(value: &str) -> Option<Section> {
    let mut entries = match value.split_once(':')? {
        ("unix", rest) => keys_and_values(rest, "path"),
        ("chardev", id) => vec![("chardev".to_owned(), id.to_owned())],
        _ => return None,
    };
    entries.push(("mode".to_owned(), "control".to_owned()));
    Some(Section { group: "mon".to_owned(), entries })
}

/// Divides at single commas; a pair of them is one in the value.
fn keys_and_values(text: &str, implied: &str) -> Vec<(String, String)> {
    let mut items = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            items.push(String::new());
        } else if let Some(item) = items.last_mut() {
            item.push(character);
        }
    }
    let pair = |(place, item): (usize, String)| match item.split_once('=') {
        Some((key, value)) if is_key(key) => Some((key.to_owned(), value.to_owned())),
        _ if place == 0 => Some((implied.to_owned(), item)),
        _ if item.is_empty() => None,
        _ => Some((item, "on".to_owned())),
    };
    items.into_iter().enumerate().filter_map(pair).collect()
}

/// Whether what stands before a `=` can be a key; else it is part of a first value without one.
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A flat JSON object, `{"driver":"vhost-vsock-pci","guest-cid":3}`.
fn json(text: &str) -> Option<Vec<(String, String)>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let entry = |(key, value): (String, serde_json::Value)| match value {
        serde_json::Value::String(text) => Some((key, text)),
        serde_json::Value::Number(number) => Some((key, number.to_string())),
        serde_json::Value::Bool(is_on) => Some((key, if is_on { "on" } else { "off" }.to_owned())),
        _ => None,
    };
    Some(object.into_iter().filter_map(entry).collect())
}

/// The options of a file of `-readconfig`: `[group "id"]`, then `key = "value"` a line.
pub(crate) fn of_file(text: &str) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if found.len() >= MAX_SECTIONS {
                break;
            }
            let (group, id) = header.split_once(' ').unwrap_or((header, ""));
            let group = match group {
                "memory" => "m",
                "smp-opts" => "smp",
                group => group,
            };
            let id = Some(id.trim().trim_matches('"')).filter(|id| !id.is_empty());
            let entries = id.map(|id| ("id".to_owned(), id.to_owned())).into_iter().collect();
            found.push(Section { group: group.to_owned(), entries });
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            if let Some(section) = found.last_mut() {
                section.entries.push((key.trim().to_owned(), value.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(sections: &[Section]) -> Vec<String> {
        let entry = |(key, value): &(String, String)| format!("{key}={value}");
        sections
            .iter()
            .map(|s| format!("{}:{}", s.group, s.entries.iter().map(entry).collect::<Vec<_>>().join(";")))
            .collect()
    }

    fn parsed(line: &str) -> Vec<String> {
        written(&of_command_line(line.replace('|', "\0").as_bytes()))
    }

    #[test]
    fn names_with_quotes_commas_and_equals_signs() {
        assert_eq!(parsed("q|-name|a,,b\"c,debug-threads=on"), ["name:guest=a,b\"c;debug-threads=on"]);
        assert_eq!(parsed("q|--name|guest=x,,,process=y"), ["name:guest=x,;process=y"]);
        assert_eq!(parsed("q|-name|a b=c"), ["name:guest=a b=c"]);
        assert_eq!(parsed("q|-name||-S"), ["name:guest="]);
    }

    #[test]
    fn a_value_is_never_an_option() {
        assert_eq!(parsed("q|-append|-name|-snapshot|-name|x|-fw_cfg|-name"), ["name:guest=x"]);
        assert_eq!(parsed("q|-daemonize|-pidfile|/a,b|-name"), ["daemonize:", "pidfile:pidfile=/a,b"]);
    }

    #[test]
    fn monitors_and_devices() {
        assert_eq!(
            parsed("q|-qmp|unix:/a,,b,server,nowait"),
            ["mon:path=/a,b;server=on;nowait=on;mode=control"]
        );
        assert_eq!(parsed("q|-qmp|tcp:localhost:1,server=on|-qmp|chardev:m"), ["mon:chardev=m;mode=control"]);
        assert_eq!(
            parsed("q|-device|{\"driver\":\"vhost-vsock-pci\",\"guest-cid\":3,\"x\":true,\"y\":[]}"),
            ["device:driver=vhost-vsock-pci;guest-cid=3;x=on"]
        );
        assert!(parsed("q|-device|{\"driver\":").is_empty());
    }

    #[test]
    fn a_file_of_incus() {
        let text = "# Memory\n[memory]\nsize = \"1024M\"\n\n[smp-opts]\ncpus = \"1\"\n[chardev \"monitor\"]\nbackend = \"socket\"\npath = \"/run/incus/v1/qemu.monitor\"\n";
        assert_eq!(
            written(&of_file(text)),
            [
                "m:size=1024M",
                "smp:cpus=1",
                "chardev:id=monitor;backend=socket;path=/run/incus/v1/qemu.monitor"
            ]
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in "[-a-z,={}\"\\[\\] \n]{0,60}") {
            let mut line = b"q\0-name\0".to_vec();
            line.extend(&bytes);
            let _ = of_command_line(&line);
            let _ = of_file(&text);
            for option in ["-qmp", "-device", "-m", "-smp"] {
                let _ = of_command_line(format!("q\0{option}\0{text}").as_bytes());
            }
        }

        #[test]
        fn any_name_comes_back(name in "[^\0]{0,30}") {
            let line = format!("q\0-name\0guest={},debug-threads=on", name.replace(',', ",,"));
            let found = of_command_line(line.as_bytes());
            prop_assert_eq!(found[0].get("guest").unwrap(), name);
        }
    }
}

//! The language of QEMU's monitor (QMP): what is asked, and what the answers mean.
//!
//! QEMU's `docs/interop/qmp-spec.rst` describes the form, `qapi/*.json` the commands. An answer is a line of JSON; events come
//! in between.

use std::time::Duration;

use miharu_metrics::figures::Disk;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bounds::{self, Rows};

/// Ends the negotiation of capabilities; nothing else is answered before it.
pub(crate) const CAPABILITIES: &str = "qmp_capabilities";
/// The vCPUs with their threads.
pub(crate) const CPUS: &str = "query-cpus-fast";
/// The counters of block devices.
pub(crate) const BLOCK_STATISTICS: &str = "query-blockstats";
/// The memory that the balloon leaves the guest.
pub(crate) const BALLOON: &str = "query-balloon";
/// The memory that the guest was given.
pub(crate) const MEMORY_SIZE: &str = "query-memory-size-summary";
/// The children of an object.
pub(crate) const LIST: &str = "qom-list";
/// A property of an object.
pub(crate) const GET: &str = "qom-get";

/// Where devices with a name are kept, and those without.
pub(crate) const DEVICES: [&str; 2] = ["/machine/peripheral", "/machine/peripheral-anon"];

/// A property that could not be known reads as this.
const UNKNOWN: u64 = u64::MAX;

/// The command `execute` as a line.
pub(crate) fn command(execute: &str, id: u64) -> String {
    format!("{}\n", serde_json::json!({ "execute": execute, "id": id }))
}

/// A [`LIST`] or a [`GET`] as a line.
pub(crate) fn of_object(execute: &str, path: &str, property: Option<&str>, id: u64) -> String {
    let arguments = match property {
        Some(property) => serde_json::json!({ "path": path, "property": property }),
        None => serde_json::json!({ "path": path }),
    };
    format!("{}\n", serde_json::json!({ "execute": execute, "arguments": arguments, "id": id }))
}

/// The line that sets a property of an object to a number.
pub(crate) fn set(path: &str, property: &str, value: u64, id: u64) -> String {
    let arguments = serde_json::json!({ "path": path, "property": property, "value": value });
    format!("{}\n", serde_json::json!({ "execute": "qom-set", "arguments": arguments, "id": id }))
}

/// One line of a monitor or of a guest agent.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    /// The first line of a monitor.
    Greeting,
    /// Something happened; nobody asked.
    Event,
    /// The answer to the command with this number, where it had one.
    Answer(Option<u64>, Result<&'a RawValue, String>),
}

/// Takes a line apart; nothing where it is none of these.
pub(crate) fn parse(line: &[u8]) -> Option<Message<'_>> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(rename = "QMP", default, borrow)]
        greeting: Option<&'a RawValue>,
        #[serde(default, borrow)]
        event: Option<&'a RawValue>,
        #[serde(rename = "return", default, borrow)]
        answer: Option<&'a RawValue>,
        #[serde(default)]
        error: Option<Problem>,
        #[serde(default)]
        id: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        class: String,
        #[serde(default)]
        desc: String,
    }
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    if let Some(problem) = line.error {
        let text: String = format!("{}: {}", problem.class, problem.desc).chars().take(200).collect();
        return Some(Message::Answer(line.id, Err(text)));
    }
    if let Some(answer) = line.answer {
        return Some(Message::Answer(line.id, Ok(answer)));
    }
    match (line.greeting, line.event) {
        (Some(_), _) => Some(Message::Greeting),
        (None, Some(_)) => Some(Message::Event),
        (None, None) => None,
    }
}

/// A vCPU and the thread that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vcpu {
    /// The number of the vCPU.
    pub(crate) cpu: u32,
    /// The thread's id on the host.
    pub(crate) thread: u32,
}

/// Reads the answer to [`CPUS`].
pub(crate) fn cpus(answer: &RawValue) -> Option<Vec<Vcpu>> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "cpu-index")]
        cpu: u32,
        #[serde(rename = "thread-id")]
        thread: u32,
    }
    let rows: Rows<Row> = serde_json::from_str(answer.get()).ok()?;
    Some(rows.0.into_iter().map(|row| Vcpu { cpu: row.cpu, thread: row.thread }).collect())
}

/// Reads the answer to [`BLOCK_STATISTICS`]. Firmware's flash and drives without a medium are left out.
pub(crate) fn disks(answer: &RawValue) -> Option<Vec<Disk>> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(default)]
        device: String,
        #[serde(default)]
        qdev: Option<String>,
        #[serde(rename = "node-name", default)]
        node: Option<String>,
        stats: Counters,
    }
    #[derive(Deserialize)]
    struct Counters {
        rd_bytes: Option<u64>,
        rd_operations: Option<u64>,
        wr_bytes: Option<u64>,
        wr_operations: Option<u64>,
        rd_total_time_ns: Option<u64>,
        wr_total_time_ns: Option<u64>,
    }
    let rows: Rows<Row> = serde_json::from_str(answer.get()).ok()?;
    let disk = |row: Row| {
        let node = row.node?;
        let name = match row.qdev.as_deref().and_then(device_name) {
            Some(name) => name.to_owned(),
            // A node that nobody named has another name at each start.
            None if node.starts_with('#') && !row.device.is_empty() => row.device.clone(),
            None => node,
        };
        if row.device.starts_with("pflash") || name.starts_with("system.flash") {
            return None;
        }
        Some(Disk {
            device: bounds::name(name)?,
            read_bytes: row.stats.rd_bytes,
            reads_completed: row.stats.rd_operations,
            written_bytes: row.stats.wr_bytes,
            writes_completed: row.stats.wr_operations,
            read_time: row.stats.rd_total_time_ns.map(Duration::from_nanos),
            write_time: row.stats.wr_total_time_ns.map(Duration::from_nanos),
        })
    };
    Some(rows.0.into_iter().filter_map(disk).collect())
}

/// The last element of a `qdev`, which is a device's id, or the path of an object. All of virtio's end in the same word,
/// which tells them apart from nothing.
fn device_name(qdev: &str) -> Option<&str> {
    qdev.rsplit('/').find(|part| !part.is_empty() && *part != "virtio-backend")
}

/// Reads the answer to [`BALLOON`]: bytes.
pub(crate) fn balloon(answer: &RawValue) -> Option<u64> {
    #[derive(Deserialize)]
    struct Balloon {
        actual: u64,
    }
    serde_json::from_str::<Balloon>(answer.get()).ok().map(|balloon| balloon.actual)
}

/// Reads the answer to [`MEMORY_SIZE`]: bytes, memory plugged in later included.
pub(crate) fn memory_size(answer: &RawValue) -> Option<u64> {
    #[derive(Deserialize)]
    struct Size {
        #[serde(rename = "base-memory")]
        base: u64,
        #[serde(rename = "plugged-memory")]
        plugged: Option<u64>,
    }
    let size: Size = serde_json::from_str(answer.get()).ok()?;
    size.base.checked_add(size.plugged.unwrap_or(0))
}

/// Reads the answer to a [`LIST`] of `parent`: the path of the balloon below it.
pub(crate) fn balloon_device(answer: &RawValue, parent: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Child {
        name: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let children: Rows<Child> = serde_json::from_str(answer.get()).ok()?;
    let found = children.0.into_iter().find(|child| child.kind.starts_with("child<virtio-balloon"))?;
    Some(format!("{parent}/{}", found.name))
}

/// Reads a number that is a property.
pub(crate) fn number(answer: &RawValue) -> Option<u64> {
    serde_json::from_str(answer.get()).ok()
}

/// What a guest tells its balloon, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GuestMemory {
    /// When it last did, seconds since 1970 by the host's clock; 0 for never.
    pub(crate) last_update: u64,
    pub(crate) total: Option<u64>,
    pub(crate) free: Option<u64>,
    pub(crate) available: Option<u64>,
    pub(crate) caches: Option<u64>,
}

/// Reads the balloon's property `guest-stats`.
pub(crate) fn guest_memory(answer: &RawValue) -> Option<GuestMemory> {
    #[derive(Deserialize)]
    struct Told {
        #[serde(rename = "last-update")]
        last_update: u64,
        stats: Statistics,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Statistics {
        stat_total_memory: Option<u64>,
        stat_free_memory: Option<u64>,
        stat_available_memory: Option<u64>,
        stat_disk_caches: Option<u64>,
    }
    let Told { last_update, stats } = serde_json::from_str(answer.get()).ok()?;
    let known = |value: Option<u64>| value.filter(|value| *value != UNKNOWN);
    Some(GuestMemory {
        last_update,
        total: known(stats.stat_total_memory),
        free: known(stats.stat_free_memory),
        available: known(stats.stat_available_memory),
        caches: known(stats.stat_disk_caches),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn lines_are_told_apart() {
        let greeting = br#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": ["oob"]}}"#;
        assert!(matches!(parse(greeting), Some(Message::Greeting)));
        let event =
            br#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESET", "data": {"guest": true}}"#;
        assert!(matches!(parse(event), Some(Message::Event)));
        let Some(Message::Answer(Some(7), Ok(value))) = parse(br#"{"return": {"actual": 5}, "id": 7}"#)
        else {
            panic!("no answer")
        };
        assert_eq!(balloon(value), Some(5));
        let Some(Message::Answer(None, Err(why))) =
            parse(br#"{"error": {"class": "CommandNotFound", "desc": "no such thing"}}"#)
        else {
            panic!("no error")
        };
        assert_eq!(why, "CommandNotFound: no such thing");
        assert!(parse(b"{}").is_none() && parse(b"garbage").is_none() && parse(b"").is_none());
    }

    #[test]
    fn commands_are_lines() {
        assert_eq!(command(CPUS, 3), "{\"execute\":\"query-cpus-fast\",\"id\":3}\n");
        let get: serde_json::Value =
            serde_json::from_str(&of_object(GET, "/machine/peripheral/b\"0", Some("guest-stats"), 4))
                .unwrap();
        assert_eq!(get["arguments"]["path"], "/machine/peripheral/b\"0");
        assert_eq!(get["arguments"]["property"], "guest-stats");
    }

    #[test]
    fn vcpus_have_threads() {
        let answer = raw(
            r#"[{"thread-id": 21784, "props": {"core-id": 0}, "qom-path": "/machine/unattached/device[0]", "cpu-index": 0,
                 "target": "x86_64"}, {"thread-id": 21785, "cpu-index": 1, "target": "x86_64"}]"#,
        );
        let expected = [Vcpu { cpu: 0, thread: 21784 }, Vcpu { cpu: 1, thread: 21785 }];
        assert_eq!(cpus(&answer).unwrap(), expected);
        assert_eq!(cpus(&raw(r#"[{"thread-id": -1, "cpu-index": 1}]"#)), Some(Vec::new()));
    }

    #[test]
    fn disks_have_names_that_tell_them_apart() {
        let answer = raw(
            r##"[{"device": "dd1", "stats": {"rd_bytes": 1, "rd_operations": 2, "wr_bytes": 3, "wr_operations": 4,
                  "rd_total_time_ns": 1500000000, "wr_total_time_ns": 6}, "node-name": "#block114", "qdev": "hd1"},
                {"device": "cd0", "stats": {"rd_bytes": 0}, "qdev": "/machine/peripheral-anon/device[0]"},
                {"device": "", "stats": {"wr_bytes": 9}, "node-name": "d0", "qdev": "/machine/peripheral/disk0/virtio-backend"},
                {"device": "pflash0", "stats": {}, "node-name": "#block200", "qdev": "/machine/system.flash0"},
                {"device": "", "stats": {}, "node-name": "libvirt-pflash0-format", "qdev": "/machine/system.flash0"},
                {"device": "loose", "stats": {}, "node-name": "#block300"},
                {"device": "", "stats": {}, "node-name": "n1"}]"##,
        );
        let disks = disks(&answer).unwrap();
        let names: Vec<_> = disks.iter().map(|disk| disk.device.as_str()).collect();
        assert_eq!(names, ["hd1", "disk0", "loose", "n1"]);
        assert_eq!(
            (
                disks[0].read_bytes,
                disks[0].reads_completed,
                disks[0].written_bytes,
                disks[0].writes_completed
            ),
            (Some(1), Some(2), Some(3), Some(4))
        );
        assert_eq!(disks[0].read_time, Some(Duration::from_millis(1500)));
        assert_eq!((disks[1].written_bytes, disks[1].read_bytes), (Some(9), None));
    }

    #[test]
    fn memory_that_is_unknown_is_absent() {
        let answer = raw(
            r#"{"stats": {"stat-swap-out": 0, "stat-available-memory": 18446744073709551615, "stat-free-memory": 5,
                "stat-total-memory": 9, "stat-disk-caches": 0}, "last-update": 1700000000}"#,
        );
        let expected = GuestMemory {
            last_update: 1_700_000_000,
            total: Some(9),
            free: Some(5),
            available: None,
            caches: Some(0),
        };
        assert_eq!(guest_memory(&answer), Some(expected));
        assert_eq!(memory_size(&raw(r#"{"base-memory": 67108864, "plugged-memory": 1}"#)), Some(67_108_865));
        assert_eq!(memory_size(&raw(r#"{"base-memory": 18446744073709551615, "plugged-memory": 1}"#)), None);
    }

    #[test]
    fn the_balloon_is_found() {
        let answer = raw(
            r#"[{"name": "type", "type": "string"}, {"name": "balloon0", "type": "child<virtio-balloon-pci>"}]"#,
        );
        let path = balloon_device(&answer, DEVICES[0]);
        assert_eq!(path.as_deref(), Some("/machine/peripheral/balloon0"));
        assert_eq!(balloon_device(&raw("[]"), DEVICES[0]), None);
    }

    proptest! {
        #[test]
        fn no_line_harms(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
        }

        #[test]
        fn no_answer_harms(text in r#"(\[|\{|\}|\]|,|:|"qdev"|"stats"|"cpu-index"|"node-name"|"last-update"|-?[0-9]{1,25}|"[a-z/]{0,9}"|null){0,40}"#) {
            if let Ok(answer) = serde_json::from_str::<Box<RawValue>>(&text) {
                let _ = (cpus(&answer), disks(&answer), balloon(&answer), memory_size(&answer), guest_memory(&answer));
                let _ = (balloon_device(&answer, "x"), number(&answer));
            }
        }
    }
}

//! The language of qemu-guest-agent: what is asked, and what the answers mean.
//!
//! QEMU's `qga/qapi-schema.json` describes it. Nothing tells which answer belongs to which question, so questions are put one
//! after the other, after a `guest-sync-delimited` wherever an old answer may still be under way.

use std::time::Duration;

use miharu_linux::block::Layers;
use miharu_metrics::figures::{CpuMode, CpuTimes, Disk, Filesystem, Interface, Sharing, Traffic};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bounds::{self, Rows};
use super::disks::{self, Guess};
use super::report::Addresses;

/// CPU time by mode (QEMU 7.1 and later).
pub(crate) const CPUS: &str = "guest-get-cpustats";
/// vCPUs with whether they are online, for agents without [`CPUS`].
pub(crate) const VCPUS: &str = "guest-get-vcpus";
/// Counters of block devices (QEMU 7.1 and later).
pub(crate) const DISKS: &str = "guest-get-diskstats";
/// Interfaces, their addresses and counters.
pub(crate) const INTERFACES: &str = "guest-network-get-interfaces";
/// File systems. A mount that hangs in the guest blocks the whole agent here.
pub(crate) const FILE_SYSTEMS: &str = "guest-get-fsinfo";

/// No JSON holds this byte: the agent drops what it has half read, and sends one before the answer to a
/// `guest-sync-delimited`.
pub(crate) const DELIMITER: u8 = 0xff;

/// Bytes of a sector, whatever the device's own are.
const SECTOR: u64 = 512;

/// A command without arguments, as a line.
pub(crate) fn command(execute: &str) -> String {
    format!("{}\n", serde_json::json!({ "execute": execute }))
}

/// What brings both ends to the same place, as bytes.
pub(crate) fn sync(id: u64) -> Vec<u8> {
    let line = serde_json::json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
    let mut bytes = vec![DELIMITER];
    bytes.extend_from_slice(format!("{line}\n").as_bytes());
    bytes
}

/// Reads the answer to [`CPUS`]: milliseconds. Guest time is inside user and nice and not added again.
pub(crate) fn cpus(answer: &RawValue) -> Option<Vec<CpuTimes>> {
    #[derive(Deserialize)]
    struct Row {
        cpu: u32,
        user: Option<u64>,
        nice: Option<u64>,
        system: Option<u64>,
        idle: Option<u64>,
        iowait: Option<u64>,
        irq: Option<u64>,
        softirq: Option<u64>,
        steal: Option<u64>,
    }
    let rows: Rows<Row> = serde_json::from_str(answer.get()).ok()?;
    let times = |row: Row| {
        let modes = [
            (CpuMode::User, row.user),
            (CpuMode::Nice, row.nice),
            (CpuMode::System, row.system),
            (CpuMode::Idle, row.idle),
            (CpuMode::Iowait, row.iowait),
            (CpuMode::Irq, row.irq),
            (CpuMode::Softirq, row.softirq),
            (CpuMode::Steal, row.steal),
        ];
        let known = modes.into_iter().filter_map(|(mode, ms)| Some((mode, Duration::from_millis(ms?))));
        known.fold(CpuTimes::new(row.cpu), |times, (mode, time)| times.with(mode, time))
    };
    Some(rows.0.into_iter().map(times).collect())
}

/// Reads the answer to [`VCPUS`]: how many are online.
pub(crate) fn online_vcpus(answer: &RawValue) -> Option<u64> {
    #[derive(Deserialize)]
    struct Row {
        online: bool,
    }
    let rows: Rows<Row> = serde_json::from_str(answer.get()).ok()?;
    Some(rows.0.iter().filter(|row| row.online).count() as u64)
}

/// Reads the answer to [`DISKS`].
pub(crate) fn disks(answer: &RawValue, layers: Layers) -> Option<Vec<Disk>> {
    #[derive(Deserialize)]
    struct Row {
        name: String,
        stats: Counters,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Counters {
        read_sectors: Option<u64>,
        read_ios: Option<u64>,
        write_sectors: Option<u64>,
        write_ios: Option<u64>,
        read_ticks: Option<u64>,
        write_ticks: Option<u64>,
    }
    let rows: Rows<Row> = serde_json::from_str(answer.get()).ok()?;
    let disk = |row: Row| {
        Some(Disk {
            device: bounds::name(row.name)?,
            read_bytes: row.stats.read_sectors.and_then(|sectors| sectors.checked_mul(SECTOR)),
            reads_completed: row.stats.read_ios,
            written_bytes: row.stats.write_sectors.and_then(|sectors| sectors.checked_mul(SECTOR)),
            writes_completed: row.stats.write_ios,
            read_time: row.stats.read_ticks.map(Duration::from_millis),
            write_time: row.stats.write_ticks.map(Duration::from_millis),
        })
    };
    let disks = rows.0.into_iter().filter_map(disk).map(|disk| (disk, Guess::ByName)).collect();
    Some(disks::reported(disks, layers))
}

/// Reads the answer to [`INTERFACES`].
pub(crate) fn interfaces(answer: &RawValue) -> Option<(Vec<Interface>, Vec<Addresses>)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Row {
        name: String,
        statistics: Option<Counters>,
        #[serde(default)]
        ip_addresses: Rows<Address>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Address {
        ip_address: String,
        prefix: Option<u8>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Counters {
        rx_bytes: Option<u64>,
        rx_packets: Option<u64>,
        rx_errs: Option<u64>,
        rx_dropped: Option<u64>,
        tx_bytes: Option<u64>,
        tx_packets: Option<u64>,
        tx_errs: Option<u64>,
        tx_dropped: Option<u64>,
    }
    let rows: Rows<Row> = serde_json::from_str(answer.get()).ok()?;
    let (mut interfaces, mut addresses) = (Vec::new(), Vec::new());
    for row in rows.0 {
        let Some(name) = bounds::name(row.name) else { continue };
        let known = row.ip_addresses.0.into_iter().map(|address| (address.ip_address, address.prefix));
        addresses.extend(Addresses::new(&name, known));
        // An agent names an interface twice where it has two address families (an alias).
        let Some(count) = row.statistics else { continue };
        interfaces.push(Interface {
            device: name,
            receive: Traffic {
                bytes: count.rx_bytes,
                packets: count.rx_packets,
                errs: count.rx_errs,
                drop: count.rx_dropped,
            },
            transmit: Traffic {
                bytes: count.tx_bytes,
                packets: count.tx_packets,
                errs: count.tx_errs,
                drop: count.tx_dropped,
            },
        });
    }
    Some((interfaces, addresses))
}

/// Reads the answer to [`FILE_SYSTEMS`]. Older agents tell what users may fill and nothing of root's reserve, so size and free
/// come only from newer ones.
pub(crate) fn file_systems(answer: &RawValue) -> Option<Vec<Filesystem>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Row {
        name: String,
        mountpoint: String,
        #[serde(rename = "type")]
        kind: String,
        used_bytes: Option<u64>,
        total_bytes: Option<u64>,
        total_bytes_privileged: Option<u64>,
    }
    let rows: Rows<Row> = serde_json::from_str(answer.get()).ok()?;
    let filesystem = |row: Row| {
        // A medium that cannot be asked has no figures.
        let used = Some(row.used_bytes?);
        Some(Filesystem {
            device: bounds::name(row.name)?,
            fstype: bounds::name(row.kind)?,
            mountpoint: bounds::path(row.mountpoint)?,
            size_bytes: row.total_bytes_privileged,
            free_bytes: row.total_bytes_privileged.zip(used).map(|(total, used)| total.saturating_sub(used)),
            avail_bytes: row.total_bytes.zip(used).map(|(total, used)| total.saturating_sub(used)),
            files: None,
            files_free: None,
            sharing: Sharing::Unknown,
        })
    };
    Some(super::report::one_a_device(rows.0.into_iter().filter_map(filesystem).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn guest_time_is_counted_once() {
        let answer = raw(
            r#"[{"type":"linux","cpu":0,"user":1500,"nice":10,"system":20,"idle":30,"iowait":40,"irq":50,"softirq":60,"steal":70,
                 "guest":1000,"guestnice":5}]"#,
        );
        let cpus = cpus(&answer).unwrap();
        let ms: u128 = cpus[0].known().map(|(_, time)| time.as_millis()).sum();
        assert_eq!((cpus[0].cpu, ms), (Some(0), 1500 + 10 + 20 + 30 + 40 + 50 + 60 + 70));
        assert!(cpus[0].known().any(|known| known == (CpuMode::User, Duration::from_millis(1500))));
    }

    #[test]
    fn online_vcpus_are_counted() {
        let answer =
            raw(r#"[{"logical-id":0,"online":true,"can-offline":false},{"logical-id":1,"online":false}]"#);
        assert_eq!(online_vcpus(&answer), Some(1));
    }

    const DISKSTATS: &str = r#"[
        {"name":"vda","major":254,"minor":0,"stats":{"read-sectors":4,"read-ios":1,"read-merges":0,"write-sectors":6,"write-ios":2,
         "read-ticks":1500,"write-ticks":3,"ios-pgr":0,"total-ticks":9,"weight-ticks":9}},
        {"name":"vda1","major":254,"minor":1,"stats":{"read-sectors":4}},
        {"name":"dm-0","major":253,"minor":0,"stats":{"read-sectors":4}},
        {"name":"loop0","major":7,"minor":0,"stats":{}},
        {"name":"vdb","major":254,"minor":16,"stats":{"read-sectors":18446744073709551615}}]"#;

    #[test]
    fn one_layer_of_the_disks_is_reported() {
        let names = |layers| -> Vec<String> {
            disks(&raw(DISKSTATS), layers).unwrap().into_iter().map(|disk| disk.device).collect()
        };
        assert_eq!(names(Layers::One), ["vda", "vdb"]);
        assert_eq!(names(Layers::All), ["vda", "vda1", "dm-0", "loop0", "vdb"]);
        let disks = disks(&raw(DISKSTATS), Layers::One).unwrap();
        assert_eq!((disks[0].read_bytes, disks[0].writes_completed), (Some(2048), Some(2)));
        assert_eq!(disks[0].read_time, Some(Duration::from_millis(1500)));
        assert_eq!(disks[1].read_bytes, None, "more bytes than can be counted are not told");
    }

    #[test]
    fn interfaces_have_all_counters_and_addresses() {
        let answer = raw(
            r#"[{"name":"lo","ip-addresses":[{"ip-address-type":"ipv4","ip-address":"127.0.0.1","prefix":8}],
                 "statistics":{"tx-packets":1,"tx-errs":2,"rx-bytes":3,"rx-dropped":4,"rx-packets":5,"rx-errs":6,"tx-bytes":7,
                 "tx-dropped":8},"hardware-address":"00:00:00:00:00:00"},
                {"name":"eth0","ip-addresses":[{"ip-address-type":"ipv4","ip-address":"192.0.2.7","prefix":24}]}]"#,
        );
        let (interfaces, addresses) = interfaces(&answer).unwrap();
        assert_eq!(interfaces.len(), 1);
        let receive = Traffic { bytes: Some(3), packets: Some(5), errs: Some(6), drop: Some(4) };
        let transmit = Traffic { bytes: Some(7), packets: Some(1), errs: Some(2), drop: Some(8) };
        assert_eq!((interfaces[0].receive, interfaces[0].transmit), (receive, transmit));
        assert_eq!(addresses[1].interface, "eth0");
        assert_eq!(addresses[1].addresses, ["192.0.2.7/24"]);
    }

    #[test]
    fn sizes_are_told_only_where_known() {
        let answer = raw(
            r#"[{"name":"vda1","mountpoint":"/","type":"ext4","used-bytes":10,"total-bytes":90,"total-bytes-privileged":100,"disk":[]},
                {"name":"vdb","mountpoint":"/old","type":"xfs","used-bytes":10,"total-bytes":90},
                {"name":"vdc","mountpoint":"/odd","type":"xfs","used-bytes":10,"total-bytes":5},
                {"name":"sr0","mountpoint":"/none","type":"iso9660"}]"#,
        );
        let found = file_systems(&answer).unwrap();
        let sizes: Vec<_> = found
            .iter()
            .map(|fs| (fs.mountpoint.as_str(), fs.size_bytes, fs.free_bytes, fs.avail_bytes))
            .collect();
        assert_eq!(
            sizes,
            [
                ("/", Some(100), Some(90), Some(80)),
                ("/odd", None, None, Some(0)),
                ("/old", None, None, Some(80)),
            ]
        );
    }

    #[test]
    fn a_sync_clears_the_agents_parser_first() {
        assert_eq!(
            sync(9),
            [b"\xff".as_slice(), br#"{"arguments":{"id":9},"execute":"guest-sync-delimited"}"#, b"\n"]
                .concat()
        );
        assert_eq!(command(DISKS), "{\"execute\":\"guest-get-diskstats\"}\n");
    }

    proptest! {
        #[test]
        fn no_answer_harms(text in r#"(\[|\{|\}|\]|,|:|"name"|"stats"|"cpu"|"user"|"mountpoint"|"type"|-?[0-9]{1,25}|"[a-z/]{0,9}"|null){0,40}"#) {
            if let Ok(answer) = serde_json::from_str::<Box<RawValue>>(&text) {
                let _ = (cpus(&answer), disks(&answer, Layers::One), interfaces(&answer), file_systems(&answer));
                let _ = online_vcpus(&answer);
            }
        }

        #[test]
        fn any_numbers_are_figures(used in any::<u64>(), total in any::<u64>(), privileged in any::<u64>()) {
            let text = format!(
                r#"[{{"name":"a","mountpoint":"/","type":"b","used-bytes":{used},"total-bytes":{total},"total-bytes-privileged":{privileged}}}]"#
            );
            for fs in file_systems(&raw(&text)).unwrap() {
                prop_assert!(fs.free_bytes.unwrap() <= privileged && fs.avail_bytes.unwrap() <= total);
            }
        }
    }

    #[test]
    fn a_wrong_row_costs_no_other() {
        let text = r#"[{"name":"a","statistics":{"rx-bytes":-1}},7,{"name":"eth0","statistics":{"rx-bytes":5},
            "ip-addresses":[{"ip-address":"192.0.2.7","prefix":-1},{"ip-address":"192.0.2.8","prefix":24}]}]"#;
        let answer = RawValue::from_string(text.to_owned()).unwrap();
        let (interfaces, addresses) = interfaces(&answer).unwrap();
        assert_eq!(interfaces.len(), 1);
        assert_eq!((interfaces[0].device.as_str(), interfaces[0].receive.bytes), ("eth0", Some(5)));
        assert_eq!(addresses[0].addresses, ["192.0.2.8/24"]);
    }
}

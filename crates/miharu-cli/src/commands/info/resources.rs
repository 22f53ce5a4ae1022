//! `miharu info --resources`: what the host is made of, in the words of the Incus and LXD clients.

use std::io::Write;

use miharu_api::resources::{CpuSocket, NetworkCard, Resources, ResourcesSystem, StorageDisk};

use crate::error::Failure;
use crate::output::{bytes, printable};

/// Writes it for people; what is not known is left out.
pub(super) fn write(out: &mut dyn Write, resources: &Resources) -> Result<(), Failure> {
    let mut text = Text { out };
    text.system(&resources.system)?;
    let load = &resources.load;
    text.line(0, "\nLoad:")?;
    text.line(1, &format!("Processes: {}", load.processes))?;
    let averages = [load.average_1_min, load.average_5_min, load.average_10_min];
    text.line(1, &format!("Average: {}", averages.map(|average| format!("{average:.2}")).join(" ")))?;
    text.line(0, "\nCPU:")?;
    text.fact(1, "Architecture", &resources.cpu.architecture)?;
    for socket in &resources.cpu.sockets {
        text.socket(socket)?;
    }
    let memory = &resources.memory;
    text.line(0, "\nMemory:")?;
    text.size(1, "Free", memory.total.saturating_sub(memory.used))?;
    text.size(1, "Used", memory.used)?;
    text.size(1, "Total", memory.total)?;
    for card in &resources.network.cards {
        text.card(card)?;
    }
    for disk in &resources.storage.disks {
        text.disk(disk)?;
    }
    Ok(())
}

struct Text<'a> {
    out: &'a mut dyn Write,
}

impl Text<'_> {
    fn line(&mut self, depth: usize, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{}{text}", "  ".repeat(depth))?)
    }

    fn fact(&mut self, depth: usize, name: &str, value: &str) -> Result<(), Failure> {
        if value.is_empty() { Ok(()) } else { self.line(depth, &format!("{name}: {}", printable(value))) }
    }

    fn size(&mut self, depth: usize, name: &str, value: u64) -> Result<(), Failure> {
        self.line(depth, &format!("{name}: {}", bytes(i64::try_from(value).unwrap_or(i64::MAX))))
    }

    fn system(&mut self, system: &ResourcesSystem) -> Result<(), Failure> {
        self.line(0, "System:")?;
        self.fact(1, "UUID", &system.uuid)?;
        self.fact(1, "Vendor", &system.vendor)?;
        self.fact(1, "Product", &system.product)?;
        self.fact(1, "Family", &system.family)?;
        self.fact(1, "Version", &system.version)?;
        self.fact(1, "Serial", &system.serial)?;
        self.fact(1, "Type", &system.system_type)?;
        if let Some(firmware) = &system.firmware {
            self.line(1, "Firmware:")?;
            self.fact(2, "Vendor", &firmware.vendor)?;
            self.fact(2, "Version", &firmware.version)?;
            self.fact(2, "Date", &firmware.date)?;
        }
        if let Some(chassis) = &system.chassis {
            self.line(1, "Chassis:")?;
            self.fact(2, "Vendor", &chassis.vendor)?;
            self.fact(2, "Type", &chassis.chassis_type)?;
            self.fact(2, "Serial", &chassis.serial)?;
        }
        if let Some(board) = &system.motherboard {
            self.line(1, "Motherboard:")?;
            self.fact(2, "Vendor", &board.vendor)?;
            self.fact(2, "Product", &board.product)?;
            self.fact(2, "Serial", &board.serial)?;
        }
        Ok(())
    }

    fn socket(&mut self, socket: &CpuSocket) -> Result<(), Failure> {
        self.line(1, &format!("Socket {}:", socket.socket))?;
        self.fact(2, "Vendor", &socket.vendor)?;
        self.fact(2, "Name", &socket.name)?;
        if socket.frequency > 0 {
            let (low, high) = (socket.frequency_minimum, socket.frequency_turbo);
            self.line(2, &format!("Frequency: {}MHz (min: {low}MHz, max: {high}MHz)", socket.frequency))?;
        }
        if !socket.cache.is_empty() {
            self.line(2, "Caches:")?;
        }
        for cache in &socket.cache {
            let name = format!("- Level {} (type: {})", cache.level, printable(&cache.cache_type));
            self.size(3, &name, cache.size)?;
        }
        self.line(2, "Cores:")?;
        for core in &socket.cores {
            self.line(3, &format!("- Core {}", core.core))?;
            if core.frequency > 0 {
                self.line(4, &format!("Frequency: {}MHz", core.frequency))?;
            }
            self.line(4, "Threads:")?;
            for thread in &core.threads {
                let (id, node) = (thread.id, thread.numa_node);
                let online = thread.online;
                self.line(
                    5,
                    &format!("- {} (id: {id}, online: {online}, NUMA node: {node})", thread.thread),
                )?;
            }
        }
        Ok(())
    }

    fn card(&mut self, card: &NetworkCard) -> Result<(), Failure> {
        self.line(0, "\nNIC:")?;
        self.line(1, &format!("NUMA node: {}", card.numa_node))?;
        self.fact(1, "PCI address", &card.pci_address)?;
        self.fact(1, "Driver", &card.driver)?;
        for port in &card.ports {
            self.line(1, &format!("- Port {} ({})", port.port, printable(&port.protocol)))?;
            self.fact(2, "ID", &port.id)?;
            self.fact(2, "Address", &port.address)?;
            self.line(2, &format!("Link detected: {}", port.link_detected))?;
            if port.link_speed > 0 {
                let duplex = printable(&port.link_duplex);
                self.line(2, &format!("Link speed: {}Mbit/s ({duplex} duplex)", port.link_speed))?;
            }
        }
        Ok(())
    }

    fn disk(&mut self, disk: &StorageDisk) -> Result<(), Failure> {
        self.line(0, "\nDisk:")?;
        self.line(1, &format!("NUMA node: {}", disk.numa_node))?;
        self.fact(1, "ID", &disk.id)?;
        self.fact(1, "Device", &disk.device)?;
        self.fact(1, "Model", &disk.model)?;
        self.fact(1, "Serial", &disk.serial)?;
        self.fact(1, "Type", &disk.disk_type)?;
        self.size(1, "Size", disk.size)?;
        self.line(1, &format!("Read-only: {}", disk.read_only))?;
        self.line(1, &format!("Removable: {}", disk.removable))?;
        if !disk.partitions.is_empty() {
            self.line(1, "Partitions:")?;
        }
        for partition in &disk.partitions {
            self.line(2, &format!("- Partition {}", partition.partition))?;
            self.fact(3, "ID", &partition.id)?;
            self.fact(3, "Device", &partition.device)?;
            self.size(3, "Size", partition.size)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{Canned, Fake};

    #[test]
    fn a_host_reads_as_in_incus() {
        let fake = Fake::start(vec![Canned::sync(
            r#"{"system":{"type":"virtual-machine","firmware":{"vendor":"SeaBIOS","version":"1"}},
                "load":{"Average1Min":0.5,"Average5Min":1.25,"Average10Min":2,"Processes":906},
                "cpu":{"architecture":"x86_64","total":1,"sockets":[{"vendor":"GenuineIntel","name":"Xeon","socket":0,
                  "cache":[{"level":1,"type":"Data","size":49152}],
                  "cores":[{"core":0,"threads":[{"id":0,"online":true}]}]}]},
                "memory":{"total":2147483648,"used":1073741824},
                "network":{"total":1,"cards":[{"driver":"virtio_net","pci_address":"0000:00:03.0",
                  "ports":[{"id":"eth0","address":"02:00:00:00:00:01","protocol":"ethernet","link_detected":true}]}]},
                "storage":{"total":1,"disks":[{"id":"vda","device":"254:0","type":"virtio","size":1048576,
                  "partitions":[{"id":"vda1","partition":1,"size":4096}]}]}}"#,
        )]);
        let (result, out) = fake.miharu(&["info", "--resources"]);
        result.unwrap();
        assert_eq!(fake.requests()[0].line(), "GET /1.0/resources");
        expect![[r#"
            System:
              Type: virtual-machine
              Firmware:
                Vendor: SeaBIOS
                Version: 1

            Load:
              Processes: 906
              Average: 0.50 1.25 2.00

            CPU:
              Architecture: x86_64
              Socket 0:
                Vendor: GenuineIntel
                Name: Xeon
                Caches:
                  - Level 1 (type: Data): 48.00KiB
                Cores:
                  - Core 0
                    Threads:
                      - 0 (id: 0, online: true, NUMA node: 0)

            Memory:
              Free: 1.00GiB
              Used: 1.00GiB
              Total: 2.00GiB

            NIC:
              NUMA node: 0
              PCI address: 0000:00:03.0
              Driver: virtio_net
              - Port 0 (ethernet)
                ID: eth0
                Address: 02:00:00:00:00:01
                Link detected: true

            Disk:
              NUMA node: 0
              ID: vda
              Device: 254:0
              Type: virtio
              Size: 1.00MiB
              Read-only: false
              Removable: false
              Partitions:
                - Partition 1
                  ID: vda1
                  Size: 4.00KiB
        "#]]
        .assert_eq(&out);
    }
}

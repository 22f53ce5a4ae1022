//! `/1.0/resources`: what the host is made of.

use std::sync::Arc;

use axum::extract::State;
use miharu_api::resources as api;
use miharu_collect::host::resources::{
    Board, Card, Chassis, Core, Disk, Firmware, Load, Memory, Partition, Port, Resources, Socket, System,
};

use crate::app::App;
use crate::auth::FullAccess;
use crate::machine::Machine;
use crate::respond::{Answer, ApiError, ok};
use crate::sandbox;

/// `GET /1.0/resources`.
pub(super) async fn show(State(app): State<Arc<App>>, _: FullAccess) -> Answer {
    let roots = app.roots.clone();
    // The machine's number and those of its parts are for root alone.
    let read = sandbox::look(move || Resources::read(&roots));
    let resources = read.await.map_err(ApiError::internal)?;
    ok(shown(resources, &app.machine))
}

fn shown(resources: Resources, machine: &Machine) -> api::Resources {
    let Resources { sockets, memory, cards, disks, system: hardware, load: busy } = resources;
    let sockets: Vec<_> = sockets.into_iter().map(socket).collect();
    let threads = sockets.iter().flat_map(|socket| &socket.cores).map(|core| core.threads.len());
    let cpu = api::ResourcesCpu {
        architecture: machine.architecture.clone(),
        total: threads.sum::<usize>() as u64,
        sockets,
    };
    let cards: Vec<_> = cards.into_iter().map(|found| card(found, machine)).collect();
    let disks: Vec<_> = disks.into_iter().map(disk).collect();
    api::Resources {
        cpu,
        memory: memory_of(memory),
        network: api::ResourcesNetwork { total: cards.len() as u64, cards },
        storage: api::ResourcesStorage { total: disks.len() as u64, disks },
        system: system(hardware),
        load: load(&busy),
    }
}

fn socket(socket: Socket) -> api::CpuSocket {
    let Socket { number, vendor, name, caches, cores, frequency_range } = socket;
    let known: Vec<u64> = cores.iter().filter_map(|core| core.frequency).collect();
    let (frequency_minimum, frequency_turbo) = frequency_range.unwrap_or_default();
    let cache = caches.into_iter().map(|cache| api::CpuCache {
        level: cache.level,
        cache_type: cache.kind,
        size: cache.size,
    });
    api::CpuSocket {
        name: name.unwrap_or_default(),
        vendor: vendor.unwrap_or_default(),
        socket: number,
        cache: cache.collect(),
        cores: cores.into_iter().map(core).collect(),
        frequency: known.iter().sum::<u64>().checked_div(known.len() as u64).unwrap_or_default(),
        frequency_minimum,
        frequency_turbo,
    }
}

fn core(core: Core) -> api::CpuCore {
    let threads = core.threads.into_iter().enumerate().map(|(at, thread)| api::CpuThread {
        id: i64::try_from(thread.cpu).unwrap_or(i64::MAX),
        numa_node: thread.node.unwrap_or_default(),
        thread: at as u64,
        online: true,
        isolated: thread.is_isolated,
    });
    api::CpuCore {
        core: core.number,
        die: core.die,
        threads: threads.collect(),
        frequency: core.frequency.unwrap_or_default(),
    }
}

fn memory_of(memory: Memory) -> api::ResourcesMemory {
    let nodes = memory.nodes.into_iter().map(|node| api::MemoryNode {
        numa_node: node.number,
        hugepages_used: node.huge_used.unwrap_or_default(),
        hugepages_total: node.huge_total.unwrap_or_default(),
        used: node.used.unwrap_or_default(),
        total: node.total.unwrap_or_default(),
    });
    api::ResourcesMemory {
        nodes: nodes.collect(),
        hugepages_total: memory.huge_total.unwrap_or_default(),
        hugepages_used: memory.huge_used.unwrap_or_default(),
        hugepages_size: memory.huge_size.unwrap_or_default(),
        used: memory.used.unwrap_or_default(),
        total: memory.total.unwrap_or_default(),
    }
}

fn card(card: Card, machine: &Machine) -> api::NetworkCard {
    let Card { origin, driver_version, ports } = card;
    // A driver without a version of its own is the kernel's.
    let of_kernel = || origin.driver.is_some().then(|| machine.kernel_version.clone());
    let driver_version = driver_version.or_else(of_kernel).unwrap_or_default();
    api::NetworkCard {
        driver: origin.driver.unwrap_or_default(),
        driver_version,
        ports: ports.into_iter().map(port).collect(),
        numa_node: origin.node.unwrap_or_default(),
        pci_address: origin.pci_address.unwrap_or_default(),
        vendor_id: origin.vendor_id.unwrap_or_default(),
        product_id: origin.product_id.unwrap_or_default(),
    }
}

fn port(port: Port) -> api::NetworkPort {
    api::NetworkPort {
        id: port.name,
        address: port.address.unwrap_or_default(),
        port: port.number,
        protocol: port.protocol.unwrap_or("unknown").to_owned(),
        auto_negotiation: false,
        link_detected: port.has_carrier,
        link_speed: port.speed.unwrap_or_default(),
        link_duplex: port.duplex.unwrap_or_default(),
    }
}

fn disk(disk: Disk) -> api::StorageDisk {
    api::StorageDisk {
        id: disk.name,
        device: disk.number.unwrap_or_default(),
        model: disk.model.unwrap_or_default(),
        disk_type: disk.bus.unwrap_or_default(),
        read_only: disk.is_read_only,
        size: disk.size.unwrap_or_default(),
        removable: disk.is_removable,
        wwn: disk.wwn.unwrap_or_default(),
        numa_node: disk.origin.node.unwrap_or_default(),
        block_size: disk.block_size.unwrap_or_default(),
        rpm: u64::from(disk.is_rotational),
        serial: disk.serial.unwrap_or_default(),
        device_id: String::new(),
        partitions: disk.partitions.into_iter().map(partition).collect(),
        pci_address: disk.origin.pci_address.unwrap_or_default(),
    }
}

fn partition(partition: Partition) -> api::StoragePartition {
    api::StoragePartition {
        id: partition.name,
        device: partition.number.unwrap_or_default(),
        read_only: partition.is_read_only,
        size: partition.size.unwrap_or_default(),
        partition: partition.index,
    }
}

fn system(system: System) -> api::ResourcesSystem {
    let kind = match system.is_virtual {
        Some(true) => "virtual-machine",
        Some(false) => "physical",
        None => "unknown",
    };
    let firmware = |firmware: Firmware| api::SystemFirmware {
        vendor: firmware.vendor.unwrap_or_default(),
        date: firmware.date.unwrap_or_default(),
        version: firmware.version.unwrap_or_default(),
    };
    let chassis = |chassis: Chassis| api::SystemChassis {
        vendor: chassis.vendor.unwrap_or_default(),
        chassis_type: chassis.kind.map(chassis_type).unwrap_or_default().to_owned(),
        serial: chassis.serial.unwrap_or_default(),
        version: chassis.version.unwrap_or_default(),
    };
    let board = |board: Board| api::SystemMotherboard {
        vendor: board.vendor.unwrap_or_default(),
        product: board.product.unwrap_or_default(),
        serial: board.serial.unwrap_or_default(),
        version: board.version.unwrap_or_default(),
    };
    api::ResourcesSystem {
        uuid: system.uuid.unwrap_or_default(),
        vendor: system.vendor.unwrap_or_default(),
        product: system.product.unwrap_or_default(),
        family: system.family.unwrap_or_default(),
        version: system.version.unwrap_or_default(),
        sku: system.sku.unwrap_or_default(),
        serial: system.serial.unwrap_or_default(),
        system_type: kind.to_owned(),
        firmware: system.firmware.map(firmware),
        chassis: system.chassis.map(chassis),
        motherboard: system.board.map(board),
    }
}

/// The kinds of the SMBIOS specification, section 7.4.1, that hosts have.
fn chassis_type(number: u64) -> &'static str {
    match number {
        1 => "Other",
        3 => "Desktop",
        4 => "Low Profile Desktop",
        6 => "Mini Tower",
        7 => "Tower",
        8 => "Portable",
        9 => "Laptop",
        10 => "Notebook",
        13 => "All in One",
        17 => "Main Server Chassis",
        23 => "Rack Mount Chassis",
        25 => "Multi-system chassis",
        28 => "Blade",
        29 => "Blade Enclosure",
        35 => "Mini PC",
        _ => "Unknown",
    }
}

fn load(load: &Load) -> api::ResourcesLoad {
    let [average_1_min, average_5_min, average_10_min] = load.averages.unwrap_or_default();
    let processes = load.tasks.and_then(|tasks| i64::try_from(tasks).ok()).unwrap_or_default();
    api::ResourcesLoad { average_1_min, average_5_min, average_10_min, processes }
}

#[cfg(test)]
mod tests {
    use miharu_collect::Roots;

    use super::*;

    #[test]
    fn this_machine_is_shown_with_all_that_add_up() {
        let machine = Machine { architecture: "x86_64".to_owned(), ..Machine::default() };
        let shown = shown(Resources::read(&Roots::default()), &machine);
        assert_eq!(shown.cpu.architecture, "x86_64");
        let threads =
            shown.cpu.sockets.iter().flat_map(|socket| &socket.cores).flat_map(|core| &core.threads);
        assert_eq!(threads.count() as u64, shown.cpu.total);
        assert!(shown.cpu.total > 0 && shown.memory.total > shown.memory.used);
        assert_eq!(shown.network.total, shown.network.cards.len() as u64);
        let written = serde_json::to_value(&shown).unwrap();
        assert!(written["load"]["Average1Min"].is_f64() && written["load"]["Processes"].is_i64());
    }
}

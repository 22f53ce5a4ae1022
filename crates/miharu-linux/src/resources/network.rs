//! Network cards: `/sys/class/net` (Documentation/ABI/testing/sysfs-class-net).

use std::collections::BTreeMap;

use super::device::{Origin, origin};
use super::{Files, entries};

/// A network card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Card {
    /// Where it is plugged in.
    pub origin: Origin,
    /// The version of its driver, where that has one of its own.
    pub driver_version: Option<String>,
    /// Its interfaces.
    pub ports: Vec<Port>,
}

/// An interface of a card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Port {
    /// The interface's name.
    pub name: String,
    /// Its hardware address.
    pub address: Option<String>,
    /// Which port of the card it is.
    pub number: u64,
    /// `ethernet` or `infiniband`, where it is one of them.
    pub protocol: Option<&'static str>,
    /// Whether the other end is there.
    pub has_carrier: bool,
    /// Mbit/s.
    pub speed: Option<u64>,
    /// `full` or `half`.
    pub duplex: Option<String>,
}

/// ARPHRD_ETHER and ARPHRD_INFINIBAND of `linux/if_arp.h`.
const PROTOCOLS: [(u64, &str); 2] = [(1, "ethernet"), (32, "infiniband")];

pub(super) fn read(files: &mut Files<'_>) -> Vec<Card> {
    let mut cards: BTreeMap<String, Card> = BTreeMap::new();
    for (name, path) in entries(&files.roots.sys.join("class/net")) {
        let device = path.join("device");
        // What no device stands behind is virtual.
        if !device.is_dir() {
            continue;
        }
        let origin = origin(files, &device);
        let protocol = files.number(&path.join("type"));
        let port = Port {
            address: files.text(&path.join("address")),
            number: files.number(&path.join("dev_port")).unwrap_or(0),
            protocol: PROTOCOLS.iter().find(|(number, _)| Some(*number) == protocol).map(|(_, name)| *name),
            // An interface that is down refuses to tell, and so do its speed and its duplex.
            has_carrier: files.flag(&path.join("carrier")),
            speed: files.number(&path.join("speed")),
            duplex: files.text(&path.join("duplex")).filter(|word| word != "unknown"),
            name: name.clone(),
        };
        // Several interfaces at one place are one card.
        let card = cards.entry(origin.pci_address.clone().unwrap_or(name)).or_insert_with(|| {
            let module = origin.driver.as_ref().map(|driver| files.roots.sys.join("module").join(driver));
            let driver_version = module.and_then(|module| files.text(&module.join("version")));
            Card { origin, driver_version, ports: Vec::new() }
        });
        card.ports.push(port);
    }
    cards.into_values().collect()
}

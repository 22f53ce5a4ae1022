//! Network interfaces: the counters of `/proc/net/dev`, numbers and addresses from the kernel.

use std::collections::HashMap;

use miharu_api::report::{Address, MAX_ROWS, Network};
use miharu_linux::process::{Interface, ProcDir};
use miharu_linux::read::Buffer;
use miharu_linux::{Result, Roots};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::addresses;

/// The interfaces of the guest, in the kernel's order.
///
/// # Errors
/// Where the counters cannot be read; addresses that cannot be had are absent.
pub fn read(roots: &Roots, buffer: &mut Buffer) -> Result<Vec<Network>> {
    let interfaces = ProcDir::open(roots, std::process::id())?.net_dev(buffer)?;
    let mut addresses = addresses::read().unwrap_or_default();
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok();
    let index = |name: &str| socket.as_ref().and_then(|socket| name_to_index(socket, name).ok());
    Ok(rows(interfaces, index, &mut addresses))
}

fn rows(
    interfaces: Vec<Interface>,
    index: impl Fn(&str) -> Option<u32>,
    addresses: &mut HashMap<u32, Vec<Address>>,
) -> Vec<Network> {
    let row = |interface: Interface| {
        let index = index(&interface.name);
        Network {
            network_receive_bytes: Some(interface.receive.bytes),
            network_receive_drop: Some(interface.receive.drop),
            network_receive_errs: Some(interface.receive.errs),
            network_receive_packets: Some(interface.receive.packets),
            network_transmit_bytes: Some(interface.transmit.bytes),
            network_transmit_drop: Some(interface.transmit.drop),
            network_transmit_errs: Some(interface.transmit.errs),
            network_transmit_packets: Some(interface.transmit.packets),
            addresses: index.and_then(|index| addresses.remove(&index)).unwrap_or_default(),
            index,
            device: interface.name,
        }
    };
    interfaces.into_iter().take(MAX_ROWS).map(row).collect()
}

#[cfg(test)]
mod tests {
    use miharu_linux::process::Counters;

    use super::*;

    #[test]
    fn all_eight_counters_and_the_addresses() {
        let counters =
            |from: u64| Counters { bytes: from, packets: from + 1, errs: from + 2, drop: from + 3 };
        let eth0 = Interface { name: "eth0".into(), receive: counters(10), transmit: counters(20) };
        let gone = Interface { name: "gone".into(), receive: counters(0), transmit: counters(0) };
        let address = Address { address: "192.0.2.7".into(), prefix: Some(24) };
        let mut addresses = HashMap::from([(7, vec![address.clone()])]);
        let rows = rows(vec![eth0, gone], |name| (name == "eth0").then_some(7), &mut addresses);
        let first = &rows[0];
        assert_eq!((first.device.as_str(), first.index), ("eth0", Some(7)));
        assert_eq!((first.network_receive_bytes, first.network_receive_packets), (Some(10), Some(11)));
        assert_eq!((first.network_receive_errs, first.network_receive_drop), (Some(12), Some(13)));
        assert_eq!((first.network_transmit_bytes, first.network_transmit_packets), (Some(20), Some(21)));
        assert_eq!((first.network_transmit_errs, first.network_transmit_drop), (Some(22), Some(23)));
        assert_eq!(first.addresses, [address]);
        assert_eq!((rows[1].index, rows[1].addresses.len()), (None, 0));
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let rows = read(&Roots::default(), &mut Buffer::new()).unwrap();
        let lo = rows.iter().find(|row| row.device == "lo").unwrap();
        assert!(lo.index.is_some() && lo.addresses.is_empty());
    }
}

//! The addresses of this process' network namespace: `fib_trie` for IPv4 and `if_inet6` for IPv6, below
//! `/proc/self/net` (proc_pid_net(5)). Not for the way of a scrape.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::read::Buffer;
use crate::roots::Roots;

/// Addresses beyond so many are left out.
const LIMIT: usize = 256;

/// The addresses under which other programs may reach this process, loopback included, link-local ones left out: they
/// mean nothing without the name of an interface. Sorted, IPv4 first; empty where they cannot be read.
#[must_use]
pub fn own_addresses(roots: &Roots) -> Vec<IpAddr> {
    let mut buffer = Buffer::new();
    let mut addresses = BTreeSet::new();
    let net = roots.proc.join("self/net");
    if let Ok(text) = buffer.read(&net.join("fib_trie")) {
        addresses.extend(parse_fib_trie(text));
    }
    if let Ok(text) = buffer.read(&net.join("if_inet6")) {
        addresses.extend(parse_if_inet6(text));
    }
    addresses.into_iter().take(LIMIT).collect()
}

/// The local addresses in `fib_trie`: leaves that have an entry `/32 host LOCAL`.
fn parse_fib_trie(text: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(text);
    let mut leaf: Option<Ipv4Addr> = None;
    let mut addresses = Vec::new();
    for line in text.lines() {
        let line = line.trim_ascii();
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            addresses.extend(leaf.filter(|address| !address.is_link_local()).map(IpAddr::V4));
        }
    }
    addresses
}

/// The addresses in `if_inet6`: 32 hexadecimal digits begin each line.
fn parse_if_inet6(text: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(text);
    let digits = text.lines().filter_map(|line| line.split_ascii_whitespace().next());
    let addresses =
        digits.filter(|digits| digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let addresses = addresses.filter_map(|digits| u128::from_str_radix(digits, 16).ok()).map(Ipv6Addr::from);
    addresses.filter(|address| !address.is_unicast_link_local()).map(IpAddr::V6).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn local_addresses_are_the_leaves_that_say_so() {
        let text = b"Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\nLocal:\n\
            |-- 10.0.3.1\n           /32 host LOCAL\n        |-- 10.0.3.255\n           /32 link BROADCAST\n\
            |-- 127.0.0.0\n           /8 host LOCAL\n        |-- 127.0.0.1\n           /32 host LOCAL\n\
            |-- 169.254.3.4\n           /32 host LOCAL\n";
        assert_eq!(parse_fib_trie(text), [[10, 0, 3, 1], [127, 0, 0, 1]].map(IpAddr::from));
    }

    #[test]
    fn link_local_addresses_are_left_out() {
        let text = b"00000000000000000000000000000001 01 80 10 80       lo\n\
            fe8000000000000002163efffe000001 02 40 20 80     eth0\n\
            20010db8000000000000000000000005 02 40 00 80     eth0\nshort 1\n";
        let expected = ["::1", "2001:db8::5"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(parse_if_inet6(text), expected);
    }

    #[test]
    fn this_process_has_the_loopback_address_where_it_has_any() {
        let addresses = own_addresses(&Roots::default());
        assert!(addresses.is_empty() || addresses.iter().any(IpAddr::is_loopback), "{addresses:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(parse_fib_trie(&text).len() <= 400);
            prop_assert!(parse_if_inet6(&text).len() <= 400);
        }
    }
}

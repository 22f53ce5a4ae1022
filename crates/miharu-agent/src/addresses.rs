//! The addresses of the guest's interfaces: one question to the kernel, `RTM_GETADDR` of rtnetlink(7).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use miharu_api::report::Address;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// More than the longest part of an answer that the kernel sends at once.
const PART: usize = 32 << 10;

/// The most parts that are read.
const MAX_PARTS: usize = 64;

/// The most addresses that are told of; a guest with containers has thousands.
pub const MAX_ADDRESSES: usize = 256;

const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The length of `struct ifaddrmsg`.
const IFADDR: usize = 8;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The addresses by the interface's number, those of the loopback left out.
///
/// # Errors
/// Where the kernel does not tell.
pub fn read() -> io::Result<HashMap<u32, Vec<Address>>> {
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let timeout = Some(Duration::from_millis(500));
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, timeout)?;
    rustix::net::send(&socket, &question(), SendFlags::empty())?;
    let mut found = Found::default();
    let mut part = vec![0; PART];
    for _ in 0..MAX_PARTS {
        let (length, _) = rustix::net::recv(&socket, part.as_mut_slice(), RecvFlags::empty())?;
        if length == 0 || parse(part.get(..length).unwrap_or_default(), &mut found) == Part::Last {
            break;
        }
    }
    Ok(found.addresses)
}

/// What the parts of an answer told so far.
#[derive(Debug, Default)]
pub struct Found {
    /// Addresses by the interface's number.
    pub addresses: HashMap<u32, Vec<Address>>,
    count: usize,
}

/// Whether more parts of an answer follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// More do.
    More,
    /// This was the last one, or no part of an answer.
    Last,
}

/// `struct nlmsghdr` and an empty `struct ifaddrmsg`.
fn question() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + IFADDR);
    bytes.extend(24u32.to_ne_bytes());
    bytes.extend(RTM_GETADDR.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.resize(HEADER + IFADDR, 0);
    bytes
}

/// Takes the addresses out of one part of the answer, as long as there are no more than [`MAX_ADDRESSES`].
pub fn parse(mut bytes: &[u8], found: &mut Found) -> Part {
    while !bytes.is_empty() {
        let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) else { return Part::Last };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(HEADER..length) else { return Part::Last };
        match kind {
            NLMSG_DONE | NLMSG_ERROR => return Part::Last,
            RTM_NEWADDR if found.count < MAX_ADDRESSES => {
                if let Some((index, address)) = parse_address(body) {
                    found.count += 1;
                    found.addresses.entry(index).or_default().push(address);
                }
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Part::More
}

fn parse_address(body: &[u8]) -> Option<(u32, Address)> {
    let (family, prefix, index) = (*body.first()?, *body.get(1)?, u32_at(body, 4)?);
    let (mut local, mut address) = (None, None);
    let mut attributes = body.get(IFADDR..)?;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let Some(value) = attributes.get(4..usize::from(length)) else { break };
        match kind {
            IFA_LOCAL => local = ip(family, value),
            IFA_ADDRESS => address = ip(family, value),
            _ => {}
        }
        attributes = attributes.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    // Of a point-to-point interface IFA_ADDRESS is the other end's.
    let ip = local.or(address).filter(|ip| !ip.is_loopback())?;
    Some((index, Address { address: ip.to_string(), prefix: Some(prefix) }))
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, family: u8, prefix: u8, index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![family, prefix, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend(attributes.concat());
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn an_answer_of_the_kernel() {
        let mut bytes = message(RTM_NEWADDR, 2, 8, 1, &[attribute(IFA_LOCAL, &[127, 0, 0, 1])]);
        let peer = attribute(IFA_ADDRESS, &[192, 0, 2, 1]);
        let label = attribute(3, b"ppp0\0");
        bytes.extend(message(RTM_NEWADDR, 2, 32, 3, &[peer, label, attribute(IFA_LOCAL, &[192, 0, 2, 7])]));
        let v6 = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
        bytes.extend(message(RTM_NEWADDR, 10, 64, 2, &[attribute(IFA_ADDRESS, &v6)]));
        let mut found = Found::default();
        assert_eq!(parse(&bytes, &mut found), Part::More);
        assert_eq!(parse(&message(NLMSG_DONE, 0, 0, 0, &[]), &mut found), Part::Last);
        let of = |index: u32| {
            let row = &found.addresses[&index][0];
            (row.address.as_str(), row.prefix)
        };
        assert_eq!((of(2), of(3)), (("2001:db8::7", Some(64)), ("192.0.2.7", Some(32))));
        assert_eq!(found.addresses.len(), 2, "no loopback");
    }

    #[test]
    fn this_machine_answers() {
        assert!(read().is_ok());
    }

    proptest! {
        #[test]
        fn nothing_panics_or_hangs(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut found = Found::default();
            parse(&bytes, &mut found);
            let mut framed = ((HEADER + bytes.len()) as u32).to_ne_bytes().to_vec();
            framed.extend(RTM_NEWADDR.to_ne_bytes());
            framed.resize(HEADER, 0);
            framed.extend(&bytes);
            parse(&framed, &mut found);
            prop_assert!(found.count <= 200);
        }
    }
}

//! The host's own network interfaces, all with one question: rtnetlink(7)'s RTM_GETLINK.
//!
//! The kernel answers with 64-bit counters (`IFLA_STATS64`) of every interface. Where this process is not in the host's
//! network namespace (in a container, or on a recorded tree) `/proc/1/net/dev` tells the same.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::Result;
use crate::process::{Counters, Interface, MAX_INTERFACES, ProcDir};
use crate::read::Buffer;
use crate::roots::Roots;

/// More than the longest part of an answer that the kernel sends at once (32 KiB, `NLMSG_GOODSIZE` and netlink's
/// `max_recvmsg_len`).
const PART: usize = 64 << 10;

/// The most parts that are read: about a hundred interfaces are in each.
const MAX_PARTS: usize = 4096;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x1 | 0x100 | 0x200;
const IFLA_IFNAME: u16 = 3;
const IFLA_STATS64: u16 = 23;
/// Bits of an attribute's type that are not its number: `NLA_F_NESTED | NLA_F_NET_BYTEORDER`.
const NLA_FLAGS: u16 = 0xc000;
/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The length of `struct ifinfomsg`.
const IFINFO: usize = 16;

/// The host's interfaces with their counters, from the host's point of view.
///
/// # Errors
/// Where neither the kernel nor `/proc` tells them.
pub fn read(roots: &Roots, buffer: &mut Buffer) -> Result<Vec<Interface>> {
    let init = ProcDir::open(roots, 1)?;
    if is_own_network(roots, &init)
        && let Ok(interfaces) = dump()
    {
        return Ok(interfaces);
    }
    init.net_dev(buffer)
}

/// Whether this process is in the network namespace of the host's init. On a recorded tree there is no such process.
fn is_own_network(roots: &Roots, init: &ProcDir) -> bool {
    let inode = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let own = rustix::fs::stat(roots.proc.join("self/net/dev")).map(inode);
    let hosts = rustix::fs::stat(init.path().join("net/dev")).map(inode);
    matches!((own, hosts), (Ok(own), Ok(hosts)) if own == hosts)
}

/// Asks the kernel for all interfaces of this process' network namespace.
fn dump() -> io::Result<Vec<Interface>> {
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let timeout = Some(std::time::Duration::from_secs(1));
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, timeout)?;
    rustix::net::send(&socket, &question(), SendFlags::empty())?;
    let mut found = Vec::new();
    let mut part = vec![0; PART];
    for _ in 0..MAX_PARTS {
        let length = receive(socket.as_fd(), &mut part)?;
        let bytes = part.get(..length).ok_or(io::ErrorKind::InvalidData)?;
        if parse(bytes, &mut found)? == Part::Last {
            return Ok(found);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn receive(socket: std::os::fd::BorrowedFd<'_>, part: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *part, RecvFlags::TRUNC) {
            // What did not fit is lost, and the counters of somebody with it.
            Ok((_, length)) if length > PART => return Err(io::ErrorKind::InvalidData.into()),
            Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, length)) => return Ok(length),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// `struct nlmsghdr` and an empty `struct ifinfomsg`.
fn question() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + IFINFO);
    bytes.extend(((HEADER + IFINFO) as u32).to_ne_bytes());
    bytes.extend(RTM_GETLINK.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.resize(HEADER + IFINFO, 0);
    bytes
}

/// Whether more parts of an answer follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// More do.
    More,
    /// This was the last one.
    Last,
}

/// Takes the interfaces out of one part of the answer, as long as there are no more than 16 times [`MAX_INTERFACES`].
///
/// # Errors
/// Where the kernel refused, or the part is none of an answer.
pub fn parse(mut bytes: &[u8], found: &mut Vec<Interface>) -> io::Result<Part> {
    while !bytes.is_empty() {
        let length = u32_at(bytes, 0).ok_or(io::ErrorKind::InvalidData)? as usize;
        let kind = u16_at(bytes, 4).ok_or(io::ErrorKind::InvalidData)?;
        let body = bytes.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            NLMSG_DONE => return Ok(Part::Last),
            NLMSG_ERROR => return Err(io::ErrorKind::Other.into()),
            RTM_NEWLINK if found.len() < MAX_INTERFACES.saturating_mul(16) => found.extend(parse_link(body)),
            _ => {}
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(Part::More)
}

/// One interface: its name and its counters.
fn parse_link(body: &[u8]) -> Option<Interface> {
    let mut rest = body.get(IFINFO..)?;
    let (mut name, mut counters) = (None, None);
    while let Some(length) = u16_at(rest, 0).map(usize::from) {
        let kind = u16_at(rest, 2)? & !NLA_FLAGS;
        let value = rest.get(4..length)?;
        match kind {
            IFLA_IFNAME => {
                let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
                name = Some(String::from_utf8_lossy(value.get(..end)?).into_owned());
            }
            IFLA_STATS64 => counters = parse_counters(value),
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    let (receive, transmit) = counters?;
    Some(Interface { name: name.filter(|name| !name.is_empty())?, receive, transmit })
}

/// `struct rtnl_link_stats64` (linux/if_link.h): packets, bytes, errors and drops, received and sent in turn; the
/// thirteenth number is `rx_missed_errors`, which `/proc/net/dev` counts as drops.
fn parse_counters(value: &[u8]) -> Option<(Counters, Counters)> {
    let number = |place: usize| {
        let bytes = value.get(place * 8..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    };
    let missed = number(12)?;
    let receive = Counters {
        packets: number(0)?,
        bytes: number(2)?,
        errs: number(4)?,
        drop: number(6)?.saturating_add(missed),
    };
    let transmit = Counters { packets: number(1)?, bytes: number(3)?, errs: number(5)?, drop: number(7)? };
    Some((receive, transmit))
}

fn u16_at(bytes: &[u8], place: usize) -> Option<u16> {
    bytes.get(place..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    bytes.get(place..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// Netlink pads everything to four bytes; what is shorter than its own header would never end.
fn aligned(length: usize) -> usize {
    length.max(4).next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(name: &[u8]) -> Vec<u8> {
        let mut body = vec![0; IFINFO];
        body.extend(attribute(4, &1500u32.to_ne_bytes()));
        body.extend(attribute(IFLA_IFNAME, name));
        let numbers: Vec<u8> = (1..=24u64).flat_map(u64::to_ne_bytes).collect();
        body.extend(attribute(IFLA_STATS64 | 0x8000, &numbers));
        message(RTM_NEWLINK, &body)
    }

    #[test]
    fn interfaces_of_an_answer() {
        let mut part = link(b"tap0\0");
        part.extend(link(b"vnet12\0"));
        part.extend(message(RTM_NEWLINK, &[0; IFINFO]));
        let mut found = Vec::new();
        assert_eq!(parse(&part, &mut found).unwrap(), Part::More);
        assert_eq!(parse(&message(NLMSG_DONE, &[0; 4]), &mut found).unwrap(), Part::Last);
        assert_eq!(found.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["tap0", "vnet12"]);
        assert_eq!(found[0].receive, Counters { packets: 1, bytes: 3, errs: 5, drop: 7 + 13 });
        assert_eq!(found[0].transmit, Counters { packets: 2, bytes: 4, errs: 6, drop: 8 });
        assert!(parse(&message(NLMSG_ERROR, &[1; 4]), &mut found).is_err());
    }

    #[test]
    fn this_kernel_tells_what_proc_tells() {
        let asked: Vec<_> = dump().unwrap();
        let own = ProcDir::open(&Roots::default(), std::process::id()).unwrap();
        let mut names: Vec<_> = asked.into_iter().map(|link| link.name).collect();
        let mut buffer = Buffer::new();
        let mut read: Vec<_> =
            own.net_dev(&mut buffer).unwrap().into_iter().map(|interface| interface.name).collect();
        names.sort();
        read.sort();
        assert_eq!(names, read);
        assert!(super::read(&Roots::default(), &mut buffer).unwrap().iter().any(|link| link.name == "lo"));
    }

    #[test]
    fn a_recorded_host_is_read_from_its_own_files() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("proc/1/net")).unwrap();
        let text = "Inter-|\n face |\n  tap7: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
        std::fs::write(base.path().join("proc/1/net/dev"), text).unwrap();
        let found = read(&Roots::at(base.path()), &mut Buffer::new()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].transmit.bytes), ("tap7", 5));
    }

    proptest! {
        #[test]
        fn nothing_panics_or_hangs(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut found = Vec::new();
            let _ = parse(&bytes, &mut found);
            let mut part = message(RTM_NEWLINK, &bytes);
            part.extend(link(b"x\0"));
            let _ = parse(&part, &mut found);
        }
    }
}

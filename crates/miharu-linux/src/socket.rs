//! Who listens on a TCP port: for the message that says why an address cannot be bound. Never on the way of a scrape,
//! as it looks at the descriptors of every process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;

use crate::process::{ProcDir, pids};
use crate::read::{Buffer, fields, lines, number};
use crate::roots::Roots;

/// `TCP_LISTEN` of include/net/tcp_states.h, in the hexadecimal of `/proc/net/tcp`.
const LISTEN: &[u8] = b"0A";

/// The process that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// Who keeps this process from listening on TCP `port` of `address`: a process of the same network namespace that listens
/// on that address or on all of them; on any address where `address` is nothing or stands for all. `None` where nobody
/// does or it cannot be seen (another user's process, another pid namespace).
#[must_use]
pub fn listener(roots: &Roots, address: Option<IpAddr>, port: u16) -> Option<Listener> {
    let mut buffer = Buffer::new();
    let mut inodes = Vec::new();
    for table in ["self/net/tcp", "self/net/tcp6"] {
        if let Ok(text) = buffer.read(&roots.proc.join(table)) {
            inodes.extend(parse_listeners(text, address, port));
        }
    }
    if inodes.is_empty() {
        return None;
    }
    let mut pids = pids(roots).ok()?;
    pids.sort_unstable();
    pids.into_iter().find_map(|pid| {
        let process = ProcDir::open(roots, pid).ok()?;
        if !holds(&process, &inodes).unwrap_or(false) {
            return None;
        }
        let comm = String::from_utf8_lossy(&process.stat(&mut buffer).ok()?.comm).into_owned();
        Some(Listener { pid, comm })
    })
}

/// Whether one of the descriptors of a process is one of these sockets.
///
/// # Errors
/// Where its descriptors may not be seen.
pub(crate) fn holds(process: &ProcDir, inodes: &[u64]) -> std::io::Result<bool> {
    let entries = std::fs::read_dir(process.path().join("fd"))?;
    Ok(entries.flatten().any(|entry| {
        let Ok(link) = std::fs::read_link(entry.path()) else { return false };
        let inode = link.as_os_str().as_bytes().strip_prefix(b"socket:[").and_then(|r| r.strip_suffix(b"]"));
        inode.and_then(number).is_some_and(|inode| inodes.contains(&inode))
    }))
}

/// The inode numbers of the sockets that listen on `port`, out of `/proc/net/tcp` or `tcp6` (proc_pid_net(5)).
fn parse_listeners(text: &[u8], address: Option<IpAddr>, port: u16) -> Vec<u64> {
    let wanted = format!("{port:04X}");
    lines(text)
        .filter_map(|line| {
            // sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
            let mut parts = fields(line);
            let local = parts.nth(1)?;
            let colon = local.iter().rposition(|b| *b == b':')?;
            if local.get(colon + 1..)? != wanted.as_bytes() || parts.nth(1)? != LISTEN {
                return None;
            }
            if !conflict(address, parse_address(local.get(..colon)?)) {
                return None;
            }
            number(parts.nth(5)?)
        })
        .collect()
}

/// Whether two listeners cannot have the same port; an address that is not known may be any.
fn conflict(wanted: Option<IpAddr>, taken: Option<IpAddr>) -> bool {
    let (Some(wanted), Some(taken)) = (wanted, taken) else { return true };
    wanted.is_unspecified() || taken.is_unspecified() || wanted.to_canonical() == taken.to_canonical()
}

/// An address as the kernel writes it there: words of 32 bits in hexadecimal, each in the byte order of this machine.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let word = |at: usize| Some(u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (at, place) in octets.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_a_port() {
        let text = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
0: 0100007F:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n   \
1: 0100007F:20FB 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n   \
2: 0100007F:20FC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n\
cut: 1:20FB\n";
        assert_eq!(parse_listeners(text, None, 0x20fb), [4711]);
        assert!(parse_listeners(b"\xff\n:\n", None, 1).is_empty());
        #[cfg(target_endian = "little")]
        for (address, found) in
            [("127.0.0.1", true), ("::ffff:127.0.0.1", true), ("0.0.0.0", true), ("127.0.0.2", false)]
        {
            assert_eq!(!parse_listeners(text, address.parse().ok(), 0x20fb).is_empty(), found, "{address}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_of_both_families() {
        assert_eq!(parse_address(b"0100007F"), Some(IpAddr::from([127, 0, 0, 1])));
        let text = b"00000000000000000000000001000000";
        assert_eq!(parse_address(text), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        for bad in [&b""[..], b"0100007", b"0100007G", b"+100007F"] {
            assert_eq!(parse_address(bad), None);
        }
    }

    #[test]
    fn this_process_listens() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = listener(&Roots::default(), socket.local_addr().ok().map(|a| a.ip()), port).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(!found.comm.is_empty());
        drop(socket);
        assert_eq!(listener(&Roots::default(), None, port), None);
    }
}

//! Who listens on a TCP port: for the message that says why an address cannot be bound. Never on the way of a scrape,
//! as it looks at the descriptors of every process.

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

/// Who listens on TCP `port` in this process' network namespace, on any address; `None` where nobody does or it cannot
/// be seen (another user's process, another pid namespace).
#[must_use]
pub fn listener(roots: &Roots, port: u16) -> Option<Listener> {
    let mut buffer = Buffer::new();
    let mut inodes = Vec::new();
    for table in ["self/net/tcp", "self/net/tcp6"] {
        if let Ok(text) = buffer.read(&roots.proc.join(table)) {
            inodes.extend(parse_listeners(text, port));
        }
    }
    if inodes.is_empty() {
        return None;
    }
    let mut pids = pids(roots).ok()?;
    pids.sort_unstable();
    pids.into_iter().find_map(|pid| {
        let process = ProcDir::open(roots, pid).ok()?;
        if !holds(&process, &inodes) {
            return None;
        }
        let comm = String::from_utf8_lossy(&process.stat(&mut buffer).ok()?.comm).into_owned();
        Some(Listener { pid, comm })
    })
}

/// Whether one of the descriptors of a process is one of these sockets.
fn holds(process: &ProcDir, inodes: &[u64]) -> bool {
    let Ok(entries) = std::fs::read_dir(process.path().join("fd")) else { return false };
    entries.flatten().any(|entry| {
        let Ok(link) = std::fs::read_link(entry.path()) else { return false };
        let inode = link.as_os_str().as_bytes().strip_prefix(b"socket:[").and_then(|r| r.strip_suffix(b"]"));
        inode.and_then(number).is_some_and(|inode| inodes.contains(&inode))
    })
}

/// The inode numbers of the sockets that listen on `port`, out of `/proc/net/tcp` or `tcp6` (proc_pid_net(5)).
fn parse_listeners(text: &[u8], port: u16) -> Vec<u64> {
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
            number(parts.nth(5)?)
        })
        .collect()
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
        assert_eq!(parse_listeners(text, 0x20fb), [4711]);
        assert!(parse_listeners(b"\xff\n:\n", 1).is_empty());
    }

    #[test]
    fn this_process_listens() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = listener(&Roots::default(), port).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(!found.comm.is_empty());
        drop(socket);
        assert_eq!(listener(&Roots::default(), port), None);
    }
}

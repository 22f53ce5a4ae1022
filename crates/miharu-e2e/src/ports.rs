//! Ports that nobody else is given meanwhile.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// Where they are looked for: below those that the kernel gives to connections (`net.ipv4.ip_local_port_range`, from 32768 on), of
/// which attacks with thousands of connections take many.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

/// A port of loopback that nobody listens on, and that no other test, of any process, is given while this process runs.
///
/// What holds it is a socket that was bound and does not listen. It lets others bind the port that set `SO_REUSEADDR`, as all
/// servers here do, but not the next call of this, which does not (socket(7)).
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    static HELD: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Each process begins elsewhere.
    let begin = std::process::id().wrapping_mul(397);
    for _ in 0..COUNT {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + number)?;
        let held = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        if bind(&held, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        sockopt::set_socket_reuseaddr(&held, true)?;
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push(held);
        return Ok(port);
    }
    bail!("no port of loopback is free")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_given_once_and_can_be_listened_on_again_and_again() {
        let mut given: Vec<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        for port in &given {
            for _ in 0..2 {
                TcpListener::bind(("127.0.0.1", *port)).unwrap();
            }
        }
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 200);
    }
}

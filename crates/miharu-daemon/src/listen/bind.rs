//! Binding a TCP listener where a server key says.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use miharu_store::ListenAddress;
use miharu_store::address::Host;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use socket2::SockRef;

/// Connections that the kernel keeps until they are accepted, the most that it takes by default (net.core.somaxconn). Whoever finds
/// no place there tries again after a whole second.
const BACKLOG: i32 = 4096;
/// What the kernel takes of an answer before it can be sent, bytes (TCP_NOTSENT_LOWAT), which counts for the service's memory, too: by itself it
/// takes megabytes for a client that reads nothing. What is on its way is not bounded by it: that is as much as the client and the way there
/// take, so that who is far away has its answer as fast as who is near.
const UNSENT: u32 = 128 * 1024;
/// How long a name may be looked up: a name server that is silent holds up neither the start nor who asks for `/1.0`.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);

/// Whether a socket for all IPv6 addresses takes IPv4 connections too.
#[derive(Clone, Copy)]
enum Stack {
    Dual,
    Own,
}

/// Binds one listener. A name that has several addresses gets the first that can be bound.
pub(super) async fn bind(address: &ListenAddress) -> io::Result<tokio::net::TcpListener> {
    let listener = match &address.host {
        Host::Ip(ip) => listen(SocketAddr::new(*ip, address.port), Stack::Own),
        Host::Any => {
            let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port);
            match listen(any, Stack::Dual) {
                // A host without IPv6.
                Err(error) if no_ipv6(&error) => {
                    listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port), Stack::Own)
                }
                other => other,
            }
        }
        Host::Name(name) => {
            let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
            for found in in_time(tokio::net::lookup_host((name.as_str(), address.port))).await? {
                outcome = listen(found, Stack::Own);
                if outcome.is_ok() {
                    break;
                }
            }
            outcome
        }
    }?;
    tokio::net::TcpListener::from_std(listener)
}

async fn in_time<T>(look_up: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the name servers did not answer in time"));
    tokio::time::timeout(LOOKUP_LIMIT, look_up).await.unwrap_or_else(late)
}

fn no_ipv6(error: &io::Error) -> bool {
    let codes = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

fn listen(address: SocketAddr, stack: Stack) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of a listener before this one, in TIME_WAIT, do not count.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // `[::]` spelled out means every address as well, whatever net.ipv6.bindv6only says.
        let only = !matches!(stack, Stack::Dual) && !address.ip().is_unspecified();
        sockopt::set_ipv6_v6only(&socket, only)?;
    }
    // Connections have it from their listener.
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_not_read_stays_out_of_the_kernel_but_for_a_little() {
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Stack::Own).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // The listener does not wait, and the connection is there already.
        let (mut server, from) = listener.accept().unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        assert_eq!(SockRef::from(&server).tcp_notsent_lowat().unwrap(), UNSENT, "from its listener");
        // Room for all, and a client that takes none of it.
        SockRef::from(&server).set_send_buffer_size(64 << 20).unwrap();
        SockRef::from(&client).set_recv_buffer_size(4096).unwrap();
        server.set_nonblocking(true).unwrap();
        let mut taken = 0;
        while let Ok(more) = server.write(&[0; 16 * 1024]) {
            taken += more;
        }
        assert!((1..1 << 19).contains(&taken), "{taken}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_not_looked_up_for_ever() {
        let error = in_time(std::future::pending::<io::Result<()>>()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

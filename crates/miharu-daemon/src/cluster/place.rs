//! Where the other members find this one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use miharu_collect::Roots;
use miharu_collect::host::own_addresses;
use miharu_store::address::Host;
use miharu_store::{ListenAddress, Settings};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How long the look-up of an etcd's name may take.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Where the API is, `host:port`, or where there is none of it, the metrics. A listener on every interface is told under
/// `core.metrics_advertise`, else under the address by which this host reaches etcd: what the members have in common is etcd, and the
/// host may have bridges and tunnels that lead nowhere.
pub(super) async fn address(settings: &Settings, etcd: &[String], roots: &Roots) -> Option<String> {
    let listener = settings.https_address.as_ref().or(settings.metrics_address.as_ref())?;
    let advertised = settings.metrics_advertise.as_deref();
    let advertised = advertised.and_then(|text| ListenAddress::parse(text, listener.port).ok());
    if !is_any(&listener.host) {
        return Some(listener.to_string());
    }
    let address = match advertised {
        Some(address) if settings.https_address.is_none() => address,
        // What it says of a port is meant for metrics.
        Some(address) => ListenAddress { port: listener.port, ..address },
        None => {
            let ip = match towards(etcd).await {
                Some(ip) => ip,
                None => some_own(roots)?,
            };
            ListenAddress { host: Host::Ip(ip), port: listener.port }
        }
    };
    Some(address.to_string())
}

fn is_any(host: &Host) -> bool {
    match host {
        Host::Any => true,
        Host::Ip(ip) => ip.is_unspecified(),
        Host::Name(_) => false,
    }
}

/// The address that this host has towards the first of these that it has a way to. Nothing is sent.
async fn towards(endpoints: &[String]) -> Option<IpAddr> {
    for endpoint in endpoints {
        let host = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, host)| host);
        if let Ok(Some(ip)) = timeout(LOOK_UP, own_towards(host)).await {
            return Some(ip);
        }
    }
    None
}

async fn own_towards(host: &str) -> Option<IpAddr> {
    let there = tokio::net::lookup_host(host).await.ok()?.next()?;
    let any = if there.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any.parse::<SocketAddr>().ok()?).await.ok()?;
    socket.connect(there).await.ok()?;
    let own = socket.local_addr().ok()?.ip();
    // An etcd on this very host tells nothing of how others reach it.
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

/// Some address of this host, a loopback one only where there are no others.
fn some_own(roots: &Roots) -> Option<IpAddr> {
    let own = own_addresses(roots);
    own.iter().find(|ip| !ip.is_loopback()).or(own.first()).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use miharu_store::Config;

    use super::*;

    async fn of(keys: &[(&str, &str)], etcd: &str) -> Option<String> {
        let values: BTreeMap<_, _> =
            keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let settings = Config::replace(&values).unwrap().settings();
        let dir = tempfile::tempdir().unwrap();
        address(&settings, &[etcd.to_owned()], &Roots::at(dir.path())).await
    }

    #[tokio::test]
    async fn a_member_is_found_where_it_listens() {
        let etcd = "http://127.0.0.1:2379";
        assert_eq!(of(&[], etcd).await, None);
        let both = [("core.https_address", "192.0.2.1"), ("core.metrics_address", ":9100")];
        assert_eq!(of(&both, etcd).await.as_deref(), Some("192.0.2.1:8443"));
        assert_eq!(of(&both[1..], etcd).await, None, "no address of its own is known");
        let name = ("core.metrics_advertise", "m.example.org:9443");
        let any = ("core.https_address", ":8444");
        assert_eq!(of(&[any, name], etcd).await.as_deref(), Some("m.example.org:8444"));
        let any = ("core.metrics_address", ":8444");
        assert_eq!(of(&[any, name], etcd).await.as_deref(), Some("m.example.org:9443"));
    }

    #[tokio::test]
    async fn an_etcd_on_this_host_tells_no_address() {
        assert_eq!(towards(&["http://127.0.0.1:2379".to_owned(), "http://[::1]:1".to_owned()]).await, None);
        assert_eq!(towards(&["https://no.such.host.invalid:1".to_owned()]).await, None);
    }
}

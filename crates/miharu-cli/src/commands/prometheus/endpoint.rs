//! Where Prometheus reaches the server, and the name under which it proves who it is.

use std::net::{IpAddr, Ipv6Addr};

use miharu_api::Server;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::Failure;

/// The listeners that serve metrics, the one for them alone first, and the ports that hold when an address names none.
const LISTENERS: [(&str, u16); 2] = [("core.metrics_address", 9100), ("core.https_address", 8443)];

/// What a scrape job needs to know of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `HOST:PORT`.
    pub(super) target: String,
    /// A name that the server's certificate is for.
    pub(super) server_name: String,
}

impl Endpoint {
    /// Reads it off the server's own words; `target` is what the user wants it to be.
    pub(super) fn of(server: &Server, target: Option<&str>) -> Result<Self, Failure> {
        let config = server.config.clone().unwrap_or_default();
        let set = LISTENERS
            .iter()
            .find_map(|(key, port)| Some((config.get(*key).filter(|address| !address.is_empty())?, *port)));
        let environment = server.environment.clone().unwrap_or_default();
        let (host, port) = match (set, target) {
            (None, None) => {
                return Err(Failure::request(
                    "metrics are not served over the network yet: set core.metrics_address first \
                     (`miharu config set core.metrics_address :8444`)",
                ));
            }
            (set, Some(target)) => parts(target, set.map_or(9100, |(address, port)| parts(address, port).1)),
            (Some((address, port)), None) => parts(address, port),
        };
        let names = names(&environment.certificate)?;
        let own = environment.server_name.as_str();
        let advertised = config.get("core.metrics_advertise").filter(|set| !set.is_empty());
        let (host, port) = match advertised {
            Some(address) if is_any(&host) => parts(address, port),
            None if is_any(&host) => (own.to_owned(), port),
            _ => (host, port),
        };
        Ok(Self {
            server_name: server_name(&names, &host, own)?,
            target: if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
        })
    }
}

/// The host of an address, without brackets, and its port.
fn parts(address: &str, default_port: u16) -> (String, u16) {
    if address.parse::<Ipv6Addr>().is_ok() {
        return (address.to_owned(), default_port);
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(default_port)),
        _ => (address, default_port),
    };
    (host.trim_start_matches('[').trim_end_matches(']').to_owned(), port)
}

fn is_any(host: &str) -> bool {
    host.is_empty() || host == "*" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// The names of a certificate, as Prometheus compares them: host names first, then addresses.
fn names(pem: &str) -> Result<Vec<String>, Failure> {
    let unreadable =
        || Failure::request("the server's certificate cannot be read: is this miharud's answer?");
    let pem = Pem::iter_from_buffer(pem.as_bytes()).flatten().next().ok_or_else(unreadable)?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).map_err(|_| unreadable())?;
    let alternatives = certificate.subject_alternative_name().map_err(|_| unreadable())?;
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    for name in alternatives.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    names.extend(addresses);
    Ok(names)
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok();
    v4.or(v6).map(|ip| ip.to_string())
}

/// The name to ask for: the target's own where the certificate is for it, else the server's, else the first.
fn server_name(names: &[String], host: &str, own: &str) -> Result<String, Failure> {
    let is_host_name = |name: &&String| name.parse::<IpAddr>().is_err();
    let of = |wanted: &str| names.iter().filter(is_host_name).find(|name| name.eq_ignore_ascii_case(wanted));
    // A name with a star stands for others, and is none to ask for.
    let plain = names.iter().find(|name| !name.starts_with('*'));
    of(host).or_else(|| of(own)).or(plain).cloned().ok_or_else(|| {
        Failure::request(
            "the server's certificate is for no name, so Prometheus would refuse it: make a new one with \
             `miharu admin renew-certificate`",
        )
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// For foo, foo.example.org, 127.0.0.1 and ::1.
    pub(in super::super) const PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIIBrDCCAVKgAwIBAgIUK8WqoCgv6W/pu9y6hTf2Qk+0msswCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDZm9vMB4XDTI2MTEyMjAwMTQyN1oXDTM2MTExOTAwMTQyN1ow
DjEMMAoGA1UEAwwDZm9vMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEuREoSS9u
nTu/a8xJSXmtqwxRvQZYpiCE8P3myzXLvyQl4ASNSnpZayXkxxMThSbEpZjwsvfm
Z364+YXf3HoxTaOBjTCBijAdBgNVHQ4EFgQUiwjJ72GWhtg7q35GRM3axJrmMkUw
HwYDVR0jBBgwFoAUiwjJ72GWhtg7q35GRM3axJrmMkUwDwYDVR0TAQH/BAUwAwEB
/zA3BgNVHREEMDAuggNmb2+CD2Zvby5leGFtcGxlLm9yZ4cEfwAAAYcQAAAAAAAA
AAAAAAAAAAAAATAKBggqhkjOPQQDAgNIADBFAiEApCi4SERJmzT6GthTbfkz2/PC
ty3KfIRho7YXUuxFk88CIDJxR3LZqzdAPYdgEiYJHxO3ECa4GOxdah2HyvV9fFPK
-----END CERTIFICATE-----
";

    #[test]
    fn names_are_those_of_the_certificate() {
        assert_eq!(names(PEM).unwrap(), ["foo", "foo.example.org", "127.0.0.1", "::1"]);
        assert!(names("").is_err());
    }

    #[test]
    fn addresses_are_taken_apart_as_users_write_them() {
        for (address, host, port) in [
            (":8444", "", 8444),
            ("192.0.2.7", "192.0.2.7", 9100),
            ("192.0.2.7:1", "192.0.2.7", 1),
            ("[::1]:8444", "::1", 8444),
            ("[::1]", "::1", 9100),
            ("::1", "::1", 9100),
            ("foo.example.org", "foo.example.org", 9100),
        ] {
            assert_eq!(parts(address, 9100), (host.to_owned(), port), "{address}");
        }
        for any in ["", "*", "0.0.0.0", "::"] {
            assert!(is_any(any), "{any}");
        }
    }

    #[test]
    fn the_server_is_asked_for_under_a_name_that_it_has() {
        let server = |address: &str| {
            let text = serde_json::json!({
                "config": {"core.metrics_address": address},
                "environment": {"certificate": PEM, "server_name": "foo"},
            });
            serde_json::from_value::<Server>(text).unwrap()
        };
        let of = |address: &str, target: Option<&str>| {
            let Endpoint { target, server_name } = Endpoint::of(&server(address), target).unwrap();
            format!("{target} {server_name}")
        };
        assert_eq!(of(":8444", None), "foo:8444 foo");
        assert_eq!(of("[::1]:8444", None), "[::1]:8444 foo");
        assert_eq!(of("FOO.example.org", None), "FOO.example.org:9100 foo.example.org");
        assert_eq!(of(":8444", Some("other")), "other:8444 foo");
        assert_eq!(of(":8444", Some("other:1")), "other:1 foo");
    }
}

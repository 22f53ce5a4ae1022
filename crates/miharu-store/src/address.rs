//! Addresses to listen on, as users write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address to listen on: `HOST`, `HOST:PORT`, `:PORT`, `[V6]`, `[V6]:PORT` or a bare IPv6 address. A port that is
/// left out is the key's default.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    /// Which addresses of the host.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

/// Which addresses of the host to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Every interface, IPv6 and IPv4.
    Any,
    /// One address.
    Ip(IpAddr),
    /// A name to be looked up when the socket is bound.
    Name(String),
}

impl ListenAddress {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: Host::Ip(IpAddr::V6(ip)), port: default_port });
        }
        if text.contains('%') {
            return Err("an address with an interface (%) is not supported: use one that is not link-local, or none for all interfaces".to_owned());
        }
        let (host, port) = split(text)?;
        let port = match port {
            None => default_port,
            Some(port) => port
                .parse::<u16>()
                .ok()
                .filter(|number| *number != 0 && port.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| format!("invalid port '{port}'"))?,
        };
        Ok(Self { host: host_of(host)?, port })
    }
}

/// Parts a text into host (brackets kept) and port.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if text.starts_with('[') {
        let Some((host, rest)) = text.split_once(']') else {
            return Err("missing ']' in address".to_owned());
        };
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("unexpected text after ']'".to_owned()),
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((_, port)) if port.contains(':') => Err("an IPv6 address with a port needs brackets".to_owned()),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

fn host_of(host: &str) -> Result<Host, String> {
    if let Some(v6) = host.strip_prefix('[') {
        return v6
            .parse()
            .map(|ip| Host::Ip(IpAddr::V6(ip)))
            .map_err(|_| format!("invalid IPv6 address '{v6}'"));
    }
    if host.is_empty() || host == "*" {
        return Ok(Host::Any);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    // A last label of digits alone is no name (RFC 3696): it is an IPv4 address that was mistyped.
    let numeric = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if host.len() <= 253 && host.split('.').all(label) && !numeric {
        return Ok(Host::Name(host.to_owned()));
    }
    Err(format!("invalid address '{host}'"))
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => write!(f, "[::]:{}", self.port),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_read_is_written_so_that_it_is_read_again(text in "[a-z0-9.:*\\[\\]-]{0,24}") {
            if let Ok(address) = ListenAddress::parse(&text, 9100) {
                prop_assert_eq!(ListenAddress::parse(&address.to_string(), 1).map(|again| again.port), Ok(address.port));
            }
        }

        #[test]
        fn no_text_is_read_as_port_0(text in any::<String>()) {
            prop_assert!(ListenAddress::parse(&text, 9100).map_or(true, |address| address.port != 0));
        }
    }

    #[test]
    fn addresses_are_read_as_users_write_them() {
        let cases = [
            (":8444", "[::]:8444"),
            ("*:8444", "[::]:8444"),
            ("127.0.0.1", "127.0.0.1:9100"),
            ("127.0.0.1:9101", "127.0.0.1:9101"),
            ("[::1]:8444", "[::1]:8444"),
            ("[::1]", "[::1]:9100"),
            ("::1", "[::1]:9100"),
            ("2001:db8::1", "[2001:db8::1]:9100"),
            ("host.example:1", "host.example:1"),
        ];
        for (text, expected) in cases {
            assert_eq!(ListenAddress::parse(text, 9100).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let cases = [
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "127.0.0.1:+1",
            "127.0.0.256",
            "[::1",
            "[::1]x",
            "[x]:1",
            "a b",
            "::1:x",
            "-x",
            "1:2:3",
            "http://x",
            "x_y",
            "fe80::1%eth0",
            "[fe80::1%eth0]:9100",
        ];
        for text in cases {
            assert!(ListenAddress::parse(text, 9100).is_err(), "{text}");
        }
        let error = ListenAddress::parse("fe80::1%eth0", 9100).unwrap_err();
        assert!(error.contains("interface (%)"), "{error}");
    }
}

//! Where etcd is, and how to get in: what an operator gives and the database keeps.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::token::Secret;

/// The prefix of a cluster that names none.
const DEFAULT_PREFIX: &str = "miharu";
/// The port of an endpoint that names none.
const DEFAULT_PORT: u16 = 2379;
/// More endpoints than this are no etcd cluster.
const ENDPOINTS_LIMIT: usize = 32;

/// Where etcd is, and how to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdAccess {
    /// `http://host:port` or `https://host:port`.
    pub(crate) endpoints: Vec<String>,
    /// What every key begins with: `/`, names, `/`.
    pub(crate) prefix: String,
    /// Who signed etcd's certificates, PEM; needed for `https`.
    pub ca_pem: Option<String>,
    /// The certificate and the key to show to etcd, PEM.
    pub client_pem: Option<(String, Secret)>,
    /// The name and the password to log in to etcd with.
    pub user: Option<(String, Secret)>,
}

/// What is wrong with the way to etcd that was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid etcd store '{text}': {reason}")]
pub struct SettingsError {
    text: String,
    reason: String,
}

impl EtcdAccess {
    /// Reads `etcd://host[:port][,host[:port]…][/PREFIX]`; `etcds://` speaks TLS.
    ///
    /// # Errors
    /// When it is not written so.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let wrong = |reason: String| SettingsError { text: text.chars().take(200).collect(), reason };
        let expected =
            || wrong("expected etcd://HOST:2379[,HOST:2379…][/PREFIX], or etcds:// for TLS".to_owned());
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(expected)?;
        let scheme = match scheme {
            "etcd" => "http",
            "etcds" => "https",
            _ => return Err(expected()),
        };
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { DEFAULT_PREFIX } else { prefix };
        let fits = |name: &str| {
            !name.is_empty()
                && name.len() <= 63
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if prefix.len() > 200 || !prefix.split('/').all(fits) {
            return Err(wrong(
                "a prefix is names of letters, digits, '.', '_' and '-' with '/' between them".to_owned(),
            ));
        }
        let mut endpoints = Vec::new();
        for host in hosts.split(',').map(str::trim) {
            let address = crate::ListenAddress::parse(host, DEFAULT_PORT).map_err(wrong)?;
            match &address.host {
                crate::address::Host::Ip(ip) if !ip.is_unspecified() => {}
                crate::address::Host::Name(_) => {}
                _ => return Err(wrong(format!("'{host}' is no host that can be reached"))),
            }
            endpoints.push(format!("{scheme}://{address}"));
        }
        if endpoints.len() > ENDPOINTS_LIMIT {
            return Err(wrong(format!("more than {ENDPOINTS_LIMIT} endpoints")));
        }
        let prefix = format!("/{prefix}/");
        Ok(Self { endpoints, prefix, ca_pem: None, client_pem: None, user: None })
    }

    /// The same over TLS, with this authority (PEM) for etcd's certificates.
    #[must_use]
    pub fn with_tls(self, ca_pem: String) -> Self {
        let endpoints =
            self.endpoints.iter().map(|endpoint| endpoint.replacen("http://", "https://", 1)).collect();
        Self { endpoints, ca_pem: Some(ca_pem), ..self }
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"))
    }

    /// Whether what was given for TLS and whether TLS is spoken agree.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let wrong = |reason: &str| Err(SettingsError { text: self.url(), reason: reason.to_owned() });
        if self.is_tls() && self.ca_pem.is_none() {
            return wrong("TLS needs the certificate of the authority that signed etcd's certificates");
        }
        if !self.is_tls() && (self.ca_pem.is_some() || self.client_pem.is_some()) {
            return wrong("certificates for etcd were given, but etcd:// speaks no TLS; write etcds://");
        }
        Ok(())
    }

    /// Where etcd is.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// What people call the cluster under this prefix: its last part.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        self.prefix.trim_matches('/').rsplit('/').next().unwrap_or(DEFAULT_PREFIX)
    }

    /// As [`parse`](Self::parse) reads it.
    #[must_use]
    pub fn url(&self) -> String {
        let first = self.endpoints.first().map_or("", String::as_str);
        let scheme = if first.starts_with("https:") { "etcds" } else { "etcd" };
        let hosts: Vec<&str> = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.split_once("://").map_or("", |(_, host)| host))
            .collect();
        format!("{scheme}://{}{}", hosts.join(","), self.prefix.trim_end_matches('/'))
    }
}

/// Passwords and keys do not show.
impl fmt::Debug for EtcdAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EtcdAccess").field(&self.url()).finish()
    }
}

/// As the database keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    url: String,
    ca: Option<String>,
    client: Option<(String, String)>,
    user: Option<(String, String)>,
}

impl EtcdAccess {
    /// As the database keeps it, which is the daemon's own.
    pub(crate) fn to_json(&self) -> String {
        let reveal = |pair: &(String, Secret)| (pair.0.clone(), pair.1.reveal().to_owned());
        let kept = Kept {
            url: self.url(),
            ca: self.ca_pem.clone(),
            client: self.client_pem.as_ref().map(reveal),
            user: self.user.as_ref().map(reveal),
        };
        // Strings and options of them can always be written.
        serde_json::to_string(&kept).unwrap_or_default()
    }

    /// What [`to_json`](Self::to_json) wrote.
    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        let kept: Kept = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let hide = |pair: (String, String)| (pair.0, Secret::new(pair.1));
        let access = Self::parse(&kept.url).map_err(|error| error.to_string())?;
        Ok(Self { ca_pem: kept.ca, client_pem: kept.client.map(hide), user: kept.user.map(hide), ..access })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_alike(text in "(etcds?://)?[a-z0-9.:,/\\[\\]-]{0,24}") {
            if let Ok(access) = EtcdAccess::parse(&text) {
                prop_assert_eq!(EtcdAccess::parse(&access.url()), Ok(access));
            }
        }
    }

    #[test]
    fn a_store_is_read_as_operators_write_it() {
        let access = EtcdAccess::parse("etcd://a,10.0.0.1:2000,[::1]/prod/eu").unwrap();
        assert_eq!(access.endpoints(), ["http://a:2379", "http://10.0.0.1:2000", "http://[::1]:2379"]);
        assert_eq!((access.prefix.as_str(), access.cluster_name()), ("/prod/eu/", "eu"));
        let access = EtcdAccess::parse("etcds://a.example/").unwrap();
        assert_eq!(access.endpoints(), ["https://a.example:2379"]);
        assert_eq!((access.prefix.as_str(), access.cluster_name()), ("/miharu/", "miharu"));
    }

    #[test]
    fn an_authority_makes_it_tls() {
        let access = EtcdAccess::parse("etcd://a,b/x").unwrap().with_tls("ca".to_owned());
        assert!(access.is_tls() && access.check().is_ok());
        assert!(EtcdAccess::parse("etcds://a").unwrap().check().is_err());
        let plain = EtcdAccess { ca_pem: Some("ca".to_owned()), ..EtcdAccess::parse("etcd://a").unwrap() };
        assert!(plain.check().is_err(), "nobody is to take this for TLS");
        assert_eq!(access.url(), "etcds://a:2379,b:2379/x");
    }

    #[test]
    fn what_is_no_store_is_refused() {
        for text in [
            "",
            "a:2379",
            "http://a",
            "etcd://",
            "etcd://a,,b",
            "etcd://0.0.0.0",
            "etcd://a/x y",
            "etcd://a/b//c",
        ] {
            assert!(EtcdAccess::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_database_keeps_all_of_it_and_a_log_none_of_its_secrets() {
        let mut access = EtcdAccess::parse("etcds://a,b/x").unwrap();
        access.ca_pem = Some("ca".to_owned());
        access.client_pem = Some(("crt".to_owned(), Secret::new("hush".to_owned())));
        access.user = Some(("root".to_owned(), Secret::new("hush".to_owned())));
        assert_eq!(EtcdAccess::from_json(&access.to_json()), Ok(access.clone()));
        assert!(!format!("{access:?}").contains("hush"));
    }
}

//! The server's configuration: the keys that are set, and what they mean.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::address::ListenAddress;
use crate::expiry::Expiry;
use crate::globs::{DeviceGlobs, Globs, InstanceGlobs};
use crate::keys::{
    DEFAULT_HTTPS_PORT, DEFAULT_METRICS_PORT, DRIVERS, KEYS, find, is_user_key, parse_bool,
    parse_milliseconds,
};
use crate::words::{self, Selected};

/// The longest value that a key takes, in bytes.
const VALUE_LIMIT: usize = 64 * 1024;
/// The least that `cluster.trust_max_age` means: a copy that is in step is some seconds old, too.
const SHORTEST_TRUST: Duration = Duration::from_secs(10);

/// The server keys that are set. Every value in it has been checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config(BTreeMap<String, String>);

/// Why a key cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such key.
    #[error("cannot set '{key}' to '{value}': unknown key")]
    Unknown {
        /// The key.
        key: String,
        /// What it should have become.
        value: String,
    },
    /// The key does not take this value.
    #[error("cannot set '{key}' to '{value}': {reason}")]
    Invalid {
        /// The key.
        key: String,
        /// What it should have become.
        value: String,
        /// What is wrong with that.
        reason: String,
    },
}

impl Config {
    /// The configuration in which exactly these keys are set. An empty value is the same as none.
    ///
    /// # Errors
    /// For the first key, in the order of their names, that is unknown or does not take its value.
    pub fn replace(values: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        Self::default().merge(values)
    }

    /// This configuration with these keys changed. An empty value unsets a key.
    ///
    /// # Errors
    /// As [`Config::replace`].
    pub fn merge(&self, values: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut merged = self.clone();
        for (key, value) in values {
            let value = checked(key, value)?;
            if value.is_empty() {
                merged.0.remove(key);
            } else {
                merged.0.insert(key.clone(), value);
            }
        }
        Ok(merged)
    }

    /// What was stored. A value that this version does not take is left out with a warning, so that its default holds.
    pub(crate) fn restore(values: BTreeMap<String, String>) -> Self {
        let mut restored = Self::default();
        for (key, value) in values {
            match restored.merge(&BTreeMap::from([(key.clone(), value)])) {
                Ok(merged) => restored = merged,
                Err(error) => tracing::warn!("server key left at its default: {error}"),
            }
        }
        restored
    }

    /// The keys that are set, and their values.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// What the keys mean, with defaults in the place of those that are unset.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            join_token_expiry: Expiry::parse(self.get("cluster.join_token_expiry")).ok(),
            trust_max_age: Expiry::parse(self.get("cluster.trust_max_age"))
                .ok()
                .map(|age| age.length().max(SHORTEST_TRUST)),
            https_address: self.address("core.https_address", DEFAULT_HTTPS_PORT),
            metrics_address: self.address("core.metrics_address", DEFAULT_METRICS_PORT),
            connections: self.count("core.connections"),
            connections_per_address: self.count("core.connections_per_address"),
            handshakes_per_address: self.count("core.handshakes_per_address"),
            handshakes_per_second: self.count("core.handshakes_per_second"),
            requests_per_second: self.count("core.requests_per_second"),
            metrics_advertise: Some(self.get("core.metrics_advertise").to_owned())
                .filter(|set| !set.is_empty()),
            metrics_authentication: self.bool("core.metrics_authentication"),
            remote_token_expiry: Expiry::parse(self.get("core.remote_token_expiry")).ok(),
            trust_ca_certificates: self.bool("core.trust_ca_certificates"),
            tls12: self.get("core.tls_minimum_version") == "1.2",
            prefix_lxd: self.get("metrics.prefix") == "lxd",
            cache: self.duration("metrics.cache_seconds"),
            shared_filesystems: self.bool("metrics.shared_filesystems"),
            all_disk_layers: self.get("metrics.disk_layers") == "all",
            remote_filesystems: self.bool("metrics.remote_filesystems"),
            collect_timeout: self.duration("metrics.collect_timeout"),
            instance_timeout: self.duration("metrics.instance_timeout"),
            agent_grace: self.duration("instances.agent_grace"),
            balloon_interval: self.duration("instances.balloon_interval"),
            kept_files: self.count("instances.kept_files"),
            per_cpu: self.bool("metrics.per_cpu"),
            // Every value has been checked, so that none of these can be malformed.
            excluded_families: Globs::parse(self.get("metrics.families.exclude")).unwrap_or_default(),
            excluded_devices: DeviceGlobs::parse(self.get("metrics.devices.exclude")).unwrap_or_default(),
            drivers: Selected::parse(self.get("instances.drivers"), DRIVERS).unwrap_or_default(),
            rootless: words::users(self.get("instances.rootless")).unwrap_or_default(),
            included_instances: self.instances("instances.include"),
            excluded_instances: self.instances("instances.exclude"),
            history: self.bool("ui.history"),
        }
    }

    /// A key's value, or its default.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        let default = || find(key).map_or("", |key| key.default);
        self.0.get(key).map_or_else(default, String::as_str)
    }

    fn address(&self, key: &str, default_port: u16) -> Option<ListenAddress> {
        self.0.get(key).and_then(|text| ListenAddress::parse(text, default_port).ok())
    }

    fn count<T: std::str::FromStr + Default>(&self, key: &str) -> T {
        self.get(key).parse().unwrap_or_default()
    }

    fn bool(&self, key: &str) -> bool {
        // Every default is a boolean (a test holds it), so `false` stands for nothing.
        parse_bool(self.get(key)).unwrap_or_default()
    }

    fn instances(&self, key: &str) -> InstanceGlobs {
        InstanceGlobs::parse(self.get(key)).unwrap_or_default()
    }

    fn duration(&self, key: &str) -> Duration {
        Duration::from_millis(parse_milliseconds(self.get(key)).unwrap_or_default())
    }
}

fn checked(key: &str, value: &str) -> Result<String, ConfigError> {
    let shown = || value.chars().take(200).collect::<String>();
    let invalid = |reason: String| ConfigError::Invalid { key: key.to_owned(), value: shown(), reason };
    if value.len() > VALUE_LIMIT || value.contains('\0') {
        return Err(invalid("value is too long or holds a zero byte".to_owned()));
    }
    if is_user_key(key) {
        return Ok(value.to_owned());
    }
    let Some(known) = KEYS.iter().find(|known| known.name == key) else {
        return Err(ConfigError::Unknown { key: key.to_owned(), value: shown() });
    };
    let value = value.trim();
    if value.is_empty() {
        return Ok(String::new());
    }
    known.normalise(value).map_err(invalid)
}

/// What the server keys mean.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a server key of its own")]
pub struct Settings {
    /// How long the token for a new member of the cluster is valid; never `None`, as it has a default.
    pub join_token_expiry: Option<Expiry>,
    /// From which age on the copy of what a cluster trusts opens nothing any more, 10 s at least; `None` for no such age.
    pub trust_max_age: Option<Duration>,
    /// Where the API is served.
    pub https_address: Option<ListenAddress>,
    /// Where metrics alone are served.
    pub metrics_address: Option<ListenAddress>,
    /// Connections at once on each listener, half of them strangers'.
    pub connections: usize,
    /// Connections at once of strangers from one address.
    pub connections_per_address: usize,
    /// TLS handshakes a second with one address.
    pub handshakes_per_address: u32,
    /// TLS handshakes a second with all addresses that no trusted client came from lately.
    pub handshakes_per_second: u32,
    /// Requests a second of strangers from one address.
    pub requests_per_second: u32,
    /// What others reach this host under, as [`ListenAddress::parse`] reads it, for a listener on every interface.
    pub metrics_advertise: Option<String>,
    /// Whether metrics ask for a trusted certificate.
    pub metrics_authentication: bool,
    /// How long a join token is valid; `None` for ever.
    pub remote_token_expiry: Option<Expiry>,
    /// Whether what the certificate authority signed is trusted without an entry.
    pub trust_ca_certificates: bool,
    /// Whether TLS 1.2 is served beside 1.3.
    pub tls12: bool,
    /// Whether names begin with `lxd` rather than `incus`.
    pub prefix_lxd: bool,
    /// How old figures may be.
    pub cache: Duration,
    /// Whether roots on a shared file system show its size.
    pub shared_filesystems: bool,
    /// Whether every layer of a stack of block devices counts.
    pub all_disk_layers: bool,
    /// Whether FUSE and network mounts are asked for their size.
    pub remote_filesystems: bool,
    /// How long one collection may take.
    pub collect_timeout: Duration,
    /// How long the figures of one instance may take.
    pub instance_timeout: Duration,
    /// How long the guest agent of a virtual machine that has just started is awaited.
    pub agent_grace: Duration,
    /// How often a guest's balloon driver is told to report the guest's memory; zero leaves that as it is.
    pub balloon_interval: Duration,
    /// How many control files of instances are kept open at most.
    pub kept_files: usize,
    /// Whether CPU time is served for each CPU rather than for all together.
    pub per_cpu: bool,
    /// Families that are not served, by the names of their samples.
    pub excluded_families: Globs,
    /// Devices that are not served.
    pub excluded_devices: DeviceGlobs,
    /// The drivers that look for instances, of [`DRIVERS`].
    pub drivers: Selected,
    /// The users whose own containers are looked for.
    pub rootless: Vec<String>,
    /// The instances that are served, where it names any.
    pub included_instances: InstanceGlobs,
    /// Instances that are not served all the same.
    pub excluded_instances: InstanceGlobs,
    /// Whether the last hour of each instance is kept.
    pub history: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_copy_that_is_in_step_is_never_too_old() {
        let age = |text: &str| {
            let values = BTreeMap::from([("cluster.trust_max_age".to_owned(), text.to_owned())]);
            Config::replace(&values).unwrap().settings().trust_max_age
        };
        assert_eq!((age(""), age("1S")), (None, Some(Duration::from_secs(10))));
        assert_eq!(age("1M"), Some(Duration::from_secs(60)));
    }

    #[test]
    fn an_unset_key_has_its_default() {
        let off = Config::replace(&map(&[("core.metrics_authentication", "no")])).unwrap();
        assert!(!off.settings().metrics_authentication);
        let unset = off.merge(&map(&[("core.metrics_authentication", "")])).unwrap();
        assert!(unset.settings().metrics_authentication);
        assert!(unset.values().is_empty());
    }

    #[test]
    fn errors_read_as_those_of_incus() {
        let error = Config::replace(&map(&[("core.metrics_authentication", "maybe")])).unwrap_err();
        assert_eq!(error.to_string(), "cannot set 'core.metrics_authentication' to 'maybe': invalid boolean");
        let error = Config::replace(&map(&[("core.nonsense", "1")])).unwrap_err();
        assert_eq!(error.to_string(), "cannot set 'core.nonsense' to '1': unknown key");
    }

    #[test]
    fn one_bad_key_spoils_the_whole_change() {
        let config = Config::replace(&map(&[("user.a", "1")])).unwrap();
        assert!(config.merge(&map(&[("core.https_address", ":8443"), ("metrics.prefix", "x")])).is_err());
        assert_eq!(config.values(), &map(&[("user.a", "1")]));
    }

    #[test]
    fn settings_follow_the_keys() {
        let config = Config::replace(&map(&[
            ("core.metrics_address", ":9101"),
            ("metrics.prefix", "lxd"),
            ("metrics.collect_timeout", "500ms"),
        ]))
        .unwrap();
        let settings = config.settings();
        assert_eq!(settings.metrics_address.unwrap().to_string(), "[::]:9101");
        assert!(settings.prefix_lxd && !settings.tls12 && settings.shared_filesystems);
        assert_eq!(settings.collect_timeout, Duration::from_millis(500));
        assert_eq!(settings.cache, Duration::from_secs(8));
        assert!(settings.drivers.has("docker") && settings.rootless.is_empty());
    }

    #[test]
    fn which_instances_are_served_follows_the_keys() {
        let config = Config::replace(&map(&[
            ("instances.drivers", "-docker"),
            ("instances.rootless", "alice,bob"),
            ("instances.exclude", "runtime:podman"),
        ]))
        .unwrap();
        let settings = config.settings();
        assert!(settings.drivers.has("lxc") && !settings.drivers.has("docker"));
        assert_eq!(settings.rootless, ["alice", "bob"]);
        assert!(settings.excluded_instances.runtimes.matches("podman"));
        assert_eq!(settings.included_instances, InstanceGlobs::default());
    }
}

//! The one list of server keys: what they are called, what they take, what holds when they are unset.

use crate::address::{Host, ListenAddress};
use crate::expiry::Expiry;
use crate::globs::{DeviceGlobs, Globs, InstanceGlobs, tidy};
use crate::words::{self, Selected};

/// A server key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds when it is unset; empty where nothing does.
    pub default: &'static str,
    /// What it is for, one sentence.
    pub description: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, also `1`, `0`, `yes`, `no`, `on`, `off`, in any case.
    Bool,
    /// An address to listen on, see [`ListenAddress`], with this default port.
    Address(u16),
    /// An address under which others reach this host: one that may be listened on, but not all of the host's.
    Reached,
    /// Seconds, whole or with a fraction (`8`, `0.5`), or with a unit (`500ms`, `4s`, `1m`), within these bounds in
    /// milliseconds.
    Seconds(u64, u64),
    /// A whole number between these two.
    Count(u64, u64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// How long something is valid, see [`Expiry`].
    Expiry,
    /// Patterns with commas between them, see [`Globs`].
    Globs,
    /// Patterns of devices with commas between them, see [`DeviceGlobs`].
    DeviceGlobs,
    /// Patterns of instances with commas between them, see [`InstanceGlobs`].
    InstanceGlobs,
    /// Some of these words with commas between them, see [`Selected`].
    Selected(&'static [&'static str]),
    /// Names of users with commas between them.
    Users,
}

/// The default port of `core.https_address`.
pub const DEFAULT_HTTPS_PORT: u16 = 8443;
/// The default port of `core.metrics_address`.
pub const DEFAULT_METRICS_PORT: u16 = 9100;

/// What `instances.drivers` knows: each finds the instances of one runtime, or of a family of them. The daemon has a test that
/// these are the drivers that there are.
pub const DRIVERS: &[&str] =
    &["lxc", "nspawn", "libvirt-lxc", "qemu", "podman", "docker", "containerd", "kubernetes"];

/// Every server key, in the order of their names. `user.*` keys beside them are free text.
pub const KEYS: &[Key] = &[
    Key {
        name: "cluster.join_token_expiry",
        kind: Kind::Expiry,
        default: "3H",
        description: "How long the token of `miharu cluster add` is valid, such as 3H or 1d",
    },
    Key {
        name: "cluster.trust_max_age",
        kind: Kind::Expiry,
        default: "",
        description: "How long a member that cannot reach etcd goes on trusting by its last copy; for ever when unset",
    },
    Key {
        name: "core.connections",
        kind: Kind::Count(16, 65_536),
        default: "1024",
        description: "Connections at once on each listener: half of them for those who are trusted, half for strangers",
    },
    Key {
        name: "core.connections_per_address",
        kind: Kind::Count(1, 65_536),
        default: "128",
        description: "Connections at once of strangers from one IPv4 address, or one IPv6 network of 64 bits",
    },
    Key {
        name: "core.handshakes_per_address",
        kind: Kind::Count(1, 100_000),
        default: "50",
        description: "TLS handshakes a second with one address, those of trusted clients not counted",
    },
    Key {
        name: "core.handshakes_per_second",
        kind: Kind::Count(1, 100_000),
        default: "200",
        description: "TLS handshakes a second with all addresses together that no trusted client came from lately",
    },
    Key {
        name: "core.https_address",
        kind: Kind::Address(DEFAULT_HTTPS_PORT),
        default: "",
        description: "Address to serve the API on, over HTTPS (default port 8443); not served when unset",
    },
    Key {
        name: "core.metrics_address",
        kind: Kind::Address(DEFAULT_METRICS_PORT),
        default: "",
        description: "Address to serve metrics alone on, over HTTPS (default port 9100); not served when unset",
    },
    Key {
        name: "core.metrics_advertise",
        kind: Kind::Reached,
        default: "",
        description: "Name or address, and port, that Prometheus is told where metrics are served on every interface",
    },
    Key {
        name: "core.metrics_authentication",
        kind: Kind::Bool,
        default: "true",
        description: "Whether /1.0/metrics asks for a trusted client certificate",
    },
    Key {
        name: "core.remote_token_expiry",
        kind: Kind::Expiry,
        default: "",
        description: "How long a join token is valid, such as 1d or 12H 30M; for ever when unset",
    },
    Key {
        name: "core.requests_per_second",
        kind: Kind::Count(1, 100_000),
        default: "100",
        description: "Requests a second of strangers from one address; more are answered with 429",
    },
    Key {
        name: "core.tls_minimum_version",
        kind: Kind::OneOf(&["1.2", "1.3"]),
        default: "1.3",
        description: "The oldest TLS version that clients may speak",
    },
    Key {
        name: "core.trust_ca_certificates",
        kind: Kind::Bool,
        default: "false",
        description: "Whether every certificate that server.ca signed is trusted like a client's, without an entry of its own",
    },
    Key {
        name: "instances.agent_grace",
        kind: Kind::Seconds(0, 3_600_000),
        default: "120",
        description: "How long a virtual machine's guest agent is awaited before host figures are served",
    },
    Key {
        name: "instances.balloon_interval",
        kind: Kind::Seconds(0, 3_600_000),
        default: "0",
        description: "How often guests without an agent of miharu's are told to report their memory; 0 leaves that as it is",
    },
    Key {
        name: "instances.drivers",
        kind: Kind::Selected(DRIVERS),
        default: "",
        description: "Which runtimes' instances are looked for (lxc,podman), or, with '-', which are not (-docker); all when unset",
    },
    Key {
        name: "instances.exclude",
        kind: Kind::InstanceGlobs,
        default: "",
        description: "Patterns of instances that are left out (web*,project:docker/*,runtime:podman)",
    },
    Key {
        name: "instances.include",
        kind: Kind::InstanceGlobs,
        default: "",
        description: "Patterns of the instances that are served, in the form of instances.exclude; every one when unset",
    },
    Key {
        name: "instances.kept_files",
        kind: Kind::Count(0, 1_000_000),
        default: "16384",
        description: "How many control files of instances are kept open between scrapes, at most",
    },
    Key {
        name: "instances.rootless",
        kind: Kind::Users,
        default: "",
        description: "Users whose own containers, such as those of rootless podman, are looked for (alice,bob)",
    },
    Key {
        name: "metrics.cache_seconds",
        kind: Kind::Seconds(0, 3_600_000),
        default: "8",
        description: "How old figures may be before a scrape collects new ones",
    },
    Key {
        name: "metrics.collect_timeout",
        kind: Kind::Seconds(100, 300_000),
        default: "4",
        description: "How long one collection of all instances may take",
    },
    Key {
        name: "metrics.devices.exclude",
        kind: Kind::DeviceGlobs,
        default: "",
        description: "Patterns of disks, network interfaces and file systems that are left out (veth*,disk:loop*,filesystem:/run*)",
    },
    Key {
        name: "metrics.disk_layers",
        kind: Kind::OneOf(&["one", "all"]),
        default: "one",
        description: "Whether a stack of block devices counts once (one) or with every layer, as in Incus (all)",
    },
    Key {
        name: "metrics.families.exclude",
        kind: Kind::Globs,
        default: "",
        description: "Patterns of metric names that are not served (pressure_*,process_*)",
    },
    Key {
        name: "metrics.instance_timeout",
        kind: Kind::Seconds(100, 300_000),
        default: "2",
        description: "How long the figures of one instance may take",
    },
    Key {
        name: "metrics.per_cpu",
        kind: Kind::Bool,
        default: "true",
        description: "Whether CPU time is served for each CPU; false serves the sum over all of them",
    },
    Key {
        name: "metrics.prefix",
        kind: Kind::OneOf(&["incus", "lxd"]),
        default: "incus",
        description: "What metric names begin with: the names of Incus' dashboard or of LXD's",
    },
    Key {
        name: "metrics.remote_filesystems",
        kind: Kind::Bool,
        default: "false",
        description: "Whether FUSE and network mounts inside instances are asked for their size, though they may hang",
    },
    Key {
        name: "metrics.shared_filesystems",
        kind: Kind::Bool,
        default: "true",
        description: "Whether a root that is a directory on a shared file system shows that file system's size",
    },
    Key {
        name: "ui.history",
        kind: Kind::Bool,
        default: "true",
        description: "Whether the last hour of each instance is kept in memory, for the web page and `miharu top`",
    },
];

/// The key of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether the name is one of the free keys that Incus lets users have.
#[must_use]
pub fn is_user_key(name: &str) -> bool {
    name.strip_prefix("user.").is_some_and(|rest| {
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
    })
}

impl Key {
    /// Checks a value that is not empty and gives it the form in which it is kept.
    ///
    /// # Errors
    /// What is wrong with it, as the end of the sentence "cannot set KEY to VALUE: …".
    pub fn normalise(&self, value: &str) -> Result<String, String> {
        match self.kind {
            Kind::Bool => {
                parse_bool(value).map(|b| b.to_string()).ok_or_else(|| "invalid boolean".to_owned())
            }
            Kind::Address(port) => ListenAddress::parse(value, port).map(|_| value.to_owned()),
            Kind::Reached => match ListenAddress::parse(value, DEFAULT_METRICS_PORT)?.host {
                Host::Ip(ip) if ip.is_unspecified() => Err(reached()),
                Host::Any => Err(reached()),
                Host::Ip(_) | Host::Name(_) => Ok(value.to_owned()),
            },
            Kind::Seconds(low, high) => match parse_milliseconds(value) {
                Some(ms) if (low..=high).contains(&ms) => Ok(value.to_owned()),
                Some(_) => Err(format!("must be between {} and {} seconds", seconds(low), seconds(high))),
                None => Err("invalid duration, expected seconds such as 4, 0.5 or 500ms".to_owned()),
            },
            Kind::Count(least, most) => match value.parse::<u64>() {
                Ok(count) if (least..=most).contains(&count) => Ok(count.to_string()),
                _ => Err(format!("must be a whole number from {least} to {most}")),
            },
            Kind::OneOf(words) if words.contains(&value) => Ok(value.to_owned()),
            Kind::Expiry => Expiry::parse(value).map(|_| value.to_owned()),
            Kind::Globs => Globs::parse(value).and_then(|_| listed(value)),
            Kind::DeviceGlobs => DeviceGlobs::parse(value).and_then(|_| listed(value)),
            Kind::InstanceGlobs => InstanceGlobs::parse(value).and_then(|_| listed(value)),
            Kind::Selected(known) => Selected::parse(value, known).and_then(|_| named(value)),
            Kind::Users => words::users(value).and_then(|_| named(value)),
            Kind::OneOf(words) => Err(format!("must be one of {}", words.join(", "))),
        }
    }
}

fn reached() -> String {
    "expected the name or the address under which others reach this host".to_owned()
}

/// The form in which a list is kept; a value that is not empty is to name something.
fn listed(value: &str) -> Result<String, String> {
    list_of(value, "pattern")
}

/// As [`listed`], of names.
fn named(value: &str) -> Result<String, String> {
    list_of(value, "name")
}

fn list_of(value: &str, what: &str) -> Result<String, String> {
    let list = tidy(value);
    if list.is_empty() { Err(format!("there is no {what} between the commas")) } else { Ok(list) }
}

fn seconds(milliseconds: u64) -> String {
    let (whole, part) = (milliseconds / 1000, milliseconds % 1000 / 100);
    if part == 0 { whole.to_string() } else { format!("{whole}.{part}") }
}

/// Reads a boolean as Incus does.
#[must_use]
pub fn parse_bool(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Reads a duration in milliseconds: a number of seconds, or a number with the unit `ms`, `s` or `m`.
#[must_use]
pub fn parse_milliseconds(value: &str) -> Option<u64> {
    let units = [("ms", 1_u64), ("s", 1_000), ("m", 60_000), ("", 1_000)];
    let (number, unit) = units.iter().find_map(|(suffix, unit)| Some((value.strip_suffix(suffix)?, unit)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let whole: u64 = whole.parse().ok()?;
    let fraction: u64 = fraction.parse().ok()?;
    whole.checked_mul(*unit)?.checked_add(fraction.checked_mul(*unit)? / scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_that_is_taken_is_taken_again(text in any::<String>()) {
            for key in KEYS {
                if let Ok(kept) = key.normalise(&text) {
                    prop_assert_eq!(key.normalise(&kept), Ok(kept.clone()));
                }
            }
        }

        #[test]
        fn whole_seconds_are_thousands_of_milliseconds(seconds in 0_u64..1_000_000) {
            prop_assert_eq!(parse_milliseconds(&seconds.to_string()), Some(seconds * 1000));
        }
    }

    #[test]
    fn every_default_is_a_value_of_its_key() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            assert_eq!(key.normalise(key.default).as_deref(), Ok(key.default), "{}", key.name);
        }
        assert!(KEYS.is_sorted_by_key(|key| key.name));
    }

    #[test]
    fn durations_are_seconds_or_have_a_unit() {
        let cases =
            [("8", 8_000), ("0.5", 500), ("500ms", 500), ("4s", 4_000), ("1m", 60_000), ("1.5m", 90_000)];
        for (text, expected) in cases {
            assert_eq!(parse_milliseconds(text), Some(expected), "{text}");
        }
        for text in ["", "s", "-1", "1h", "1.", ".5", "1e3", "nan", "99999999999"] {
            assert_eq!(parse_milliseconds(text), None, "{text}");
        }
    }

    #[test]
    fn an_advertised_address_can_be_reached() {
        let key = find("core.metrics_advertise").unwrap();
        for value in ["host.example.org", "192.0.2.7:8444", "[2001:db8::1]"] {
            assert_eq!(key.normalise(value), Ok(value.to_owned()));
        }
        for value in [":8444", "0.0.0.0", "[::]:9100", "a b", "host:0"] {
            assert!(key.normalise(value).is_err(), "{value}");
        }
    }

    #[test]
    fn lists_of_patterns_are_checked_and_kept_tidy() {
        let families = find("metrics.families.exclude").unwrap();
        assert_eq!(families.normalise("pressure_* , process_*,"), Ok("pressure_*,process_*".to_owned()));
        assert!(families.normalise("a,[b").unwrap_err().starts_with("'[b': "));
        assert_eq!(families.normalise(","), Err("there is no pattern between the commas".to_owned()));
        let devices = find("metrics.devices.exclude").unwrap();
        assert_eq!(devices.normalise("lo,disk:loop*"), Ok("lo,disk:loop*".to_owned()));
        assert!(devices.normalise("lop:x").unwrap_err().contains("only disk, network and filesystem"));
    }

    #[test]
    fn lists_that_choose_instances_are_checked() {
        let normalise = |key: &str, value: &str| find(key).unwrap().normalise(value);
        assert_eq!(normalise("instances.drivers", "lxc , podman,"), Ok("lxc,podman".to_owned()));
        assert!(normalise("instances.drivers", "lxd").unwrap_err().contains("lxc, nspawn"));
        assert_eq!(
            normalise("instances.rootless", ","),
            Err("there is no name between the commas".to_owned())
        );
        assert!(normalise("instances.rootless", "a b").is_err());
        for key in ["instances.include", "instances.exclude"] {
            assert_eq!(normalise(key, "web*, project:k8s/*"), Ok("web*,project:k8s/*".to_owned()));
            assert!(normalise(key, "images:x").is_err());
        }
    }

    #[test]
    fn booleans_are_those_of_incus() {
        assert_eq!(find("core.metrics_authentication").unwrap().normalise("OFF"), Ok("false".to_owned()));
        assert_eq!(
            find("core.metrics_authentication").unwrap().normalise("maybe"),
            Err("invalid boolean".to_owned())
        );
    }

    #[test]
    fn user_keys_are_free() {
        assert!(is_user_key("user.note"));
        assert!(!is_user_key("user."));
        assert!(!is_user_key("core.user.x"));
    }
}

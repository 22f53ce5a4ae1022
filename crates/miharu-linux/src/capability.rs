//! What this process may do, to say without root which capability is missing for what. capabilities(7).

use crate::error::{Error, Result};
use crate::process::parse_status;
use crate::read::Buffer;
use crate::roots::Roots;

/// A capability that miharu has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// What miharu cannot do without it, to be read after "without it: ".
    pub purpose: &'static str,
    /// What that costs.
    pub cost: Cost,
    /// Its bit, from linux/capability.h.
    bit: u32,
}

/// What is lost without a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Figures or names, for some.
    Figures,
    /// A setting that few make.
    Setting,
}

/// The capabilities that miharu has a use for, most wanted first.
pub const CAPABILITIES: &[Capability] = &[
    Capability {
        name: "CAP_SYS_PTRACE",
        purpose: "no sizes of instances' file systems, no machines and LXC containers that users other than root started \
                  themselves, and an instance on the host's network is not told apart",
        cost: Cost::Figures,
        bit: 19,
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        purpose: "ids in place of names that only root's files tell (Docker's containers, podman's pods), and no sizes of \
                  file systems below folders that others may not enter",
        cost: Cost::Figures,
        bit: 2,
    },
    Capability {
        name: "CAP_DAC_OVERRIDE",
        purpose: "no virtual machine, agent or runtime is asked on a socket that only root may write to",
        cost: Cost::Figures,
        bit: 1,
    },
    Capability { name: "CAP_NET_BIND_SERVICE", purpose: "no ports below 1024", cost: Cost::Setting, bit: 10 },
    Capability {
        name: "CAP_CHOWN",
        purpose: "no group on the unix socket other than an own one",
        cost: Cost::Setting,
        bit: 0,
    },
];

/// The capabilities in effect for a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    effective: u64,
}

impl Capabilities {
    /// Reads them from `/proc/thread-self/status`: threads of the daemon differ in what they may do.
    ///
    /// # Errors
    /// Where `/proc` is not mounted, or shows no status.
    pub fn of_this_thread(roots: &Roots, buffer: &mut Buffer) -> Result<Self> {
        let of_thread = roots.proc.join("thread-self/status");
        // Linux before 3.17, and recorded trees, tell of the process alone.
        let path = if of_thread.exists() { of_thread } else { roots.proc.join("self/status") };
        let status = parse_status(buffer.read(&path)?).ok_or(Error::Parse { path, what: "Uid" })?;
        Ok(Self { effective: status.effective_capabilities })
    }

    /// Whether what this one grants is granted.
    #[must_use]
    pub fn has(self, capability: &Capability) -> bool {
        // CAP_DAC_OVERRIDE (bit 1) includes what CAP_DAC_READ_SEARCH grants.
        let effective = if self.effective & 0b10 == 0 { self.effective } else { self.effective | 0b100 };
        effective & (1 << capability.bit) != 0
    }

    /// Those of [`CAPABILITIES`] that are not.
    pub fn missing(self) -> impl Iterator<Item = &'static Capability> {
        CAPABILITIES.iter().filter(move |capability| !self.has(capability))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(effective: u64) -> Vec<&'static str> {
        Capabilities { effective }.missing().map(|capability| capability.name).collect()
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(missing(0x1ff_ffff_ffff).is_empty());
        assert_eq!(
            missing(0),
            [
                "CAP_SYS_PTRACE",
                "CAP_DAC_READ_SEARCH",
                "CAP_DAC_OVERRIDE",
                "CAP_NET_BIND_SERVICE",
                "CAP_CHOWN"
            ]
        );
        assert_eq!(missing(1 << 19 | 1 << 10 | 0b11), [""; 0], "CAP_DAC_OVERRIDE is enough");
    }

    #[test]
    fn this_thread_has_some_set() {
        let found = Capabilities::of_this_thread(&Roots::default(), &mut Buffer::new()).unwrap();
        assert_eq!(CAPABILITIES.iter().filter(|c| !found.has(c)).count() == 0, found.missing().count() == 0);
    }
}

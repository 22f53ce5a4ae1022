//! Which capabilities a thread keeps. capabilities(7).

use anyhow::Context;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What those who look at instances keep of what the daemon was given. CAP_SYS_ADMIN, which the unit does not give, lets the kernel tell
/// what a mount namespace holds without its table being read (listmount(2)).
pub(super) fn of_readers() -> CapabilitySet {
    CapabilitySet::SYS_PTRACE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::SYS_ADMIN
}

/// What the thread that reads certificates keeps.
pub(super) fn of_keys() -> CapabilitySet {
    CapabilitySet::DAC_READ_SEARCH | CapabilitySet::DAC_OVERRIDE
}

/// What those that open devices keep: where `/proc` is mounted with `hidepid`, other processes are hidden from who has it not. They may open files for
/// writing, and with this capability root could so write to the memory of its other processes; from root's group nothing is hidden.
pub(super) fn of_devices() -> CapabilitySet {
    if rustix::process::geteuid().is_root() { CapabilitySet::empty() } else { CapabilitySet::SYS_PTRACE }
}

/// What all others keep: low ports, and a socket for a group that the daemon is not in. Root may have been given a state directory
/// that is another user's.
pub(super) fn of_others() -> CapabilitySet {
    let own = CapabilitySet::NET_BIND_SERVICE | CapabilitySet::CHOWN;
    if rustix::process::geteuid().is_root() { own | CapabilitySet::DAC_OVERRIDE } else { own }
}

/// Puts down, for the calling thread, all capabilities but these.
pub(super) fn keep(kept: CapabilitySet) -> anyhow::Result<()> {
    let own = rustix::thread::capabilities(None).context("capget(2)")?;
    let left = own.permitted & kept;
    rustix::thread::clear_ambient_capability_set().context("the ambient set")?;
    let sets = CapabilitySets {
        effective: own.effective & kept,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).context("capset(2)")
}

//! Virtual machines that are paused and go on.

use anyhow::Result;

use crate::Vm;
use crate::vm::Config;

/// The virtio-serial port of our agent.
const PORT: &str = "org.miharu.agent.0";

/// The second monitor is for whoever pauses the machine; the first is the daemon's.
pub(super) const MONITOR: &str = "qmp1.sock";

/// One with a guest and its agent, and one without a guest.
pub(super) fn start() -> Result<Vec<Vm>> {
    let guest = Vm::start(&Config { monitors: 2, ports: vec![PORT.into()], ..Config::default() })?;
    guest.start_agent()?;
    let empty = Vm::halted(&Config { monitors: 2, ..Config::default() })?;
    Ok(vec![guest, empty])
}

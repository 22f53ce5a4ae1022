//! Our agent over virtio vsock, which the guest has from `vhost-device-vsock`: the host's kernel needs none of its own.

use anyhow::Result;
use miharu_e2e::vm::Config;
use miharu_e2e::vsock::Vsock;
use miharu_e2e::{Miharud, Vm, need};

use crate::agent::{from, guest_cpu, nothing_fell};
use miharu_e2e::miharud::between;

#[test]
fn an_agent_answers_over_vsock() -> Result<()> {
    need!(Qemu, Vsock);
    let _alone = miharu_e2e::scratch::alone()?;
    let device = Vsock::start()?;
    let vm = Vm::start(&Config { arguments: device.arguments("192M"), ..Config::default() })?;
    let daemon = Miharud::start()?;
    vm.start_agent()?;
    let name = vm.name.as_str();
    let first = from(&daemon, name, "agent")?;
    for (column, mode) in [(0, "user"), (2, "system")] {
        let labels = [("name", name), ("cpu", "0"), ("mode", mode)];
        between(&daemon, "incus_cpu_seconds_total", &labels, || guest_cpu(&vm, 0, column))?;
    }
    // The connection that is kept ends with the agent; the next agent is found again.
    vm.kill_agent()?;
    from(&daemon, name, "host")?;
    vm.start_agent()?;
    nothing_fell(&first, &from(&daemon, name, "agent")?, name);
    Ok(())
}

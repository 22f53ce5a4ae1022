//! Agents over virtio vsock, which the guest has from `vhost-device-vsock`: the host's kernel needs none of its own.

use std::fs;

use anyhow::{Context, Result};
use miharu_e2e::tls::Certificate;
use miharu_e2e::vm::Config;
use miharu_e2e::vsock::Vsock;
use miharu_e2e::{Miharud, Vm, need, scratch, vm};

use crate::agent::{from, guest_cpu, nothing_fell};
use miharu_e2e::miharud::between;

#[test]
fn an_agent_answers_over_vsock() -> Result<()> {
    need!(Qemu, Vsock);
    let _alone = scratch::alone()?;
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

/// What LXD or Incus keeps of a machine on the host, and what it puts into the guest.
struct Kept {
    arguments: Vec<String>,
    guest: std::path::PathBuf,
}

fn as_kept_by(whose: &str, name: &str) -> Result<Kept> {
    let (state, guest) = (scratch::dir("state")?, scratch::dir("config")?);
    let (logs, kept) = (state.join("logs").join(name), state.join("virtual-machines").join(name));
    for dir in [&logs, &kept, &state.join(if whose == "lxd" { "devlxd" } else { "guestapi" })] {
        fs::create_dir_all(dir)?;
    }
    // By these it is a state directory.
    fs::write(state.join("unix.socket"), "")?;
    let (agent, client) =
        (Certificate::create_in(&guest, "agent")?, Certificate::create_in(&kept, "agent-client")?);
    fs::copy(&agent.crt, kept.join("agent.crt"))?;
    fs::copy(&client.crt, guest.join("server.crt"))?;
    fs::copy(vm::managed_agent(whose)?, guest.join("agent"))?;
    let pidfile = logs.join("qemu.pid");
    let pidfile = pidfile.to_str().context("a path that is no UTF-8")?;
    Ok(Kept { arguments: vec!["-pidfile".into(), pidfile.into()], guest })
}

#[test]
fn lxds_own_agent_is_asked_with_the_certificates_that_lxd_keeps() -> Result<()> {
    need!(Qemu, Vsock, ManagedAgents, Tls);
    let _alone = scratch::alone()?;
    asked_with_what_is_kept("lxd")
}

#[test]
fn incus_own_agent_is_asked_with_the_certificates_that_incus_keeps() -> Result<()> {
    need!(Qemu, Vsock, ManagedAgents, Tls);
    let _alone = scratch::alone()?;
    asked_with_what_is_kept("incus")
}

fn asked_with_what_is_kept(whose: &str) -> Result<()> {
    let device = Vsock::start()?;
    let name = scratch::unique("managed");
    let kept = as_kept_by(whose, &name)?;
    let arguments = [device.arguments("192M"), kept.arguments].concat();
    let vm = Vm::start(&Config {
        name: format!("qemu-{name}"),
        files: Some(kept.guest),
        arguments,
        ..Config::default()
    })?;
    let daemon = Miharud::start()?;
    vm.run("cd '/data disk' && ./agent --debug </dev/null >/agent.log 2>&1 & sleep 1")?;
    let only = [("name", name.as_str())];
    let scrape =
        from(&daemon, &name, "agent").with_context(|| vm.run("cat /agent.log").unwrap_or_default())?;
    let info = scrape.select("incus_instance_info", &only);
    assert_eq!((info[0].label("runtime"), info[0].label("project")), (whose, "default"));
    for cpu in 0..2 {
        for (column, mode) in [(0, "user"), (2, "system")] {
            let number = cpu.to_string();
            let labels = [("name", name.as_str()), ("cpu", number.as_str()), ("mode", mode)];
            between(&daemon, "incus_cpu_seconds_total", &labels, || guest_cpu(&vm, cpu, column))?;
        }
    }
    assert_eq!(scrape.value("incus_cpu_effective_total", &only)?, 2.0);
    let total = vm.key("/proc/meminfo", "MemTotal")? * 1024.0;
    assert_eq!(scrape.value("incus_memory_MemTotal_bytes", &only)?, total);
    // What this agent gets wrong is left out.
    for family in
        ["memory_Swap_bytes", "memory_RSS_bytes", "memory_OOM_kills_total", "network_receive_errs_total"]
    {
        assert!(scrape.select(&format!("incus_{family}"), &only).is_empty(), "{family}");
    }
    assert!(
        !scrape.select("incus_network_receive_bytes_total", &[("name", &name), ("device", "lo")]).is_empty()
    );
    nothing_fell(&scrape, &daemon.scrape()?, &name);
    // Our own is the better one where both answer.
    vm.start_agent()?;
    let both = daemon.scrape_until("our agent's figures", std::time::Duration::from_secs(60), |scrape| {
        !scrape.select("incus_memory_RSS_bytes", &only).is_empty()
    })?;
    assert_eq!(both.select("incus_instance_info", &only)[0].label("source"), "agent");
    Ok(())
}

//! The harness against the runtimes alone, without miharu: when these fail, the machine is at fault.

use std::path::Path;

use anyhow::Result;
use miharu_e2e::netns::Netns;
use miharu_e2e::nspawn::Nspawn;
use miharu_e2e::{Lxc, need};

#[test]
fn an_lxc_container_boots_runs_a_command_and_is_gone_after_drop() -> Result<()> {
    need!(Lxc);
    let lxc = Lxc::start(&[])?;
    assert_eq!(lxc.exec("cat /proc/1/comm")?.trim(), "init");
    assert!(lxc.cgroups()?.dir("memory")?.ends_with(format!("lxc.payload.{}", lxc.name)));
    let proc = format!("/proc/{}", lxc.pid);
    drop(lxc);
    assert!(!Path::new(&proc).exists());
    Ok(())
}

#[test]
fn an_lxc_container_gets_a_veth_whose_other_end_is_in_a_namespace() -> Result<()> {
    need!(Lxc);
    let netns = Netns::create()?;
    let lxc = Lxc::start(&[])?;
    lxc.connect(&netns, "eth0", "10.77.0.2", "10.77.0.1")?;
    assert!(lxc.exec("ip addr show eth0")?.contains("10.77.0.2"));
    assert!(netns.ip(&["link", "show", "outer"])?.contains("outer"));
    Ok(())
}

#[test]
fn an_nspawn_machine_boots_runs_a_command_and_is_gone_after_drop() -> Result<()> {
    need!(Nspawn);
    let machine = Nspawn::start()?;
    assert_eq!(machine.exec("hostname")?.trim(), machine.name);
    let proc = format!("/proc/{}", machine.pid);
    drop(machine);
    assert!(!Path::new(&proc).exists());
    Ok(())
}

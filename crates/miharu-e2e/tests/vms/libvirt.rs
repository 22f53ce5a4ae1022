//! A domain of a real libvirtd: its name and project, qemu-guest-agent through libvirt, which holds its channel, and our agent.

use std::time::Duration;

use anyhow::Result;
use miharu_e2e::libvirt::Libvirt;
use miharu_e2e::{Miharud, need};

use crate::agent::{MODES, from, sources};
use crate::{agent, qga};

#[test]
fn a_domain_of_libvirt_is_served_and_libvirt_keeps_what_is_its_own() -> Result<()> {
    // Another test's libvirtd would be in the way, and is waited for.
    let _alone = miharu_e2e::scratch::alone()?;
    need!(Qemu, Libvirt, GuestAgent);
    let mut libvirt = Libvirt::start()?;
    let mut domain = libvirt.boot("mhdom", &[agent::PORT, qga::PORT])?;
    let name = domain.name.clone();
    let daemon = Miharud::start()?;
    domain.run(qga::START)?;
    let only = [("name", name.as_str())];
    from(&daemon, &name, "qga")?;
    // On a busy machine its first answers may lack what took too long.
    let of_guest = [("name", name.as_str()), ("mode", "user")];
    let scrape = daemon.scrape_until("the guest's CPU time", Duration::from_secs(60), |scrape| {
        !scrape.select("incus_cpu_seconds_total", &of_guest).is_empty()
    })?;
    let info = scrape.select("incus_instance_info", &only);
    assert_eq!((info[0].label("runtime"), info[0].label("project")), ("libvirt", "libvirt"));
    let uuid = libvirt.virsh(&["domuuid", &name])?;
    assert_eq!(info[0].label("id"), uuid.trim());
    let modes: Vec<_> = scrape
        .select("incus_cpu_seconds_total", &only)
        .iter()
        .map(|sample| sample.label("mode").to_owned())
        .collect();
    assert!(MODES.iter().all(|mode| modes.iter().any(|found| found == mode)), "{modes:?}");
    let of = |what: &str| sources(&daemon, &name, what);
    assert!(
        of("CPU time")?.contains("qemu-guest-agent, guest-get-cpustats through libvirt"),
        "{}",
        of("CPU time")?
    );
    // libvirt's own way to the agent and to the monitor stays open.
    let answer = libvirt.virsh(&["qemu-agent-command", &name, "{\"execute\":\"guest-ping\"}"])?;
    assert!(answer.contains("return"), "{answer}");
    assert!(libvirt.virsh(&["dommemstat", &name])?.contains("actual"));
    // Ours is the better one.
    domain.run("miharu-agent </dev/null >/agent.log 2>&1 &")?;
    let scrape = from(&daemon, &name, "agent")?;
    assert_eq!(scrape.value("incus_cpu_effective_total", &only)?, 2.0);
    assert!(scrape.value("incus_hypervisor_memory_RSS_bytes", &only)? > 1e6);
    assert!(of("CPU time")?.contains("miharu's guest agent over /"), "{}", of("CPU time")?);
    libvirt.virsh(&["destroy", &name])?;
    assert!(!daemon.scrape()?.instances().contains(&name));
    Ok(())
}

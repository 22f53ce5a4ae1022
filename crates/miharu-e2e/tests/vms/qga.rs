//! qemu-guest-agent and the balloon in a real guest, for machines without an agent of ours.

use anyhow::Result;
use miharu_e2e::vm::{Config, DISK};
use miharu_e2e::{Miharud, Vm, need};

use crate::agent::{MODES, from, guest_cpu, guest_disk, guest_network, nothing_fell, sources};
use miharu_e2e::miharud::between;

/// The port's name.
pub(crate) const PORT: &str = "org.qemu.guest_agent.0";

/// Starts qemu-guest-agent in a guest.
pub(crate) const START: &str = "port=$(grep -l guest_agent /sys/class/virtio-ports/*/name); \
    port=/dev/$(basename $(dirname $port)); qemu-ga -m virtio-serial -p $port -t /run >/qga.log 2>&1 & echo $! >/qga.pid";

#[test]
fn qemu_guest_agent_and_balloon_tell_the_guests_figures() -> Result<()> {
    need!(Qemu, GuestAgent);
    let _alone = miharu_e2e::scratch::alone()?;
    let vm = Vm::start(&Config { ports: vec![PORT.into()], balloon: Some(1), ..Config::default() })?;
    let daemon = Miharud::start()?;
    vm.run(START)?;
    let name = vm.name.as_str();
    let only = [("name", name)];
    let first = from(&daemon, name, "qga")?;
    for cpu in 0..2 {
        for (column, mode) in MODES.iter().enumerate() {
            let number = cpu.to_string();
            let labels = [("name", name), ("cpu", number.as_str()), ("mode", *mode)];
            between(&daemon, "incus_cpu_seconds_total", &labels, || guest_cpu(&vm, cpu, column))?;
        }
    }
    assert_eq!(first.value("incus_cpu_effective_total", &only)?, 2.0);
    let disk = [("name", name), ("device", "vda")];
    between(&daemon, "incus_disk_read_bytes_total", &disk, || Ok(guest_disk(&vm, 2)? * 512.0))?;
    between(&daemon, "incus_disk_writes_completed_total", &disk, || guest_disk(&vm, 4))?;
    let eth0 = [("name", name), ("device", "eth0")];
    between(&daemon, "incus_network_transmit_bytes_total", &eth0, || guest_network(&vm, "eth0", 8))?;
    let df = vm.run(&format!("df -k '{DISK}' | tail -n 1"))?;
    let df: Vec<f64> = df.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let scrape = daemon.scrape()?;
    // QGA's total is what users can have, so that what is left of it is what df shows as available.
    let avail = scrape.value("incus_filesystem_avail_bytes", &[("name", name), ("mountpoint", DISK)])?;
    assert!((avail - df[2] * 1024.0).abs() < 65536.0, "{avail} {df:?}");
    let total = vm.key("/proc/meminfo", "MemTotal")? * 1024.0;
    let told =
        daemon.scrape_until("the balloon's figures", std::time::Duration::from_secs(20), |scrape| {
            scrape.value("incus_memory_MemTotal_bytes", &only).is_ok_and(|told| told == total)
        })?;
    let free = vm.key("/proc/meminfo", "MemFree")? * 1024.0;
    assert!((told.value("incus_memory_MemFree_bytes", &only)? - free).abs() < 12e6);
    assert!(told.value("incus_memory_Cached_bytes", &only)? > 0.0, "the root itself is in the guest's cache");
    vm.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")?;
    nothing_fell(&first, &daemon.scrape()?, name);
    let of = |what: &str| sources(&daemon, name, what);
    assert!(of("CPU time")?.contains("qemu-guest-agent, guest-get-cpustats over /"), "{}", of("CPU time")?);
    assert!(of("File systems")?.contains("guest-get-fsinfo"), "{}", of("File systems")?);
    assert!(of("Memory")?.contains("QMP qom-get guest-stats of the balloon over /"), "{}", of("Memory")?);
    assert!(of("Tasks")?.contains(&format!("/proc/{}/stat", vm.pid())), "{}", of("Tasks")?);
    // Without it the host's figures are served, under other modes.
    vm.run("kill -9 $(cat /qga.pid)")?;
    let without = from(&daemon, name, "host")?;
    let modes = without.select("incus_cpu_seconds_total", &only);
    assert!(modes.iter().all(|sample| sample.label("mode").starts_with("vcpu_")), "{modes:?}");
    Ok(())
}

//! Machines without anything in their guests: what the host tells of them, against `/proc`, QMP and the taps themselves.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::netns::Netns;
use miharu_e2e::vm::{self, Config, DISK, Monitor};
use miharu_e2e::{Lxc, Miharud, Vm, need, scratch};

use crate::agent::{from, sources};
use miharu_e2e::miharud::between;

/// User and system time of QEMU's thread for a processor, in seconds.
fn thread(vm: &Vm, cpu: usize, field: usize) -> Result<f64> {
    let wanted = format!("CPU {cpu}/TCG");
    for task in fs::read_dir(format!("/proc/{}/task", vm.pid()))?.flatten() {
        let comm = fs::read_to_string(task.path().join("comm"))?;
        if comm.trim() == wanted {
            let stat = fs::read_to_string(task.path().join("stat"))?;
            let (_, fields) = stat.rsplit_once(')').context("stat")?;
            return Ok(fields.split_whitespace().nth(field).context("fields")?.parse::<f64>()? / 100.0);
        }
    }
    anyhow::bail!("no thread {wanted}")
}

fn status(vm: &Vm, key: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{}/status", vm.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).context("status")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

fn tap_counter(netns: &Netns, tap: &str, what: &str) -> Result<f64> {
    let text = netns.ip(&["-s", "-j", "link", "show", tap])?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let (way, what) = what.split_once('.').context("a way and a counter")?;
    links[0]["stats64"][way][what].as_f64().with_context(|| text.clone())
}

#[test]
fn the_host_tells_of_a_silent_machine_what_it_knows() -> Result<()> {
    need!(Qemu, Containers);
    let _alone = scratch::alone()?;
    let netns = Netns::create()?;
    let tap = vm::tap(&netns, "mhtap0")?;
    let vm = Vm::start(&Config { monitors: 2, tap: Some(tap), ..Config::default() })?;
    // Another program holds the first monitor for good.
    let mut holder = Monitor::open(&vm.dir.join("qmp0.sock"))?;
    let daemon = Miharud::start()?;
    let name = vm.name.as_str();
    let only = [("name", name)];
    vm.run(&format!("dd if=/dev/zero of='{DISK}/x' bs=64k count=16 conv=fsync 2>/dev/null; ping -q -c 3 -s 500 192.0.2.1 >/dev/null"))?;
    let scrape = daemon.scrape_until("the monitor's figures", Duration::from_secs(30), |scrape| {
        !scrape.select("incus_disk_written_bytes_total", &only).is_empty()
    })?;
    let info = scrape.select("incus_instance_info", &only);
    assert_eq!((info[0].label("source"), info[0].label("runtime")), ("host", "qemu"));
    assert_eq!(scrape.value("incus_cpu_effective_total", &only)?, 2.0);
    assert_eq!(scrape.value("incus_memory_MemTotal_bytes", &only)?, 192.0 * 1024.0 * 1024.0);
    assert_eq!(scrape.value("incus_memory_Cached_bytes", &only)?, 0.0);
    assert!(scrape.select("incus_filesystem_size_bytes", &only).is_empty());
    assert_eq!(scrape.select("incus_cpu_seconds_total", &only).len(), 4, "two modes of two processors");
    for cpu in 0..2 {
        for (mode, field) in [("vcpu_user", 11), ("vcpu_system", 12)] {
            let number = cpu.to_string();
            let labels = [("name", name), ("cpu", number.as_str()), ("mode", mode)];
            between(&daemon, "incus_cpu_seconds_total", &labels, || thread(&vm, cpu, field))?;
        }
    }
    between(&daemon, "incus_procs_total", &only, || status(&vm, "Threads"))?;
    between(&daemon, "incus_hypervisor_memory_RSS_bytes", &only, || Ok(status(&vm, "VmRSS")? * 1024.0))?;
    let used = daemon.scrape()?;
    let free = used.value("incus_memory_MemFree_bytes", &only)?;
    let resident = used.value("incus_hypervisor_memory_RSS_bytes", &only)?;
    assert_eq!(free, (192.0 * 1024.0 * 1024.0 - resident).max(0.0));
    // The disk, through the other monitor, while the first one's holder goes on undisturbed.
    for (family, key) in [
        ("incus_disk_written_bytes_total", "wr_bytes"),
        ("incus_disk_writes_completed_total", "wr_operations"),
        ("incus_disk_read_bytes_total", "rd_bytes"),
        ("incus_disk_reads_completed_total", "rd_operations"),
    ] {
        let told = daemon.scrape()?.value(family, &[("name", name), ("device", "disk0")])?;
        let statistics = holder.ask("query-blockstats")?;
        assert_eq!(Some(told), statistics[0]["stats"][key].as_f64(), "{statistics}");
    }
    // The tap's own side is the other one: what it receives the guest has sent.
    let guests = [("name", name), ("device", "mhtap0")];
    for (family, counter) in [
        ("incus_network_transmit_bytes_total", "rx.bytes"),
        ("incus_network_transmit_packets_total", "rx.packets"),
        ("incus_network_receive_bytes_total", "tx.bytes"),
        ("incus_network_receive_packets_total", "tx.packets"),
    ] {
        between(&daemon, family, &guests, || tap_counter(&netns, "mhtap0", counter))?;
    }
    assert!(daemon.scrape()?.value("incus_network_transmit_bytes_total", &guests)? > 3.0 * 500.0);
    let of = |what: &str| sources(&daemon, name, what);
    assert!(
        of("Disks")?.contains("QMP query-blockstats over /") && of("Disks")?.contains("/qmp1.sock"),
        "{}",
        of("Disks")?
    );
    assert!(of("CPU time")?.contains(&format!("/proc/{}/task/THREAD/stat", vm.pid())), "{}", of("CPU time")?);
    assert!(of("Hypervisor")?.contains(&format!("/proc/{}/status", vm.pid())), "{}", of("Hypervisor")?);
    assert!(of("Network")?.contains("mhtap0"), "{}", of("Network")?);
    assert!(of("File systems")?.contains("only the guest knows"), "{}", of("File systems")?);
    let boot = scrape.value("incus_boot_time_seconds", &only)?;
    let now = scrape.value("incus_time_seconds", &only)?;
    assert!((now - 600.0..now).contains(&boot), "{boot} {now}");
    Ok(())
}

#[test]
fn machines_come_and_go_beside_containers_and_a_held_monitor_costs_only_its_own_figures() -> Result<()> {
    need!(Qemu, Lxc);
    let _alone = scratch::alone()?;
    let daemon = Miharud::start()?;
    let containers = [Lxc::start(&[])?, Lxc::start(&[])?];
    daemon.scrape()?;
    let two = [Vm::halted(&Config::default())?, Vm::halted(&Config::default())?];
    let mut holder = Monitor::open(&two[0].dir.join("qmp0.sock"))?;
    let started = Instant::now();
    let scrape = from(&daemon, &two[1].name, "host")?;
    assert!(started.elapsed() < Duration::from_secs(20));
    for name in two.iter().map(|vm| &vm.name).chain(containers.iter().map(|lxc| &lxc.name)) {
        let only = [("name", name.as_str())];
        assert_eq!(scrape.value("incus_instance_scrape_success", &only)?, 1.0, "{name}");
        for family in ["procs_total", "memory_MemTotal_bytes", "memory_MemFree_bytes", "memory_Cached_bytes"]
        {
            scrape.value(&format!("incus_{family}"), &only)?;
        }
        assert!(scrape.sum("incus_cpu_seconds_total", &only)? >= 0.0);
    }
    assert!(
        scrape.value("incus_instances_running", &[("project", "qemu"), ("type", "virtual-machine")])? >= 2.0
    );
    assert_eq!(holder.ask("query-status")?["status"], "prelaunch", "the holder was not thrown out");
    let listed = daemon.miharu(&["list"])?;
    assert!(listed.contains(&two[1].name), "{listed}");
    let [held, other] = two;
    let (gone, stays) = (other.name.clone(), held.name.clone());
    drop(other);
    let scrape = daemon.scrape()?;
    assert!(!scrape.instances().contains(&gone) && scrape.instances().contains(&stays));
    assert!(Path::new(&scratch::run_dir()?).exists());
    Ok(())
}

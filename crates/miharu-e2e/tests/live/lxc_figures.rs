//! Each family of an LXC container against a reading that owes nothing to miharu: the cgroup's file, `/proc` as the container
//! sees it, bytes really written, packets really sent, memory really held.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use miharu_e2e::cgroup::{self, Cgroups};
use miharu_e2e::lxc::{block_device, disk_accounting};
use miharu_e2e::netns::Netns;
use miharu_e2e::{Exposition, Lxc, Miharud, need, scratch, shell};

/// Keeps a CPU busy for some moments.
const BURN: &str = "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done";

pub(crate) use miharu_e2e::miharud::between;

fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn name_project_and_type_are_the_containers() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let scrape = daemon.scrape()?;
    let project = format!("lxc:{}", lxc.path.display());
    let labels = [("name", lxc.name.as_str()), ("project", project.as_str()), ("type", "container")];
    let mine: Vec<_> = scrape.samples().filter(|sample| sample.label("name") == lxc.name).collect();
    assert!(mine.len() > 30, "only {} series", mine.len());
    for sample in mine {
        for (label, value) in labels {
            assert_eq!(sample.label(label), value, "{}", sample.name);
        }
    }
    let info = scrape.select("incus_instance_info", &labels);
    assert_eq!(info.len(), 1);
    assert_eq!(info[0].label("runtime"), "lxc");
    assert_eq!(info[0].label("source"), if cgroup::is_v2() { "cgroup2" } else { "cgroup1" });
    assert_eq!(scrape.value("incus_instance_scrape_success", &labels)?, 1.0);
    assert!(
        scrape.value("incus_instance_scrape_duration_seconds", &labels)?
            < 2.0 * shell::patient(Duration::from_secs(1)).as_secs_f64()
    );
    assert_eq!(
        scrape.value("incus_instances_running", &[("project", &project), ("type", "container")])?,
        1.0
    );
    Ok(())
}

#[test]
fn boot_time_and_time_are_those_of_the_clock() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let before = seconds_now();
    let lxc = Lxc::start(&[])?;
    let after = seconds_now();
    let scrape = daemon.scrape()?;
    let labels = [("name", lxc.name.as_str())];
    let boot = scrape.value("incus_boot_time_seconds", &labels)?;
    // The kernel counts a process' start in ticks and the boot of the machine in whole seconds.
    assert!((before - 1.5..=after + 1.5).contains(&boot), "{before} {boot} {after}");
    let time = scrape.value("incus_time_seconds", &labels)?;
    assert!((after - 1.0..=seconds_now() + 1.0).contains(&time), "{after} {time}");
    Ok(())
}

#[test]
fn cpu_time_is_what_the_kernel_charged() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let name = ("name", lxc.name.as_str());
    let used = daemon.scrape()?.sum("incus_cpu_seconds_total", &[name])?;
    lxc.exec(BURN)?;
    for (column, mode) in [(1, "user"), (2, "system")] {
        let read = || -> Result<f64> {
            let cgroups = lxc.cgroups()?;
            if cgroup::is_v2() {
                let key = format!("{mode}_usec");
                return Ok(cgroups.key("cpu", ("", ""), ("cpu.stat", &key))? / 1e6);
            }
            let text = cgroups.read("cpuacct", "cpuacct.usage_all", "")?;
            let nanoseconds: f64 = text
                .lines()
                .skip(1)
                .filter_map(|line| line.split(' ').nth(column)?.parse::<f64>().ok())
                .sum();
            Ok(nanoseconds / 1e9)
        };
        between(&daemon, "incus_cpu_seconds_total", &[name, ("mode", mode)], read)?;
    }
    let scrape = daemon.scrape()?;
    let burnt = scrape.sum("incus_cpu_seconds_total", &[name])? - used;
    assert!(burnt > 0.02, "a loop cost only {burnt} s");
    let cpus: BTreeSet<_> =
        scrape.select("incus_cpu_seconds_total", &[name]).iter().map(|s| s.label("cpu").to_owned()).collect();
    if cgroup::is_v2() {
        assert_eq!(cpus, BTreeSet::from(["0".to_owned()]));
    } else {
        let possible = lxc.cgroups()?.read("cpuacct", "cpuacct.usage_all", "")?.lines().count() - 1;
        assert_eq!(cpus.len(), possible);
    }
    Ok(())
}

#[test]
fn a_cpuset_and_a_quota_are_seen_and_throttling_is_counted() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let lxc = if cgroup::is_v2() {
        Lxc::start(&["lxc.cgroup2.cpuset.cpus = 0", "lxc.cgroup2.cpu.max = 20000 100000"])?
    } else {
        Lxc::start(&["lxc.cgroup.cpuset.cpus = 0", "lxc.cgroup.cpu.cfs_quota_us = 20000"])?
    };
    let free = Lxc::start(&[])?;
    lxc.exec(BURN)?;
    let name = [("name", lxc.name.as_str())];
    let scrape = daemon.scrape()?;
    assert_eq!(scrape.value("incus_cpu_effective_total", &name)?, 1.0);
    assert_eq!(scrape.value("incus_cpu_limit_cores", &name)?, 0.2);
    let of_free = [("name", free.name.as_str())];
    assert!(scrape.select("incus_cpu_limit_cores", &of_free).is_empty(), "no limit is no sample");
    let online: f64 = shell::run("nproc", ["--all"])?.trim().parse()?;
    assert_eq!(scrape.value("incus_cpu_effective_total", &of_free)?, online);
    let stat = |key: &'static str| {
        let lxc = &lxc;
        move || lxc.cgroups()?.key("cpu", ("cpu.stat", key), ("cpu.stat", key))
    };
    let family = "incus_cpu_cfs_periods_total";
    assert!(between(&daemon, family, &name, stat("nr_periods"))? > 0.0);
    // A busy machine may not give it as much as it may not have, at first.
    shell::wait_for("throttling", Duration::from_secs(120), || match stat("nr_throttled")() {
        Ok(count) if count > 0.0 => Some(Ok(())),
        Ok(_) => lxc.exec(BURN).err().map(Err),
        Err(error) => Some(Err(error)),
    })??;
    let family = "incus_cpu_cfs_throttled_periods_total";
    assert!(between(&daemon, family, &name, stat("nr_throttled"))? > 0.0);
    let throttled = || {
        let cgroups = lxc.cgroups()?;
        let v2 = cgroup::is_v2();
        let value = cgroups.key("cpu", ("cpu.stat", "throttled_time"), ("cpu.stat", "throttled_usec"))?;
        Ok(value / if v2 { 1e6 } else { 1e9 })
    };
    assert!(between(&daemon, "incus_cpu_throttled_seconds_total", &name, throttled)? > 0.0);
    Ok(())
}

#[test]
fn bytes_written_and_read_are_counted_on_their_disk() -> Result<()> {
    need!(Lxc);
    let dir = scratch::run_dir()?;
    let (device, number) = block_device(dir).context("the scratch folder is on no block device")?;
    let line = disk_accounting(dir).context("no block device")?;
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[&line])?);
    let labels = [("name", lxc.name.as_str()), ("device", device.as_str())];
    let before = daemon.scrape()?.sum("incus_disk_written_bytes_total", &labels).unwrap_or(0.0);
    const BYTES: f64 = 8.0 * 1024.0 * 1024.0;
    lxc.exec("dd if=/dev/zero of=/var/data bs=64k count=128 conv=fsync 2>/dev/null")?;
    lxc.exec("dd if=/var/data of=/dev/null bs=64k iflag=direct 2>/dev/null")?;
    for (what, v1, v2, floor) in [
        ("written_bytes", "Write", "wbytes", BYTES),
        ("read_bytes", "Read", "rbytes", BYTES),
        ("writes_completed", "Write", "wios", 1.0),
        ("reads_completed", "Read", "rios", 128.0),
    ] {
        let family = format!("incus_disk_{what}_total");
        let read = || {
            let file = if what.ends_with("bytes") { "io_service_bytes" } else { "io_serviced" };
            let text =
                lxc.cgroups()?.read("blkio", &format!("blkio.throttle.{file}_recursive"), "io.stat")?;
            let value = if cgroup::is_v2() {
                let line =
                    text.lines().find_map(|line| line.strip_prefix(number.as_str())).context(text.clone())?;
                line.split(' ').find_map(|pair| pair.strip_prefix(v2)?.strip_prefix('=')).map(str::to_owned)
            } else {
                let wanted = format!("{number} {v1} ");
                text.lines().find_map(|line| line.strip_prefix(wanted.as_str())).map(str::to_owned)
            };
            Ok(value.context(text.clone())?.parse()?)
        };
        let figure = between(&daemon, &family, &labels, read)?;
        assert!(figure >= floor, "{family}: {figure}");
    }
    let written = daemon.scrape()?.sum("incus_disk_written_bytes_total", &labels)? - before;
    // The file system's journal and metadata come on top of the data.
    assert!((BYTES..1.5 * BYTES).contains(&written), "{written} bytes for {BYTES}");
    Ok(())
}

#[test]
fn packets_sent_between_two_namespaces_are_counted_by_the_containers_names() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc, netns) = (Miharud::start()?, Lxc::start(&[])?, Netns::create()?);
    lxc.connect(&netns, "eth0", "10.77.1.2", "10.77.1.1")?;
    let labels = [("name", lxc.name.as_str()), ("device", "eth0")];
    let counted =
        |scrape: &Exposition, what: &str| scrape.value(&format!("incus_network_{what}_total"), &labels);
    let before = daemon.scrape()?;
    shell::output(netns.command("busybox").args([
        "ping",
        "-q",
        "-c",
        "10",
        "-i",
        "0.05",
        "-s",
        "1000",
        "10.77.1.2",
    ]))?;
    let after = daemon.scrape()?;
    for way in ["receive", "transmit"] {
        let packets =
            counted(&after, &format!("{way}_packets"))? - counted(&before, &format!("{way}_packets"))?;
        let bytes = counted(&after, &format!("{way}_bytes"))? - counted(&before, &format!("{way}_bytes"))?;
        // Each echo is 1000 bytes and the headers of ICMP, IP and Ethernet; ARP and IPv6's own chatter come on top.
        assert!((10.0..30.0).contains(&packets), "{way}: {packets} packets");
        assert!((10_420.0..13_000.0).contains(&bytes), "{way}: {bytes} bytes");
    }
    let columns = ["receive_bytes", "receive_packets", "receive_errs", "receive_drop"];
    let columns = columns
        .iter()
        .zip(0..4)
        .chain(["transmit_bytes", "transmit_packets", "transmit_errs", "transmit_drop"].iter().zip(8..12));
    for device in ["lo", "eth0"] {
        for (what, column) in columns.clone() {
            between(
                &daemon,
                &format!("incus_network_{what}_total"),
                &[("name", &lxc.name), ("device", device)],
                || {
                    let text = lxc.exec("cat /proc/net/dev")?;
                    let line =
                        text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
                    let value =
                        line.and_then(|line| line.split_whitespace().nth(column)).context(text.clone())?;
                    Ok(value.parse()?)
                },
            )?;
        }
    }
    let devices = after.select("incus_network_receive_bytes_total", &[("name", &lxc.name)]);
    assert_eq!(devices.len(), 2, "its own lo and eth0, and nothing of the host");
    Ok(())
}

#[test]
fn a_container_in_the_hosts_network_has_no_network_series() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&["lxc.net.0.type = none"])?);
    let scrape = daemon.scrape()?;
    let name = [("name", lxc.name.as_str())];
    assert!(scrape.value("incus_procs_total", &name)? > 0.0);
    assert!(scrape.select("incus_network_receive_bytes_total", &name).is_empty());
    Ok(())
}

#[test]
fn tasks_are_those_of_the_cgroup() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let name = [("name", lxc.name.as_str())];
    let before = daemon.scrape()?.value("incus_procs_total", &name)?;
    lxc.exec("for i in 1 2 3 4 5; do sleep 1000 </dev/null >/dev/null 2>&1 & done")?;
    let after = between(&daemon, "incus_procs_total", &name, || {
        lxc.cgroups()?.number("pids", "pids.current", "pids.current")
    })?;
    assert_eq!(after - before, 5.0);
    Ok(())
}

#[test]
fn pressure_is_that_of_the_cgroup() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let dir = pressure_dir(&lxc.cgroups()?, lxc.pid)?;
    if !dir.join("cpu.pressure").exists() {
        assert!(
            daemon
                .scrape()?
                .select("incus_pressure_cpu_waiting_seconds_total", &[("name", &lxc.name)])
                .is_empty()
        );
        return Ok(());
    }
    lxc.exec(&format!("({BURN}) & ({BURN}) & ({BURN}); wait"))?;
    for (resource, kind, line) in [
        ("cpu", "waiting", "some"),
        ("memory", "waiting", "some"),
        ("memory", "stalled", "full"),
        ("io", "waiting", "some"),
        ("io", "stalled", "full"),
    ] {
        let family = format!("incus_pressure_{resource}_{kind}_seconds_total");
        between(&daemon, &family, &[("name", &lxc.name)], || {
            let text = fs::read_to_string(dir.join(format!("{resource}.pressure")))?;
            let total = text.lines().find_map(|text| text.strip_prefix(line)?.split("total=").nth(1));
            Ok(total.context(text.clone())?.trim().parse::<f64>()? / 1e6)
        })?;
    }
    Ok(())
}

/// The cgroup's folder in the unified hierarchy, which on a hybrid host lies beside those of the controllers.
fn pressure_dir(cgroups: &Cgroups, pid: u32) -> Result<std::path::PathBuf> {
    if cgroup::is_v2() {
        return cgroups.dir("cpu");
    }
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Ok(Path::new("/sys/fs/cgroup/unified").join(path))
}

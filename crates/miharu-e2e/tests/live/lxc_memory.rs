//! The memory of an LXC container: what its cgroup says, what it really holds, and the limits above it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::cgroup;
use miharu_e2e::{Lxc, Miharud, need, scratch, shell};

use crate::lxc_figures::between;

fn host_memory(key: &str) -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).context("meminfo")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// A memory limit as LXC's configuration takes it on this machine's version.
fn memory_limit(bytes: u64) -> String {
    if cgroup::is_v2() {
        format!("lxc.cgroup2.memory.max = {bytes}")
    } else {
        format!("lxc.cgroup.memory.limit_in_bytes = {bytes}")
    }
}

#[test]
fn memory_is_what_the_cgroup_says() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    lxc.exec("mount -t tmpfs none /mnt; dd if=/dev/zero of=/mnt/held bs=64k count=256 2>/dev/null")?;
    lxc.exec("dd if=/dev/zero of=/var/data bs=64k count=64 2>/dev/null; sync; cat /var/data >/dev/null")?;
    // tail keeps the last 16 MB of its input until that ends, which it never does.
    lxc.exec("(head -c 16000000 /dev/zero; sleep 1000) </dev/null 2>/dev/null | tail -c 16000000 >/dev/null 2>&1 &")?;
    let name = [("name", lxc.name.as_str())];
    let read = |v1: &'static str, v2: &'static str| {
        let lxc = &lxc;
        move || lxc.cgroups()?.key("memory", ("memory.stat", v1), ("memory.stat", v2))
    };
    // The hog needs a moment to read its input.
    shell::wait_for("the held memory", Duration::from_secs(10), || {
        (read("total_rss", "anon")().ok()? > 15e6).then_some(())
    })?;
    for (family, v1, v2) in [
        ("Active_anon", "total_active_anon", "active_anon"),
        ("Active_file", "total_active_file", "active_file"),
        ("Inactive_anon", "total_inactive_anon", "inactive_anon"),
        ("Inactive_file", "total_inactive_file", "inactive_file"),
        ("Unevictable", "total_unevictable", "unevictable"),
        ("Cached", "total_cache", "file"),
        ("Dirty", "total_dirty", "file_dirty"),
        ("Writeback", "total_writeback", "file_writeback"),
        ("Mapped", "total_mapped_file", "file_mapped"),
        ("Shmem", "total_shmem", "shmem"),
        ("RSS", "total_rss", "anon"),
    ] {
        between(&daemon, &format!("incus_memory_{family}_bytes"), &name, read(v1, v2)).context(family)?;
    }
    let scrape = daemon.scrape()?;
    let of = |family: &str| scrape.value(&format!("incus_memory_{family}_bytes"), &name);
    assert!(of("Shmem")? >= 16.0 * 1024.0 * 1024.0, "16 MiB lie in a tmpfs: {}", of("Shmem")?);
    assert!(of("RSS")? >= 16e6, "tail holds 16 MB: {}", of("RSS")?);
    assert_eq!(of("Active")?, of("Active_anon")? + of("Active_file")?);
    assert_eq!(of("Inactive")?, of("Inactive_anon")? + of("Inactive_file")?);
    assert_eq!(of("MemTotal")?, host_memory("MemTotal")?);
    assert_eq!(of("MemFree")?, of("MemTotal")? - of("usage")?);
    let inactive_file = of("Inactive_file")?;
    assert_eq!(of("working_set")?, (of("usage")? - inactive_file).max(0.0));
    assert!(of("MemAvailable")? <= host_memory("MemTotal")? && of("MemAvailable")? > 0.0);
    assert!(of("peak")? >= of("usage")?);
    let usage = || lxc.cgroups()?.number("memory", "memory.usage_in_bytes", "memory.current");
    between(&daemon, "incus_memory_usage_bytes", &name, usage)?;
    let peak = || lxc.cgroups()?.number("memory", "memory.max_usage_in_bytes", "memory.peak");
    if peak().is_ok() {
        between(&daemon, "incus_memory_peak_bytes", &name, peak)?;
    }
    between(&daemon, "incus_memory_major_faults_total", &name, read("total_pgmajfault", "pgmajfault"))?;
    if cgroup::is_v2() {
        between(&daemon, "incus_memory_SReclaimable_bytes", &name, read("", "slab_reclaimable"))?;
    } else {
        assert!(scrape.select("incus_memory_SReclaimable_bytes", &name).is_empty(), "v1 does not tell slab");
    }
    // The dashboards join these three.
    for family in ["MemFree", "Cached"] {
        let labels = |family: &str| -> Vec<_> {
            let samples = scrape.select(&format!("incus_memory_{family}_bytes"), &name);
            samples.iter().map(|sample| sample.labels.clone()).collect()
        };
        assert_eq!(labels("MemTotal"), labels(family));
    }
    Ok(())
}

#[test]
fn a_memory_limit_is_the_total_and_a_kill_is_counted() -> Result<()> {
    need!(Lxc);
    const LIMIT: u64 = 48 << 20;
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[&memory_limit(LIMIT)])?);
    let name = [("name", lxc.name.as_str())];
    let scrape = daemon.scrape()?;
    assert_eq!(scrape.value("incus_memory_MemTotal_bytes", &name)?, LIMIT as f64);
    assert!(scrape.value("incus_memory_MemAvailable_bytes", &name)? <= LIMIT as f64);
    assert_eq!(scrape.value("incus_memory_OOM_kills_total", &name)?, 0.0);
    // It wants twice what it may have; the shell that started it lives on.
    let _ = lxc.exec("head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null; true");
    let kills = between(&daemon, "incus_memory_OOM_kills_total", &name, || {
        lxc.cgroups()?.key("memory", ("memory.oom_control", "oom_kill"), ("memory.events", "oom_kill"))
    })?;
    assert!(kills >= 1.0);
    Ok(())
}

#[test]
fn huge_pages_are_the_smaller_of_the_limit_and_the_hosts_pool() -> Result<()> {
    need!(Lxc);
    const LIMIT: f64 = (4 << 20) as f64;
    let daemon = Miharud::start()?;
    let free = Lxc::start(&[])?;
    let families = ["incus_memory_HugepagesTotal_bytes", "incus_memory_HugepagesFree_bytes"];
    for family in families {
        assert!(daemon.scrape()?.select(family, &[("name", &free.name)]).is_empty(), "no limit is no sample");
    }
    let has_limit = free.cgroups()?.read("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max").is_ok();
    if !has_limit {
        return Ok(());
    }
    let version =
        if cgroup::is_v2() { "lxc.cgroup2.hugetlb.2MB.max" } else { "lxc.cgroup.hugetlb.2MB.limit_in_bytes" };
    let lxc = Lxc::start(&[&format!("{version} = {LIMIT}")])?;
    // The guest has three pages, which is more than the limit; a machine without any shows 0.
    let pages: f64 =
        fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")?.trim().parse()?;
    for family in families {
        let figure = daemon.scrape()?.value(family, &[("name", &lxc.name)])?;
        assert_eq!(figure, LIMIT.min(pages * 2097152.0), "{family}");
    }
    Ok(())
}

#[test]
fn the_limit_of_an_ancestor_counts() -> Result<()> {
    need!(Lxc);
    const LIMIT: u64 = 96 << 20;
    let parent = scratch::unique("mhlimit");
    let _note = scratch::Entry::Cgroup(&parent).note()?;
    let (controller, file) =
        if cgroup::is_v2() { ("", "memory.max") } else { ("memory", "memory.limit_in_bytes") };
    for hierarchy in cgroup::hierarchies() {
        fs::create_dir_all(hierarchy.join(&parent))?;
    }
    let dir = Path::new("/sys/fs/cgroup").join(controller).join(&parent);
    if cgroup::is_v2() {
        fs::write(dir.join("cgroup.subtree_control"), "+memory +cpu +cpuset +pids +io")?;
    }
    fs::write(dir.join(file), LIMIT.to_string())?;
    let daemon = Miharud::start()?;
    let lxc = Lxc::start(&[&format!("lxc.cgroup.dir = {parent}")])?;
    ensure!(lxc.cgroups()?.dir("memory")?.starts_with(&dir), "LXC put it elsewhere: {:?}", lxc.cgroups()?);
    let name = [("name", lxc.name.as_str())];
    let scrape = daemon.scrape()?;
    assert_eq!(scrape.value("incus_memory_MemTotal_bytes", &name)?, LIMIT as f64);
    assert!(scrape.value("incus_memory_MemAvailable_bytes", &name)? <= LIMIT as f64);
    Ok(())
}

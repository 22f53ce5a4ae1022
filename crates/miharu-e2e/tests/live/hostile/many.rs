//! More mounts, interfaces and cgroups in one container than anybody needs.

use std::fs;

use anyhow::{Context, Result, ensure};
use miharu_e2e::{Lxc, Miharud, cgroup, need, scratch, shell};

use super::Scene;

/// Makes 16,384 mounts in a container: each line doubles what there is.
const MOUNT: &str = "mount --make-rprivate / && mount -t tmpfs none /mnt && cd /mnt && mkdir 0 1 2 3 4 5 6 7 8 9 a b c d && \
                     for i in 0 1 2 3 4 5 6 7 8 9 a b c d; do mount -o rbind . $i || exit 1; done";

#[test]
fn sixteen_thousand_mounts_are_bounded_and_told() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let lxc = Lxc::start(&[])?;
    lxc.exec(MOUNT)?;
    let count = fs::read_to_string(format!("/proc/{}/mountinfo", lxc.pid))?.lines().count();
    ensure!(count > 16_000, "{count} mounts");
    let scrape = scene.watch()?;
    let name = [("name", lxc.name.as_str())];
    assert_eq!(scrape.value("incus_instance_scrape_success", &name)?, 1.0);
    scrape.value("incus_filesystem_size_bytes", &[name[0], ("mountpoint", "/")])?;
    scene.expect_warning(&[&lxc.name, "has more than 4096 mounts"])
}

/// The kernel has one lock for the mounts of all namespaces, which it holds while it copies a tree of them.
#[test]
#[ignore = "long: make chaos"]
fn mounts_that_come_and_go_without_end_cost_nobody_else_anything() -> Result<()> {
    need!(Lxc);
    let others: Vec<Lxc> = (0..20).map(|_| Lxc::start(&[])).collect::<Result<_>>()?;
    let scene = Scene::start()?;
    let lxc = Lxc::start(&[])?;
    lxc.exec(MOUNT)?;
    lxc.exec(
        "mkdir /1 /2; for n in 1 2; do \
         (while :; do mount -o rbind /mnt /$n; umount -l /$n; done) >/dev/null 2>&1 & done",
    )?;
    for _ in 0..20 {
        let scrape = scene.look()?;
        for other in &others {
            let name = [("name", other.name.as_str())];
            assert_eq!(scrape.value("incus_instance_scrape_success", &name)?, 1.0);
            scrape.value("incus_filesystem_size_bytes", &[name[0], ("mountpoint", "/")])?;
        }
        // With three times its mounts it has its one file system still.
        let name = [("name", lxc.name.as_str())];
        scrape.value("incus_filesystem_size_bytes", &[name[0], ("mountpoint", "/")])?;
    }
    scene.expect_warning(&[&lxc.name, "has more than 4096 mounts"])
}

#[test]
fn a_thousand_interfaces_are_served_and_what_is_beyond_is_told() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let lxc = Lxc::start(&[])?;
    let pid = lxc.pid.to_string();
    let add = |pairs: std::ops::Range<u32>| -> Result<()> {
        let lines: String = pairs.map(|n| format!("link add a{n} type veth peer name b{n}\n")).collect();
        let batch = scratch::dir("batch")?.join("ip");
        fs::write(&batch, lines)?;
        let batch = batch.to_str().context("a path that is no UTF-8")?;
        shell::run("nsenter", ["-t", &pid, "-n", "ip", "-batch", batch]).map(drop)
    };
    let beyond = "1024 network interfaces, as many as are served";
    add(0..500)?;
    let name = [("name", lxc.name.as_str())];
    assert!(scene.watch()?.select("incus_network_receive_bytes_total", &name).len() > 1000);
    assert!(!scene.is_warned(&[beyond])?);
    add(500..520)?;
    assert_eq!(scene.watch()?.select("incus_network_receive_bytes_total", &name).len(), 1024);
    scene.expect_warning(&[&lxc.name, beyond])
}

/// How many: as many as a busy machine makes in a few seconds, fewer in a guest whose processor is emulated, or with
/// `MIHARU_CHAOS` what the kernel can be expected to bear.
fn crowd() -> usize {
    match std::env::var_os("MIHARU_CHAOS") {
        Some(_) => 100_000,
        None if cgroup::is_v2() => 200,
        None => 2_000,
    }
}

#[test]
fn cgroups_below_its_own_make_nobody_appear_and_cost_nobody_anything() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let lxc = Lxc::start(&[])?;
    let id = "5f".repeat(32);
    let victim = &scene.witness.name;
    let called = [
        format!("lxc.payload.{victim}"),
        "lxc.payload/other".to_owned(),
        format!("libpod-{id}.scope"),
        format!("docker/{id}"),
        format!("kubepods/burstable/pod11111111-2222-3333-4444-555555555555/{id}"),
        "machine-other.scope/payload".to_owned(),
        "lxc-1-other.libvirt-lxc".to_owned(),
    ];
    let pid = lxc.exec("sleep 1000 >/dev/null 2>&1 & echo $!")?;
    let own = fs::read_to_string(format!("/proc/{}/task/{}/children", lxc.pid, lxc.pid)).unwrap_or_default();
    let some = own.split_whitespace().next().context(pid)?.to_owned();
    let dirs: Vec<_> =
        lxc.cgroups()?.dirs().into_iter().filter(|dir| !dir.to_string_lossy().contains("/cpuset/")).collect();
    for dir in &dirs {
        for name in &called {
            fs::create_dir_all(dir.join(name))?;
        }
    }
    // In one hierarchy alone: it is the names that could be taken for somebody's, and each costs the kernel memory.
    let crowded = dirs.iter().find(|dir| cgroup::is_v2() || dir.to_string_lossy().contains("/pids/"));
    let crowded = crowded.context("no hierarchy")?;
    for number in 0..crowd() / 100 {
        for below in 0..100 {
            fs::create_dir_all(crowded.join(format!("d{number}/lxc.payload.{victim}{below}")))?;
        }
    }
    let all = [&scene.witness.name, &lxc.name];
    let is_bare = |scrape: &miharu_e2e::Exposition| {
        let others = |name: &String| name.contains("other") || id.contains(name.as_str());
        let there = scrape.instances();
        all.iter().all(|name| there.contains(*name)) && !there.iter().any(others)
    };
    for name in &called {
        // A process of the container's goes from one to the next, in every hierarchy.
        for dir in &dirs {
            let _ = fs::write(dir.join(name).join("cgroup.procs"), &some);
        }
        let scrape = scene.look()?;
        assert!(is_bare(&scrape), "{name}: {:?}", scrape.instances());
        assert_eq!(scrape.select("incus_instance_info", &[("name", victim)]).len(), 1);
    }
    // A daemon that begins now finds the same.
    assert!(is_bare(&Miharud::start()?.scrape()?));
    let hundreds = crowded.to_owned();
    drop(lxc);
    for number in 0..crowd() / 100 {
        for below in 0..100 {
            let _ = fs::remove_dir(hundreds.join(format!("d{number}/lxc.payload.{victim}{below}")));
        }
    }
    Ok(())
}

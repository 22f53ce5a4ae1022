//! What is kept between scrapes, open files, watches and choices, tells the same as reading everything anew, and pins nothing
//! of a container that is gone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::cgroup;
use miharu_e2e::loopdev::LoopDevice;
use miharu_e2e::lxc::Config;
use miharu_e2e::miharud::between;
use miharu_e2e::netns::Netns;
use miharu_e2e::{Exposition, Lxc, Miharud, need, rootfs, scratch, shell};

/// A moved first process is noticed at the latest in this scrape, as docs/reference/metrics.md says.
const SCRAPES_TO_A_NEW_NETWORK: usize = 8;

/// What the daemon's descriptors lead to.
fn links(daemon: &Miharud) -> Result<Vec<String>> {
    let fds = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.flatten();
    let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
    Ok(links.map(|link| link.to_string_lossy().into_owned()).collect())
}

/// The files and directories of instances that the daemon keeps open.
fn kept(daemon: &Miharud) -> Result<Vec<String>> {
    let is_kept = |link: &String| link.starts_with("/sys/fs/cgroup/") || link.contains("/net/dev");
    Ok(links(daemon)?.into_iter().filter(is_kept).collect())
}

/// How many files of a container's network namespace it keeps. The kernel calls one deleted once anybody has looked it up again.
fn of_network(daemon: &Miharud, lxc: &Lxc) -> Result<usize> {
    let path = format!("/proc/{}/net/dev", lxc.pid);
    let is_it =
        |link: &&String| link.strip_prefix(&path).is_some_and(|rest| ["", " (deleted)"].contains(&rest));
    Ok(links(daemon)?.iter().filter(is_it).count())
}

/// Those of a container's cgroups.
fn of_cgroups(daemon: &Miharud, lxc: &Lxc) -> Result<Vec<String>> {
    let own = format!("lxc.payload.{}/", lxc.name);
    Ok(kept(daemon)?.into_iter().filter(|link| format!("{link}/").contains(&own)).collect())
}

/// What the daemon's descriptors say of themselves, each a text.
fn descriptions(daemon: &Miharud) -> Result<Vec<String>> {
    let infos = fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid()))?.flatten();
    Ok(infos.filter_map(|info| fs::read_to_string(info.path()).ok()).collect())
}

/// How many processes the daemon watches that have ended.
fn watches_of_the_dead(daemon: &Miharud) -> Result<usize> {
    let is_dead = |text: &String| text.lines().any(|line| line.split_whitespace().eq(["Pid:", "-1"]));
    Ok(descriptions(daemon)?.into_iter().filter(is_dead).count())
}

/// How many directories the daemon watches, and the inode numbers of those that no hierarchy has (any more).
fn watches(daemon: &Miharud) -> Result<(usize, Vec<u64>)> {
    let mut there = BTreeSet::new();
    let mut waiting = cgroup::hierarchies();
    for top in &waiting {
        there.insert(fs::metadata(top)?.ino());
    }
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                there.insert(entry.ino());
                waiting.push(entry.path());
            }
        }
    }
    let descriptions = descriptions(daemon)?;
    let watched: Vec<u64> = descriptions
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.strip_prefix("inotify ")?.split_once("ino:")?.1.split(' ').next())
        .map(|inode| u64::from_str_radix(inode, 16))
        .collect::<Result<_, _>>()?;
    Ok((watched.len(), watched.into_iter().filter(|inode| !there.contains(inode)).collect()))
}

/// The series of a container, without their values.
fn series(scrape: &Exposition, lxc: &Lxc) -> BTreeSet<String> {
    let mine = scrape.samples().filter(|sample| sample.label("name") == lxc.name);
    mine.map(|sample| format!("{} {:?}", sample.name, sample.labels)).collect()
}

/// Some of the figures agree with their files.
fn agrees(daemon: &Miharud, lxc: &Lxc) -> Result<()> {
    let only = [("name", lxc.name.as_str())];
    let cgroups = lxc.cgroups()?;
    between(daemon, "incus_procs_total", &only, || cgroups.number("pids", "pids.current", "pids.current"))?;
    between(daemon, "incus_memory_usage_bytes", &only, || {
        cgroups.number("memory", "memory.usage_in_bytes", "memory.current")
    })?;
    between(daemon, "incus_memory_RSS_bytes", &only, || {
        cgroups.key("memory", ("memory.stat", "total_rss"), ("memory.stat", "anon"))
    })?;
    let received = || -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/net/dev", lxc.pid))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("lo")?;
        Ok(line.split_whitespace().next().context("bytes")?.parse()?)
    };
    let lo = [only[0], ("device", "lo")];
    between(daemon, "incus_network_receive_bytes_total", &lo, received)?;
    Ok(())
}

#[test]
fn a_stopped_container_is_pinned_by_nothing_although_nobody_scrapes() -> Result<()> {
    need!(Lxc);
    let (daemon, netns) = (Miharud::start()?, Netns::create()?);
    let mut lxc = Lxc::start(&[])?;
    lxc.connect(&netns, "eth0", "192.0.2.2", "192.0.2.1")?;
    daemon.scrape()?;
    assert_eq!(of_network(&daemon, &lxc)?, 1, "without a kept file nothing is tested");
    netns.ip(&["link", "show", "outer"])?;
    let directory = lxc.cgroups()?.dir("memory")?;
    assert!(directory.exists());
    lxc.stop()?;
    let limit = Duration::from_secs(2);
    shell::wait_for("the daemon to close net/dev", limit, || {
        (of_network(&daemon, &lxc).ok()? == 0).then_some(())
    })?;
    shell::wait_for("the end of the network namespace", limit, || {
        netns.ip(&["link", "show", "outer"]).is_err().then_some(())
    })?;
    shell::wait_for("the end of the cgroup", limit, || (!directory.exists()).then_some(()))?;
    // What is left is closed by the next scrape.
    daemon.scrape()?;
    assert_eq!(of_cgroups(&daemon, &lxc)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_container_started_again_has_no_file_of_the_one_before() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let mut lxc = Lxc::start(&[])?;
    lxc.exec("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done")?;
    let figures = |lxc: &Lxc| -> Result<(f64, f64)> {
        let (scrape, only) = (daemon.scrape()?, [("name", lxc.name.as_str())]);
        Ok((scrape.value("incus_boot_time_seconds", &only)?, scrape.sum("incus_cpu_seconds_total", &only)?))
    };
    figures(&lxc)?;
    let before = figures(&lxc)?;
    assert!(of_cgroups(&daemon, &lxc)?.len() > 5);
    lxc.stop()?;
    std::thread::sleep(Duration::from_millis(1100));
    lxc.boot()?;
    let after = figures(&lxc)?;
    assert!(after.0 >= before.0 + 1.0 && after.1 < before.1, "{before:?} {after:?}");
    agrees(&daemon, &lxc)?;
    let files = of_cgroups(&daemon, &lxc)?;
    assert!(files.len() > 5 && !files.iter().any(|file| file.contains("(deleted)")), "{files:#?}");
    Ok(())
}

#[test]
fn a_cgroup_made_again_under_a_running_container_tells_its_figures_at_once() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let only = [("name", lxc.name.as_str())];
    daemon.scrape()?;
    let complete = series(&daemon.scrape()?, &lxc);
    let own = lxc.cgroups()?.dir("pids")?;
    let top = own.parent().context("a parent")?;
    let go = |to: &Path| -> Result<()> {
        let pids = fs::read_to_string(own.join("cgroup.procs"))?;
        pids.lines().try_for_each(|pid| Ok(fs::write(to.join("cgroup.procs"), pid)?))
    };
    for scrapes_between in [0, 1] {
        let pids = fs::read_to_string(own.join("cgroup.procs"))?;
        go(top)?;
        shell::wait_for("an empty cgroup", Duration::from_secs(5), || fs::remove_dir(&own).ok())?;
        for _ in 0..scrapes_between {
            daemon.scrape()?;
        }
        fs::create_dir(&own)?;
        pids.lines().try_for_each(|pid| fs::write(own.join("cgroup.procs"), pid))?;
        let scrape = daemon.scrape()?;
        assert_eq!(series(&scrape, &lxc), complete, "after {scrapes_between} scrapes without it");
        assert_eq!(scrape.value("incus_instance_scrape_success", &only)?, 1.0);
        agrees(&daemon, &lxc)?;
    }
    Ok(())
}

#[test]
fn any_number_of_kept_files_tells_the_same() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let complete = series(&daemon.scrape()?, &lxc);
    assert!(of_cgroups(&daemon, &lxc)?.len() > 5, "kept by default");
    for limit in [0, 20, 16384, 20, 0] {
        daemon.miharu(&["config", "set", "instances.kept_files", &limit.to_string()])?;
        for _ in 0..2 {
            assert_eq!(series(&daemon.scrape()?, &lxc), complete, "instances.kept_files={limit}");
        }
        let files = kept(&daemon)?;
        assert!(files.len() <= limit, "{} files: {files:#?}", files.len());
        if limit > 20 {
            assert!(of_cgroups(&daemon, &lxc)?.len() > 5, "{files:#?}");
        }
        agrees(&daemon, &lxc)?;
    }
    Ok(())
}

#[test]
fn limits_written_by_hand_are_in_the_next_scrape() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    let only = [("name", lxc.name.as_str())];
    let cgroups = lxc.cgroups()?;
    let (memory, cpu) = (cgroups.dir("memory")?, cgroups.dir("cpu")?);
    let (memory_file, unlimited) =
        if cgroup::is_v2() { ("memory.max", "max") } else { ("memory.limit_in_bytes", "-1") };
    let host = daemon.scrape()?.value("incus_memory_MemTotal_bytes", &only)?;
    for megabytes in [64_u32, 96, 48] {
        let bytes = megabytes << 20;
        fs::write(memory.join(memory_file), bytes.to_string())?;
        let told = daemon.scrape()?.value("incus_memory_MemTotal_bytes", &only)?;
        assert_eq!(told, f64::from(bytes));
    }
    fs::write(memory.join(memory_file), unlimited)?;
    assert_eq!(daemon.scrape()?.value("incus_memory_MemTotal_bytes", &only)?, host);
    for (quota, cores) in [(50_000, 0.5), (150_000, 1.5), (25_000, 0.25)] {
        if cgroup::is_v2() {
            fs::write(cpu.join("cpu.max"), format!("{quota} 100000"))?;
        } else {
            fs::write(cpu.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        assert_eq!(daemon.scrape()?.value("incus_cpu_limit_cores", &only)?, cores);
    }
    let (file, none) = if cgroup::is_v2() { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") };
    fs::write(cpu.join(file), none)?;
    assert!(daemon.scrape()?.select("incus_cpu_limit_cores", &only).is_empty());
    Ok(())
}

#[test]
fn containers_that_come_and_go_leave_no_descriptor_and_no_watch() -> Result<()> {
    need!(Lxc);
    let (daemon, stays) = (Miharud::start()?, Lxc::start(&[])?);
    let complete = series(&daemon.scrape()?, &stays);
    let done = AtomicBool::new(false);
    let limit = Duration::from_secs(10);
    let names = std::thread::scope(|scope| -> Result<Vec<String>> {
        let churn = scope.spawn(|| -> Result<Vec<String>> {
            let (start, mut names) = (Instant::now(), Vec::new());
            let mut result = Ok(());
            while (start.elapsed() < limit || names.len() < 3) && result.is_ok() {
                result = Lxc::start(&[]).and_then(|mut lxc| {
                    names.push(lxc.name.clone());
                    lxc.stop()
                });
            }
            done.store(true, Ordering::Relaxed);
            result.map(|()| names)
        });
        while !done.load(Ordering::Relaxed) {
            assert_eq!(series(&daemon.scrape()?, &stays), complete, "the container that stays");
        }
        churn.join().map_err(|_| anyhow::anyhow!("the other thread panicked"))?
    })?;
    // Other tests' containers come and go as well, so that it may take more than one look at a quiet moment.
    let mut last = String::new();
    let is_clean = |last: &mut String| -> Result<bool> {
        daemon.scrape()?;
        let mut files = links(&daemon)?;
        files.retain(|link| names.iter().any(|name| link.contains(name.as_str())));
        let (dead, (watched, gone)) = (watches_of_the_dead(&daemon)?, watches(&daemon)?);
        *last = format!("{files:?}, {dead} dead, {gone:?} of {watched} watches");
        assert!(watched > 0, "the hierarchies themselves are watched");
        Ok(files.is_empty() && dead == 0 && gone.is_empty())
    };
    shell::wait_for("nothing to be left", Duration::from_secs(10), || match is_clean(&mut last) {
        Ok(true) => Some(Ok(())),
        Ok(false) => None,
        Err(error) => Some(Err(error)),
    })
    .with_context(|| last.clone())??;
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    Ok(())
}

#[test]
fn a_new_mount_is_in_the_next_scrape_and_goes_with_it() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc, disk) = (Miharud::start()?, Lxc::start(&[])?, LoopDevice::create(32 << 20, None)?);
    let mountpoints = || -> Result<BTreeSet<String>> {
        let scrape = daemon.scrape()?;
        let samples = scrape.select("incus_filesystem_size_bytes", &[("name", &lxc.name)]);
        Ok(samples.iter().map(|sample| sample.label("mountpoint").to_owned()).collect())
    };
    let root = BTreeSet::from(["/".to_owned()]);
    assert_eq!(mountpoints()?, root);
    lxc.exec(&format!("mknod /tmp/disk b 7 {}", disk.minor()))?;
    for _ in 0..2 {
        assert_eq!(mountpoints()?, root);
        lxc.exec("mount -t ext4 /tmp/disk /mnt")?;
        assert_eq!(mountpoints()?, BTreeSet::from(["/".to_owned(), "/mnt".to_owned()]));
        lxc.exec("umount /mnt")?;
    }
    assert_eq!(mountpoints()?, root);
    // One that is moved is no other mount than before, and the scrape after finds out.
    lxc.exec("mount -t ext4 /tmp/disk /mnt; mkdir -p /var/moved; mount --make-rprivate /")?;
    assert_eq!(mountpoints()?.len(), 2);
    lxc.exec("mount -o move /mnt /var/moved")?;
    assert!(!mountpoints()?.contains("/mnt"));
    assert_eq!(mountpoints()?, BTreeSet::from(["/".to_owned(), "/var/moved".to_owned()]));
    Ok(())
}

#[test]
fn a_first_process_that_moves_to_another_network_is_served_with_that_ones_counters() -> Result<()> {
    need!(Lxc);
    let (daemon, netns) = (Miharud::start()?, Netns::create()?);
    let tree = scratch::dir("tree")?;
    rootfs::make(&tree)?;
    fs::rename(tree.join("sbin/init"), tree.join("sbin/next"))?;
    let init =
        "#!/bin/sh\nwhile [ ! -e /tmp/go ]; do sleep 1; done\nexec /bin/busybox unshare -n -m /sbin/next\n";
    fs::write(tree.join("sbin/init"), init)?;
    fs::set_permissions(tree.join("sbin/init"), fs::Permissions::from_mode(0o755))?;
    let root = Some(format!("dir:{}", tree.display()));
    let lxc = Lxc::with(&Config { rootfs: root, ..Config::default() })?;
    lxc.connect(&netns, "eth0", "192.0.2.2", "192.0.2.1")?;
    let devices = || -> Result<BTreeSet<String>> {
        let scrape = daemon.scrape()?;
        let samples = scrape.select("incus_network_receive_bytes_total", &[("name", &lxc.name)]);
        Ok(samples.iter().map(|sample| sample.label("device").to_owned()).collect())
    };
    for _ in 0..3 {
        assert!(devices()?.contains("eth0"));
    }
    let net = format!("/proc/{}/ns/net", lxc.pid);
    let before = fs::read_link(&net)?;
    fs::write(lxc.inside("/tmp/go"), "")?;
    shell::wait_for("another namespace", Duration::from_secs(5), || {
        fs::read_link(&net).is_ok_and(|now| now != before).then_some(())
    })?;
    for _ in 1..SCRAPES_TO_A_NEW_NETWORK {
        devices()?;
    }
    assert_eq!(devices()?, BTreeSet::from(["lo".to_owned()]));
    // LXC's own monitor holds the namespace that was left, so that its end cannot be waited for.
    assert_eq!(of_network(&daemon, &lxc)?, 1, "that of the new one");
    // It has mounts of its own now, too.
    let files = daemon.scrape()?;
    let labels = [("name", lxc.name.as_str()), ("mountpoint", "/")];
    assert!(files.value("incus_filesystem_size_bytes", &labels)? > 0.0);
    agrees(&daemon, &lxc)
}

#[test]
fn a_container_in_a_nested_cgroup_that_was_just_made_is_found_at_once() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let outer = scratch::unique("mhnest");
    let _note = scratch::Entry::Cgroup(&outer).note()?;
    for round in 0..2 {
        daemon.scrape()?;
        let mut lxc = Lxc::start(&[&format!("lxc.cgroup.dir = {outer}/a/b{round}")])?;
        let path = lxc.cgroups()?.path("memory")?.to_owned();
        assert!(path.starts_with(&format!("/{outer}/a/b{round}/")), "{path}");
        let scrape = daemon.scrape()?;
        assert!(scrape.instances().contains(&lxc.name), "{:?}", scrape.instances());
        agrees(&daemon, &lxc)?;
        lxc.stop()?;
        assert!(!daemon.scrape()?.instances().contains(&lxc.name));
        // The second time these directories come anew under their old names.
        shell::wait_for("the cgroups' end", Duration::from_secs(5), || {
            cgroup::remove(&outer);
            cgroup::hierarchies().iter().all(|top| !top.join(&outer).exists()).then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn a_daemon_without_a_descriptor_left_loses_no_instance() -> Result<()> {
    need!(Lxc);
    let (daemon, stays) = (Miharud::start()?, Lxc::start(&[])?);
    daemon.scrape()?;
    let pid = daemon.pid().to_string();
    let limit = |most: usize| shell::run("prlimit", ["--pid", &pid, &format!("--nofile={most}:")]);
    let enough = shell::run("prlimit", ["--pid", &pid, "--nofile", "--output=SOFT", "--noheadings"])?;
    // The hierarchies have changed, so that they have to be listed.
    let new = Lxc::start(&[])?;
    let used: BTreeSet<usize> = fs::read_dir(format!("/proc/{pid}/fd"))?
        .flatten()
        .filter_map(|fd| fd.file_name().to_str()?.parse().ok())
        .collect();
    // One is left, which the connection takes.
    let second = (0..).filter(|number| !used.contains(number)).nth(1).context("a number")?;
    limit(second)?;
    let reply = daemon.get("/1.0/metrics");
    limit(enough.trim().parse()?)?;
    let reply = reply?;
    // On version 1 the hierarchies themselves could not be found, which is an error or the last snapshot.
    if reply.status == 200 {
        let scrape = Exposition::parse(&reply.text())?;
        assert!(scrape.instances().contains(&stays.name), "{:?}", scrape.instances());
    } else {
        assert_eq!((reply.status, cgroup::is_v2()), (503, false), "{}", reply.text());
    }
    let instances = daemon.scrape()?.instances();
    assert!(instances.contains(&stays.name) && instances.contains(&new.name), "{instances:?}");
    Ok(())
}

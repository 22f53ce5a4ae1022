//! File systems that never answer, what is no regular file, and links that move.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::forgery::Forgery;
use miharu_e2e::fuse::Slow;
use miharu_e2e::loopdev::LoopDevice;
use miharu_e2e::scratch::unique;
use miharu_e2e::{Lxc, Miharud, guest, need, shell};

use super::Scene;

/// Kills the daemon while a thread of its hangs in the kernel, and starts another on the same folder and port.
fn replace(scene: &Scene, slow: &Slow, address: &str) -> Result<()> {
    let old = scene.daemon.pid();
    ensure!(slow.waiting() > 0, "nobody waits");
    shell::run("kill", ["-KILL", &old.to_string()])?;
    let folder = fs::File::open(&scene.daemon.dir)?;
    shell::wait_for("the end of the port and of the lock", Duration::from_secs(10), || {
        (TcpStream::connect(address).is_err() && folder.try_lock().is_ok()).then_some(())
    })?;
    drop(folder);
    // What is left of it is the thread that not even SIGKILL ends.
    let tasks = fs::read_dir(format!("/proc/{old}/task"))?.flatten();
    let states: Vec<String> = tasks
        .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
        .filter_map(|stat| Some(stat.rsplit_once(") ")?.1.get(..1)?.to_owned()))
        .collect();
    ensure!(states.iter().any(|state| state == "D"), "{states:?}");
    let next = Miharud::in_dir(&scene.daemon.dir, &[])?;
    // It goes before the daemon that waits for its answer.
    let _released = slow.releaser();
    TcpStream::connect(address).context("the port of the next one")?;
    let scrape = next.scrape()?;
    assert!(scrape.instances().contains(&scene.witness.name));
    let warnings = next.get("/1.0/warnings?recursion=1")?.text();
    ensure!(!warnings.contains("Listener cannot be opened"), "{warnings}");
    Ok(())
}

#[test]
fn one_that_never_answers_costs_its_own_and_holds_no_port_of_a_killed_daemon() -> Result<()> {
    need!(Lxc);
    let slow = Slow::mount()?;
    let scene = Scene::start()?;
    let hung = Lxc::start(&[&format!("lxc.mount.entry = {} mnt none bind 0 0", slow.path.display())])?;
    let name = [("name", hung.name.as_str())];
    let asked = slow.asked();
    slow.set_delay(None);
    let _released = slow.releaser();
    // Nobody asks it, unless a server key says so.
    assert_eq!(scene.watch()?.value("incus_instance_scrape_success", &name)?, 1.0);
    assert_eq!(slow.asked(), asked);
    scene.daemon.miharu(&["config", "set", "metrics.remote_filesystems", "true"])?;
    let address = scene.daemon.listen("core.metrics_address")?;
    for _ in 0..3 {
        let scrape = scene.look()?;
        assert_eq!(scrape.value("incus_instance_scrape_success", &name)?, 0.0);
        scrape.value("incus_procs_total", &name)?;
    }
    scene.expect_warning(&[&hung.name, "/mnt"])?;
    replace(&scene, &slow, &address)
}

#[test]
fn a_monitor_that_speaks_for_a_path_which_never_answers_costs_nobody_else_anything() -> Result<()> {
    need!(Lxc);
    if guest::find("bash").is_none() {
        return Ok(());
    }
    let slow = Slow::mount()?;
    let scene = Scene::start()?;
    let address = scene.daemon.listen("core.metrics_address")?;
    let cgroup = format!("lxc.payload.{}", unique("mh"));
    slow.set_delay(None);
    let _released = slow.releaser();
    let monitor = Forgery::start("0", &cgroup, &[&format!("[lxc monitor] {} gone", slow.path.display())])?;
    for _ in 0..6 {
        scene.look()?;
    }
    scene.expect_warning(&[&cgroup, &monitor.pid().to_string(), "where nothing answers"])?;
    // One that starts meanwhile is there.
    let late = Lxc::start(&[])?;
    assert!(scene.look()?.instances().contains(&late.name));
    replace(&scene, &slow, &address)
}

#[test]
fn what_is_no_directory_is_neither_opened_nor_measured() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let lxc = Lxc::start(&[])?;
    let disk = LoopDevice::create(16 << 20, None)?;
    lxc.exec(&format!(
        "mknod /dev/own b 7 {minor} && mkdir /mnt/disk && mount -t ext4 /dev/own /mnt/disk && cd /mnt/disk && \
         mknod fifo p && mknod zero c 1 5 && mknod block b 7 {minor} && echo x >file && cd / && \
         for f in fifo zero block file; do echo >/mnt/$f && mount -o bind /mnt/disk/$f /mnt/$f || exit 1; done && \
         umount /mnt/disk",
        minor = disk.minor()
    ))?;
    // A writer gets no further than to wait for whoever opens the other end.
    lxc.exec("(echo x >/mnt/fifo; echo opened >/root/opened) >/dev/null 2>&1 &")?;
    let scrape = scene.watch()?;
    let samples = scrape.select("incus_filesystem_size_bytes", &[("name", &lxc.name)]);
    let places: Vec<_> = samples.iter().map(|sample| sample.label("mountpoint")).collect();
    assert_eq!(places, ["/"]);
    assert!(!lxc.inside("/root/opened").exists());
    Ok(())
}

#[test]
fn a_link_that_takes_the_place_of_a_directory_leads_nowhere() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let lxc = Lxc::start(&[])?;
    let disk = LoopDevice::create(16 << 20, None)?;
    lxc.exec(&format!(
        "mknod /dev/own b 7 {} && mkdir -p /mnt/a/disk && mount -t ext4 /dev/own /mnt/a/disk",
        disk.minor()
    ))?;
    let of_disk = |scrape: &miharu_e2e::Exposition| {
        let of = scrape.select("incus_filesystem_size_bytes", &[("name", &lxc.name)]);
        let own: Vec<_> = of.iter().filter(|sample| sample.label("mountpoint") != "/").collect();
        own.iter().map(|sample| sample.value).collect::<Vec<_>>()
    };
    let size = of_disk(&scene.look()?);
    ensure!(size.len() == 1, "{size:?}");
    // Where the path leads changes all the time: to the disk, and to what the link's end is by the host's rules.
    lxc.exec(
        "(while :; do busybox mv /mnt/a /mnt/b; busybox ln -s / /mnt/a; busybox rm /mnt/a; \
         busybox ln -s /proc/1/root /mnt/a; busybox rm /mnt/a; busybox mv /mnt/b /mnt/a; done) >/dev/null 2>&1 &",
    )?;
    for _ in 0..15 {
        let seen = of_disk(&scene.look()?);
        assert!(seen.is_empty() || seen == size, "{seen:?}, and the disk has {size:?}");
    }
    Ok(())
}

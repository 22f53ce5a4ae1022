//! File systems that never answer, what is no regular file, and links that move.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::forgery::Forgery;
use miharu_e2e::fuse::Slow;
use miharu_e2e::loopdev::LoopDevice;
use miharu_e2e::scratch::{self, unique};
use miharu_e2e::{Lxc, Miharud, Podman, need, shell};

use super::Scene;

/// A file system that somebody else answers for, and who can stop to.
pub(super) trait Remote {
    fn path(&self) -> &Path;
    /// From now on nobody answers.
    fn fall_silent(&self) -> Result<()>;
    /// Whoever waits gets an answer.
    fn answer(&self) -> Result<()>;
    /// How often its size was asked for.
    fn asked(&self) -> Result<u64>;
    /// Whether a thread of that process waits for an answer.
    fn holds(&self, pid: u32) -> bool;
    /// Whether not even SIGKILL ends the wait.
    const OUTLIVES: bool;
}

impl Remote for Slow {
    fn path(&self) -> &Path {
        &self.path
    }

    fn fall_silent(&self) -> Result<()> {
        self.set_delay(None);
        Ok(())
    }

    fn answer(&self) -> Result<()> {
        self.set_delay(Some(Duration::ZERO));
        Ok(())
    }

    fn asked(&self) -> Result<u64> {
        Ok(Slow::asked(self))
    }

    // Before a signal comes they wait as for anything else.
    fn holds(&self, _pid: u32) -> bool {
        self.waiting() > 0
    }

    const OUTLIVES: bool = true;
}

/// Lets a remote file system answer again, before the daemon goes that waits for it.
pub(super) struct Silence<'r, R: Remote>(&'r R);

impl<'r, R: Remote> Silence<'r, R> {
    pub(super) fn of(remote: &'r R) -> Result<Self> {
        remote.fall_silent()?;
        Ok(Self(remote))
    }
}

impl<R: Remote> Drop for Silence<'_, R> {
    fn drop(&mut self) {
        let _ = self.0.answer();
    }
}

/// How many threads of a process wait in the kernel for what no ordinary signal ends.
pub(super) fn held(pid: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.filter(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('D'))).count()
}

/// Kills the daemon while a thread of its hangs in the kernel, and starts another on the same folder and port.
pub(super) fn replace<R: Remote>(scene: &Scene, silences: &[Silence<'_, R>], address: &str) -> Result<()> {
    let old = scene.daemon.pid();
    let hangs = || silences.iter().all(|silence| silence.0.holds(old)).then_some(());
    shell::wait_for("a thread that hangs", Duration::from_secs(10), hangs)?;
    shell::run("kill", ["-KILL", &old.to_string()])?;
    let folder = fs::File::open(&scene.daemon.dir)?;
    shell::wait_for("the end of the port and of the lock", Duration::from_secs(10), || {
        (TcpStream::connect(address).is_err() && folder.try_lock().is_ok()).then_some(())
    })?;
    drop(folder);
    // What is left of it is the thread.
    ensure!(held(old) > 0 || !R::OUTLIVES, "nothing is left of it");
    let next = Miharud::in_dir(&scene.daemon.dir, &[])?;
    // They go before the daemon that waits for their answers.
    let _answered: Vec<_> = silences.iter().map(|silence| Silence(silence.0)).collect();
    TcpStream::connect(address).context("the port of the next one")?;
    let scrape = next.scrape()?;
    assert!(scrape.instances().contains(&scene.witness.name));
    let warnings = next.get("/1.0/warnings?recursion=1")?.text();
    ensure!(!warnings.contains("Listener cannot be opened"), "{warnings}");
    Ok(())
}

/// A container that has it mounted.
pub(super) fn mounted_in_a_container(remote: &impl Remote) -> Result<()> {
    let scene = Scene::start()?;
    let hung = Lxc::start(&[&format!("lxc.mount.entry = {} mnt none bind 0 0", remote.path().display())])?;
    let name = [("name", hung.name.as_str())];
    let asked = remote.asked()?;
    let silence = Silence::of(remote)?;
    // Nobody asks it, unless a server key says so.
    assert_eq!(scene.watch()?.value("incus_instance_scrape_success", &name)?, 1.0);
    assert_eq!(remote.asked()?, asked);
    scene.daemon.miharu(&["config", "set", "metrics.remote_filesystems", "true"])?;
    let address = scene.daemon.listen("core.metrics_address")?;
    for _ in 0..3 {
        let scrape = scene.look()?;
        assert_eq!(scrape.value("incus_instance_scrape_success", &name)?, 0.0);
        scrape.value("incus_procs_total", &name)?;
    }
    scene.expect_warning(&[&hung.name, "/mnt"])?;
    replace(&scene, &[silence], &address)
}

/// A monitor of root's that says that it keeps its containers there.
pub(super) fn said_by_a_monitor(remote: &impl Remote) -> Result<()> {
    let scene = Scene::start()?;
    let address = scene.daemon.listen("core.metrics_address")?;
    let cgroup = format!("lxc.payload.{}", unique("mh"));
    let silence = Silence::of(remote)?;
    let monitor =
        Forgery::start("0", &cgroup, &[&format!("[lxc monitor] {} gone", remote.path().display())])?;
    for _ in 0..6 {
        scene.look()?;
    }
    scene.expect_warning(&[&cgroup, &monitor.pid().to_string(), "where nothing answers"])?;
    // One that starts meanwhile is there.
    let late = Lxc::start(&[])?;
    assert!(scene.look()?.instances().contains(&late.name));
    replace(&scene, &[silence], &address)
}

#[test]
fn one_that_never_answers_costs_its_own_and_holds_no_port_of_a_killed_daemon() -> Result<()> {
    need!(Lxc);
    mounted_in_a_container(&Slow::mount()?)
}

#[test]
fn a_monitor_that_speaks_for_a_path_which_never_answers_costs_nobody_else_anything() -> Result<()> {
    need!(Lxc);
    said_by_a_monitor(&Slow::mount()?)
}

#[test]
fn many_that_never_answer_leave_threads_for_the_disks_of_others() -> Result<()> {
    need!(Lxc);
    let slow: Vec<Slow> = (0..10).map(|_| Slow::mount()).collect::<Result<_>>()?;
    let scene = Scene::start()?;
    scene.daemon.miharu(&["config", "set", "metrics.remote_filesystems", "true"])?;
    let bind =
        |slow: &Slow, to: &str| format!("lxc.mount.entry = {} {to} none bind 0 0", slow.path.display());
    let hung: Vec<Lxc> = slow
        .chunks(2)
        .map(|two| Lxc::start(&[&bind(&two[0], "mnt"), &bind(&two[1], "root")]))
        .collect::<Result<_>>()?;
    let _silence: Vec<_> = slow.iter().map(Silence::of).collect::<Result<_>>()?;
    for _ in 0..4 {
        let scrape = scene.look()?;
        for lxc in &hung {
            let name = [("name", lxc.name.as_str())];
            assert_eq!(scrape.value("incus_instance_scrape_success", &name)?, 0.0);
            scrape.value("incus_filesystem_size_bytes", &[name[0], ("mountpoint", "/")])?;
        }
    }
    scene.expect_warning(&[&hung[4].name, "/mnt"])
}

/// A podman of root's, or a user's, that keeps its state where nobody answers any more.
#[test]
fn a_podman_whose_files_hang_costs_no_other_container_its_name() -> Result<()> {
    need!(Lxc, Podman);
    let (silent, other) = (Podman::start()?, Podman::start()?);
    let scene = Scene::start()?;
    let address = scene.daemon.listen("core.metrics_address")?;
    let hung = silent.any(&[])?;
    let slow = Slow::over(silent.home.join("storage"))?;
    let silence = Silence::of(&slow)?;
    scene.look()?;
    shell::wait_for("a thread that hangs", Duration::from_secs(10), || {
        slow.holds(scene.daemon.pid()).then_some(())
    })?;
    // One of another storage that starts meanwhile is called as it is, and the first one by its id in the end.
    let late = other.any(&[])?;
    let id = hung.id.get(..12).context("an id")?;
    for name in [late.name.as_str(), id] {
        let is_there = || scene.look().map(|scrape| scrape.instances().contains(name));
        shell::wait_for(name, Duration::from_secs(40), || is_there().unwrap_or(false).then_some(()))?;
    }
    scene.expect_warning(&[id, "nobody answers in time"])?;
    replace(&scene, &[silence], &address)
}

#[test]
fn a_socket_that_is_called_as_a_daemons_and_lies_where_nothing_answers_holds_no_port() -> Result<()> {
    need!(Lxc);
    let state = scratch::dir("state")?;
    fs::create_dir(state.join("guestapi"))?;
    let _listening = UnixListener::bind(state.join("guestapi/sock"))?;
    let slow = Slow::over(state)?;
    let silence = Silence::of(&slow)?;
    let scene = Scene::start()?;
    let address = scene.daemon.listen("core.metrics_address")?;
    shell::wait_for("a warning", Duration::from_secs(10), || {
        scene.look().ok()?;
        scene.is_warned(&[&slow.path.display().to_string(), "does not answer"]).ok()?.then_some(())
    })?;
    replace(&scene, &[silence], &address)
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

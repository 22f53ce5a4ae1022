//! Containers come and go between two scrapes and in the middle of one.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use miharu_e2e::cgroup;
use miharu_e2e::{Lxc, Miharud, need, scratch, shell};

#[test]
fn a_host_without_instances_answers_and_says_so() -> Result<()> {
    need!(Tls);
    // Other tests' containers run beside this one, so that only the form can be looked at.
    let daemon = Miharud::start()?;
    let scrape = daemon.scrape()?;
    assert!(scrape.value("incus_uptime_seconds", &[])? >= 0.0);
    assert!(scrape.value("incus_scrape_timestamp_seconds", &[])? > 1e9);
    Ok(())
}

#[test]
fn a_container_is_in_the_next_collection_after_its_start_and_in_none_after_its_stop() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let mut lxc = Lxc::start(&[])?;
    let stays = Lxc::start(&[])?;
    let seen = |name: &str| daemon.scrape().map(|scrape| scrape.instances().contains(name));
    assert!(seen(&lxc.name)? && seen(&stays.name)?);
    let first = daemon.scrape()?.value("incus_boot_time_seconds", &[("name", &lxc.name)])?;
    lxc.stop()?;
    assert!(!seen(&lxc.name)? && seen(&stays.name)?, "a stopped container leaves, the other stays");
    std::thread::sleep(Duration::from_millis(1100));
    lxc.boot()?;
    let second = daemon.scrape()?.value("incus_boot_time_seconds", &[("name", &lxc.name)])?;
    assert!(second - first >= 1.0, "the same name is another incarnation: {first} {second}");
    Ok(())
}

#[test]
fn counters_of_a_restarted_container_start_anew() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let mut lxc = Lxc::start(&[])?;
    lxc.exec("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done")?;
    let cpu = || -> Result<f64> { daemon.scrape()?.sum("incus_cpu_seconds_total", &[("name", &lxc.name)]) };
    let before = cpu()?;
    lxc.stop()?;
    lxc.boot()?;
    let after = daemon.scrape()?.sum("incus_cpu_seconds_total", &[("name", &lxc.name)])?;
    assert!(after < before, "kept files of the first cgroup would still say {before}: {after}");
    Ok(())
}

#[test]
fn stops_in_mid_scrape_cost_nobody_anything() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let stays = Lxc::start(&[])?;
    let mut goes = [Lxc::start(&[])?, Lxc::start(&[])?];
    let done = AtomicBool::new(false);
    let complete = daemon.scrape()?.samples().filter(|sample| sample.label("name") == stays.name).count();
    let scrapes = std::thread::scope(|scope| -> Result<u32> {
        let churn = scope.spawn(|| -> Result<()> {
            let result = (0..4).try_for_each(|_| {
                goes.iter_mut().try_for_each(Lxc::stop)?;
                goes.iter_mut().try_for_each(Lxc::boot)
            });
            done.store(true, Ordering::Relaxed);
            result
        });
        let mut scrapes = 0;
        while !done.load(Ordering::Relaxed) {
            // Strict reading is half of the test: a line cut short or a series twice would end it.
            let scrape = daemon.scrape()?;
            let mine = scrape.samples().filter(|sample| sample.label("name") == stays.name).count();
            assert_eq!(mine, complete, "the container that stays lost samples");
            for sample in scrape.select("incus_instance_scrape_success", &[]) {
                if sample.label("name").starts_with("mh")
                    && sample.label("project").contains(&format!("run-{}", std::process::id()))
                {
                    assert_eq!(
                        sample.value, 1.0,
                        "a container that vanished is dropped without noise: {sample:?}"
                    );
                }
            }
            scrapes += 1;
        }
        churn.join().map_err(|_| anyhow::anyhow!("the other thread panicked"))??;
        Ok(scrapes)
    })?;
    assert!(scrapes >= 4, "{scrapes} scrapes");
    Ok(())
}

#[test]
fn a_nested_cgroup_with_a_containers_name_is_no_instance() -> Result<()> {
    need!(Lxc);
    let (daemon, lxc) = (Miharud::start()?, Lxc::start(&[])?);
    // Below the payload, as a container that runs containers makes it, with a process of the container in it.
    lxc.exec("sleep 1000 </dev/null >/dev/null 2>&1 &")?;
    let controllers = ["memory", "pids", "cpu", "cpuacct", "blkio", "freezer", "devices"];
    let cgroups = lxc.cgroups()?;
    let mut made = Vec::new();
    for controller in if cgroup::is_v2() { &controllers[..1] } else { &controllers[..] } {
        let own = cgroups.dir(controller)?;
        let nested = own.join("lxc.payload.evil");
        fs::create_dir(&nested)?;
        let pids = fs::read_to_string(own.join("cgroup.procs"))?;
        let other = pids.lines().find(|pid| pid.parse() != Ok(lxc.pid)).unwrap_or_default();
        fs::write(nested.join("cgroup.procs"), other)?;
        made.push((own, nested, other.to_owned()));
    }
    let instances = daemon.scrape()?.instances();
    for (own, nested, pid) in made {
        fs::write(own.join("cgroup.procs"), pid)?;
        fs::remove_dir(nested)?;
    }
    assert!(instances.contains(&lxc.name));
    assert!(!instances.contains("evil"), "{instances:?}");
    Ok(())
}

#[test]
fn sigterm_ends_the_daemon_and_a_new_one_on_the_same_folder_keeps_what_was_configured() -> Result<()> {
    need!(Tls);
    let dir = scratch::dir("miharu")?;
    let daemon = Miharud::in_dir(&dir, &[])?;
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "3"])?;
    daemon.stop()?;
    let certificate = fs::read(dir.join("server.crt"))?;
    let daemon = Miharud::in_dir(&dir, &[])?;
    assert_eq!(daemon.miharu(&["config", "get", "metrics.cache_seconds"])?.trim(), "3");
    assert_eq!(fs::read(dir.join("server.crt"))?, certificate, "clients pin it");
    let started = Instant::now();
    daemon.stop()?;
    assert!(started.elapsed() < shell::patient(Duration::from_secs(5)));
    Ok(())
}

//! Containers that are started in less usual ways: each is served once, under its name, by its own init.

use anyhow::{Context, Result};
use miharu_e2e::scratch::{Entry, unique};
use miharu_e2e::{Docker, Miharud, Podman, need, shell};

use crate::common::{Subject, scrape_with};

/// The init that miharu takes for a container's.
fn init(daemon: &Miharud, subject: &Subject) -> Result<u64> {
    let path = format!(
        "/1.0/instances/{}/state?project={}",
        subject.name,
        subject.project.replace('/', "%2F").replace('@', "%40")
    );
    let state = daemon.get(&path)?.json()?;
    state["metadata"]["pid"].as_u64().with_context(|| state.to_string())
}

#[test]
fn options_that_change_namespaces_cgroups_or_the_first_process_change_no_name() -> Result<()> {
    need!(Podman, Docker);
    // Removed last, when nothing runs in it any more.
    let parent = format!("/{}/below", unique("mhparent"));
    let _note = Entry::Cgroup(parent.trim_start_matches('/')).note()?;
    let daemon = Miharud::start()?;
    let (podman, docker) = (Podman::start()?, Docker::start()?);
    let other = docker.any(&[])?;
    let others = format!("container:{}", other.name);
    let of_podman = podman.any(&[])?;
    let others_of_podman = format!("container:{}", of_podman.name);
    let mut subjects = Vec::new();
    let below = ["--cgroup-parent", parent.as_str()];
    for options in [
        &["--pid", "host"][..],
        &below,
        &["--cap-add", "NET_ADMIN"],
        &["--ipc", "host", "--uts", "host"],
        &["--cgroupns", "host"],
        &["--cgroupns", "private"],
        &["--restart", "always"],
        &["--memory", "64m", "--cpus", "0.5", "--pids-limit", "100"],
        &["--tty", "--interactive"],
        &["--read-only"],
        &["--user", "1234:1234"],
    ] {
        let told = |error: anyhow::Error| error.context(format!("{options:?}"));
        subjects.push((options, Subject::of("docker", "docker", &docker.any(options).map_err(told)?)));
        let told = |error: anyhow::Error| error.context(format!("{options:?}"));
        subjects.push((options, Subject::of("podman", "podman", &podman.any(options).map_err(told)?)));
    }
    let shared = ["--pid", others.as_str()];
    subjects.push((&shared, Subject::of("docker", "docker", &docker.any(&shared)?)));
    let shared = ["--pid", others_of_podman.as_str()];
    subjects.push((&shared, Subject::of("podman", "podman", &podman.any(&shared)?)));
    let init_of_docker = ["--init"];
    subjects.push((&init_of_docker, Subject::of("docker", "docker", &docker.any(&init_of_docker)?)));
    // What is executed in one has the same parent as its init.
    docker.docker(&["exec", "-d", &other.name, "/bin/sleep", "1000"])?;
    podman.podman(&["exec", "-d", &of_podman.name, "/bin/sleep", "1000"])?;
    subjects.push((&["exec"], Subject::of("docker", "docker", &other)));
    subjects.push((&["exec"], Subject::of("podman", "podman", &of_podman)));
    let fresh = Miharud::start()?;
    for daemon in [&daemon, &fresh] {
        let scrape = scrape_with(daemon, subjects.iter().map(|(_, subject)| &*subject.name))?;
        let missing: Vec<_> = subjects
            .iter()
            .filter(|(_, subject)| scrape.select("incus_instance_info", &subject.labels()).len() != 1)
            .collect();
        assert!(missing.is_empty(), "not served: {missing:?}");
        for (options, subject) in &subjects {
            subject.assert_served(&scrape);
            assert_eq!(init(daemon, subject)?, u64::from(subject.pid), "{options:?}: {subject:?}");
        }
    }
    let limited = subjects.iter().filter(|(options, _)| options.first() == Some(&"--memory"));
    for (_, subject) in limited {
        let value = |family: &str| fresh.scrape()?.value(family, &subject.labels());
        assert_eq!(value("incus_memory_MemTotal_bytes")?, f64::from(64 << 20), "{subject:?}");
        assert_eq!(value("incus_cpu_limit_cores")?, 0.5, "{subject:?}");
    }
    Ok(())
}

#[test]
fn a_container_whose_monitor_was_killed_keeps_its_name() -> Result<()> {
    need!(Podman, Docker);
    let daemon = Miharud::start()?;
    let (podman, docker) = (Podman::start()?, Docker::start()?);
    let mut subjects = vec![Subject::of("podman", "podman", &podman.any(&[])?)];
    subjects.push(Subject::of("podman", "podman", &podman.any(&["--cgroups", "no-conmon"])?));
    subjects.push(Subject::of("docker", "docker", &docker.any(&[])?));
    let scrape = scrape_with(&daemon, subjects.iter().map(|subject| &*subject.name))?;
    for subject in &subjects {
        subject.assert_served(&scrape);
    }
    // Docker kills a container whose shim is gone, so that podman's goes on alone.
    let parent = shell::run("ps", ["-o", "ppid=", "-p", &subjects[0].pid.to_string()])?;
    shell::run("kill", ["-KILL", parent.trim()])?;
    for _ in 0..3 {
        subjects[0].assert_served(&daemon.scrape()?);
    }
    // Who has not seen the monitor may not know it, but does not call it by another's name.
    let scrape = Miharud::start()?.scrape()?;
    let infos = scrape.select("incus_instance_info", &[]);
    let mine = infos.iter().filter(|info| Some(info.label("id")) == subjects[0].id.as_deref());
    for info in mine {
        assert_eq!(info.label("name"), subjects[0].name, "{info:?}");
        println!("served without its monitor, too: {info:?}");
    }
    Ok(())
}

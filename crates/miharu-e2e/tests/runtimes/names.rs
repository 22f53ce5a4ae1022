//! What containers are called, for as long as they live: names shared by several runtimes, pods and Compose projects, renames,
//! restarts, pauses.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::scratch::unique;
use miharu_e2e::shell::wait_for;
use miharu_e2e::{Containerd, Docker, Exposition, Lxc, Miharud, Podman, inside, lxc, need};

use crate::common::{Subject, scrape_with, served};

/// The identities of all instances with one name.
fn called(scrape: &Exposition, name: &str) -> BTreeSet<(String, String)> {
    let all = served(scrape).into_iter().filter(|(_, _, found)| found == name);
    all.map(|(runtime, project, _)| (runtime, project)).collect()
}

#[test]
fn one_name_in_four_runtimes_is_four_instances_and_none_changes_when_another_goes() -> Result<()> {
    need!(Podman, Docker, Containerd, Lxc);
    let daemon = Miharud::start()?;
    let (podman, docker, containerd) = (Podman::start()?, Docker::start()?, Containerd::start()?);
    let (name, namespace) = (unique("web"), unique("ns"));
    let mut subjects = vec![Subject::of("podman", "podman", &podman.run(&name, &[])?)];
    let alone = scrape_with(&daemon, [name.as_str()])?;
    subjects[0].assert_served(&alone);
    let lxc = Lxc::with(&lxc::Config { name: name.clone(), ..lxc::Config::default() })?;
    subjects.push(Subject::of("docker", "docker", &docker.run(&name, &[])?));
    let of_containerd = containerd.run(&namespace, &name, &[])?;
    subjects.push(Subject::in_namespace(&namespace, &of_containerd));
    subjects.push(Subject::new("lxc", &format!("lxc:{}", lxc.path.display()), &name, lxc.pid));
    // Reading an exposition fails where a series is in it twice.
    let scrape =
        daemon.scrape_until("all four", Duration::from_secs(5), |scrape| called(scrape, &name).len() == 4)?;
    for subject in &subjects {
        subject.assert_served(&scrape);
    }
    assert_eq!(called(&scrape, &name).len(), 4, "{:?}", served(&scrape));
    podman.podman(&["rm", "--force", "--time", "0", &name])?;
    let gone = subjects.remove(0);
    let scrape = daemon.scrape()?;
    for subject in &subjects {
        subject.assert_served(&scrape);
    }
    assert!(!called(&scrape, &name).contains(&(gone.runtime.to_owned(), gone.project)));
    assert_eq!(called(&scrape, &name).len(), 3);
    let warnings = daemon.miharu(&["warning", "list", "--format", "csv"])?;
    assert!(!warnings.contains(&name), "nothing is wrong with that:\n{warnings}");
    Ok(())
}

#[test]
fn pods_and_compose_projects_are_projects() -> Result<()> {
    need!(Podman, Docker);
    let daemon = Miharud::start()?;
    let (podman, docker) = (Podman::start()?, Docker::start()?);
    let (pod, shop) = (unique("pod"), unique("shop"));
    let id = podman.pod(&pod)?;
    let label = format!("com.docker.compose.project={shop}");
    let in_both = podman.any(&["--pod", &pod, "--label", &label])?;
    let composed = podman.any(&["--label", &label])?;
    let of_podman_compose = podman.any(&["--label", &format!("io.podman.compose.project={shop}")])?;
    let of_docker = docker.any(&["--label", &label])?;
    let infra = format!("{}-infra", id.get(..12).context("a pod's id")?);
    let all = [&in_both, &composed, &of_podman_compose, &of_docker].map(|container| container.name.as_str());
    let scrape = scrape_with(&daemon, all.into_iter().chain([infra.as_str()]))?;
    for (runtime, project, container) in [
        ("podman", format!("podman/{pod}"), &in_both),
        ("podman", format!("podman/{shop}"), &composed),
        ("podman", format!("podman/{shop}"), &of_podman_compose),
        ("docker", format!("docker/{shop}"), &of_docker),
    ] {
        Subject::of(runtime, &project, container).assert_served(&scrape);
    }
    assert_eq!(
        called(&scrape, &infra),
        BTreeSet::from([("podman".to_owned(), format!("podman/{pod}"))]),
        "a pod's infra container: {:?}",
        served(&scrape)
    );
    let running = [("project", format!("podman/{shop}")), ("type", "container".to_owned())];
    let running = running.each_ref().map(|(label, value)| (*label, value.as_str()));
    assert_eq!(scrape.value("incus_instances_running", &running)?, 2.0);
    Ok(())
}

#[test]
fn a_renamed_container_gets_its_new_name_and_stays_who_it_is() -> Result<()> {
    need!(Podman, Docker);
    let daemon = Miharud::start()?;
    let (podman, docker) = (Podman::start()?, Docker::start()?);
    let of_podman = Subject::of("podman", "podman", &podman.any(&[])?);
    let of_docker = Subject::of("docker", "docker", &docker.any(&[])?);
    for subject in [&of_podman, &of_docker] {
        inside::run(subject.pid, "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")?;
    }
    let before = scrape_with(&daemon, [&*of_podman.name, &*of_docker.name])?;
    let renamed = [&of_podman, &of_docker].map(|subject| {
        subject.assert_served(&before);
        Subject { name: unique("other"), ..subject.clone() }
    });
    podman.podman(&["rename", &of_podman.name, &renamed[0].name])?;
    docker.docker(&["rename", &of_docker.name, &renamed[1].name])?;
    let limit = Duration::from_secs(15);
    let after = daemon.scrape_until("the new names", limit, |scrape| {
        renamed.iter().all(|subject| !called(scrape, &subject.name).is_empty())
    })?;
    for (old, new) in [&of_podman, &of_docker].into_iter().zip(&renamed) {
        new.assert_served(&after);
        assert!(called(&after, &old.name).is_empty(), "{old:?} is gone");
        let cpu = |scrape: &Exposition, subject: &Subject| {
            scrape.sum("incus_cpu_seconds_total", &subject.labels()).unwrap()
        };
        assert!(cpu(&after, new) >= cpu(&before, old), "its counters go on");
        let boot = |scrape: &Exposition, subject: &Subject| {
            scrape.value("incus_boot_time_seconds", &subject.labels()).unwrap()
        };
        assert_eq!(boot(&after, new), boot(&before, old));
    }
    Ok(())
}

#[test]
fn counters_of_a_restarted_container_start_anew_and_its_identity_stays() -> Result<()> {
    need!(Podman, Docker);
    let daemon = Miharud::start()?;
    let (podman, docker) = (Podman::start()?, Docker::start()?);
    let of_podman = Subject::of("podman", "podman", &podman.any(&[])?);
    let of_docker = Subject::of("docker", "docker", &docker.any(&[])?);
    for subject in [&of_podman, &of_docker] {
        inside::run(subject.pid, "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done")?;
    }
    let before = scrape_with(&daemon, [&*of_podman.name, &*of_docker.name])?;
    for subject in [&of_podman, &of_docker] {
        subject.assert_served(&before);
    }
    thread::sleep(Duration::from_millis(1100));
    podman.podman(&["restart", "--time", "0", &of_podman.name])?;
    docker.docker(&["restart", "--time", "0", &of_docker.name])?;
    let after = scrape_with(&daemon, [&*of_podman.name, &*of_docker.name])?;
    for (subject, pid) in
        [(&of_podman, podman.pid(&of_podman.name)?), (&of_docker, docker.pid(&of_docker.name)?)]
    {
        assert_ne!(pid, subject.pid);
        Subject { pid, ..subject.clone() }.assert_served(&after);
        let cpu = |scrape: &Exposition| scrape.sum("incus_cpu_seconds_total", &subject.labels());
        assert!(
            cpu(&after)? < cpu(&before)? / 2.0,
            "{subject:?}: {} and then {}",
            cpu(&before)?,
            cpu(&after)?
        );
        let boot = |scrape: &Exposition| scrape.value("incus_boot_time_seconds", &subject.labels());
        assert!(boot(&after)? >= boot(&before)? + 1.0, "{subject:?}");
        assert_eq!(called(&after, &subject.name).len(), 1);
    }
    Ok(())
}

#[test]
fn a_paused_container_is_served_and_its_counters_stand_still() -> Result<()> {
    need!(Podman, Docker, Containerd);
    let daemon = Miharud::start()?;
    let (podman, docker, containerd) = (Podman::start()?, Docker::start()?, Containerd::start()?);
    let namespace = unique("ns");
    let subjects = [
        Subject::of("podman", "podman", &podman.any(&[])?),
        Subject::of("docker", "docker", &docker.any(&[])?),
        Subject::in_namespace(&namespace, &containerd.run(&namespace, "mhp", &[])?),
    ];
    for subject in &subjects {
        // Something that would go on counting.
        inside::run(subject.pid, "(while :; do :; done) </dev/null >/dev/null 2>&1 &")?;
    }
    // runc gives up a freeze that the kernel does not end in time, as under load.
    let pause = |act: &dyn Fn() -> Result<String>| {
        wait_for("runc to freeze a container", Duration::from_secs(20), || act().ok())
    };
    pause(&|| podman.podman(&["pause", &subjects[0].name]))?;
    pause(&|| docker.docker(&["pause", &subjects[1].name]))?;
    pause(&|| containerd.ctr(&namespace, &["task", "pause", "mhp"]))?;
    // Found while paused, too: this daemon has not seen them before.
    let first = scrape_with(&daemon, subjects.iter().map(|subject| &*subject.name))?;
    thread::sleep(Duration::from_millis(500));
    let second = daemon.scrape()?;
    for subject in &subjects {
        for scrape in [&first, &second] {
            subject.assert_served(scrape);
        }
        let cpu = |scrape: &Exposition| scrape.sum("incus_cpu_seconds_total", &subject.labels());
        assert!(cpu(&second)? - cpu(&first)? < 0.01, "{subject:?}");
    }
    podman.podman(&["unpause", &subjects[0].name])?;
    docker.docker(&["unpause", &subjects[1].name])?;
    containerd.ctr(&namespace, &["task", "resume", "mhp"])?;
    for subject in &subjects {
        let cpu = |scrape: &Exposition| scrape.sum("incus_cpu_seconds_total", &subject.labels());
        let paused = cpu(&second)?;
        let goes_on = |scrape: &Exposition| cpu(scrape).is_ok_and(|cpu| cpu > paused);
        daemon.scrape_until(&format!("{subject:?} to go on"), Duration::from_secs(30), goes_on)?;
    }
    Ok(())
}

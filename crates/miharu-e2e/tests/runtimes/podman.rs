//! Containers of podman by their figures: on cgroup version 1 with runc, and with crun in the guest with version 2.

use anyhow::Result;
use miharu_e2e::netns::Netns;
use miharu_e2e::scratch::unique;
use miharu_e2e::{Miharud, Podman, cgroup, need, podman};

use crate::common::{Subject, scrape_with, served};

#[test]
fn figures_of_a_container_and_of_a_member_of_a_pod_are_what_they_did() -> Result<()> {
    need!(Podman);
    let (daemon, podman, netns) = (Miharud::start()?, Podman::start()?, Netns::create()?);
    let pod = unique("pod");
    let id = podman.pod(&pod)?;
    let infra = format!("{}-infra", id.get(..12).unwrap_or_default());
    let subjects = [
        Subject::of("podman", "podman", &podman.any(&["--memory", "256m"])?),
        Subject::new("podman", &format!("podman/{pod}"), &infra, podman.pid(&infra)?),
    ];
    let member = Subject::of("podman", &format!("podman/{pod}"), &podman.any(&["--pod", &pod])?);
    for (number, subject) in (1..).zip(&subjects) {
        subject.prepare(&netns, number)?;
    }
    let before = scrape_with(&daemon, subjects.iter().chain([&member]).map(|subject| &*subject.name))?;
    for subject in subjects.iter().chain([&member]) {
        subject.assert_served(&before);
    }
    let networks =
        |subject: &Subject| before.select("incus_network_receive_bytes_total", &subject.labels()).len();
    assert_eq!(subjects.each_ref().map(networks), [2, 2], "lo and mh0");
    assert_eq!(networks(&member), 0, "a pod's network is counted on its infra container");
    let mut spent = Vec::new();
    for (number, subject) in (1..).zip(&subjects) {
        spent.push(subject.load(&netns, number)?);
    }
    let after = daemon.scrape()?;
    for (subject, spent) in subjects.iter().zip(spent) {
        subject.assert_load(&before, &after, spent)?;
    }
    let source = if cgroup::is_v2() { "cgroup2" } else { "cgroup1" };
    assert_eq!(after.select("incus_instance_info", &subjects[0].labels())[0].label("source"), source);
    // The limit is on the container's cgroup as a whole, wherever the low-level runtime puts its processes.
    let total = after.value("incus_memory_MemTotal_bytes", &subjects[0].labels())?;
    assert_eq!(total, f64::from(256 << 20), "with {}", podman::runtime());
    Ok(())
}

#[test]
fn containers_that_keep_to_other_cgroups_are_served_where_they_have_one_of_their_own() -> Result<()> {
    if !cgroup::is_v2() {
        // runc, which podman uses on version 1, knows no such container.
        return Ok(());
    }
    need!(Podman);
    let (daemon, podman) = (Miharud::start()?, Podman::start()?);
    let usual = Subject::of("podman", "podman", &podman.any(&["--cgroups", "no-conmon"])?);
    let without = podman.any(&["--cgroups", "disabled"])?;
    let scrape = scrape_with(&daemon, [&*usual.name])?;
    usual.assert_served(&scrape);
    // It shares its cgroup with this test: nothing could be told of it that is not somebody else's, too.
    assert_eq!(without.cgroups()?.path("memory")?, cgroup::Cgroups::of(std::process::id())?.path("memory")?);
    assert!(!scrape.instances().contains(&without.name), "{:?}", served(&scrape));
    Ok(())
}

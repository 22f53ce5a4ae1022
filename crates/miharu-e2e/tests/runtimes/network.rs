//! Networks that several containers share, or share with the host: counted once, or not at all.

use std::collections::BTreeSet;

use anyhow::Result;
use miharu_e2e::netns::Netns;
use miharu_e2e::oci::Container;
use miharu_e2e::scratch::unique;
use miharu_e2e::{Docker, Exposition, Miharud, Podman, inside, need, shell};

use crate::common::scrape_with;

/// The names of those among some containers that have network series.
fn with_network(scrape: &Exposition, of: &[&Container]) -> BTreeSet<String> {
    let names = of.iter().map(|container| container.name.clone());
    names
        .filter(|name| !scrape.select("incus_network_receive_bytes_total", &[("name", name)]).is_empty())
        .collect()
}

fn set(containers: &[&Container]) -> BTreeSet<String> {
    containers.iter().map(|container| container.name.clone()).collect()
}

#[test]
fn a_pods_network_is_counted_once_and_is_its_infra_containers() -> Result<()> {
    need!(Podman);
    let (daemon, podman, netns) = (Miharud::start()?, Podman::start()?, Netns::create()?);
    let pod = unique("pod");
    let id = podman.pod(&pod)?;
    let (one, two) = (podman.any(&["--pod", &pod])?, podman.any(&["--pod", &pod])?);
    let infra = format!("{}-infra", id.get(..12).unwrap_or_default());
    let infra = Container { pid: podman.pid(&infra)?, name: infra, id: String::new() };
    inside::connect(infra.pid, &netns, "mho1", "mh0", ("10.79.1.2", "10.79.1.1"))?;
    let before = scrape_with(&daemon, [&*infra.name, &*one.name, &*two.name])?;
    assert_eq!(with_network(&before, &[&infra, &one, &two]), set(&[&infra]));
    // Sent by one of the others, as that is where a pod's programs are.
    one.exec("ping -q -c 10 -i 0.05 -s 1000 10.79.1.1 >/dev/null")?;
    let after = daemon.scrape()?;
    let project = format!("podman/{pod}");
    let sent = |scrape: &Exposition| {
        scrape.sum("incus_network_transmit_packets_total", &[("project", &project), ("device", "mh0")])
    };
    let packets = sent(&after)? - sent(&before)?;
    assert!((10.0..40.0).contains(&packets), "{packets} packets in the whole pod");
    Ok(())
}

#[test]
fn a_network_that_is_joined_is_counted_on_the_one_that_made_it() -> Result<()> {
    need!(Podman, Docker);
    let daemon = Miharud::start()?;
    let (podman, docker) = (Podman::start()?, Docker::start()?);
    let of_podman = podman.any(&[])?;
    let joined = podman.any(&["--network", &format!("container:{}", of_podman.name)])?;
    let of_docker = docker.any(&[])?;
    let joined_too = docker.any(&["--network", &format!("container:{}", of_docker.name)])?;
    let all = [&of_podman, &joined, &of_docker, &joined_too];
    let names = || all.iter().map(|container| &*container.name);
    assert_eq!(with_network(&scrape_with(&daemon, names())?, &all), set(&[&of_podman, &of_docker]));
    // A daemon that meets them all at once says the same.
    assert_eq!(
        with_network(&scrape_with(&Miharud::start()?, names())?, &all),
        set(&[&of_podman, &of_docker])
    );
    // Who is left has it.
    docker.docker(&["rm", "--force", &of_docker.name])?;
    assert_eq!(with_network(&daemon.scrape()?, &all), set(&[&of_podman, &joined_too]));
    Ok(())
}

#[test]
fn the_hosts_network_is_nobodys() -> Result<()> {
    need!(Podman, Docker);
    let daemon = Miharud::start()?;
    let (podman, docker) = (Podman::start()?, Docker::start()?);
    let all = [podman.any(&["--network", "host"])?, docker.any(&["--network", "host"])?];
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let scrape = scrape_with(&daemon, all.iter().map(|container| &*container.name))?;
    for container in &all {
        let inside = shell::run("readlink", [format!("/proc/{}/ns/net", container.pid)])?;
        assert_eq!(inside.trim(), own.to_string_lossy(), "the container is in the host's network");
        assert!(scrape.value("incus_procs_total", &[("name", &container.name)])? > 0.0);
    }
    assert_eq!(with_network(&scrape, &all.each_ref()), BTreeSet::new());
    Ok(())
}

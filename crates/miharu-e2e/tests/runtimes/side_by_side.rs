//! All runtimes at once on one machine, in one scrape: who is who, and what each of them did.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use miharu_e2e::libvirt::Libvirt;
use miharu_e2e::lxd::Lxd;
use miharu_e2e::netns::Netns;
use miharu_e2e::nspawn::Nspawn;
use miharu_e2e::scratch::{self, unique};
use miharu_e2e::vm::{self, Config};
use miharu_e2e::{Containerd, Docker, Exposition, Lxc, Miharud, Podman, Vm, need};

use crate::common::{Subject, served};

#[test]
fn all_runtimes_are_in_one_scrape_with_their_names_and_figures() -> Result<()> {
    // Another test's libvirtd would be in the way, and is waited for.
    let _alone = scratch::alone()?;
    need!(Podman, Docker, Containerd, Nspawn, LibvirtLxc, Lxc, Lxd, Qemu);
    let netns = Netns::create()?;
    let tap = vm::tap(&netns, "mhtap0")?;
    let daemon = Miharud::start()?;
    // Whatever takes time to come up does so beside the others.
    let (podman, docker, containerd, lxd, libvirt, vm) = thread::scope(|scope| {
        let podman = scope.spawn(Podman::start);
        let docker = scope.spawn(Docker::start);
        let containerd = scope.spawn(Containerd::start);
        let lxd = scope.spawn(Lxd::start);
        let libvirt = scope.spawn(Libvirt::start);
        let vm = scope.spawn(|| Vm::start(&Config { monitors: 2, tap: Some(tap), ..Config::default() }));
        anyhow::Ok((
            joined(podman)?,
            joined(docker)?,
            joined(containerd)?,
            joined(lxd)?,
            joined(libvirt)?,
            joined(vm)?,
        ))
    })?;
    let (mut lxd, mut libvirt) = (lxd, libvirt);

    let (pod, shop) = (unique("pod"), unique("shop"));
    podman.pod(&pod)?;
    let label = format!("com.docker.compose.project={shop}");
    let (lxc, nspawn) = (Lxc::start(&[])?, Nspawn::start()?);
    lxd.launch("default", "mhlxd", &[])?;
    let of_lxd: serde_json::Value =
        serde_json::from_str(&lxd.lxc(&["query", "/1.0/instances/mhlxd/state"])?)?;
    let of_lxd = u32::try_from(of_lxd["pid"].as_u64().context("LXD's pid of its container")?)?;
    let namespace = unique("ns");
    let domain = libvirt.lxc("mhlxc")?;
    // Each with a network of its own; a pod's is its infra container's.
    let subjects = [
        Subject::of("podman", "podman", &podman.any(&[])?),
        Subject::of("docker", "docker", &docker.any(&[])?),
        Subject::of("docker", &format!("docker/{shop}"), &docker.any(&["--label", &label])?),
        Subject::in_namespace(&namespace, &containerd.run(&namespace, "mhk1", &[])?),
        Subject::new("lxc", &format!("lxc:{}", lxc.path.display()), &lxc.name, lxc.pid),
        Subject::new("nspawn", "nspawn", &nspawn.name, nspawn.pid),
        Subject::new("lxd", "default", "mhlxd", of_lxd),
        Subject::new("libvirt", "libvirt", "mhlxc", domain),
    ];
    let member = Subject::of("podman", &format!("podman/{pod}"), &podman.any(&["--pod", &pod])?);
    let machine = Subject::new("qemu", "qemu", &vm.name, vm.pid());

    for (number, subject) in (1..).zip(&subjects) {
        subject.prepare(&netns, number).with_context(|| format!("{subject:?}"))?;
    }
    let before = daemon.scrape_until("the monitor's figures", Duration::from_secs(90), |scrape| {
        !scrape.select("incus_disk_written_bytes_total", &machine.labels()).is_empty()
    })?;
    for subject in subjects.iter().chain([&member, &machine]) {
        subject.assert_served(&before);
    }
    let mut spent = Vec::new();
    for (number, subject) in (1..).zip(&subjects) {
        spent.push(subject.load(&netns, number).with_context(|| format!("{subject:?}"))?);
    }
    vm.run(&format!("dd if=/dev/zero of='{}/x' bs=64k count=128 conv=fsync 2>/dev/null", vm::DISK))?;
    vm.run("ping -q -c 10 -s 1000 192.0.2.1 >/dev/null")?;
    let after = daemon.scrape()?;
    for (subject, spent) in subjects.iter().zip(spent) {
        subject.assert_load(&before, &after, spent)?;
    }
    assert_machine(&machine, &before, &after)?;
    // Nothing came or went meanwhile, whatever other tests of this program may run beside.
    let all: Vec<_> = subjects.iter().chain([&member, &machine]).collect();
    for scrape in [&before, &after] {
        for subject in &all {
            let mine = served(scrape).into_iter().filter(|(_, _, name)| *name == subject.name);
            assert_eq!(mine.count(), 1, "{subject:?} has one identity: {:?}", served(scrape));
        }
    }
    Ok(())
}

/// The plain machine wrote 8 MiB to its disk and sent ten packets of 1000 bytes.
fn assert_machine(machine: &Subject, before: &Exposition, after: &Exposition) -> Result<()> {
    let grown = |family: &str, device: &str| -> Result<f64> {
        let [name, project] = machine.labels();
        let labels = [name, project, ("device", device)];
        Ok(after.sum(family, &labels)? - before.sum(family, &labels)?)
    };
    let bytes = f64::from(8 << 20);
    let written = grown("incus_disk_written_bytes_total", "disk0")?;
    assert!((bytes..1.5 * bytes).contains(&written), "{written} bytes for {bytes}");
    for way in ["receive", "transmit"] {
        let packets = grown(&format!("incus_network_{way}_packets_total"), "mhtap0")?;
        assert!((10.0..40.0).contains(&packets), "{way}: {packets} packets");
    }
    let cpu = after.sum("incus_cpu_seconds_total", &machine.labels())?
        - before.sum("incus_cpu_seconds_total", &machine.labels())?;
    assert!(cpu > 0.01, "a guest that wrote and sent used only {cpu} s");
    assert_eq!(after.value("incus_memory_MemTotal_bytes", &machine.labels())?, f64::from(192 << 20));
    Ok(())
}

fn joined<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle.join().map_err(|_| anyhow!("a starter panicked"))?
}

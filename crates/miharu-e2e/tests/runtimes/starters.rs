//! What the harness starts runs, and nothing of it is left when the test is over: no process, no mount, no cgroup.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use miharu_e2e::libvirt::Libvirt;
use miharu_e2e::oci::{self, Container};
use miharu_e2e::{Containerd, Docker, Podman, cgroup, inside, need, scratch, shell};

/// Asserts that a container runs as it should, and gives its cgroups' folders.
fn runs(container: &Container) -> Result<Vec<std::path::PathBuf>> {
    let inside =
        container.exec("readlink /proc/self/ns/net; cat /proc/self/cgroup; ls -l /sbin/init | wc -l")?;
    assert!(inside.ends_with("1\n"), "{inside}");
    let own = fs::read_link("/proc/self/ns/net")?;
    assert!(!inside.contains(&*own.to_string_lossy()), "a network namespace of its own: {inside}");
    let dirs = container.cgroups()?.dirs();
    assert!(dirs.iter().all(|dir| dir.to_string_lossy().contains(&container.id)), "{dirs:?}");
    Ok(dirs)
}

/// Asserts that nothing is left of what ran.
fn is_gone(home: &Path, dirs: &[std::path::PathBuf]) -> Result<()> {
    assert!(oci::monitors(home)?.is_empty(), "a monitor or daemon is left");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let home = home.to_string_lossy();
    assert!(!mounts.contains(&*home), "mounts are left:\n{mounts}");
    for dir in dirs {
        assert!(!dir.exists(), "{} is left", dir.display());
    }
    Ok(())
}

#[test]
fn podman_leaves_nothing() -> Result<()> {
    need!(Podman);
    let podman = Podman::start()?;
    let mut dirs = runs(&podman.any(&[])?)?;
    let pod = podman.pod(&scratch::unique("pod"))?;
    let member = podman.any(&["--pod", &pod])?;
    dirs.extend(runs(&member)?);
    dirs.extend(cgroup::hierarchies().iter().map(|dir| dir.join("libpod_parent").join(&pod)));
    podman.podman(&["pause", &member.name])?;
    let home = podman.home.clone();
    drop(podman);
    is_gone(&home, &dirs)
}

#[test]
fn docker_leaves_nothing_even_when_its_daemon_was_killed() -> Result<()> {
    need!(Docker);
    let mut docker = Docker::with(&["--live-restore"])?;
    let container = docker.any(&[])?;
    let dirs = runs(&container)?;
    docker.kill()?;
    assert_eq!(container.exec("echo on")?, "on\n", "the container goes on");
    let home = docker.home.clone();
    drop(docker);
    is_gone(&home, &dirs)
}

#[test]
fn containerd_leaves_nothing_even_when_it_is_stopped() -> Result<()> {
    need!(Containerd);
    let containerd = Containerd::start()?;
    let dirs = runs(&containerd.run("mh-starters", "k1", &[])?)?;
    shell::run("kill", ["-STOP", &containerd.daemon()?.to_string()])?;
    let home = containerd.home.clone();
    drop(containerd);
    is_gone(&home, &dirs)
}

#[test]
fn a_container_of_libvirt_leaves_nothing() -> Result<()> {
    // Another test's libvirtd would be in the way, and is waited for.
    let _alone = scratch::alone()?;
    need!(LibvirtLxc);
    let mut libvirt = Libvirt::start()?;
    let pid = libvirt.lxc("mhlxc")?;
    let said = inside::run(pid, "cat /proc/self/cgroup; ls /sbin/init")?;
    assert!(said.ends_with("/sbin/init\n"), "{said}");
    let dirs = cgroup::Cgroups::of(pid)?.dirs();
    drop(libvirt);
    // It is a child of process 1 by then, which reaps it when it comes to it.
    shell::wait_for("the init's end", Duration::from_secs(5), || {
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    })?;
    for dir in dirs.iter().filter(|dir| dir.to_string_lossy().contains("mhlxc")) {
        assert!(!dir.exists(), "{} is left", dir.display());
    }
    Ok(())
}

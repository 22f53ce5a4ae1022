//! The server keys that choose instances, on one container of each runtime.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use miharu_e2e::nspawn::Nspawn;
use miharu_e2e::scratch::unique;
use miharu_e2e::{Containerd, Docker, Lxc, Miharud, Podman, need, shell};

use crate::common::{Subject, served};

#[test]
fn each_runtime_is_left_out_by_its_driver_by_a_pattern_and_by_not_being_asked_for() -> Result<()> {
    need!(Podman, Docker, Containerd, Nspawn, Lxc);
    let daemon = Miharud::start()?;
    let (podman, docker, containerd) = (Podman::start()?, Docker::start()?, Containerd::start()?);
    let (lxc, nspawn) = (Lxc::start(&[])?, Nspawn::start()?);
    let (shop, namespace) = (unique("shop"), unique("ns"));
    let label = format!("com.docker.compose.project={shop}");
    let subjects = [
        Subject::of("podman", "podman", &podman.any(&[])?),
        Subject::of("docker", &format!("docker/{shop}"), &docker.any(&["--label", &label])?),
        Subject::in_namespace(&namespace, &containerd.run(&namespace, "mhk1", &[])?),
        Subject::new("lxc", &format!("lxc:{}", lxc.path.display()), &lxc.name, lxc.pid),
        Subject::new("nspawn", "nspawn", &nspawn.name, nspawn.pid),
    ];
    let all: BTreeSet<&str> = subjects.iter().map(|subject| subject.runtime).collect();
    let of_mine = || -> Result<BTreeSet<&str>> {
        let scrape = daemon.scrape()?;
        let all = served(&scrape);
        let is_served = |subject: &&Subject| {
            all.contains(&(subject.runtime.to_owned(), subject.project.clone(), subject.name.clone()))
        };
        Ok(subjects.iter().filter(is_served).map(|subject| subject.runtime).collect())
    };
    let set = |key: &str, value: &str| daemon.miharu(&["config", "set", &format!("{key}={value}")]).map(drop);
    // With other drivers all names are learned anew, which a busy machine may not do within one scrape.
    let settles = |expected: &BTreeSet<&str>, why: &str| -> Result<()> {
        let seen =
            shell::wait_for(why, Duration::from_secs(5), || (of_mine().ok()? == *expected).then_some(()));
        assert!(seen.is_ok(), "{why}: {:?} instead of {expected:?}", of_mine()?);
        Ok(())
    };
    settles(&all, "without any key")?;
    for subject in &subjects {
        let others: BTreeSet<&str> =
            all.iter().copied().filter(|runtime| *runtime != subject.runtime).collect();
        let only = BTreeSet::from([subject.runtime]);
        set("instances.drivers", &format!("-{}", subject.runtime))?;
        settles(&others, &format!("{subject:?}: its driver is off"))?;
        set("instances.drivers", subject.runtime)?;
        settles(&only, &format!("{subject:?}: only its driver is on"))?;
        daemon.miharu(&["config", "unset", "instances.drivers"])?;
        settles(&all, "all drivers again")?;
        for pattern in [
            format!("runtime:{}", subject.runtime),
            format!("project:{}", subject.project),
            format!("name:{}*", subject.name),
        ] {
            set("instances.exclude", &pattern)?;
            assert_eq!(of_mine()?, others, "without {pattern}");
            daemon.miharu(&["config", "unset", "instances.exclude"])?;
            set("instances.include", &pattern)?;
            assert_eq!(of_mine()?, only, "only {pattern}");
            daemon.miharu(&["config", "unset", "instances.include"])?;
        }
    }
    assert_eq!(of_mine()?, all);
    Ok(())
}

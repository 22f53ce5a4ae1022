//! Pods of Kubernetes, as containerd's CRI plugin runs them for a kubelet.

use anyhow::{Context, Result};
use miharu_e2e::scratch::unique;
use miharu_e2e::{Cri, Miharud, need, shell};

use crate::common::{Subject, served};

#[test]
fn a_pod_is_its_containers_and_its_sandbox_whether_containerd_answers_or_not() -> Result<()> {
    need!(Containerd);
    let mut cri = Cri::start()?;
    let (namespace, pod) = (unique("ns"), unique("web"));
    let running = cri.run(&namespace, &pod, "nginx")?;
    let subject = |name: &str, container: &miharu_e2e::oci::Container| {
        let mut container = container.clone();
        container.name = name.to_owned();
        Subject::of("kubernetes", &format!("k8s/{namespace}"), &container)
    };
    let subjects = [
        subject(&format!("{pod}/nginx"), &running.container),
        subject(&format!("{pod}/{pod}"), &running.sandbox),
    ];
    let check = |daemon: &Miharud| -> Result<()> {
        let scrape = daemon.scrape()?;
        for subject in &subjects {
            subject.assert_served(&scrape);
            // The host's network is nobody's.
            assert!(scrape.select("incus_network_receive_bytes_total", &subject.labels()).is_empty());
        }
        let ours = served(&scrape).into_iter().filter(|(_, project, _)| project.ends_with(&namespace));
        assert_eq!(ours.count(), subjects.len(), "each is there once: {:?}", served(&scrape));
        Ok(())
    };
    check(&Miharud::start()?)?;
    // A miharu that has never seen it learns who it is from its bundle.
    let pid = cri.containerd.daemon()?.to_string();
    shell::run("kill", ["-STOP", &pid])?;
    let daemon = Miharud::start()?;
    let learned = shell::wait_for("the names", std::time::Duration::from_secs(10), || {
        served(&daemon.scrape().ok()?)
            .iter()
            .any(|(_, project, _)| project.ends_with(&namespace))
            .then_some(())
    });
    let checked = learned.and_then(|()| check(&daemon));
    shell::run("kill", ["-CONT", &pid])?;
    checked.context("containerd hangs")?;
    cri.containerd.kill()?;
    check(&Miharud::start()?).context("containerd is gone")?;
    cri.containerd.boot()
}

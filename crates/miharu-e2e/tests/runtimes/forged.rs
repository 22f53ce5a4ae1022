//! Cgroups and monitors that only look like a runtime's: believed of root, who needs no forgery, and of nobody else.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use miharu_e2e::forgery::{Forgery, USER};
use miharu_e2e::scratch::unique;
use miharu_e2e::{Miharud, cgroup, need, shell};

#[test]
fn what_a_user_makes_look_like_a_container_is_not_served() -> Result<()> {
    need!(Podman, Docker);
    let _shared = miharu_e2e::oci::Shared::join()?;
    // An id as podman, Docker and containerd give them, which nobody has, and no other run of this test.
    let id = format!("{:08x}", std::process::id()).repeat(8);
    let (id, slice) = (id.as_str(), unique("mhforged"));
    let of_pod = format!("kubepods/burstable/pod11111111-2222-3333-4444-{:012}", std::process::id());
    let podman =
        ["/usr/bin/conmon", "--api-version", "1", "-c", id, "-u", id, "-r", "/usr/bin/runc", "-n", id];
    let shim =
        ["/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", id, "-address", "/run/x.sock"];
    let of_kubernetes =
        ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", id, "-address", "/run/x.sock"];
    let pod = format!("{of_pod}/{id}");
    let mut believed = 0;
    for (cgroup, line) in [
        (format!("libpod_parent/libpod-{id}"), &podman[..]),
        (format!("{slice}/libpod-{id}.scope"), &podman[..]),
        (format!("docker/{id}"), &shim[..]),
        (format!("{slice}/docker-{id}.scope"), &shim[..]),
        (pod, &of_kubernetes[..]),
    ] {
        for user in [USER, "0"] {
            let daemon = Miharud::start()?;
            let forgery = Forgery::start(user, &cgroup, line)?;
            let is_served = || -> Result<bool> {
                let scrape = daemon.scrape()?;
                let infos = scrape.select("incus_instance_info", &[]);
                Ok(infos.iter().any(|info| info.label("id") == id || info.label("name").contains(id)))
            };
            if user == USER {
                for _ in 0..3 {
                    assert!(!is_served()?, "{cgroup}: {line:?}");
                }
            } else {
                // Root's own is believed in the end, which shows that it was only for its owner that the other was not.
                let served =
                    shell::wait_for("root's", Duration::from_secs(4), || is_served().ok()?.then_some(()));
                println!("{cgroup} of root: {}", if served.is_ok() { "served" } else { "not served" });
                believed += u32::from(served.is_ok());
            }
            drop(forgery);
        }
    }
    assert!(believed >= 2, "a forgery that is not even good enough for root's proves nothing: {believed}");
    for cgroup in [slice.as_str(), of_pod.as_str(), "kubepods/burstable", "kubepods"] {
        for hierarchy in cgroup::hierarchies() {
            // Only where nobody else has something in it.
            let _ = fs::remove_dir(hierarchy.join(cgroup));
        }
    }
    Ok(())
}

//! Cgroups and monitors that only look like a runtime's: believed of root, who needs no forgery, and of nobody else.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::scratch::{Entry, Note, unique};
use miharu_e2e::{Miharud, cgroup, guest, measure, need, shell};

/// Some user who is not root.
const USER: &str = "12345";

/// A process that has the command line of a monitor, with a child that is process 1 of a namespace, in a cgroup called as a
/// container's.
struct Forgery {
    child: Child,
    _cgroup: Note,
}

impl Forgery {
    fn start(user: &str, cgroup: &str, line: &[&str]) -> Result<Self> {
        let note = Entry::Leaf(cgroup).note()?;
        let setpriv = guest::find("setpriv").context("setpriv is not installed")?;
        let mut command = Command::new(setpriv);
        command.args(["--reuid", user, "--regid", user, "--clear-groups", "unshare", "--user", "--pid"]);
        // Without a fork, so that the process itself is outside and its first child is the namespace's process 1.
        command
            .args(["bash", "-c", "name=$1; shift; exec -a \"$name\" bash -s -- \"$@\"", "bash"])
            .args(line);
        if user == "0" {
            command = Command::new("unshare");
            command.args([
                "--pid",
                "bash",
                "-c",
                "name=$1; shift; exec -a \"$name\" bash -s -- \"$@\"",
                "bash",
            ]);
            command.args(line);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        child.stdin.take().context("its input")?.write_all(b"sleep 1000 &\nwait\n")?;
        let pid = child.id();
        let mut forgery = Self { child, _cgroup: note };
        let init = shell::wait_for("the forged container", Duration::from_secs(10), || {
            forgery.child.try_wait().ok()?.map_or(Some(()), |_| None)?;
            measure::tree(pid).get(1).copied().filter(|init| {
                fs::read_to_string(format!("/proc/{init}/comm")).is_ok_and(|comm| comm.trim() == "sleep")
            })
        })?;
        for dir in folders(cgroup) {
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("cgroup.procs"), init.to_string())
                .with_context(|| dir.display().to_string())?;
        }
        Ok(forgery)
    }
}

impl Drop for Forgery {
    fn drop(&mut self) {
        let all = measure::tree(self.child.id());
        for pid in all.iter().skip(1) {
            let _ = shell::run("kill", ["-KILL", &pid.to_string()]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The kernel lets a cgroup go only once its last process is no zombie any more.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn folders(cgroup: &str) -> Vec<PathBuf> {
    // A cpuset of version 1 takes no process before it has CPUs, and is nobody's proof of anything.
    let all = cgroup::hierarchies().into_iter().filter(|hierarchy| !hierarchy.ends_with("cpuset"));
    all.map(|hierarchy| hierarchy.join(cgroup)).collect()
}

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

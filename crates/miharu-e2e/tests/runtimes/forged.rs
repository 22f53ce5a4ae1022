//! Cgroups and monitors that only look like a runtime's: believed of root, who needs no forgery, and of nobody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::forgery::{Forgery, USER};
use miharu_e2e::scratch::{self, unique};
use miharu_e2e::{Lxc, Miharud, cgroup, guest, need, shell};

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
                assert_named(&daemon, &forgery, line[0])?;
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

/// What a process is made to look like: the program that a copy of bash is called as, its command line, and the cgroup.
struct Disguise {
    program: Option<&'static str>,
    line: Vec<String>,
    cgroup: String,
}

/// Monitors, supervisors and machines, about a container or machine `name`; `home` is whoever's disguise it is.
fn disguises(home: &Path, name: &str) -> Vec<Disguise> {
    let home = home.display();
    let line = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let payload = |what: &str| format!("lxc.payload.{}", unique(what));
    vec![
        Disguise {
            program: None,
            line: line(&[&format!("[lxc monitor] {home} {name}")]),
            cgroup: payload("mha"),
        },
        Disguise {
            program: Some("lxc-start"),
            line: line(&["lxc-start", "-F", "-P", &home.to_string(), "-n", name]),
            cgroup: payload("mhb"),
        },
        Disguise {
            program: Some("systemd-nspawn"),
            line: line(&["systemd-nspawn", "-M", name]),
            // bash's own options, which come first, end nspawn's, so that the unit tells the name.
            cgroup: format!("machine-{name}.scope"),
        },
        Disguise {
            program: Some("libvirt_lxc"),
            line: line(&["libvirt_lxc", "--name", name]),
            cgroup: format!("lxc-1-{}.libvirt-lxc", unique("mhd")),
        },
        Disguise {
            program: Some("qemu-system-x86_64"),
            line: line(&["qemu-system-x86_64", "-name", name]),
            cgroup: unique("mhe"),
        },
    ]
}

/// A copy of bash that is called otherwise.
fn copy(home: &Path, name: &str) -> Result<PathBuf> {
    let copy = home.join(name);
    fs::copy(guest::find("bash").context("bash")?, &copy)?;
    Ok(copy)
}

fn wear(disguise: &Disguise, home: &Path, user: &str) -> Result<Forgery> {
    let program = disguise.program.map_or(Ok("bash".into()), |name| copy(home, name))?;
    let line: Vec<&str> = disguise.line.iter().map(String::as_str).collect();
    let forgery = Forgery::running(&program, user, &disguise.cgroup, &line)?;
    if disguise.cgroup.contains("machine-") || disguise.cgroup.contains("libvirt") {
        forgery.join(&disguise.cgroup)?;
    }
    Ok(forgery)
}

/// A warning names the process that wears a disguise.
fn assert_named(daemon: &Miharud, forgery: &Forgery, called: &str) -> Result<()> {
    let offender = format!("process {} ", forgery.pid());
    let warnings = || daemon.get("/1.0/warnings?recursion=1").map(|answer| answer.text());
    // What a user's process is called is waited for by the scans together.
    let named = shell::wait_for("the warning", Duration::from_secs(10), || {
        daemon.scrape().ok()?;
        warnings().ok()?.contains(&offender).then_some(())
    });
    named.with_context(|| format!("nobody is told of {called}, {offender}: {:?}", warnings()))
}

#[test]
fn a_renamed_process_makes_no_instance_appear_and_takes_no_name() -> Result<()> {
    need!(Lxc);
    let witness = Lxc::start(&[])?;
    let daemon = Miharud::start()?;
    let name = unique("mhforged");
    let infos = |name: &str| -> Result<Vec<String>> {
        let scrape = daemon.scrape()?;
        let infos = scrape.select("incus_instance_info", &[("name", name)]);
        Ok(infos.into_iter().map(|info| format!("{:?}", info.labels)).collect())
    };
    let before = infos(&witness.name)?;
    assert_eq!(before.len(), 1);
    let home = scratch::dir("home")?;
    fs::create_dir(home.join(&name))?;
    for path in [&home, &home.join(&name)] {
        std::os::unix::fs::chown(path, Some(USER.parse()?), Some(USER.parse()?))?;
    }
    // A user, about an own directory, and about the witness' place and name.
    for (place, called) in [(&home, &name), (&witness.path, &witness.name)] {
        for disguise in disguises(place, called) {
            let forgery = wear(&disguise, &home, USER)?;
            for _ in 0..3 {
                let what = format!("{:?} in {}", disguise.line, disguise.cgroup);
                assert_eq!(infos(&witness.name)?, before, "{what}");
                assert!(infos(&name)?.is_empty(), "{what}: {:?}", infos(&name)?);
            }
            assert_named(&daemon, &forgery, &disguise.line[0])?;
        }
    }
    // Root inside a container, in cgroups below the container's own and, for the machine, in its own.
    let hostile = Lxc::start(&[])?;
    for disguise in disguises(&witness.path, &name) {
        let program = disguise.program.map_or(Ok("bash".into()), |program| copy(&home, program))?;
        let line: Vec<&str> = disguise.line.iter().map(String::as_str).collect();
        let cgroup = format!("lxc.payload.{}/{}", hostile.name, disguise.cgroup);
        let _forgery = Forgery::inside(hostile.pid, &program, &cgroup, &line)?;
        for _ in 0..2 {
            assert_eq!(infos(&witness.name)?, before, "{line:?}");
            assert!(infos(&name)?.is_empty(), "{line:?}: {:?}", infos(&name)?);
        }
    }
    drop(hostile);
    // Root's are believed, which shows that the disguises are good.
    let home = scratch::dir("home")?;
    fs::create_dir(home.join(&name))?;
    let mut believed = Vec::new();
    for disguise in disguises(&home, &name) {
        let _forgery = wear(&disguise, &home, "0")?;
        let seen = shell::wait_for("root's", Duration::from_secs(5), || {
            (!infos(&name).ok()?.is_empty()).then_some(())
        });
        if seen.is_ok() {
            believed.push(disguise.program.unwrap_or("[lxc monitor]"));
        }
    }
    assert_eq!(
        believed,
        ["[lxc monitor]", "lxc-start", "systemd-nspawn", "libvirt_lxc", "qemu-system-x86_64"],
        "a disguise that is not even good enough for root's proves nothing"
    );
    Ok(())
}

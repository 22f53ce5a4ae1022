//! A podman without root's rights, in the guest with cgroup version 2: an ordinary user's containers are served only where the
//! server is told to believe that user.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::scratch::{self, Entry};
use miharu_e2e::{Exposition, Miharud, Podman, cgroup, inside, need};

use crate::common::{Subject, served};

/// The guest's ordinary user.
const USER: &str = "mhu";
const UID: u32 = 1000;

/// The cgroup that the user is given.
const CGROUP: &str = "user.slice/mhu";

/// Hands the user a cgroup as systemd does: a subtree with controllers, and a leaf to be in.
fn delegate() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let dir = root.join(CGROUP);
    fs::create_dir_all(dir.join("own"))?;
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    let parent = dir.parent().context("a parent")?;
    for at in [parent, &dir] {
        for controller in controllers.split_whitespace() {
            fs::write(at.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
    }
    for own in [dir.clone(), dir.join("own")] {
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(own.join(file), Some(UID), Some(UID))?;
        }
    }
    Ok(())
}

#[test]
fn a_users_containers_are_served_only_where_that_user_is_named() -> Result<()> {
    if !cgroup::is_v2() {
        // Nobody gives a user cgroups of version 1.
        return Ok(());
    }
    need!(Podman);
    let _note = Entry::Cgroup(CGROUP).note()?;
    delegate()?;
    let home = scratch::dir("rootless")?;
    chown(&home, Some(UID), Some(UID))?;
    let join = format!("echo $$ >/sys/fs/cgroup/{CGROUP}/own/cgroup.procs; exec \"$@\"");
    let (uid, place) = (UID.to_string(), home.display().to_string());
    let become_user = [
        "/usr/bin/setpriv",
        "--reuid",
        &uid,
        "--regid",
        &uid,
        "--clear-groups",
        "env",
        "XDG_RUNTIME_DIR=/run/user/1000",
    ];
    let (home_is, tmp_is) = (format!("HOME={place}"), format!("TMPDIR={place}"));
    let before = [&["/bin/sh", "-c", &join, "sh"], &become_user[..], &[&home_is, &tmp_is]].concat();
    let podman = Podman::run_by(&home, &before)?;
    let parent = format!("/{CGROUP}");
    let container = podman.any(&["--cgroup-parent", &parent])?;
    assert!(fs::read_to_string(format!("/proc/{}/uid_map", container.pid))?.contains("1000"));
    let subject = Subject::of("podman", &format!("podman@{USER}"), &container);
    let daemon = Miharud::start()?;
    // Other tests' containers run beside it.
    let is_served = |scrape: &Exposition| {
        served(scrape).iter().any(|(_, project, name)| *name == container.name || project.contains('@'))
    };
    for _ in 0..3 {
        assert!(!is_served(&daemon.scrape()?), "nobody said that {USER} is to be believed");
    }
    // Nor is a user's podman a disguise.
    let warnings = daemon.get("/1.0/warnings?recursion=1")?.text();
    assert!(!warnings.contains(&format!("of user {UID} ")), "{warnings}");
    daemon.miharu(&["config", "set", "instances.rootless", USER])?;
    let scrape = daemon.scrape_until("the user's container", Duration::from_secs(5), |scrape| {
        !scrape.select("incus_instance_info", &subject.labels()).is_empty()
    })?;
    subject.assert_served(&scrape);
    let cpu = |scrape: &Exposition| scrape.sum("incus_cpu_seconds_total", &subject.labels());
    inside::run(container.pid, "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")?;
    assert!(cpu(&daemon.scrape()?)? > cpu(&scrape)?);
    daemon.miharu(&["config", "unset", "instances.rootless"])?;
    assert!(!is_served(&daemon.scrape()?));
    Ok(())
}

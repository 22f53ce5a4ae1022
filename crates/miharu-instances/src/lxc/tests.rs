//! Containers in a small recorded tree.

use std::path::Path;

use crate::testing::{Process, Tree, listed, warned};

/// A monitor with the number `pid`, and a container whose init has the next one and whose shell the one after.
fn container(tree: &Tree, pid: u32, path: &str, name: &str) {
    tree.directory(&format!("{path}/{name}"));
    monitor(tree, pid, 0, path, name);
    payload(tree, pid + 1, pid, &format!("lxc.payload.{name}"));
}

fn monitor(tree: &Tree, pid: u32, uid: u32, path: &str, name: &str) {
    tree.process(&Process {
        pid,
        ppid: 1,
        comm: "lxc-start",
        command_line: &format!("[lxc monitor] {path} {name}"),
        uid,
        depth: 1,
        cgroup: &format!("lxc.monitor.{name}"),
    });
}

/// An init that is in `init.scope`, as systemd's, and a child of it elsewhere.
fn payload(tree: &Tree, pid: u32, ppid: u32, cgroup: &str) {
    let init = format!("{cgroup}/init.scope");
    let task = Process { pid, ppid, comm: "init", command_line: "init", uid: 0, depth: 2, cgroup: &init };
    tree.process(&task);
    let below = format!("{cgroup}/system.slice/a.service");
    tree.process(&Process { pid: pid + 1, ppid: pid, cgroup: &below, ..task });
}

#[test]
fn a_container_on_version_2() {
    let tree = Tree::v2();
    container(&tree, 100, "/var/lib/lxc", "u1");
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["lxc lxc u1 101"]);
    assert!(warned(&scan).is_empty());
    let instance = &scan.instances[0];
    assert_eq!(instance.cgroup.unified.as_deref(), Some(Path::new("lxc.payload.u1")));
    assert!(instance.cgroup.v1.is_empty());
    assert_eq!((instance.incarnation.init_pid, instance.incarnation.init_start), (101, 1101));
    assert!(instance.incarnation.cgroup_inode > 0);
    assert_eq!(instance.directory, "u1");
}

#[test]
fn a_container_on_a_hybrid_host() {
    let tree = Tree::v1();
    container(&tree, 100, "/srv/lxc", "u1");
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["lxc lxc:/srv/lxc u1 101"]);
    let cgroup = &scan.instances[0].cgroup;
    assert_eq!(cgroup.v1.keys().collect::<Vec<_>>(), ["cpu", "cpuacct", "memory", "name=systemd"]);
    assert!(cgroup.v1.values().chain(&cgroup.unified).all(|path| path == Path::new("lxc.payload.u1")));
}

#[test]
fn projects_of_lxd_and_incus() {
    let tree = Tree::v2();
    tree.file("var/lib/incus/unix.socket", "");
    tree.directory("var/lib/incus/guestapi");
    tree.directory("data/lxd/database");
    tree.directory("data/lxd/devlxd");
    container(&tree, 100, "/var/lib/incus/containers", "c1");
    container(&tree, 200, "/data/lxd/containers", "foo_c1");
    container(&tree, 300, "/srv/containers", "foo_c2");
    assert_eq!(
        listed(&tree.scan()),
        ["incus default c1 101", "lxd foo c1 201", "lxc lxc:/srv/containers foo_c2 301"]
    );
}

#[test]
fn the_name_is_the_monitors() {
    let tree = Tree::v2();
    tree.directory("/var/lib/lxc/u1");
    monitor(&tree, 100, 0, "/var/lib/lxc", "u1");
    payload(&tree, 101, 100, "lxc.payload.u1-1");
    assert_eq!(listed(&tree.scan()), ["lxc lxc u1 101"]);
}

#[test]
fn who_came_in_by_attach_is_not_the_init() {
    let tree = Tree::v2();
    let attach = Process {
        pid: 50,
        ppid: 1,
        comm: "lxc-attach",
        command_line: "lxc-attach|-n|u1",
        uid: 0,
        depth: 1,
        cgroup: "x",
    };
    tree.process(&attach);
    // Of a lower number than init, and right in the payload, where it is seen first.
    tree.process(&Process { pid: 51, ppid: 50, comm: "sh", depth: 2, cgroup: "lxc.payload.u1", ..attach });
    container(&tree, 100, "/var/lib/lxc", "u1");
    assert_eq!(listed(&tree.scan()), ["lxc lxc u1 101"]);
}

#[test]
fn nested_containers_are_not_the_hosts() {
    let tree = Tree::v2();
    container(&tree, 100, "/var/lib/lxc", "u1");
    tree.directory("/var/lib/lxc/inner");
    let nested = Process {
        pid: 110,
        ppid: 101,
        comm: "lxc-start",
        command_line: "[lxc monitor] /var/lib/lxc inner",
        uid: 0,
        depth: 2,
        cgroup: "lxc.payload.u1/lxc.monitor.inner",
    };
    tree.process(&nested);
    payload(&tree, 111, 110, "lxc.payload.u1/lxc.payload.inner");
    // The same, from a container whose cgroup nobody knows.
    tree.process(&Process { pid: 120, cgroup: "other/lxc.monitor.inner", ..nested });
    payload(&tree, 121, 120, "other/lxc.payload.inner");
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["lxc lxc u1 101"]);
    assert!(warned(&scan).is_empty());
}

#[test]
fn a_users_process_cannot_speak_for_others() {
    let other_user = rustix::process::geteuid().as_raw() + 4242;
    let tree = Tree::v2();
    tree.directory("/var/lib/lxc/u1");
    monitor(&tree, 100, other_user, "/var/lib/lxc", "u1");
    payload(&tree, 101, 100, "user.slice/lxc.payload.u1");
    tree.runs(100, "/recorded/bin/sleep");
    let scan = tree.scan();
    assert!(listed(&scan).is_empty(), "the title alone makes no monitor");
    let called = [format!(
        "user.slice/lxc.payload.u1 is not served: process 100 of user {other_user} calls itself a monitor of LXC, and only \
         root's is believed"
    )];
    assert_eq!(warned(&scan), called);
    tree.file("proc/100/cmdline", "sleep\09\0");
    assert!(warned(&tree.scan()).is_empty(), "anybody may have a cgroup of that name");
    monitor(&tree, 100, other_user, "/var/lib/lxc", "u1");
    tree.runs(100, "/anybodys/lxc-start");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    std::fs::set_permissions(tree.path("anybodys"), everybody).unwrap();
    let told = warned(&tree.scan());
    assert!(told[0].contains("process 100 runs /anybodys/lxc-start, which others than root"), "{told:?}");
    tree.runs(100, "/recorded/bin/lxc-start");
    let not_its_own = [format!(
        "user.slice/lxc.payload.u1 is not served: process 100 of user {other_user} speaks for \
         /var/lib/lxc/u1, which is not that user's"
    )];
    let scan = tree.scan();
    assert_eq!(listed(&scan), [""; 0]);
    assert_eq!(warned(&scan), not_its_own);
    // After an upgrade of LXC it is its program still.
    let link = tree.path("proc/100/exe");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("/recorded/bin/lxc-start (deleted)", link).unwrap();
    assert_eq!(warned(&tree.scan()), not_its_own);
}

#[test]
fn a_container_without_a_directory_is_not_believed() {
    let tree = Tree::v2();
    monitor(&tree, 100, 0, "/var/lib/lxc/../x", "u1");
    payload(&tree, 101, 100, "lxc.payload.u1");
    let scan = tree.scan();
    assert_eq!(listed(&scan), [""; 0]);
    assert_eq!(warned(&scan).len(), 1);
}

#[test]
fn the_older_of_two_with_one_name_is_served() {
    let tree = Tree::v2();
    for daemon in ["incus", "lxd"] {
        tree.file(&format!("var/lib/{daemon}/unix.socket"), "");
    }
    container(&tree, 100, "/var/lib/incus/containers", "c1");
    monitor(&tree, 200, 0, "/var/lib/lxd/containers", "c1");
    tree.directory("/var/lib/lxd/containers/c1");
    payload(&tree, 201, 200, "lxc.payload.c1-1");
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["incus default c1 101"]);
    assert_eq!(
        warned(&scan),
        [
            "two instances are called c1 in project default: the older, with process 101, is served, the one with \
          process 201 is not"
        ]
    );
}

#[test]
fn instances_come_go_and_begin_again() {
    let tree = Tree::v2();
    let mut discovery = tree.discovery();
    assert_eq!(listed(&discovery.scan().unwrap()), [""; 0]);
    container(&tree, 100, "/var/lib/lxc", "u1");
    let first = discovery.scan().unwrap();
    assert_eq!(listed(&first), ["lxc lxc u1 101"]);
    let again = discovery.scan().unwrap();
    assert!(std::sync::Arc::ptr_eq(&first.instances[0], &again.instances[0]), "known by then");
    // It reboots: another init under the same monitor, in the same cgroup.
    tree.end(101);
    tree.end(102);
    payload(&tree, 105, 100, "lxc.payload.u1");
    assert_eq!(listed(&discovery.scan().unwrap()), ["lxc lxc u1 105"]);
    tree.end(105);
    tree.end(106);
    assert_eq!(listed(&discovery.scan().unwrap()), [""; 0]);
}

//! Containers in a small recorded tree, laid out as libvirt 9 and systemd do.

use std::path::Path;

use proptest::prelude::*;

use super::{is_container, name};
use crate::testing::{Process, Tree, listed, warned};

const UUID: &str = "f520aa47-9c61-46be-8fa1-69210f2dcbeb";

/// A controller with the number `pid` in `cgroup`, and its container's init with the next one in `init`.
fn container(tree: &Tree, pid: u32, cgroup: &str, init: &str, name: &str) {
    let command_line = format!(
        "/usr/lib/libvirt/libvirt_lxc|--name|{name}|--console|27|--security=none|--handshakefds|32:31"
    );
    let process =
        Process { pid, ppid: 1, comm: "libvirt_lxc", command_line: &command_line, uid: 0, depth: 1, cgroup };
    tree.process(&process);
    tree.process(&Process {
        pid: pid + 1,
        ppid: pid,
        comm: "init",
        command_line: "/sbin/init",
        depth: 2,
        cgroup: init,
        ..process
    });
}

fn state(tree: &Tree, pid: u32, name: &str) {
    tree.file(
        &format!("run/libvirt/lxc/{name}.xml"),
        &format!(
            "<domstatus pid='{pid}'><domain type='lxc'><name>{name}</name><uuid>{UUID}</uuid><devices>\
             <filesystem type='mount'><source dir='/srv/tree'/><target dir='/'/></filesystem></devices></domain></domstatus>"
        ),
    );
}

#[test]
fn a_container_where_libvirt_makes_the_cgroup() {
    for tree in [Tree::v1(), Tree::v2()] {
        let cgroup = "machine/lxc-100-web-1.x.libvirt-lxc";
        container(&tree, 100, cgroup, &format!("{cgroup}/init.scope"), "web-1.x");
        state(&tree, 100, "web-1.x");
        let scan = tree.scan();
        assert_eq!(listed(&scan), ["libvirt libvirt web-1.x 101"]);
        assert!(warned(&scan).is_empty());
        let found = &scan.instances[0];
        assert_eq!((found.id.as_str(), found.kind.as_str()), (UUID, "container"));
        assert_eq!(found.cgroup.unified.as_deref(), Some(Path::new(cgroup)));
        assert_eq!(found.directory, "tree");
    }
}

#[test]
fn a_container_in_a_scope_of_systemds() {
    let tree = Tree::v2();
    let scope = r"machine.slice/machine-lxc\x2d100\x2dweb\x2d1.x.scope";
    let nested = format!("{scope}/libvirt");
    container(&tree, 100, &nested, &nested, "web-1.x");
    state(&tree, 100, "web-1.x");
    // libvirt registers its containers with machined, which is no reason to serve them as nspawn's, too.
    tree.file("run/systemd/machines/lxc-100-web-1.x", "SERVICE=libvirt-lxc\nCLASS=container\nLEADER=101\n");
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["libvirt libvirt web-1.x 101"]);
    assert_eq!(scan.instances[0].cgroup.unified.as_deref(), Some(Path::new(scope)));
}

#[test]
fn without_its_state_the_name_is_the_id_from_the_second_look_on() {
    let tree = Tree::v1();
    let cgroup = "machine/lxc-100-web.libvirt-lxc";
    container(&tree, 100, cgroup, cgroup, "web");
    // Another container's, and so of no use.
    state(&tree, 99, "web");
    let mut discovery = tree.discovery();
    assert!(listed(&discovery.scan().unwrap()).is_empty(), "libvirtd may be about to write it");
    let scan = discovery.scan().unwrap();
    assert_eq!(listed(&scan), ["libvirt libvirt web 101"]);
    assert_eq!((scan.instances[0].id.as_str(), &scan.instances[0].directory), ("web", &"web".into()));
}

#[test]
fn nobody_else_passes_for_a_controller() {
    let tree = Tree::v2();
    let cgroup = |name: &str| format!("machine/lxc-1-{name}.libvirt-lxc");
    let process = |pid, ppid, comm, uid, depth, cgroup: &str| {
        tree.process(&Process {
            pid,
            ppid,
            comm,
            command_line: "libvirt_lxc|--name|fake",
            uid,
            depth,
            cgroup,
        });
    };
    // A user's, one inside a container, and one whose child shares the host's pid namespace.
    for (pid, uid, depth, below) in [(100, 1000, 1, 2), (200, 0, 2, 3), (300, 0, 1, 1)] {
        let cgroup = cgroup(&pid.to_string());
        process(pid, 1, "libvirt_lxc", uid, depth, &cgroup);
        process(pid + 1, pid, "init", uid, below, &cgroup);
    }
    let mut discovery = tree.discovery();
    for _ in 0..2 {
        let scan = discovery.scan().unwrap();
        assert!(listed(&scan).is_empty());
        let called = "process 100 of user 1000 calls itself libvirt_lxc, and only root's is believed";
        assert!(matches!(&warned(&scan)[..], [only] if only.ends_with(called)), "{:?}", warned(&scan));
    }
}

#[test]
fn names_of_cgroups() {
    for claimed in ["lxc-1-a.libvirt-lxc", r"machine-lxc\x2d1\x2da.scope"] {
        assert!(is_container(claimed.as_ref()), "{claimed}");
    }
    for other in ["lxc-.libvirt-lxc", "lxc-1-a", "machine-lxc-1.scope", "qemu-1-a.libvirt-qemu"] {
        assert!(!is_container(other.as_ref()), "{other}");
    }
}

#[test]
fn names_on_a_command_line() {
    let given = |line: &str| name(line.replace('|', "\0").as_bytes());
    assert_eq!(given("libvirt_lxc|--name|a b|--console|1").as_deref(), Some("a b"));
    assert_eq!(given("libvirt_lxc|--console|1|--name=c").as_deref(), Some("c"));
    for none in ["libvirt_lxc", "libvirt_lxc|--name", "libvirt_lxc|--name|../x", "--name|x"] {
        assert_eq!(given(none), None, "{none}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(line in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = name(&line);
        let _ = super::container_cgroup(Path::new(String::from_utf8_lossy(&line).as_ref()));
    }
}

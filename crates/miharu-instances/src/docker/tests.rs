//! Recorded trees of Docker's, as they were seen on a real host.

use std::os::unix::fs::symlink;

use crate::testing::{Process, Tree, listed, warned};

const ID: &str = "f58f5aef7fdd2e59f29738e4ab05ba84d7acd067e06f4ebc20f45df8170504fd";
const OTHER: &str = "067518a9d5e9e488a9f678bc95c32ce3e8eea469db4ad2ca9f99cb313f675e48";
const TASKS: &str = "/exec/containerd/daemon/io.containerd.runtime.v2.task";

/// A shim of that user for a container, which it tells the bundle of.
fn shim(tree: &Tree, namespace: &str, id: &str, pid: u32, uid: u32) {
    let line =
        format!("/usr/bin/containerd-shim-runc-v2|-namespace|{namespace}|-id|{id}|-address|/exec/c.sock");
    let cgroup = "system.slice/docker.service";
    let process =
        Process { pid, ppid: 1, comm: "containerd-shim", command_line: &line, uid, depth: 1, cgroup };
    tree.process(&process);
    symlink(format!("{TASKS}/{namespace}/{id}"), tree.path(&format!("proc/{pid}/cwd"))).unwrap();
    let config = r#"{"root": {"path": "/data/overlay2/4503/merged"}, "linux": {"cgroupsPath": "/docker/x"}}"#;
    tree.file(&format!("{TASKS}/{namespace}/{id}/config.json"), config);
}

/// A process in a container's cgroup.
fn inside(tree: &Tree, pid: u32, ppid: u32, cgroup: &str) {
    tree.process(&Process { pid, ppid, comm: "sleep", command_line: "sleep|9", uid: 0, depth: 2, cgroup });
}

/// What Docker keeps of a container.
fn record(tree: &Tree, root: &str, id: &str, name: &str, labels: &str) {
    let text = format!(
        r#"{{"ID":"{id}","Name":"/{name}","Image":"sha256:2155","Driver":"overlay2",
        "Config":{{"Image":"bb:1","Labels":{{{labels}}}}}}}"#
    );
    tree.file(&format!("{root}/containers/{id}/config.v2.json"), &text);
}

#[test]
fn containers_of_both_managers_on_both_versions() {
    for cgroup in [format!("docker/{ID}"), format!("system.slice/docker-{ID}.scope"), format!("my/own/{ID}")]
    {
        for tree in [Tree::v1(), Tree::v2()] {
            shim(&tree, "moby", ID, 100, 0);
            // What was exec'd has the shim for a parent, too.
            inside(&tree, 101, 100, &cgroup);
            inside(&tree, 102, 100, &cgroup);
            record(&tree, "/data", ID, "web", "");
            let scan = tree.scan();
            assert_eq!(listed(&scan), ["docker docker web 101"], "{cgroup}");
            assert!(warned(&scan).is_empty());
            let instance = &scan.instances[0];
            assert_eq!((instance.id.as_str(), instance.image.as_deref()), (ID, Some("bb:1")));
            let mut paths = instance.cgroup.unified.iter().chain(instance.cgroup.v1.values());
            assert!(paths.all(|path| path.to_str() == Some(&cgroup)), "{:?}", instance.cgroup);
        }
    }
}

#[test]
fn the_systems_data_root_and_compose() {
    let tree = Tree::v2();
    shim(&tree, "moby", ID, 100, 0);
    inside(&tree, 101, 100, &format!("docker/{ID}"));
    record(&tree, "/var/lib/docker", ID, "web", r#""com.docker.compose.project": "shop""#);
    assert_eq!(listed(&tree.scan()), ["docker docker/shop web 101"]);
    let image = r#"{"config": {"Labels": {"com.docker.compose.project": "shop"}}}"#;
    tree.file("/var/lib/docker/image/overlay2/imagedb/content/sha256/2155", image);
    assert_eq!(listed(&tree.scan()), ["docker docker web 101"], "the image says so");
}

#[test]
fn one_that_is_not_known_is_served_under_its_short_id() {
    let tree = Tree::v2();
    shim(&tree, "moby", ID, 100, 0);
    inside(&tree, 101, 100, &format!("docker/{ID}"));
    record(&tree, "/data", OTHER, "web", "");
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["docker docker f58f5aef7fdd 101"]);
    assert_eq!(warned(&scan).len(), 1, "{:?}", warned(&scan));
}

#[test]
fn another_namespace_is_dockers_where_docker_keeps_a_record() {
    let tree = Tree::v2();
    for (id, pid) in [(ID, 100), (OTHER, 200)] {
        shim(&tree, "second", id, pid, 0);
        inside(&tree, pid + 1, pid, &format!("docker/{id}"));
    }
    record(&tree, "/data", ID, "web", "");
    let scan = tree.scan();
    assert!(listed(&scan).contains(&"docker docker web 101".to_owned()), "{:?}", listed(&scan));
    assert!(!listed(&scan).iter().any(|line| line.starts_with("docker") && line.ends_with("201")));
}

#[test]
fn who_is_not_to_be_believed() {
    let tree = Tree::v2();
    record(&tree, "/data", ID, "web", "");
    record(&tree, "/data", OTHER, "db", "");
    // A user's process that calls itself a shim, and one of a container.
    shim(&tree, "moby", ID, 100, 1000);
    inside(&tree, 101, 100, &format!("user.slice/{ID}"));
    shim(&tree, "moby", OTHER, 200, 0);
    let line = format!("containerd-shim-runc-v2|-namespace|moby|-id|{OTHER}");
    let forged = Process {
        pid: 200,
        ppid: 1,
        comm: "x",
        command_line: &line,
        uid: 0,
        depth: 2,
        cgroup: "lxc.payload.c1",
    };
    tree.process(&forged);
    inside(&tree, 201, 200, &format!("own/{OTHER}"));
    assert!(tree.scan().instances.is_empty(), "{:?}", listed(&tree.scan()));
    // The true shim of a Docker that a user runs is no disguise.
    tree.runs(100, "/recorded/bin/containerd-shim-runc-v2");
    assert!(warned(&tree.scan()).is_empty());
    tree.runs(100, "/recorded/ann/containerd-shim-runc-v2");
    std::fs::set_permissions(tree.path("recorded/ann"), std::os::unix::fs::PermissionsExt::from_mode(0o1777))
        .unwrap();
    assert!(warned(&tree.scan()).is_empty(), "nor is one that the user put there");
    tree.runs(100, "/recorded/bin/containerd-shim-runc-v2 (deleted)");
    assert!(warned(&tree.scan()).is_empty(), "nor one that was upgraded");
    tree.runs(100, "/recorded/bin/bash");
    let called = format!(
        "user.slice/{ID} is not served: process 100 of user 1000 calls itself containerd-shim-runc-v2, and only root's is believed"
    );
    assert_eq!(warned(&tree.scan()), [called]);
}

#[test]
fn another_containers_shim_speaks_for_nobody() {
    let tree = Tree::v2();
    record(&tree, "/data", ID, "web", "");
    shim(&tree, "moby", OTHER, 100, 0);
    inside(&tree, 101, 100, &format!("docker/{ID}"));
    assert!(!listed(&tree.scan()).iter().any(|line| line.starts_with("docker")));
}

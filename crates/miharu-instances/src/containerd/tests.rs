//! Recorded trees of containerd's, as they were seen on a real host.

use std::os::unix::fs::symlink;

use crate::testing::{Process, Tree, listed, warned};

const ID: &str = "f58f5aef7fdd2e59f29738e4ab05ba84d7acd067e06f4ebc20f45df8170504fd";
const STATE: &str = "/run/containerd";

/// A running container: the shim is the init's number less one.
fn container(tree: &Tree, state: &str, namespace: &str, id: &str, pid: u32, cgroup: &str) {
    let shim = pid - 1;
    let bundle = format!("{state}/io.containerd.runtime.v2.task/{namespace}/{id}");
    let line =
        format!("/usr/bin/containerd-shim-runc-v2|-namespace|{namespace}|-id|{id}|-address|{state}/c.sock");
    let comm = "containerd-shim";
    tree.process(&Process { pid: shim, ppid: 1, comm, command_line: &line, uid: 0, depth: 1, cgroup: "s" });
    symlink(&bundle, tree.path(&format!("proc/{shim}/cwd"))).unwrap();
    tree.file(&format!("{bundle}/config.json"), &format!(r#"{{"linux": {{"cgroupsPath": "/{cgroup}"}}}}"#));
    tree.file(&format!("{bundle}/init.pid"), &pid.to_string());
    tree.file(&format!("{bundle}/address"), &format!("unix:///run/containerd/s/{namespace}{id}"));
    tree.file(&format!("/run/containerd/s/{namespace}{id}"), "");
    tree.process(&Process {
        pid,
        ppid: shim,
        comm: "sleep",
        command_line: "sleep|9",
        uid: 0,
        depth: 2,
        cgroup,
    });
}

#[test]
fn containers_of_any_name_in_their_namespaces() {
    for tree in [Tree::v1(), Tree::v2()] {
        container(&tree, STATE, "default", "k1", 101, "default/k1");
        container(&tree, STATE, "other", "k1", 201, "other/k1");
        container(&tree, STATE, "own", "a.b", 301, "some/where");
        container(&tree, STATE, "same", "same", 401, "same/same");
        let scan = tree.scan();
        let expected = [
            "containerd containerd/default k1 101",
            "containerd containerd/other k1 201",
            "containerd containerd/own a.b 301",
            "containerd containerd/same same 401",
        ];
        assert_eq!(listed(&scan), expected);
        assert!(warned(&scan).is_empty());
        assert_eq!(scan.instances[1].id, "other/k1");
        for (place, cgroup) in [(2, "some/where"), (3, "same/same")] {
            let own = &scan.instances[place].cgroup;
            assert!(own.unified.iter().chain(own.v1.values()).all(|path| path.to_str() == Some(cgroup)));
        }
    }
}

#[test]
fn what_runs_inside_one_is_not_looked_into() {
    let tree = Tree::v2();
    container(&tree, STATE, "default", "k1", 101, "default/k1");
    container(&tree, STATE, "moby", ID, 201, &format!("default/k1/docker/{ID}"));
    assert_eq!(listed(&tree.scan()), ["containerd containerd/default k1 101"]);
}

#[test]
fn they_come_and_go() {
    let tree = Tree::v2();
    let mut discovery = tree.discovery();
    let mut list = || listed(&discovery.scan().unwrap());
    assert!(list().is_empty());
    container(&tree, STATE, "default", "k1", 101, "default/k1");
    assert_eq!(list(), ["containerd containerd/default k1 101"]);
    // It is started anew under its name.
    tree.end(101);
    std::fs::remove_dir_all(tree.path(&format!("{STATE}/io.containerd.runtime.v2.task/default/k1"))).unwrap();
    std::fs::remove_dir_all(tree.path("sys/fs/cgroup/default/k1")).unwrap();
    assert!(list().is_empty());
    container(&tree, STATE, "default", "k1", 201, "default/k1");
    container(&tree, STATE, "new", "k2", 301, "new/k2");
    assert_eq!(list(), ["containerd containerd/default k1 201", "containerd containerd/new k2 301"]);
}

#[test]
fn a_state_directory_elsewhere_is_found_by_its_shims() {
    let tree = Tree::v2();
    let mut discovery = tree.discovery();
    let mut list = || listed(&discovery.scan().unwrap());
    assert!(list().is_empty());
    container(&tree, "/own/state", "default", "k1", 101, "default/k1");
    assert_eq!(list(), ["containerd containerd/default k1 101"]);
    // The second one's socket is explained without another look at the shims.
    container(&tree, "/own/state", "default", "k2", 201, "default/k2");
    assert_eq!(list().len(), 2);
}

#[test]
fn a_name_by_nerdctl() {
    let tree = Tree::v2();
    container(&tree, STATE, "default", ID, 101, &format!("default/{ID}"));
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["containerd containerd/default f58f5aef7fdd 101"]);
    assert_eq!(warned(&scan).len(), 1, "an id that nobody chose is no name");
    let config = format!("{STATE}/io.containerd.runtime.v2.task/default/{ID}/config.json");
    tree.file(
        &config,
        &format!(
            r#"{{"annotations": {{"nerdctl/name": "web"}}, "linux": {{"cgroupsPath": "/default/{ID}"}}}}"#
        ),
    );
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["containerd containerd/default web 101"]);
    assert!(warned(&scan).is_empty());
    // An id that somebody chose stays, whatever the image says.
    container(&tree, STATE, "default", "k1", 201, "default/k1");
    let config = format!("{STATE}/io.containerd.runtime.v2.task/default/k1/config.json");
    tree.file(&config, r#"{"annotations": {"nerdctl/name": "db"}, "linux": {"cgroupsPath": "/default/k1"}}"#);
    let expected = ["containerd containerd/default k1 201", "containerd containerd/default web 101"];
    assert_eq!(listed(&tree.scan()), expected);
}

#[test]
fn what_stands_there_is_not_believed_without_a_shim_of_roots() {
    let tree = Tree::v2();
    container(&tree, STATE, "default", "k1", 101, "default/k1");
    let line = "containerd-shim-runc-v2|-namespace|default|-id|k1";
    tree.process(&Process {
        pid: 100,
        ppid: 1,
        comm: "x",
        command_line: line,
        uid: 1000,
        depth: 1,
        cgroup: "s",
    });
    assert!(tree.scan().instances.is_empty());
    // A number that another process has by now.
    let tree = Tree::v2();
    container(&tree, STATE, "default", "k1", 101, "default/k1");
    tree.process(&Process { pid: 101, ppid: 1, comm: "x", command_line: "x", uid: 0, depth: 1, cgroup: "y" });
    assert!(tree.scan().instances.is_empty());
}

//! Recorded trees of kubelets' layouts: containerd's as they were seen on a real host, the others as they are documented.

use std::os::unix::fs::symlink;

use crate::testing::{Process, Tree, listed, warned};

const SANDBOX: &str = "6fae0cce5ba650f9586ba78caf78ca7f53ee2939ac2ad0f4b2472b2469203314";
const ID: &str = "b9ee0af01eb81eac02e3755c73861554a6227bae00977a5865b2e8947cf2e7fd";
const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";

fn monitor(tree: &Tree, pid: u32, line: &str, directory: &str) {
    let cgroup = "system.slice/containerd.service";
    tree.process(&Process { pid, ppid: 1, comm: "monitor", command_line: line, uid: 0, depth: 1, cgroup });
    symlink(directory, tree.path(&format!("proc/{pid}/cwd"))).unwrap();
}

fn inside(tree: &Tree, pid: u32, ppid: u32, cgroup: &str) {
    tree.process(&Process { pid, ppid, comm: "sleep", command_line: "sleep|9", uid: 0, depth: 2, cgroup });
}

/// A pod of containerd's: one shim for the sandbox and the container in it.
fn of_containerd(tree: &Tree, cgroups: [&str; 2]) {
    let line = format!(
        "containerd-shim-runc-v2|-namespace|k8s.io|-id|{SANDBOX}|-address|/run/containerd/containerd.sock"
    );
    monitor(tree, 100, &line, &format!("{TASKS}/k8s.io/{SANDBOX}"));
    for (pid, cgroup) in [101, 102].into_iter().zip(cgroups) {
        inside(tree, pid, 100, cgroup);
    }
    let pod = r#""io.kubernetes.cri.sandbox-name": "web-0", "io.kubernetes.cri.sandbox-namespace": "shop""#;
    let sandbox = format!(r#"{{"annotations": {{{pod}, "io.kubernetes.cri.container-type": "sandbox"}}}}"#);
    tree.file(&format!("{TASKS}/k8s.io/{SANDBOX}/config.json"), &sandbox);
    let container = format!(
        r#"{{"annotations": {{{pod}, "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "nginx", "io.kubernetes.cri.image-name": "nginx:1"}}}}"#
    );
    tree.file(&format!("{TASKS}/k8s.io/{ID}/config.json"), &container);
}

const SERVED: [&str; 2] = ["kubernetes k8s/shop web-0/nginx 102", "kubernetes k8s/shop web-0/web-0 101"];

#[test]
fn pods_of_containerd_by_both_drivers_of_cgroups() {
    let slice = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11_22.slice";
    for [sandbox, container] in [
        [format!("kubepods/burstable/pod11-22/{SANDBOX}"), format!("kubepods/burstable/pod11-22/{ID}")],
        [format!("{slice}/cri-containerd-{SANDBOX}.scope"), format!("{slice}/cri-containerd-{ID}.scope")],
        // A pod that crictl runs is below nothing in particular.
        [format!("k8s.io/{SANDBOX}"), format!("k8s.io/{ID}")],
    ] {
        for tree in [Tree::v1(), Tree::v2()] {
            of_containerd(&tree, [&sandbox, &container]);
            let scan = tree.scan();
            assert_eq!(listed(&scan), SERVED, "{container}");
            assert!(warned(&scan).is_empty());
            let [nginx, pause] = &scan.instances[..] else { panic!("{:?}", listed(&scan)) };
            assert_eq!(
                (nginx.image.as_deref(), nginx.is_sandbox, nginx.id.as_str()),
                (Some("nginx:1"), false, ID)
            );
            assert_eq!((pause.image.as_deref(), pause.is_sandbox), (None, true));
        }
    }
}

#[test]
fn pods_of_crio() {
    let tree = Tree::v2();
    let slice = "kubepods.slice/kubepods-pod11_22.slice";
    for (pid, id, name) in [(100, SANDBOX, "POD"), (200, ID, "nginx")] {
        let bundle = format!("/var/run/containers/storage/overlay-containers/{id}/userdata");
        let line = format!(
            "/usr/bin/conmon|-b|{bundle}|-c|{id}|-n|k8s_{name}_web-0_shop_11-22_0|-s|-r|/usr/bin/crun|-u|{id}"
        );
        tree.process(&Process {
            pid,
            ppid: 1,
            comm: "conmon",
            command_line: &line,
            uid: 0,
            depth: 1,
            cgroup: &format!("{slice}/crio-conmon-{id}.scope"),
        });
        // crun puts the processes one further down.
        inside(&tree, pid + 1, pid, &format!("{slice}/crio-{id}.scope/container"));
        // With one that whoever made the pod has put there.
        let image = r#"{"annotations": {"io.kubernetes.cri-o.ImageName": "quay.io/nginx:1",
            "io.kubernetes.cri-o.ContainerName": "k8s_POD_x_bank_1_0"}}"#;
        tree.file(&format!("/run/containers/storage/overlay-containers/{id}/userdata/config.json"), image);
    }
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["kubernetes k8s/shop web-0/nginx 201", "kubernetes k8s/shop web-0/web-0 101"]);
    let nginx = &scan.instances[0];
    assert_eq!(nginx.image.as_deref(), Some("quay.io/nginx:1"));
    let whole = format!("{slice}/crio-{ID}.scope");
    assert_eq!(nginx.cgroup.unified.as_deref().and_then(|path| path.to_str()), Some(whole.as_str()));
}

#[test]
fn a_pod_of_crio_with_one_monitor() {
    let tree = Tree::v1();
    let bundles = "/run/containers/storage/overlay-containers";
    monitor(&tree, 100, "/usr/bin/conmonrs|--runtime|/usr/bin/crun", "/");
    inside(&tree, 101, 100, &format!("kubepods/besteffort/pod11-22/crio-{ID}"));
    let note = r#"{"annotations": {"io.kubernetes.cri-o.ContainerName": "k8s_nginx_web-0_shop_11-22_0"}}"#;
    tree.file(&format!("{bundles}/{ID}/userdata/config.json"), note);
    assert_eq!(listed(&tree.scan()), ["kubernetes k8s/shop web-0/nginx 101"]);
}

#[test]
fn a_pod_in_docker() {
    let tree = Tree::v2();
    let line =
        format!("containerd-shim-runc-v2|-namespace|moby|-id|{ID}|-address|/run/containerd/containerd.sock");
    monitor(&tree, 100, &line, &format!("{TASKS}/moby/{ID}"));
    inside(&tree, 101, 100, &format!("kubepods.slice/kubepods-pod11_22.slice/docker-{ID}.scope"));
    let record =
        format!(r#"{{"ID":"{ID}","Name":"/k8s_nginx_web-0_shop_11-22_0","Config":{{"Image":"nginx:1"}}}}"#);
    tree.file(&format!("/var/lib/docker/containers/{ID}/config.v2.json"), &record);
    assert_eq!(listed(&tree.scan()), ["kubernetes k8s/shop web-0/nginx 101"]);
}

#[test]
fn a_kubelet_in_a_container_is_that_containers_own_affair() {
    let tree = Tree::v2();
    // kind: a node is a container of Docker's, and its kubelet's cgroups are below.
    let node = format!("docker/{SANDBOX}");
    let line = format!(
        "containerd-shim-runc-v2|-namespace|moby|-id|{SANDBOX}|-address|/run/containerd/containerd.sock"
    );
    monitor(&tree, 100, &line, &format!("{TASKS}/moby/{SANDBOX}"));
    inside(&tree, 101, 100, &format!("{node}/init.scope"));
    let record =
        format!(r#"{{"ID":"{SANDBOX}","Name":"/kind-control-plane","Config":{{"Image":"kindest/node"}}}}"#);
    tree.file(&format!("/var/lib/docker/containers/{SANDBOX}/config.v2.json"), &record);
    let inner = format!("{node}/kubelet.slice/kubelet-kubepods.slice/cri-containerd-{ID}.scope");
    let line = format!(
        "containerd-shim-runc-v2|-namespace|k8s.io|-id|{ID}|-address|/run/containerd/containerd.sock"
    );
    let shim =
        Process { pid: 110, ppid: 101, comm: "shim", command_line: &line, uid: 0, depth: 2, cgroup: &node };
    tree.process(&shim);
    tree.process(&Process {
        pid: 111,
        ppid: 110,
        comm: "nginx",
        command_line: "nginx",
        uid: 0,
        depth: 3,
        cgroup: &inner,
    });
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["docker docker kind-control-plane 101"]);
    let path = scan.instances[0].cgroup.unified.clone().unwrap();
    assert_eq!(path.to_str(), Some(node.as_str()));
}

#[test]
fn a_container_of_podmans_is_none_of_a_pod() {
    let tree = Tree::v2();
    let line = format!("conmon|-c|{ID}|-n|web|-b|/x");
    monitor(&tree, 100, &line, "/");
    inside(&tree, 101, 100, &format!("kubepods/{ID}"));
    assert!(tree.scan().instances.is_empty());
}

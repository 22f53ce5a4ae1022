//! Machines in a small recorded tree.

use std::path::Path;

use crate::testing::{Process, Tree, listed, warned};

/// A supervisor with the number `pid` in `above/supervisor`, and its machine's init with the next one in `above/payload`.
fn divided(tree: &Tree, pid: u32, above: &str, arguments: &str) {
    let supervisor = format!("{above}/supervisor");
    processes(tree, pid, &supervisor, &format!("{above}/payload/init.scope"), arguments);
}

fn processes(tree: &Tree, pid: u32, supervisor: &str, init: &str, arguments: &str) {
    let command_line = format!("systemd-nspawn|{arguments}");
    let process = Process {
        pid,
        ppid: 1,
        comm: "systemd-nspawn",
        command_line: &command_line,
        uid: 0,
        depth: 1,
        cgroup: supervisor.trim_start_matches('/'),
    };
    tree.process(&process);
    let cgroup = init.trim_start_matches('/');
    tree.process(&Process {
        pid: pid + 1,
        ppid: pid,
        comm: "systemd",
        command_line: "init",
        depth: 2,
        cgroup,
        ..process
    });
}

#[test]
fn machines_with_a_cgroup_of_their_own() {
    for tree in [Tree::v1(), Tree::v2()] {
        divided(&tree, 100, "machine.slice/machine-n1.scope", "-D|/srv/tree|-M|n1");
        divided(&tree, 200, "machine.slice/systemd-nspawn@a\\x2db.service", "--boot|-D|/var/lib/machines/x");
        let scan = tree.scan();
        assert_eq!(listed(&scan), ["nspawn nspawn a-b 201", "nspawn nspawn n1 101"]);
        assert!(warned(&scan).is_empty());
        let n1 = &scan.instances[1];
        let payload = Path::new("machine.slice/machine-n1.scope/payload");
        assert_eq!(n1.cgroup.unified.as_deref(), Some(payload));
        assert_eq!(n1.directory, "tree");
    }
}

#[test]
fn the_scope_where_there_is_no_payload() {
    let tree = Tree::v1();
    let scope = "machine.slice/machine-n1.scope";
    processes(&tree, 100, scope, scope, "-D|/srv/tree");
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["nspawn nspawn n1 101"]);
    assert_eq!(scan.instances[0].cgroup.v1["memory"], Path::new(scope));
}

#[test]
fn the_name_that_machined_knows() {
    let tree = Tree::v2();
    divided(&tree, 100, "machine.slice/machine-x.scope", "-D|/srv/tree");
    tree.file("run/systemd/machines/real", "SERVICE=systemd-nspawn\nCLASS=container\nLEADER=101\n");
    std::os::unix::fs::symlink("real", tree.path("run/systemd/machines/unit:machine-x.scope")).unwrap();
    let _memory = tree.no_files("run/systemd/machines", "", "LEADER=101\n");
    assert_eq!(listed(&tree.scan()), ["nspawn nspawn real 101"]);
}

#[test]
fn what_others_registered_with_machined_is_not_nspawns() {
    let tree = Tree::v1();
    divided(&tree, 100, "machine.slice/systemd-nspawn@web.service", "--keep-unit|--boot|--machine=web");
    let record = |name: &str, service: &str, class: &str, leader: u32| {
        let text = format!("NAME={name}\nSERVICE={service}\nCLASS={class}\nLEADER={leader}\n");
        tree.file(&format!("run/systemd/machines/{name}"), &text);
    };
    record("web", "systemd-nspawn", "container", 101);
    // libvirt registers its own, in scopes that are called as nspawn's are; QEMU's driver finds these by their process.
    record("qemu-1-vm", "libvirt-qemu", "vm", 200);
    tree.process(&Process {
        pid: 200,
        ppid: 1,
        comm: "qemu-system-x86",
        command_line: "/usr/bin/qemu-system-x86_64|-name|guest=vm",
        uid: 0,
        depth: 1,
        cgroup: r"machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt",
    });
    let scan = tree.scan();
    assert_eq!(listed(&scan).iter().filter(|line| line.starts_with("nspawn")).count(), 1);
    assert!(listed(&scan).contains(&"nspawn nspawn web 101".to_owned()));
}

#[test]
fn a_machine_in_its_callers_cgroup() {
    let tree = Tree::v1();
    let caller = "user.slice/shell";
    processes(&tree, 100, caller, caller, "-D|/srv/tree|-M|n1");
    tree.process(&Process {
        pid: 90,
        ppid: 1,
        comm: "sh",
        command_line: "sh",
        uid: 0,
        depth: 1,
        cgroup: caller,
    });
    assert_eq!(listed(&tree.scan()), [""; 0], "nothing tells of it");
    tree.directory("run/systemd/nspawn/propagate/n1");
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["nspawn nspawn n1 101"]);
    assert!(scan.instances[0].cgroup.is_empty(), "the shell's figures are not the machine's");
}

#[test]
fn a_machine_in_an_unknown_service() {
    let tree = Tree::v2();
    divided(&tree, 100, "system.slice/web.service", "-D|/srv/tree|-M|n1");
    tree.directory("run/systemd/nspawn/propagate/n1");
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["nspawn nspawn n1 101"]);
    assert_eq!(
        scan.instances[0].cgroup.unified.as_deref(),
        Some(Path::new("system.slice/web.service/payload"))
    );
}

#[test]
fn two_machines_in_one_payload_have_no_figures_of_it() {
    let tree = Tree::v2();
    tree.directory("run/systemd/nspawn/propagate/n1");
    let mut discovery = tree.discovery();
    divided(&tree, 100, "shell", "-D|/srv/a|-M|n1");
    assert!(!discovery.scan().unwrap().instances[0].cgroup.is_empty());
    divided(&tree, 200, "shell", "-D|/srv/b|-M|n2");
    tree.directory("run/systemd/nspawn/propagate/n2");
    let scan = discovery.scan().unwrap();
    assert_eq!(listed(&scan), ["nspawn nspawn n1 101", "nspawn nspawn n2 201"]);
    assert!(scan.instances.iter().all(|instance| instance.cgroup.is_empty()));
    tree.end(101);
    assert_eq!(listed(&discovery.scan().unwrap()), ["nspawn nspawn n2 201"]);
}

#[test]
fn a_name_that_was_left_behind_is_not_looked_for_each_time() {
    let tree = Tree::v2();
    tree.directory("run/systemd/nspawn/propagate/dead");
    let mut discovery = tree.discovery();
    assert_eq!(listed(&discovery.scan().unwrap()), [""; 0]);
    // It would be found now, were the process table looked through again so soon.
    divided(&tree, 100, "shell", "-D|/srv/a|-M|dead");
    assert_eq!(listed(&discovery.scan().unwrap()), [""; 0]);
    tree.directory("run/systemd/nspawn/propagate/another");
    assert_eq!(listed(&discovery.scan().unwrap()), ["nspawn nspawn dead 101"]);
}

#[test]
fn nobody_else_passes_for_a_supervisor() {
    let other_user = rustix::process::geteuid().as_raw() + 4242;
    let tree = Tree::v2();
    let scope = "machine.slice/machine-n1.scope";
    let users = Process {
        pid: 100,
        ppid: 1,
        comm: "systemd-nspawn",
        command_line: "systemd-nspawn|-M|n1",
        uid: other_user,
        depth: 1,
        cgroup: scope,
    };
    tree.process(&users);
    tree.process(&Process { pid: 101, ppid: 100, depth: 2, comm: "init", ..users });
    // A machine of a machine, too, is none of the host's.
    tree.process(&Process { pid: 200, uid: 0, depth: 2, ..users });
    tree.process(&Process { pid: 201, ppid: 200, uid: 0, depth: 3, comm: "init", ..users });
    tree.directory("run/systemd/nspawn/propagate/n1");
    let scan = tree.scan();
    assert_eq!(listed(&scan), [""; 0]);
    let called = format!(
        "{scope} is not served: process 100 of user {other_user} calls itself systemd-nspawn, and only root's is believed"
    );
    assert_eq!(warned(&scan), [called]);
}

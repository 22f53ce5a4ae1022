use std::os::unix::fs::symlink;

use super::*;
use crate::Discovery;
use crate::testing::{Process, Tree, listed, warned};

/// Where no machine has one, so that it is looked for in the tree alone.
const QEMU: &str = "/recorded/bin/qemu-system-x86_64";

fn qemu(tree: &Tree, pid: u32, uid: u32, command_line: &str) {
    let comm = "qemu-vm) S 1 (";
    tree.process(&Process { pid, ppid: 1, comm, command_line, uid, depth: 1, cgroup: "user" });
    symlink(QEMU, tree.path(&format!("proc/{pid}/exe"))).unwrap();
    tree.file(QEMU, "");
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn vm(discovery: &mut Discovery, name: &str) -> Vm {
    let scan = discovery.scan().unwrap();
    scan.instances.iter().find(|instance| instance.name == name).unwrap().vm.clone().unwrap()
}

#[test]
fn machines_started_by_hand() {
    let tree = Tree::v2();
    qemu(&tree, 70, own_uid(), "qemu|-name|a,,\"b,debug-threads=on|-m|64|-qmp|unix:/w/q,server=on");
    qemu(&tree, 71, own_uid(), "qemu|-uuid|0a-0b");
    qemu(&tree, 72, own_uid(), "qemu");
    let mut discovery = tree.discovery();
    assert_eq!(
        listed(&discovery.scan().unwrap()),
        ["qemu qemu 0a-0b 71", "qemu qemu 72 72", "qemu qemu a,\"b 70"]
    );
    let found = vm(&mut discovery, "a,\"b");
    assert_eq!((found.monitors, found.configured_memory), (vec!["/w/q".into()], Some(64 << 20)));
    tree.end(70);
    assert_eq!(discovery.scan().unwrap().instances.len(), 2);
    // The number is used again, by another machine.
    qemu(&tree, 70, own_uid(), "qemu|-name|new");
    assert_eq!(vm(&mut discovery, "new").configured_memory, None);
}

#[test]
fn relative_sockets_lie_where_roots_qemu_runs() {
    let tree = Tree::v2();
    let line = "|-qmp|unix:q.sock,server=on";
    qemu(&tree, 70, own_uid(), &format!("qemu|-name|a{line}"));
    qemu(&tree, 71, own_uid(), &format!("qemu|-name|b{line}|-daemonize|-pidfile|/w/p"));
    tree.file("w/p", "71\n");
    qemu(&tree, 72, 4000, &format!("qemu|-name|c{line}"));
    for pid in [70, 71, 72] {
        symlink("/srv/vm", tree.path(&format!("proc/{pid}/cwd"))).unwrap();
    }
    let mut discovery = tree.discovery();
    assert_eq!(vm(&mut discovery, "a").monitors, [PathBuf::from("/srv/vm/q.sock")]);
    assert!(vm(&mut discovery, "b").monitors.is_empty(), "a daemon has left the directory");
    assert!(vm(&mut discovery, "c").monitors.is_empty(), "a user's sockets could be anybody's");
}

#[test]
fn a_users_machine_gets_into_no_project_but_the_users() {
    let tree = Tree::v2();
    tree.file("etc/passwd", "ann:x:4000:4000::/:/bin/sh\n");
    tree.directory("var/lib/incus/guestapi");
    tree.file("var/lib/incus/unix.socket", "");
    tree.file("run/incus/v1/qemu.pid", "71\n");
    qemu(&tree, 70, 4000, "qemu|-name|web|-qmp|unix:/run/docker.sock,server=on|-netdev|tap,ifname=eth0");
    qemu(&tree, 71, 4000, "qemu|-name|v1|-pidfile|/run/incus/v1/qemu.pid");
    qemu(&tree, 72, 4001, "qemu|-name|masterKey0|-uuid|2f7e");
    tree.process(&Process {
        pid: 73,
        ppid: 1,
        comm: "qemu-system-x86",
        command_line: QEMU,
        uid: 4000,
        depth: 1,
        cgroup: "user",
    });
    symlink("/bin/sh", tree.path("proc/73/exe")).unwrap();
    let mut discovery = tree.discovery();
    let scan = discovery.scan().unwrap();
    assert_eq!(
        listed(&scan),
        ["qemu qemu@4001 masterKey0 72", "qemu qemu@ann v1 71", "qemu qemu@ann web 70"]
    );
    let found = vm(&mut discovery, "web");
    assert!(found.monitors.is_empty() && found.taps.is_empty());
}

#[test]
fn a_user_cannot_fill_the_list() {
    let tree = Tree::v2();
    tree.file("etc/passwd", "ann:x:4000:1::/home/ann:/\n");
    for pid in 1000..1070 {
        qemu(&tree, pid, 4000, &format!("qemu|-name|x{pid}"));
    }
    qemu(&tree, 2000, own_uid(), "qemu|-name|roots");
    let scan = tree.scan();
    assert_eq!(scan.instances.len(), 65);
    assert!(scan.instances.iter().any(|instance| instance.name == "roots"));
    assert!(scan.instances.iter().all(|instance| instance.name != "x1064"), "the oldest are served");
    assert_eq!(
        warned(&scan),
        ["each virtual machine of user 4000 past the oldest 64 is not served: there are 70"]
    );
    assert!(listed(&scan).contains(&"qemu qemu@ann x1000 1000".to_owned()), "{:?}", listed(&scan));
}

#[test]
fn numbers_without_a_name_are_one_user() {
    let tree = Tree::v2();
    tree.file("etc/passwd", "ann:x:4000:1::/home/ann:/\nlibvirt-qemu:x:64055:1::/:/\n");
    // More than are watched of anybody.
    for pid in 1000..1300 {
        qemu(&tree, pid, 100_000 + pid, &format!("qemu|-name|x{pid}"));
    }
    for (pid, uid, name) in [(2000, own_uid(), "roots"), (2001, 4000, "anns"), (2002, 64_055, "systems")] {
        qemu(&tree, pid, uid, &format!("qemu|-name|{name}"));
    }
    let scan = tree.scan();
    assert_eq!(scan.instances.len(), 67, "{:?}", listed(&scan));
    for name in ["roots", "anns", "systems"] {
        assert!(scan.instances.iter().any(|instance| instance.name == name), "{name}");
    }
    let told = "each virtual machine of users without a name past the oldest 64 is not served: there are 200";
    assert_eq!(warned(&scan), [told]);
}

#[test]
fn a_users_copy_of_a_program_is_no_machine() {
    use std::os::unix::fs::PermissionsExt;

    let tree = Tree::v2();
    qemu(&tree, 70, 4000, "qemu|-name|real");
    for (pid, uid) in [(71, 4000), (72, 4000), (73, own_uid())] {
        qemu(&tree, pid, uid, &format!("qemu|-name|copy{pid}"));
        let link = tree.path(&format!("proc/{pid}/exe"));
        std::fs::remove_file(&link).unwrap();
        symlink("/anybodys/kvm", link).unwrap();
    }
    tree.file("anybodys/kvm", "");
    std::fs::set_permissions(tree.path("anybodys"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["qemu qemu copy73 73", "qemu qemu@4000 real 70"]);
    let told = warned(&scan);
    assert_eq!(told.len(), 1, "one of each user's: {told:?}");
    let beginning = "what looks like a QEMU of user 4000 is not served: process 71 runs /anybodys/kvm, which";
    assert!(
        told[0].starts_with(beginning) && told[0].contains("everybody may write to /anybodys"),
        "{told:?}"
    );
    std::fs::set_permissions(tree.path("anybodys"), std::fs::Permissions::from_mode(0o2775)).unwrap();
    // As Debian's /usr/local is of the group `staff`; only root can give a directory to a group that is not its own.
    if std::os::unix::fs::chown(tree.path("anybodys"), None, Some(50)).is_ok() {
        let told = warned(&tree.scan());
        assert!(told[0].contains("group 50 may write to /anybodys"), "{told:?}");
    }
}

#[test]
fn a_machine_whose_program_was_upgraded_stays() {
    let tree = Tree::v2();
    for (pid, program) in [(70, QEMU), (71, "/recorded/bin/qemu-system-removed")] {
        qemu(&tree, pid, 4000, &format!("qemu|-name|x{pid}"));
        let link = tree.path(&format!("proc/{pid}/exe"));
        std::fs::remove_file(&link).unwrap();
        symlink(format!("{program} (deleted)"), link).unwrap();
    }
    let scan = tree.scan();
    assert_eq!(listed(&scan), ["qemu qemu@4000 x70 70"]);
    let told = warned(&scan);
    assert!(told[0].contains("/recorded/bin/qemu-system-removed (deleted), which others"), "{told:?}");
}

#[test]
fn a_machine_in_a_container_is_the_containers() {
    let tree = Tree::v2();
    let inside = Process {
        pid: 70,
        ppid: 1,
        comm: "q",
        command_line: "qemu|-name|x",
        uid: own_uid(),
        depth: 2,
        cgroup: "c",
    };
    tree.process(&inside);
    symlink(QEMU, tree.path("proc/70/exe")).unwrap();
    assert!(tree.scan().instances.is_empty());
}

#[test]
fn machines_of_incus_and_lxd() {
    let tree = Tree::v2();
    tree.file("etc/passwd", "root:x:0:0::/:\nincus:x:990:990::/:\nann:x:1000:1000::/:\n");
    for state in ["incus", "lxd"] {
        tree.file(&format!("var/lib/{state}/unix.socket"), "");
    }
    tree.file("w/unix.socket", "");
    tree.file("run/incus/foo_v1/qemu.pid", "70\n");
    let conf = "[memory]\nsize = \"1024M\"\n[smp-opts]\ncpus = \"3\"\n[device \"qemu_vsock\"]\ndriver = \"vhost-vsock-pci\"\n\
                guest-cid = \"42\"\n[chardev \"monitor\"]\nbackend = \"socket\"\npath = \"/run/incus/foo_v1/qemu.monitor\"\n\
                server = \"on\"\n[mon]\nchardev = \"monitor\"\nmode = \"control\"\n";
    tree.file("run/incus/foo_v1/qemu.conf", conf);
    tree.file("var/log/lxd/v2/qemu.pid", "71\n");
    tree.file("w/run/v3/qemu.pid", "72\n");
    tree.file("run/incus/v4/qemu.pid", "999\n");
    let line = |name: &str, dir: &str| {
        format!("qemu|-S|-name|{name}|-uuid|U|-daemonize|-readconfig|{dir}/qemu.conf|-pidfile|{dir}/qemu.pid")
    };
    qemu(&tree, 70, 990, &line("v1", "/run/incus/foo_v1"));
    qemu(&tree, 71, own_uid(), &line("v2", "/var/log/lxd/v2"));
    qemu(&tree, 72, own_uid(), &line("v3", "/w/run/v3"));
    qemu(&tree, 73, own_uid(), &line("v4", "/run/incus/v4"));
    let mut discovery = tree.discovery();
    let scan = discovery.scan().unwrap();
    let expected = ["lxd default v2 71", "incus default v3 72", "incus foo v1 70", "qemu qemu v4 73"];
    assert_eq!(listed(&scan), expected, "{:?}", warned(&scan));
    let found = vm(&mut discovery, "v1");
    assert_eq!((found.configured_vcpus, found.configured_memory), (Some(3), Some(1 << 30)));
    assert_eq!(found.vsock, Some(Vsock::Cid(42)));
    assert_eq!(found.owner, Owner::Incus);
    assert!(found.monitors.is_empty(), "incusd holds it");
    assert_eq!(found.certificates.as_deref(), Some(Path::new("/var/lib/incus/virtual-machines/foo_v1")));
}

#[test]
fn what_is_no_file_vouches_for_nobody() {
    let tree = Tree::v2();
    tree.file("var/lib/incus/unix.socket", "");
    let mut memory = Vec::new();
    for (pid, kind) in (70..).zip(["fifo", "socket", "directory", "memory"]) {
        let dir = format!("run/incus/{kind}");
        memory.push(tree.no_files(&dir, "", &format!("{pid}\n")));
        std::fs::rename(tree.path(&dir).join(kind), tree.path(&dir).join("qemu.pid")).unwrap();
        qemu(
            &tree,
            pid,
            own_uid(),
            &format!("qemu|-S|-name|{kind}|-readconfig|/{dir}/qemu.pid|-pidfile|/{dir}/qemu.pid"),
        );
    }
    let scan = tree.scan();
    assert!(listed(&scan).iter().all(|one| one.starts_with("qemu qemu ")), "{:?}", listed(&scan));
}

#[test]
fn domains_of_libvirt() {
    let tree = Tree::v1();
    let status = |pid: u32, name: &str, uuid: &str, tap: &str| {
        let text = format!(
            "<domstatus state='running' pid='{pid}'><domain type='kvm' id='1'><name>{name}</name><uuid>{uuid}</uuid>\
             <memory unit='KiB'>1024</memory><vcpu>2</vcpu><devices><interface type='network'><target dev='{tap}'/></interface>\
             </devices></domain></domstatus>"
        );
        tree.file(&format!("run/libvirt/qemu/{name}.xml"), &text);
    };
    status(70, "web", "u-1", "vnet0");
    status(71, "stale", "u-2", "vnet1");
    let uid = 64_055;
    let line = "qemu|-name|guest=web,debug-threads=on|-object|{\"id\":\"masterKey0\"}|-uuid|u-1";
    let cgroup = "machine/qemu-1-web.libvirt-qemu";
    tree.process(&Process { pid: 70, ppid: 1, comm: "q", command_line: line, uid, depth: 1, cgroup });
    symlink(QEMU, tree.path("proc/70/exe")).unwrap();
    // The number of a domain that is no more, used again.
    qemu(&tree, 71, own_uid(), "qemu|-name|mine");
    // What is no regular file is nobody's state, and waited for by nobody.
    let forged = "<domstatus state='running' pid='71'><domain type='kvm' id='1'><name>no</name><uuid>u</uuid><devices/></domain></domstatus>";
    let _memory = tree.no_files("run/libvirt/qemu", ".xml", forged);
    let mut discovery = tree.discovery();
    let scan = discovery.scan().unwrap();
    assert_eq!(listed(&scan), ["libvirt libvirt web 70", "qemu qemu mine 71"]);
    assert_eq!(scan.instances[0].cgroup.v1.get("memory").unwrap(), Path::new(cgroup));
    assert_eq!(scan.instances[0].id, "u-1");
    let found = vm(&mut discovery, "web");
    assert_eq!((found.taps, found.configured_memory), (vec!["vnet0".to_owned()], Some(1 << 20)));
    status(70, "web", "u-1", "vnet-changed");
    assert_eq!(vm(&mut discovery, "web").taps, ["vnet-changed"]);
}

#[test]
fn taps_that_the_process_holds() {
    let tree = Tree::v2();
    qemu(&tree, 70, own_uid(), "qemu|-name|x|-netdev|tap,ifname=renamed");
    tree.directory("proc/70/fd");
    symlink("/dev/net/tun", tree.path("proc/70/fd/9")).unwrap();
    symlink("/dev/kvm", tree.path("proc/70/fd/10")).unwrap();
    tree.file("proc/70/fdinfo/9", "pos:\t0\nflags:\t0\niff:\ttap7\n");
    let mut discovery = tree.discovery();
    assert_eq!(vm(&mut discovery, "x").taps, ["tap7"]);
    symlink("/dev/net/tun", tree.path("proc/70/fd/11")).unwrap();
    tree.file("proc/70/fdinfo/11", "iff:\ttap8\n");
    assert_eq!(vm(&mut discovery, "x").taps, ["tap7", "tap8"], "plugged in later");
}

#[test]
fn the_host_end_of_a_vhost_user_vsock() {
    let tree = Tree::v2();
    qemu(
        &tree,
        70,
        own_uid(),
        "qemu|-name|x|-chardev|socket,id=v,path=/w/c|-device|vhost-user-vsock-pci,chardev=v",
    );
    let mut discovery = tree.discovery();
    assert_eq!(vm(&mut discovery, "x").vsock, None);
    let command_line = "vhost-device-vsock|--vm|guest-cid=3,socket=/w/c,uds-path=/w/u";
    tree.process(&Process {
        pid: 69,
        ppid: 1,
        comm: "v",
        command_line,
        uid: own_uid(),
        depth: 1,
        cgroup: "user",
    });
    symlink("/usr/bin/vhost-device-vsock", tree.path("proc/69/exe")).unwrap();
    assert_eq!(vm(&mut tree.discovery(), "x").vsock, Some(Vsock::Unix("/w/u".into())));
}

//! Containers in a small recorded tree.

use std::path::Path;
use std::sync::Arc;

use miharu_linux::Roots;

use super::*;
use crate::driver::DriverOptions;
use crate::oci::files::UsersFile;
use crate::testing::{Process, Tree, listed, warned};
use crate::{Discovery, drivers};

const STORAGE: &str = "/var/lib/containers/storage";

/// The id of a container: this digit, again and again.
fn id_of(digit: char) -> String {
    String::from(digit).repeat(64)
}

/// A conmon with the number `pid` and, with the next one, the init of its container, in `cgroup/libpod-ID` and below.
struct Container<'c> {
    digit: char,
    pid: u32,
    uid: u32,
    name: &'c str,
    storage: &'c str,
    above: &'c str,
    below: &'c str,
}

impl Default for Container<'_> {
    fn default() -> Self {
        Self {
            digit: 'a',
            pid: 100,
            uid: 0,
            name: "web",
            storage: STORAGE,
            above: "libpod_parent",
            below: "",
        }
    }
}

impl Container<'_> {
    fn start(&self, tree: &Tree) {
        let Self { digit, pid, uid, name, storage, above, below } = *self;
        let id = id_of(digit);
        let bundle = format!("{storage}/overlay-containers/{id}/userdata");
        let conmon = format!(
            "/usr/bin/conmon|--api-version|1|-c|{id}|-u|{id}|-b|{bundle}|-n|{name}|--exit-command-arg|-e"
        );
        let cgroup = format!("{above}/libpod-conmon-{id}");
        let process =
            Process { pid, ppid: 1, comm: "conmon", command_line: &conmon, uid, depth: 1, cgroup: &cgroup };
        tree.process(&process);
        let cgroup = format!("{above}/libpod-{id}{below}");
        tree.process(&Process {
            pid: pid + 1,
            ppid: pid,
            comm: "sh",
            command_line: "sh",
            depth: 2,
            cgroup: &cgroup,
            ..process
        });
    }
}

/// What `podman exec` starts: a conmon of its own, with a child in the container.
fn exec(tree: &Tree, pid: u32, cgroup: &str, digit: char) {
    let line = format!("conmon|--api-version|1|-c|{}|-u|x|-n|web|-e|--exec-attach", id_of(digit));
    let conmon = Process { pid, ppid: 1, comm: "conmon", command_line: &line, uid: 0, depth: 1, cgroup: "x" };
    tree.process(&conmon);
    tree.process(&Process {
        pid: pid + 1,
        ppid: pid,
        comm: "ls",
        command_line: "ls",
        depth: 2,
        cgroup,
        ..conmon
    });
}

/// The storage library's list.
fn list(tree: &Tree, storage: &str, names: &[(char, &str)]) {
    let entry = |(digit, name): &(char, &str)| {
        format!(r#"{{"id":"{}","names":["{name}"],"flags":{{}}}}"#, id_of(*digit))
    };
    let all: Vec<_> = names.iter().map(entry).collect();
    tree.file(&format!("{storage}/overlay-containers/containers.json"), &format!("[{}]", all.join(",")));
}

/// podman's SQLite database, with these configurations of containers and pods.
fn database(tree: &Tree, storage: &str, containers: &[(char, &str)], pods: &[(char, &str)]) {
    tree.directory(storage);
    let connection = rusqlite::Connection::open(tree.path(&format!("{storage}/db.sql"))).unwrap();
    for (table, rows) in [("ContainerConfig", containers), ("PodConfig", pods)] {
        connection
            .execute(&format!("CREATE TABLE {table}(ID TEXT PRIMARY KEY NOT NULL, JSON TEXT NOT NULL)"), [])
            .unwrap();
        for (digit, json) in rows {
            connection
                .execute(&format!("INSERT INTO {table} VALUES(?1, ?2)"), (id_of(*digit), json))
                .unwrap();
        }
    }
}

fn discovery(tree: &Tree, rootless: &[&str]) -> Discovery {
    let rootless = rootless.iter().map(|name| (*name).to_owned()).collect();
    Discovery::new(Roots::at(&tree.path("")), drivers(&DriverOptions { enabled: None, rootless }))
}

/// What a scan lists, by a time at which all names have come.
fn names(discovery: &mut Discovery, count: usize) -> Vec<String> {
    for _ in 0..3000 {
        let found = listed(&discovery.scan().unwrap());
        if found.len() >= count {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("fewer than {count}")
}

#[test]
fn containers_of_every_layout() {
    for tree in [Tree::v1(), Tree::v2()] {
        let pod = id_of('d');
        for (digit, pid, above, below) in [
            ('a', 100, "libpod_parent", ""),
            ('b', 200, "machine.slice", ".scope/container"),
            ('c', 300, "my/own", "/init.scope"),
            ('e', 400, &*format!("libpod_parent/{pod}"), ""),
        ] {
            Container { digit, pid, name: &format!("c{digit}"), above, below, ..Container::default() }
                .start(&tree);
        }
        exec(&tree, 20, &format!("libpod_parent/libpod-{}", id_of('a')), 'a');
        let mut discovery = discovery(&tree, &[]);
        assert_eq!(
            names(&mut discovery, 4),
            ["podman podman ca 101", "podman podman cb 201", "podman podman cc 301", "podman podman ce 401"]
        );
        let scan = discovery.scan().unwrap();
        assert!(warned(&scan).is_empty());
        let cgroups: Vec<_> = scan.instances.iter().map(|i| i.cgroup.unified.clone().unwrap()).collect();
        let expected = [
            format!("libpod_parent/libpod-{}", id_of('a')),
            format!("machine.slice/libpod-{}.scope", id_of('b')),
            format!("my/own/libpod-{}", id_of('c')),
            format!("libpod_parent/{pod}/libpod-{}", id_of('e')),
        ];
        assert_eq!(cgroups, expected.map(PathBuf::from), "the whole container's, not a part");
        assert_eq!(scan.instances[0].id, id_of('a'));
    }
}

#[test]
fn containers_of_a_pod_whose_cgroup_is_called_as_a_container_of_dockers() {
    let tree = Tree::v2();
    let pod = format!("my/own/{}", id_of('d'));
    Container { above: &pod, ..Container::default() }.start(&tree);
    // Somebody's container, which makes cgroups in its own.
    let other = format!("my/own/{}", id_of('e'));
    let process =
        Process { pid: 50, ppid: 1, comm: "sh", command_line: "sh", uid: 0, depth: 2, cgroup: &other };
    tree.process(&process);
    Container { digit: 'b', pid: 200, above: &other, ..Container::default() }.start(&tree);
    let mut discovery = discovery(&tree, &[]);
    assert_eq!(names(&mut discovery, 1), ["podman podman web 101"]);
    assert_eq!(listed(&discovery.scan().unwrap()), ["podman podman web 101"]);
}

#[test]
fn pods_and_compose_projects_of_the_database() {
    let tree = Tree::v2();
    let pod = id_of('f');
    let labels = r#""labels":{"com.docker.compose.project":"shop"}"#;
    let containers = [
        ('a', format!(r#"{{"name":"web","pod":"{pod}","rootfsImageName":"localhost/web:1",{labels}}}"#)),
        ('b', format!(r#"{{"name":"ffffffffffff-infra","pod":"{pod}","pause":true}}"#)),
        ('c', format!(r#"{{"name":"db",{}}}"#, labels.replace("com.docker", "io.podman"))),
        (
            'd',
            r#"{"name":"old","pod":"","pause":false,"labels":{"com.docker.compose.project":"a/b"}}"#
                .to_owned(),
        ),
    ];
    let containers: Vec<_> = containers.iter().map(|(digit, json)| (*digit, json.as_str())).collect();
    database(&tree, STORAGE, &containers[2..], &[]);
    list(&tree, STORAGE, &[('c', "db"), ('d', "new")]);
    // Another podman, with `--root`.
    database(&tree, "/srv/pods", &containers[..2], &[('f', r#"{"name":"frontend"}"#)]);
    for (digit, pid, name, storage) in [
        ('a', 100, "web", "/srv/pods"),
        ('b', 200, "x", "/srv/pods"),
        ('c', 300, "db", STORAGE),
        ('d', 400, "old", STORAGE),
    ] {
        Container { digit, pid, name, storage, ..Container::default() }.start(&tree);
    }
    let mut discovery = discovery(&tree, &[]);
    assert_eq!(
        names(&mut discovery, 4),
        [
            "podman podman new 401",
            "podman podman/frontend ffffffffffff-infra 201",
            "podman podman/frontend web 101",
            "podman podman/shop db 301",
        ]
    );
    let scan = discovery.scan().unwrap();
    let sandboxes: Vec<_> = scan.instances.iter().map(|instance| instance.is_sandbox).collect();
    assert_eq!(sandboxes, [false, true, false, false]);
    assert_eq!(scan.instances[2].image.as_deref(), Some("localhost/web:1"));
}

#[test]
fn an_image_chooses_no_project() {
    let tree = Tree::v2();
    let image = id_of('9');
    let json = |name: &str, project: &str| {
        let label = format!(r#"{{"com.docker.compose.project":"{project}"}}"#);
        format!(r#"{{"name":"{name}","rootfsImageID":"{image}","labels":{label}}}"#)
    };
    let (web, db) = (json("web", "shop"), json("db", "own"));
    database(&tree, STORAGE, &[('a', &web), ('b', &db)], &[]);
    // The name that podman's storage gives it, as podman 4 does: `=`, and `sha256:ID` in base64.
    let file =
        "=c2hhMjU2Ojk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk=";
    tree.file(
        &format!("{STORAGE}/overlay-images/{image}/{file}"),
        r#"{"architecture":"amd64","config":{"Labels":{"com.docker.compose.project":"shop"}}}"#,
    );
    Container::default().start(&tree);
    Container { digit: 'b', pid: 200, name: "db", ..Container::default() }.start(&tree);
    assert_eq!(names(&mut discovery(&tree, &[]), 2), ["podman podman web 101", "podman podman/own db 201"]);
}

#[test]
fn what_a_user_tells_sudo_is_not_believed() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let tree = Tree::v2();
    let program = tree.path("usr/bin/sudo");
    tree.file("usr/bin/sudo", "");
    Container::default().start(&tree);
    symlink(&program, tree.path("proc/100/exe")).unwrap();
    assert_eq!(names(&mut discovery(&tree, &[]), 1), ["podman podman web 101"]);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    assert_eq!(listed(&discovery(&tree, &[]).scan().unwrap()), [""; 0]);
}

#[test]
fn a_known_container_outlives_its_conmon_and_roots_is_found_without_one() {
    let tree = Tree::v2();
    Container::default().start(&tree);
    let mut before = discovery(&tree, &[]);
    assert_eq!(names(&mut before, 1), ["podman podman web 101"]);
    // conmon is killed: the container's init is a child of the host's.
    tree.end(100);
    let init = Process {
        pid: 1,
        ppid: 0,
        comm: "init",
        command_line: "init",
        uid: 0,
        depth: 1,
        cgroup: "init.scope",
    };
    tree.process(&init);
    let text = std::fs::read_to_string(tree.path("proc/101/stat")).unwrap();
    tree.file("proc/101/stat", &text.replace("S 100 ", "S 1 "));
    assert_eq!(listed(&before.scan().unwrap()), ["podman podman web 101"]);
    let mut after = discovery(&tree, &[]);
    assert_eq!(listed(&after.scan().unwrap()), [""; 0], "nobody vouches for it");
    tree.file(&format!("run/containers/storage/overlay-containers/{}/userdata/pidfile", id_of('a')), "101");
    list(&tree, STORAGE, &[('a', "web")]);
    assert_eq!(names(&mut after, 1), ["podman podman web 101"]);
    tree.file(&format!("run/containers/storage/overlay-containers/{}/userdata/pidfile", id_of('a')), "102");
    assert_eq!(listed(&discovery(&tree, &[]).scan().unwrap()), [""; 0]);
}

#[test]
fn users_containers_are_found_for_the_named_alone() {
    let ann = rustix::process::geteuid().as_raw() + 4242;
    let tree = Tree::v2();
    tree.file(
        "etc/passwd",
        &format!("root:x:0:0::/root:/bin/sh\nann:x:{ann}:1::/home/ann:/\nbob:x:{}:1::/home/bob:/\n", ann + 1),
    );
    let storage = "/home/ann/.local/share/containers/storage";
    let above = "user.slice/user-1.slice/user@1.service/user.slice";
    let own = Container { uid: ann, storage, above, below: ".scope/container", ..Container::default() };
    own.start(&tree);
    Container { digit: 'b', pid: 200, uid: ann + 1, ..own }.start(&tree);
    // She says that hers is one of root's.
    Container { digit: 'c', pid: 300, uid: ann, name: "c", storage: STORAGE, ..own }.start(&tree);
    list(&tree, STORAGE, &[('c', "roots")]);
    tree.runs(100, "/recorded/bin/conmon");
    tree.runs(200, "/recorded/bin/sleep");
    tree.runs(300, "/recorded/bin/conmon");
    let scan = discovery(&tree, &[]).scan().unwrap();
    assert_eq!(listed(&scan), [""; 0]);
    // His is no conmon; hers are, and ordinary.
    let called = format!("process 200 of user {} calls itself conmon, and only root's is believed", ann + 1);
    assert!(matches!(&warned(&scan)[..], [only] if only.ends_with(&called)), "{:?}", warned(&scan));
    let scan = discovery(&tree, &["root", "nobody"]).scan().unwrap();
    assert_eq!(listed(&scan), [""; 0]);
    let mut unknown = warned(&scan);
    unknown.retain(|warning| !warning.ends_with(&called));
    assert!(unknown.len() == 1 && unknown[0].contains("instances.rootless names nobody"), "{unknown:?}");
    let mut named = discovery(&tree, &["ann"]);
    assert_eq!(names(&mut named, 2), ["podman podman@ann c 301", "podman podman@ann web 101"]);
    assert!(matches!(&warned(&named.scan().unwrap())[..], [only] if only.ends_with(&called)));
}

#[test]
fn a_users_files_are_read_only_where_they_can_do_no_harm() {
    let base = tempfile::tempdir().unwrap();
    let (home, away) = (base.path().join("home"), base.path().join("away"));
    for place in [&home, &away] {
        std::fs::create_dir_all(place.join("s")).unwrap();
        std::fs::write(place.join("s/file"), "text").unwrap();
    }
    std::os::unix::fs::symlink(&away, home.join("link")).unwrap();
    std::os::unix::fs::symlink("file", home.join("s/link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, home.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let own = rustix::process::geteuid().as_raw();
    let place = UsersPlace::new(home.clone(), own);
    assert_eq!(place.read(Path::new("s/file")).unwrap(), b"text");
    let looked_at = |relative: &str| UsersFile { place: place.clone(), relative: relative.into() }.metadata();
    assert_eq!(looked_at("s/file").unwrap().len(), 4);
    for bad in ["link/s/file", "s/link", "../away/s/file", "none", "/etc/passwd"] {
        assert!(looked_at(bad).is_err(), "{bad}");
    }
    for bad in ["link/s/file", "s/link", "../away/s/file", "fifo", "s", "none", "/etc/passwd"] {
        assert!(place.read(Path::new(bad)).is_err(), "{bad}");
    }
    let error = UsersPlace::new(home, own + 1).read(Path::new("s/file")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn the_systems_files_are_read_only_where_they_are_files() {
    let tree = Tree::v2();
    tree.file("s/file", "text");
    let read = |name: &str| read_systems(&tree.path("s").join(name));
    let _memory = tree.no_files("s", "", "text");
    std::os::unix::fs::symlink("file", tree.path("s/link")).unwrap();
    assert_eq!(read("file").unwrap(), b"text");
    for bad in ["fifo", "socket", "directory", "memory", "link", "none"] {
        assert!(read(bad).is_err(), "{bad}");
    }
    assert!(read_systems(Path::new("/dev/null")).is_err());
}

#[test]
fn a_renamed_container_keeps_all_but_its_name() {
    let tree = Tree::v2();
    Container::default().start(&tree);
    list(&tree, STORAGE, &[('a', "web")]);
    let mut discovery = discovery(&tree, &[]);
    assert_eq!(names(&mut discovery, 1), ["podman podman web 101"]);
    let before = Arc::clone(&discovery.scan().unwrap().instances[0]);
    list(&tree, STORAGE, &[('a', "shop")]);
    let begun = Instant::now();
    let after = loop {
        let instance = Arc::clone(&discovery.scan().unwrap().instances[0]);
        if instance.name != "web" {
            break instance;
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(after.name, "shop");
    assert_eq!((after.incarnation, &after.id), (before.incarnation, &before.id));
    assert!(Arc::ptr_eq(&after.init, &before.init));
}

#[test]
fn names_that_podman_does_not_give_are_not_served() {
    let tree = Tree::v2();
    Container { name: "a\"b", ..Container::default() }.start(&tree);
    let mut discovery = discovery(&tree, &[]);
    assert_eq!(names(&mut discovery, 1), ["podman podman aaaaaaaaaaaa 101"]);
    assert_eq!(
        warned(&discovery.scan().unwrap()),
        [
            "podman container aaaaaaaaaaaa in project podman is served under its id, as its name could not be learned: \
          aaaaaaaaaaaa has a name that podman does not give"
        ]
    );
}

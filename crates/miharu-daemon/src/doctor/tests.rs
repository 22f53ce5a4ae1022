//! What is said of this machine, and of recorded ones.

use std::os::unix::net::UnixListener;
use std::path::Path;

use miharu_collect::host::CAPABILITIES;
use miharu_store::Config;

use super::*;
use crate::events::Events;

fn patient(roots: Roots) -> Patient {
    Patient {
        roots,
        settings: Config::default().settings(),
        warnings: Warnings::new(Events::default()),
        runtimes: Some(vec!["lxc".to_owned(), "lxc".to_owned(), "podman".to_owned()]),
    }
}

fn named<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name}: {checks:#?}"))
}

#[test]
fn each_thing_that_is_wrong_says_what_it_costs_and_what_to_do() {
    let checks = examine(&patient(Roots::default()));
    for check in &checks {
        assert!(!check.name.is_empty() && !check.found.is_empty(), "{check:?}");
        assert_eq!(check.state == Finding::Ok, check.cost.is_empty() && check.remedy.is_empty(), "{check:?}");
    }
    for capability in CAPABILITIES {
        named(&checks, capability.name);
    }
    assert_eq!(named(&checks, "instances").found, "2 of lxc, 1 of podman");
    assert_eq!(named(&checks, "listeners").state, Finding::Note);
    assert_eq!(named(&checks, "warnings").state, Finding::Ok);
    // A test confines nobody.
    assert_eq!(named(&checks, "system calls are filtered (seccomp)").state, Finding::Missing);
}

#[test]
fn a_host_that_shows_nothing_is_said_to() {
    let empty = tempfile::tempdir().unwrap();
    let checks = examine(&patient(Roots::at(empty.path())));
    for name in ["processes of others", "cgroups", "threads", "capabilities"] {
        assert_eq!(named(&checks, name).state, Finding::Missing, "{name}");
    }
    assert_eq!(named(&checks, "pressure accounting").state, Finding::Note);
    assert!(!checks.iter().any(|check| check.name.starts_with("socket")), "none is installed");
}

#[test]
fn a_runtime_that_cannot_be_asked_is_told_from_one_that_is_not_there() {
    let base = tempfile::tempdir().unwrap();
    let host = Listeners::at(base.path(), &[("/run/podman/podman.sock", 1)]);
    drop(UnixListener::bind(base.path().join("run/docker.sock")).unwrap());
    let checks = examine(&patient(Roots::at(base.path())));
    assert_eq!(named(&checks, "socket /run/docker.sock").found, "nobody listens there");
    assert_eq!(named(&checks, "socket /run/podman/podman.sock").found, "answers");
    assert_eq!(host.connections(), [1]);
}

/// To connect would start the daemon.
#[test]
fn a_socket_that_systemd_listens_on_is_left_alone() {
    let base = tempfile::tempdir().unwrap();
    // systemd has one of them under the old name of /run.
    let host = Listeners::at(base.path(), &[("/run/docker.sock", 11), ("/var/run/crio/crio.sock", 12)]);
    let fd = base.path().join("proc/1/fd");
    let found = |name: &str| {
        let checks = examine(&patient(Roots::at(base.path())));
        let check = named(&checks, name);
        assert_eq!(check.state, Finding::Ok, "{check:?}");
        check.found.clone()
    };
    for (at, inode) in [("3", 11), ("4", 12)] {
        std::os::unix::fs::symlink(format!("socket:[{inode}]"), fd.join(at)).unwrap();
    }
    let asleep = "systemd listens for its daemon, which was left as it is";
    assert_eq!(found("socket /run/docker.sock"), asleep);
    assert_eq!(found("socket /run/crio/crio.sock"), asleep);
    // Without CAP_SYS_PTRACE it cannot be told who listens.
    std::fs::remove_dir_all(&fd).unwrap();
    let unseen = "somebody listens; who cannot be seen, so nobody was asked";
    assert_eq!(found("socket /run/docker.sock"), unseen);
    assert_eq!(host.connections(), [0, 0]);
}

/// Sockets that somebody listens on, and the table of a host that says so.
struct Listeners(Vec<UnixListener>);

impl Listeners {
    /// At these paths below `base`, with these inodes; process 1 has none of them open.
    fn at(base: &Path, sockets: &[(&str, u64)]) -> Self {
        let init = base.join("proc/1");
        std::fs::create_dir_all(init.join("fd")).unwrap();
        std::fs::create_dir_all(init.join("net")).unwrap();
        let line =
            |(path, inode): &(&str, u64)| format!("0: 00000002 00000000 00010000 0001 01 {inode} {path}\n");
        std::fs::write(init.join("net/unix"), sockets.iter().map(line).collect::<String>()).unwrap();
        let roots = Roots::at(base);
        let bind = |(path, _): &(&str, u64)| {
            let path = roots.host_path(Path::new(path)).unwrap();
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let listener = UnixListener::bind(path).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        Self(sockets.iter().map(bind).collect())
    }

    /// How often somebody has connected to each.
    fn connections(&self) -> Vec<usize> {
        self.0.iter().map(|listener| listener.incoming().take_while(Result::is_ok).count()).collect()
    }
}

#[test]
fn a_port_that_is_taken_is_told() {
    let mut patient = patient(Roots::default());
    patient.settings.metrics_address = Some(miharu_store::ListenAddress::parse("127.0.0.1", 9100).unwrap());
    let problem = crate::warnings::Problem::of_server(
        crate::warnings::Kind::Listener,
        "core.metrics_address",
        "core.metrics_address: the port is held by another".to_owned(),
    );
    patient.warnings.set(problem);
    let checks = examine(&patient);
    assert_eq!(named(&checks, "core.metrics_address").state, Finding::Missing);
    assert_eq!(named(&checks, "warnings").found, "1");
}

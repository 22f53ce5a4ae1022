//! What is said of this machine, and of recorded ones.

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
    std::fs::create_dir_all(base.path().join("run/podman")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(base.path().join("run/docker.sock")).unwrap());
    let _podman = std::os::unix::net::UnixListener::bind(base.path().join("run/podman/podman.sock")).unwrap();
    let checks = examine(&patient(Roots::at(base.path())));
    assert_eq!(named(&checks, "socket /run/docker.sock").found, "nobody listens there");
    assert_eq!(named(&checks, "socket /run/podman/podman.sock").found, "answers");
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

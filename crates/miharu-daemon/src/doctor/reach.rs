//! Who is served, and who is asked.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use miharu_api::{Check, Finding};
use miharu_collect::Roots;
use miharu_collect::host::Buffer;
use miharu_collect::host::unix_sockets::{self, Holder};
use miharu_instances::NAMES;
use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{Patient, ok, wrong};
use crate::warnings::Kind;

/// The daemons that are asked, by the driver that asks, and where they listen below `/run` or `/var/lib`.
const ASKED: [(&str, &str); 8] = [
    ("docker", "/run/docker.sock"),
    ("podman", "/run/podman/podman.sock"),
    ("containerd", "/run/containerd/containerd.sock"),
    ("kubernetes", "/run/crio/crio.sock"),
    ("qemu", "/run/libvirt/virtqemud-sock"),
    ("qemu", "/run/libvirt/libvirt-sock"),
    ("lxc", "/var/lib/incus/unix.socket"),
    ("lxc", "/var/lib/lxd/unix.socket"),
];

pub(super) fn checks(patient: &Patient, buffer: &mut Buffer) -> Vec<Check> {
    let mut checks = listeners(patient);
    checks.extend(drivers(patient));
    for (driver, socket) in ASKED {
        if patient.settings.drivers.has(driver) {
            checks.extend(asked(&patient.roots, buffer, socket));
        }
    }
    checks.push(warnings(patient));
    checks
}

fn listeners(patient: &Patient) -> Vec<Check> {
    const NETWORK: &str = "network";
    let settings = &patient.settings;
    let keys = [
        ("core.metrics_address", &settings.metrics_address),
        ("core.https_address", &settings.https_address),
    ];
    if keys.iter().all(|(_, address)| address.is_none()) {
        return vec![wrong(
            Finding::Note,
            ok(NETWORK, "listeners", "the unix socket alone"),
            "no Prometheus on another host can scrape",
            "`miharu config set core.metrics_address :8444`",
        )];
    }
    let failed = patient.warnings.list();
    let mut checks = Vec::new();
    for (key, address) in keys {
        let Some(address) = address else { continue };
        let is_its = |warning: &&miharu_api::Warning| {
            warning.warning_type == Kind::Listener.name()
                && warning.status != "resolved"
                && warning.last_message.starts_with(key)
        };
        checks.push(match failed.iter().find(is_its) {
            None => ok(NETWORK, key, format!("listens on {address}")),
            Some(warning) => wrong(
                Finding::Missing,
                ok(NETWORK, key, warning.last_message.clone()),
                "nobody is served there",
                "end what holds the port, or choose another address",
            ),
        });
    }
    if !settings.metrics_authentication {
        checks.push(wrong(
            Finding::Note,
            ok(NETWORK, "core.metrics_authentication", "off"),
            "whoever reaches the listener reads the metrics",
            "`miharu config unset core.metrics_authentication`",
        ));
    }
    checks
}

fn drivers(patient: &Patient) -> Vec<Check> {
    const RUNTIMES: &str = "runtimes";
    let mut checks = Vec::new();
    let off: Vec<&str> = NAMES.iter().copied().filter(|name| !patient.settings.drivers.has(name)).collect();
    if !off.is_empty() {
        checks.push(wrong(
            Finding::Note,
            ok(RUNTIMES, "drivers that are off", off.join(", ")),
            "their instances are not served",
            "`miharu config unset instances.drivers`",
        ));
    }
    let Some(found) = &patient.runtimes else {
        checks.push(wrong(
            Finding::Missing,
            ok(RUNTIMES, "instances", "the search for instances did not end in time"),
            "scrapes are late or empty",
            "`miharu warning list` tells what does not answer",
        ));
        return checks;
    };
    let mut kinds: Vec<(&String, usize)> = Vec::new();
    for runtime in found {
        match kinds.iter_mut().find(|(known, _)| *known == runtime) {
            Some((_, count)) => *count += 1,
            None => kinds.push((runtime, 1)),
        }
    }
    let told: Vec<String> = kinds.iter().map(|(runtime, count)| format!("{count} of {runtime}")).collect();
    checks.push(ok(RUNTIMES, "instances", if told.is_empty() { "none".to_owned() } else { told.join(", ") }));
    checks
}

/// Whether a daemon lets itself be asked; nothing where it is not installed.
///
/// Where systemd listens in its place, to connect would start it. So that is done where the daemon itself is known to listen alone.
fn asked(roots: &Roots, buffer: &mut Buffer, shown: &str) -> Option<Check> {
    let path = roots.host_path(Path::new(shown))?;
    let check = |found: &str| ok("runtimes", format!("socket {shown}"), found);
    // What connect(2) asks for; not by the real user, for whom access(2) would put down the capabilities.
    match rustix::fs::accessat(CWD, &path, Access::WRITE_OK, AtFlags::EACCESS) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::NOTDIR) => return None,
        Err(error) => return Some(refused(check, error)),
    }
    let is_it = |listening: &[u8]| {
        roots.host_path(Path::new(OsStr::from_bytes(listening))).is_some_and(|other| other == path)
    };
    Some(match unix_sockets::holder(roots, buffer, is_it) {
        Ok(Holder::Another) => answer(&path, check),
        Ok(Holder::Init) => check("systemd listens for its daemon, which was left as it is"),
        Ok(Holder::Unknown) => check("somebody listens; who cannot be seen, so nobody was asked"),
        Ok(Holder::Nobody) => nobody(check),
        Err(error) => wrong(
            Finding::Missing,
            check(&error.to_string()),
            "whether somebody listens there cannot be told",
            "mount /proc where the daemon looks for it (--proc)",
        ),
    })
}

/// What the daemon that listens does with a connection.
fn answer(path: &Path, check: impl Fn(&str) -> Check) -> Check {
    match connect(path) {
        Ok(()) => check("answers"),
        // It ended since.
        Err(Errno::NOENT | Errno::CONNREFUSED) => nobody(check),
        Err(Errno::AGAIN) => wrong(
            Finding::Missing,
            check("takes no connection"),
            "names and limits may be missing until it answers again",
            "see what its daemon is at",
        ),
        Err(error) => refused(check, error),
    }
}

fn nobody(check: impl Fn(&str) -> Check) -> Check {
    wrong(
        Finding::Note,
        check("nobody listens there"),
        "names and limits are read from files, as far as they are there",
        "start its daemon, if it is meant to run",
    )
}

fn refused(check: impl Fn(&str) -> Check, error: Errno) -> Check {
    wrong(
        Finding::Missing,
        check(&std::io::Error::from(error).to_string()),
        "names and limits that only its daemon knows",
        "give the daemon CAP_DAC_OVERRIDE, and CAP_DAC_READ_SEARCH for the folder",
    )
}

/// Connects without waiting.
fn connect(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

fn warnings(patient: &Patient) -> Check {
    let count = patient.warnings.count();
    if count == 0 {
        return ok("daemon", "warnings", "none");
    }
    wrong(
        Finding::Note,
        ok("daemon", "warnings", count.to_string()),
        "something is wrong, or was until lately",
        "`miharu warning list`",
    )
}

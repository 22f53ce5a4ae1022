//! What the host shows.

use miharu_api::{Check, Finding};
use miharu_collect::host::{Buffer, Hierarchies, Version};

use super::{Patient, ok, wrong};

const HOST: &str = "host";

/// The controllers that figures come from: version 2's name, version 1's, and what is lost without it.
const CONTROLLERS: [(&str, &str, &str); 4] = [
    ("cpu", "cpuacct", "no limits of CPU time; on version 1 no CPU time either"),
    ("memory", "memory", "no memory of containers"),
    ("io", "blkio", "no disk figures of containers"),
    ("pids", "pids", "processes are counted one by one"),
];

pub(super) fn checks(patient: &Patient, buffer: &mut Buffer) -> Vec<Check> {
    let mut checks = vec![processes(patient, buffer)];
    checks.extend(cgroups(patient, buffer));
    checks.push(pressure(patient, buffer));
    checks
}

/// Whether the processes of others can be seen: `hidepid=` of proc(5), `ProtectProc=` of systemd.exec(5).
fn processes(patient: &Patient, buffer: &mut Buffer) -> Check {
    let first = patient.roots.proc.join("1/stat");
    match buffer.read(&first) {
        Ok(_) => ok(HOST, "processes of others", "can be seen"),
        Err(error) => wrong(
            Finding::Missing,
            ok(HOST, "processes of others", error.to_string()),
            "no instance is found: /proc hides the processes of other users",
            "give the daemon CAP_SYS_PTRACE, mount /proc without hidepid=, and no ProtectProc= in the unit",
        ),
    }
}

fn cgroups(patient: &Patient, buffer: &mut Buffer) -> Vec<Check> {
    let hierarchies = match Hierarchies::find(&patient.roots) {
        Ok(hierarchies) => hierarchies,
        Err(error) => {
            return vec![wrong(
                Finding::Missing,
                ok(HOST, "cgroups", error.to_string()),
                "no container is found",
                "mount the cgroup file system, or name where it is with --cgroup",
            )];
        }
    };
    let version = hierarchies.version();
    let file = hierarchies.unified().map(|top| top.join("cgroup.controllers"));
    let unified = file.and_then(|file| Some(String::from_utf8_lossy(buffer.read(&file).ok()?).into_owned()));
    let unified = unified.unwrap_or_default();
    let present = |new: &str, old: &str| match version {
        Version::V1 => hierarchies.v1(old).is_some(),
        Version::V2 => unified.split_whitespace().any(|word| word == new),
    };
    let version = match version {
        Version::V1 => "version 1",
        Version::V2 => "version 2",
    };
    let mut checks = vec![ok(HOST, "cgroups", version)];
    for (new, old, cost) in CONTROLLERS {
        let check = ok(HOST, format!("cgroup controller {new}"), "there");
        checks.push(if present(new, old) {
            check
        } else {
            let check = Check { found: "not there".to_owned(), ..check };
            wrong(
                Finding::Missing,
                check,
                cost,
                "enable it: cgroup_enable= or systemd's Delegate=, or mount it",
            )
        });
    }
    checks
}

/// Pressure Stall Information: <https://docs.kernel.org/accounting/psi.html>.
fn pressure(patient: &Patient, buffer: &mut Buffer) -> Check {
    match buffer.read(&patient.roots.proc.join("pressure/cpu")) {
        Ok(_) => ok(HOST, "pressure accounting", "on"),
        Err(_) => wrong(
            Finding::Note,
            ok(HOST, "pressure accounting", "off"),
            "no series of pressure",
            "boot with psi=1, on a kernel with CONFIG_PSI",
        ),
    }
}

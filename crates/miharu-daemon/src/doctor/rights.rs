//! Whose the daemon is, what it may do, and what it has given up.

use miharu_api::{Check, Finding};
use miharu_collect::host::confinement::{self, Thread};
use miharu_collect::host::{Buffer, CAPABILITIES, Capabilities, Capability, Cost};
use rustix::process::Resource;

use super::{Patient, ok, wrong};
use crate::sandbox::{self, Outcome, Sandbox};

const RIGHTS: &str = "rights";
const SANDBOX: &str = "sandbox";

pub(super) fn checks(patient: &Patient, buffer: &mut Buffer) -> Vec<Check> {
    let mut checks = vec![user(), core()];
    match Capabilities::of_this_thread(&patient.roots, buffer) {
        Ok(own) => {
            // A socket is made, and given to a group, by other threads than those that look at instances.
            let threads = confinement::threads(&patient.roots, buffer).unwrap_or_default();
            let held = confinement::names(threads.iter().fold(0, |all, thread| all | thread.effective));
            let has = |it: &Capability| match it.cost {
                Cost::Figures => own.has(it),
                Cost::Setting => held.iter().any(|name| name == it.name),
            };
            checks.extend(CAPABILITIES.iter().map(|it| capability(it, has(it))));
        }
        Err(error) => checks.push(wrong(
            Finding::Missing,
            ok(RIGHTS, "capabilities", error.to_string()),
            "what is missing cannot be told",
            "mount /proc where the daemon looks for it (--proc)",
        )),
    }
    match confinement::threads(&patient.roots, buffer) {
        Ok(threads) => {
            checks.push(others(&threads));
            checks.extend(confined(&threads, sandbox::current()));
        }
        Err(error) => checks.push(wrong(
            Finding::Missing,
            ok(SANDBOX, "threads", error.to_string()),
            "what confines the daemon cannot be told",
            "mount /proc where the daemon looks for it (--proc)",
        )),
    }
    checks
}

fn user() -> Check {
    let uid = rustix::process::geteuid();
    let check =
        ok(RIGHTS, "user", format!("uid {}, gid {}", uid.as_raw(), rustix::process::getegid().as_raw()));
    if !uid.is_root() {
        return check;
    }
    wrong(
        Finding::Note,
        check,
        "who takes the daemon over owns every file that is root's",
        "run it as the package's unit does: as a user of its own, with three capabilities",
    )
}

fn core() -> Check {
    let limit = rustix::process::getrlimit(Resource::Core).current;
    if limit == Some(0) {
        return ok(RIGHTS, "core dumps", "none");
    }
    let found = limit.map_or_else(|| "of any size".to_owned(), |limit| format!("of up to {limit} bytes"));
    wrong(
        Finding::Note,
        ok(RIGHTS, "core dumps", found),
        "a core holds the server's key",
        "LimitCORE=0 in the unit, or `ulimit -c 0`",
    )
}

/// Whether those who look at instances have it.
fn capability(capability: &Capability, has: bool) -> Check {
    if has {
        return ok(RIGHTS, capability.name, "in effect");
    }
    // The package does not give these two, and what fails for want of one is told where it fails.
    if capability.cost == Cost::Setting {
        return ok(RIGHTS, capability.name, format!("not in effect: {}", capability.purpose));
    }
    wrong(
        Finding::Missing,
        ok(RIGHTS, capability.name, "not in effect"),
        capability.purpose,
        "name it in AmbientCapabilities= and CapabilityBoundingSet= of the unit, or run the daemon as root",
    )
}

/// Capabilities that miharu has no use for.
fn others(threads: &[Thread]) -> Check {
    let held = threads.iter().fold(0, |all, thread| all | thread.permitted | thread.effective);
    let known = CAPABILITIES.iter().map(|capability| capability.name);
    let known: Vec<&str> = known.collect();
    let further: Vec<String> =
        confinement::names(held).into_iter().filter(|name| !known.contains(&name.as_str())).collect();
    if further.is_empty() {
        return ok(RIGHTS, "further capabilities", "none");
    }
    wrong(
        Finding::Note,
        ok(RIGHTS, "further capabilities", further.join(", ")),
        "who takes the daemon over has these, too",
        "run it as the package's unit does: as a user of its own, with three capabilities",
    )
}

fn confined(threads: &[Thread], sandbox: Option<&Sandbox>) -> Vec<Check> {
    let all = threads.len();
    let count = |has: fn(&Thread) -> bool| threads.iter().filter(|thread| has(thread)).count();
    let told = |number: usize| format!("for {number} of {all} threads");
    let privileges = count(|thread| thread.no_new_privileges);
    let calls = count(|thread| thread.is_filtered);
    let mut checks = vec![
        measured(
            ok(SANDBOX, "no new privileges", told(privileges)),
            privileges == all,
            "a program with the set-user-ID bit would run with its owner's rights",
            "NoNewPrivileges=yes in the unit; the daemon sets it itself unless it runs with --sandbox off",
        ),
        measured(
            ok(SANDBOX, "system calls are filtered (seccomp)", told(calls)),
            calls == all,
            "who takes the daemon over may start programs, mount, and enter namespaces",
            "run it without --sandbox off, on a kernel with CONFIG_SECCOMP_FILTER",
        ),
    ];
    let Some(sandbox) = sandbox else { return checks };
    let rows = [
        (
            "no programs, no namespaces, no other processes",
            &sandbox.calls,
            "who takes the daemon over may start programs, mount, and reach into other processes",
        ),
        (
            "what looks at instances writes nowhere",
            &sandbox.reading,
            "a trick with a path could make the daemon write where CAP_DAC_OVERRIDE lets it",
        ),
        (
            "what answers the network has none of these capabilities",
            &sandbox.capabilities,
            "who takes over what listens has the rights of what looks at instances",
        ),
    ];
    checks
        .extend(rows.into_iter().map(|(name, outcome, cost)| in_force(ok(SANDBOX, name, ""), outcome, cost)));
    checks.push(in_force(
        ok(
            SANDBOX,
            format!(
                "what answers the network writes, makes and removes files below {} alone (Landlock)",
                sandbox.dir.display()
            ),
            "",
        ),
        &sandbox.writing,
        "a trick with a path could make the daemon write wherever its user may",
    ));
    checks
}

fn measured(check: Check, is_well: bool, cost: &str, remedy: &str) -> Check {
    if is_well { check } else { wrong(Finding::Missing, check, cost, remedy) }
}

fn in_force(check: Check, outcome: &Outcome, cost: &str) -> Check {
    const REMEDY: &str = "run the daemon without --sandbox off, on a kernel that has it: Linux 5.13 with `landlock` among lsm=, \
                          and seccomp; a container's own filter may be in the way";
    match outcome {
        Outcome::InForce => Check { found: "in force".to_owned(), ..check },
        Outcome::Partly => wrong(
            Finding::Note,
            Check { found: "in force as far as this kernel has it".to_owned(), ..check },
            "signals to other processes of the same user, or cutting a file short, may not be covered",
            "a later kernel: Linux 6.12 has all of it",
        ),
        Outcome::Not(why) => {
            wrong(Finding::Missing, Check { found: format!("not in force: {why}"), ..check }, cost, REMEDY)
        }
    }
}

//! What the daemon may take.

use std::path::Path;

use miharu_api::{Check, Finding};
use miharu_collect::host::Buffer;
use miharu_collect::host::confinement::Allowance;
use rustix::process::Resource;

use super::{Patient, ok, wrong};

const LIMITS: &str = "limits";

/// Descriptors beside those for instances: files that are kept open have a budget of their own, connections another.
const SPARE_DESCRIPTORS: u64 = 2048;
/// What an instance takes at most beside these.
const DESCRIPTORS_EACH: u64 = 5;
/// Threads that the daemon has when it is busy.
const BUSY_THREADS: u64 = 128;
/// Memory with which three hundred instances are served, bytes.
const MEMORY: u64 = 128 << 20;
/// Watches beside those for instances.
const SPARE_WATCHES: u64 = 1024;

pub(super) fn checks(patient: &Patient, buffer: &mut Buffer) -> Vec<Check> {
    let instances = patient.runtimes.as_ref().map_or(0, Vec::len) as u64;
    let allowance = Allowance::of_this_process(&patient.roots, buffer);
    let processes = rustix::process::getrlimit(Resource::Nproc).current;
    let mut checks = vec![
        at_least(
            "open files (NOFILE)",
            rustix::process::getrlimit(Resource::Nofile).current,
            SPARE_DESCRIPTORS + DESCRIPTORS_EACH * instances,
            "connections are refused and figures are missing when they run out",
            "LimitNOFILE= in the unit, or `ulimit -n`",
        ),
        at_least(
            "threads (NPROC)",
            processes,
            BUSY_THREADS,
            "what waits for a slow instance keeps the others waiting",
            "LimitNPROC= in the unit, or `ulimit -u`",
        ),
        at_least(
            "threads (pids.max)",
            allowance.tasks,
            BUSY_THREADS,
            "what waits for a slow instance keeps the others waiting",
            "TasksMax= in the unit",
        ),
        at_least(
            "memory (memory.max)",
            allowance.memory,
            MEMORY,
            "the kernel ends the daemon when a scrape needs more",
            "MemoryMax= in the unit",
        ),
    ];
    let inotify = patient.roots.proc.join("sys/fs/inotify");
    checks.extend(watches(&inotify, instances, buffer));
    checks
}

/// What the daemon's user may watch, inotify(7).
fn watches(folder: &Path, instances: u64, buffer: &mut Buffer) -> Vec<Check> {
    let rows = [
        ("inotify watches", "max_user_watches", SPARE_WATCHES + 16 * instances),
        ("inotify instances", "max_user_instances", 16),
    ];
    let mut checks = Vec::new();
    for (name, file, wanted) in rows {
        let value = buffer.read(&folder.join(file)).ok().and_then(miharu_collect::host::number_file);
        let Some(value) = value else { continue };
        checks.push(at_least(
            name,
            Some(value),
            wanted,
            "new instances are found by looking at every cgroup each time, which costs CPU time",
            &format!("sysctl fs.inotify.{file}={}", wanted * 2),
        ));
    }
    checks
}

fn at_least(name: &str, limit: Option<u64>, wanted: u64, cost: &str, remedy: &str) -> Check {
    match limit {
        None => ok(LIMITS, name, "not limited"),
        Some(limit) if limit >= wanted => ok(LIMITS, name, limit.to_string()),
        Some(limit) => {
            let check = ok(LIMITS, name, format!("{limit}; {wanted} would do"));
            wrong(Finding::Missing, check, cost, remedy)
        }
    }
}

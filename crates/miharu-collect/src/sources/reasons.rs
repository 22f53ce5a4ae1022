//! Why an instance's cgroups do not tell something, in words that lead to what can be done about it.

use miharu_instances::Instance;
use miharu_linux::cgroup::{Figures, Hierarchies};
use miharu_linux::read::{Look, Outcome};
use miharu_metrics::Part;

/// The reasons why there are not all families of a part: `figures` is what was read of that part alone, `looks` the files.
pub(super) fn of(
    part: Part,
    hierarchies: &Hierarchies,
    instance: &Instance,
    figures: &Figures,
    looks: &[Look],
) -> Vec<String> {
    if !figures.problems.is_empty() {
        return figures.problems.iter().map(ToString::to_string).collect();
    }
    if let Some(reason) = no_cgroup(part, hierarchies, instance) {
        return vec![reason];
    }
    let is_v1 = controller(part).is_some_and(|controller| hierarchies.v1(controller).is_some());
    if part == Part::Disks && !figures.io.is_empty() {
        return vec!["no cgroup tells how long reading and writing took".to_owned()];
    }
    let was_read = looks.iter().any(|look| look.outcome == Outcome::Read);
    if was_read && let Some(reason) = of_what_was_read(part, Version::of(is_v1)) {
        return vec![reason.to_owned()];
    }
    if part == Part::OomKills && looks.is_empty() {
        return vec![
            "it has cgroups below its own, and cgroup v1 counts the kills of each by itself".to_owned(),
        ];
    }
    let of_file = |look: &Look| {
        let path = look.path.display();
        match look.outcome {
            Outcome::Read => None,
            Outcome::Absent if is_v1 => Some(format!("the kernel has no {path}")),
            Outcome::Absent => Some(format!(
                "there is no {path}: the kernel is older, or the controller is not enabled for this cgroup \
                 (cgroup.subtree_control of the one above)"
            )),
            Outcome::Unserved => Some(format!("{path} is not served: the kernel runs without it (psi=1)")),
        }
    };
    // Those of the cgroups above come first, and its own tells enough.
    looks.iter().rev().find_map(of_file).into_iter().collect()
}

/// The controller that a part comes from; the unified hierarchy itself for pressure.
fn controller(part: Part) -> Option<&'static str> {
    Some(match part {
        Part::Cpu => "cpuacct",
        Part::Throttling | Part::CpuLimit => "cpu",
        Part::CpuEffective => "cpuset",
        Part::Memory | Part::Swap | Part::MemoryPeak | Part::OomKills => "memory",
        Part::Hugepages => "hugetlb",
        Part::Disks => "blkio",
        Part::Procs => "pids",
        _ => return None,
    })
}

/// Where the instance has no cgroup of its own that could tell.
fn no_cgroup(part: Part, hierarchies: &Hierarchies, instance: &Instance) -> Option<String> {
    let paths = &instance.cgroup;
    if let Some(controller) = controller(part)
        && let Some(root) = hierarchies.v1(controller)
    {
        let root = root.display();
        let has = paths.v1.contains_key(controller);
        return (!has).then(|| format!("it has no cgroup of its own in {root}"));
    }
    match (hierarchies.unified(), &paths.unified) {
        (None, _) => Some("this host has no hierarchy of cgroups that could tell it".to_owned()),
        (Some(root), None) => Some(format!("it has no cgroup of its own in {}", root.display())),
        (Some(_), Some(_)) => None,
    }
}

/// The version of the controller that a part comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    fn of(is_v1: bool) -> Self {
        if is_v1 { Self::V1 } else { Self::V2 }
    }
}

/// What it means that files were read and said nothing.
fn of_what_was_read(part: Part, version: Version) -> Option<&'static str> {
    Some(match (part, version) {
        (Part::CpuLimit, _) => "neither its cgroup nor one above limits its CPU",
        (Part::Hugepages, _) => "neither its cgroup nor one above limits its huge pages",
        (Part::Disks, Version::V1) => {
            "no device is in these files: cgroup v1 counts only where some cgroup of the host has a throttle limit, \
             and then what passes from there on (see docs/how-to/troubleshooting.md)"
        }
        (Part::Disks, Version::V2) => "no device is in the file: it has read and written nothing so far",
        (Part::Throttling, Version::V2) => {
            "cpu.stat tells it only where the cpu controller is enabled for this cgroup"
        }
        (Part::Swap, Version::V1) => {
            "memory.stat has no swap: the kernel does not account it (swapaccount=1)"
        }
        (Part::Memory, _) => "the kernel does not tell it in this version of cgroups",
        _ => return None,
    })
}

//! cgroup v1, v2 and hybrid: where the hierarchies are, and one instance's figures from them.
//!
//! `v1` and `v2` mirror each other and fill the same [`Figures`]. Which of them reads a figure is decided for each
//! controller, as a hybrid host may have a controller in either.

mod ancestors;
mod directory;
mod figures;
mod hierarchies;
pub mod parse;
mod parts;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use ancestors::Ancestors;
pub use directory::Kept;
pub use figures::{CpuTime, Figures, Io, Limit, Memory, Pressure, Throttling};
pub use hierarchies::{Hierarchies, Version};
pub use parts::{Part, Parts};

use ancestors::Place;
use directory::{Directory, Reading};

use crate::error::{Error, Result};
use crate::host::HostFacts;
use crate::read::Buffer;

/// The parts that come from the memory controller.
const OF_MEMORY: [Part; 4] = [Part::Memory, Part::Swap, Part::MemoryPeak, Part::OomKills];

/// Where an instance's cgroups are in each hierarchy, without a leading slash. A hierarchy in which the instance has no
/// cgroup of its own is left out; an empty path is taken as left out, as no instance is the root cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupPaths {
    /// In the unified hierarchy (v2, or the `0::` line of a hybrid host).
    pub unified: Option<PathBuf>,
    /// In the v1 hierarchies, by controller: `cpu` and `cpuacct` are two keys also where they share a hierarchy. The
    /// key of a named hierarchy is as in `/proc/PID/cgroup`: `name=systemd`.
    pub v1: BTreeMap<String, PathBuf>,
}

impl CgroupPaths {
    /// Whether nothing is known: every figure will be absent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unified.is_none() && self.v1.is_empty()
    }
}

/// Reads the figures of an instance's cgroups that are wanted; others may be there as well. Where `paths` says nothing, figures are absent, and that is no error.
///
/// A controller's figures come from its v1 hierarchy where the host has one, else from the unified hierarchy.
///
/// # Errors
/// [`crate::Error::Gone`] when a cgroup of the instance is not there any more. A single file that cannot be read is no error
/// but one of [`Figures::problems`].
pub fn read(
    hierarchies: &Hierarchies,
    paths: &CgroupPaths,
    host: &HostFacts,
    wanted: Parts,
    ancestors: &mut Ancestors,
    kept: &mut Kept,
    buffer: &mut Buffer,
) -> Result<Figures> {
    let mut reading = Reading::new(buffer, wanted);
    let mut figures = Figures::default();
    read_unified(hierarchies, paths, host, ancestors, kept, &mut reading, &mut figures)?;
    read_v1(hierarchies, paths, host, ancestors, kept, &mut reading, &mut figures)?;
    figures.problems = reading.problems;
    Ok(figures)
}

/// What comes from the unified hierarchy: pressure, and the figures of every controller that no v1 hierarchy has.
fn read_unified(
    hierarchies: &Hierarchies,
    paths: &CgroupPaths,
    host: &HostFacts,
    ancestors: &mut Ancestors,
    kept: &mut Kept,
    reading: &mut Reading<'_>,
    figures: &mut Figures,
) -> Result<()> {
    let parts = reading.parts;
    let has = |controller: &str, part: Part| hierarchies.v1(controller).is_none() && parts.has(part);
    // Every cgroup has CPU times, also where v1 has the controller but no cgroup for this instance.
    let has_cpu_stat = v1_place(hierarchies, paths, "cpuacct").is_none() || hierarchies.v1("cpu").is_none();
    visit(unified_place(hierarchies, paths), kept, reading, |own, place, reading| {
        if has_cpu_stat && parts.has_any(&[Part::Cpu, Part::Throttling]) {
            v2::cpu(own, reading, figures);
        }
        if has("cpu", Part::CpuLimit) {
            figures.limit_cores = v2::bandwidth(own, place, reading, ancestors);
        }
        if has("cpuset", Part::CpusEffective) {
            figures.cpus_effective = v2::cpus_effective(own, place, reading, ancestors);
        }
        if hierarchies.v1("memory").is_none() && parts.has_any(&OF_MEMORY) {
            let (memory, bounds) = v2::memory(own, place, reading, ancestors);
            // What the host has left says nothing of an instance of which nothing was read.
            figures.memory = if parts.has(Part::Memory) { memory.within(bounds, host) } else { memory };
        }
        if has("hugetlb", Part::Hugetlb) {
            let (total, free) = v2::hugetlb(own, place, host, reading, ancestors);
            (figures.memory.hugetlb_total, figures.memory.hugetlb_free) = (total, free);
        }
        if has("blkio", Part::Io) {
            figures.io = v2::io(own, reading);
        }
        if has("pids", Part::Tasks) {
            figures.tasks = v2::tasks(own, reading);
        }
        figures.pressure = v2::pressure(own, reading);
    })
}

/// What comes from v1 hierarchies, in which the instance may have a different path in each.
fn read_v1(
    hierarchies: &Hierarchies,
    paths: &CgroupPaths,
    host: &HostFacts,
    ancestors: &mut Ancestors,
    kept: &mut Kept,
    reading: &mut Reading<'_>,
    figures: &mut Figures,
) -> Result<()> {
    let parts = reading.parts;
    let at = |controller, wanted: &[Part]| {
        v1_place(hierarchies, paths, controller).filter(|_| parts.has_any(wanted))
    };
    visit(at("cpuacct", &[Part::Cpu]), kept, reading, |own, _, reading| {
        figures.cpu_times = v1::cpu_times(own, host, reading);
    })?;
    visit(at("cpu", &[Part::Throttling, Part::CpuLimit]), kept, reading, |own, place, reading| {
        if parts.has(Part::Throttling) {
            figures.throttling = v1::throttling(own, reading);
        }
        if parts.has(Part::CpuLimit) {
            figures.limit_cores = v1::bandwidth(own, place, reading, ancestors);
        }
    })?;
    visit(at("cpuset", &[Part::CpusEffective]), kept, reading, |own, place, reading| {
        figures.cpus_effective = v1::cpus_effective(own, place, reading, ancestors);
    })?;
    visit(at("memory", &OF_MEMORY), kept, reading, |own, place, reading| {
        let (memory, bounds) = v1::memory(own, place, reading, ancestors);
        let hugetlb = (figures.memory.hugetlb_total, figures.memory.hugetlb_free);
        figures.memory = if parts.has(Part::Memory) { memory.within(bounds, host) } else { memory };
        (figures.memory.hugetlb_total, figures.memory.hugetlb_free) = hugetlb;
    })?;
    visit(at("hugetlb", &[Part::Hugetlb]), kept, reading, |own, place, reading| {
        let (total, free) = v1::hugetlb(own, place, host, reading, ancestors);
        (figures.memory.hugetlb_total, figures.memory.hugetlb_free) = (total, free);
    })?;
    visit(at("blkio", &[Part::Io]), kept, reading, |own, _, reading| figures.io = v1::io(own, reading))?;
    visit(at("pids", &[Part::Tasks]), kept, reading, |own, _, reading| {
        figures.tasks = v1::tasks(own, reading);
    })
}

/// Opens the cgroup, lets `read` read it, and makes sure that it was there all the time. Nothing happens where there is no
/// place; a cgroup that one may not enter is a problem like a file that one may not read.
fn visit(
    place: Option<Place<'_>>,
    kept: &mut Kept,
    reading: &mut Reading<'_>,
    read: impl FnOnce(&mut Directory<'_>, Place<'_>, &mut Reading<'_>),
) -> Result<()> {
    let Some(place) = place else { return Ok(()) };
    let mut own = match kept.open(place) {
        Ok(own) => own,
        Err(gone @ Error::Gone(_)) => return Err(gone),
        Err(problem) => {
            reading.problems.push(problem);
            return Ok(());
        }
    };
    read(&mut own, place, reading);
    own.still_there()
}

fn unified_place<'a>(hierarchies: &'a Hierarchies, paths: &'a CgroupPaths) -> Option<Place<'a>> {
    Place::new(hierarchies.unified()?, paths.unified.as_deref()?)
}

fn v1_place<'a>(hierarchies: &'a Hierarchies, paths: &'a CgroupPaths, controller: &str) -> Option<Place<'a>> {
    Place::new(hierarchies.v1(controller)?, paths.v1.get(controller)?)
}

/// How many cores a quota of microseconds in each period of microseconds is.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a scheduling period, far below 2^53")]
fn cores(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests;

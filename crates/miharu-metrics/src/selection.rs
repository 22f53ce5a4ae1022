//! Which families are served, and what has to be read for them.

use crate::encode::Prefix;
use crate::families::{FAMILIES, Family};

/// A set of families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilySet(u128);

/// A family's place in [`FAMILIES`] is its bit.
const _: () = assert!(FAMILIES.len() <= 128, "FamilySet needs more bits");

impl FamilySet {
    /// Every family.
    #[must_use]
    pub fn all() -> Self {
        Self(u128::MAX)
    }

    /// This set less the families of which some name is `excluded`. A family answers to its name with either prefix, and
    /// without one.
    #[must_use]
    pub fn without(self, excluded: impl Fn(&str) -> bool) -> Self {
        let goes = |family: &Family| names(family).iter().any(|name| excluded(name));
        let gone = FAMILIES.iter().enumerate().filter(|(_, family)| goes(family));
        Self(gone.fold(self.0, |set, (place, _)| set & !(1 << place)))
    }

    /// Whether the family is in it.
    #[must_use]
    pub fn has(self, family: &Family) -> bool {
        self.iter().any(|one| one.bare_name() == family.bare_name())
    }

    /// The families in it, in the order of the exposition.
    pub fn iter(self) -> impl Iterator<Item = &'static Family> {
        FAMILIES
            .iter()
            .enumerate()
            .filter(move |(place, _)| self.0 >> place & 1 == 1)
            .map(|(_, family)| family)
    }
}

fn names(family: &Family) -> [String; 3] {
    let [incus, lxd] = [Prefix::Incus, Prefix::Lxd].map(|prefix| family.name(prefix));
    [family.bare_name().to_owned(), incus, lxd]
}

/// Figures that come from files, or questions, of their own. What is in no part costs nothing to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// CPU time used.
    Cpu,
    /// How often the CPU limit held the instance back.
    Throttling,
    /// The CPU limit.
    CpuLimit,
    /// The CPUs that it may run on.
    CpuEffective,
    /// Counters of block devices.
    Disks,
    /// Sizes of file systems.
    Filesystems,
    /// Memory, less the four parts that follow.
    Memory,
    /// Memory swapped out.
    Swap,
    /// The most memory that was ever used.
    MemoryPeak,
    /// Processes killed for want of memory.
    OomKills,
    /// Huge pages.
    Hugepages,
    /// Counters of network interfaces.
    Network,
    /// Tasks or processes.
    Procs,
    /// Time lost in waiting for a CPU.
    PressureCpu,
    /// Time lost in waiting for memory.
    PressureMemory,
    /// Time lost in waiting for input or output.
    PressureIo,
    /// Memory of the virtual machine monitor.
    Hypervisor,
    /// Graphics processors.
    Gpus,
    /// Projects of Incus and LXD.
    Projects,
    /// Storage pools of Incus and LXD.
    StoragePools,
}

impl Part {
    /// The families whose figures it holds, in the order of the exposition.
    pub fn families(self) -> impl Iterator<Item = &'static Family> {
        FAMILIES.iter().filter(move |family| part(family) == Some(self))
    }
}

/// The parts that only an exposition shows, and nothing else of the API.
const OF_EXPOSITIONS: [Part; 3] = [Part::Gpus, Part::Projects, Part::StoragePools];

/// What the names of a part's families begin with; the first that fits counts.
const PARTS: &[(&str, Part)] = &[
    ("cpu_seconds_", Part::Cpu),
    ("cpu_cfs_", Part::Throttling),
    ("cpu_throttled_", Part::Throttling),
    ("cpu_limit_", Part::CpuLimit),
    ("cpu_effective_", Part::CpuEffective),
    ("disk_", Part::Disks),
    ("filesystem_", Part::Filesystems),
    ("memory_Swap_", Part::Swap),
    ("memory_peak_", Part::MemoryPeak),
    ("memory_OOM_kills_", Part::OomKills),
    ("memory_Hugepages", Part::Hugepages),
    ("memory_", Part::Memory),
    ("network_", Part::Network),
    ("procs_", Part::Procs),
    ("pressure_cpu_", Part::PressureCpu),
    ("pressure_memory_", Part::PressureMemory),
    ("pressure_io_", Part::PressureIo),
    ("hypervisor_", Part::Hypervisor),
    ("gpu_", Part::Gpus),
    ("project_", Part::Projects),
    ("storage_pool_", Part::StoragePools),
];

/// The parts of the figures that somebody wants: the others need not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted(u32);

impl Default for Wanted {
    fn default() -> Self {
        Self::all()
    }
}

impl Wanted {
    /// Every part.
    #[must_use]
    pub fn all() -> Self {
        Self(PARTS.iter().fold(0, |set, (_, part)| set | bit(*part)))
    }

    /// One part alone.
    #[must_use]
    pub fn only(part: Part) -> Self {
        Self(bit(part))
    }

    /// What has to be read for these families.
    #[must_use]
    pub fn by(families: FamilySet) -> Self {
        Self(families.iter().filter_map(part).fold(0, |set, part| set | bit(part)))
    }

    /// Every part, less those that only an exposition shows and that these families need not.
    #[must_use]
    pub fn all_but_unserved(families: FamilySet) -> Self {
        let served = Self::by(families);
        let unserved = OF_EXPOSITIONS.iter().filter(|part| !served.has(**part));
        Self(unserved.fold(Self::all().0, |set, part| set & !bit(*part)))
    }

    /// Whether the part is wanted.
    #[must_use]
    pub fn has(self, part: Part) -> bool {
        self.0 & bit(part) != 0
    }

    /// Whether everything that `other` wants is wanted.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }
}

fn bit(part: Part) -> u32 {
    1 << part as u32
}

fn part(family: &Family) -> Option<Part> {
    let (_, part) = PARTS.iter().find(|(begin, _)| family.bare_name().starts_with(begin))?;
    Some(*part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(excluded: &str) -> Vec<&'static str> {
        let rest = FamilySet::all().without(|name| name.starts_with(excluded));
        rest.iter().map(Family::bare_name).collect()
    }

    #[test]
    fn a_family_is_excluded_under_each_of_its_names() {
        for name in ["procs_total", "incus_procs_total", "lxd_procs_total"] {
            assert_eq!(left(name).len(), FAMILIES.len() - 1);
            assert!(!left(name).contains(&"procs_total"));
        }
        assert!(left("process_").iter().all(|name| !name.starts_with("process_")));
        assert_eq!(
            left("incus_").len(),
            FAMILIES.iter().filter(|f| f.bare_name().starts_with("process_")).count()
        );
        assert!(left("incus_process_").contains(&"process_open_fds"));
        assert_eq!(FamilySet::all().iter().count(), FAMILIES.len());
    }

    #[test]
    fn a_part_has_its_families() {
        let names = |part: Part| part.families().map(Family::bare_name).collect::<Vec<_>>();
        assert_eq!(names(Part::Cpu), ["cpu_seconds_total"]);
        assert!(
            names(Part::Memory).contains(&"memory_RSS_bytes")
                && !names(Part::Memory).contains(&"memory_Swap_bytes")
        );
        let all = FamilySet::all();
        assert!(Part::Network.families().all(|family| all.has(family)));
        assert!(!all.without(|name| name == "cpu_seconds_total").has(Part::Cpu.families().next().unwrap()));
    }

    #[test]
    fn what_serves_an_excluded_family_alone_is_not_wanted() {
        let by =
            |excluded: &'static str| Wanted::by(FamilySet::all().without(|name| name.starts_with(excluded)));
        assert!(!by("pressure_io_").has(Part::PressureIo) && by("pressure_io_").has(Part::PressureCpu));
        assert!(!by("filesystem_").has(Part::Filesystems));
        assert!(by("filesystem_size").has(Part::Filesystems), "the others are served from the same files");
        assert!(by("memory_peak").has(Part::Memory) && !by("memory_").has(Part::MemoryPeak));
        assert!(Wanted::all().covers(by("disk_")) && !by("disk_").covers(Wanted::all()));
        assert!(by("disk_").covers(by("disk_")));
        assert_eq!(Wanted::by(FamilySet::all()), Wanted::all());
    }

    #[test]
    fn nobody_is_asked_for_what_nothing_shows() {
        let families =
            FamilySet::all().without(|name| name.starts_with("project_") || name.starts_with("disk_"));
        let wanted = Wanted::all_but_unserved(families);
        assert!(!wanted.has(Part::Projects) && wanted.has(Part::StoragePools));
        assert!(wanted.has(Part::Disks), "the rest of the API shows them");
        assert!(wanted.covers(Wanted::by(families)));
        assert_eq!(Wanted::all_but_unserved(FamilySet::all()), Wanted::all());
    }

    #[test]
    fn every_part_has_a_family_and_every_figure_of_an_instance_a_part_or_no_file() {
        for (begin, expected) in PARTS {
            let family = FAMILIES.iter().find(|family| family.bare_name().starts_with(begin)).unwrap();
            assert_eq!(part(family), Some(*expected), "{begin}");
        }
        let of_no_file = ["boot_time_seconds", "time_seconds", "instance_", "instances_"];
        for family in FAMILIES.iter().filter(|family| family.is_of_instances() && part(family).is_none()) {
            let name = family.bare_name();
            assert!(of_no_file.iter().any(|begin| name.starts_with(begin)), "{name} is in no part");
        }
        for family in FAMILIES.iter().filter(|family| !family.is_of_instances()) {
            let is_asked = matches!(part(family), Some(Part::Projects | Part::StoragePools));
            assert!(is_asked || part(family).is_none(), "{}", family.bare_name());
        }
    }
}

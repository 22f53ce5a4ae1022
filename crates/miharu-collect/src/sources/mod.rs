//! Where the figures of one instance come from, for a person who wonders about one of them.
//!
//! The files are read anew, by the code that reads them in a collection, into a buffer that takes notes of which they were. So no
//! file is named that is not read, and a collection pays nothing for it. What a guest or a monitor told cannot be asked
//! again; the collection has kept who it was ([`crate::Origin`]).

mod container;
mod machine;
mod reasons;

use std::path::PathBuf;
use std::sync::Arc;

use miharu_instances::Instance;
use miharu_linux::Roots;
use miharu_linux::cgroup::Hierarchies;
use miharu_linux::host::HostFacts;
use miharu_linux::mounts::{HostMounts, LeftOut};
use miharu_linux::process::ProcDir;
use miharu_linux::read::{Buffer, Look, Outcome};
use miharu_metrics::{FAMILIES, Family, FamilySet, InstanceFigures, Part, Prefix};

use crate::container::HOST_INIT;
use crate::kept::LastHostMounts;
use crate::{Guest, Options};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// Where the host's files are.
    pub roots: &'q Roots,
    /// About which instance.
    pub instance: &'q Instance,
    /// All that run, this one among them.
    pub all: &'q [Arc<Instance>],
    /// How figures are collected.
    pub options: &'q Options,
    /// The families that are served.
    pub families: FamilySet,
    /// What their names begin with.
    pub prefix: Prefix,
    /// The instance's figures of the last collection, if it was in that.
    pub figures: Option<&'q InstanceFigures>,
    /// What is known of its guest, if it is a virtual machine.
    pub guest: Option<&'q Guest>,
}

/// Where the figures of an instance come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Its own cgroups.
    pub cgroups: Vec<CgroupPlace>,
    /// Its figures, by what they are read from.
    pub groups: Vec<Group>,
}

/// An instance's cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPlace {
    /// The controller of a v1 hierarchy (`memory`, `name=systemd`), or `unified`.
    pub hierarchy: String,
    /// Its directory.
    pub directory: PathBuf,
}

/// Figures that come from the same places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What they tell of.
    pub what: &'static str,
    /// The families that the instance has, by their whole names.
    pub families: Vec<String>,
    /// What was read or asked for them: paths of files, and questions in words.
    pub from: Vec<String>,
    /// What there is not, and why.
    pub lacks: Vec<String>,
}

/// The groups in the order of the exposition.
const GROUPS: &[(Part, &str)] = &[
    (Part::Cpu, "CPU time"),
    (Part::CpuEffective, "CPUs"),
    (Part::CpuLimit, "CPU limit"),
    (Part::Throttling, "CPU throttling"),
    (Part::Disks, "Disks"),
    (Part::Filesystems, "File systems"),
    (Part::Memory, "Memory"),
    (Part::Swap, "Swap"),
    (Part::MemoryPeak, "Memory peak"),
    (Part::OomKills, "OOM kills"),
    (Part::Hugepages, "Huge pages"),
    (Part::Network, "Network"),
    (Part::Procs, "Tasks"),
    (Part::PressureCpu, "CPU pressure"),
    (Part::PressureMemory, "Memory pressure"),
    (Part::PressureIo, "I/O pressure"),
    (Part::Hypervisor, "Hypervisor"),
    (Part::Gpus, "GPUs"),
];

/// The family of the one group that is in no part.
const START: &str = "boot_time_seconds";

/// The host, as far as figures of instances need it.
struct View {
    facts: HostFacts,
    /// What was read for these facts.
    looks: Vec<Look>,
    hierarchies: Option<Hierarchies>,
    mounts: Arc<HostMounts>,
    /// Which of them are not looked at.
    mounts_left_out: Vec<LeftOut>,
    /// The host's own network namespace, unknown where it may not be looked at.
    network: Option<u64>,
}

impl View {
    fn new(roots: &Roots, buffer: &mut Buffer) -> Self {
        let facts = HostFacts::read(roots, buffer);
        let looks = buffer.take_looks();
        let init = ProcDir::open(roots, HOST_INIT).ok();
        let mounts = init.as_ref().and_then(|init| LastHostMounts::default().read(init, buffer).ok());
        let (mounts, mounts_left_out) = mounts.unwrap_or_default();
        let network = init.and_then(|init| init.network().ok());
        let _ = buffer.take_looks();
        Self { facts, looks, hierarchies: Hierarchies::find(roots).ok(), mounts, mounts_left_out, network }
    }

    /// The files of these facts whose path ends so.
    fn file(&self, end: &str) -> Vec<String> {
        read(&self.looks).filter(|path| path.ends_with(end)).collect()
    }
}

/// Answers. It blocks, for as long as the kernel takes to be read.
///
/// # Errors
/// [`miharu_linux::Error::Gone`] where the instance has ended.
pub fn sources(question: &Question<'_>) -> miharu_linux::Result<Sources> {
    let mut buffer = Buffer::noting();
    let view = View::new(question.roots, &mut buffer);
    let cgroups = view.hierarchies.as_ref().map(|found| places(question.instance, found));
    let mut groups = match &question.instance.vm {
        Some(vm) => machine::groups(question, vm, &view, &mut buffer)?,
        None => container::groups(question, &view, &mut buffer)?,
    };
    groups.retain(|group| !group.families.is_empty() || !group.lacks.is_empty());
    Ok(Sources { cgroups: cgroups.unwrap_or_default(), groups })
}

fn places(instance: &Instance, hierarchies: &Hierarchies) -> Vec<CgroupPlace> {
    let paths = &instance.cgroup;
    let place = |hierarchy: &str, root: Option<&std::path::Path>, path: &std::path::Path| {
        Some(CgroupPlace { hierarchy: hierarchy.to_owned(), directory: root?.join(path) })
    };
    let unified = paths.unified.as_deref().and_then(|path| place("unified", hierarchies.unified(), path));
    let v1 = paths.v1.iter().filter_map(|(name, path)| place(name, hierarchies.v1(name), path));
    v1.chain(unified).collect()
}

/// What was found out about a group.
#[derive(Debug, Default)]
struct Found {
    from: Vec<String>,
    /// Why there are not all of its families.
    reasons: Vec<String>,
}

impl Found {
    fn from(from: impl Into<String>) -> Self {
        Self { from: vec![from.into()], reasons: Vec::new() }
    }

    fn lacking(reason: impl Into<String>) -> Self {
        Self { from: Vec::new(), reasons: vec![reason.into()] }
    }
}

impl Question<'_> {
    /// The group of these families.
    fn group<'f>(
        &self,
        what: &'static str,
        families: impl Iterator<Item = &'f Family>,
        found: Found,
    ) -> Group {
        let Found { from, reasons } = found;
        let has = |family: &&Family| self.figures.is_some_and(|figures| family.has_samples(figures));
        let (there, missing): (Vec<&Family>, Vec<&Family>) = families.partition(has);
        let (served, left_out): (Vec<&Family>, Vec<&Family>) =
            there.into_iter().partition(|family| self.families.has(family));
        let names = |families: &[&Family]| {
            families.iter().map(|family| family.name(self.prefix)).collect::<Vec<_>>().join(", ")
        };
        let mut lacks = Vec::new();
        if !missing.is_empty() && served.is_empty() && left_out.is_empty() {
            lacks = reasons;
        } else if !missing.is_empty() {
            let why = if reasons.is_empty() { "not told here".to_owned() } else { reasons.join("; ") };
            lacks.push(format!("{}: {why}", names(&missing)));
        }
        if !left_out.is_empty() {
            lacks.push(format!("{}: left out by metrics.families.exclude", names(&left_out)));
        }
        let families = served.iter().map(|family| family.name(self.prefix)).collect();
        Group { what, families, from, lacks }
    }

    /// The group of a part.
    fn of_part(&self, part: Part, what: &'static str, found: Found) -> Group {
        self.group(what, part.families(), found)
    }

    /// When the instance was started.
    fn start(&self, view: &View, buffer: &mut Buffer) -> miharu_linux::Result<Group> {
        self.instance.init.stat(buffer)?;
        let mut from: Vec<String> = read(&buffer.take_looks()).collect();
        from.extend(view.file("/stat"));
        let families = FAMILIES.iter().filter(|family| family.bare_name() == START);
        Ok(self.group("Start", families, Found { from, reasons: Vec::new() }))
    }
}

/// The files that were read, each once.
fn read(looks: &[Look]) -> impl Iterator<Item = String> {
    let mut seen: Vec<String> = Vec::new();
    for look in looks.iter().filter(|look| look.outcome == Outcome::Read) {
        let path = look.path.display().to_string();
        if !seen.contains(&path) {
            seen.push(path);
        }
    }
    seen.into_iter()
}

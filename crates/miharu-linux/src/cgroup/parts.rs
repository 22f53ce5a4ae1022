//! Which figures of a cgroup somebody wants, so that no file is read for nobody.

/// Figures that come from files of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// CPU time.
    Cpu,
    /// How often the CPU limit held the instance back.
    Throttling,
    /// The CPU limit.
    CpuLimit,
    /// The CPUs that the instance may run on.
    CpusEffective,
    /// Memory, less the parts that follow.
    Memory,
    /// Memory swapped out.
    Swap,
    /// The most memory that was ever used.
    MemoryPeak,
    /// Processes killed for want of memory.
    OomKills,
    /// Huge pages.
    Hugetlb,
    /// Block I/O.
    Io,
    /// Tasks.
    Tasks,
    /// `cpu.pressure`.
    PressureCpu,
    /// `memory.pressure`.
    PressureMemory,
    /// `io.pressure`.
    PressureIo,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 14] = [
        Self::Cpu,
        Self::Throttling,
        Self::CpuLimit,
        Self::CpusEffective,
        Self::Memory,
        Self::Swap,
        Self::MemoryPeak,
        Self::OomKills,
        Self::Hugetlb,
        Self::Io,
        Self::Tasks,
        Self::PressureCpu,
        Self::PressureMemory,
        Self::PressureIo,
    ];
}

/// A set of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts(u16);

impl Parts {
    /// The parts of which `wanted` is true.
    #[must_use]
    pub fn of(wanted: impl Fn(Part) -> bool) -> Self {
        let parts = Part::ALL.into_iter().filter(|part| wanted(*part));
        Self(parts.fold(0, |set, part| set | 1 << part as u16))
    }

    /// Every part.
    #[must_use]
    pub fn all() -> Self {
        Self::of(|_| true)
    }

    /// Whether it holds one of these.
    #[must_use]
    pub fn has_any(self, parts: &[Part]) -> bool {
        parts.iter().any(|part| self.0 & (1 << *part as u16) != 0)
    }

    /// Whether it holds this one.
    #[must_use]
    pub fn has(self, part: Part) -> bool {
        self.has_any(&[part])
    }
}

//! What the cgroups above an instance's say, read once a collection for all instances below them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::figures::Limit;
use crate::host::HostFacts;

/// What is the same for several instances of one collection: limits of shared parent cgroups. Make a new one for each
/// collection (or for each of its threads).
#[derive(Debug, Default)]
pub struct Ancestors {
    pub(super) memory: UpTheTree<MemoryBounds>,
    /// CPU bandwidth in cores, the smallest; nothing where there is no limit.
    pub(super) bandwidth: UpTheTree<Option<f64>>,
    /// CPUs, of the nearest cgroup that says so.
    pub(super) cpuset: UpTheTree<Option<u32>>,
    pub(super) hugetlb: UpTheTree<HugetlbLimits>,
}

/// An instance's place in a hierarchy: the hierarchy's directory and the cgroup's path in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) hierarchy: &'a Path,
    pub(super) cgroup: &'a Path,
}

impl<'a> Place<'a> {
    /// Nothing for the root, which is no instance's, and for a path that is not plainly below it.
    pub(super) fn new(hierarchy: &'a Path, cgroup: &'a Path) -> Option<Self> {
        let plain = cgroup.components().all(|part| matches!(part, Component::Normal(_)));
        (plain && !cgroup.as_os_str().is_empty()).then_some(Self { hierarchy, cgroup })
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.hierarchy.join(self.cgroup)
    }
}

/// How a level of the tree goes together with all the levels above it.
pub(super) trait Level: Clone + Default {
    /// What holds for this level and all above it together.
    fn below(self, above: &Self) -> Self;
}

/// For each cgroup that was asked for: what it and all cgroups above it say together. By hierarchy, then by path in it.
#[derive(Debug, Default)]
pub(super) struct UpTheTree<T> {
    known: HashMap<OsString, HashMap<OsString, T>>,
}

impl<T: Level> UpTheTree<T> {
    /// What the cgroups above `place` say together, the root included; `read` reads one of them.
    pub(super) fn above(&mut self, place: Place<'_>, mut read: impl FnMut(Place<'_>) -> T) -> T {
        let hierarchy = place.hierarchy.as_os_str();
        if !self.known.contains_key(hierarchy) {
            self.known.insert(hierarchy.to_owned(), HashMap::new());
        }
        let Some(known) = self.known.get_mut(hierarchy) else { return T::default() };
        let mut unread = Vec::new();
        let mut together = T::default();
        for cgroup in place.cgroup.ancestors().skip(1) {
            if let Some(known) = known.get(cgroup.as_os_str()) {
                together = known.clone();
                break;
            }
            unread.push(cgroup);
        }
        while let Some(cgroup) = unread.pop() {
            together = read(Place { cgroup, ..place }).below(&together);
            known.insert(cgroup.as_os_str().to_owned(), together.clone());
        }
        together
    }
}

/// What the cgroups of a branch say about memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MemoryBounds {
    /// The smallest limit in bytes; nothing when none could be read.
    pub(super) limit: Option<Limit>,
    /// The smallest of what each limited cgroup has left, with what it could give back; bytes.
    pub(super) headroom: Option<u64>,
}

impl Level for MemoryBounds {
    fn below(self, above: &Self) -> Self {
        Self { limit: smaller(self.limit, above.limit), headroom: smaller(self.headroom, above.headroom) }
    }
}

impl Level for Option<f64> {
    fn below(self, above: &Self) -> Self {
        match (self, *above) {
            (Some(own), Some(above)) => Some(own.min(above)),
            (own, above) => own.or(above),
        }
    }
}

impl Level for Option<u32> {
    fn below(self, above: &Self) -> Self {
        self.or(*above)
    }
}

/// The limit of each of the host's huge page sizes, in the order of [`HostFacts::huge_pages`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HugetlbLimits(Vec<Option<Limit>>);

impl HugetlbLimits {
    /// Asks for the limit of each page size by its name in file names, `2MB`.
    pub(super) fn read(host: &HostFacts, mut limit: impl FnMut(&str) -> Option<Limit>) -> Self {
        Self(host.huge_pages.iter().map(|pool| limit(&page_size_name(pool.page_size))).collect())
    }

    /// What an instance may have in all and what it has left, in bytes, over the page sizes that are limited: nothing
    /// when none is, or when the use of a limited one is unknown.
    pub(super) fn total_and_free(
        &self,
        host: &HostFacts,
        mut usage: impl FnMut(&str) -> Option<u64>,
    ) -> (Option<u64>, Option<u64>) {
        let (mut total, mut free) = (None, Some(0u64));
        for (pool, limit) in host.huge_pages.iter().zip(&self.0) {
            let Some(Limit::Value(limit)) = *limit else { continue };
            let size = limit.min(pool.bytes());
            let left = usage(&page_size_name(pool.page_size)).map(|used| size.saturating_sub(used));
            total = Some(total.unwrap_or(0u64).saturating_add(size));
            free = free.zip(left).map(|(sum, left)| sum.saturating_add(left));
        }
        (total, total.and(free))
    }
}

impl Level for HugetlbLimits {
    fn below(mut self, above: &Self) -> Self {
        // A level that could not be read has no entry at all.
        self.0.resize(self.0.len().max(above.0.len()), None);
        for (own, above) in self.0.iter_mut().zip(&above.0) {
            *own = smaller(*own, *above);
        }
        self
    }
}

/// The smaller of two, where one that is absent says nothing.
pub(super) fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A huge page size as it stands in the names of hugetlb files: `64KB`, `2MB`, `1GB` (`mem_fmt` of the kernel's
/// `mm/hugetlb_cgroup.c`).
fn page_size_name(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        _ if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        _ => format!("{}KB", bytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HugePages;

    fn place(cgroup: &str) -> Place<'_> {
        Place { hierarchy: Path::new("/h"), cgroup: Path::new(cgroup) }
    }

    #[test]
    fn each_parent_is_read_once_and_the_smallest_wins() {
        let mut tree = UpTheTree::<Option<f64>>::default();
        let mut asked = Vec::new();
        let mut read = |place: Place<'_>| {
            let directory = place.directory();
            let limit = match directory.to_str().unwrap() {
                "/h/" => None,
                "/h/a" => Some(2.0),
                "/h/a/b" => Some(4.0),
                other => panic!("{other}"),
            };
            asked.push(directory);
            limit
        };
        assert_eq!(tree.above(place("a/b/c1"), &mut read), Some(2.0));
        assert_eq!(tree.above(place("a/b/c2"), &mut read), Some(2.0));
        assert_eq!(tree.above(place("a/c3"), &mut read), Some(2.0));
        assert_eq!(tree.above(place("c4"), &mut read), None);
        assert_eq!(asked.len(), 3, "{asked:?}");
    }

    #[test]
    fn the_nearest_cpuset_wins() {
        let mut tree = UpTheTree::<Option<u32>>::default();
        let count = |place: Place<'_>| match place.directory().to_str().unwrap() {
            "/h/" => Some(8),
            "/h/a" => Some(4),
            _ => None,
        };
        assert_eq!(tree.above(place("a/b/c"), count), Some(4));
        assert_eq!(tree.above(place("x/c"), count), Some(8));
    }

    #[test]
    fn memory_bounds_ignore_what_is_unlimited() {
        let above = MemoryBounds { limit: Some(Limit::Max), headroom: None };
        let own = MemoryBounds { limit: Some(Limit::Value(10)), headroom: Some(4) };
        assert_eq!(own.below(&above), own);
        assert_eq!(above.below(&own), own);
    }

    #[test]
    fn page_sizes_have_the_kernels_names() {
        assert_eq!(
            [64 << 10, 2 << 20, 1 << 30, 16 << 30].map(page_size_name),
            ["64KB", "2MB", "1GB", "16GB"]
        );
    }

    #[test]
    fn a_level_that_cannot_be_read_hides_no_limit_above_it() {
        let above = HugetlbLimits(vec![Some(Limit::Value(5))]);
        assert_eq!(HugetlbLimits::default().below(&above), above);
    }

    #[test]
    fn hugetlb_counts_limited_sizes_within_the_hosts_pool() {
        let mb = 1 << 20;
        let huge_pages =
            vec![HugePages { page_size: 2 * mb, pages: 8 }, HugePages { page_size: 1 << 30, pages: 1 }];
        let host = HostFacts { huge_pages, ..HostFacts::default() };
        let unlimited = HugetlbLimits::read(&host, |_| Some(Limit::Max));
        assert_eq!(unlimited.total_and_free(&host, |_| Some(0)), (None, None));
        let limited = HugetlbLimits::read(&host, |size| {
            Some(if size == "2MB" { Limit::Value(100 * mb) } else { Limit::Max })
        });
        assert_eq!(limited.total_and_free(&host, |_| Some(6 * mb)), (Some(16 * mb), Some(10 * mb)));
        assert_eq!(limited.total_and_free(&host, |_| Some(60 * mb)), (Some(16 * mb), Some(0)), "saturates");
        assert_eq!(limited.total_and_free(&host, |_| None), (Some(16 * mb), None));
    }
}

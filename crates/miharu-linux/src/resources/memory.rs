//! Memory: `/proc/meminfo` (proc(5)) and the same of each NUMA node.

use std::path::Path;

use super::{Files, numbered};
use crate::read::{fields, lines, number};

/// The host's memory, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total: Option<u64>,
    /// What is not `MemAvailable`.
    pub used: Option<u64>,
    /// Huge pages of the default size that there are.
    pub huge_total: Option<u64>,
    /// Huge pages of the default size that are taken.
    pub huge_used: Option<u64>,
    /// The default size of a huge page.
    pub huge_size: Option<u64>,
    /// Its NUMA nodes.
    pub nodes: Vec<Node>,
}

/// A NUMA node's memory, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub number: u64,
    /// `MemTotal`.
    pub total: Option<u64>,
    /// `MemUsed`: all that is not free, page cache included, as no more is told.
    pub used: Option<u64>,
    /// Huge pages of the default size that there are.
    pub huge_total: Option<u64>,
    /// Huge pages of the default size that are taken.
    pub huge_used: Option<u64>,
}

pub(super) fn read(files: &mut Files<'_>) -> Memory {
    let all = table(files, &files.roots.proc.join("meminfo"));
    let huge_size = all.get("Hugepagesize");
    let mut memory = Memory {
        total: all.get("MemTotal"),
        used: all
            .get("MemTotal")
            .zip(all.get("MemAvailable"))
            .map(|(total, rest)| total.saturating_sub(rest)),
        huge_total: all.huge_total(huge_size),
        huge_used: all.huge_used(huge_size),
        huge_size,
        nodes: Vec::new(),
    };
    for (number, path) in numbered(&files.roots.sys.join("devices/system/node"), "node") {
        let node = table(files, &path.join("meminfo"));
        memory.nodes.push(Node {
            number,
            total: node.get("MemTotal"),
            used: node.get("MemUsed"),
            huge_total: node.huge_total(huge_size),
            huge_used: node.huge_used(huge_size),
        });
    }
    memory
}

/// The values of a meminfo, those with a unit in bytes.
#[derive(Debug, Default)]
struct Table(Vec<(String, u64)>);

impl Table {
    /// A line is `MemTotal: 1 kB`, that of a node `Node 0 MemTotal: 1 kB`; counts have no unit.
    fn parse(text: &[u8]) -> Self {
        let row = |line: &[u8]| {
            let mut words = fields(line).skip_while(|word| !word.ends_with(b":"));
            let key = String::from_utf8_lossy(words.next()?.strip_suffix(b":")?).into_owned();
            let value = number(words.next()?)?;
            let unit = if words.next() == Some(b"kB") { 1024 } else { 1 };
            Some((key, value.checked_mul(unit)?))
        };
        Self(lines(text).filter_map(row).collect())
    }

    fn get(&self, key: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| *value)
    }

    fn huge_total(&self, size: Option<u64>) -> Option<u64> {
        self.get("HugePages_Total")?.checked_mul(size?)
    }

    fn huge_used(&self, size: Option<u64>) -> Option<u64> {
        let taken = self.get("HugePages_Total")?.checked_sub(self.get("HugePages_Free")?)?;
        taken.checked_mul(size?)
    }
}

fn table(files: &mut Files<'_>, path: &Path) -> Table {
    files.buffer.read(path).map(Table::parse).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_meminfo_are_read() {
        let host =
            Table::parse(b"MemTotal:       24576 kB\nHugePages_Total:       4\nHugePages_Free:        1\n");
        assert_eq!(host.get("MemTotal"), Some(24576 * 1024));
        let size = Some(2 << 20);
        assert_eq!((host.huge_total(size), host.huge_used(size)), (Some(8 << 20), Some(6 << 20)));
        let node = Table::parse(b"Node 0 MemTotal:  10 kB\nNode 0 MemUsed:  4 kB\nrubbish\nMemFree: x kB\n");
        assert_eq!((node.get("MemTotal"), node.get("MemUsed")), (Some(10240), Some(4096)));
        assert_eq!((node.get("MemFree"), node.huge_total(size)), (None, None));
    }
}

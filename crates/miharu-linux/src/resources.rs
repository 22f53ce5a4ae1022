//! What the host is made of: CPUs, memory, network cards, disks, the machine. Not for the way of a scrape.
//!
//! Everything here comes from sysfs and `/proc`; what cannot be read is absent or empty.

mod cpu;
mod device;
mod disk;
mod memory;
mod network;
mod system;

use std::path::{Path, PathBuf};

use crate::read::{Buffer, number_file};
use crate::roots::Roots;

pub use cpu::{Cache, Core, Socket, Thread};
pub use device::Origin;
pub use disk::{Disk, Partition};
pub use memory::{Memory, Node};
pub use network::{Card, Port};
pub use system::{Board, Chassis, Firmware, Load, System};

/// Entries of one directory of sysfs beyond so many are left out.
const ENTRY_LIMIT: usize = 16 * 1024;

/// What the host is made of.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    /// Its CPUs, by socket.
    pub sockets: Vec<Socket>,
    /// Its memory.
    pub memory: Memory,
    /// Its network cards, virtual interfaces left out.
    pub cards: Vec<Card>,
    /// Its disks, virtual block devices left out.
    pub disks: Vec<Disk>,
    /// The machine itself.
    pub system: System,
    /// How busy it is.
    pub load: Load,
}

impl Resources {
    /// Reads them all. Takes some milliseconds on a large machine.
    #[must_use]
    pub fn read(roots: &Roots) -> Self {
        let mut files = Files { roots, buffer: Buffer::new() };
        Self {
            sockets: cpu::read(&mut files),
            memory: memory::read(&mut files),
            cards: network::read(&mut files),
            disks: disk::read(&mut files),
            system: system::read(&mut files),
            load: system::load(&mut files),
        }
    }
}

/// The host's files, and the buffer that they are read into.
struct Files<'a> {
    roots: &'a Roots,
    buffer: Buffer,
}

impl Files<'_> {
    /// The text of a file without the blanks around it; absent where it is empty or cannot be read.
    fn text(&mut self, path: &Path) -> Option<String> {
        let text = self.buffer.read(path).ok()?.trim_ascii();
        (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    }

    fn number(&mut self, path: &Path) -> Option<u64> {
        self.buffer.read(path).ok().and_then(number_file)
    }

    /// Whether a file holds `1`.
    fn flag(&mut self, path: &Path) -> bool {
        self.number(path) == Some(1)
    }
}

/// The entries of a directory by their names, sorted.
fn entries(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(read) = std::fs::read_dir(directory) else { return Vec::new() };
    let named = read.flatten().take(ENTRY_LIMIT);
    let mut entries: Vec<_> =
        named.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect();
    entries.sort();
    entries
}

/// The entries whose names are this word and a number, by the number.
fn numbered(directory: &Path, word: &str) -> Vec<(u64, PathBuf)> {
    let mut found: Vec<_> = entries(directory)
        .into_iter()
        .filter_map(|(name, path)| Some((crate::read::number(name.strip_prefix(word)?.as_bytes())?, path)))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostFacts;

    #[test]
    fn this_machine_is_read() {
        let roots = Roots::default();
        let resources = Resources::read(&roots);
        let threads: usize =
            resources.sockets.iter().flat_map(|socket| &socket.cores).map(|core| core.threads.len()).sum();
        let online = HostFacts::read(&roots, &mut Buffer::new()).cpus_online.unwrap();
        assert_eq!(threads, online.count() as usize);
        let memory = resources.memory;
        assert!(memory.used.unwrap() < memory.total.unwrap());
        assert!(resources.load.tasks.unwrap() > 0);
    }

    #[test]
    fn a_host_that_tells_nothing_has_nothing() {
        let empty = tempfile::tempdir().unwrap();
        let resources = Resources::read(&Roots::at(empty.path()));
        assert!(resources.sockets.is_empty() && resources.cards.is_empty() && resources.disks.is_empty());
        assert_eq!(resources.memory.total, None);
    }
}

//! Whether the mounts of a process are those that were seen before, told by their numbers instead of mountinfo's text.

use std::collections::HashMap;
use std::os::fd::AsFd;

use crate::process::ProcDir;
use crate::sys;

/// A namespace with more mounts is told by its text.
const MAX_NUMBERS: usize = 512;

/// The mounts of a process: which namespace it is in, and which mounts are in that. No number is ever given out again, so an
/// equal table holds the same mounts. Where they are mounted is not in it: a mount that is moved keeps its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountTable {
    namespace: u64,
    mounts: Vec<u64>,
}

impl MountTable {
    /// The table of the moment; nothing where the kernel (before 6.11) or a missing capability (CAP_SYS_ADMIN,
    /// CAP_SYS_PTRACE) hides it, or where it is too long.
    #[must_use]
    pub fn read(process: &ProcDir) -> Option<Self> {
        let namespace = namespace(process)?;
        let mut space = [0; MAX_NUMBERS];
        let mounts = list(namespace, &mut space)?.to_vec();
        Some(Self { namespace, mounts })
    }

    /// Whether the namespace still has these mounts and no other ones.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        let mut space = [0; MAX_NUMBERS];
        list(self.namespace, &mut space).is_some_and(|mounts| mounts == self.mounts)
    }

    /// The numbers that mountinfo has for them, each with the one that no other mount ever gets. Asked for after mountinfo was read, and the
    /// table before, it tells of which mounts that text spoke: what is there before and after was there meanwhile. Those that are gone are
    /// left out.
    #[must_use]
    pub fn numbers(&self) -> HashMap<u64, u64> {
        let number = |mount: &u64| Some((sys::number_of_mount(self.namespace, *mount).ok()?, *mount));
        self.mounts.iter().filter_map(number).collect()
    }

    /// Whether the process is still in the namespace.
    #[must_use]
    pub fn is_of(&self, process: &ProcDir) -> bool {
        namespace(process) == Some(self.namespace)
    }
}

fn namespace(process: &ProcDir) -> Option<u64> {
    let namespace = process.open_file("ns/mnt").ok()?;
    sys::mount_namespace(namespace.as_fd()).ok()
}

fn list(namespace: u64, space: &mut [u64; MAX_NUMBERS]) -> Option<&[u64]> {
    let count = sys::list_mounts(namespace, space).ok()?;
    space.get(..count).filter(|_| count < MAX_NUMBERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exits::tests::sleeper;
    use crate::roots::Roots;

    #[test]
    fn processes_of_one_namespace_have_one_table() {
        let own = ProcDir::open(&Roots::default(), std::process::id()).unwrap();
        let (mut child, process) = sleeper();
        // Only a kernel that tells has anything to compare; mountinfo takes its place elsewhere.
        if let Some(table) = MountTable::read(&own) {
            assert!(!table.mounts.is_empty() && table.is_unchanged());
            assert!(table.is_of(&own) && table.is_of(&process));
            let mut buffer = crate::read::Buffer::new();
            let text = own.read(&mut buffer, "mountinfo").unwrap();
            let numbers = table.numbers();
            // Other tests mount and unmount; the root stays.
            let root = crate::mounts::parse(text, 1)[0].id;
            assert!(numbers.contains_key(&root), "{root} of {numbers:?}");
            let gone = MountTable { mounts: vec![1], ..table.clone() };
            assert!(gone.numbers().is_empty());
            let fewer = MountTable { mounts: table.mounts[1..].to_vec(), ..table.clone() };
            assert!(!fewer.is_unchanged());
            let other = MountTable { namespace: table.namespace + 1, ..table };
            assert!(!other.is_of(&own));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(MountTable::read(&process), None);
    }
}

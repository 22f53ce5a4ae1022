//! Mounts by where they are mounted, to walk a path as the kernel would.

use std::os::unix::ffi::OsStrExt;

use super::{Mount, select};

/// What a walk needs to know of a mount.
pub(super) trait Node {
    /// The mount's number.
    fn id(&self) -> u64;
    /// The number of the mount that it is mounted on.
    fn parent(&self) -> u64;
    /// Where it is mounted.
    fn mountpoint(&self) -> &[u8];
    /// Whether a process or another machine stands behind its file system.
    fn is_remote(&self) -> bool;
}

impl Node for Mount {
    fn id(&self) -> u64 {
        self.id
    }

    fn parent(&self) -> u64 {
        self.parent
    }

    fn mountpoint(&self) -> &[u8] {
        self.mountpoint.as_os_str().as_bytes()
    }

    fn is_remote(&self) -> bool {
        select::is_remote(self.fstype.as_bytes())
    }
}

/// The order of a list of mounts by parent and mount point. It is asked together with the list that it was made for.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    first: Option<usize>,
    /// Indices into the list; the root of a tree, which is mounted on itself, is left out.
    children: Vec<usize>,
}

/// Where a walk ended.
pub(super) struct Reached<'m, N> {
    pub(super) mount: Option<&'m N>,
    /// Whether the way there, the end not counted, leads over a remote file system.
    pub(super) remote: bool,
}

impl Tree {
    pub(super) fn new<N: Node>(mounts: &[N]) -> Self {
        let mut ids: Vec<u64> = mounts.iter().map(Node::id).collect();
        ids.sort_unstable();
        let is_first = |mount: &N| {
            mount.mountpoint() == b"/"
                && (mount.parent() == mount.id() || ids.binary_search(&mount.parent()).is_err())
        };
        let mut children: Vec<usize> = (0..mounts.len())
            .filter(|index| mounts.get(*index).is_some_and(|mount| mount.parent() != mount.id()))
            .collect();
        children.sort_unstable_by_key(|index| (mounts.get(*index).map(key), *index));
        Self { first: mounts.iter().position(is_first), children }
    }

    /// What one sees at `/`.
    pub(super) fn root<'m, N: Node>(&self, mounts: &'m [N]) -> Option<&'m N> {
        self.walk(mounts, b"/").mount
    }

    /// Follows `path` from the root, at every component onto whatever is mounted there last.
    pub(super) fn walk<'m, N: Node>(&self, mounts: &'m [N], path: &[u8]) -> Reached<'m, N> {
        let mut reached = Reached { mount: self.first.and_then(|first| mounts.get(first)), remote: false };
        // A file that lies could make the mounts a ring; a real walk passes each of them once at most.
        let mut steps = self.children.len();
        for prefix in prefixes(path) {
            while let Some(next) = reached.mount.and_then(|on| self.child(mounts, on.id(), prefix)) {
                reached.remote |= reached.mount.is_some_and(Node::is_remote);
                reached.mount = Some(next);
                let Some(left) = steps.checked_sub(1) else { return reached };
                steps = left;
            }
        }
        reached
    }

    /// The last mount at `place` on the mount `parent`.
    fn child<'m, N: Node>(&self, mounts: &'m [N], parent: u64, place: &[u8]) -> Option<&'m N> {
        let mount = |index: &usize| mounts.get(*index);
        let end = self.children.partition_point(|index| mount(index).map(key) <= Some((parent, place)));
        let last = mount(self.children.get(end.checked_sub(1)?)?)?;
        (key(last) == (parent, place)).then_some(last)
    }
}

fn key<N: Node>(mount: &N) -> (u64, &[u8]) {
    (mount.parent(), mount.mountpoint())
}

/// `/`, `/a`, `/a/b` of `/a/b`.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let inner = slashes.filter_map(|at| path.get(..at));
    let whole = (path.len() > 1).then_some(path);
    std::iter::once(b"/".as_slice()).chain(inner).chain(whole)
}

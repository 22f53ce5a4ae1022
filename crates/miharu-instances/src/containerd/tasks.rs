//! The containers that containerds have running, by what stands in their state directories:
//! `STATE/io.containerd.runtime.v2.task/NAMESPACE/ID`, a directory for each, with its configuration, the number of its init
//! and the address of its shim.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use miharu_linux::Roots;
use miharu_linux::process::ProcDir;
use miharu_linux::read::{Buffer, number_file};

use super::folder::Folder;
use super::is_others;
use super::shims::Shims;
use crate::oci::files;
use crate::shim::TASKS;
use crate::shim::bundle::Config;
use crate::shim::name::is_identifier;

/// The state directory of the system's containerd.
const STATE: &str = "/run/containerd";

/// The most state directories that are looked at. Only root's shims lead to one.
const MAX_STATES: usize = 64;

/// The most namespaces of one that are.
const MAX_NAMESPACES: usize = 256;

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// By the directory of tasks, as the host calls it.
    states: BTreeMap<PathBuf, State>,
    shims: Shims,
    /// The cgroups of containers.
    places: BTreeMap<PathBuf, Task>,
}

/// A container, as containerd knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its id in that.
    pub(super) id: String,
}

/// One containerd's.
#[derive(Debug, Default)]
struct State {
    folder: Folder,
    namespaces: BTreeMap<String, Namespace>,
}

#[derive(Debug, Default)]
struct Namespace {
    folder: Folder,
    bundles: BTreeMap<String, Bundle>,
}

/// A container's directory.
#[derive(Debug, Default)]
struct Bundle {
    inode: u64,
    /// The name of its shim's socket.
    socket: Option<OsString>,
    /// Its cgroups; none while its init is not known.
    cgroups: BTreeSet<PathBuf>,
}

impl Tasks {
    /// The container whose cgroup that is.
    pub(super) fn at(&self, cgroup: &Path) -> Option<&Task> {
        self.places.get(cgroup)
    }

    /// The cgroups of the containers that run now, of namespaces that are no other driver's; `None` where they are those of
    /// the last time.
    pub(super) fn look(&mut self, roots: &Roots, buffer: &mut Buffer) -> Option<BTreeSet<PathBuf>> {
        let mut is_news = false;
        self.states.entry(Path::new(STATE).join(TASKS)).or_default();
        for (tasks, state) in &mut self.states {
            is_news |= state.look(roots, tasks, buffer);
        }
        // A containerd that has ended for good leaves nothing. The system's costs next to nothing while it is not there.
        let system = Path::new(STATE).join(TASKS);
        self.states.retain(|tasks, state| *tasks == system || !state.namespaces.is_empty());
        let known = || -> BTreeSet<&OsStr> {
            let bundles = self.states.values().flat_map(State::bundles);
            bundles.filter_map(|(_, _, bundle)| bundle.socket.as_deref()).collect()
        };
        for tasks in self.shims.look(roots, known, buffer) {
            if self.states.len() < MAX_STATES && !self.states.contains_key(&tasks) {
                let mut state = State::default();
                is_news |= state.look(roots, &tasks, buffer);
                self.states.insert(tasks, state);
            }
        }
        if !is_news {
            return None;
        }
        self.places = self.states.values().flat_map(State::places).collect();
        Some(self.places.keys().cloned().collect())
    }
}

impl State {
    /// Whether cgroups have come or gone.
    fn look(&mut self, roots: &Roots, tasks: &Path, buffer: &mut Buffer) -> bool {
        let Some(place) = roots.host_path(tasks) else { return false };
        let mut is_news = false;
        if let Some(names) = self.folder.look(&place) {
            let names: BTreeSet<String> =
                names.iter().filter_map(|(name, _)| identifier(name)).take(MAX_NAMESPACES).collect();
            let before = self.namespaces.len();
            self.namespaces.retain(|name, _| names.contains(name));
            is_news |= self.namespaces.len() != before;
            for name in names {
                self.namespaces.entry(name).or_default();
            }
        }
        for (name, namespace) in &mut self.namespaces {
            let whose = if is_others(name) { Whose::Others } else { Whose::Ours };
            is_news |= namespace.look(roots, &place.join(name), whose, buffer);
        }
        is_news
    }

    /// All containers, with their namespaces and ids.
    fn bundles(&self) -> impl Iterator<Item = (&String, &String, &Bundle)> {
        self.namespaces.iter().flat_map(|(name, namespace)| {
            namespace.bundles.iter().map(move |(id, bundle)| (name, id, bundle))
        })
    }

    fn places(&self) -> impl Iterator<Item = (PathBuf, Task)> {
        self.bundles().flat_map(|(namespace, id, bundle)| {
            let task = Task { namespace: namespace.clone(), id: id.clone() };
            bundle.cgroups.iter().map(move |cgroup| (cgroup.clone(), task.clone()))
        })
    }
}

/// Whose containers a namespace holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// containerd's own.
    Ours,
    /// Another driver's, which finds them itself. Only their shims are wanted, to know which are explained.
    Others,
}

impl Namespace {
    /// Whether cgroups have come or gone.
    fn look(&mut self, roots: &Roots, place: &Path, whose: Whose, buffer: &mut Buffer) -> bool {
        let mut is_news = false;
        if let Some(names) = self.folder.look(place) {
            let now: BTreeMap<String, u64> =
                names.iter().filter_map(|(name, inode)| Some((identifier(name)?, *inode))).collect();
            self.bundles.retain(|id, bundle| {
                let stays = now.get(id) == Some(&bundle.inode);
                is_news |= !stays && !bundle.cgroups.is_empty();
                stays
            });
            for (id, inode) in now {
                self.bundles.entry(id).or_insert_with(|| Bundle { inode, ..Bundle::default() });
            }
        }
        for (id, bundle) in &mut self.bundles {
            if bundle.socket.is_none() {
                bundle.socket = socket(&place.join(id));
            }
            if whose == Whose::Ours && bundle.cgroups.is_empty() {
                bundle.cgroups = cgroups(roots, &place.join(id), id, buffer);
                is_news |= !bundle.cgroups.is_empty();
            }
        }
        is_news
    }
}

/// The name of the socket that a container's shim listens on: `unix:///run/containerd/s/NAME` in `address`.
fn socket(bundle: &Path) -> Option<OsString> {
    let address = files::read_systems(&bundle.join("address")).ok()?;
    socket_name(&address)
}

pub(crate) fn socket_name(address: &[u8]) -> Option<OsString> {
    let address = std::str::from_utf8(address.trim_ascii()).ok()?.strip_prefix("unix://")?;
    Path::new(address).file_name().map(OsStr::to_owned)
}

/// The cgroups of a container: its init's, without what was made below them.
fn cgroups(roots: &Roots, bundle: &Path, id: &str, buffer: &mut Buffer) -> BTreeSet<PathBuf> {
    let mut found = || {
        let pid = number_file(&files::read_systems(&bundle.join("init.pid")).ok()?)?;
        let init = ProcDir::open(roots, u32::try_from(pid).ok()?).ok()?;
        let memberships = init.memberships(buffer).ok()?;
        let config = Config::parse(&files::read_systems(&bundle.join("config.json")).ok()?)?;
        let paths = memberships.unified.iter().chain(memberships.v1.values());
        Some(paths.filter_map(|path| config.cgroup(id, path)).collect())
    };
    found().unwrap_or_default()
}

fn identifier(name: &OsStr) -> Option<String> {
    name.to_str().filter(|name| is_identifier(name)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sockets_of_shims() {
        let name = |text: &str| socket_name(text.as_bytes());
        assert_eq!(name("unix:///run/containerd/s/c7d8"), Some("c7d8".into()));
        for bad in ["", "unix://", "vsock://1:2", "/run/containerd/s/c7d8"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = socket_name(&bytes);
            let mut address = b"unix://".to_vec();
            address.extend(&bytes);
            let _ = socket_name(&address);
        }
    }
}

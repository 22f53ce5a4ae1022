//! podman, root's and, where a user is named in `instances.rootless`, that user's.
//!
//! A container's cgroup is `libpod-ID.scope` (systemd's manager), `libpod-ID` (cgroupfs) or `libpod-payload-ID` (split from
//! a unit's), wherever `--cgroup-parent` put it; crun puts the processes into `container` below it. Its monitor is a
//! conmon, which is told where podman keeps its state, so that a podman with `--root` elsewhere is found as well.
//!
//! What has no cgroup with such a name (`--cgroups=disabled`, rootless on cgroup v1) is not found: its processes are in the
//! cgroup of whoever started it, like any other program's.

pub(crate) mod bolt;
pub(crate) mod question;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use miharu_linux::Roots;
use miharu_linux::read::{Buffer, number_file};

use crate::Instance;
use crate::discovery::Warning;
use crate::driver::{Claim, Driver, Host, Renamed, Unidentified, is_trusted};
use crate::oci::conmon::{self, Conmon};
use crate::oci::files::{UsersPlace, read_systems};
use crate::oci::names::Names;
use crate::oci::{self, Believed, Found};
use crate::patience::Patience;
use crate::users::{self, User};

use question::Podmans;
use state::Whose;

/// How long it is remembered who the named users are.
const USERS: Duration = Duration::from_secs(60);

/// Where podman notes the first processes of root's containers, unless it is told otherwise: below `/run`, by the storage's
/// driver.
const NOTES: [&str; 3] = [
    "containers/storage/overlay-containers",
    "containers/storage/vfs-containers",
    "containers/storage/btrfs-containers",
];

/// The driver of podman.
#[derive(Debug, Default)]
pub(crate) struct Podman {
    rootless: Vec<String>,
    users: Vec<User>,
    /// When the users were looked up.
    looked_up: Option<Instant>,
    patience: Patience,
    names: Names,
    /// The names of each user's containers, by the user's number: whose file system hangs spoils nobody else's.
    names_of_users: BTreeMap<u32, Names>,
}

impl Podman {
    /// A driver that finds root's containers and those of these users.
    pub(crate) fn new(rootless: &[String]) -> Self {
        Self { rootless: rootless.to_vec(), ..Self::default() }
    }

    /// The numbers of the users that are named.
    fn users(&mut self, roots: &Roots) -> Vec<u32> {
        if !self.rootless.is_empty() && self.looked_up.is_none_or(|looked| looked.elapsed() >= USERS) {
            self.looked_up = Some(Instant::now());
            self.users = self.rootless.iter().filter_map(|name| users::named(roots, name)).collect();
        }
        self.users.iter().map(|user| user.uid).collect()
    }
}

impl Driver for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn claims(&self, name: &OsStr, _parent: &OsStr) -> bool {
        id(name).is_some()
    }

    fn places(&mut self, roots: &Roots, _buffer: &mut Buffer) -> Option<BTreeSet<PathBuf>> {
        // A name of nobody's is told also where there is no container.
        self.users(roots);
        None
    }

    fn identify(&mut self, host: &mut Host<'_>, claim: &Claim) -> Result<Instance, Unidentified> {
        let id = claim.path.file_name().and_then(id).ok_or(Unidentified::Nothing)?;
        let users = self.users(host.roots);
        let is_its = |line: &[u8]| conmon::parse(line).is_some_and(|conmon| conmon.id == id);
        let believed = Believed::AlsoUsers(&users);
        let found = match oci::find(host, claim, believed, &mut self.patience, &is_its) {
            Ok(found) => found,
            Err(doubt) => orphan(host, claim, &id, &mut self.patience).ok_or(doubt)?,
        };
        let conmon = conmon::parse(&found.monitor.command_line);
        let roots = host.roots;
        let user = found.monitor.uid;
        let (project, names, whose) = if is_trusted(user) {
            ("podman".to_owned(), &mut self.names, Whose::System(roots.clone()))
        } else {
            let user = self.users.iter().find(|known| known.uid == user).ok_or(Unidentified::Nothing)?;
            let place = roots.host_path(&user.home).ok_or(Unidentified::Nothing)?;
            let whose = Whose::User(user.home.clone(), UsersPlace::new(place, user.uid));
            (format!("podman@{}", user.name), self.names_of_users.entry(user.uid).or_default(), whose)
        };
        let identity = names.learn(&found, claim, "podman", &id, || {
            let socket = matches!(whose, Whose::System(_)).then(|| roots.run.join("podman/podman.sock"));
            let (started_as, containers) = match conmon {
                Some(Conmon { name, bundle, .. }) => (name, bundle.as_deref().and_then(containers)),
                None => (None, Some(PathBuf::from("/var/lib/containers/storage/overlay-containers"))),
            };
            Box::new(Podmans {
                id: id.clone(),
                project,
                started_as,
                containers,
                whose,
                socket,
                known: None,
                is_partial: false,
                watched: None,
            })
        })?;
        Ok(found.instance(claim, "podman", id, identity))
    }

    fn wait_for_names(&mut self, end: Instant) {
        self.names.wait(end);
        self.names_of_users.values_mut().for_each(|names| names.wait(end));
    }

    fn renamed(&mut self, warnings: &mut Vec<Warning>) -> Vec<Renamed> {
        let is_known = |name: &&String| self.users.iter().any(|user| user.name == **name);
        let unknown = self.rootless.iter().filter(|name| !is_known(name)).map(|name| Warning::Unreadable {
            what: format!("podman of user {name}"),
            problem: format!(
                "instances.rootless names {name}, and /etc/passwd does not: correct the key, or make the user"
            ),
        });
        warnings.extend(unknown);
        let mut renamed = self.names.changes(warnings);
        renamed.extend(self.names_of_users.values_mut().flat_map(|names| names.changes(warnings)));
        renamed
    }
}

/// The container's id in the name of its cgroup. conmon's own is `libpod-conmon-ID`.
fn id(name: &OsStr) -> Option<String> {
    oci::id_of(name, "libpod").or_else(|| oci::id_of(name, "libpod-payload"))
}

/// The directory of all containers of a storage: a bundle is `…/overlay-containers/ID/userdata`.
fn containers(bundle: &Path) -> Option<PathBuf> {
    let own = bundle.parent().filter(|_| bundle.file_name().is_some_and(|name| name == "userdata"))?;
    own.parent().map(Path::to_owned)
}

/// A container of root's whose conmon was killed: podman's own note in the usual place tells who its first process is.
fn orphan(host: &mut Host<'_>, claim: &Claim, id: &str, patience: &mut Patience) -> Option<Found> {
    let noted = NOTES.iter().find_map(|place| {
        let text = read_systems(&host.roots.run.join(place).join(id).join("userdata/pidfile")).ok()?;
        number_file(&text)
    });
    let pid = noted?;
    let found = oci::find(host, claim, Believed::System, patience, &|_| true).ok()?;
    (u64::from(found.init.pid()) == pid).then_some(found)
}

//! What a runtime's driver is, and the list of them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use miharu_linux::Roots;
use miharu_linux::cgroup::Hierarchies;
use miharu_linux::process::ProcDir;
use miharu_linux::read::Buffer;
use rustix::fs::{AtFlags, Mode, StatxFlags};

use crate::discovery::Warning;
use crate::{
    Identity, Incarnation, Instance, containerd, docker, kubernetes, libvirt_lxc, lxc, nspawn, podman, qemu,
};

/// The words in [`DriverOptions::enabled`], one for each driver.
pub const NAMES: &[&str] =
    &["lxc", "nspawn", "libvirt-lxc", "qemu", "podman", "docker", "containerd", "kubernetes"];

/// Which instances are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DriverOptions {
    /// The drivers that are used, words of [`NAMES`]; all of them where this is `None`.
    pub enabled: Option<BTreeSet<String>>,
    /// The names of the users whose rootless containers are looked for. They choose the names of these themselves.
    pub rootless: Vec<String>,
}

/// The drivers that these options ask for. A cgroup that two of them claim is given to both, in this order.
#[must_use]
pub fn drivers(options: &DriverOptions) -> Vec<Box<dyn Driver>> {
    let mut all: Vec<Box<dyn Driver>> = vec![
        Box::new(lxc::Lxc::default()),
        Box::new(nspawn::Nspawn::default()),
        Box::new(libvirt_lxc::LibvirtLxc::default()),
        Box::new(qemu::Qemu::default()),
        Box::new(podman::Podman::new(&options.rootless)),
        Box::new(docker::Docker::default()),
        Box::new(containerd::Containerd::default()),
        Box::new(kubernetes::Kubernetes::default()),
    ];
    all.retain(|driver| options.enabled.as_ref().is_none_or(|enabled| enabled.contains(driver.name())));
    all
}

/// Finds the instances of one runtime, or of a family of them.
pub trait Driver: Send {
    /// Its word in [`NAMES`].
    fn name(&self) -> &'static str;

    /// Whether a cgroup called `name` in one called `parent` may be an instance's. Such a cgroup is not looked into for
    /// others, so an instance that runs inside another is never taken for the host's.
    fn claims(&self, name: &OsStr, parent: &OsStr) -> bool;

    /// The cgroups that are its instances' whatever they are called, as paths from the root of a hierarchy; they are claimed,
    /// too. `None` where they are those of the last time. Asked before each scan.
    fn places(&mut self, _roots: &Roots, _buffer: &mut Buffer) -> Option<BTreeSet<PathBuf>> {
        None
    }

    /// Who the instance of a claimed cgroup is. Asked again only once its first process has ended.
    ///
    /// # Errors
    /// [`Unidentified`] where the cgroup turns out to be nobody's.
    fn identify(&mut self, host: &mut Host<'_>, claim: &Claim) -> Result<Instance, Unidentified>;

    /// Instances that have no cgroup to claim; `found` are those that have. Asked in every scan.
    fn without_cgroup(&mut self, _host: &mut Host<'_>, _found: &[Arc<Instance>]) -> Vec<Arc<Instance>> {
        Vec::new()
    }

    /// Waits, until `end` at most, for the names that [`Unidentified::Asked`] was told of for the first time in this scan.
    fn wait_for_names(&mut self, _end: Instant) {}

    /// The instances that are called otherwise since the last scan. What could not be learned is warned of. Asked in every
    /// scan.
    fn renamed(&mut self, _warnings: &mut Vec<Warning>) -> Vec<Renamed> {
        Vec::new()
    }
}

/// An instance that has got another name, or other things that its runtime calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// Which instance.
    pub incarnation: Incarnation,
    /// What it is called now.
    pub identity: Identity,
}

/// A cgroup that may be an instance's.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its path in the hierarchy, without a leading slash.
    pub path: PathBuf,
    /// Its directories: one in each hierarchy that was walked and has it.
    pub directories: Vec<PathBuf>,
    /// The inode number of the first of them.
    pub inode: u64,
}

/// Why a claimed cgroup gave no instance.
#[derive(Debug, thiserror::Error)]
pub enum Unidentified {
    /// It has no process, has just gone, or is another driver's. Not worth a word.
    #[error("not an instance")]
    Nothing,
    /// It is an instance, and its runtime is being asked what it is called: it is there in one of the next scans.
    #[error("its name is being asked for")]
    Asked,
    /// It looks like an instance and cannot be believed or seen.
    #[error(transparent)]
    Doubtful(#[from] Warning),
    /// It could not be read.
    #[error(transparent)]
    Unreadable(miharu_linux::Error),
}

impl From<miharu_linux::Error> for Unidentified {
    fn from(error: miharu_linux::Error) -> Self {
        if error.is_gone() { Self::Nothing } else { Self::Unreadable(error) }
    }
}

/// The host as drivers see it.
#[derive(Debug)]
pub struct Host<'h> {
    /// Where its files are.
    pub roots: &'h Roots,
    /// Its cgroup hierarchies.
    pub hierarchies: &'h Hierarchies,
    /// A buffer for its files.
    pub buffer: &'h mut Buffer,
    /// What a person should know of.
    pub warnings: &'h mut Vec<Warning>,
}

/// Whether files and processes of this user are as good as the administrator's: root's, and those of the user that this
/// process runs as, who could change it anyway.
pub(crate) fn is_trusted(uid: u32) -> bool {
    uid == 0 || rustix::process::geteuid().as_raw() == uid
}

/// Whether a process runs a program that gives its owner's rights to whoever starts it. One such as sudo is root's by its user
/// ids while what it was told to run runs, and its arguments are those of the user who started it.
pub(crate) fn is_set_user_id(process: &ProcDir) -> bool {
    // As the kernel knows the file, so that no file system is asked.
    let flags = AtFlags::STATX_DONT_SYNC;
    let program = rustix::fs::statx(process.as_fd(), "exe", flags, StatxFlags::MODE);
    program.is_ok_and(|program| Mode::from_raw_mode(program.stx_mode.into()).contains(Mode::SUID))
}

/// The owner of a path of the host, without following a link at its end.
pub(crate) fn owner(roots: &Roots, path: &Path) -> std::io::Result<u32> {
    let place = roots.host_path(path).ok_or(std::io::ErrorKind::NotFound)?;
    std::fs::symlink_metadata(place).map(|metadata| metadata.uid())
}

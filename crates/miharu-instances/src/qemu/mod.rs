//! Virtual machines: every QEMU process of the host, whoever started it.
//!
//! libvirt, Incus and LXD vouch for theirs by files that only root can write; the name on a command line alone makes nobody
//! theirs. Any other QEMU that root runs is in the project `qemu`. What another user runs is in `qemu@USER`, as that user
//! chooses its names, and only the host's own figures are served of it: the sockets on its command line are not asked,
//! since they could be anybody's.

pub(crate) mod libvirt;
mod managed;
pub(crate) mod options;
mod refused;
pub(crate) mod sections;
pub(crate) mod taps;
pub(crate) mod vsock;
pub(crate) mod watch;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use miharu_linux::Roots;
use miharu_linux::cgroup::CgroupPaths;
use miharu_linux::process::ProcDir;
use miharu_linux::read::{Buffer, regular};

use crate::discovery::{Warning, is_running};
use crate::driver::{Claim, Driver, Host, Unidentified, is_trusted};
use crate::oci::files::read_systems;
use crate::patience::{NotTheSystems, Patience, Worth};
use crate::users::{self, Share};
use crate::vm::{Owner, Vm, Vsock};
use crate::{Incarnation, Instance, Kind, tree};

use libvirt::{Domain, Domains};
use options::Options;
use refused::Refused;
use sections::Section;
use watch::{Process, Program, Watch};

/// How long a process is given to be vouched for by libvirt, Incus or LXD if it looks like theirs, or to leave its first
/// process if it will: until then it is nobody's.
const SETTLES: Duration = Duration::from_secs(20);

/// For so long a machine's devices are looked at in every scan, as runtimes plug them in after the start.
const NEW: Duration = Duration::from_secs(120);

/// How often they are after that.
const REFRESH: Duration = Duration::from_secs(60);

/// The most machines of one user, and of all that have no name together. Those of root and of the system's accounts are not limited: they
/// are no tenants.
const MAX_OF_A_USER: usize = 64;

/// The longest file of `-readconfig`.
const MAX_FILE: u64 = 1 << 20;

/// The driver of all of QEMU's machines.
#[derive(Debug, Default)]
pub(crate) struct Qemu {
    watch: Watch,
    domains: Domains,
    patience: Patience,
    known: BTreeMap<u32, Known>,
    refused: Refused,
}

/// A machine that was identified.
#[derive(Debug)]
struct Known {
    instance: Arc<Instance>,
    since: Instant,
    refreshed: Instant,
    /// What its configuration says, before anything was looked up.
    configured: Vm,
    vsock_socket: Option<PathBuf>,
    /// The user whose machine it is, where that is a tenant and nobody vouches for the machine.
    tenant: Option<Share>,
}

impl Driver for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn claims(&self, _name: &OsStr, _parent: &OsStr) -> bool {
        false
    }

    fn identify(&mut self, _host: &mut Host<'_>, _claim: &Claim) -> Result<Instance, Unidentified> {
        Err(Unidentified::Nothing)
    }

    fn without_cgroup(&mut self, host: &mut Host<'_>, _found: &[Arc<Instance>]) -> Vec<Arc<Instance>> {
        self.watch.look(host.roots, host.buffer);
        self.known.retain(|_, known| is_running(&known.instance.init, host.buffer));
        let domains = self.domains.read(&host.roots.run);
        for domain in domains {
            self.see_domain(host, domain);
        }
        let processes = &self.watch.processes;
        self.refused.look(processes, host.warnings);
        let is_new = |pid: &u32| !self.known.contains_key(pid) && !self.refused.contains(*pid);
        let new = processes.iter().filter(|(pid, process)| process.program == Program::Qemu && is_new(pid));
        for pid in new.map(|(pid, _)| *pid).collect::<Vec<_>>() {
            if let Some(known) = self.see_process(host, pid) {
                self.known.insert(pid, known);
            }
        }
        self.refresh(host);
        self.served(host)
    }
}

impl Qemu {
    /// The machines that are known, the oldest of each user.
    fn served(&self, host: &mut Host<'_>) -> Vec<Arc<Instance>> {
        let mut known: Vec<&Known> = self.known.values().collect();
        known.sort_by_key(|known| known.instance.incarnation.init_start);
        let mut counts: HashMap<Share, usize> = HashMap::new();
        known.retain(|known| {
            let Some(share) = known.tenant else { return true };
            let count = counts.entry(share).or_default();
            *count += 1;
            *count <= MAX_OF_A_USER
        });
        for (share, count) in counts.into_iter().filter(|(_, count)| *count > MAX_OF_A_USER) {
            let whose = match share {
                Share::User(uid) => format!("user {uid}"),
                _ => "users without a name".to_owned(),
            };
            let what = format!("each virtual machine of {whose} past the oldest {MAX_OF_A_USER}");
            host.warnings.push(Warning::Unreadable { what, problem: format!("there are {count}") });
        }
        known.into_iter().map(|known| Arc::clone(&known.instance)).collect()
    }

    /// A domain of libvirt, new or changed.
    fn see_domain(&mut self, host: &mut Host<'_>, domain: Domain) {
        if let Some(known) = self.known.get_mut(&domain.pid)
            && known.instance.runtime == "libvirt"
        {
            if known.configured != domain.vm {
                known.configured = domain.vm;
                known.set(host.roots, &self.watch, host.buffer);
            }
            return;
        }
        let pid = domain.pid;
        let Some((instance, configured)) = self.domain(host, domain) else { return };
        let mut known = Known::new(instance, configured, None);
        known.set(host.roots, &self.watch, host.buffer);
        self.known.insert(pid, known);
    }

    /// The instance of a domain, if its process is the one that libvirtd started.
    fn domain(&mut self, host: &mut Host<'_>, domain: Domain) -> Option<(Instance, Vm)> {
        let process = ProcDir::open(host.roots, domain.pid).ok()?;
        let stat = process.stat(host.buffer).ok().filter(tree::is_alive)?;
        let status = process.status(host.buffer).ok()?;
        let line = self.command_line(host, domain.pid, stat.starttime, status.uid)?;
        // A number used again would be somebody else's process.
        let started = Options::new(&sections::of_command_line(&line));
        let is_same = if domain.vm.uuid.is_some() {
            started.vm.uuid == domain.vm.uuid
        } else {
            started.name.as_deref() == Some(&domain.name)
        };
        if !is_same {
            return None;
        }
        let cgroup =
            process.memberships(host.buffer).map(|found| libvirt::cgroups(&found)).unwrap_or_default();
        let identity = Identity {
            project: "libvirt".to_owned(),
            id: domain.vm.uuid.clone().unwrap_or_else(|| domain.name.clone()),
            directory: OsString::from(&domain.name),
            name: domain.name,
            runtime: "libvirt",
        };
        Some((instance(identity, Arc::new(process), stat.starttime, cgroup), domain.vm))
    }

    /// A process that is not libvirt's.
    fn see_process(&mut self, host: &mut Host<'_>, pid: u32) -> Option<Known> {
        let process = self.watch.processes.get(&pid)?;
        let (start, uid, share) = (process.start, process.uid, process.share);
        let line = self.command_line(host, pid, start, uid)?;
        let mut sections = sections::of_command_line(&line);
        let process = self.watch.processes.get(&pid)?;
        // Whoever starts a machine for root chose this directory, too.
        let place = if is_trusted(uid) { process.dir.working_directory().ok() } else { None };
        // One that became a daemon has left the directory in which it opened its sockets.
        let place = place.filter(|_| !Options::new(&sections).is_daemon);
        options::resolve(&mut sections, place.as_deref());
        let mut options = Options::new(&sections);
        if options.is_probe {
            return None;
        }
        let managed =
            options.pidfile.as_deref().and_then(|pidfile| managed::find(host.roots, process, pidfile));
        if is_trusted(uid) || managed.is_some() {
            for file in options::files(&sections) {
                let mut of_file = of_file(host.roots, &file);
                options::resolve(&mut of_file, place.as_deref());
                sections.extend(of_file);
            }
            options = Options::new(&sections);
        }
        if managed.is_none() && !is_trusted(uid) && !self.is_systems(host, pid, start, uid) {
            return None;
        }
        let process = self.watch.processes.get(&pid)?;
        let is_settled = age(host.roots, start, host.buffer).is_none_or(|age| age >= SETTLES);
        if managed.is_none() && !is_settled && self.may_be_anothers(host, process, &line, &options) {
            return None;
        }
        let dir = Arc::new(ProcDir::open(host.roots, pid).ok()?);
        // Opened again: it has to be the process that was looked at.
        dir.stat(host.buffer).ok().filter(|stat| stat.starttime == start)?;
        let mut vm = std::mem::take(&mut options.vm);
        let identity = match managed {
            Some(managed) => {
                vm.owner = managed.owner.clone();
                vm.certificates = Some(managed.certificates.clone());
                // The daemon holds its monitor for good.
                vm.monitors.clear();
                Identity {
                    runtime: managed.runtime(),
                    id: managed.directory.to_string_lossy().into_owned(),
                    project: managed.project,
                    name: managed.name,
                    directory: managed.directory,
                }
            }
            None => plain(host.roots, pid, uid, options.name, vm.uuid.as_deref()),
        };
        let mut vsock_socket = options.vsock_socket;
        let is_a_users = !is_trusted(uid) && vm.owner == Owner::Nobody;
        if is_a_users {
            vm = Vm {
                uuid: vm.uuid,
                configured_vcpus: vm.configured_vcpus,
                configured_memory: vm.configured_memory,
                ..Vm::default()
            };
            vsock_socket = None;
        }
        let instance = instance(identity, dir, start, CgroupPaths::default());
        let mut known = Known::new(instance, vm, vsock_socket);
        known.tenant = Some(share).filter(|share| is_a_users && share.is_a_users());
        known.set(host.roots, &self.watch, host.buffer);
        Some(known)
    }

    /// Whether a young process may turn out to be libvirt's, Incus' or LXD's, or is the one that QEMU leaves when it
    /// becomes a daemon: its child has the same command line.
    fn may_be_anothers(
        &self,
        host: &mut Host<'_>,
        process: &Process,
        line: &[u8],
        options: &Options,
    ) -> bool {
        let is_libvirts = line.windows(10).any(|window| window == b"masterKey0");
        let is_managed = options.pidfile.as_ref().is_some_and(|path| path.ends_with("qemu.pid"));
        if !options.is_daemon {
            return is_libvirts || is_managed;
        }
        let has_child = self.watch.processes.values().any(|other| other.ppid == process.dir.pid());
        // A user may name a file that is none, or that never answers: a watchdog's device is started by a look.
        let pidfile = options.pidfile.as_deref().filter(|_| is_trusted(process.uid));
        let written = pidfile.map(|path| {
            let place = host.roots.host_path(path)?;
            miharu_linux::read::number_file(&read_systems(&place).ok()?)
        });
        let is_written = match written {
            Some(pid) => pid == Some(u64::from(process.dir.pid())),
            // Nothing tells but that its parent has gone.
            None => process.first_seen.elapsed() >= Duration::from_secs(2),
        };
        is_libvirts || is_managed || has_child || !is_written
    }

    /// Whether a user's process runs a QEMU that the system's administrator installed. What does not is warned of, one of each
    /// user's.
    fn is_systems(&mut self, host: &mut Host<'_>, pid: u32, start: u64, uid: u32) -> bool {
        let (why, is_told) = match self.patience.systems_program(host.roots, uid, pid, start, Worth::Instance)
        {
            Some(Ok(path)) => return watch::program(path.as_os_str().as_bytes()) == Some(Program::Qemu),
            // Another error may have passed by the next scan.
            Some(Err(why)) => (why.to_string(), matches!(why, NotTheSystems::Anybodys { .. })),
            None if self.patience.is_used_up() => return false,
            None => ("does not show its program".to_owned(), false),
        };
        let what = format!("what looks like a QEMU of user {uid}");
        let warning = Warning::Refused { uid, what, problem: format!("process {pid} {why}") };
        refused::tell(host.warnings, &warning);
        if is_told {
            self.refused.add(pid, start, warning);
        }
        false
    }

    /// The command line of a process; a user's process gets only a moment for it.
    fn command_line(&mut self, host: &mut Host<'_>, pid: u32, start: u64, uid: u32) -> Option<Vec<u8>> {
        let answer = if is_trusted(uid) {
            ProcDir::open(host.roots, pid).and_then(|process| process.command_line())
        } else if let Some(answer) = self.patience.command_line(host.roots, uid, pid, start, Worth::Instance)
        {
            answer
        } else if self.patience.is_used_up() {
            return None;
        } else {
            let problem = "it does not show its command line".to_owned();
            host.warnings.push(Warning::Refused { uid, what: format!("the QEMU process {pid}"), problem });
            return None;
        };
        match answer {
            Ok(line) => Some(line),
            Err(error) => {
                if !error.is_gone() {
                    let (what, problem) = (format!("the QEMU process {pid}"), error.to_string());
                    host.warnings.push(Warning::Refused { uid, what, problem });
                }
                None
            }
        }
    }

    /// Looks again at devices that may have been plugged in or out.
    fn refresh(&mut self, host: &mut Host<'_>) {
        for known in self.known.values_mut() {
            if known.since.elapsed() < NEW || known.refreshed.elapsed() >= REFRESH {
                known.set(host.roots, &self.watch, host.buffer);
            }
        }
    }
}

impl Known {
    fn new(instance: Instance, configured: Vm, vsock_socket: Option<PathBuf>) -> Self {
        let now = Instant::now();
        Self {
            instance: Arc::new(instance),
            since: now,
            refreshed: now,
            configured,
            vsock_socket,
            tenant: None,
        }
    }

    /// Puts what is configured, and what the process holds, into the instance.
    fn set(&mut self, roots: &Roots, watch: &Watch, buffer: &mut Buffer) {
        self.refreshed = Instant::now();
        let mut vm = self.configured.clone();
        if let Some(held) = taps::held(&self.instance.init, buffer) {
            vm.taps = held;
        }
        if let Some(socket) = &self.vsock_socket {
            vm.vsock = vsock::host_end(roots, watch, socket).map(Vsock::Unix);
        }
        if self.instance.vm.as_ref() != Some(&vm) {
            let instance = Instance { vm: Some(vm), ..Instance::clone(&self.instance) };
            self.instance = Arc::new(instance);
        }
    }
}

/// What a machine is called.
struct Identity {
    project: String,
    name: String,
    runtime: &'static str,
    id: String,
    directory: OsString,
}

/// A QEMU that nobody vouches for: its name, else its uuid, else its process' number.
fn plain(roots: &Roots, pid: u32, uid: u32, name: Option<String>, uuid: Option<&str>) -> Identity {
    let project = if is_trusted(uid) {
        "qemu".to_owned()
    } else {
        format!("qemu@{}", users::name(roots, uid).unwrap_or_else(|| uid.to_string()))
    };
    let name = name.or_else(|| uuid.map(str::to_owned)).unwrap_or_else(|| pid.to_string());
    let id = uuid.map_or_else(|| name.clone(), str::to_owned);
    Identity { project, directory: OsString::from(&name), name, runtime: "qemu", id }
}

fn instance(identity: Identity, init: Arc<ProcDir>, start: u64, cgroup: CgroupPaths) -> Instance {
    let Identity { project, name, runtime, id, directory } = identity;
    let incarnation = Incarnation { cgroup_inode: 0, init_pid: init.pid(), init_start: start };
    Instance {
        project,
        name,
        kind: Kind::VirtualMachine,
        runtime,
        id,
        init,
        cgroup,
        incarnation,
        directory,
        image: None,
        is_sandbox: false,
        vm: None,
    }
}

/// The options of a file that a trusted command line names.
fn of_file(roots: &Roots, path: &Path) -> Vec<Section> {
    let text = || regular(&roots.host_path(path)?, MAX_FILE).ok();
    let text = text().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    text.map(|text| sections::of_file(&text)).unwrap_or_default()
}

/// How long a process has run; nothing where the host does not tell.
fn age(roots: &Roots, start: u64, buffer: &mut Buffer) -> Option<Duration> {
    let text = buffer.read(&roots.proc.join("uptime")).ok()?;
    let seconds: f64 = std::str::from_utf8(text).ok()?.split_ascii_whitespace().next()?.parse().ok()?;
    let up = Duration::try_from_secs_f64(seconds).ok()?;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Some(up.saturating_sub(Duration::from_millis(start.saturating_mul(1000) / ticks)))
}

#[cfg(test)]
mod tests;

//! A podman of one's own: storage, state and configuration in a scratch folder, the controllers' cgroups made by podman itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::oci::{self, Container, Shared, last_line};
use crate::scratch::{self, Entry, Note, unique};
use crate::{cgroup, shell};

/// The name of the image that it starts with.
pub const IMAGE: &str = "localhost/bb:1";

/// The low-level runtime: crun cannot run on version 1 without systemd, and is Debian's choice on version 2.
#[must_use]
pub fn runtime() -> &'static str {
    if cgroup::is_v2() { "crun" } else { "runc" }
}

/// A podman; its containers, pods and services are ended on drop.
#[derive(Debug)]
pub struct Podman {
    /// Its folder.
    pub home: PathBuf,
    /// What runs it as another user.
    before: Vec<String>,
    services: Mutex<Vec<(Child, Note)>>,
    cgroups: Mutex<Vec<Note>>,
    _monitors: Note,
    _shared: Shared,
}

impl Podman {
    /// Makes one with the image [`IMAGE`].
    ///
    /// # Errors
    /// When podman cannot import the image.
    pub fn start() -> Result<Self> {
        Self::run_by(&scratch::dir("podman")?, &[])
    }

    /// As [`Podman::start`], in a folder and by a command such as `setpriv` that its arguments are put behind.
    ///
    /// # Errors
    /// As [`Podman::start`].
    pub fn run_by(home: &Path, before: &[&str]) -> Result<Self> {
        let shared = Shared::join()?;
        let podman = Self {
            home: home.to_owned(),
            before: before.iter().map(|word| (*word).to_owned()).collect(),
            services: Mutex::default(),
            cgroups: Mutex::default(),
            _monitors: Entry::Monitors(home).note()?,
            _shared: shared,
        };
        // Locks in shared memory would be one set for all podmans of the machine. By default it asks for more files and
        // processes than a machine may allow.
        let settings = format!(
            "[containers]\ndefault_ulimits = [\"nofile={0}:{0}\",\"nproc={1}:{1}\"]\nlog_driver = \"k8s-file\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\nruntime = \"{2}\"\n\
             [network]\nnetwork_config_dir = \"{3}\"\n",
            hard_limit("Max open files")?,
            hard_limit("Max processes")?,
            runtime(),
            home.join("networks").display(),
        );
        fs::write(home.join("containers.conf"), settings)?;
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/storage\"\nrunroot = \"{0}/run\"\n",
            home.display()
        );
        fs::write(home.join("storage.conf"), storage)?;
        let image = oci::image()?.to_str().context("a path that is no UTF-8")?;
        podman.podman(&["import", image, IMAGE])?;
        Ok(podman)
    }

    /// Runs podman and gives what it wrote.
    ///
    /// # Errors
    /// When it fails.
    pub fn podman(&self, args: &[&str]) -> Result<String> {
        shell::output(self.command().args(args))
    }

    /// Starts a container without network, with further arguments of `podman run` (another `--network` among them).
    ///
    /// # Errors
    /// When podman cannot.
    pub fn run(&self, name: &str, args: &[&str]) -> Result<Container> {
        let mut line = vec!["run", "-d", "--name", name];
        if !args.iter().any(|arg| ["--network", "--pod"].contains(arg)) {
            line.extend(["--network", "none"]);
        }
        line.extend(args);
        line.extend([IMAGE, "/sbin/init"]);
        let id = last_line(&self.podman(&line)?)?;
        let pid = self.pid(&id)?;
        self.note_cgroup(pid)?;
        Ok(Container { name: name.to_owned(), id, pid })
    }

    /// A container of a name that nobody else has.
    ///
    /// # Errors
    /// As [`Podman::run`].
    pub fn any(&self, args: &[&str]) -> Result<Container> {
        self.run(&unique("pm"), args)
    }

    /// Starts a pod without network, with an infra container, and gives the pod's id. Containers join by `--pod NAME`.
    ///
    /// # Errors
    /// When podman cannot.
    pub fn pod(&self, name: &str) -> Result<String> {
        let mut line = vec!["pod", "create", "--name", name, "--network", "none"];
        line.extend(["--infra-image", IMAGE, "--infra-command", "/sbin/init"]);
        if cgroup::is_v2() {
            // Without systemd this podman allows no device in a pod's own cgroup, so that crun cannot make /dev/null.
            line.push("--share-parent=false");
        }
        let made = self.podman(&line)?;
        self.podman(&["pod", "start", name])?;
        let id = last_line(&made)?;
        // Not in every hierarchy does podman remove it.
        let note = Entry::Leaf(&format!("/libpod_parent/{id}")).note()?;
        self.notes().push(note);
        Ok(id)
    }

    /// The init of a container, as the host numbers it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, name: &str) -> Result<u32> {
        match self.podman(&["inspect", "-f", "{{.State.Pid}}", name])?.trim().parse()? {
            0 => bail!("{name} does not run"),
            pid => Ok(pid),
        }
    }

    /// Serves its API on a socket and gives that.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn serve(&self, socket: &Path) -> Result<u32> {
        let mut command = self.command();
        command.args(["system", "service", "--time", "0", &format!("unix://{}", socket.display())]);
        let log = fs::File::create(self.home.join("service.log"))?;
        let mut child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let note = Entry::Process(child.id()).note()?;
        let up = shell::wait_for("podman's service", Duration::from_secs(20), || {
            std::os::unix::net::UnixStream::connect(socket).ok()
        });
        if up.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        up.with_context(|| fs::read_to_string(self.home.join("service.log")).unwrap_or_default())?;
        let pid = child.id();
        lock(&self.services).push((child, note));
        Ok(pid)
    }

    fn command(&self) -> Command {
        let mut words = self.before.iter().map(String::as_str).chain(["podman"]);
        let mut command = Command::new(words.next().unwrap_or("podman"));
        command.args(words).current_dir(&self.home);
        command
            .env("CONTAINERS_CONF", self.home.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.home.join("storage.conf"));
        for (option, folder) in [("--root", "storage"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.home.join(folder));
        }
        command.args([
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
            "--storage-driver",
            "overlay",
        ]);
        command
    }

    /// What is left of a container's cgroup when its runtime is killed.
    fn note_cgroup(&self, pid: u32) -> Result<()> {
        let path = cgroup::Cgroups::of(pid)?.path("memory")?.to_owned();
        if path != "/" {
            let note = Entry::Leaf(&path).note()?;
            self.notes().push(note);
        }
        Ok(())
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Vec<Note>> {
        lock(&self.cgroups)
    }
}

/// A hard limit of this process, and no more than containers of tests need.
fn hard_limit(name: &str) -> Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).context(limits.clone())?;
    let hard = line.split_whitespace().nth(1).context(limits.clone())?;
    Ok(hard.parse().unwrap_or(u64::MAX).min(4096))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Drop for Podman {
    fn drop(&mut self) {
        // A paused one takes no signal, and the second time takes those along that others depended on.
        let _ = self.podman(&["unpause", "--all"]);
        let _ = self.podman(&["pod", "rm", "--all", "--force", "--time", "0"]);
        for _ in 0..2 {
            if self.podman(&["rm", "--all", "--force", "--time", "0"]).is_ok() {
                break;
            }
        }
        for (mut service, note) in lock(&self.services).drain(..) {
            let _ = service.kill();
            let _ = service.wait();
            drop(note);
        }
        oci::end_all(&self.home);
        scratch::unmount_below(&self.home);
        self.notes().clear();
    }
}

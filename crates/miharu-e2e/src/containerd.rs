//! A containerd of one's own, with every path in a scratch folder, and its containers through `ctr`.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::oci::{self, Container, Shared};
use crate::scratch::{self, Entry, Note};
use crate::{rootfs, shell};

/// A running containerd; its containers and it are ended on drop.
#[derive(Debug)]
pub struct Containerd {
    /// Its folder; the socket is `containerd.sock` in it, run state is in `state`.
    pub home: PathBuf,
    child: Option<Child>,
    containers: Mutex<Vec<(String, String, Note)>>,
    _monitors: Note,
    _shared: Shared,
}

impl Containerd {
    /// Starts one without its CRI plugin.
    ///
    /// # Errors
    /// When it does not come up; the error carries its log.
    pub fn start() -> Result<Self> {
        Self::with("disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n", "")
    }

    /// Starts one with further lines of its configuration: top-level ones, and whole tables.
    ///
    /// # Errors
    /// As [`Containerd::start`].
    pub fn with(lines: &str, tables: &str) -> Result<Self> {
        let shared = Shared::join()?;
        let home = scratch::dir("ctrd")?;
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n{lines}\
             [grpc]\n  address = \"{0}/containerd.sock\"\n{tables}",
            home.display()
        );
        fs::write(home.join("config.toml"), config)?;
        let monitors = Entry::Monitors(&home).note()?;
        let mut containerd =
            Self { home, child: None, containers: Mutex::default(), _monitors: monitors, _shared: shared };
        containerd.boot()?;
        Ok(containerd)
    }

    /// Starts the daemon, again after [`Containerd::kill`].
    ///
    /// # Errors
    /// As [`Containerd::start`].
    pub fn boot(&mut self) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.home.join("log"))?;
        let mut command = Command::new("containerd");
        command.arg("-c").arg(self.home.join("config.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        self.child = Some(command.spawn().context("containerd")?);
        let up =
            shell::wait_for("containerd", Duration::from_secs(30), || self.ctr("default", &["version"]).ok());
        up.map(drop).with_context(|| fs::read_to_string(self.home.join("log")).unwrap_or_default())
    }

    /// Runs `ctr` in a namespace and gives what it wrote.
    ///
    /// # Errors
    /// When it fails.
    pub fn ctr(&self, namespace: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.home.join("containerd.sock")).args(["-n", namespace]);
        shell::output(command.args(args))
    }

    /// Starts a container in a namespace, with further arguments of `ctr run`. It has a network namespace with nothing but `lo`.
    ///
    /// # Errors
    /// When containerd cannot.
    pub fn run(&self, namespace: &str, name: &str, args: &[&str]) -> Result<Container> {
        let root = scratch::dir("root")?;
        rootfs::make(&root)?;
        let root = root.to_str().context("a path that is no UTF-8")?;
        // Containerd removes this with the container, but never the namespace's own above it.
        let note = Entry::Cgroup(&format!("/{namespace}/{name}")).note()?;
        self.ctr(namespace, &[&["run", "-d", "--rootfs"], args, &[root, name, "/sbin/init"]].concat())?;
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        containers.push((namespace.to_owned(), name.to_owned(), note));
        drop(containers);
        let pid = self.pid(namespace, name)?;
        Ok(Container { name: name.to_owned(), id: name.to_owned(), pid })
    }

    /// The init of a container, as the host numbers it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, namespace: &str, name: &str) -> Result<u32> {
        let tasks = self.ctr(namespace, &["task", "ls"])?;
        let of = |line: &str| -> Option<u32> {
            let mut words = line.split_whitespace();
            (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
        };
        tasks.lines().find_map(of).with_context(|| format!("{name} does not run: {tasks}"))
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// When it was killed.
    pub fn daemon(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).context("containerd does not run")
    }

    /// Kills a container and forgets it.
    ///
    /// # Errors
    /// When containerd cannot.
    pub fn remove(&self, namespace: &str, name: &str) -> Result<()> {
        self.ctr(namespace, &["task", "rm", "-f", name])?;
        self.ctr(namespace, &["container", "rm", name])?;
        Ok(())
    }

    /// Kills the daemon; its containers go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { bail!("containerd does not run") };
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let containers = std::mem::take(&mut *self.containers.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            let _ = shell::run("kill", ["-CONT", &pid]);
            for (namespace, name, _) in &containers {
                let _ = self.remove(namespace, name);
            }
            let _ = shell::run("kill", ["-TERM", &pid]);
            let _ = shell::wait_for("containerd's end", Duration::from_secs(10), || child.try_wait().ok()?);
            let _ = child.kill();
            let _ = child.wait();
        }
        oci::end_all(&self.home);
        scratch::unmount_below(&self.home);
    }
}

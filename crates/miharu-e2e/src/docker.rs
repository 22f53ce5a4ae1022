//! A Docker of one's own: a daemon, and the containerd that it starts, with every path in a scratch folder.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::oci::{self, Container, Shared, last_line};
use crate::scratch::{self, Entry, Note, unique};
use crate::{cgroup, shell};

/// The name of the image that it starts with.
pub const IMAGE: &str = "bb:1";

/// A running dockerd; its containers are removed and it is ended on drop.
#[derive(Debug)]
pub struct Docker {
    /// Its folder; the socket is `docker.sock` in it.
    pub home: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    cgroups: Mutex<Vec<Note>>,
    _monitors: Note,
    _shared: Shared,
}

impl Docker {
    /// Starts one with the image [`IMAGE`].
    ///
    /// # Errors
    /// When it does not come up; the error carries its log.
    pub fn start() -> Result<Self> {
        Self::with(&[])
    }

    /// Starts one with further arguments, such as `--live-restore`.
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn with(arguments: &[&str]) -> Result<Self> {
        let shared = Shared::join()?;
        let home = scratch::dir("docker")?;
        let monitors = Entry::Monitors(&home).note()?;
        let mut docker = Self {
            home,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            child: None,
            cgroups: Mutex::default(),
            _monitors: monitors,
            _shared: shared,
        };
        docker.boot()?;
        let image = oci::image()?.to_str().context("a path that is no UTF-8")?;
        docker.docker(&["import", image, IMAGE])?;
        Ok(docker)
    }

    /// Starts the daemon, again after [`Docker::kill`].
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn boot(&mut self) -> Result<()> {
        let at = |name: &str| self.home.join(name);
        fs::write(at("daemon.json"), "{}\n")?;
        let log = fs::File::options().create(true).append(true).open(at("log"))?;
        let mut command = Command::new("dockerd");
        for (option, name) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "docker.pid"),
        ] {
            command.arg(option).arg(at(name));
        }
        // Nothing of the machine's own network is touched.
        command
            .arg("-H")
            .arg(self.host())
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .args(["--ip-masq=false", "--storage-driver", "overlay2"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        self.child = Some(command.spawn().context("dockerd")?);
        let log = at("log");
        let child = &mut self.child;
        let mut ask = Command::new("docker");
        ask.arg("-H").arg(format!("unix://{}", self.home.join("docker.sock").display())).arg("version");
        let up = shell::wait_for("dockerd", Duration::from_secs(60), || {
            match child.as_mut().map(Child::try_wait) {
                Some(Ok(None)) => shell::output(&mut ask).ok().map(|_| true),
                _ => Some(false),
            }
        });
        if !matches!(up, Ok(true)) {
            bail!("dockerd did not come up: {}", fs::read_to_string(log).unwrap_or_default());
        }
        Ok(())
    }

    /// Runs the client and gives what it wrote.
    ///
    /// # Errors
    /// When it fails.
    pub fn docker(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", &self.home).env_remove("DOCKER_HOST").arg("-H").arg(self.host());
        shell::output(command.args(args))
    }

    /// Starts a container without network, with further arguments of `docker run` (another `--network` among them).
    ///
    /// # Errors
    /// When Docker cannot.
    pub fn run(&self, name: &str, args: &[&str]) -> Result<Container> {
        let mut line = vec!["run", "-d", "--name", name];
        if !args.contains(&"--network") {
            line.extend(["--network", "none"]);
        }
        line.extend(args);
        line.extend([IMAGE, "/sbin/init"]);
        let id = last_line(&self.docker(&line)?)?;
        let pid = self.pid(&id)?;
        let path = cgroup::Cgroups::of(pid)?.path("memory")?.to_owned();
        let note = Entry::Leaf(&path).note()?;
        self.cgroups.lock().unwrap_or_else(PoisonError::into_inner).push(note);
        Ok(Container { name: name.to_owned(), id, pid })
    }

    /// A container of a name that nobody else has.
    ///
    /// # Errors
    /// As [`Docker::run`].
    pub fn any(&self, args: &[&str]) -> Result<Container> {
        self.run(&unique("dk"), args)
    }

    /// The init of a container, as the host numbers it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, name: &str) -> Result<u32> {
        match self.docker(&["inspect", "-f", "{{.State.Pid}}", name])?.trim().parse()? {
            0 => bail!("{name} does not run"),
            pid => Ok(pid),
        }
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// When it was killed.
    pub fn daemon(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).context("dockerd does not run")
    }

    /// Kills the daemon; with `--live-restore` its containers go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("dockerd does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn host(&self) -> String {
        format!("unix://{}", self.home.join("docker.sock").display())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            let _ = shell::run("kill", ["-CONT", &pid]);
            if let Ok(ids) = self.docker(&["ps", "-aq"])
                && !ids.trim().is_empty()
            {
                let ids: Vec<&str> = ids.split_whitespace().collect();
                let _ = self.docker(&[&["rm", "-f"], ids.as_slice()].concat());
            }
            let _ = shell::run("kill", ["-TERM", &pid]);
            let _ = shell::wait_for("dockerd's end", Duration::from_secs(15), || child.try_wait().ok()?);
            let _ = child.kill();
            let _ = child.wait();
        }
        oci::end_all(&self.home);
        scratch::unmount_below(&self.home);
        self.cgroups.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

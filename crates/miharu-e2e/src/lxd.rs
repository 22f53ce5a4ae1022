//! A real LXD (the package) run by hand, in folders of its own, with containers of a tiny busybox image.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::scratch::{self, Entry, Note};
use crate::{rootfs, shell};

/// A running LXD; its containers are stopped and it is shut down on drop.
#[derive(Debug)]
pub struct Lxd {
    /// `LXD_DIR`.
    pub dir: PathBuf,
    home: PathBuf,
    child: Child,
    lxcfs: Option<(Child, [Note; 2])>,
    containers: Vec<(Note, String, String)>,
    _note: Note,
}

impl Lxd {
    /// Starts one with a storage pool of the `dir` driver, the image `bb`, and a default profile with a disk and a point to
    /// point interface `eth0`.
    ///
    /// # Errors
    /// When it does not come up; the error carries its log.
    pub fn start() -> Result<Self> {
        let home = scratch::dir("lxd")?;
        let dir = home.join("d");
        fs::create_dir_all(&dir)?;
        let lxcfs = start_lxcfs()?;
        let log = fs::File::create(home.join("log"))?;
        let mut command = Command::new("lxd");
        environment(&mut command, &dir, &home);
        command
            .args(["--group", "root"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = command.spawn().context("lxd")?;
        let note = Entry::Process(child.id()).note()?;
        let lxd = Self { dir, home, child, lxcfs, containers: Vec::new(), _note: note };
        let mut ready = Command::new("lxd");
        environment(&mut ready, &lxd.dir, &lxd.home);
        shell::output(ready.args(["waitready", "--timeout", "60"]))
            .with_context(|| fs::read_to_string(lxd.home.join("log")).unwrap_or_default())?;
        let image = lxd.image()?;
        lxd.lxc(&["image", "import", &image.display().to_string(), "--alias", "bb"])?;
        lxd.lxc(&["storage", "create", "pool", "dir"])?;
        lxd.lxc(&["profile", "device", "add", "default", "root", "disk", "path=/", "pool=pool"])?;
        lxd.lxc(&["profile", "device", "add", "default", "eth0", "nic", "nictype=p2p", "name=eth0"])?;
        Ok(lxd)
    }

    /// Runs LXD's client.
    ///
    /// # Errors
    /// When it fails.
    pub fn lxc(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("lxc");
        environment(&mut command, &self.dir, &self.home);
        shell::output(command.args(args))
    }

    /// Starts a container of a project, with further arguments of `lxc launch`.
    ///
    /// # Errors
    /// When LXD cannot.
    pub fn launch(&mut self, project: &str, name: &str, args: &[&str]) -> Result<()> {
        let path = self.dir.join("containers");
        // LXC's own name of a container of another project than the default one.
        let full = if project == "default" { name.to_owned() } else { format!("{project}_{name}") };
        let note = Entry::Lxc(&path, &full).note()?;
        self.lxc(&[&["launch", "-q", "bb", name, "--project", project], args].concat())?;
        self.containers.push((note, project.to_owned(), name.to_owned()));
        Ok(())
    }

    fn image(&self) -> Result<PathBuf> {
        let dir = self.home.join("image");
        rootfs::make(&dir.join("rootfs"))?;
        for file in ["hostname", "hosts", "resolv.conf"] {
            fs::write(dir.join("rootfs/etc").join(file), "")?;
        }
        symlink("../init", dir.join("rootfs/sbin/telinit")).ok();
        fs::write(
            dir.join("metadata.yaml"),
            "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  description: busybox\n  os: busybox\n  release: tiny\n",
        )?;
        let tar = self.home.join("bb.tar.gz");
        let mut command = Command::new("tar");
        command.arg("-C").arg(&dir).args(["--numeric-owner", "--owner=0", "--group=0", "-czf"]).arg(&tar);
        shell::output(command.args(["metadata.yaml", "rootfs"]))?;
        Ok(tar)
    }
}

impl Drop for Lxd {
    fn drop(&mut self) {
        for (_, project, name) in &self.containers {
            let _ = self.lxc(&["delete", "-f", name, "--project", project]);
        }
        let mut shutdown = Command::new("lxd");
        environment(&mut shutdown, &self.dir, &self.home);
        let _ = shell::output(shutdown.args(["shutdown", "--timeout", "20"]));
        let child = &mut self.child;
        let _ = shell::wait_for("LXD's end", Duration::from_secs(10), || child.try_wait().ok()?);
        let _ = self.child.kill();
        let _ = self.child.wait();
        scratch::unmount_below(&self.dir);
        if let Some((lxcfs, _)) = &mut self.lxcfs {
            let _ = lxcfs.kill();
            let _ = lxcfs.wait();
        }
    }
}

const LXCFS: &str = "/var/lib/lxcfs";

/// LXD wants lxcfs at its fixed place; one that runs there already is left alone.
fn start_lxcfs() -> Result<Option<(Child, [Note; 2])>> {
    if Path::new(LXCFS).join("proc").exists() || !shell::exists("lxcfs") {
        return Ok(None);
    }
    fs::create_dir_all(LXCFS)?;
    let child = Command::new("lxcfs")
        .arg(LXCFS)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("lxcfs")?;
    let notes = [Entry::Process(child.id()).note()?, Entry::Mount(LXCFS).note()?];
    shell::wait_for("lxcfs", Duration::from_secs(10), || {
        Path::new(LXCFS).join("proc").exists().then_some(())
    })?;
    Ok(Some((child, notes)))
}

/// Its own folders, and a proxy that refuses: neither server nor client may ask the network for images.
fn environment(command: &mut Command, dir: &Path, home: &Path) {
    command.env("LXD_DIR", dir).env("HOME", home).env("LXD_CONF", home.join("conf"));
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"] {
        command.env(name, "http://127.0.0.1:9");
    }
    command.env("NO_PROXY", "127.0.0.1,localhost");
}

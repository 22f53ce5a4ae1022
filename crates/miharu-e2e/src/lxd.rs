//! A real LXD (the package), or a real Incus (unpacked), run by hand, in folders of its own, with containers of a tiny busybox
//! image.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::need::{self, Need};
use crate::scratch::{self, Entry, Note};
use crate::{rootfs, shell};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// LXD, as its package installs it.
    Lxd,
    /// Incus, unpacked into the cache by `scripts/setup.sh`.
    Incus,
}

/// A running LXD or Incus; its containers are stopped and it is shut down on drop.
#[derive(Debug)]
pub struct Lxd {
    /// `LXD_DIR` or `INCUS_DIR`.
    pub dir: PathBuf,
    kind: Kind,
    home: PathBuf,
    child: Child,
    lxcfs: Option<(Child, [Note; 2])>,
    containers: Vec<(Note, String, String)>,
    many: Vec<(Note, Vec<String>)>,
    _note: Note,
    /// The place of lxcfs is one for the whole machine: who starts one ends it, too.
    _turn: fs::File,
}

impl Lxd {
    /// Starts an LXD as [`Lxd::of`] says.
    ///
    /// # Errors
    /// As [`Lxd::of`].
    pub fn start() -> Result<Self> {
        Self::of(Kind::Lxd)
    }

    /// Starts one with a storage pool of the `dir` driver, the image `bb`, and a default profile with a disk and a point to
    /// point interface `eth0`.
    ///
    /// # Errors
    /// When it does not come up; the error carries its log.
    pub fn of(kind: Kind) -> Result<Self> {
        let turn = scratch::turn("lxd")?;
        let home = scratch::dir("lxd")?;
        let dir = home.join("d");
        fs::create_dir_all(&dir)?;
        let lxcfs = start_lxcfs()?;
        let log = fs::File::create(home.join("log"))?;
        let mut command = kind.daemon(&dir, &home);
        command
            .args(["--group", "root"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = command.spawn().context("lxd")?;
        let note = Entry::Process(child.id()).note()?;
        let lxd = Self {
            dir,
            kind,
            home,
            child,
            lxcfs,
            containers: Vec::new(),
            many: Vec::new(),
            _note: note,
            _turn: turn,
        };
        shell::output(lxd.admin().args(["waitready", "--timeout", "60"]))
            .with_context(|| fs::read_to_string(lxd.home.join("log")).unwrap_or_default())?;
        let image = image(&lxd.home)?;
        lxd.lxc(&["image", "import", &image.display().to_string(), "--alias", "bb"])?;
        lxd.lxc(&["storage", "create", "pool", "dir"])?;
        lxd.lxc(&["profile", "device", "add", "default", "root", "disk", "path=/", "pool=pool"])?;
        lxd.lxc(&["profile", "device", "add", "default", "eth0", "nic", "nictype=p2p", "name=eth0"])?;
        Ok(lxd)
    }

    /// Runs its client.
    ///
    /// # Errors
    /// When it fails.
    pub fn lxc(&self, args: &[&str]) -> Result<String> {
        shell::output(self.kind.client(&self.dir, &self.home).args(args))
    }

    /// The command for what only an administrator does.
    fn admin(&self) -> Command {
        match self.kind {
            Kind::Lxd => self.kind.daemon(&self.dir, &self.home),
            Kind::Incus => {
                let mut command = self.kind.client(&self.dir, &self.home);
                command.arg("admin");
                command
            }
        }
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

    /// Starts these containers of the default project, several at a time.
    ///
    /// # Errors
    /// When LXD cannot.
    pub fn launch_all(&mut self, names: &[String]) -> Result<()> {
        let path = self.dir.join("containers");
        let note = Entry::LxcPath(&path).note()?;
        self.many.push((note, names.to_vec()));
        shell::side_by_side(names, |name| self.lxc(&["launch", "-q", "bb", name]).map(drop))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Packs the busybox image in a folder and gives its path.
fn image(home: &Path) -> Result<PathBuf> {
    let dir = home.join("image");
    rootfs::make(&dir.join("rootfs"))?;
    for file in ["hostname", "hosts", "resolv.conf"] {
        fs::write(dir.join("rootfs/etc").join(file), "")?;
    }
    symlink("../init", dir.join("rootfs/sbin/telinit")).ok();
    fs::write(
        dir.join("metadata.yaml"),
        "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  description: busybox\n  os: busybox\n  release: tiny\n",
    )?;
    let tar = home.join("bb.tar.gz");
    let mut command = Command::new("tar");
    command.arg("-C").arg(&dir).args(["--numeric-owner", "--owner=0", "--group=0", "-czf"]).arg(&tar);
    shell::output(command.args(["metadata.yaml", "rootfs"]))?;
    Ok(tar)
}

impl Drop for Lxd {
    fn drop(&mut self) {
        for (note, names) in std::mem::take(&mut self.many) {
            // That kills them all at once; one after the other would take minutes.
            drop(note);
            let _ = self.lxc(
                &[&["delete", "-f"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()]
                    .concat(),
            );
        }
        for (_, project, name) in &self.containers {
            let _ = self.lxc(&["delete", "-f", name, "--project", project]);
        }
        let _ = shell::output(self.admin().args(["shutdown", "--timeout", "20"]));
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

/// LXD wants lxcfs at its fixed place; one that runs there already is left alone. Without any, as when another one holds its
/// lock, LXD does without.
fn start_lxcfs() -> Result<Option<(Child, [Note; 2])>> {
    if Path::new(LXCFS).join("proc").exists() || !shell::exists("lxcfs") {
        return Ok(None);
    }
    fs::create_dir_all(LXCFS)?;
    let mut child = Command::new("lxcfs")
        .arg(LXCFS)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("lxcfs")?;
    let process = Entry::Process(child.id()).note()?;
    let is_there = shell::wait_for("lxcfs", Duration::from_secs(10), || {
        let is_mounted = Path::new(LXCFS).join("proc").exists().then_some(true);
        is_mounted.or_else(|| child.try_wait().ok()?.map(|_| false))
    });
    if let Ok(true) = is_there {
        return Ok(Some((child, [process, Entry::Mount(LXCFS).note()?])));
    }
    let _ = child.kill();
    let _ = child.wait();
    Ok(None)
}

impl Kind {
    /// Why it cannot be started here, or nothing when it can.
    #[must_use]
    pub fn lacking(self) -> Option<String> {
        match self {
            Self::Lxd => Need::Lxd.lacking(),
            Self::Incus => Need::Incus.lacking(),
        }
    }

    /// What the daemon calls its version.
    ///
    /// # Errors
    /// When the client does not start.
    pub fn version(self) -> Result<String> {
        let home = scratch::dir("version")?;
        let version = shell::output(self.client(&home, &home).arg("--version"))?;
        Ok(version.trim().to_owned())
    }

    fn daemon(self, dir: &Path, home: &Path) -> Command {
        self.command("lxd".as_ref(), INCUSD, dir, home)
    }

    /// Its client, for the server that has its socket in `dir`, keeping its own things in `home`.
    #[must_use]
    pub fn client(self, dir: &Path, home: &Path) -> Command {
        self.command("lxc".as_ref(), "usr/bin/incus", dir, home)
    }

    /// A program in folders of its own, and with a proxy that refuses: neither server nor client may ask the network for images.
    fn command(self, lxd: &Path, incus: &str, dir: &Path, home: &Path) -> Command {
        let mut command = match self {
            Self::Lxd => Command::new(lxd),
            Self::Incus => Command::new(unpacked().join(incus)),
        };
        match self {
            Self::Lxd => command.env("LXD_DIR", dir).env("LXD_CONF", home.join("conf")),
            Self::Incus => command.env("INCUS_DIR", dir).env("INCUS_CONF", home.join("conf")).env(
                "LD_LIBRARY_PATH",
                unpacked().join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)),
            ),
        };
        command.env("HOME", home).env("NO_PROXY", "127.0.0.1,localhost");
        for name in ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"] {
            command.env(name, "http://127.0.0.1:9");
        }
        command
    }
}

const INCUSD: &str = "usr/libexec/incus/incusd";

/// Whether `scripts/setup.sh` unpacked Incus into the cache.
pub(crate) fn has_incus() -> bool {
    unpacked().join(INCUSD).exists()
}

/// Where `scripts/setup.sh` unpacks Incus.
fn unpacked() -> PathBuf {
    need::cache().join("incus")
}

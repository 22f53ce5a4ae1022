//! An NFS over loopback whose server can be gone: the kernel's own server, told by hand what its helpers of nfs-utils would tell it, and
//! the kernel's own client, mounted hard. NFS 4 alone, as that needs no `rpcbind` and no `mountd`.
//!
//! What goes into `/proc/net/rpc` is described in the kernel's `Documentation/filesystems/nfs/rpc-cache.rst`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::scratch::{self, Entry, Note};
use crate::shell;

/// Modules of a guest that has it.
pub const MODULES: [&str; 2] = ["nfsd", "nfsv4"];

/// The server's own files.
const SERVER: &str = "/proc/fs/nfsd";

/// Until when the server may believe what it is told, seconds since the epoch: for ever.
const EXPIRY: u32 = i32::MAX as u32;

/// Export flags of `include/uapi/linux/nfsd/export.h`: any port, no subtree check, and a number for the file system.
const FLAGS: u32 = 0x2 | 0x400 | 0x2000;

/// How long the server can be gone.
const LONGEST: Duration = Duration::from_secs(120);

/// There is one server for all.
static ONE: Mutex<()> = Mutex::new(());

/// The mounted file system, unmounted on drop, with its server.
#[derive(Debug)]
pub struct Nfs {
    /// Where it is mounted.
    pub path: PathBuf,
    shared: PathBuf,
    /// Counts starts and ends of the server.
    turns: Arc<AtomicU64>,
    _note: Note,
    _one: MutexGuard<'static, ()>,
}

impl Nfs {
    /// Starts the server and mounts what it shares, an empty folder.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn mount() -> Result<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, shared) = (scratch::dir("nfs")?, scratch::dir("shared")?);
        let note = Entry::Mount(path.to_str().context("a path that is no UTF-8")?).note()?;
        if !Path::new(SERVER).join("threads").exists() {
            shell::run("mount", ["-i", "-t", "nfsd", "nfsd", SERVER])?;
        }
        // Or it would wait for the program that keeps the list of who was there before it ended.
        fs::create_dir_all("/var/lib/nfs/v4recovery")?;
        tell("versions", "-3 +4 +4.1 +4.2")?;
        let nfs = Self { path, shared, turns: Arc::default(), _note: note, _one: one };
        nfs.serve()?;
        let path = nfs.path.display().to_string();
        // What is known of a folder is believed for an hour: else whoever only passes by the mount, as lxc-start does for each one that
        // there is, would wait for the server, too.
        let options = "vers=4.2,proto=tcp,hard,actimeo=3600,addr=127.0.0.1,clientaddr=127.0.0.1";
        shell::run("mount", ["-i", "-t", "nfs", "-o", options, "127.0.0.1:/", &path])?;
        Ok(nfs)
    }

    /// Ends the server: who asks waits for it, for ever, or until whoever ended it has been waiting for too long himself.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn end(&self) -> Result<()> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed) + 1;
        let (turns, shared) = (Arc::clone(&self.turns), self.shared.clone());
        std::thread::spawn(move || {
            std::thread::sleep(LONGEST);
            if turns.load(Ordering::Relaxed) == turn {
                let _ = serve(&shared);
            }
        });
        tell("threads", "0")
    }

    /// Starts the server, which forgets all when it ends.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn serve(&self) -> Result<()> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        serve(&self.shared)
    }

    /// How often its size was asked for.
    ///
    /// # Errors
    /// When the client does not tell.
    pub fn asked(&self) -> Result<u64> {
        let all = fs::read_to_string("/proc/self/mountstats")?;
        let mounted = format!(" mounted on {} ", self.path.display());
        let own = all.split("\ndevice ").find(|mount| mount.contains(&mounted)).context("no such mount")?;
        let count =
            own.lines().find_map(|line| line.trim().strip_prefix("STATFS: ")).context(own.to_owned())?;
        Ok(count.split(' ').next().unwrap_or_default().parse()?)
    }
}

impl Drop for Nfs {
    fn drop(&mut self) {
        let path = self.path.display().to_string();
        let _ = self.serve();
        // Whoever still waits for the server gets an error.
        let _ = shell::wait_for("the end of the mount", Duration::from_secs(5), || {
            shell::run("umount", ["-i", "-f", "-l", &path]).ok()
        });
        self.turns.fetch_add(1, Ordering::Relaxed);
        let _ = tell("threads", "0");
    }
}

fn serve(shared: &Path) -> Result<()> {
    let shared = shared.display();
    answer("auth.unix.ip", &format!("nfsd 127.0.0.1 {EXPIRY} all"))?;
    answer("nfsd.export", &format!("all {shared} {EXPIRY} {FLAGS} 65534 65534 0"))?;
    answer("nfsd.fh", &format!("all 1 \\x00000000 {EXPIRY} {shared}"))?;
    tell("threads", "2")
}

/// Writes into a file of the server's.
fn tell(file: &str, what: &str) -> Result<()> {
    let path = Path::new(SERVER).join(file);
    fs::write(&path, format!("{what}\n")).with_context(|| format!("{what:?} to {}", path.display()))
}

/// Answers what the server would ask a helper.
fn answer(cache: &str, what: &str) -> Result<()> {
    let path = Path::new("/proc/net/rpc").join(cache).join("channel");
    fs::write(&path, format!("{what}\n")).with_context(|| format!("{what:?} to {}", path.display()))
}

//! A file system that answers as slowly as it is told to: a FUSE server of a few requests, enough for a mount point that can
//! be looked at and asked for its size, for names in it that are looked for, and for one file that can be opened and read. Whoever asks one that does not answer stays in the
//! kernel, where no signal ends the wait; for an NFS see [`crate::nfs`].
//!
//! The protocol is that of `include/uapi/linux/fuse.h`. Ending the server's process ends the connection, and whoever
//! hangs on it gets an error, so that a killed run leaves nobody hanging.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::scratch::{self, Entry, Note};
use anyhow::{Context, Result, ensure};

/// The longest request that the kernel sends for a file system that takes no writes, and then some.
const LONGEST_REQUEST: usize = 128 << 10;

/// A delay that never ends.
const NEVER: u64 = u64::MAX;

/// Opcodes.
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const FORGET: u32 = 2;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const BATCH_FORGET: u32 = 42;

/// The inode numbers of the folder and of the file.
const FOLDER_NODE: u64 = 1;
const FILE_NODE: u64 = 2;

/// The name of the one file in it: it is found and opened at once at any time, and who reads it waits as for everything else. Then it is
/// as long as [`FILE_LENGTH`] says and cannot be read.
pub const FILE: &str = "file";

/// How long it says that the file is.
const FILE_LENGTH: u64 = 4096;

/// `ENOENT`.
const NOTHING_THERE: i32 = 2;

/// `EIO`.
const CANNOT_BE_READ: i32 = 5;

/// `ENOSYS`, which the kernel takes for "this file system has no such thing".
const NO_SUCH_CALL: i32 = 38;

/// The mounted file system, unmounted on drop.
#[derive(Debug)]
pub struct Slow {
    /// Where it is mounted.
    pub path: PathBuf,
    server: Arc<Server>,
    _note: Note,
}

#[derive(Debug)]
struct Server {
    device: File,
    user: u32,
    /// How long an answer to `statfs` takes, in milliseconds.
    delay: AtomicU64,
    asked: AtomicU64,
    /// Questions that get no answer for now, by what is asked. The kernel lets nobody who waits for one die, not even by
    /// SIGKILL.
    held: Mutex<Vec<(u32, u64)>>,
}

impl Slow {
    /// Mounts one that answers at once.
    ///
    /// # Errors
    /// When this kernel has no FUSE, or `mount` may not.
    pub fn mount() -> Result<Self> {
        Self::of(0)
    }

    /// Mounts one in which everything is that user's.
    ///
    /// # Errors
    /// As [`Slow::mount`].
    pub fn of(user: u32) -> Result<Self> {
        Self::mount_at(scratch::dir("slow")?, user)
    }

    /// Mounts one over a folder, of which nobody sees anything any more who looks there from now on.
    ///
    /// # Errors
    /// As [`Slow::mount`].
    pub fn over(path: PathBuf) -> Result<Self> {
        Self::mount_at(path, 0)
    }

    fn mount_at(path: PathBuf, user: u32) -> Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse").context("/dev/fuse")?;
        let note = Entry::Mount(path.to_str().context("a path that is no UTF-8")?).note()?;
        let server = Arc::new(Server {
            device: device.try_clone()?,
            user,
            delay: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            held: Mutex::default(),
        });
        // The kernel asks INIT while mount(8) still runs or later; somebody must be there to answer.
        let serving = Arc::clone(&server);
        mount(&path, device)?;
        std::thread::spawn(move || serving.serve());
        Ok(Self { path, server, _note: note })
    }

    /// From now on an answer takes that long; `None` for ever.
    pub fn set_delay(&self, delay: Option<Duration>) {
        let delay = delay.map_or(NEVER, |delay| u64::try_from(delay.as_millis()).unwrap_or(NEVER));
        self.server.delay.store(delay, Ordering::Relaxed);
        if delay != NEVER {
            self.server.release();
        }
    }

    /// How many who ask wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.server.held.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Something to hold beside what asks: when it goes, everybody gets an answer, and can end.
    #[must_use]
    pub fn releaser(&self) -> Releaser<'_> {
        Releaser(self)
    }

    /// How many who read the file wait for an answer.
    #[must_use]
    pub fn readers(&self) -> usize {
        let held = self.server.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter(|(opcode, _)| *opcode == READ).count()
    }

    /// How often its size was asked for.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.server.asked.load(Ordering::Relaxed)
    }
}

/// Answers all that wait, on drop.
#[derive(Debug)]
pub struct Releaser<'s>(&'s Slow);

impl Drop for Releaser<'_> {
    fn drop(&mut self) {
        self.0.set_delay(Some(Duration::ZERO));
    }
}

/// The descriptor reaches mount(8) as its standard input.
fn mount(path: &Path, device: File) -> Result<()> {
    let mut command = Command::new("mount");
    let options = "fd=0,rootmode=40000,user_id=0,group_id=0,allow_other";
    command.args(["-i", "-t", "fuse", "-o", options, "slow"]).arg(path).stdin(Stdio::from(device));
    let out = command.output().context("mount")?;
    ensure!(out.status.success(), "mount: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

impl Server {
    /// Answers until the file system is unmounted.
    fn serve(self: &Arc<Self>) {
        let mut buffer = vec![0; LONGEST_REQUEST];
        loop {
            let length = match (&self.device).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let Some(request) = buffer.get(..length).and_then(Request::parse) else { continue };
            self.take(&request);
        }
    }

    fn take(self: &Arc<Self>, request: &Request) {
        match request.opcode {
            INIT => self.reply(request.unique, 0, &init()),
            GETATTR => self.reply(
                request.unique,
                0,
                &[valid(1).as_slice(), &attributes(request.node, self.user)].concat(),
            ),
            LOOKUP if request.is_for_the_file => {
                let node = [FILE_NODE.to_ne_bytes(), [0; 8]].concat();
                self.reply(request.unique, 0, &[node, valid(2), attributes(FILE_NODE, self.user)].concat());
            }
            // Past the cache of pages: a wait there could be ended by a signal.
            OPEN => self.reply(request.unique, 0, &[1_u64.to_ne_bytes(), 1_u64.to_ne_bytes()].concat()),
            READ if self.delay.load(Ordering::Relaxed) == NEVER => self.hold(request),
            READ => self.reply(request.unique, -CANNOT_BE_READ, &[]),
            RELEASE | FLUSH => self.reply(request.unique, 0, &[]),
            STATFS => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let (server, unique) = (Arc::clone(self), request.unique);
                match self.delay.load(Ordering::Relaxed) {
                    NEVER => self.hold(request),
                    0 => self.reply(unique, 0, &sizes()),
                    delay => {
                        std::thread::spawn(move || {
                            std::thread::sleep(Duration::from_millis(delay));
                            server.reply(unique, 0, &sizes());
                        });
                    }
                }
            }
            LOOKUP if self.delay.load(Ordering::Relaxed) == NEVER => self.hold(request),
            LOOKUP => self.reply(request.unique, -NOTHING_THERE, &[]),
            FORGET | BATCH_FORGET => {}
            _ => self.reply(request.unique, -NO_SUCH_CALL, &[]),
        }
    }

    fn hold(&self, request: &Request) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push((request.opcode, request.unique));
    }

    fn release(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        for (opcode, unique) in held {
            match opcode {
                LOOKUP => self.reply(unique, -NOTHING_THERE, &[]),
                READ => self.reply(unique, -CANNOT_BE_READ, &[]),
                _ => self.reply(unique, 0, &sizes()),
            }
        }
    }

    /// `struct fuse_out_header` and what follows it. A request that was broken off needs no answer any more.
    fn reply(&self, unique: u64, error: i32, body: &[u8]) {
        let length = u32::try_from(body.len() + 16).unwrap_or(16);
        let mut reply = Vec::with_capacity(body.len() + 16);
        reply.extend(length.to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(unique.to_ne_bytes());
        reply.extend(body);
        let _ = (&self.device).write(&reply);
    }
}

/// What is needed of `struct fuse_in_header`, and of what follows.
struct Request {
    opcode: u32,
    unique: u64,
    node: u64,
    /// The name that is looked up.
    is_for_the_file: bool,
}

impl Request {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let opcode = u32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?);
        let unique = u64::from_ne_bytes(bytes.get(8..16)?.try_into().ok()?);
        let node = u64::from_ne_bytes(bytes.get(16..24)?.try_into().ok()?);
        let is_for_the_file =
            bytes.get(40..).and_then(|name| name.strip_suffix(b"\0")) == Some(FILE.as_bytes());
        Some(Self { opcode, unique, node, is_for_the_file })
    }
}

/// `struct fuse_init_out` of protocol 7.31.
fn init() -> Vec<u8> {
    let mut out = Vec::new();
    let (major, minor, readahead, flags) = (7_u32, 31_u32, 4096_u32, 0_u32);
    for word in [major, minor, readahead, flags] {
        out.extend(word.to_ne_bytes());
    }
    // Requests that may wait in the background, then the longest write.
    out.extend(12_u16.to_ne_bytes());
    out.extend(9_u16.to_ne_bytes());
    out.extend(4096_u32.to_ne_bytes());
    out.extend([0; 40]);
    out
}

/// For how long so many things hold that an answer says, an hour each: seconds, then what is beside them.
fn valid(count: usize) -> Vec<u8> {
    let mut out = 3600_u64.to_ne_bytes().repeat(count);
    // What `struct fuse_attr_out` has in the place of the second one's nanoseconds is not used.
    out.extend([0; 8]);
    out
}

/// `struct fuse_attr` of the folder or the file.
fn attributes(node: u64, user: u32) -> Vec<u8> {
    let (size, mode) = if node == FOLDER_NODE { (0, 0o40_755_u32) } else { (FILE_LENGTH, 0o100_644) };
    let mut out = [node.to_ne_bytes(), size.to_ne_bytes()].concat();
    // No blocks, no times.
    out.extend([0; 8 * 4 + 4 * 3]);
    for word in [mode, 1, user, user, 0, 4096, 0] {
        out.extend(word.to_ne_bytes());
    }
    out
}

/// `struct fuse_statfs_out`: 1 GiB, half of it free.
fn sizes() -> Vec<u8> {
    let mut out = Vec::new();
    for blocks in [262_144_u64, 131_072, 131_072, 1000, 500] {
        out.extend(blocks.to_ne_bytes());
    }
    for word in [4096_u32, 255, 4096, 0] {
        out.extend(word.to_ne_bytes());
    }
    out.extend([0; 24]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_as_long_as_the_kernel_wants_them() {
        // The sizes of the structures in include/uapi/linux/fuse.h; a reply of another length is refused.
        assert_eq!((init().len(), attributes(1, 0).len(), sizes().len()), (64, 88, 80));
        assert_eq!((valid(1).len() + 88, 16 + valid(2).len() + 88), (104, 128));
    }

    #[test]
    fn a_request_is_read_from_its_header_and_a_short_one_is_none() {
        let mut bytes = [40_u32.to_ne_bytes(), STATFS.to_ne_bytes()].concat();
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend(1_u64.to_ne_bytes());
        let request = Request::parse(&bytes).unwrap();
        assert_eq!((request.opcode, request.unique, request.node), (STATFS, 7, 1));
        assert!(Request::parse(&bytes[..23]).is_none());
        bytes.extend([0; 16]);
        bytes.extend(b"file\0");
        assert!(Request::parse(&bytes).unwrap().is_for_the_file);
    }

    #[test]
    fn it_answers_late_and_lets_everybody_go() -> Result<()> {
        crate::need!(Containers);
        let slow = Slow::mount()?;
        let ask = || crate::shell::run("stat", ["-f", "-c", "%b", &slow.path.display().to_string()]);
        assert_eq!(ask()?.trim(), "262144");
        slow.set_delay(Some(Duration::from_millis(150)));
        let started = std::time::Instant::now();
        ask()?;
        assert!(started.elapsed() >= Duration::from_millis(150));
        slow.set_delay(None);
        let file = slow.path.join(FILE);
        assert_eq!(std::fs::metadata(&file)?.len(), FILE_LENGTH);
        std::thread::scope(|scope| {
            let asking = scope.spawn(ask);
            let reading = scope.spawn(|| std::fs::read(&file).map_err(|error| error.raw_os_error()));
            crate::shell::wait_for("the questions", Duration::from_secs(5), || {
                (slow.asked() == 3 && slow.readers() == 1).then_some(())
            })?;
            drop(slow.releaser());
            assert_eq!(reading.join().expect("no panic"), Err(Some(CANNOT_BE_READ)));
            asking.join().expect("no panic")
        })?;
        Ok(())
    }
}

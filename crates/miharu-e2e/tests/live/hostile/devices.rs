//! A pipe or a device in the place of a file that is read, where a user chooses what is there.
//!
//! A pipe that is opened is waited for, and to open a device can be all that it needs: a watchdog, a tape or a modem begins by that. The
//! kernel itself tells who opened anything (inotify), for however short a time.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::forgery::{Forgery, USER};
use miharu_e2e::scratch::{self, Entry, Note, unique};
use miharu_e2e::{Lxc, guest, need, shell};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::Scene;

/// What is put in a file's place.
#[derive(Debug, Clone, Copy)]
enum Bait {
    Pipe,
    /// It never ends.
    Zero,
    Random,
    /// A modem, if there were one.
    Line,
    Disk,
}

const ALL: [Bait; 5] = [Bait::Pipe, Bait::Zero, Bait::Random, Bait::Line, Bait::Disk];

/// Whatever was put somewhere, and who opens it.
#[derive(Debug)]
struct Baits {
    opened: OwnedFd,
    places: Vec<PathBuf>,
}

impl Baits {
    fn new() -> Result<Self> {
        let opened = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { opened, places: Vec::new() })
    }

    /// Puts one there in place of what there is, as that user's.
    fn lay(&mut self, bait: Bait, place: PathBuf, user: u32) -> Result<()> {
        let (kind, major, minor) = match bait {
            Bait::Pipe => (FileType::Fifo, 0, 0),
            Bait::Zero => (FileType::CharacterDevice, 1, 5),
            Bait::Random => (FileType::CharacterDevice, 1, 8),
            Bait::Line => (FileType::CharacterDevice, 4, 64),
            Bait::Disk => (FileType::BlockDevice, 7, 0),
        };
        if place.exists() {
            fs::remove_file(&place)?;
        }
        mknodat(CWD, &place, kind, Mode::from_raw_mode(0o644), makedev(major, minor))?;
        chown(&place, Some(user), Some(user))?;
        inotify::add_watch(&self.opened, &place, WatchFlags::OPEN)?;
        self.places.push(place);
        Ok(())
    }

    /// How many were opened since the last call.
    fn count(&self) -> Result<usize> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.opened, &mut buffer);
        let mut count = 0;
        loop {
            match events.next() {
                Ok(event) => count += usize::from(event.events().contains(ReadFlags::OPEN)),
                Err(rustix::io::Errno::AGAIN) => return Ok(count),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// That nobody opened one, and that it would have been noticed.
    fn untouched(&self) -> Result<()> {
        ensure!(self.count()? == 0, "some of {:?} were opened", self.places);
        let open = |place: &&PathBuf| {
            let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
            File::options().read(true).custom_flags(flags.bits() as i32).open(place).is_ok()
        };
        // Not each of these devices is there on every machine.
        let opened = self.places.iter().filter(open).count();
        ensure!(opened > self.places.len() / 3, "{opened} of {:?}", self.places);
        assert_eq!(self.count()?, opened);
        Ok(())
    }
}

/// A folder of a user's, where that user can have any; removed on drop.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    _note: Note,
}

impl Folder {
    pub(super) fn make(path: PathBuf, user: u32) -> Result<Self> {
        let note = Entry::Folder(path.to_str().context("a path that is no UTF-8")?).note()?;
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        chown(&path, Some(user), Some(user))?;
        Ok(Self { path, _note: note })
    }
}

/// A user of this machine with a home: one of the system's own, as none may be added.
pub(super) fn somebody() -> Result<(String, u32, PathBuf)> {
    let text = fs::read_to_string("/etc/passwd")?;
    let user = |line: &str| -> Option<(String, u32, PathBuf)> {
        let fields: Vec<&str> = line.split(':').collect();
        let (uid, home) = (fields.get(2)?.parse().ok()?, PathBuf::from(fields.get(5)?));
        let is_one = uid != 0 && home.starts_with("/var") && home.is_dir();
        is_one.then(|| (fields[0].to_owned(), uid, home))
    };
    text.lines().find_map(user).context("no user with a home below /var")
}

/// A user who is named in `instances.rootless`, about containers whose podman keeps such things in place of its lists and databases.
#[test]
fn nothing_is_opened_in_the_place_of_a_users_podmans_files() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let (user, uid, home) = somebody()?;
    scene.daemon.miharu(&["config", "set", "instances.rootless", &user])?;
    let slice = unique("mhbait");
    // Undone last, when what is in it has gone.
    let _slice = Entry::Leaf(&slice).note()?;
    let (mut baits, mut kept) = (Baits::new()?, Vec::new());
    for (number, bait) in ALL.into_iter().enumerate() {
        let folder = Folder::make(home.join(unique("mh")), uid)?;
        let containers = folder.path.join("overlay-containers");
        let id = format!("{:08x}", std::process::id() * 8 + number as u32).repeat(8);
        fs::create_dir_all(containers.join(&id))?;
        fs::create_dir(folder.path.join("libpod"))?;
        for file in ["containers.json", "volatile-containers.json"] {
            baits.lay(bait, containers.join(file), uid)?;
        }
        for file in ["db.sql", "libpod/db.sql", "libpod/bolt_state.db"] {
            baits.lay(bait, folder.path.join(file), uid)?;
        }
        let (name, bundle) = (unique("mhc"), containers.join(&id).join("userdata").display().to_string());
        let line = ["/usr/bin/conmon", "--api-version", "1", "-c", &id, "-b", &bundle, "-n", &name];
        let forgery = Forgery::start(&uid.to_string(), &format!("{slice}/libpod-{id}.scope"), &line)?;
        kept.push((name, forgery, folder));
    }
    // Each is called as its monitor says, once all that could say more was looked at.
    let is_called = |name: &str| scene.look().map(|scrape| scrape.instances().contains(name));
    for (name, ..) in &kept {
        shell::wait_for(name, Duration::from_secs(10), || is_called(name).unwrap_or(false).then_some(()))?;
    }
    scene.watch()?;
    baits.untouched()
}

/// A user's own QEMU; ended on drop.
struct Machine {
    child: Child,
    _note: Note,
}

impl Machine {
    /// One that has read `config` and written its number to `pidfile`.
    fn start(name: &str, config: &Path, pidfile: &Path) -> Result<Self> {
        let setpriv = guest::find("setpriv").context("setpriv is not installed")?;
        let mut command = Command::new(setpriv);
        command.args([
            "--reuid",
            USER,
            "--regid",
            USER,
            "--clear-groups",
            "qemu-system-x86_64",
            "-name",
            name,
        ]);
        command.args([
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-m",
            "16",
            "-nodefaults",
            "-display",
            "none",
            "-S",
        ]);
        command.arg("-readconfig").arg(config).arg("-pidfile").arg(pidfile);
        let child = command.stdin(Stdio::null()).spawn()?;
        let note = Entry::Process(child.id()).note()?;
        let machine = Self { child, _note: note };
        shell::wait_for("its pidfile", Duration::from_secs(10), || pidfile.is_file().then_some(()))?;
        Ok(machine)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Files that command lines of machines name: of a user's QEMU, of what root inside a container calls one, and of root's own, which was told
/// to use a user's folder.
#[test]
fn nothing_is_opened_in_the_place_of_a_machines_files() -> Result<()> {
    need!(Lxc, Qemu);
    let scene = Scene::start()?;
    let hostile = Lxc::start(&[])?;
    let user = USER.parse()?;
    let home = Folder::make(scratch::dir("home")?.join("own"), user)?;
    let (config, pidfile) = (home.path.join("config"), home.path.join("pid"));
    fs::write(&config, "[msg]\n  timestamp = \"on\"\n")?;
    let machine = unique("mhq");
    let _machine = Machine::start(&machine, &config, &pidfile)?;
    let mut baits = Baits::new()?;
    baits.lay(Bait::Pipe, config, user)?;
    baits.lay(Bait::Zero, pidfile, user)?;
    let program = home.path.join("qemu-system-x86_64");
    fs::copy(guest::find("bash").context("bash")?, &program)?;
    let (mut forged, mut of_root) = (Vec::new(), Vec::new());
    for bait in ALL {
        let (name, own) = (unique("mhr"), |what: &str| home.path.join(format!("{what}{bait:?}")));
        let (config, pidfile) = (own("config"), own("pid"));
        baits.lay(bait, config.clone(), user)?;
        baits.lay(bait, pidfile.clone(), user)?;
        let (config, pidfile) = (config.display().to_string(), pidfile.display().to_string());
        let line = ["qemu-system-x86_64", "-name", &name, "-readconfig", &config, "-pidfile", &pidfile];
        let daemon = [&line[..], &["-daemonize"]].concat();
        let below = format!("lxc.payload.{}/{name}", hostile.name);
        forged.push(Forgery::inside(hostile.pid, &program, &below, &daemon)?);
        forged.push(Forgery::running(&program, "0", &unique("mhd"), &daemon)?);
        forged.push(Forgery::running(&program, "0", &name, &line)?);
        of_root.push(name);
    }
    let mut missing = Vec::new();
    let seen = shell::wait_for("all machines", Duration::from_secs(10), || {
        let there = scene.look().ok()?.instances();
        missing = of_root.iter().chain([&machine]).filter(|name| !there.contains(*name)).collect();
        missing.is_empty().then_some(())
    });
    seen.with_context(|| format!("{missing:?}: {}", scene.daemon.log()))?;
    scene.watch()?;
    baits.untouched()
}

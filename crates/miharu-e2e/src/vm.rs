//! Virtual machines: QEMU by emulation alone, with the cloud kernel and a tiny busybox guest that holds `miharu-agent` and
//! qemu-guest-agent. Nothing runs in a guest by itself; a test starts what it needs over the serial console.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Netns;
use crate::scratch::{self, Entry, Note, unique};
use crate::{guest, initramfs, shell};

/// Where the guest mounts its disk; a blank in a mount point is worth a test.
pub const DISK: &str = "/data disk";

/// The console's answer to a line that ended.
const END: &str = "@@END ";

/// What a machine has.
#[derive(Debug)]
pub struct Config {
    /// Its name; one that nobody else has when empty.
    pub name: String,
    /// How many QMP monitors there are.
    pub monitors: usize,
    /// The virtio-serial ports that it has, each with a unix socket `PORT.sock` in the machine's folder.
    pub ports: Vec<String>,
    /// The balloon's polling interval in seconds; no balloon without one.
    pub balloon: Option<u32>,
    /// A tap in a namespace, which QEMU then runs in. Without one the card leads nowhere.
    pub tap: Option<(PathBuf, String)>,
    /// What the guest's disk holds, which it mounts as [`DISK`].
    pub files: Option<PathBuf>,
    /// Further arguments.
    pub arguments: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            monitors: 1,
            ports: Vec::new(),
            balloon: None,
            tap: None,
            files: None,
            arguments: Vec::new(),
        }
    }
}

/// A running machine, killed on drop.
#[derive(Debug)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// The folder of its sockets.
    pub dir: PathBuf,
    child: Child,
    console: Mutex<Console>,
    _note: Note,
}

impl Vm {
    /// Boots one and waits for its console.
    ///
    /// # Errors
    /// When it does not come up; the error carries the console.
    pub fn start(config: &Config) -> Result<Self> {
        let dir = scratch::dir("vm")?;
        let name = if config.name.is_empty() { unique("vm") } else { config.name.clone() };
        let kernel = guest::kernel()?;
        let disk = dir.join("disk.img");
        fs::File::create(&disk)?.set_len(48 << 20)?;
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F"]).args(config.files.iter().flat_map(|dir| ["-d".as_ref(), dir.as_os_str()]));
        shell::output(mkfs.arg(&disk))?;
        let mut qemu = command(config, &dir, &name);
        qemu.args(["-m", "192", "-append", "console=ttyS0 quiet panic=-1 psi=1 random.trust_cpu=on"])
            .arg("-kernel")
            .arg(&kernel)
            .arg("-initrd")
            .arg(root(&kernel)?);
        let serial = dir.join("serial.sock");
        qemu.arg("-chardev")
            .arg(format!(
                "socket,id=serial,path={},server=on,wait=off,logfile={}",
                serial.display(),
                dir.join("console.log").display()
            ))
            .args(["-serial", "chardev:serial", "-drive"])
            .arg(format!("if=none,id=drive0,format=raw,cache=unsafe,file={}", disk.display()))
            .args(["-device", "virtio-blk-pci,drive=drive0,id=disk0"]);
        let (child, note) = spawn(&mut qemu, &dir)?;
        let vm = Self { name, dir, child, console: Mutex::new(Console::new(serial)), _note: note };
        vm.console().open().with_context(|| vm.log())?;
        vm.exec("true", Duration::from_secs(120)).context("the guest's first answer")?;
        Ok(vm)
    }

    /// Starts QEMU with its processors halted: a machine for the host, without any guest. It costs little.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn halted(config: &Config) -> Result<Self> {
        let dir = scratch::dir("vm")?;
        let name = if config.name.is_empty() { unique("vm") } else { config.name.clone() };
        let mut qemu = command(config, &dir, &name);
        qemu.args(["-m", "16", "-S"]);
        let (mut child, note) = spawn(&mut qemu, &dir)?;
        let sockets = config.ports.iter().map(|port| dir.join(format!("{port}.sock")));
        let monitors = (0..config.monitors).map(|number| dir.join(format!("qmp{number}.sock")));
        for socket in sockets.chain(monitors) {
            shell::wait_for("QEMU's sockets", Duration::from_secs(60), || {
                let ended = child.try_wait().ok().flatten().is_some();
                (ended || socket.exists()).then_some(())
            })?;
        }
        let console = Mutex::new(Console::new(dir.join("none")));
        Ok(Self { name, dir, child, console, _note: note })
    }

    /// QEMU's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The host's end of a virtio-serial port.
    #[must_use]
    pub fn port(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.sock"))
    }

    /// Runs a shell line in the guest and gives what it wrote.
    ///
    /// # Errors
    /// When it ends with another status than 0, or not within a minute.
    pub fn run(&self, line: &str) -> Result<String> {
        self.exec(line, Duration::from_secs(60))
    }

    /// As [`Vm::run`], with a limit.
    ///
    /// # Errors
    /// As [`Vm::run`].
    pub fn exec(&self, line: &str, limit: Duration) -> Result<String> {
        let answer = self.console().exec(line, limit);
        answer.with_context(|| format!("in the guest: {line}")).with_context(|| self.log())
    }

    /// The number in a file of one, or behind a key: `MemTotal` of `/proc/meminfo` in kB.
    ///
    /// # Errors
    /// When there is none.
    pub fn key(&self, file: &str, key: &str) -> Result<f64> {
        let text = self.run(&format!("cat {file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| text.clone())?;
        let number = line.trim_start_matches(':').split_whitespace().next().context("no number")?;
        Ok(number.parse()?)
    }

    /// Starts `miharu-agent` in the guest; `agent_pid` is kept for [`Vm::kill_agent`].
    ///
    /// # Errors
    /// When the console does not answer.
    pub fn start_agent(&self) -> Result<()> {
        self.run("miharu-agent </dev/null >/agent.log 2>&1 & echo $! >/agent.pid").map(|_| ())
    }

    /// Kills it.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_agent(&self) -> Result<()> {
        self.run("kill -9 $(cat /agent.pid)").map(|_| ())
    }

    /// Stops all of QEMU's threads, or lets them go on.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn signal(&self, signal: &str) -> Result<()> {
        shell::run("kill", [&format!("-{signal}"), &self.pid().to_string()]).map(|_| ())
    }

    /// What the console and QEMU showed.
    #[must_use]
    pub fn log(&self) -> String {
        ["console.log", "qemu.log"]
            .map(|name| {
                String::from_utf8_lossy(&fs::read(self.dir.join(name)).unwrap_or_default()).into_owned()
            })
            .join("")
    }

    fn console(&self) -> std::sync::MutexGuard<'_, Console> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What machines with and without a guest have in common. Never KVM: what a test shows must not depend on the machine having it.
fn command(config: &Config, dir: &Path, name: &str) -> Command {
    let mut qemu = match &config.tap {
        Some((netns, _)) => {
            let mut inside = Command::new("nsenter");
            inside.arg(format!("--net={}", netns.display())).arg("qemu-system-x86_64");
            inside
        }
        None => Command::new("qemu-system-x86_64"),
    };
    // QEMU writes a comma inside a value as two.
    let guest = name.replace(',', ",,");
    qemu.args(["-name", &format!("guest={guest},debug-threads=on"), "-M", "q35"]).args([
        "-accel",
        "tcg,thread=multi",
        "-smp",
        "2",
        "-display",
        "none",
        "-no-reboot",
        "-nodefaults",
    ]);
    for number in 0..config.monitors {
        let socket = dir.join(format!("qmp{number}.sock"));
        qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
    }
    if !config.ports.is_empty() {
        qemu.args(["-device", "virtio-serial-pci"]);
    }
    for (number, port) in config.ports.iter().enumerate() {
        let socket = dir.join(format!("{port}.sock"));
        qemu.arg("-chardev")
            .arg(format!("socket,id=port{number},path={},server=on,wait=off", socket.display()))
            .args(["-device", &format!("virtserialport,chardev=port{number},name={port}")]);
    }
    if let Some(interval) = config.balloon {
        let device = format!("virtio-balloon-pci,id=balloon0,guest-stats-polling-interval={interval}");
        qemu.args(["-device", &device]);
    }
    match &config.tap {
        Some((_, tap)) => {
            qemu.args(["-netdev", &format!("tap,id=net0,ifname={tap},script=no,downscript=no")])
        }
        None => qemu.args(["-netdev", "hubport,id=net0,hubid=0"]),
    };
    qemu.args(["-device", "virtio-net-pci,netdev=net0,mac=52:54:00:00:00:01"]);
    qemu.args(&config.arguments);
    qemu
}

fn spawn(qemu: &mut Command, dir: &Path) -> Result<(Child, Note)> {
    let log = fs::File::create(dir.join("qemu.log"))?;
    // A group of its own, as the daemon's: Ctrl-C at a terminal is the demo's to handle.
    std::os::unix::process::CommandExt::process_group(qemu, 0);
    let child = qemu.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("QEMU")?;
    let note = Entry::Process(child.id()).note()?;
    Ok((child, note))
}

/// A tap in a namespace.
///
/// # Errors
/// When `ip` cannot make it.
pub fn tap(netns: &Netns, name: &str) -> Result<(PathBuf, String)> {
    netns.ip(&["tuntap", "add", name, "mode", "tap"])?;
    netns.ip(&["addr", "add", "192.0.2.1/24", "dev", name])?;
    netns.ip(&["link", "set", name, "up"])?;
    Ok((netns.path(), name.to_owned()))
}

/// The shell on the serial line.
#[derive(Debug)]
pub(crate) struct Console {
    path: PathBuf,
    stream: Option<UnixStream>,
    pending: Vec<u8>,
}

impl Console {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, stream: None, pending: Vec::new() }
    }

    /// Connects and waits until the guest is up.
    pub(crate) fn open(&mut self) -> Result<()> {
        let path = self.path.clone();
        let stream = shell::wait_for("QEMU's serial line", Duration::from_secs(60), || {
            UnixStream::connect(&path).ok()
        });
        self.stream = Some(stream?);
        self.until("@@READY", Duration::from_secs(180)).map(|_| ())
    }

    /// Sends a line and gives what came before its end was told.
    pub(crate) fn exec(&mut self, line: &str, limit: Duration) -> Result<String> {
        ensure!(!line.contains('\n'), "one line at a time");
        let stream = self.stream.as_mut().context("no guest")?;
        stream.write_all(line.as_bytes())?;
        stream.write_all(b"\n")?;
        let text = self.until(END, limit)?;
        let status = self.until("\n", limit)?;
        ensure!(status.trim() == "0", "status {}: {text}", status.trim());
        Ok(text)
    }

    /// What comes up to `mark`, which is taken away.
    fn until(&mut self, mark: &str, limit: Duration) -> Result<String> {
        let started = Instant::now();
        loop {
            let text = String::from_utf8_lossy(&self.pending).into_owned();
            if let Some((before, after)) = text.split_once(mark) {
                let before = before.to_owned();
                self.pending = after.as_bytes().to_vec();
                return Ok(before.replace('\r', ""));
            }
            if started.elapsed() > shell::patient(limit) {
                bail!("the guest did not answer within {limit:?}; it said: {text}");
            }
            let stream = self.stream.as_mut().context("no guest")?;
            stream.set_read_timeout(Some(Duration::from_millis(200)))?;
            let mut piece = [0; 4096];
            match stream.read(&mut piece) {
                Ok(0) => bail!("the guest is gone; it said: {text}"),
                Ok(count) => self.pending.extend(piece.iter().take(count)),
                // A wait with a limit is broken off by a signal, whoever handles it.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The guest's first process. It reads lines from the console and says how each ended.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for m in $(cat /modules/order); do insmod /modules/$m || echo "insmod $m failed"; done
dmesg -n 1
ip link set lo up
ip link set eth0 up 2>/dev/null && ip addr add 192.0.2.7/24 dev eth0
hostname guest
mkdir -p "/data disk" /tmp /run
mount -t ext4 /dev/vda "/data disk" 2>/dev/null
stty -F /dev/ttyS0 -echo -onlcr
exec </dev/ttyS0 >/dev/ttyS0 2>&1
echo @@READY
while :; do
  IFS= read -r line || { sleep 1; continue; }
  eval "$line" </dev/null
  status=$?
  printf '@@%s %d\n' END $status
done
"#;

/// Kernel modules of the guest.
const MODULES: [&str; 8] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_balloon",
    "vmw_vsock_virtio_transport",
    "ext4",
    "dummy",
];

/// The initramfs of all machines of this process, packed once.
pub(crate) fn root(kernel: &Path) -> Result<PathBuf> {
    static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = ROOT.get_or_init(|| pack(kernel).map_err(|error| format!("{error:#}")));
    made.clone().map_err(|error| anyhow::anyhow!("the guest's root: {error}"))
}

fn pack(kernel: &Path) -> Result<PathBuf> {
    let home = scratch::dir("vmroot")?;
    let root = home.join("root");
    for dir in ["bin", "dev", "proc", "sbin", "sys", "tmp", "run", "usr/sbin", "var/run", "etc"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    let mut programs = vec![(agent()?.0, "miharu-agent")];
    programs.extend(guest_agent().ok().map(|agent| (agent, "qemu-ga")));
    for (from, name) in &programs {
        let to = root.join("usr/sbin").join(name);
        fs::copy(from, &to)?;
        // Symbols only make the guest's memory fuller.
        let _ = shell::run("strip", [&to]);
        for library in guest::ldd(from) {
            guest::install(&root, &library, &library)?;
        }
    }
    initramfs::modules(kernel, &MODULES, &root.join("modules"))?;
    initramfs::pack(&root, INIT, &home.join("initrd.cpio"))?;
    fs::remove_dir_all(&root)?;
    Ok(home.join("initrd.cpio"))
}

/// How an agent was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// As users install it: static, optimised.
    Release,
    /// As cargo builds it for a test.
    Debug,
}

/// Our agent: the one that users install where `scripts/test.sh` has built it, so that its needs can be measured.
///
/// # Errors
/// When none is built.
pub fn agent() -> Result<(PathBuf, Build)> {
    match std::env::var_os("MIHARU_STATIC_AGENT") {
        Some(path) => Ok((PathBuf::from(path), Build::Release)),
        None => Ok((crate::miharud::program("miharu-agent")?, Build::Debug)),
    }
}

/// qemu-guest-agent as `scripts/setup.sh` unpacked it from its package, or as it is installed.
///
/// # Errors
/// When it is neither.
pub fn guest_agent() -> Result<PathBuf> {
    [crate::need::cache().join("qemu-guest-agent/usr/sbin/qemu-ga"), PathBuf::from("/usr/sbin/qemu-ga")]
        .into_iter()
        .find(|path| path.is_file())
        .context("no qemu-guest-agent in target/e2e-cache: run scripts/setup.sh test")
}

/// The agent of `lxd` or `incus`, a static program, as `scripts/setup.sh` unpacked it from its package.
///
/// # Errors
/// When it is not there.
pub fn managed_agent(whose: &str) -> Result<PathBuf> {
    let place = if whose == "lxd" { "usr/bin" } else { "usr/libexec/incus" };
    let path = crate::need::cache().join(format!("{whose}-agent/{place}/{whose}-agent"));
    path.is_file()
        .then_some(path)
        .with_context(|| format!("no {whose}-agent in target/e2e-cache: run scripts/setup.sh test"))
}

/// One QMP session, to see what miharud ought to say, or to hold a monitor.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    pending: Vec<u8>,
}

impl Monitor {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// When nobody greets within 20 seconds.
    pub fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(shell::patient(Duration::from_secs(20))))?;
        let mut monitor = Self { stream, pending: Vec::new() };
        monitor.line().context("no greeting")?;
        monitor.ask("qmp_capabilities")?;
        Ok(monitor)
    }

    /// Runs a command without arguments.
    ///
    /// # Errors
    /// When it fails.
    pub fn ask(&mut self, command: &str) -> Result<serde_json::Value> {
        writeln!(self.stream, "{{\"execute\":\"{command}\"}}")?;
        loop {
            let mut answer: serde_json::Value = serde_json::from_str(&self.line()?)?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            ensure!(answer.get("error").is_none(), "{command}: {answer}");
        }
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                return Ok(String::from_utf8(std::mem::replace(&mut self.pending, rest))?);
            }
            let mut piece = [0; 4096];
            let count = match self.stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            ensure!(count > 0, "the monitor is gone");
            self.pending.extend(piece.iter().take(count));
        }
    }
}

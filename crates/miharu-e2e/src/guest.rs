//! A real cgroup v2 host in seconds: a QEMU guest with Debian's cloud kernel whose root is a tmpfs made of this machine's own
//! programs. It runs a script, writes a folder of results to a disk, and powers off.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::need::cache;
use crate::scratch::{self, Entry};
use crate::{initramfs, nfs, shell};

/// Kernel modules of the guest, beside what they depend on.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "veth",
    "loop",
    "ext4",
    "overlay",
    "bridge",
    nfs::MODULES[0],
    nfs::MODULES[1],
];

/// This machine's programs that the guest's tests use.
const PROGRAMS: [&str; 17] = [
    "bash",
    "lxc-start",
    "lxc-stop",
    "lxc-info",
    "lxc-attach",
    "systemd-nspawn",
    "ip",
    "nsenter",
    "unshare",
    "openssl",
    "curl",
    "mkfs.ext4",
    "losetup",
    "mount",
    "umount",
    "df",
    "prlimit",
];

/// The guest's os-release.
const RELEASE: &str = "ID=guest\n";

/// The first process, from the initramfs: it makes the tmpfs root (pivot_root does not work from an initramfs) and enters it.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for m in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$m || echo "insmod $m failed"; done
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs -o size=1g,mode=755 root /new
/bin/busybox tar -xf /dev/vda -C /new || echo "cannot unpack the root"
/bin/busybox umount /proc
exec /bin/busybox switch_root /new /init
"#;

/// The init of the tmpfs root: a plain cgroup v2 host with every controller on; then the test's own script.
const SETUP: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/root TMPDIR=/scratch
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir /sys/fs/cgroup/init.scope
echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs
for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$c >/sys/fs/cgroup/cgroup.subtree_control; done
echo 3 >/proc/sys/vm/nr_hugepages
mount --make-rshared /
ip link set lo up
hostname guest
mkdir -p /scratch /results
mount -t ext4 /dev/vdc /scratch || echo "no scratch disk"
sh /script >/results/log 2>&1
echo $? >/results/status
tail -n 300 /results/log
tar -C /results -cf /dev/vdb .
sync
poweroff -f
"#;

/// The kernel that `scripts/setup.sh` fetched.
///
/// # Errors
/// When there is none.
pub fn kernel() -> Result<PathBuf> {
    let boot = cache().join("kernel/boot");
    let found = fs::read_dir(&boot).into_iter().flatten().flatten().map(|entry| entry.path());
    found
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .max()
        .context("no guest kernel in target/e2e-cache: run scripts/setup.sh test")
}

/// Whether this runs in such a guest.
#[must_use]
pub fn is_here() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| text == RELEASE)
}

/// What ran in a guest.
#[derive(Debug)]
pub struct Results {
    /// The folder that the script filled as `/results`.
    pub dir: PathBuf,
    /// The script's exit status.
    pub status: i32,
    /// What the script wrote.
    pub log: String,
    /// What the serial console showed.
    pub console: String,
}

/// Boots a guest with further programs (put into `/usr/bin`), runs the script and collects `/results`.
///
/// # Errors
/// When the guest does not come to its end within `limit`; the error carries the console.
pub fn run(programs: &[&Path], script: &str, limit: Duration) -> Result<Results> {
    boot(programs, script, limit, "")
}

/// As [`run`], with further parameters for the kernel.
///
/// # Errors
/// As [`run`].
pub fn boot(programs: &[&Path], script: &str, limit: Duration, parameters: &str) -> Result<Results> {
    let home = scratch::dir("guest")?;
    let root = home.join("root");
    stage(&root, programs, script)?;
    shell::run(
        "tar",
        ["-C".as_ref(), root.as_os_str(), "-cf".as_ref(), home.join("root.tar").as_os_str(), ".".as_ref()],
    )?;
    fs::remove_dir_all(&root)?;
    let kernel = kernel()?;
    initramfs(&home, &kernel)?;
    let results = home.join("results.tar");
    fs::File::create(&results)?.set_len(256 << 20)?;
    let disk = home.join("scratch.img");
    fs::File::create(&disk)?.set_len(1 << 30)?;
    shell::run("mkfs.ext4", ["-q".as_ref(), "-F".as_ref(), disk.as_os_str()])?;

    let console = home.join("console");
    let mut qemu = Command::new("qemu-system-x86_64");
    // Never KVM: what the same test shows must not depend on the machine having it.
    qemu.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2048", "-smp", "2"])
        .args(["-display", "none", "-no-reboot", "-nodefaults"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(&kernel)
        .arg("-initrd")
        .arg(home.join("initrd.cpio"))
        .arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 apparmor=0 random.trust_cpu=on {parameters}"));
    for (number, file) in [home.join("root.tar"), results.clone(), disk].iter().enumerate() {
        qemu.arg("-drive")
            .arg(format!("if=none,id=d{number},format=raw,cache=unsafe,file={}", file.display()))
            .args(["-device", &format!("virtio-blk-pci,drive=d{number}")]);
    }
    let log = fs::File::create(home.join("qemu.log"))?;
    let mut child = qemu.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("qemu")?;
    let _note = Entry::Process(child.id()).note()?;
    let seen = || {
        let text = fs::read(&console).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
            + &fs::read_to_string(home.join("qemu.log")).unwrap_or_default()
    };
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("the guest did not end within {limit:?}\n{}", seen());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let dir = home.join("results");
    fs::create_dir(&dir)?;
    shell::run("tar", ["-C".as_ref(), dir.as_os_str(), "-xf".as_ref(), results.as_os_str()])
        .with_context(seen)?;
    fs::remove_file(&results)?;
    let status =
        fs::read_to_string(dir.join("status")).with_context(seen)?.trim().parse().with_context(seen)?;
    let log = fs::read_to_string(dir.join("log"))?;
    Ok(Results { dir, status, log, console: seen() })
}

/// Fills the root: programs, the libraries that they load, and the few files that they want to see.
fn stage(root: &Path, programs: &[&Path], script: &str) -> Result<()> {
    for dir in [
        "bin",
        "dev",
        "etc",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/sbin",
        "var/lib/lxc",
        "var/lib/machines",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    install(root, Path::new("/bin/busybox"), Path::new("/bin/busybox"))?;
    let mut installed = Vec::new();
    for program in PROGRAMS {
        let from = find(program).with_context(|| format!("{program} is not installed"))?;
        // All in one place: the machine may have /usr merged or not, the guest has no such links.
        installed.push((from, Path::new("/usr/bin").join(program)));
    }
    for program in programs {
        let name = program.file_name().context("a program without a name")?;
        installed.push((program.to_path_buf(), Path::new("/usr/bin").join(name)));
    }
    let mut libraries = BTreeSet::new();
    for (from, to) in &installed {
        install(root, from, to)?;
        libraries.extend(ldd(from));
    }
    // LXC keeps an empty folder and its hooks there, nspawn loads libraries of systemd by a fixed path that ldd shows.
    let lxc = Path::new("/usr/lib/x86_64-linux-gnu/lxc");
    if lxc.is_dir() {
        fs::create_dir_all(root.join("usr/lib/x86_64-linux-gnu"))?;
        shell::run(
            "cp",
            ["-a".as_ref(), lxc.as_os_str(), root.join("usr/lib/x86_64-linux-gnu").as_os_str()],
        )?;
        fs::create_dir_all(root.join("usr/lib/x86_64-linux-gnu/lxc/rootfs"))?;
    }
    for library in libraries {
        install(root, &library, &library)?;
    }
    if Path::new("/usr/lib/ssl/openssl.cnf").exists() {
        install(root, Path::new("/usr/lib/ssl/openssl.cnf"), Path::new("/usr/lib/ssl/openssl.cnf"))?;
    }
    symlink("../proc/self/mounts", root.join("etc/mtab"))?;
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/os-release"), RELEASE)?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost guest\n")?;
    fs::write(root.join("script"), script)?;
    initramfs::executable(&root.join("init"), SETUP)
}

/// The initramfs: busybox, the modules in the order of their needs, and the first init.
fn initramfs(home: &Path, kernel: &Path) -> Result<()> {
    let dir = home.join("initramfs");
    for sub in ["bin", "dev", "proc"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox"))?;
    initramfs::modules(kernel, &MODULES, &dir.join("modules"))?;
    initramfs::pack(&dir, INIT, &home.join("initrd.cpio"))
}

/// Copies a file to a path of a root.
pub(crate) fn install(root: &Path, from: &Path, to: &Path) -> Result<()> {
    let to = root.join(to.strip_prefix("/").unwrap_or(to));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Where a program of this machine is.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|path| path.is_file())
}

/// The libraries of a program, the loader among them.
pub(crate) fn ldd(program: &Path) -> Vec<PathBuf> {
    let text = shell::run("ldd", [program]).unwrap_or_default();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

//! The Debian packages, and a clean Debian to install them on: a folder to enter, or a machine whose init is a real systemd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::miharud::program;
use crate::need::cache;
use crate::scratch::{self, Entry};
use crate::{guest, initramfs, shell};

/// Kernel modules of the machine, beside what they depend on.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_blk", "autofs4", "veth", "loop", "overlay"];

/// The first process of the machine: it puts the test into Debian's root and hands over to systemd there.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for m in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$m || echo "insmod $m failed"; done
/bin/busybox mkdir /new
/bin/busybox mount -t ext4 /dev/vda /new || echo "no root"
/bin/busybox mkdir -p /new/test/results /new/etc/systemd/system/default.target.wants
/bin/busybox tar -xf /dev/vdb -C /new/test || echo "cannot unpack the test"
/bin/busybox cp /unit /new/etc/systemd/system/test.service
/bin/busybox ln -sf ../test.service /new/etc/systemd/system/default.target.wants/test.service
echo guest >/new/etc/hostname
echo 0123456789abcdef0123456789abcdef >/new/etc/machine-id
/bin/busybox umount /proc
exec /bin/busybox switch_root /new /lib/systemd/systemd
"#;

/// What runs the test's script when everything else has started.
const UNIT: &str = r#"[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash -c 'bash /test/script >/test/results/log 2>&1; echo $? >/test/results/status; tar -C /test/results -cf /dev/vdc .; sync; systemctl poweroff -ff'
"#;

/// Services of Debian that a machine without a network and without a person has no use for.
const MASKED: &str = "systemd.mask=serial-getty@ttyS0.service systemd.mask=lxc-net.service systemd.mask=lxc.service \
                      systemd.mask=systemd-networkd.service systemd.mask=man-db.timer";

/// A clean Debian with what the tests want, as `scripts/setup.sh` packed it.
///
/// # Errors
/// When it is not there.
pub fn root() -> Result<PathBuf> {
    let root = cache().join("debian-root.tar");
    ensure!(root.exists(), "no clean Debian in target/e2e-cache: run scripts/setup.sh test");
    Ok(root)
}

/// The static agent that `make agent` built.
///
/// # Errors
/// When it did not.
pub fn agent() -> Result<PathBuf> {
    if let Some(agent) = std::env::var_os("MIHARU_STATIC_AGENT") {
        return Ok(PathBuf::from(agent));
    }
    let me = std::env::current_exe()?;
    let built = |dir: &Path| dir.join("x86_64-unknown-linux-gnu/release/miharu-agent");
    let found = me.ancestors().map(built).find(|path| path.is_file());
    found.context("the static agent is not built: run `make agent`")
}

/// Builds the packages from the programs under test, into `out`. `version` in the place of the tree's own.
///
/// # Errors
/// When the script fails.
pub fn packages(out: &Path, version: Option<&str>) -> Result<Vec<PathBuf>> {
    let bins = program("miharud")?;
    let bins = bins.parent().context("a program without a folder")?;
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/packages.sh"));
    command.arg("--bins").arg(bins).arg("--agent").arg(agent()?).arg("--out").arg(out);
    if let Some(version) = version {
        command.args(["--version", version]);
    }
    Ok(shell::output(&mut command)?
        .lines()
        .filter(|line| line.ends_with(".deb"))
        .map(PathBuf::from)
        .collect())
}

/// Runs a script as root of a clean Debian in which no init runs, with these files in its `/test`. It gives what the script wrote.
///
/// # Errors
/// When the script fails; the error carries what it wrote.
pub fn enter(files: &[PathBuf], script: &str) -> Result<String> {
    let home = scratch::dir("debian")?;
    unpack(&home)?;
    let test = home.join("test");
    fs::create_dir(&test)?;
    for file in files {
        fs::copy(file, test.join(file.file_name().context("a file without a name")?))?;
    }
    fs::write(test.join("script"), script)?;
    // What is mounted and started in there ends with it.
    let inside = "mount -t proc proc proc && mount -t tmpfs dev dev && mkdir dev/shm && for d in null zero full random urandom tty; do \
                  cp -a /dev/$d dev/; done; exec chroot . bash /test/script 2>&1";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", inside]);
    command
        .current_dir(&home)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8");
    let output = shell::output(&mut command);
    fs::remove_dir_all(&home)?;
    output
}

fn unpack(to: &Path) -> Result<()> {
    shell::run("tar", ["-C".as_ref(), to.as_os_str(), "-xf".as_ref(), root()?.as_os_str()]).map(drop)
}

/// Boots a clean Debian with systemd as its init and cgroup v2, runs the script with these files in `/test`, and tells its exit
/// status and what it wrote.
///
/// # Errors
/// When the machine does not come to its end within `limit`; the error carries the console.
pub fn boot(files: &[PathBuf], script: &str, limit: Duration) -> Result<(i32, String)> {
    let home = scratch::dir("systemd")?;
    let disk = disk(&home)?;
    let test = home.join("test");
    fs::create_dir(&test)?;
    for file in files {
        fs::copy(file, test.join(file.file_name().context("a file without a name")?))?;
    }
    fs::write(test.join("script"), script)?;
    let tar = home.join("test.tar");
    shell::run("tar", ["-C".as_ref(), test.as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()])?;
    let results = home.join("results.tar");
    fs::File::create(&results)?.set_len(64 << 20)?;
    let kernel = guest::kernel()?;
    let initrd = initrd(&home, &kernel)?;
    let console = home.join("console");
    run(&[disk, tar, results.clone()], &kernel, &initrd, &console, limit)?;

    let seen = || String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
    let dir = home.join("results");
    fs::create_dir(&dir)?;
    shell::run("tar", ["-C".as_ref(), dir.as_os_str(), "-xf".as_ref(), results.as_os_str()])
        .with_context(seen)?;
    let status = fs::read_to_string(dir.join("status")).with_context(seen)?.trim().parse()?;
    let log = String::from_utf8_lossy(&fs::read(dir.join("log"))?).into_owned();
    fs::remove_dir_all(&home)?;
    Ok((status, log))
}

/// Debian's root as an ext4 file system.
fn disk(home: &Path) -> Result<PathBuf> {
    let root = home.join("root");
    fs::create_dir(&root)?;
    unpack(&root)?;
    let disk = home.join("root.ext4");
    fs::File::create(&disk)?.set_len(1 << 30)?;
    let args = ["-q".as_ref(), "-F".as_ref(), "-d".as_ref(), root.as_os_str(), disk.as_os_str()];
    shell::run("mkfs.ext4", args)?;
    fs::remove_dir_all(&root)?;
    Ok(disk)
}

fn initrd(home: &Path, kernel: &Path) -> Result<PathBuf> {
    let dir = home.join("initramfs");
    for sub in ["bin", "dev", "proc"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox"))?;
    fs::write(dir.join("unit"), UNIT)?;
    initramfs::modules(kernel, &MODULES, &dir.join("modules"))?;
    let initrd = home.join("initrd.cpio");
    initramfs::pack(&dir, INIT, &initrd)?;
    Ok(initrd)
}

fn run(disks: &[PathBuf], kernel: &Path, initrd: &Path, console: &Path, limit: Duration) -> Result<()> {
    let mut qemu = Command::new("qemu-system-x86_64");
    // Never KVM: what the test shows must not depend on the machine having it.
    qemu.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1536", "-smp", "2"])
        .args(["-display", "none", "-no-reboot", "-nodefaults"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 apparmor=0 random.trust_cpu=on {MASKED}"));
    for (number, file) in disks.iter().enumerate() {
        qemu.arg("-drive")
            .arg(format!("if=none,id=d{number},format=raw,cache=unsafe,file={}", file.display()))
            .args(["-device", &format!("virtio-blk-pci,drive=d{number}")]);
    }
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(console.with_extension("err"))?)
        .spawn()
        .context("qemu")?;
    let _note = Entry::Process(child.id()).note()?;
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            let seen = [console.to_path_buf(), console.with_extension("err")]
                .map(|path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned());
            bail!("the machine did not end within {limit:?}\n{}", seen.concat());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

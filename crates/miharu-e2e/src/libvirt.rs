//! A real libvirtd run by hand. Its configuration and state are in folders of a test, by a mount namespace of its own; only
//! `/run/libvirt`, where miharud looks for domains, is the host's, so that a machine with a libvirtd of its own is no place for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::scratch::{self, Entry, Note};
use crate::vm::{self, Console};
use crate::{guest, measure, rootfs, shell};

/// libvirtd's run state.
const RUN: &str = "/run/libvirt";

/// The process beside each container of its LXC driver.
const LIBVIRT_LXC: &str = "/usr/lib/libvirt/libvirt_lxc";

/// A running libvirtd; its domains are destroyed and it is killed on drop.
#[derive(Debug)]
pub struct Libvirt {
    home: PathBuf,
    child: Child,
    domains: Vec<(String, Note)>,
    containers: Vec<(String, Note)>,
    _note: Note,
}

/// A domain's guest.
#[derive(Debug)]
pub struct Domain {
    /// The domain's name.
    pub name: String,
    console: Console,
}

impl Libvirt {
    /// Why none can run here, where that is so.
    #[must_use]
    pub fn lacking() -> Option<String> {
        let is_there = Path::new("/run/libvirt/libvirt-sock").exists() && !is_stale();
        is_there.then(|| "a libvirtd runs here already".to_owned())
    }

    /// Why its LXC driver cannot be had, where that is so.
    #[must_use]
    pub fn lacking_lxc() -> Option<String> {
        (!Path::new(LIBVIRT_LXC).exists()).then(|| "libvirt's LXC driver is not installed".to_owned())
    }

    /// Starts one.
    ///
    /// # Errors
    /// When it does not come up; the error carries its log.
    pub fn start() -> Result<Self> {
        let home = scratch::dir("libvirt")?;
        let mut line = String::from("set -e; ");
        for (place, name) in
            [("/etc/libvirt", "etc"), ("/var/lib/libvirt", "lib"), ("/var/cache/libvirt", "cache")]
        {
            fs::create_dir_all(home.join(name).join("qemu"))?;
            fs::create_dir_all(home.join(name).join("lxc"))?;
            // The mount points are the package's own folders, which some of its packages lack.
            fs::create_dir_all(place)?;
            line += &format!("mount --bind {} {place}; ", home.join(name).display());
        }
        // Its LXC driver cannot set up a container where the unified hierarchy lies beside those of version 1.
        line += "! mountpoint -q /sys/fs/cgroup/unified || umount -l /sys/fs/cgroup/unified; ";
        line += &format!(
            "exec libvirtd --config {0}/libvirtd.conf --pid-file {0}/pid --timeout 900",
            home.display()
        );
        fs::write(
            home.join("etc/qemu.conf"),
            "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nsecurity_driver = \"none\"\nremember_owner = 0\n\
             namespaces = []\nstdio_handler = \"file\"\n",
        )?;
        fs::write(
            home.join("libvirtd.conf"),
            format!(
                "unix_sock_rw_perms = \"0700\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n\
                 log_outputs = \"2:file:{}/libvirtd.log\"\n",
                home.display()
            ),
        )?;
        let log = fs::File::create(home.join("log"))?;
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "/bin/sh", "-c", &line])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("libvirtd")?;
        let note = Entry::Process(child.id()).note()?;
        let libvirt = Self { home, child, domains: Vec::new(), containers: Vec::new(), _note: note };
        shell::wait_for("libvirtd", Duration::from_secs(60), || libvirt.virsh(&["list"]).ok().map(|_| ()))
            .with_context(|| libvirt.log())?;
        Ok(libvirt)
    }

    /// Runs `virsh`.
    ///
    /// # Errors
    /// When it fails.
    pub fn virsh(&self, args: &[&str]) -> Result<String> {
        shell::output(Command::new("virsh").args(["-q", "-c", "qemu:///system"]).args(args))
    }

    /// Starts a domain with two processors, a disk, a balloon and a unix socket for each of the virtio-serial ports.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot(&mut self, name: &str, ports: &[&str]) -> Result<Domain> {
        let dir = scratch::dir("dom")?;
        let disk = dir.join("disk.img");
        fs::File::create(&disk)?.set_len(16 << 20)?;
        let kernel = guest::kernel()?;
        let serial = dir.join("serial.sock");
        let channels: String = ports
            .iter()
            .map(|port| {
                let socket = dir.join(format!("{port}.sock"));
                format!(
                    "<channel type='unix'><source mode='bind' path='{}'/><target type='virtio' name='{port}'/></channel>",
                    socket.display()
                )
            })
            .collect();
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>192</memory><vcpu>2</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{}</kernel><initrd>{}</initrd>\
             <cmdline>console=ttyS0 quiet panic=-1 random.trust_cpu=on</cmdline></os><features><acpi/></features>\
             <on_reboot>destroy</on_reboot><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
             <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vda' bus='virtio'/></disk>\
             <serial type='unix'><source mode='bind' path='{}'/><target port='0'/></serial>{channels}\
             <memballoon model='virtio'><stats period='1'/></memballoon></devices></domain>",
            kernel.display(),
            vm::root(&kernel)?.display(),
            disk.display(),
            serial.display(),
        );
        let file = dir.join("domain.xml");
        fs::write(&file, xml)?;
        let file = file.to_str().context("a path that is no UTF-8")?;
        self.virsh(&["create", file]).with_context(|| self.log())?;
        let pid = fs::read_to_string(format!("{RUN}/qemu/{name}.pid"))?.trim().parse()?;
        self.domains.push((name.to_owned(), Entry::Process(pid).note()?));
        let mut console = Console::new(serial);
        console.open().with_context(|| self.log())?;
        Ok(Domain { name: name.to_owned(), console })
    }

    /// Starts a container of libvirt's own LXC driver with a busybox root and a network namespace of its own, and gives its
    /// init, as the host numbers it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn lxc(&mut self, name: &str) -> Result<u32> {
        let dir = scratch::dir("dom")?;
        rootfs::make(&dir.join("rootfs"))?;
        let xml = format!(
            "<domain type='lxc'><name>{name}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>\
             <os><type>exe</type><init>/sbin/init</init></os><features><privnet/></features>\
             <devices><emulator>{LIBVIRT_LXC}</emulator>\
             <filesystem type='mount'><source dir='{}'/><target dir='/'/></filesystem><console type='pty'/></devices></domain>",
            dir.join("rootfs").display()
        );
        let file = dir.join("domain.xml");
        fs::write(&file, xml)?;
        let file = file.to_str().context("a path that is no UTF-8")?;
        self.virsh_lxc(&["create", file]).with_context(|| self.log())?;
        let controller: u32 = fs::read_to_string(format!("{RUN}/lxc/{name}.pid"))?.trim().parse()?;
        let note = Entry::Process(controller).note()?;
        self.containers.push((name.to_owned(), note));
        shell::wait_for("the container's init", Duration::from_secs(10), || {
            // It goes by its parent's name until it has become what it was told to be.
            let init = *measure::tree(controller).get(1)?;
            fs::read_to_string(format!("/proc/{init}/comm"))
                .is_ok_and(|comm| comm.trim() == "init")
                .then_some(init)
        })
    }

    /// Runs `virsh` for libvirt's LXC driver.
    ///
    /// # Errors
    /// When it fails.
    pub fn virsh_lxc(&self, args: &[&str]) -> Result<String> {
        shell::output(Command::new("virsh").args(["-q", "-c", "lxc:///system"]).args(args))
    }

    /// The daemon's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn log(&self) -> String {
        ["log", "libvirtd.log"]
            .map(|name| fs::read_to_string(self.home.join(name)).unwrap_or_default())
            .join("")
    }
}

impl Domain {
    /// Runs a shell line in the guest and gives what it wrote.
    ///
    /// # Errors
    /// When it ends with another status than 0, or not within a minute.
    pub fn run(&mut self, line: &str) -> Result<String> {
        self.console.exec(line, Duration::from_secs(60)).with_context(|| format!("in the guest: {line}"))
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ = shell::run("kill", ["-CONT", &self.child.id().to_string()]);
        for (name, _) in &self.containers {
            let _ = self.virsh_lxc(&["destroy", name]);
        }
        self.containers.clear();
        for (name, _) in &self.domains {
            let _ = self.virsh(&["destroy", name]);
        }
        self.domains.clear();
        let _ = shell::run("kill", ["-TERM", &self.child.id().to_string()]);
        let child = &mut self.child;
        let _ = shell::wait_for("libvirtd's end", Duration::from_secs(10), || child.try_wait().ok()?);
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Only what is this one's: there was no other when it started.
        let _ = fs::remove_dir_all(RUN);
        crate::cgroup::remove("/machine");
    }
}

/// Whether nobody answers on the socket.
fn is_stale() -> bool {
    std::os::unix::net::UnixStream::connect("/run/libvirt/libvirt-sock").is_err()
}

//! What a live test needs of the machine. Where it is not there the test is skipped with the reason, and the reason is kept
//! for the last line of `make test`; with `MIHARU_E2E=require`, as in CI, a skip is a failure.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{debian, guest, lxd, podman, shell, vm, vsock};

/// Something that a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Containers: root, writable cgroups, namespaces.
    Containers,
    /// LXC's programs.
    Lxc,
    /// `systemd-nspawn`.
    Nspawn,
    /// systemd-machined, a bus for it, and none that runs already.
    Machined,
    /// podman with its monitor and a low-level runtime.
    Podman,
    /// Docker's daemon and client, and its containerd.
    Docker,
    /// containerd and its client.
    Containerd,
    /// LXD and its client.
    Lxd,
    /// Incus and its client, unpacked.
    Incus,
    /// The Python library `pylxd`.
    Pylxd,
    /// Prometheus and promtool.
    Prometheus,
    /// The strict OpenMetrics parser of `prometheus_client`.
    Parser,
    /// QEMU, the guest's kernel, and what packs its root.
    Qemu,
    /// qemu-guest-agent, unpacked.
    GuestAgent,
    /// The agents of LXD and Incus, unpacked.
    ManagedAgents,
    /// vhost-device-vsock.
    Vsock,
    /// libvirt's daemon and client, and no libvirtd that runs already.
    Libvirt,
    /// The same with its LXC driver.
    LibvirtLxc,
    /// openssl and curl.
    Tls,
    /// etcd and etcdctl.
    Etcd,
    /// strace, allowed to trace, and SQLite's own program.
    Strace,
    /// libfaketime.
    Faketime,
    /// A C compiler.
    Compiler,
    /// What makes and checks packages, a clean Debian to install them on, and the agent as it is packed.
    Packages,
    /// Chromium, and curl to find its page.
    Browser,
    /// Chromium's certificate database: `certutil` and `pk12util`.
    BrowserCertificates,
    /// axe-core, which looks for what shuts people out of a page.
    Axe,
}

impl Need {
    /// Why it is not there, or nothing when it is.
    #[must_use]
    pub fn lacking(self) -> Option<String> {
        match self {
            Self::Containers => containers().clone(),
            Self::Lxc => program("lxc-start").or_else(|| program("busybox")).or_else(|| containers().clone()),
            Self::Nspawn => program("systemd-nspawn").or_else(|| containers().clone()),
            Self::Machined => program("dbus-daemon")
                .or_else(|| program("busctl"))
                .or_else(|| containers().clone())
                .or_else(crate::machined::Machined::lacking),
            Self::Podman => ["podman", "conmon", podman::runtime()]
                .into_iter()
                .find_map(program)
                .or_else(|| containers().clone()),
            Self::Docker => ["dockerd", "docker", "containerd", "runc"]
                .into_iter()
                .find_map(program)
                .or_else(|| containers().clone()),
            Self::Containerd => {
                ["containerd", "ctr", "runc"].into_iter().find_map(program).or_else(|| containers().clone())
            }
            Self::Lxd => program("lxd").or_else(|| program("lxc")).or_else(|| containers().clone()),
            Self::Incus if !lxd::has_incus() => Some("no Incus in target/e2e-cache".to_owned()),
            Self::Incus => containers().clone(),
            Self::Pylxd => {
                let python = cache().join("pylxd/bin/python");
                (!python.exists()).then(|| "no pylxd in target/e2e-cache".to_owned())
            }
            Self::Prometheus => program("prometheus").or_else(|| program("promtool")),
            Self::Parser => {
                let python = cache().join("venv/bin/python");
                (!python.exists()).then(|| "no prometheus_client in target/e2e-cache".to_owned())
            }
            Self::Qemu => program("qemu-system-x86_64")
                .or_else(|| program("cpio"))
                .or_else(|| program("modprobe"))
                .or_else(|| guest::kernel().err().map(|error| error.to_string())),
            Self::GuestAgent => vm::guest_agent().err().map(|error| error.to_string()),
            Self::ManagedAgents => ["lxd", "incus"]
                .iter()
                .find_map(|whose| vm::managed_agent(whose).err())
                .map(|error| error.to_string()),
            Self::Vsock => vsock::program().err().map(|error| error.to_string()),
            Self::Libvirt => program("libvirtd")
                .or_else(|| program("virsh"))
                .or_else(|| containers().clone())
                .or_else(crate::libvirt::Libvirt::lacking),
            Self::LibvirtLxc => Self::Libvirt.lacking().or_else(crate::libvirt::Libvirt::lacking_lxc),
            Self::Tls => program("openssl").or_else(|| program("curl")),
            Self::Etcd => program("etcd").or_else(|| program("etcdctl")),
            Self::Strace => program("strace").or_else(|| program("sqlite3")).or_else(|| {
                let traced = shell::run("strace", ["-o", "/dev/null", "true"]);
                traced.err().map(|_| "nothing may be traced here".to_owned())
            }),
            Self::Faketime => {
                crate::cluster::faketime().is_none().then(|| "libfaketime is not installed".to_owned())
            }
            Self::Compiler => program("cc"),
            Self::Packages => ["dh", "dpkg-shlibdeps", "lintian"]
                .into_iter()
                .find_map(program)
                .or_else(|| debian::root().err().map(|error| error.to_string()))
                .or_else(|| debian::agent().err().map(|error| error.to_string())),
            Self::Browser => program("chromium").or_else(|| program("curl")),
            Self::BrowserCertificates => program("certutil").or_else(|| program("pk12util")).or_else(|| {
                // A policy is put over it, which only the browser under test sees.
                (!Path::new("/etc/chromium").is_dir()).then(|| "no /etc/chromium".to_owned())
            }),
            Self::Axe => (!axe().exists()).then(|| "no axe-core in target/e2e-cache".to_owned()),
        }
    }
}

/// Where `scripts/setup.sh` keeps what is not installed: the guest's kernel, Incus, Python libraries.
#[must_use]
pub fn cache() -> PathBuf {
    std::env::var_os("MIHARU_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/e2e-cache"), PathBuf::from)
}

/// The program of axe-core, from its package in the registry of npm.
#[must_use]
pub fn axe() -> PathBuf {
    cache().join("axe-core/axe.min.js")
}

/// Whether this test has to be skipped, having said so.
///
/// # Panics
/// When something lacks and `MIHARU_E2E=require` forbids to skip.
#[must_use]
#[allow(clippy::panic, clippy::print_stderr, reason = "it speaks and fails on behalf of a test")]
pub fn skip(needs: &[Need]) -> bool {
    let Some(reason) = needs.iter().find_map(|need| need.lacking()) else { return false };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    if std::env::var("MIHARU_E2E").is_ok_and(|value| value == "require") {
        panic!("{test} may not be skipped (MIHARU_E2E=require): {reason}");
    }
    eprintln!("skipped {test}: {reason}");
    if let Some(path) = std::env::var_os("MIHARU_E2E_SKIPS")
        && let Ok(mut file) = fs::File::options().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{test}: {reason}");
    }
    true
}

/// Leaves the test, counted as skipped, where the machine lacks one of the needs.
#[macro_export]
macro_rules! need {
    ($($need:ident),+ $(,)?) => {
        if $crate::need::skip(&[$($crate::need::Need::$need),+]) {
            return Ok(());
        }
    };
}

fn program(name: &str) -> Option<String> {
    (!shell::exists(name)).then(|| format!("{name} is not installed"))
}

/// Tries the two things that a locked-down container forbids: making a cgroup and making namespaces.
fn containers() -> &'static Option<String> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    REASON.get_or_init(|| {
        if !matches!(shell::run("id", ["-u"]).as_deref().map(str::trim), Ok("0")) {
            return Some("containers need root".to_owned());
        }
        let memory = Path::new("/sys/fs/cgroup/memory");
        let base = if memory.is_dir() { memory } else { Path::new("/sys/fs/cgroup") };
        let probe = base.join(format!("miharu-probe-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&probe) {
            return Some(format!("no cgroup can be made here ({error})"));
        }
        let _ = fs::remove_dir(&probe);
        let made = shell::run("unshare", ["--mount", "--net", "--pid", "--fork", "true"]);
        made.err().map(|_| "no namespaces can be made here".to_owned())
    })
}

//! `make demo`: two real LXC containers and, where QEMU is there, a virtual machine, miharud on loopback, and the figures of the
//! busy ones printed twice, read over mutual TLS as Prometheus reads them. usage: `demo start|stop`. Where no container can be
//! started it serves a recorded host instead and says so. State that a person may want to look at is in `.demo/`; the rest is in
//! a scratch folder.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person at a terminal")]

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use miharu_e2e::lxc::{self, Config};
use miharu_e2e::tls::{self, Certificate};
use miharu_e2e::{Exposition, Lxc, Miharud, Need, Vm, scratch, shell, vm};
use signal_hook::consts::{SIGINT, SIGTERM};

/// What `u1` does: it counts, writes and reads its disk, and talks to itself over its own loopback interface.
const BUSY: &str = "while :; do \
    dd if=/dev/zero of=/var/data bs=64k count=32 conv=fsync 2>/dev/null; \
    ping -q -c 5 -i 0.05 -s 1400 127.0.0.1 >/dev/null; \
    i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; \
    done";

/// The figures that are printed: family, what to call it, how to divide it, unit.
const FIGURES: [(&str, &str, f64, &str); 6] = [
    ("incus_cpu_seconds_total", "CPU time used", 1.0, "s"),
    ("incus_disk_written_bytes_total", "written to disk", 1e6, "MB"),
    ("incus_network_transmit_bytes_total", "sent over the network", 1e3, "kB"),
    ("incus_network_transmit_packets_total", "packets sent", 1.0, ""),
    ("incus_memory_usage_bytes", "memory in use", 1e6, "MB"),
    ("incus_procs_total", "tasks", 1.0, ""),
];

/// What `vm` does.
const BUSY_GUEST: &str = "(while :; do dd if=/dev/zero of=/tmp/x bs=64k count=16 2>/dev/null; i=0; \
    while [ $i -lt 3000 ]; do i=$((i+1)); done; sleep 0.2; done) </dev/null >/dev/null 2>&1 &";

/// What only the guest of `vm` can tell.
const IDLE: [(&str, &str); 3] = [("name", "vm"), ("project", "qemu"), ("mode", "idle")];

/// The modes of a guest's CPU time.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("start") => start(),
        Some("stop") => stop(),
        _ => Err(anyhow::anyhow!("usage: demo start|stop")),
    };
    if let Err(error) = done {
        eprintln!("demo: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn state_dir() -> PathBuf {
    std::env::var_os("MIHARU_DEMO_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.demo"), PathBuf::from)
}

fn start() -> Result<()> {
    let dir = state_dir();
    if let Some(pid) = running(&dir) {
        bail!("a demo runs already (process {pid}); `make demo-stop` ends it");
    }
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let dir = dir.canonicalize()?;
    fs::write(dir.join("pid"), std::process::id().to_string())?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let shown = show(&dir, &interrupted);
    // Containers and miharud ended with the function above; what is left are files.
    scratch::finish();
    let _ = fs::remove_dir_all(&dir);
    println!("\nCleaned up.");
    // Ctrl-C reaches the programs that the demo starts as well: that one of them then failed is no news.
    if interrupted.load(Ordering::Relaxed) { Ok(()) } else { shown }
}

/// Ends a demo that runs, or clears away what a killed one left.
fn stop() -> Result<()> {
    let dir = state_dir();
    if let Some(pid) = running(&dir) {
        shell::run("kill", ["-TERM", &pid.to_string()])?;
        shell::wait_for("the demo's end", Duration::from_secs(30), || running(&dir).is_none().then_some(()))?;
        println!("The demo has ended.");
        return Ok(());
    }
    scratch::sweep();
    let left = dir.exists();
    let _ = fs::remove_dir_all(&dir);
    println!("{}", if left { "What a killed demo left is cleared away." } else { "No demo runs." });
    Ok(())
}

/// The process of the demo, when it is still one.
fn running(dir: &Path) -> Option<u32> {
    let pid = fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()?;
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (comm.trim() == "demo").then_some(pid)
}

fn show(dir: &Path, interrupted: &AtomicBool) -> Result<()> {
    for need in [Need::Tls] {
        if let Some(reason) = need.lacking() {
            bail!("{reason}");
        }
    }
    let host = Host::start(interrupted)?;
    if interrupted.load(Ordering::Relaxed) {
        return Ok(());
    }
    let daemon = &host.daemon;
    let address = listen(daemon)?;
    let client = trust(daemon, dir)?;
    let server = dir.join("tls/server.crt");
    let labels = [("name", "u1"), ("project", host.project.as_str())];
    let scrape = || -> Result<Exposition> {
        let reply = tls::ask(&address, "/1.0/metrics", &server, Some(&client), &[])?;
        ensure!(reply.status == 200, "{}: {}", reply.status, reply.text());
        Exposition::parse(&reply.text())
    };
    // A cached answer would show the same figures twice.
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "1"])?;

    println!("\nWhat runs here, as `miharu list` shows it:\n\n{}", daemon.miharu(&["list"])?.trim_end());
    // So that u1 has something to show.
    pause(Duration::from_secs(1), interrupted);
    let first = scrape()?;
    println!("\nu1 now{}:\n", host.mark());
    print(&labels, &first, None);
    pause(Duration::from_secs(4), interrupted);
    if interrupted.load(Ordering::Relaxed) {
        return Ok(());
    }
    let second = scrape()?;
    println!("\nu1 four seconds later{}:\n", host.mark());
    print(&labels, &second, Some(&first));
    // CPU time is the one figure that always moves.
    let used = |exposition: &Exposition| exposition.sum("incus_cpu_seconds_total", &labels);
    let (before, after) = (used(&first)?, used(&second)?);
    ensure!(host.recorded || after > before, "the figures did not move: {before} and {after}");
    if host.machine.is_some() {
        // An emulated guest on a busy host takes a while until its agent answers.
        let told = |scrape: &Exposition| {
            interrupted.load(Ordering::Relaxed)
                || scrape.sum("incus_cpu_seconds_total", &IDLE).is_ok_and(|idle| idle > 0.0)
        };
        let now = daemon.scrape_until("the agent in vm", Duration::from_secs(60), told);
        print_machine(now.as_ref().unwrap_or(&second), &first);
    }
    explain(&address, dir, daemon);
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        println!(
            "\nThere is no terminal to press Ctrl-C on, so the demo ends here, and what it started with it."
        );
        println!("On a terminal it goes on running, and the lines above can be tried.");
        return Ok(());
    }
    println!("\nIt runs until you press Ctrl-C here, or say `make demo-stop` elsewhere.");
    pause(Duration::MAX, interrupted);
    Ok(())
}

/// What is watched, and who watches. The daemon comes first, as fields are dropped in their order.
struct Host {
    daemon: Miharud,
    recorded: bool,
    /// The project of `u1`, as the host may have other containers of that name.
    project: String,
    machine: Option<Vm>,
    _containers: Vec<Lxc>,
}

impl Host {
    fn start(interrupted: &AtomicBool) -> Result<Self> {
        let reason = match Need::Lxc.lacking() {
            Some(reason) => reason,
            None => match Self::containers() {
                Ok(containers) => {
                    let project =
                        containers.first().map(|u1| format!("lxc:{}", u1.path.display())).unwrap_or_default();
                    return Ok(Self {
                        daemon: Miharud::with(&[])?,
                        recorded: false,
                        project,
                        machine: machine(),
                        _containers: containers,
                    });
                }
                Err(error) if interrupted.load(Ordering::Relaxed) => return Err(error),
                Err(error) => format!("{error:#}"),
            },
        };
        println!("No container can be started here: {reason}");
        println!("What follows is a RECORDED host: true figures of another machine, which do not move.");
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1");
        let tree = tree.to_str().context("a path that is no UTF-8")?.to_owned();
        let daemon = Miharud::with(&["--root", &tree])?;
        Ok(Self { daemon, recorded: true, project: "lxc".into(), machine: None, _containers: Vec::new() })
    }

    fn containers() -> Result<Vec<Lxc>> {
        println!("Starting two LXC containers, u1 (busy) and u2 (idle).");
        let accounting = lxc::disk_accounting(scratch::run_dir()?);
        let make = |name: &str| {
            Lxc::with(&Config {
                name: name.into(),
                lines: accounting.clone().into_iter().collect(),
                ..Config::default()
            })
        };
        let containers = vec![make("u1")?, make("u2")?];
        if let Some(u1) = containers.first() {
            u1.exec(&format!("ip link set lo up; ({BUSY}) </dev/null >/dev/null 2>&1 &"))?;
        }
        Ok(containers)
    }

    fn mark(&self) -> &'static str {
        if self.recorded { " (RECORDED)" } else { "" }
    }
}

/// The virtual machine `vm` with our agent in it. The demo goes on without one.
fn machine() -> Option<Vm> {
    if let Some(reason) = Need::Qemu.lacking() {
        println!("No virtual machine can be started here: {reason}");
        return None;
    }
    println!("Starting a virtual machine, vm, without KVM; it takes some seconds.");
    let ports = vec!["org.miharu.agent.0".into()];
    let started =
        Vm::start(&vm::Config { name: "vm".into(), ports, ..vm::Config::default() }).and_then(|vm| {
            vm.run(BUSY_GUEST)?;
            vm.start_agent()?;
            Ok(vm)
        });
    started.inspect_err(|error| println!("It did not start: {error:#}")).ok()
}

/// What the machine's guest tells through the agent in it.
fn print_machine(now: &Exposition, before: &Exposition) {
    println!("\nvm, a virtual machine, by the agent in its guest:\n");
    for mode in MODES {
        let labels = [("name", "vm"), ("project", "qemu"), ("mode", mode)];
        let of = |exposition: &Exposition| exposition.sum("incus_cpu_seconds_total", &labels).ok();
        let Some(value) = of(now) else { continue };
        let moved = of(before).map_or(String::new(), |before| format!("  {:+.2}", value - before));
        println!("  CPU {mode:<18} {value:>12.2} s  {moved}");
    }
    let labels = [("name", "vm"), ("project", "qemu")];
    if let Ok(total) = now.sum("incus_memory_MemTotal_bytes", &labels) {
        println!("  {:<22} {:>12.2} MB", "memory", total / 1e6);
    }
}

/// The default port where it is free; 9100 is node_exporter's too.
fn listen(daemon: &Miharud) -> Result<String> {
    let usual = "127.0.0.1:9100";
    if std::net::TcpListener::bind(usual).is_ok()
        && daemon.miharu(&["config", "set", "core.metrics_address", usual]).is_ok()
    {
        return Ok(usual.to_owned());
    }
    let address = daemon.listen("core.metrics_address")?;
    println!("Port 9100 is taken here, so miharud listens on {address}.");
    Ok(address)
}

/// Makes a certificate with the line of the Incus page and trusts it for metrics.
fn trust(daemon: &Miharud, dir: &Path) -> Result<Certificate> {
    let tls = dir.join("tls");
    fs::create_dir_all(&tls)?;
    fs::copy(daemon.dir.join("server.crt"), tls.join("server.crt")).context("server.crt")?;
    let client = Certificate::create_in(&tls, "metrics")?;
    let file = client.crt.to_str().context("a path that is no UTF-8")?;
    daemon.miharu(&["config", "trust", "add-certificate", file, "--type=metrics"])?;
    // Under sudo the person who asked for the demo is to read the key with the curl line below.
    if let (Ok(user), Ok(group)) = (std::env::var("SUDO_UID"), std::env::var("SUDO_GID")) {
        shell::run("chown", ["-R".as_ref(), format!("{user}:{group}").as_ref(), dir.as_os_str()])?;
    }
    Ok(client)
}

fn print(labels: &[(&str, &str)], now: &Exposition, before: Option<&Exposition>) {
    for (family, what, divisor, unit) in FIGURES {
        let of = |exposition: &Exposition| exposition.sum(family, labels).ok().map(|value| value / divisor);
        let Some(value) = of(now) else {
            println!("  {what:<22} {:>12}     (no figure on this host)", "-");
            continue;
        };
        let moved = before.and_then(of).map_or(String::new(), |before| format!("  {:+.2}", value - before));
        println!("  {what:<22} {value:>12.2} {unit:<3}{moved}");
    }
}

fn explain(address: &str, dir: &Path, daemon: &Miharud) {
    let tls = dir.join("tls");
    let tls = tls.display();
    println!(
        "\nThe same with curl:\n\n  curl --cacert {tls}/server.crt --cert {tls}/metrics.crt --key {tls}/metrics.key https://{address}/1.0/metrics\n\n\
         The job for Prometheus:\n\n  \
         scrape_configs:\n    - job_name: miharu\n      metrics_path: '/1.0/metrics'\n      scheme: 'https'\n      static_configs:\n        \
         - targets: ['{address}']\n      tls_config:\n        ca_file: '{tls}/server.crt'\n        cert_file: '{tls}/metrics.crt'\n        \
         key_file: '{tls}/metrics.key'\n\nThe command line, for instance:\n\n  MIHARU_DIR={} {} list",
        daemon.dir.display(),
        miharu_e2e::miharud::program("miharu")
            .map_or_else(|_| "miharu".into(), |path| path.display().to_string()),
    );
}

fn pause(length: Duration, interrupted: &AtomicBool) {
    let started = Instant::now();
    while started.elapsed() < length && !interrupted.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

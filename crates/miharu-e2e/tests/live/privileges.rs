//! What the daemon may do: what each capability is for, by taking it away, and what it takes from itself.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::miharud::program;
use miharu_e2e::vm::{Config, Vm};
use miharu_e2e::{Exposition, Lxc, Miharud, Podman, guest, need, scratch, shell};

/// A user who owns nothing.
const USER: u32 = 64_301;

/// A series without its value: its name and labels.
type Series = (String, Vec<(String, String)>);

/// Starts the daemon as [`USER`] with these capabilities and no other, as the unit does.
fn with_capabilities(held: &[&str]) -> Result<Miharud> {
    in_state(&own_state()?, held)
}

fn own_state() -> Result<PathBuf> {
    let state = scratch::dir("miharu")?.join("state");
    fs::create_dir(&state)?;
    chown(&state, Some(USER), Some(USER))?;
    Ok(state)
}

fn in_state(state: &Path, held: &[&str]) -> Result<Miharud> {
    launched_by(Command::new("setpriv"), state, held)
}

/// The same where processes of others are hidden from who may not trace them (`hidepid=2`): `/proc` mounted anew, for that daemon alone.
fn where_others_are_hidden(held: &[&str]) -> Result<Miharud> {
    let state = own_state()?;
    let mut command = Command::new("unshare");
    // The whole path, as busybox has a setpriv of its own.
    let setpriv = guest::find("setpriv").context("setpriv is not installed")?;
    let line = "mount -t proc -o hidepid=2 proc /proc && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", line, "sh"]).arg(setpriv);
    launched_by(command, &state, held)
}

/// Starts the daemon by a command that takes the arguments of setpriv(1).
fn launched_by(mut command: Command, state: &Path, held: &[&str]) -> Result<Miharud> {
    let dir = scratch::dir("miharu")?;
    // Where it was built may be closed to that user.
    let own = dir.join("miharud");
    let built = program("miharud")?;
    if fs::hard_link(&built, &own).is_err() {
        fs::copy(&built, &own)?;
    }
    let set = held.iter().fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
    command.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"]);
    command.args(["--bounding-set", &set, "--inh-caps", &set, "--ambient-caps", &set]).arg(own);
    let daemon = Miharud::launch(command, state, &[])?;
    daemon.miharu(&["config", "set", "metrics.cache_seconds", "0"])?;
    Ok(daemon)
}

/// The series of these instances, without those that say how the collection went.
fn series(scrape: &Exposition, names: &[&str]) -> BTreeSet<Series> {
    let of_them = scrape.samples().filter(|sample| names.contains(&sample.label("name")));
    let is_figure = |name: &str| !name.contains("_scrape_");
    of_them
        .filter(|sample| is_figure(&sample.name))
        .map(|sample| (sample.name.clone(), sample.labels.clone().into_iter().collect()))
        .collect()
}

/// The families of series, of one instance.
fn families(series: &BTreeSet<Series>, name: &str) -> BTreeSet<String> {
    let is_its = |(_, labels): &&Series| labels.iter().any(|(label, value)| label == "name" && value == name);
    series.iter().filter(is_its).map(|(family, _)| family.clone()).collect()
}

/// Without a capability what it is for is missing, nothing else is, and what is missing is told of.
#[test]
fn each_capability_is_worth_what_is_said_of_it() -> Result<()> {
    need!(Lxc, Podman, Qemu);
    let (lxc, podman) = (Lxc::start(&[])?, Podman::start()?);
    // As /var/lib/lxc and the runtimes' folders are on a host.
    fs::set_permissions(&lxc.path, Permissions::from_mode(0o700))?;
    fs::set_permissions(&podman.home, Permissions::from_mode(0o700))?;
    let pod = scratch::unique("pod");
    podman.pod(&pod)?;
    let (container, member) = (podman.any(&[])?, podman.any(&["--pod", &pod])?);
    let in_pod = format!("podman/{pod}");
    let disk = scratch::dir("disk")?.join("disk");
    fs::write(&disk, vec![0; 1 << 20])?;
    let drive = format!("file={},format=raw,if=virtio", disk.display());
    let vm = Vm::halted(&Config { arguments: vec!["-drive".to_owned(), drive], ..Config::default() })?;
    let names = [lxc.name.as_str(), container.name.as_str(), member.name.as_str(), vm.name.as_str()];
    let all = ["sys_ptrace", "dac_read_search", "dac_override"];

    // Root's figures are what there is.
    let rooted = Miharud::start()?;
    let disks = "incus_disk_read_bytes_total";
    let wanted = |scrape: &Exposition| {
        let asked = !scrape.select(disks, &[("name", &vm.name)]).is_empty();
        let is_in = scrape
            .samples()
            .any(|sample| sample.label("project") == in_pod && sample.label("name") == member.name);
        asked && is_in && names.iter().all(|name| scrape.instances().contains(*name))
    };
    let whole = series(&rooted.scrape_until("all figures", Duration::from_secs(60), wanted)?, &names);
    drop(rooted);
    let (sizes, of_lxc) = ("incus_filesystem_size_bytes".to_owned(), lxc.name.as_str());
    assert!(families(&whole, of_lxc).contains(&sizes), "{whole:#?}");

    let daemon = with_capabilities(&all)?;
    daemon.scrape_until("the same as root's", Duration::from_secs(60), |scrape| {
        series(scrape, &names).is_superset(&whole)
    })?;
    let doctor =
        daemon.miharu(&["admin", "doctor", "--format", "csv"]).unwrap_or_else(|error| format!("{error:#}"));
    assert!(!doctor.lines().any(|line| line.starts_with("MISSING,rights")), "{doctor}");
    drop(daemon);

    // What stays, what goes.
    let without = |missing: &str, gone: &dyn Fn(&Series) -> bool| -> Result<()> {
        let held: Vec<&str> = all.into_iter().filter(|name| !missing.contains(name)).collect();
        let daemon = with_capabilities(&held)?;
        let left: BTreeSet<Series> = whole.iter().filter(|series| !gone(series)).cloned().collect();
        let what = format!("all but what is lost without {missing}");
        let mut last = BTreeSet::new();
        let scrape = daemon.scrape_until(&what, Duration::from_secs(60), |scrape| {
            last = series(scrape, &names);
            last.is_superset(&left)
        });
        let missed: Vec<_> = left.difference(&last).collect();
        let scrape = scrape.with_context(|| format!("{what}: {missed:#?}"))?;
        let too_many: Vec<_> = series(&scrape, &names).into_iter().filter(|series| gone(series)).collect();
        assert!(too_many.is_empty(), "without {missing}: {too_many:#?}");
        for name in &names {
            let lost = families(&whole, name).difference(&families(&last, name)).count();
            println!(
                "without {missing}: {name} has {} of {} families",
                families(&last, name).len(),
                families(&last, name).len() + lost
            );
        }
        let failed =
            daemon.miharu(&["admin", "doctor"]).map_or_else(|error| format!("{error:#}"), |_| String::new());
        for short in missing.split(' ') {
            let name = format!("CAP_{}", short.to_uppercase());
            // The one includes what the other grants.
            if short == "dac_read_search" && held.contains(&"dac_override") {
                continue;
            }
            let cost = match short {
                "sys_ptrace" => "no sizes of instances' file systems",
                "dac_read_search" => "ids in place of names",
                _ => "no virtual machine, agent or runtime is asked",
            };
            assert!(failed.contains(&format!("MISSING: {name}\n  costs: {cost}")), "{name}: {failed}");
        }
        Ok(())
    };
    let is_of = |series: &Series, label: &str, value: &str| {
        series.1.iter().any(|(one, other)| one == label && other == value)
    };
    let is_size = |series: &Series| series.0.starts_with("incus_filesystem_");
    // What QEMU's monitor is asked for, and what root's files alone tell.
    let is_asked = |series: &Series| is_of(series, "name", &vm.name) && series.0.starts_with("incus_disk_");
    let is_pods = |series: &Series| is_of(series, "project", &in_pod);
    without("dac_override", &is_asked)?;
    without("dac_read_search", &|_| false)?;
    without("sys_ptrace", &is_size)?;
    without("dac_override dac_read_search", &|series| is_asked(series) || is_pods(series))?;
    without("sys_ptrace dac_override dac_read_search", &|series| {
        is_size(series) || is_asked(series) || is_pods(series)
    })
}

/// As `docs/how-to/renew.md` has it installed: root's, and for root alone.
#[test]
fn a_key_that_root_installed_is_read() -> Result<()> {
    need!(Containers);
    let all = ["sys_ptrace", "dac_read_search", "dac_override"];
    let (daemon, other) = (with_capabilities(&all)?, Miharud::start()?);
    let wanted = fs::read_to_string(other.dir.join("server.crt"))?;
    let shown = |daemon: &Miharud| -> Result<bool> {
        let shown = daemon.get("/1.0")?.json()?;
        Ok(shown["metadata"]["environment"]["certificate"] == wanted.as_str())
    };
    assert!(!shown(&daemon)?);
    for (name, mode) in [("server.key", "600"), ("server.crt", "600")] {
        let (from, to) = (other.dir.join(name), daemon.dir.join(name));
        shell::run("install", ["-m".as_ref(), mode.as_ref(), from.as_os_str(), to.as_os_str()])?;
        assert_eq!(fs::metadata(&to)?.uid(), 0, "{name}");
    }
    daemon.ask("POST", "/internal/reload", &[], "")?;
    assert!(shown(&daemon)?, "{}", daemon.log());
    let state = daemon.dir.clone();
    daemon.stop()?;
    let daemon = in_state(&state, &all)?;
    assert!(shown(&daemon)?, "{}", daemon.log());
    daemon.stop()
}

fn tasks(daemon: &Miharud) -> Result<Vec<String>> {
    let tasks = format!("/proc/{}/task", daemon.pid());
    let texts = fs::read_dir(tasks)?.map(|task| Ok(fs::read_to_string(task?.path().join("status"))?));
    texts.collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

/// A scrape that has the sizes of a container's file systems, which may come after its other figures.
fn with_sizes(daemon: &Miharud, lxc: &Lxc) -> Result<Exposition> {
    let name = [("name", lxc.name.as_str())];
    daemon.scrape_until("the sizes of its file systems", Duration::from_secs(20), |scrape| {
        !scrape.select("incus_filesystem_size_bytes", &name).is_empty()
    })
}

/// Every thread is confined, by the one or the other means, and what it does for a living goes on.
#[test]
fn the_daemon_confines_itself() -> Result<()> {
    need!(Lxc);
    let lxc = Lxc::start(&[])?;
    let daemon = Miharud::start()?;
    with_sizes(&daemon, &lxc)?;
    assert!(!daemon.log().contains("is not in force"), "{}", daemon.log());
    let tasks = tasks(&daemon)?;
    for status in &tasks {
        assert_eq!((field(status, "NoNewPrivs"), field(status, "Seccomp")), ("1", "2"), "{status}");
        let held = u64::from_str_radix(field(status, "CapEff"), 16)?;
        let (may_trace, answers) = (held & 1 << 19 != 0, field(status, "Name") == "miharud");
        assert!(!(answers && may_trace), "{status}");
    }
    assert!(tasks.iter().any(|status| field(status, "Name") == "looking"), "{tasks:#?}");
    // What writes goes on: the database, the certificate, listeners.
    daemon.miharu(&["config", "set", "metrics.prefix", "lxd"])?;
    daemon.miharu(&["admin", "renew-certificate"])?;
    daemon.listen("core.metrics_address")?;
    let (dir, pid) = (daemon.dir.clone(), daemon.pid());
    daemon.stop()?;
    assert!(!dir.join("unix.socket").exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());

    let free = Miharud::fresh(&["--sandbox", "off"])?;
    assert!(free.log().contains("nothing confines this daemon"), "{}", free.log());
    let failed = free.miharu(&["admin", "doctor"]).unwrap_err().to_string();
    assert!(failed.contains("MISSING: what looks at instances writes nowhere"), "{failed}");
    Ok(())
}

/// A guest, as this machine's kernel is what it is, and its first process may be one that not even root may look into. It takes a minute, so
/// that it is a part of `make chaos`.
fn in_a_guest(name: &str, parameters: &str) -> Result<()> {
    need!(Qemu);
    let me = std::env::current_exe()?;
    let (miharud, miharu) = (program("miharud")?, program("miharu")?);
    let setpriv = guest::find("setpriv").context("setpriv is not installed")?;
    let own = me.file_name().context("a program without a name")?.to_string_lossy();
    let script = format!(
        "export MIHARU_E2E=require MIHARU_E2E_SLOWNESS=10 MIHARU_BIN_DIR=/usr/bin\n\
         exec {own} --nocapture --include-ignored privileges::{name}\n"
    );
    let limit = Duration::from_secs(300);
    let results = guest::boot(&[&me, &miharud, &miharu, &setpriv], &script, limit, parameters)?;
    println!("{}", results.log);
    assert_eq!(results.status, 0, "{}\n{}", results.log, results.console);
    assert!(results.log.contains("1 passed"), "{}", results.log);
    Ok(())
}

/// A kernel that has no Landlock, or was started without.
#[test]
#[ignore = "a minute in a guest: make chaos"]
fn without_landlock_it_serves_and_says_what_is_not_in_force() -> Result<()> {
    if !guest::is_here() {
        // Which of the kernel's security modules are used is told by a list of all.
        return in_a_guest("without_landlock", "lsm=yama");
    }
    need!(Lxc);
    let lxc = Lxc::start(&[])?;
    let daemon = Miharud::start()?;
    with_sizes(&daemon, &lxc)?;
    let log = daemon.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("not in force")).collect();
    println!("{}", told.join("\n"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("Landlock") && told[0].contains("this kernel has no Landlock"), "{told:?}");
    let failed = daemon.miharu(&["admin", "doctor"]).unwrap_err().to_string();
    println!("{failed}");
    assert!(failed.contains("MISSING: what answers the network writes"), "{failed}");
    assert!(failed.contains("could make the daemon write wherever its user may"), "{failed}");
    assert!(!failed.contains("MISSING: what looks at instances"), "{failed}");
    // The rest is as it is elsewhere, and what writes goes on.
    for status in tasks(&daemon)? {
        assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"), "{status}");
    }
    daemon.miharu(&["config", "set", "metrics.prefix", "lxd"])?;
    daemon.stop()
}

/// `/proc` mounted with `hidepid=2`, which shows a process to those alone who may trace it.
#[test]
#[ignore = "a minute in a guest: make chaos"]
fn where_processes_are_hidden_who_may_trace_finds_the_same_as_root() -> Result<()> {
    if !guest::is_here() {
        return in_a_guest("where_processes_are_hidden", "");
    }
    need!(Lxc);
    let lxc = Lxc::start(&[])?;
    let names = [lxc.name.as_str()];
    let rooted = Miharud::start()?;
    let whole = series(&with_sizes(&rooted, &lxc)?, &names);
    drop(rooted);

    let daemon = where_others_are_hidden(&["sys_ptrace", "dac_read_search", "dac_override"])?;
    let mut missed = Vec::new();
    let found = daemon.scrape_until("the same as root's", Duration::from_secs(20), |scrape| {
        missed = whole.difference(&series(scrape, &names)).cloned().collect();
        missed.is_empty()
    });
    found.with_context(|| format!("{missed:#?}"))?;
    println!("{} series of hidden processes, {} of root's", whole.len() - missed.len(), whole.len());
    let told =
        daemon.miharu(&["admin", "doctor"]).map_or_else(|error| format!("{error:#}"), |_| String::new());
    assert!(!told.contains("MISSING"), "{told}");
    drop(daemon);

    // Who may not trace sees nobody, and the doctor says what that costs.
    let daemon = where_others_are_hidden(&["dac_read_search", "dac_override"])?;
    assert_eq!(series(&daemon.scrape()?, &names), BTreeSet::new());
    let failed = daemon.miharu(&["admin", "doctor"]).unwrap_err().to_string();
    println!("{failed}");
    assert!(failed.contains("MISSING: CAP_SYS_PTRACE"), "{failed}");
    daemon.stop()
}

//! Projects and storage pools as the real LXD and Incus tell them: every figure beside what their own clients are told, and a
//! daemon that hangs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use miharu_e2e::forgery::{Listener, USER};
use miharu_e2e::lxd::{Kind, Lxd};
use miharu_e2e::{Exposition, Miharud, need, scratch, shell};
use serde_json::Value;

/// What is expected to come at once gets some moments all the same.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn lxd_is_served_as_it_tells_and_costs_nothing_else_when_it_hangs() -> Result<()> {
    need!(Lxd);
    tells_and_hangs(Kind::Lxd)
}

#[test]
fn incus_is_served_as_it_tells_and_costs_nothing_else_when_it_hangs() -> Result<()> {
    need!(Incus);
    tells_and_hangs(Kind::Incus)
}

/// A daemon with a project that nobody else on this machine has.
struct Server {
    lxd: Lxd,
    project: String,
    pool: String,
}

impl Server {
    fn start(kind: Kind) -> Result<Self> {
        let mut lxd = Lxd::of(kind)?;
        let (project, pool) = (scratch::unique("p"), scratch::unique("pool"));
        let own = ["features.images=false", "features.networks=false"];
        let limits =
            ["containers=5", "processes=500", "cpu=8", "memory=2GiB"].map(|limit| format!("limits.{limit}"));
        let mut create = vec!["project", "create", &project];
        for setting in own.into_iter().chain(limits.iter().map(String::as_str)) {
            create.extend(["-c", setting]);
        }
        lxd.lxc(&create)?;
        lxd.lxc(&["storage", "create", &pool, "dir"])?;
        lxd.lxc(&["storage", "volume", "create", &pool, "data", "--project", &project])?;
        lxd.lxc(&["profile", "create", "spare", "--project", &project])?;
        lxd.lxc(&[
            "profile",
            "device",
            "add",
            "default",
            "root",
            "disk",
            "path=/",
            "pool=pool",
            "--project",
            &project,
        ])?;
        let takes = ["-c", "limits.processes=100", "-c", "limits.cpu=1", "-c", "limits.memory=256MiB"];
        lxd.launch(&project, "c1", &takes)?;
        Ok(Self { lxd, project, pool })
    }

    fn ask(&self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.lxd.lxc(&["query", path])?).context(path.to_owned())
    }

    /// How many things the daemon lists.
    fn count(&self, path: &str) -> Result<f64> {
        Ok(self.ask(path)?.as_array().context(path.to_owned())?.len() as f64)
    }

    fn is_told(&self, exposition: &Exposition) -> bool {
        !exposition.select("incus_project_usage", &[("project", &self.project)]).is_empty()
    }
}

fn tells_and_hangs(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let pretended = Pretended::start(&server.lxd.dir, kind)?;
    let daemon = Miharud::start()?;
    let told = daemon.scrape_until("the daemon's projects", SOON, |scrape| server.is_told(scrape))?;
    pretended.changes_nothing(&server, kind, &told)?;
    drop(pretended);
    project_is_as_told(&server, &told)?;
    pool_is_as_told(&server, &told)?;
    hangs(&server, &daemon)?;
    daemon.miharu(&["config", "set", "metrics.families.exclude", "project_*,storage_pool_*"])?;
    let without = daemon.scrape()?;
    for family in ["incus_project_usage", "incus_storage_pool_size_bytes", "incus_runtime_age_seconds"] {
        assert!(without.family(family).is_none(), "{family}");
    }
    Ok(())
}

/// What a user makes the host's table of sockets say: that the daemon is the other one, and that there are some where programs of
/// root's have a socket called as theirs.
struct Pretended {
    /// Programs of root's that are no such daemon.
    programs: Vec<UnixListener>,
    _of_user: UnixListener,
    _user: Listener,
}

impl Pretended {
    fn start(real: &Path, kind: Kind) -> Result<Self> {
        let program = |what: &str| -> Result<(PathBuf, UnixListener)> {
            let directory = scratch::dir(what)?;
            fs::create_dir(directory.join("guestapi"))?;
            let program = UnixListener::bind(directory.join("unix.socket"))?;
            program.set_nonblocking(true)?;
            Ok((directory, program))
        };
        let of_guests = |directory: &Path| directory.join("guestapi/sock");
        let (elsewhere, first) = program("a")?;
        fs::remove_dir(elsewhere.join("guestapi"))?;
        // The daemon has ended, its socket is left, and the service manager listens at its own for whoever wants it started.
        let (asleep, second) = program("b")?;
        drop(UnixListener::bind(of_guests(&asleep))?);
        // A directory such as /tmp, in which the socket for guests is not root's.
        let (everybodys, third) = program("c")?;
        fs::set_permissions(&everybodys, Permissions::from_mode(0o1777))?;
        let listens = UnixListener::bind(of_guests(&everybodys))?;
        let user = Some(USER.parse()?);
        std::os::unix::fs::chown(of_guests(&everybodys), user, user)?;
        let other = if kind == Kind::Lxd { "guestapi/sock" } else { "devlxd/sock" };
        let paths = [real.join(other), of_guests(&elsewhere), of_guests(&asleep), of_guests(&everybodys)];
        Ok(Self { programs: vec![first, second, third], _of_user: listens, _user: Listener::start(&paths)? })
    }

    fn changes_nothing(&self, server: &Server, kind: Kind, told: &Exposition) -> Result<()> {
        let (real, project) = (&server.lxd.dir, server.project.as_str());
        let ages = told.select("incus_runtime_age_seconds", &[]);
        // Without a label it is the first of this host.
        let called = |label: &str| ages.iter().find(|age| age.label("server") == label);
        let its = called(&real.to_string_lossy()).or_else(|| called("")).context("it is not told")?;
        let runtime = if kind == Kind::Lxd { "lxd" } else { "incus" };
        assert_eq!(its.label("runtime"), runtime);
        // Its containers are told by what the host has beside theirs.
        let of_container = [("name", "c1"), ("project", project), ("runtime", runtime)];
        assert_eq!(told.select("incus_instance_info", &of_container).len(), 1);
        for (number, program) in self.programs.iter().enumerate() {
            assert!(program.accept().is_err(), "program {number} of root's was asked");
        }
        Ok(())
    }
}

fn project_is_as_told(server: &Server, told: &Exposition) -> Result<()> {
    let project = &server.project;
    let state = server.ask(&format!("/1.0/projects/{project}/state"))?;
    let resources = state["resources"].as_object().context("no resources")?;
    assert!(resources.len() >= 8, "{state}");
    for (resource, figures) in resources {
        let labels = [("project", project.as_str()), ("resource", resource.as_str())];
        let figure = |name: &str| figures[name].as_f64().with_context(|| state.to_string());
        assert_eq!(told.value("incus_project_limit", &labels)?, figure("Limit")?, "{resource}");
        assert_eq!(told.value("incus_project_usage", &labels)?, figure("Usage")?, "{resource}");
    }
    let value = |family: &str, resource: &str| {
        told.value(&format!("incus_project_{family}"), &[("project", project), ("resource", resource)])
    };
    assert_eq!((value("limit", "cpu")?, value("usage", "cpu")?), (8.0, 1.0));
    assert_eq!(value("limit", "virtual-machines")?, -1.0);
    assert_eq!(value("usage", "memory")?, f64::from(256 << 20));
    let expected = [
        ("containers", server.count(&format!("/1.0/instances?project={project}"))?),
        ("virtual-machines", 0.0),
        ("images", 0.0),
        ("networks", 0.0),
        ("profiles", server.count(&format!("/1.0/profiles?project={project}"))?),
        (
            "storage-volumes",
            server.count(&format!("/1.0/storage-pools/{}/volumes/custom?project={project}", server.pool))?,
        ),
    ];
    for (resource, count) in expected {
        assert_eq!(value("resources_total", resource)?, count, "{resource}");
    }
    assert_eq!((value("resources_total", "profiles")?, value("resources_total", "containers")?), (2.0, 1.0));
    assert_eq!(told.select("incus_project_resources_total", &[("project", project)]).len(), expected.len());
    Ok(())
}

fn pool_is_as_told(server: &Server, told: &Exposition) -> Result<()> {
    let space = server.ask(&format!("/1.0/storage-pools/{}/resources", server.pool))?["space"].clone();
    let labels = [("pool", server.pool.as_str()), ("driver", "dir")];
    let theirs = |name: &str| space[name].as_f64().with_context(|| space.to_string());
    assert_eq!(told.value("incus_storage_pool_size_bytes", &labels)?, theirs("total")?);
    let used = told.value("incus_storage_pool_used_bytes", &labels)?;
    // Others write to the same file system meanwhile.
    assert!((used - theirs("used")?).abs() < 1e9, "{used} {space}");
    Ok(())
}

/// A process that is stopped, until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Result<Self> {
        shell::run("kill", ["-STOP", &pid.to_string()])?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = shell::run("kill", ["-CONT", &self.0.to_string()]);
    }
}

fn hangs(server: &Server, before: &Miharud) -> Result<()> {
    let stopped = Stopped::new(server.lxd.pid())?;
    // One that knew it goes on with what it was told, and says how old that is.
    let directory = server.lxd.dir.display().to_string();
    let age = |scrape: &Exposition| {
        let ages = scrape.select("incus_runtime_age_seconds", &[]);
        let is_its = |label: &str| label == directory || label.is_empty();
        ages.iter().filter(|age| is_its(age.label("server"))).map(|age| age.value).fold(0.0, f64::max)
    };
    let first = before.scrape()?;
    let later = before.scrape_until("an older answer", SOON, |scrape| age(scrape) > age(&first) + 1.0)?;
    ensure!(server.is_told(&later), "it is not too old yet");
    // One that never was answered has no such figures, all others at once, and a warning.
    let daemon = Miharud::start()?;
    let begun = Instant::now();
    let of_container = |scrape: &Exposition| {
        scrape.value("incus_procs_total", &[("name", "c1"), ("project", &server.project)])
    };
    let mut slowest = Duration::ZERO;
    let warning = loop {
        let start = Instant::now();
        let scrape = daemon.scrape()?;
        slowest = slowest.max(start.elapsed());
        assert!(of_container(&scrape)? >= 1.0);
        assert!(!server.is_told(&scrape));
        let warnings = daemon.miharu(&["warning", "list", "--format=csv"])?;
        if let Some(line) = warnings.lines().find(|line| line.contains(&directory)) {
            break line.to_owned();
        }
        ensure!(begun.elapsed() < shell::patient(SOON), "no warning: {warnings}");
    };
    assert!(
        warning.contains("Source of figures does not answer") && warning.contains("no answer within"),
        "{warning}"
    );
    assert!(slowest < shell::patient(Duration::from_secs(1)), "a scrape took {slowest:?}");
    println!("with a hung {:?} the slowest scrape took {slowest:?}", server.lxd.dir);
    drop(stopped);
    Ok(())
}

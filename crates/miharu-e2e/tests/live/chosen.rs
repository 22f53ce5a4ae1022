//! Server keys that choose which instances are served: what is left out is not measured, not listed, not counted.

use std::fs;

use anyhow::{Context, Result};
use miharu_e2e::lxc::Config;
use miharu_e2e::scratch::unique;
use miharu_e2e::{Lxc, Miharud, need, shell};

/// Two containers of a name that begins alike, and a daemon that has seen both.
struct Pair {
    daemon: Miharud,
    a: Lxc,
    b: Lxc,
}

impl Pair {
    fn start() -> Result<Self> {
        let name = unique("mh");
        let start = |end: &str| Lxc::with(&Config { name: format!("{name}{end}"), ..Config::default() });
        let (a, b) = (start("-a")?, start("-b")?);
        let daemon = Miharud::start()?;
        let pair = Self { daemon, a, b };
        pair.assert_served(true, true)?;
        Ok(pair)
    }

    fn set(&self, key: &str, value: &str) -> Result<()> {
        self.daemon.miharu(&["config", "set", &format!("{key}={value}")]).map(|_| ())
    }

    /// Asserts what the next scrape, the lists and the projects have of the two.
    fn assert_served(&self, a: bool, b: bool) -> Result<()> {
        let scrape = self.daemon.scrape()?;
        let list = self.daemon.miharu(&["list", "-f", "csv", "-c", "n"])?;
        let projects = self.daemon.miharu(&["project", "list", "-f", "csv"])?;
        for (container, is_served) in [(&self.a, a), (&self.b, b)] {
            let name = &container.name;
            assert_eq!(scrape.samples().any(|sample| sample.label("name") == name), is_served, "{name}");
            assert_eq!(list.lines().any(|line| line == name), is_served, "{name}: {list}");
            let project = format!("lxc:{}", container.path.display());
            assert_eq!(projects.contains(&project), is_served, "{project}: {projects}");
            let shown = self.daemon.get(&format!("/1.0/instances/{name}"))?.status;
            assert_eq!(shown, if is_served { 200 } else { 404 }, "{name}");
        }
        let counted = |name: &str| scrape.sum("incus_instances_running", &[("project", name)]).unwrap_or(0.0);
        assert_eq!(counted(&format!("lxc:{}", self.a.path.display())), f64::from(u8::from(a)));
        Ok(())
    }

    /// How many files of the container's cgroups the daemon holds.
    fn kept_of(&self, container: &Lxc) -> Result<usize> {
        let cgroup = format!("/lxc.payload.{}/", container.name);
        let fds = fs::read_dir(format!("/proc/{}/fd", self.daemon.pid()))?;
        let links = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        Ok(links.filter(|link| link.to_string_lossy().contains(&cgroup)).count())
    }
}

#[test]
fn what_is_left_out_by_name_project_or_runtime_is_gone_from_the_next_scrape_on() -> Result<()> {
    need!(Lxc);
    let pair = Pair::start()?;
    assert!(pair.kept_of(&pair.a)? > 5, "its files are kept open while it is served");
    pair.set("instances.exclude", &format!("name:{}", pair.a.name))?;
    pair.assert_served(false, true)?;
    assert_eq!(pair.kept_of(&pair.a)?, 0, "nothing of it is read or held");
    assert!(pair.kept_of(&pair.b)? > 5);
    pair.set("instances.exclude", &format!("project:lxc:{}", pair.b.path.display()))?;
    pair.assert_served(true, false)?;
    pair.set("instances.exclude", "runtime:lxc")?;
    pair.assert_served(false, false)?;
    pair.daemon.miharu(&["config", "unset", "instances.exclude"])?;
    pair.assert_served(true, true)?;
    let prefix = pair.a.name.strip_suffix('a').context("a name that ends in a")?;
    pair.set("instances.include", &format!("{prefix}*"))?;
    pair.assert_served(true, true)?;
    pair.set("instances.exclude", "*-b")?;
    pair.assert_served(true, false)?;
    pair.daemon.miharu(&["config", "unset", "instances.exclude"])?;
    pair.set("instances.include", "no-such-name,runtime:podman")?;
    pair.assert_served(false, false)?;
    Ok(())
}

#[test]
fn a_driver_that_is_left_out_finds_nothing_and_comes_back() -> Result<()> {
    need!(Lxc);
    let pair = Pair::start()?;
    pair.set("instances.drivers", "-lxc")?;
    pair.assert_served(false, false)?;
    pair.set("instances.drivers", "lxc,nspawn")?;
    pair.assert_served(true, true)?;
    pair.set("instances.drivers", "nspawn")?;
    pair.assert_served(false, false)?;
    for (wrong, word) in [("lxd", "kubernetes"), ("lxc,-nspawn", "not both"), (",", "no name")] {
        let refused = shell::output(pair.daemon.command()?.args([
            "config",
            "set",
            &format!("instances.drivers={wrong}"),
        ]));
        let refused = format!("{:#}", refused.expect_err(wrong));
        assert!(refused.contains(word), "{wrong}: {refused}");
    }
    pair.assert_served(false, false)?;
    Ok(())
}

#[test]
fn filters_of_the_list_go_together() -> Result<()> {
    need!(Lxc);
    let pair = Pair::start()?;
    let (a, b) = (pair.a.name.as_str(), pair.b.name.as_str());
    let list = |filters: &[&str]| -> Result<Vec<String>> {
        let out = pair.daemon.miharu(&[&["list", "-f", "csv", "-c", "n"], filters].concat())?;
        Ok(out.lines().map(str::to_owned).filter(|name| name == a || name == b).collect())
    };
    assert_eq!(list(&[&format!("name~=^{a}$")])?, [a]);
    assert_eq!(list(&[a.strip_suffix('a').context(a.to_owned())?, "runtime=lxc", "type=container"])?, [a, b]);
    assert_eq!(list(&["name~=-b$", &format!("project=lxc:{}", pair.b.path.display())])?, [b]);
    assert!(list(&["name~=-b$", &format!("project=lxc:{}", pair.a.path.display())])?.is_empty());
    assert!(list(&["runtime=podman"])?.is_empty());
    let filtered = pair.daemon.get(&format!("/1.0/instances?filter=name%20eq%20{a}%7Cnobody"))?.json()?;
    assert_eq!(filtered["metadata"].as_array().map(Vec::len), Some(1), "{filtered}");
    Ok(())
}

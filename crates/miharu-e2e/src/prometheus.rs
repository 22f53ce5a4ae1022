//! A Prometheus (the package) with a configuration of one's own, and the questions that tests ask it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::miharud::free_port;
use crate::netns::Netns;
use crate::scratch::{Entry, Note};
use crate::shell;

/// A running Prometheus, killed on drop.
#[derive(Debug)]
pub struct Prometheus {
    /// Its folder: configuration, data, log.
    pub dir: PathBuf,
    address: String,
    netns: Option<PathBuf>,
    child: Child,
    _note: Note,
}

impl Prometheus {
    /// Starts one with this configuration file's text; files that it names relative to itself must lie in `dir` already.
    ///
    /// # Errors
    /// When promtool refuses the configuration, or Prometheus does not get ready.
    pub fn start(dir: PathBuf, config: &str) -> Result<Self> {
        Self::launch(dir, config, None, &[])
    }

    /// As [`Prometheus::start`], in a network namespace and with further flags.
    ///
    /// # Errors
    /// As [`Prometheus::start`].
    pub fn start_in(netns: &Netns, dir: PathBuf, config: &str, flags: &[&str]) -> Result<Self> {
        Self::launch(dir, config, Some(netns.path()), flags)
    }

    fn launch(dir: PathBuf, config: &str, netns: Option<PathBuf>, flags: &[&str]) -> Result<Self> {
        let file = dir.join("prometheus.yml");
        fs::write(&file, config)?;
        shell::run("promtool", ["check".as_ref(), "config".as_ref(), file.as_os_str()])?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let log = fs::File::create(dir.join("log"))?;
        let child = command(netns.as_deref(), "prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("prometheus")?;
        let note = Entry::Process(child.id()).note()?;
        let prometheus = Self { dir, address, netns, child, _note: note };
        shell::wait_for("Prometheus", Duration::from_secs(30), || prometheus.get("/-/ready").ok())
            .with_context(|| fs::read_to_string(prometheus.dir.join("log")).unwrap_or_default())?;
        Ok(prometheus)
    }

    /// The result of an instant query.
    ///
    /// # Errors
    /// When Prometheus does not answer or refuses the query.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let url = format!("http://{}/api/v1/query", self.address);
        let answer = shell::output(
            command(self.netns.as_deref(), "curl")
                .args(["--silent", "--fail", "--get", "--data-urlencode"])
                .arg(format!("query={query}"))
                .arg(url),
        )?;
        let answer: Value = serde_json::from_str(&answer)?;
        Ok(answer.pointer("/data/result").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// The scrape targets: health, last error.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub fn targets(&self) -> Result<Vec<Value>> {
        let answer: Value = serde_json::from_str(&self.get("/api/v1/targets")?)?;
        Ok(answer.pointer("/data/activeTargets").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// All rules, of every group: type, name, query, health, last error.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let answer: Value = serde_json::from_str(&self.get("/api/v1/rules")?)?;
        let groups = answer.pointer("/data/groups").and_then(Value::as_array).into_iter().flatten();
        let rules = groups.filter_map(|group| group.get("rules")?.as_array()).flatten();
        Ok(rules.cloned().collect())
    }

    /// What it answers to GET.
    ///
    /// # Errors
    /// When it does not.
    pub fn get(&self, path: &str) -> Result<String> {
        let url = format!("http://{}{path}", self.address);
        shell::output(command(self.netns.as_deref(), "curl").args([
            "--silent",
            "--fail",
            "--max-time",
            "20",
            &url,
        ]))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// A command in a network namespace, or in this one.
fn command(netns: Option<&Path>, program: &str) -> Command {
    let Some(netns) = netns else { return Command::new(program) };
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).arg(program);
    command
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

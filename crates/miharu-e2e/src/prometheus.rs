//! A Prometheus (the package) with a configuration of one's own, and the questions that tests ask it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::miharud::free_port;
use crate::scratch::{Entry, Note};
use crate::shell;

/// A running Prometheus, killed on drop.
#[derive(Debug)]
pub struct Prometheus {
    /// Its folder: configuration, data, log.
    pub dir: PathBuf,
    address: String,
    child: Child,
    _note: Note,
}

impl Prometheus {
    /// Starts one with this configuration file's text; files that it names relative to itself must lie in `dir` already.
    ///
    /// # Errors
    /// When promtool refuses the configuration, or Prometheus does not get ready.
    pub fn start(dir: PathBuf, config: &str) -> Result<Self> {
        let file = dir.join("prometheus.yml");
        fs::write(&file, config)?;
        shell::run("promtool", ["check".as_ref(), "config".as_ref(), file.as_os_str()])?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let log = fs::File::create(dir.join("log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("prometheus")?;
        let note = Entry::Process(child.id()).note()?;
        let prometheus = Self { dir, address, child, _note: note };
        shell::wait_for("Prometheus", Duration::from_secs(30), || prometheus.get("/-/ready").ok())
            .with_context(|| fs::read_to_string(prometheus.dir.join("log")).unwrap_or_default())?;
        Ok(prometheus)
    }

    /// The result of an instant query.
    ///
    /// # Errors
    /// When Prometheus does not answer or refuses the query.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let answer = shell::run(
            "curl",
            [
                "--silent",
                "--fail",
                "--get",
                "--data-urlencode",
                &format!("query={query}"),
                &format!("http://{}/api/v1/query", self.address),
            ],
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

    fn get(&self, path: &str) -> Result<String> {
        shell::run("curl", ["--silent", "--fail", &format!("http://{}{path}", self.address)])
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The one machine on which all of it runs: a network namespace with etcd, the members on addresses of its loopback, Prometheus.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use miharu_e2e::etcd::{self, Etcd};
use miharu_e2e::miharud::program;
use miharu_e2e::netns::Netns;
use miharu_e2e::network::Network;
use miharu_e2e::prometheus::Prometheus;
use miharu_e2e::tls::Certificate;
use miharu_e2e::{Miharud, host_tree, interrupt, scratch, shell};

use crate::Plan;

/// Hosts differ by their containers' names; that many kinds of them there are.
const KINDS: usize = 10;

/// Everything, gone on drop.
pub(crate) struct Hall {
    pub(crate) plan: Plan,
    pub(crate) members: Vec<Miharud>,
    pub(crate) prometheus: Option<Prometheus>,
    pub(crate) etcd: Etcd,
    trees: Vec<PathBuf>,
}

/// How long one took from its start to being ready, and to join.
pub(crate) struct Joined {
    pub(crate) ready: Duration,
    pub(crate) joined: Duration,
}

impl Hall {
    /// Starts etcd, makes the hosts' trees, and the cluster with its first member.
    ///
    /// # Errors
    /// When one of them does not get ready.
    pub(crate) fn open(plan: Plan) -> Result<Self> {
        let network = Network::create()?;
        let etcd = etcd::plan().on(&network).flags(&["--metrics=extensive"]).start()?;
        let mut trees = Vec::new();
        for kind in 0..KINDS {
            let tree = scratch::dir("tree")?;
            let names: Vec<String> = (0..plan.instances).map(|number| format!("c{kind}-{number}")).collect();
            host_tree::make(&tree, &names)?;
            trees.push(tree);
        }
        let mut hall = Self { plan, members: Vec::new(), prometheus: None, etcd, trees };
        let first = hall.launch(0)?;
        first.miharu(&["cluster", "enable", &name(0), "--store", &hall.etcd.url()])?;
        hall.members.push(first);
        Ok(hall)
    }

    /// The namespace of all.
    pub(crate) fn netns(&self) -> Result<&Netns> {
        Ok(&self.etcd.nodes.first().and_then(|node| node.host.as_ref()).context("no host")?.netns)
    }

    fn launch(&self, number: usize) -> Result<Miharud> {
        let mut command = self.netns()?.command("unshare");
        command.args(["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", &name(number)]);
        let tree = self.trees.get(number % KINDS).context("a tree")?;
        command.arg(program("miharud")?).arg("--root").arg(tree);
        let daemon = Miharud::launch(command, &scratch::dir("member")?, &[])?;
        daemon.miharu(&["config", "set", &format!("core.metrics_address={}", address(number))])?;
        Ok(daemon)
    }

    /// Starts the other members, one after the other, each with a token of its own.
    ///
    /// # Errors
    /// When one does not get ready, or in.
    pub(crate) fn grow(&mut self) -> Result<Vec<Joined>> {
        let mut all = Vec::new();
        for number in 1..self.plan.members {
            interrupt::check()?;
            let started = Instant::now();
            let daemon = self.launch(number)?;
            let ready = started.elapsed();
            let first = self.members.first().context("no member")?;
            let token = first.miharu(&["-q", "cluster", "add", &name(number)])?;
            let started = Instant::now();
            daemon.miharu(&["cluster", "join", token.trim()])?;
            all.push(Joined { ready, joined: started.elapsed() });
            self.members.push(daemon);
        }
        Ok(all)
    }

    /// Starts a Prometheus that is told by the first member whom to scrape, and waits until all are up.
    ///
    /// # Errors
    /// When they are not within two minutes.
    pub(crate) fn start_prometheus(&mut self) -> Result<()> {
        let dir = scratch::dir("prometheus")?;
        fs::create_dir(dir.join("tls"))?;
        let first = self.members.first().context("no member")?;
        let client = Certificate::create_in(&dir.join("tls"), "metrics")?;
        fs::copy(first.dir.join("cluster.crt"), dir.join("tls/cluster.crt"))?;
        let crt = client.crt.to_str().context("path")?;
        first.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
        let tls = format!(
            "ca_file: tls/cluster.crt, cert_file: tls/metrics.crt, key_file: tls/metrics.key, server_name: '{}'",
            name(0)
        );
        let config = format!(
            "global: {{scrape_interval: {interval}s, scrape_timeout: {interval}s}}\nscrape_configs:\n- job_name: miharu\n  metrics_path: \
             /1.0/metrics\n  scheme: https\n  tls_config: {{{tls}}}\n  http_sd_configs:\n  - url: \
             https://{}/1.0/discovery/prometheus\n    tls_config: {{{tls}}}\n",
            address(0),
            interval = self.plan.interval,
        );
        let prometheus = Prometheus::start_in(self.netns()?, dir, &config, &[])?;
        let all = self.plan.members;
        shell::wait_for("all members up", Duration::from_secs(120), || {
            let up = prometheus.query("up{job=\"miharu\"} == 1").ok()?.len();
            (up == all).then_some(())
        })?;
        self.prometheus = Some(prometheus);
        Ok(())
    }

    /// The members' processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Miharud::pid).collect()
    }
}

/// What a member is called.
pub(crate) fn name(number: usize) -> String {
    format!("host{number}")
}

/// Where it is scraped.
fn address(number: usize) -> String {
    format!("127.1.{}.{}:8444", number / 250, number % 250 + 1)
}

//! A cluster of three: each member a `miharud` on a host of its own (see [`crate::network`]), with made-up containers of its own,
//! one etcd or three, and a further host from which clients and Prometheus ask.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::etcd::{self, Etcd};
use crate::miharud::{Reply, program};
use crate::network::{Host, Network, Target};
use crate::tls::Certificate;
use crate::{Exposition, Miharud, host_tree, scratch, shell};

/// The members of the Incus page's cluster `hdc`.
pub const NAMES: [&str; 3] = ["abydos", "langara", "orilla"];

/// What a member and etcd take at most to see that the other is there again.
pub const SOON: Duration = Duration::from_secs(30);

/// Three members, their etcd, and a host outside; all gone on drop.
#[derive(Debug)]
pub struct Cluster {
    /// The members, in the order of [`NAMES`].
    pub members: Vec<Member>,
    /// Where their configuration and trust is.
    pub etcd: Etcd,
    /// Whence others ask.
    pub outside: Host,
    /// The network of all.
    pub network: Network,
}

/// A host with a `miharud`, in a cluster or not.
#[derive(Debug)]
pub struct Member {
    /// Its name: of the host, and in the cluster.
    pub name: String,
    /// Its network.
    pub host: Host,
    /// `MIHARU_DIR`.
    pub dir: PathBuf,
    tree: PathBuf,
    clock: Option<PathBuf>,
    daemon: Option<Miharud>,
}

impl Cluster {
    /// Starts a cluster over one etcd.
    ///
    /// # Errors
    /// When one of them does not get ready; the error carries its log.
    pub fn start() -> Result<Self> {
        Self::over(|network| etcd::plan().on(network).start())
    }

    /// Starts a cluster over one etcd, of members with clocks of their own.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn with_clocks() -> Result<Self> {
        Self::made(|network| etcd::plan().on(network).start(), Member::with_clock)
    }

    /// Starts a cluster over this etcd.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn over(etcd: impl FnOnce(&Network) -> Result<Etcd>) -> Result<Self> {
        Self::made(etcd, Member::start)
    }

    fn made(
        etcd: impl FnOnce(&Network) -> Result<Etcd>,
        start: fn(&Network, &str) -> Result<Member>,
    ) -> Result<Self> {
        let network = Network::create()?;
        let etcd = etcd(&network)?;
        let outside = network.host()?;
        let mut members = Vec::new();
        for name in NAMES {
            members.push(start(&network, name)?);
        }
        let cluster = Self { members, etcd, outside, network };
        cluster.first().enable(&cluster.etcd)?;
        for member in cluster.members.iter().skip(1) {
            let token = cluster.first().invite(&member.name)?;
            member.join(&token, &cluster.etcd)?;
        }
        Ok(cluster)
    }

    /// The one that made the cluster.
    ///
    /// # Panics
    /// Never: there are three.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "there are three")]
    pub fn first(&self) -> &Member {
        &self.members[0]
    }

    /// Asks a member's listener from outside, as the cluster's one name and with its one certificate.
    ///
    /// # Errors
    /// When there is no answer, or not with the cluster's certificate.
    pub fn ask(
        &self,
        address: &str,
        path: &str,
        client: Option<&Certificate>,
        args: &[&str],
    ) -> Result<Reply> {
        let certificate = self.first().dir.join("cluster.crt");
        let target = Target { address, name: &self.first().name, certificate: &certificate };
        self.outside.ask(&target, path, client, args)
    }

    /// The status of `/1.0/metrics` on every member's metrics listener; 0 where there is no answer.
    #[must_use]
    pub fn statuses(&self, client: &Certificate) -> Vec<u16> {
        let ask = |member: &Member| {
            self.ask(&member.metrics_address(), "/1.0/metrics", Some(client), &[])
                .map_or(0, |reply| reply.status)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.members.iter().map(|member| scope.spawn(move || ask(member))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(0)).collect()
        })
    }

    /// Waits until the members answer so to this certificate, and tells how long that took.
    ///
    /// # Errors
    /// After [`SOON`], with what they answered last.
    pub fn becomes(&self, client: &Certificate, wanted: &[u16]) -> Result<Duration> {
        let started = Instant::now();
        let mut last = Vec::new();
        shell::wait_for("what the members answer", SOON, || {
            let begun = Instant::now();
            last = self.statuses(client);
            (last == wanted).then(|| begun.duration_since(started))
        })
        .with_context(|| format!("{last:?} instead of {wanted:?}"))
    }

    /// Waits until this member shows every member as wanted in `cluster list`.
    ///
    /// # Errors
    /// After [`SOON`], with what it showed last.
    pub fn shown(&self, by: &Member, wanted: &[(&str, &str)]) -> Result<()> {
        let mut last = String::new();
        shell::wait_for("the list of members", SOON, || {
            last = by
                .miharu(&["cluster", "list", "--format", "csv"])
                .unwrap_or_else(|error| format!("{error:#}"));
            let is_so = |(name, state): &(&str, &str)| {
                last.lines().any(|line| line.starts_with(&format!("{name},")) && line.contains(state))
            };
            (last.lines().count() == wanted.len() && wanted.iter().all(is_so)).then_some(())
        })
        .with_context(|| last.clone())
    }
}

impl Member {
    /// Starts a daemon on a new host, with listeners and with two containers, in no cluster.
    ///
    /// # Errors
    /// When it does not get ready; the error carries its log.
    pub fn start(network: &Network, name: &str) -> Result<Self> {
        Self::launch(network, name, None)
    }

    /// As [`Member::start`], with a clock that can be set.
    ///
    /// # Errors
    /// As [`Member::start`].
    pub fn with_clock(network: &Network, name: &str) -> Result<Self> {
        let clock = scratch::dir("clock")?.join("ahead");
        fs::write(&clock, "+0\n")?;
        Self::launch(network, name, Some(clock))
    }

    fn launch(network: &Network, name: &str, clock: Option<PathBuf>) -> Result<Self> {
        let host = network.host()?;
        let (dir, tree) = (scratch::dir("member")?, scratch::dir("tree")?);
        host_tree::make(&tree, &[format!("{name}-1"), format!("{name}-2")])?;
        let mut member = Self { name: name.to_owned(), host, dir, tree, clock, daemon: None };
        member.restart()?;
        let https = format!("core.https_address={}", member.https_address());
        let metrics = format!("core.metrics_address={}", member.metrics_address());
        // Every scrape shows the state of its moment.
        member.miharu(&["config", "set", &https, &metrics, "metrics.cache_seconds=0"])?;
        Ok(member)
    }

    /// Starts it again on what it has on disk.
    ///
    /// # Errors
    /// When it does not get ready; the error carries its log.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "{} runs", self.name);
        self.daemon = Some(Miharud::launch(self.launcher()?, &self.dir, &[])?);
        Ok(())
    }

    /// What becomes its daemon: on its host, under its name, and by its own clock if it has one.
    fn launcher(&self) -> Result<Command> {
        let mut command = self.host.command("unshare");
        command.args(["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", &self.name, "env"]);
        if let Some(clock) = &self.clock {
            let library = faketime().context("no libfaketime")?;
            command.arg(format!("LD_PRELOAD={}", library.display()));
            command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()));
            // The kernel's monotonic clock never jumps: only the other one is made to.
            command.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]);
        }
        command.arg(program("miharud")?).arg("--root").arg(&self.tree);
        Ok(command)
    }

    /// From now on its clock is so many seconds ahead of the machine's, or behind where negative.
    ///
    /// # Errors
    /// When it has no clock of its own, or the file that says so cannot be replaced.
    pub fn set_clock(&self, ahead: i64) -> Result<()> {
        let clock = self.clock.as_ref().context("it has no clock of its own")?;
        let new = clock.with_extension("new");
        fs::write(&new, format!("{ahead:+}\n"))?;
        fs::rename(new, clock)?;
        Ok(())
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), Miharud::stop)
    }

    /// Its daemon.
    ///
    /// # Errors
    /// When it does not run.
    pub fn daemon(&self) -> Result<&Miharud> {
        self.daemon.as_ref().with_context(|| format!("{} does not run", self.name))
    }

    /// Runs `miharu` on it.
    ///
    /// # Errors
    /// When that fails.
    pub fn miharu(&self, args: &[&str]) -> Result<String> {
        self.bounded(args, None)
    }

    /// Runs `miharu` for a minute at most.
    fn bounded(&self, args: &[&str], env: Option<(&str, &str)>) -> Result<String> {
        let miharu = self.daemon()?.command()?;
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", "60"]).arg(miharu.get_program()).args(args).envs(env);
        command.env("MIHARU_DIR", &self.dir).current_dir(&self.dir);
        shell::output(&mut command)
    }

    /// Asks its unix socket with GET.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<Reply> {
        self.daemon()?.get(path)
    }

    /// Its figures.
    ///
    /// # Errors
    /// When there is no answer, or it is no exposition.
    pub fn scrape(&self) -> Result<Exposition> {
        self.daemon()?.scrape()
    }

    /// Where its API is.
    #[must_use]
    pub fn https_address(&self) -> String {
        format!("{}:8443", self.host.address)
    }

    /// Where its metrics are, on the port of the Incus page.
    #[must_use]
    pub fn metrics_address(&self) -> String {
        format!("{}:8444", self.host.address)
    }

    /// Makes a cluster, with itself as the first member.
    ///
    /// # Errors
    /// When it is refused.
    pub fn enable(&self, etcd: &Etcd) -> Result<()> {
        self.enable_at(&etcd.url(), etcd)
    }

    /// As [`Member::enable`], with what `--store` is given.
    ///
    /// # Errors
    /// As [`Member::enable`].
    pub fn enable_at(&self, store: &str, etcd: &Etcd) -> Result<()> {
        let ca = etcd.tls.as_ref().map(|tls| format!("--store-ca={}", tls.join("ca.crt").display()));
        let access = etcd.access_flags();
        let mut args = vec!["cluster", "enable", &self.name, "--store", store];
        args.extend(ca.iter().chain(&access).map(String::as_str));
        self.bounded(&args, etcd.access_env()).map(|_| ())
    }

    /// The status of `/1.0/metrics` on its metrics listener, asked from its own host: that works with every link cut.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn local_status(&self, client: &Certificate) -> Result<u16> {
        let mut command = self.host.command("curl");
        command
            .args(["--silent", "--insecure", "--max-time", "15", "--output", "/dev/null"])
            .args(["--write-out", "%{http_code}"])
            .arg("--cert")
            .arg(&client.crt)
            .arg("--key")
            .arg(&client.key)
            .arg(format!("https://{}/1.0/metrics", self.metrics_address()));
        Ok(shell::output(&mut command)?.trim().parse()?)
    }

    /// A token with which a server may join as `name`.
    ///
    /// # Errors
    /// When it is refused.
    pub fn invite(&self, name: &str) -> Result<String> {
        Ok(self.miharu(&["-q", "cluster", "add", name])?.trim().to_owned())
    }

    /// Joins with such a token, over this etcd.
    ///
    /// # Errors
    /// When it is refused.
    pub fn join(&self, token: &str, etcd: &Etcd) -> Result<()> {
        let access = etcd.access_flags();
        let mut args = vec!["cluster", "join", token];
        args.extend(access.iter().map(String::as_str));
        self.bounded(&args, etcd.access_env()).map(|_| ())
    }
}

/// The library that gives a program a clock of its own, if it is installed.
#[must_use]
pub fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    folders
        .chain([Path::new("/usr/lib").to_owned()])
        .map(|folder| folder.join("faketime/libfaketime.so.1"))
        .find(|path| path.is_file())
}

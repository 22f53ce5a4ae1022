//! etcd (the package): one process or several that make a cluster, on loopback or on hosts of a [`Network`], with TLS and a password
//! where asked for. Each can be stopped, killed, frozen and started again on what it has on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::miharud::free_port;
use crate::network::{Host, Network};
use crate::scratch::{self, Entry, Note};
use crate::shell;

/// The password of etcd's `root`, and of the user `miharu`, where there are users at all.
pub const PASSWORD: &str = "correct horse";

/// How etcd is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan<'a> {
    nodes: usize,
    network: Option<&'a Network>,
    has_tls: bool,
    users: bool,
    flags: &'a [&'a str],
}

/// Running nodes of one etcd, killed on drop.
#[derive(Debug)]
pub struct Etcd {
    /// Its nodes, in the order of their names.
    pub nodes: Vec<Node>,
    /// Its certificates, where it speaks TLS: `ca.crt`, `client.crt`, `client.key`.
    pub tls: Option<PathBuf>,
    users: bool,
}

/// One process of it.
#[derive(Debug)]
pub struct Node {
    /// Its host, unless it is on loopback.
    pub host: Option<Host>,
    /// Where clients reach it, `host:port`.
    pub address: String,
    peer: String,
    name: String,
    dir: PathBuf,
    arguments: Vec<String>,
    running: Option<(Child, Note)>,
}

/// One node on loopback, without TLS, unless told otherwise.
#[must_use]
pub fn plan<'a>() -> Plan<'a> {
    Plan { nodes: 1, ..Plan::default() }
}

impl<'a> Plan<'a> {
    /// So many processes, a host each.
    #[must_use]
    pub fn nodes(self, nodes: usize) -> Self {
        Self { nodes, ..self }
    }

    /// On hosts of this network.
    #[must_use]
    pub fn on(self, network: &'a Network) -> Self {
        Self { network: Some(network), ..self }
    }

    /// Speaks TLS, and wants a certificate of its own authority from clients.
    #[must_use]
    pub fn tls(self) -> Self {
        Self { has_tls: true, ..self }
    }

    /// With a user `miharu` who may use the keys below `/miharu/` and no others; see [`PASSWORD`].
    #[must_use]
    pub fn users(self) -> Self {
        Self { users: true, ..self }
    }

    /// With further flags for each process.
    #[must_use]
    pub fn flags(self, flags: &'a [&'a str]) -> Self {
        Self { flags, ..self }
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it does not get ready; the error carries what it wrote.
    pub fn start(self) -> Result<Etcd> {
        let dir = scratch::dir("etcd")?;
        let mut nodes = Vec::new();
        for number in 1..=self.nodes {
            let host = self.network.map(Network::host).transpose()?;
            let (address, peer) = match &host {
                Some(host) => (format!("{}:2379", host.address), format!("{}:2380", host.address)),
                None => (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?)),
            };
            let name = format!("n{number}");
            let dir = dir.join(&name);
            fs::create_dir(&dir)?;
            nodes.push(Node { host, address, peer, name, dir, arguments: Vec::new(), running: None });
        }
        let tls = if self.has_tls { Some(certificates(&dir, &nodes)?) } else { None };
        let scheme = if self.has_tls { "https" } else { "http" };
        let all: Vec<String> =
            nodes.iter().map(|node| format!("{}=http://{}", node.name, node.peer)).collect();
        for node in &mut nodes {
            node.arguments = node.arguments(scheme, &all.join(","), tls.as_deref());
            node.arguments.extend(self.flags.iter().map(|flag| (*flag).to_owned()));
            node.launch()?;
        }
        let mut etcd = Etcd { nodes, tls, users: false };
        etcd.wait_ready()?;
        if self.users {
            etcd.make_users()?;
        }
        Ok(etcd)
    }
}

impl Etcd {
    /// What `--store` takes: `etcd://HOST:PORT,…`, or `etcds://` with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address.as_str()).collect();
        let scheme = if self.tls.is_some() { "etcds" } else { "etcd" };
        format!("{scheme}://{}", addresses.join(","))
    }

    /// How `miharu cluster enable` and `join` are told to get in.
    #[must_use]
    pub fn access_flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        if let Some(tls) = &self.tls {
            for (flag, file) in [("cert", "client.crt"), ("key", "client.key")] {
                flags.push(format!("--store-{flag}={}", tls.join(file).display()));
            }
        }
        if self.users {
            flags.push("--store-user=miharu".to_owned());
        }
        flags
    }

    /// What it must not be told on the command line.
    #[must_use]
    pub fn access_env(&self) -> Option<(&'static str, &'static str)> {
        self.users.then_some(("MIHARU_STORE_PASSWORD", PASSWORD))
    }

    /// Runs `etcdctl` against all nodes, as `root` where there are users.
    ///
    /// # Errors
    /// When it fails.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let endpoints: Vec<_> = self.nodes.iter().map(|node| node.address.as_str()).collect();
        self.ctl_at(&endpoints.join(","), args)
    }

    fn ctl_at(&self, endpoints: &str, args: &[&str]) -> Result<String> {
        let host = self.nodes.first().context("no etcd")?.host.as_ref();
        let mut command = host.map_or_else(|| Command::new("etcdctl"), |host| host.command("etcdctl"));
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoints}"));
        command.args(["--dial-timeout=2s", "--command-timeout=5s"]);
        if let Some(tls) = &self.tls {
            for (flag, file) in [("cacert", "ca.crt"), ("cert", "client.crt"), ("key", "client.key")] {
                command.arg(format!("--{flag}={}", tls.join(file).display()));
            }
        }
        if self.users {
            command.arg(format!("--user=root:{PASSWORD}"));
        }
        shell::output(command.args(args))
    }

    /// All keys below a prefix, with their values.
    ///
    /// # Errors
    /// When etcd does not answer, or a value is no text.
    pub fn keys(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let text = self.ctl(&["get", prefix, "--prefix", "--write-out=fields"])?;
        let mut keys = Vec::new();
        let mut key = None;
        for line in text.lines() {
            let Some((name, value)) = line.split_once(" : ") else { continue };
            match name {
                "\"Key\"" => key = Some(value.trim_matches('"').to_owned()),
                "\"Value\"" => keys.extend(key.take().map(|key| (key, value.to_owned()))),
                _ => {}
            }
        }
        Ok(keys)
    }

    /// The revision of its last change.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn revision(&self) -> Result<i64> {
        let text = self.ctl(&["get", "x", "--write-out=json"])?;
        let answer: serde_json::Value = serde_json::from_str(&text)?;
        answer.pointer("/header/revision").and_then(serde_json::Value::as_i64).context(text)
    }

    /// Forgets every revision but the last.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn compact(&self) -> Result<()> {
        let revision = self.revision()?.to_string();
        self.ctl(&["compact", "--physical", &revision])?;
        Ok(())
    }

    /// Waits until every node that runs answers, after the end of any election.
    ///
    /// # Errors
    /// After 30 s.
    pub fn wait_ready(&self) -> Result<()> {
        for node in self.nodes.iter().filter(|node| node.running.is_some()) {
            // A linearised read: there is a leader.
            let ask = || self.ctl_at(&node.address, &["get", "x"]).ok();
            shell::wait_for("etcd", Duration::from_secs(30), ask)
                .with_context(|| fs::read_to_string(node.dir.join("log")).unwrap_or_default())?;
        }
        Ok(())
    }

    fn make_users(&mut self) -> Result<()> {
        for line in [
            format!("user add root:{PASSWORD}"),
            "user grant-role root root".to_owned(),
            "role add miharu".to_owned(),
            "role grant-permission miharu --prefix=true readwrite /miharu/".to_owned(),
            format!("user add miharu:{PASSWORD}"),
            "user grant-role miharu miharu".to_owned(),
            "auth enable".to_owned(),
        ] {
            let (words, password) = line.split_once(':').map_or((line.as_str(), None), |(a, b)| (a, Some(b)));
            let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            if let (Some(last), Some(password)) = (words.last_mut(), password) {
                *last += ":";
                *last += password;
            }
            self.ctl(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        self.users = true;
        Ok(())
    }
}

impl Node {
    fn arguments(&self, scheme: &str, all: &str, tls: Option<&Path>) -> Vec<String> {
        let mut arguments = vec![
            format!("--name={}", self.name),
            format!("--data-dir={}", self.dir.join("data").display()),
            format!("--listen-client-urls={scheme}://{}", self.address),
            format!("--advertise-client-urls={scheme}://{}", self.address),
            format!("--listen-peer-urls=http://{}", self.peer),
            format!("--initial-advertise-peer-urls=http://{}", self.peer),
            format!("--initial-cluster={all}"),
            "--initial-cluster-state=new".to_owned(),
            "--logger=zap".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        if let Some(tls) = tls {
            for (flag, file) in
                [("cert-file", "server.crt"), ("key-file", "server.key"), ("trusted-ca-file", "ca.crt")]
            {
                arguments.push(format!("--{flag}={}", tls.join(file).display()));
            }
            arguments.push("--client-cert-auth".to_owned());
        }
        arguments
    }

    fn launch(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "{} runs", self.name);
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log"))?;
        let mut command =
            self.host.as_ref().map_or_else(|| Command::new("etcd"), |host| host.command("etcd"));
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("etcd")?;
        let note = Entry::Process(child.id()).note()?;
        self.running = Some((child, note));
        Ok(())
    }

    /// Its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running.as_ref().with_context(|| format!("{} does not run", self.name))?.0.id())
    }

    /// Ends it without a warning, and waits for its end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let (mut child, _note) = self.running.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Ends it and takes away what it has on disk, so that it starts as a new one.
    ///
    /// # Errors
    /// When it does not run, or its folder cannot be removed.
    pub fn wipe(&mut self) -> Result<()> {
        self.kill()?;
        fs::remove_dir_all(self.dir.join("data")).context("etcd's data")
    }

    /// Starts it again on what it has on disk, and waits for nothing.
    ///
    /// # Errors
    /// When it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()
    }

    /// Stops it in mid-work: its connections stay open, and nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        shell::run("kill", ["-STOP", &self.pid()?.to_string()])?;
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        shell::run("kill", ["-CONT", &self.pid()?.to_string()])?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((mut child, _note)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An authority, a certificate for all nodes, and one for clients.
fn certificates(dir: &Path, nodes: &[Node]) -> Result<PathBuf> {
    let dir = dir.join("tls");
    fs::create_dir(&dir)?;
    let hosts: Vec<String> =
        nodes.iter().filter_map(|node| Some(format!("IP:{}", node.address.rsplit_once(':')?.0))).collect();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let mut lines = vec![format!(
        "openssl req -x509 {key} -keyout ca.key -out ca.crt -days 30 -subj '/CN=etcd authority'"
    )];
    for (name, more) in [
        ("server", format!("subjectAltName={}\nextendedKeyUsage=serverAuth,clientAuth\n", hosts.join(","))),
        ("client", "extendedKeyUsage=clientAuth\n".to_owned()),
    ] {
        fs::write(dir.join(format!("{name}.ext")), more)?;
        lines.push(format!("openssl req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        lines.push(format!(
            "openssl x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile {name}.ext -out {name}.crt"
        ));
    }
    for line in lines {
        shell::output(Command::new("/bin/sh").args(["-c", &line]).current_dir(&dir))?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_nodes_outlive_the_loss_of_one_and_keep_what_they_have() -> Result<()> {
        crate::need!(Containers, Etcd, Tls);
        let network = Network::create()?;
        let mut etcd = plan().nodes(3).on(&network).tls().users().start()?;
        etcd.ctl(&["put", "/miharu/a", "1"])?;
        etcd.nodes[2].kill()?;
        etcd.wait_ready()?;
        etcd.ctl(&["put", "/miharu/b", "two \"words\""])?;
        etcd.nodes[1].kill()?;
        assert!(etcd.ctl(&["put", "/miharu/c", "3"]).is_err(), "one of three is no majority");
        for node in &mut etcd.nodes[1..] {
            node.restart()?;
        }
        etcd.wait_ready()?;
        let keys = etcd.keys("/miharu/")?;
        assert_eq!(keys[0], ("/miharu/a".to_owned(), "\"1\"".to_owned()));
        assert!(keys.iter().any(|(key, _)| key == "/miharu/b"));
        let mut curl = etcd.nodes[0].host.as_ref().context("host")?.command("curl");
        let plain =
            curl.args(["-sk", "--max-time", "2", &format!("https://{}/health", etcd.nodes[0].address)]);
        assert!(!plain.status()?.success(), "nobody is let in without a certificate");
        Ok(())
    }

    #[test]
    fn a_lone_node_on_loopback_is_frozen_and_compacted() -> Result<()> {
        crate::need!(Etcd);
        let etcd = plan().start()?;
        let first = etcd.revision()?;
        etcd.ctl(&["put", "a", "1"])?;
        etcd.ctl(&["put", "a", "2"])?;
        etcd.compact()?;
        let old = etcd.ctl(&["get", "a", &format!("--rev={first}")]);
        assert!(format!("{:#}", old.err().context("an old revision")?).contains("compacted"));
        etcd.nodes[0].freeze()?;
        assert!(etcd.ctl(&["get", "a"]).is_err());
        etcd.nodes[0].thaw()?;
        assert_eq!(etcd.ctl(&["get", "a", "--print-value-only"])?, "2\n");
        Ok(())
    }
}

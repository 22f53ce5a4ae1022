//! A network of one's own: hosts that are network namespaces, each with one veth pair to a bridge in a further namespace. Nothing of
//! it is in the machine's own namespace. A host's link can be cut and mended.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, ensure};

use crate::miharud::Reply;
use crate::netns::Netns;
use crate::tls::Certificate;

/// The network of every test: each has a bridge of its own, so that they never meet.
const NETWORK: [u8; 3] = [10, 213, 7];

/// A bridge and what hangs on it; deleted with the last of its hosts.
#[derive(Clone, Debug)]
pub struct Network {
    bridge: Arc<Netns>,
    hosts: Arc<AtomicU8>,
}

/// A host on a network, gone on drop.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub netns: Netns,
    /// Its address.
    pub address: Ipv4Addr,
    bridge: Arc<Netns>,
    port: String,
}

impl Network {
    /// Makes one without hosts.
    ///
    /// # Errors
    /// When `ip` cannot.
    pub fn create() -> Result<Self> {
        let bridge = Netns::create()?;
        bridge.ip(&["link", "add", "br0", "type", "bridge"])?;
        bridge.ip(&["link", "set", "br0", "up"])?;
        Ok(Self { bridge: Arc::new(bridge), hosts: Arc::default() })
    }

    /// Adds a host, with the next address.
    ///
    /// # Errors
    /// When `ip` cannot, or there are 250 already.
    pub fn host(&self) -> Result<Host> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        ensure!(number <= 250, "a network of these tests has 250 hosts at most");
        let netns = Netns::create()?;
        let port = format!("port{number}");
        let [a, b, c] = NETWORK;
        let address = Ipv4Addr::new(a, b, c, number);
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &netns.name];
        self.bridge.ip(&[&["link", "add", &port][..], &pair].concat())?;
        self.bridge.ip(&["link", "set", &port, "master", "br0", "up"])?;
        netns.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        netns.ip(&["link", "set", "eth0", "up"])?;
        Ok(Host { netns, address, bridge: Arc::clone(&self.bridge), port })
    }
}

impl Host {
    /// A command that will run on it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.netns.command(program)
    }

    /// Cuts it off: whatever it sends and is sent from now on is lost without a word, as with a cable that is pulled at the switch.
    ///
    /// # Errors
    /// When `ip` cannot.
    pub fn cut(&self) -> Result<()> {
        self.bridge.ip(&["link", "set", &self.port, "down"])?;
        Ok(())
    }

    /// Puts the cable back.
    ///
    /// # Errors
    /// When `ip` cannot.
    pub fn mend(&self) -> Result<()> {
        self.bridge.ip(&["link", "set", &self.port, "up"])?;
        Ok(())
    }

    /// Asks `https://ADDRESS/PATH` from here with curl, as a server of that name in the given certificate, within a few seconds.
    ///
    /// # Errors
    /// When there is no answer, or from somebody who cannot show that certificate.
    pub fn ask(
        &self,
        target: &Target<'_>,
        path: &str,
        client: Option<&Certificate>,
        args: &[&str],
    ) -> Result<Reply> {
        let (host, port) = target.address.rsplit_once(':').context("an address without a port")?;
        let mut command = self.command("curl");
        command
            .args(["--silent", "--show-error", "--include", "--http1.1", "--max-time", "15"])
            .arg("--cacert")
            .arg(target.certificate)
            .args(["--connect-to", &format!("{}:{port}:{host}:{port}", target.name)]);
        if let Some(client) = client {
            command.arg("--cert").arg(&client.crt).arg("--key").arg(&client.key);
        }
        command.args(args).arg(format!("https://{}:{port}{path}", target.name));
        let out = command.output().context("curl")?;
        ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
        Reply::parse(&out.stdout)
    }
}

/// Whom to ask, and as whom it has to show itself.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `ADDRESS:PORT`.
    pub address: &'a str,
    /// A name in its certificate.
    pub name: &'a str,
    /// The only certificate that is taken.
    pub certificate: &'a std::path::Path,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    #[test]
    fn hosts_reach_each_other_until_a_link_is_cut() -> Result<()> {
        crate::need!(Containers);
        let network = Network::create()?;
        let (one, two) = (network.host()?, network.host()?);
        let reaches = || {
            let (there, port) = (two.address.to_string(), "5000");
            // What is refused has answered; what is lost has not.
            let code = one
                .command("curl")
                .args(["-s", "--max-time", "1", &format!("http://{there}:{port}")])
                .status();
            code.ok().and_then(|status| status.code()) == Some(7)
        };
        assert!(reaches());
        two.cut()?;
        assert!(!reaches());
        two.mend()?;
        shell::wait_for("the mended link", std::time::Duration::from_secs(5), || reaches().then_some(()))
    }
}

//! What happens and what is wrong is told: events of real containers, and warnings that come and go by themselves.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::{Lxc, Miharud, need, scratch, shell};
use serde_json::Value;

/// `miharu monitor` while it runs.
struct Monitor {
    child: Child,
    lines: Receiver<String>,
}

impl Monitor {
    /// Starts one, and comes back when it is told of what happens.
    fn start(daemon: &Miharud) -> Result<Self> {
        let mut command = daemon.command()?;
        command.args(["monitor", "--type=lifecycle", "--format=json"]).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let lines = output.lines().map_while(std::io::Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        let monitor = Self { child, lines };
        shell::wait_for("the monitor", Duration::from_secs(20), || {
            daemon.miharu(&["project", "create", "seen"]).ok()?;
            daemon.miharu(&["project", "delete", "seen"]).ok()?;
            monitor.lines.recv_timeout(Duration::from_millis(500)).ok()
        })?;
        Ok(monitor)
    }

    /// Waits for this action on an instance of this name.
    fn wait(&self, action: &str, name: &str) -> Result<Value> {
        let path = format!("/1.0/instances/{name}");
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(30)).with_context(|| action.to_owned())?;
            let event: Value = serde_json::from_str(&line)?;
            let metadata = &event["metadata"];
            if metadata["action"] == action && metadata["source"].as_str().unwrap_or("").starts_with(&path) {
                return Ok(event);
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn containers_that_come_and_go_are_told_to_who_listens() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let mut lxc = Lxc::start(&[])?;
    let monitor = Monitor::start(&daemon)?;
    // The first look, which is no news, is taken as soon as somebody listens.
    std::thread::sleep(Duration::from_secs(3));
    lxc.stop()?;
    monitor.wait("instance-stopped", &lxc.name)?;
    lxc.boot()?;
    let event = monitor.wait("instance-started", &lxc.name)?;
    assert_eq!(event["metadata"]["context"]["runtime"], "lxc");
    assert!(event["project"].as_str().unwrap().starts_with("lxc"), "{event}");
    Ok(())
}

#[test]
fn a_warning_stays_until_what_is_wrong_is_well() -> Result<()> {
    need!(Tls);
    let dir = scratch::dir("miharu")?;
    let daemon = Miharud::in_dir(&dir, &[])?;
    let address = daemon.listen("core.metrics_address")?;
    daemon.stop()?;
    let thief = TcpListener::bind(&address)?;
    let daemon = Miharud::in_dir(&dir, &[])?;
    let warnings = |all: bool| -> Result<Vec<Value>> {
        let args = ["warning", "list", "--format=json", "--all"];
        let text = daemon.miharu(if all { &args } else { &args[..3] })?;
        let list: Vec<Value> = serde_json::from_str(&text)?;
        let of_listener = |warning: &Value| warning["type"] == "Listener cannot be opened";
        Ok(list.into_iter().filter(of_listener).collect())
    };
    let standing = warnings(false)?;
    let [warning] = standing.as_slice() else { panic!("{standing:?}") };
    assert_eq!((&warning["status"], &warning["severity"]), (&"new".into(), &"high".into()));
    let message = warning["last_message"].as_str().unwrap();
    assert!(message.contains(&address) && message.contains("held by"), "{message}");
    let uuid = warning["uuid"].as_str().unwrap();
    assert!(daemon.scrape()?.value("incus_warnings_total", &[])? >= 1.0);

    daemon.miharu(&["warning", "acknowledge", uuid])?;
    assert!(warnings(false)?.is_empty(), "what is known is left out");
    assert_eq!(warnings(true)?[0]["status"], "acknowledged");
    drop(thief);
    shell::wait_for("the listener", Duration::from_secs(60), || {
        warnings(true).ok()?.first().filter(|warning| warning["status"] == "resolved").cloned()
    })?;
    daemon.miharu(&["warning", "delete", uuid])?;
    assert!(warnings(true)?.is_empty());
    Ok(())
}

//! LXD's own client (the package) against miharud: the commands of the Incus and LXD pages on metrics, by the program that their
//! readers have; and the same words with `miharu`.

use std::process::Command;

use anyhow::{Context, Result};
use miharu_e2e::tls::{self, Certificate};
use miharu_e2e::{Lxc, Miharud, need, scratch, shell};

/// Runs `lxc` with miharud in LXD's place.
fn lxc(daemon: &Miharud, args: &[&str]) -> Result<String> {
    let home = scratch::dir("home")?;
    let mut command = Command::new("lxc");
    command.env("LXD_SOCKET", daemon.dir.join("unix.socket")).env("LXD_DIR", &daemon.dir);
    command.env("HOME", &home).env("LXD_CONF", home.join("conf"));
    shell::output(command.args(args))
}

#[test]
fn the_client_of_lxd_walks_the_page_on_metrics() -> Result<()> {
    need!(Lxd, Lxc, Tls);
    let (daemon, container) = (Miharud::start()?, Lxc::start(&[])?);
    let address = format!("127.0.0.1:{}", miharu_e2e::miharud::free_port()?);
    lxc(&daemon, &["config", "set", "core.metrics_address", &address])?;
    assert_eq!(lxc(&daemon, &["config", "get", "core.metrics_address"])?.trim(), address);
    let client = Certificate::create("metrics")?;
    let file = client.crt.to_str().context("path")?;
    lxc(&daemon, &["config", "trust", "add", file, "--type=metrics"])?;
    let listed = lxc(&daemon, &["config", "trust", "list", "--format", "csv"])?;
    assert!(listed.starts_with("metrics,metrics.crt,metrics.local,"), "{listed}");
    assert_eq!(
        listed,
        daemon.miharu(&["config", "trust", "list", "--format", "csv"])?,
        "both clients show the same"
    );

    let reply = tls::ask(&address, "/1.0/metrics", &daemon.dir.join("server.crt"), Some(&client), &[])?;
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains(&container.name));
    let text = lxc(&daemon, &["query", "/1.0/metrics"])?;
    assert!(text.contains(&container.name) && text.contains("# EOF"), "{text}");

    let instances = lxc(&daemon, &["list", "--format", "csv", "--columns", "nst"])?;
    assert!(instances.contains(&format!("{},RUNNING,CONTAINER", container.name)), "{instances}");
    lxc(&daemon, &["config", "trust", "remove", client.fingerprint()?.get(..12).context("fingerprint")?])?;
    assert_eq!(lxc(&daemon, &["config", "trust", "list", "--format", "csv"])?, "");
    lxc(&daemon, &["config", "unset", "core.metrics_address"])?;
    assert!(
        tls::ask(&address, "/1.0", &daemon.dir.join("server.crt"), None, &[]).is_err(),
        "unset stops listening"
    );
    Ok(())
}

#[test]
fn the_same_words_do_the_same_with_miharu() -> Result<()> {
    need!(Lxc, Tls);
    let (daemon, container) = (Miharud::start()?, Lxc::start(&[])?);
    let text = daemon.miharu(&["query", "/1.0/metrics"])?;
    assert!(text.contains(&container.name) && text.ends_with("# EOF\n"), "{text}");
    let listed = daemon.miharu(&["list"])?;
    assert!(listed.contains(&container.name) && listed.contains("RUNNING"), "{listed}");
    let info = daemon.miharu(&["info", &container.name])?;
    assert!(info.contains(&container.name) && info.contains(&container.pid.to_string()), "{info}");
    for (args, wanted) in [
        (&["config", "set", "nonsense", "1"][..], "nonsense"),
        (&["config", "set", "core.metrics_authentication", "maybe"][..], "invalid boolean"),
        (&["info", "nobody-of-that-name"][..], "not found"),
        (&["config", "trust", "remove", "00"][..], "not found"),
    ] {
        let error = format!("{:#}", daemon.miharu(args).err().context("it did not fail")?);
        assert!(error.contains(wanted), "{args:?}: {error}");
    }
    // A daemon that does not run: the message says what to do.
    let dir = daemon.dir.clone();
    daemon.stop()?;
    let mut command = Command::new(miharu_e2e::miharud::program("miharu")?);
    let error = shell::output(command.arg("list").env("MIHARU_DIR", dir)).err().context("it did not fail")?;
    assert!(format!("{error:#}").contains("miharud"), "{error:#}");
    Ok(())
}

//! What goes on until it is ended: `monitor` and `incus top`.

use anyhow::Result;
use miharu_e2e::lxd::Kind;
use miharu_e2e::{Client, Lxc, Miharud, need};

#[test]
fn monitor_prints_what_happens() -> Result<()> {
    need!(Lxd, Incus, Lxc);
    let daemon = Miharud::start()?;
    daemon.listen("core.https_address")?;
    for kind in [Kind::Lxd, Kind::Incus] {
        let local = Client::local(kind, &daemon.dir)?;
        let remote = Client::remote(kind, &local.token("away", "")?)?;
        for client in [&local, &remote] {
            let all = client.watch("monitor @")?;
            let pretty = client.watch("monitor @ --pretty --type=lifecycle")?;
            // Until a client listens it is told nothing, so that the change is made again and again.
            let change = || {
                let _ = local.run("project create @watched");
                let _ = local.run("project delete @watched");
            };
            pretty.until("an event", |text| {
                change();
                text.contains("Action: project-created, Source: /1.0/projects/watched")
            })?;
            let seen = all.until("an event of the log and another", |text| {
                change();
                text.contains("type: logging") && text.contains("action: project-created")
            })?;
            assert!(
                seen.contains("location: none") && seen.contains("source: /1.0/projects/watched"),
                "{seen}"
            );

            let container = Lxc::start(&[])?;
            let source = format!("Source: /1.0/instances/{}", container.name);
            for (what, container) in [("instance-started", Some(container)), ("instance-stopped", None)] {
                let wanted = |line: &str| line.contains(what) && line.contains(&source);
                let seen = pretty.until(what, |text| text.lines().any(wanted))?;
                assert!(!seen.contains("declared a project"), "the log was not asked for: {seen}");
                drop(container);
            }
        }
    }
    Ok(())
}

#[test]
fn top_shows_what_runs() -> Result<()> {
    need!(Incus, Lxc);
    let (daemon, container) = (Miharud::start()?, Lxc::start(&[])?);
    daemon.listen("core.https_address")?;
    let local = Client::local(Kind::Incus, &daemon.dir)?;
    let remote = Client::remote(Kind::Incus, &local.token("away", "")?)?;
    for client in [&local, &remote] {
        let top = client.watch("top @ --all-projects")?;
        let text = top.until("the container in the table", |text| text.contains(&container.name))?;
        for column in ["INSTANCE NAME", "CPU TIME(S)", "MEMORY", "DISK"] {
            assert!(text.contains(column), "{text}");
        }
    }
    Ok(())
}

//! Warnings, from their cause to their end.

use std::process::Command;

use anyhow::{Context, Result};
use miharu_e2e::lxd::Kind;
use miharu_e2e::{Client, Miharud, need, scratch, shell, tls};

/// The warning of a certificate, if there is one.
fn row(client: &Client, args: &str) -> Result<Option<String>> {
    let listed = client.ok(&format!("warning list @ --format csv {args}"))?;
    Ok(listed.lines().find(|row| row.to_lowercase().contains("certificate")).map(str::to_owned))
}

#[test]
fn a_warning_is_listed_shown_acknowledged_and_deleted() -> Result<()> {
    need!(Lxd, Incus, Tls);
    for kind in [Kind::Lxd, Kind::Incus] {
        let daemon = Miharud::start()?;
        let local = Client::local(kind, &daemon.dir)?;
        daemon.listen("core.https_address")?;
        let remote = Client::remote(kind, &local.token("away", "")?)?;
        for client in [&local, &remote] {
            assert_eq!(row(client, "--all")?, None);
            // A certificate that is valid for ten days.
            let dir = scratch::dir("soon")?;
            let line = tls::openssl_line("soon").replace("-days 3650", "-days 10");
            shell::output(Command::new("sh").args(["-c", &line]).current_dir(&dir))?;
            assert_eq!(client.trust(&dir.join("soon.crt"))?.status, Some(0));

            let listed = row(client, "")?.context("no warning")?;
            assert!(listed.contains(",NEW,"), "{listed}");
            let uuid = listed.split(',').next().context("uuid")?;
            let shown = client.ok(&format!("warning show @{uuid}"))?;
            assert!(shown.contains("soon.crt") && shown.contains("severity: "), "{shown}");
            client.ok(&format!("warning acknowledge @{uuid}"))?;
            assert_eq!(row(client, "")?, None, "an acknowledged one is left out");
            assert!(row(client, "--all")?.context("all")?.contains(",ACKNOWLEDGED,"));
            client.ok(&format!("warning delete @{uuid}"))?;
            assert_eq!(client.fails(&format!("warning ack @{uuid}-x"))?, "Warning not found");

            let fingerprint = tls::Certificate { crt: dir.join("soon.crt"), key: dir.join("soon.key") };
            client.ok(&format!("config trust remove @{}", fingerprint.fingerprint()?))?;
            let left = row(client, "")?;
            assert!(left.is_none(), "it is well again: {left:?}");
            if let Some(resolved) = row(client, "--all")? {
                let uuid = resolved.split(',').next().context("uuid")?;
                client.ok(&format!("warning delete @{uuid}"))?;
            }
        }
    }
    Ok(())
}

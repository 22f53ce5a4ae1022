//! Remotes that a token makes, and the page on metrics.

use anyhow::{Context, Result};
use miharu_e2e::lxd::Kind;
use miharu_e2e::tls::{self, Certificate};
use miharu_e2e::{Client, Lxc, Miharud, miharud, need};

fn a_token_makes_a_remote(kind: Kind) -> Result<()> {
    let daemon = Miharud::start()?;
    let (mine, other) = (Lxc::start(&[])?, Lxc::start(&[])?);
    let local = Client::local(kind, &daemon.dir)?;
    let refused = local.token("early", "").err().context("no listener")?;
    assert!(format!("{refused:#}").contains("core.https_address"), "{refused:#}");
    daemon.listen("core.https_address")?;

    let token = local.token("laptop", "")?;
    let laptop = Client::remote(kind, &token)?;
    let seen = laptop.ok("list @ --format csv --columns n")?;
    assert!(seen.contains(&mine.name) && seen.contains(&other.name), "{seen}");
    let again = Client::remote(kind, &token).err().context("a token was used twice")?;
    assert!(format!("{again:#}").contains("not authorized"), "{again:#}");
    let again = laptop.elsewhere(&local.token("again", "")?).err().context("trusted twice")?;
    assert!(format!("{again:#}").contains("already trusted"), "{again:#}");

    let revoked = local.token("desk", "")?;
    local.ok("config trust revoke-token @desk")?;
    assert!(Client::remote(kind, &revoked).is_err(), "a revoked token was taken");

    // A project's path is a word of its name, which may hold no comma.
    let project = format!("lxc:{}", mine.path.display());
    let guest = Client::remote(kind, &local.token("guest", &format!("--restricted --projects {project}"))?)?;
    let seen = guest.ok("list @ --all-projects --format csv --columns n")?;
    assert!(seen.contains(&mine.name) && !seen.contains(&other.name), "{seen}");
    assert!(guest.fails("project create @p1")?.contains("not authorized"));
    assert!(guest.fails("config trust list @")?.contains("not authorized"));

    // The rights end with the entry.
    let listed = local.ok("config trust list --format json")?;
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed)?;
    let entry = listed.iter().find(|entry| entry["name"] == "laptop").context("laptop")?;
    local.ok(&format!("config trust remove {}", entry["fingerprint"].as_str().context("fingerprint")?))?;
    laptop.fails("list @")?;
    Ok(())
}

#[test]
fn a_token_of_lxc_makes_a_remote() -> Result<()> {
    need!(Lxd, Lxc);
    a_token_makes_a_remote(Kind::Lxd)
}

#[test]
fn a_token_of_incus_makes_a_remote() -> Result<()> {
    need!(Incus, Lxc);
    a_token_makes_a_remote(Kind::Incus)
}

#[test]
fn both_walk_their_pages_on_metrics() -> Result<()> {
    need!(Lxd, Incus, Lxc, Tls);
    let container = Lxc::start(&[])?;
    for kind in [Kind::Lxd, Kind::Incus] {
        let daemon = Miharud::start()?;
        let client = Client::local(kind, &daemon.dir)?;
        let address = format!("127.0.0.1:{}", miharud::free_port()?);
        client.ok(&format!("config set core.metrics_address {address}"))?;
        let certificate = Certificate::create("metrics")?;
        let server = daemon.dir.join("server.crt");
        let status = || tls::ask(&address, "/1.0/metrics", &server, Some(&certificate), &[]);
        assert_eq!(status()?.status, 403);
        assert_eq!(client.trust(&certificate.crt)?.status, Some(0));
        let reply = status()?;
        assert_eq!(reply.status, 200);
        assert!(reply.text().contains(&container.name), "{kind:?}");
        assert!(client.ok("query /1.0/metrics")?.contains(&container.name), "{kind:?}");
        client.ok("config set core.metrics_authentication false")?;
        assert_eq!(tls::ask(&address, "/1.0/metrics", &server, None, &[])?.status, 200);
        client.ok("config unset core.metrics_address")?;
        assert!(status().is_err(), "unset stops listening");
    }
    Ok(())
}

//! Who may see what, on every listener, with certificates made by the line of the Incus page; and the metrics listener's
//! address set, moved, unset and refused.

use std::net::TcpListener;

use anyhow::{Context, Result};
use miharu_e2e::miharud::Reply;
use miharu_e2e::tls::Certificate;
use miharu_e2e::{Exposition, Lxc, Miharud, need, tls};
use serde_json::json;

/// A daemon with both listeners, two containers of different projects, one certificate of each kind, and one bearer token of each.
struct World {
    daemon: Miharud,
    https: String,
    metrics: String,
    mine: Lxc,
    other: Lxc,
    certificates: Vec<(Who, Option<Certificate>)>,
    /// The bearer tokens; who has one shows no certificate.
    tokens: Vec<(Who, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Unknown,
    Metrics,
    RestrictedMetrics,
    Client,
    RestrictedClient,
    Token,
    RestrictedToken,
}

impl World {
    fn create() -> Result<Self> {
        let (mine, other) = (Lxc::start(&[])?, Lxc::start(&[])?);
        let daemon = Miharud::start()?;
        let https = daemon.listen("core.https_address")?;
        let metrics = daemon.listen("core.metrics_address")?;
        let project = project(&mine);
        let mut certificates =
            vec![(Who::Nobody, None), (Who::Unknown, Some(Certificate::create("unknown")?))];
        for (who, kind, restricted) in [
            (Who::Metrics, "metrics", false),
            (Who::RestrictedMetrics, "metrics", true),
            (Who::Client, "client", false),
            (Who::RestrictedClient, "client", true),
        ] {
            let certificate = Certificate::create(&format!("{who:?}"))?;
            let file = certificate.crt.to_str().context("path")?;
            let kind = format!("--type={kind}");
            let mut args = vec!["config", "trust", "add-certificate", file, &kind];
            if restricted {
                args.extend(["--restricted", "--projects", &project]);
            }
            daemon.miharu(&args)?;
            certificates.push((who, Some(certificate)));
        }
        let mut tokens = Vec::new();
        for (who, restriction) in
            [(Who::Token, &[][..]), (Who::RestrictedToken, &["--restricted", "--projects", &project])]
        {
            let words = ["-q", "config", "trust", "add-token", "scraper", "--type=metrics"];
            let secret = daemon.miharu(&[&words, restriction].concat())?;
            certificates.push((who, None));
            tokens.push((who, format!("Authorization: Bearer {}", secret.trim())));
        }
        Ok(Self { daemon, https, metrics, mine, other, certificates, tokens })
    }

    fn ask(&self, address: &str, who: Who, method: &str, path: &str, body: &str) -> Result<Reply> {
        let (_, certificate) = self.certificates.iter().find(|(one, _)| *one == who).context("who")?;
        let mut args = vec!["-X", method];
        if let Some((_, header)) = self.tokens.iter().find(|(one, _)| *one == who) {
            args.extend(["-H", header]);
        }
        if !body.is_empty() {
            args.extend(["-H", "Content-Type: application/json", "--data-binary", body]);
        }
        tls::ask(address, path, &self.daemon.dir.join("server.crt"), certificate.as_ref(), &args)
    }

    fn scrape(&self, address: &str, who: Who, query: &str) -> Result<Exposition> {
        let reply = self.ask(address, who, "GET", &format!("/1.0/metrics{query}"), "")?;
        Exposition::parse(&reply.text()).with_context(|| format!("{who:?}: {}", reply.text()))
    }
}

fn project(lxc: &Lxc) -> String {
    format!("lxc:{}", lxc.path.display())
}

/// What a cell of the table can be.
fn status(reply: &Reply) -> u16 {
    if reply.status >= 400 {
        // An error says the same in its envelope.
        let body = reply.json().unwrap_or_default();
        assert_eq!(body["error_code"], reply.status, "{}", reply.text());
        assert_eq!(body["type"], "error", "{}", reply.text());
    }
    reply.status
}

#[test]
fn every_cell_of_the_rights_table_holds() -> Result<()> {
    need!(Lxc, Tls);
    let world = World::create()?;
    let empty = json!({"config": {}}).to_string();
    let certificate =
        json!({"type": "metrics", "certificate": Certificate::create("new")?.base64()?}).to_string();
    // Method, path, body, and the answer for Nobody, Unknown, Metrics, RestrictedMetrics, Client, RestrictedClient,
    // Token and RestrictedToken.
    let history = format!("/1.0/instances/{}/history", world.mine.name);
    let others = format!("/1.0/instances/{}/history", world.other.name);
    let https: [(&str, &str, &str, [u16; 8]); 12] = [
        ("GET", "/", "", [200, 200, 200, 200, 200, 200, 200, 200]),
        ("GET", "/1.0", "", [200, 200, 200, 200, 200, 200, 200, 200]),
        ("GET", "/1.0/metrics", "", [403, 403, 200, 200, 200, 200, 200, 200]),
        ("GET", "/1.0/usage", "", [403, 403, 200, 200, 200, 200, 200, 200]),
        ("GET", &history, "", [403, 403, 200, 200, 200, 200, 200, 200]),
        ("GET", &others, "", [403, 403, 200, 404, 200, 404, 200, 404]),
        ("GET", "/1.0/instances", "", [403, 403, 403, 403, 200, 200, 403, 403]),
        ("GET", "/1.0/projects", "", [403, 403, 403, 403, 200, 200, 403, 403]),
        ("GET", "/1.0/operations", "", [403, 403, 403, 403, 200, 200, 403, 403]),
        ("PATCH", "/1.0", &empty, [403, 403, 403, 403, 200, 403, 403, 403]),
        ("POST", "/1.0/projects", "{\"name\":\"declared\"}", [403, 403, 403, 403, 201, 403, 403, 403]),
        ("POST", "/1.0/certificates", &certificate, [403, 403, 403, 403, 201, 403, 403, 403]),
    ];
    for (method, path, body, cells) in https {
        for ((who, _), expected) in world.certificates.iter().zip(cells) {
            let reply = world.ask(&world.https, *who, method, path, body)?;
            assert_eq!(status(&reply), expected, "https: {who:?} {method} {path}: {}", reply.text());
        }
    }
    // What is refused of the page is a page, that says what to do.
    for ((who, _), expected) in world.certificates.iter().zip([403, 403, 403, 403, 200, 200, 403, 403]) {
        let reply = world.ask(&world.https, *who, "GET", "/ui/", "")?;
        assert_eq!(reply.status, expected, "{who:?}: {}", reply.text());
        assert_eq!(reply.headers["content-type"], "text/html; charset=utf-8", "{who:?}");
        assert!(reply.headers["content-security-policy"].starts_with("default-src 'none'"), "{who:?}");
        assert_eq!(reply.text().contains("miharu webui"), expected == 403, "{who:?}: {}", reply.text());
    }
    let metrics: [(&str, &str, [u16; 8]); 10] = [
        ("GET", "/", [200, 200, 200, 200, 200, 200, 200, 200]),
        ("GET", "/1.0", [200, 200, 200, 200, 200, 200, 200, 200]),
        ("GET", "/1.0/metrics", [403, 403, 200, 200, 200, 200, 200, 200]),
        ("GET", "/1.0/instances", [404, 404, 404, 404, 404, 404, 404, 404]),
        ("GET", "/1.0/usage", [404, 404, 404, 404, 404, 404, 404, 404]),
        ("GET", "/ui/", [404, 404, 404, 404, 404, 404, 404, 404]),
        ("GET", "/1.0/operations", [404, 404, 404, 404, 404, 404, 404, 404]),
        ("GET", "/1.0/projects", [404, 404, 404, 404, 404, 404, 404, 404]),
        ("GET", "/1.0/certificates", [404, 404, 404, 404, 404, 404, 404, 404]),
        ("GET", "/internal/ready", [404, 404, 404, 404, 404, 404, 404, 404]),
    ];
    for (method, path, cells) in metrics {
        for ((who, _), expected) in world.certificates.iter().zip(cells) {
            let reply = world.ask(&world.metrics, *who, method, path, "")?;
            assert_eq!(status(&reply), expected, "metrics: {who:?} {method} {path}: {}", reply.text());
        }
    }
    // The unix socket needs no certificate.
    for path in ["/", "/1.0", "/1.0/metrics", "/1.0/instances", "/1.0/projects", "/1.0/certificates"] {
        assert_eq!(world.daemon.get(path)?.status, 200, "{path}");
    }
    Ok(())
}

#[test]
fn what_each_may_read_is_limited_to_its_rights() -> Result<()> {
    need!(Lxc, Tls);
    let world = World::create()?;
    let auth = |who| -> Result<(String, bool)> {
        let body = world.ask(&world.https, who, "GET", "/1.0", "")?.json()?;
        let auth = body["metadata"]["auth"].as_str().context("auth")?.to_owned();
        Ok((auth, body["metadata"]["config"].as_object().is_some_and(|config| !config.is_empty())))
    };
    for who in
        [Who::Nobody, Who::Unknown, Who::Metrics, Who::RestrictedMetrics, Who::Token, Who::RestrictedToken]
    {
        assert_eq!(auth(who)?, ("untrusted".to_owned(), false), "{who:?}");
    }
    assert_eq!(auth(Who::Client)?, ("trusted".to_owned(), true));
    assert_eq!(auth(Who::RestrictedClient)?, ("trusted".to_owned(), false));

    let (mine, other) = (world.mine.name.as_str(), world.other.name.as_str());
    for address in [&world.https, &world.metrics] {
        for who in [Who::Metrics, Who::Client, Who::Token] {
            let all = world.scrape(address, who, "")?;
            assert!(all.instances().contains(mine) && all.instances().contains(other), "{who:?}");
            assert!(all.family("incus_uptime_seconds").is_some());
            let one = world.scrape(address, who, &format!("?project={}", project(&world.mine)))?;
            assert!(one.instances().contains(mine) && !one.instances().contains(other), "{who:?}");
            let none = world.scrape(address, who, "?project=nowhere")?;
            assert!(none.instances().is_empty() && none.family("incus_uptime_seconds").is_some(), "{who:?}");
        }
        for who in [Who::RestrictedMetrics, Who::RestrictedClient, Who::RestrictedToken] {
            for query in [String::new(), format!("?project={}", project(&world.mine))] {
                let own = world.scrape(address, who, &query)?;
                assert!(own.instances().contains(mine), "{who:?}");
                assert!(own.instances().iter().all(|name| name == mine), "{who:?}: {:?}", own.instances());
                assert!(own.family("incus_uptime_seconds").is_none(), "{who:?} sees the server's figures");
            }
            let foreign = world.ask(
                address,
                who,
                "GET",
                &format!("/1.0/metrics?project={}", project(&world.other)),
                "",
            )?;
            assert_eq!(foreign.status, 200, "outside the rights is no error");
            assert!(!foreign.text().contains(other), "{who:?}");
        }
    }
    let usage = |who| world.ask(&world.https, who, "GET", "/1.0/usage", "").map(|reply| reply.text());
    for who in [Who::Metrics, Who::Client, Who::Token] {
        assert!(usage(who)?.contains(mine) && usage(who)?.contains(other), "{who:?}");
    }
    for who in [Who::RestrictedMetrics, Who::RestrictedClient, Who::RestrictedToken] {
        assert!(usage(who)?.contains(mine) && !usage(who)?.contains(other), "{who:?}");
    }
    let listed =
        world.ask(&world.https, Who::RestrictedClient, "GET", "/1.0/instances?recursion=1", "")?.text();
    assert!(listed.contains(mine) && !listed.contains(other), "{listed}");
    Ok(())
}

#[test]
fn with_authentication_off_everybody_gets_all_metrics_and_nothing_more() -> Result<()> {
    need!(Lxc, Tls);
    let world = World::create()?;
    world.daemon.miharu(&["config", "set", "core.metrics_authentication", "false"])?;
    for address in [&world.https, &world.metrics] {
        for (who, _) in &world.certificates {
            let all = world.scrape(address, *who, "")?;
            assert!(all.instances().contains(&world.other.name), "{who:?}");
            assert!(all.family("incus_uptime_seconds").is_some(), "{who:?}");
        }
    }
    assert_eq!(world.ask(&world.https, Who::Nobody, "GET", "/1.0/instances", "")?.status, 403);
    // Unset is the default again, and that is on; LXD 5.0.2 turns authentication off here.
    world.daemon.miharu(&["config", "unset", "core.metrics_authentication"])?;
    assert_eq!(world.ask(&world.metrics, Who::Nobody, "GET", "/1.0/metrics", "")?.status, 403);
    Ok(())
}

#[test]
fn a_certificate_that_left_the_trust_store_or_expired_counts_no_more() -> Result<()> {
    need!(Tls);
    let daemon = Miharud::start()?;
    let address = daemon.listen("core.metrics_address")?;
    let server = daemon.dir.join("server.crt");
    let client = Certificate::create("metrics")?;
    let file = client.crt.to_str().context("path")?;
    let status = |client: &Certificate| {
        tls::ask(&address, "/1.0/metrics", &server, Some(client), &[]).map(|reply| reply.status)
    };
    daemon.miharu(&["config", "trust", "add-certificate", file, "--type=metrics"])?;
    assert_eq!(status(&client)?, 200);
    daemon.miharu(&["config", "trust", "remove", &client.fingerprint()?[..12]])?;
    assert_eq!(status(&client)?, 403);

    let expired = Certificate::expired("expired")?;
    let crt = expired.crt.to_str().context("path")?;
    // Whether it is refused at once or kept for later, it opens nothing.
    let _ = daemon.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"]);
    assert_eq!(status(&expired)?, 403);
    Ok(())
}

#[test]
fn the_metrics_address_is_set_moved_refused_and_unset() -> Result<()> {
    need!(Tls);
    let daemon = Miharud::start()?;
    let server = daemon.dir.join("server.crt");
    let serves =
        |address: &str| tls::ask(address, "/1.0", &server, None, &[]).is_ok_and(|reply| reply.status == 200);
    let first = daemon.listen("core.metrics_address")?;
    assert!(serves(&first));
    let second = daemon.listen("core.metrics_address")?;
    assert!(serves(&second) && !serves(&first), "moved");

    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let refused = daemon.miharu(&["config", "set", "core.metrics_address", &address]);
    let error = format!("{:#}", refused.err().context("a taken port was accepted")?);
    assert!(error.contains(&address), "{error}");
    assert!(serves(&second), "the old one goes on serving");
    assert_eq!(
        daemon.miharu(&["config", "get", "core.metrics_address"])?.trim(),
        second,
        "what failed is not stored"
    );

    // At a start the port may be taken as well: the daemon comes up all the same.
    let dir = daemon.dir.clone();
    daemon.stop()?;
    let squatter = TcpListener::bind(&second)?;
    let daemon = Miharud::in_dir(&dir, &[])?;
    assert_eq!(daemon.get("/1.0/metrics")?.status, 200);
    drop(squatter);
    daemon.miharu(&["config", "unset", "core.metrics_address"])?;
    assert!(!serves(&second), "unset");
    Ok(())
}

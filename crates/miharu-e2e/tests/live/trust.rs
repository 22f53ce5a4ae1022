//! How one comes to be trusted, over the network: join tokens, bearer tokens, an authority made with openssl, and the job that
//! `miharu prometheus` prints, in a Prometheus.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::prometheus::Prometheus;
use miharu_e2e::terminal::Terminal;
use miharu_e2e::tls::{self, Certificate};
use miharu_e2e::{Lxc, Miharud, need, scratch, shell};
use serde_json::{Value, json};

const METRICS: &str = "/1.0/metrics";

fn status(
    daemon: &Miharud,
    address: &str,
    client: Option<&Certificate>,
    args: &[&str],
    path: &str,
) -> Result<u16> {
    Ok(tls::ask(address, path, &daemon.dir.join("server.crt"), client, args)?.status)
}

fn bearer(token: &str) -> [String; 2] {
    ["-H".to_owned(), format!("Authorization: Bearer {token}")]
}

fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Shows a join token as the clients do.
fn join(daemon: &Miharud, address: &str, client: &Certificate, token: &str) -> Result<(u16, String)> {
    let body = json!({"name": "", "type": "client", "restricted": false, "projects": null, "certificate": "",
                      "password": token, "token": false});
    let args = ["-X", "POST", "--data-binary", &body.to_string()];
    let reply = tls::ask(address, "/1.0/certificates", &daemon.dir.join("server.crt"), Some(client), &args)?;
    Ok((reply.status, reply.json()?["error"].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn a_join_token_works_once_and_over_a_restart() -> Result<()> {
    need!(Tls);
    let daemon = Miharud::start()?;
    let refused = daemon.miharu(&["config", "trust", "add", "laptop"]);
    assert!(format!("{:#}", refused.err().context("no listener")?).contains("core.https_address"));
    let https = daemon.listen("core.https_address")?;
    daemon.miharu(&["config", "set", "core.remote_token_expiry", "1H"])?;
    let token = daemon.miharu(&["-q", "config", "trust", "add", "laptop"])?.trim().to_owned();
    let read: Value =
        serde_json::from_str(&shell::run("sh", ["-c", &format!("printf %s {token} | base64 -d")])?)?;
    assert_eq!((&read["client_name"], &read["addresses"]), (&json!("laptop"), &json!([https])));
    let server = Certificate { crt: daemon.dir.join("server.crt"), key: daemon.dir.join("server.key") };
    assert_eq!(read["fingerprint"], json!(server.fingerprint()?));
    let second = daemon.miharu(&["-q", "config", "trust", "add", "--name", "desk"])?.trim().to_owned();
    assert!(daemon.get(METRICS)?.text().contains("\nincus_operations_total 2\n"));
    let listed = daemon.miharu(&["config", "trust", "list-tokens", "--format", "csv"])?;
    assert!(listed.contains(&format!("laptop,{token},")) && listed.contains("desk,"), "{listed}");
    assert!(!daemon.log().contains(read["secret"].as_str().context("secret")?), "the secret is in the log");

    let dir = daemon.dir.clone();
    daemon.stop()?;
    let daemon = Miharud::in_dir(&dir, &[])?;
    let (first, other) = (Certificate::create("first")?, Certificate::create("other")?);
    let wrong = "not authorized: the token is wrong, or it was used or revoked".to_owned();
    assert_eq!(join(&daemon, &https, &first, "rubbish")?, (403, wrong.clone()));
    assert_eq!(status(&daemon, &https, Some(&first), &[], "/1.0/instances")?, 403);
    assert_eq!(join(&daemon, &https, &first, &token)?, (201, String::new()));
    assert_eq!(status(&daemon, &https, Some(&first), &[], "/1.0/instances")?, 200);
    assert_eq!(join(&daemon, &https, &other, &token)?, (403, wrong.clone()));
    daemon.miharu(&["config", "trust", "revoke-token", "desk"])?;
    assert_eq!(join(&daemon, &https, &other, &second)?, (403, wrong));
    let entry = daemon.miharu(&["config", "trust", "list", "--format", "csv"])?;
    assert!(entry.starts_with("client,laptop,metrics.local,") && entry.lines().count() == 1, "{entry}");
    assert_eq!(daemon.miharu(&["operation", "list", "--format", "csv"])?, "");
    Ok(())
}

#[test]
fn a_bearer_token_reads_metrics_on_both_listeners_and_nothing_else() -> Result<()> {
    need!(Lxc, Tls);
    let (mine, other) = (Lxc::start(&[])?, Lxc::start(&[])?);
    let project = format!("lxc:{}", mine.path.display());
    let daemon = Miharud::start()?;
    let (https, metrics) = (daemon.listen("core.https_address")?, daemon.listen("core.metrics_address")?);
    let all =
        daemon.miharu(&["-q", "config", "trust", "add-token", "all", "--type=metrics"])?.trim().to_owned();
    let one = [
        "-q",
        "config",
        "trust",
        "add-token",
        "one",
        "--restricted",
        "--projects",
        &project,
        "--expiry",
        "1d",
    ];
    let one = daemon.miharu(&one)?.trim().to_owned();

    let dir = daemon.dir.clone();
    daemon.stop()?;
    let daemon = Miharud::in_dir(&dir, &[])?;
    let server = daemon.dir.join("server.crt");
    for (address, elsewhere) in [(&https, 403), (&metrics, 404)] {
        for (token, sees_all) in [(&all, true), (&one, false)] {
            let args = bearer(token);
            let text = tls::ask(address, METRICS, &server, None, &words(&args))?.text();
            assert!(text.contains(&mine.name), "{address}: {text}");
            assert_eq!(text.contains(&other.name), sees_all, "{address}");
            assert_eq!(text.contains("incus_uptime_seconds"), sees_all, "{address}");
            for path in ["/", "/1.0"] {
                assert_eq!(status(&daemon, address, None, &words(&args), path)?, 200);
            }
            for path in
                ["/1.0/instances", "/1.0/certificates", "/1.0/operations", "/1.0/events", "/1.0/warnings"]
            {
                assert_eq!(
                    status(&daemon, address, None, &words(&args), path)?,
                    elsewhere,
                    "{address}{path}"
                );
            }
        }
        let wrong = bearer(&format!("{all}x"));
        assert_eq!(status(&daemon, address, None, &words(&wrong), METRICS)?, 403);
    }
    let listed = daemon.miharu(&["config", "trust", "list", "--format", "csv"])?;
    let line =
        listed.lines().find(|line| line.starts_with("metrics,all,bearer token,")).context(listed.clone())?;
    let fingerprint = line.split(',').nth(3).context("fingerprint")?;
    daemon.miharu(&["config", "trust", "remove", fingerprint])?;
    assert_eq!(status(&daemon, &metrics, None, &words(&bearer(&all)), METRICS)?, 403);
    assert_eq!(status(&daemon, &metrics, None, &words(&bearer(&one)), METRICS)?, 200);
    assert!(!daemon.log().contains(&all) && !daemon.log().contains(&one), "a secret is in the log");
    let database = fs::read(dir.join("miharu.db"))?;
    assert!(
        !database.windows(one.len()).any(|window| window == one.as_bytes()),
        "a secret is in the database"
    );
    Ok(())
}

#[test]
fn prometheus_scrapes_with_the_job_that_miharu_prints() -> Result<()> {
    need!(Prometheus, Lxc, Tls);
    let (mine, other) = (Lxc::start(&[])?, Lxc::start(&[])?);
    let project = format!("lxc:{}", mine.path.display());
    let daemon = Miharud::start()?;
    let unset = daemon.miharu(&["prometheus", "scrape-config"]);
    assert!(format!("{:#}", unset.err().context("nothing listens")?).contains("core.metrics_address"));
    daemon.listen("core.metrics_address")?;

    for (args, sees_other) in [(&[][..], true), (&["--token", "--project", &project], false)] {
        let dir = scratch::dir("prometheus")?;
        fs::create_dir(dir.join("tls"))?;
        fs::copy(daemon.dir.join("server.crt"), dir.join("tls/server.crt"))?;
        if args.is_empty() {
            let client = Certificate::create_in(&dir.join("tls"), "metrics")?;
            let crt = client.crt.to_str().context("path")?;
            daemon.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
        } else {
            let token = daemon.miharu(&["-q", "config", "trust", "add-token", "prom", "--type=metrics"])?;
            fs::write(dir.join("tls/miharu.token"), token)?;
        }
        let printed = daemon.miharu(&[&["prometheus", "scrape-config"], args].concat())?;
        // promtool takes what was printed as it is; only the pause between scrapes is made shorter for the test.
        fs::write(dir.join("printed.yml"), &printed)?;
        shell::run("promtool", ["check".as_ref(), "config".as_ref(), dir.join("printed.yml").as_os_str()])?;
        let prometheus = Prometheus::start(dir, &format!("global:\n  scrape_interval: 1s\n{printed}"))?;
        let found = |query: &str| prometheus.query(query).ok().filter(|found| !found.is_empty());
        shell::wait_for("a scrape", Duration::from_secs(20), || found("up{job=\"miharu\"} == 1"))
            .with_context(|| format!("{:#?}", prometheus.targets()))?;
        let of = |name: &str| prometheus.query(&format!("incus_procs_total{{name=\"{name}\"}}"));
        assert_eq!(
            (of(&mine.name)?.len(), of(&other.name)?.len()),
            (1, usize::from(sees_other)),
            "{printed}"
        );
    }
    Ok(())
}

/// An authority made with openssl, in a folder.
struct Authority(PathBuf);

impl Authority {
    fn create() -> Result<Self> {
        let ca = Self(scratch::dir("ca")?);
        fs::write(ca.0.join("index"), "")?;
        fs::write(
            ca.0.join("config"),
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\nrand_serial=yes\npolicy=p\ndefault_md=sha256\n\
             default_days=30\ndefault_crl_days=30\ncertificate=ca.crt\nprivate_key=ca.key\n[p]\ncommonName=supplied\n",
        )?;
        ca.run(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=authority \
             -addext keyUsage=critical,keyCertSign,cRLSign",
        )?;
        Ok(ca)
    }

    fn run(&self, line: &str) -> Result<String> {
        shell::output(Command::new("/bin/sh").args(["-c", line]).current_dir(&self.0))
    }

    fn sign(&self, name: &str) -> Result<Certificate> {
        self.run(&format!(
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name} && \
             openssl ca -batch -config config -in {name}.csr -notext -out {name}.crt"
        ))?;
        Ok(Certificate { crt: self.0.join(format!("{name}.crt")), key: self.0.join(format!("{name}.key")) })
    }

    /// The list of what is revoked, PEM and DER.
    fn revoke(&self, name: &str) -> Result<[PathBuf; 2]> {
        self.run(&format!(
            "openssl ca -config config -revoke {name}.crt && openssl ca -config config -gencrl -out crl.pem && \
             openssl crl -in crl.pem -outform DER -out crl.der"
        ))?;
        Ok([self.0.join("crl.pem"), self.0.join("crl.der")])
    }
}

/// Puts a file into the daemon's folder in one step, as an administrator should.
fn place(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    fs::copy(from, &new)?;
    Ok(fs::rename(new, to)?)
}

#[test]
fn an_authority_is_noticed_obeyed_and_never_guessed_at() -> Result<()> {
    need!(Tls);
    let daemon = Miharud::start()?;
    let metrics = daemon.listen("core.metrics_address")?;
    let ca = Authority::create()?;
    let (listed, unlisted, foreign) =
        (ca.sign("listed")?, ca.sign("unlisted")?, Certificate::create("foreign")?);
    for client in [&listed, &foreign] {
        let crt = client.crt.to_str().context("path")?;
        daemon.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics"])?;
    }
    let statuses = || -> Result<[u16; 3]> {
        let of = |client| status(&daemon, &metrics, Some(client), &[], METRICS);
        Ok([of(&listed)?, of(&unlisted)?, of(&foreign)?])
    };
    let becomes = |expected: [u16; 3], why: &str| {
        shell::wait_for(why, Duration::from_secs(15), || statuses().ok().filter(|now| *now == expected))
            .with_context(|| format!("{:?}", statuses()))
    };
    assert_eq!(statuses()?, [200, 403, 200]);
    place(&ca.0.join("ca.crt"), &daemon.dir.join("server.ca"))?;
    becomes([200, 403, 403], "the authority in force")?;
    let crt = foreign.crt.to_str().context("path")?;
    let refused =
        daemon.miharu(&["config", "trust", "add-certificate", crt, "--type=metrics", "--name", "again"]);
    assert!(format!("{:#}", refused.err().context("not signed")?).contains("server.ca"));
    daemon.miharu(&["config", "set", "core.trust_ca_certificates", "true"])?;
    becomes([200, 200, 403], "signed ones trusted")?;
    for list in ca.revoke("listed")? {
        place(&list, &daemon.dir.join("ca.crl"))?;
        becomes([403, 200, 403], "the revoked one refused")?;
        fs::remove_file(daemon.dir.join("ca.crl"))?;
        becomes([200, 200, 403], "nothing revoked")?;
    }
    for file in ["ca.crl", "server.ca"] {
        fs::write(daemon.dir.join(file), "rubbish")?;
        becomes([403, 403, 403], "nobody let in by a broken file")?;
        assert!(daemon.log().contains(&format!("{file}: no ")), "{}", daemon.log());
        assert_eq!(daemon.get(METRICS)?.status, 200, "the socket asks for no certificate");
        fs::remove_file(daemon.dir.join(file))?;
        becomes(if file == "ca.crl" { [200, 200, 403] } else { [200, 403, 200] }, "the broken file gone")?;
    }
    Ok(())
}

#[test]
fn an_entry_is_edited_by_a_program_or_in_an_editor() -> Result<()> {
    need!(Tls);
    let daemon = Miharud::start()?;
    let client = Certificate::create("scraper")?;
    let file = client.crt.to_str().context("a path")?;
    daemon.miharu(&["config", "trust", "add-certificate", file, "--name=before", "--type=metrics"])?;
    let fingerprint = client.fingerprint()?;
    let shown = || daemon.miharu(&["config", "trust", "show", &fingerprint]);
    let piped = |text: &str| -> Result<String> {
        let input = scratch::dir("entry")?.join("entry.yaml");
        fs::write(&input, text)?;
        let program = daemon.command()?;
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$0\" config trust edit \"$1\" <\"$2\""]).arg(program.get_program());
        shell::output(shell.arg(&fingerprint).arg(&input).env("MIHARU_DIR", &daemon.dir))
    };
    piped(&shown()?.replace("name: before", "name: piped"))?;
    assert!(shown()?.contains("name: piped\n"), "{}", shown()?);
    for nonsense in ["", "- no\n- entry\n", "name: [", "name: x\ntype: nothing\n"] {
        let error = piped(nonsense).err().with_context(|| format!("{nonsense:?} was taken"))?;
        assert!(format!("{error:#}").contains("Error: "), "{error:#}");
    }
    assert!(shown()?.contains("name: piped\n"), "{}", shown()?);

    let edited = |editor: &str| -> Result<(bool, String)> {
        let program = daemon.command()?;
        let mut terminal = Terminal::start(24, 120, |command| {
            command.arg(program.get_program()).args(["config", "trust", "edit", &fingerprint]);
            command.env("MIHARU_DIR", &daemon.dir).env_remove("VISUAL").env("EDITOR", editor);
        })?;
        Ok((terminal.end()?.success(), terminal.text()))
    };
    let (is_well, text) = edited("sed -i -e 's/^name: piped/name: edited/'")?;
    assert!(is_well && shown()?.contains("name: edited\n"), "{text}: {}", shown()?);
    let (is_well, text) = edited("sed -i -e 's/^name: edited/name: never/' -e '$q7'")?;
    assert!(!is_well && text.contains("nothing was changed"), "{text}");
    // Who changes nothing sends nothing, and who comes second is told.
    assert!(edited("true")?.0);
    let other = format!(
        "miharu() {{ '{}' \"$@\"; }}; miharu config trust show {fingerprint} | sed 's/^name: edited/name: other/' \
         | miharu config trust edit {fingerprint}; sed -i -e 's/^name: edited/name: late/'",
        daemon.command()?.get_program().display()
    );
    let (is_well, text) = edited(&other)?;
    assert!(!is_well && text.contains("Somebody else changed the entry"), "{text}");
    assert!(shown()?.contains("name: other\n"), "{}", shown()?);
    Ok(())
}

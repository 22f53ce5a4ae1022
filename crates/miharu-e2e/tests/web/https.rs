//! The page over HTTPS, with a client certificate that the browser has in its own store, and without one.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use miharu_e2e::tls::Certificate;
use miharu_e2e::{Browser, Miharud, browser, need, scratch, shell};
use serde_json::json;

use crate::common::{Host, content, prepare, usual_names};

/// A browser that shows this certificate to whoever asks, without a question to a person: a policy says so, which only this browser
/// finds where policies are, as it has a view of its own of the file system.
fn with_certificate(certificate: &Certificate) -> Result<Browser> {
    let home = scratch::dir("browser")?;
    let store = home.join(".pki/nssdb");
    fs::create_dir_all(&store)?;
    let store = format!("sql:{}", store.display());
    shell::run("certutil", ["-d", &store, "-N", "--empty-password"])?;
    let both = path(&home.join("both.p12"))?;
    let (crt, key) = (path(&certificate.crt)?, path(&certificate.key)?);
    shell::run(
        "openssl",
        ["pkcs12", "-export", "-in", &crt, "-inkey", &key, "-out", &both, "-passout", "pass:x"],
    )?;
    shell::run("pk12util", ["-d", &store, "-i", &both, "-W", "x"])?;
    let policies = home.join("etc/policies/managed");
    fs::create_dir_all(&policies)?;
    let rule = json!({ "pattern": "*", "filter": {} }).to_string();
    fs::write(policies.join("miharu.json"), json!({ "AutoSelectCertificateForUrls": [rule] }).to_string())?;
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/chromium && exec chromium \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(home.join("etc"));
    Browser::with(browser::Plan { args: args(), command: Some(command), home: Some(home) })
}

/// The server's certificate is one of its own making. The clients that people use pin it; a browser asks them once.
fn args() -> Vec<String> {
    vec!["--ignore-certificate-errors".to_owned()]
}

fn path(path: &Path) -> Result<String> {
    Ok(path.to_str().context("path")?.to_owned())
}

fn serve(host: &Host) -> Result<(Miharud, String)> {
    let daemon = host.serve()?;
    let address = daemon.listen("core.https_address")?;
    Ok((daemon, format!("https://{address}/ui/")))
}

#[test]
fn a_trusted_certificate_in_the_browser_opens_the_page() -> Result<()> {
    need!(Browser, BrowserCertificates, Tls, Containers);
    let host = Host::make(&usual_names())?;
    let (daemon, url) = serve(&host)?;
    let certificate = Certificate::create("browser")?;
    daemon.miharu(&["config", "trust", "add-certificate", &path(&certificate.crt)?, "--type=client"])?;
    let mut browser = with_certificate(&certificate)?;
    prepare(&mut browser)?;
    browser.go(&url)?;
    browser.wait("instances", "document.querySelectorAll('.instances tbody tr').length === 8")?;
    browser.wait("life", "document.getElementById('state').dataset.state === 'live'")?;
    content(&mut browser, "over HTTPS")
}

#[test]
fn who_shows_no_certificate_is_told_what_to_do() -> Result<()> {
    need!(Browser, Tls);
    let host = Host::make(&usual_names())?;
    let (_daemon, url) = serve(&host)?;
    let mut browser = Browser::with(browser::Plan { args: args(), ..browser::Plan::default() })?;
    browser.go(&url)?;
    let text = browser.text("document.body.innerText")?;
    assert!(text.contains("miharu webui") && text.contains("証明書"), "{text}");
    assert_eq!(browser.eval("document.scripts.length")?, json!(0));
    browser.picture("web-refused")?;
    Ok(())
}

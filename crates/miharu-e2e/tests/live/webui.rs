//! `miharu webui`: the page and what it reads, for the browser that brought the token, and for nobody else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::miharud::Reply;
use miharu_e2e::scratch::{Entry, Note};
use miharu_e2e::{Miharud, shell};

/// A running `miharu webui`, killed on drop.
struct Webui {
    child: Child,
    address: String,
    /// Path and query that open it.
    first: String,
    _note: Note,
}

impl Webui {
    fn start(daemon: &Miharud) -> Result<Self> {
        let mut command = daemon.command()?;
        command.args(["webui", "--no-browser", "--address", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut child = command.spawn().context("miharu")?;
        let note = Entry::Process(child.id()).note()?;
        let output = child.stdout.take().context("stdout")?;
        let url = BufReader::new(output).lines().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("http://")?;
            rest.split_once('/').map(|(address, path)| (address.to_owned(), format!("/{path}")))
        });
        let mut webui = Self { child, address: String::new(), first: String::new(), _note: note };
        (webui.address, webui.first) = url.context("it named no address")?;
        Ok(webui)
    }

    fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Result<Reply> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(shell::patient(Duration::from_secs(20))))?;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        write!(stream, "{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n")?;
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw)?;
        Reply::parse(&raw)
    }

    fn host(&self) -> String {
        format!("Host: {}", self.address)
    }
}

impl Drop for Webui {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_page_is_for_the_browser_that_brought_the_token() -> Result<()> {
    let daemon = Miharud::start()?;
    let webui = Webui::start(&daemon)?;
    let host = webui.host();
    let status = |method: &str, path: &str, headers: &[&str]| -> Result<u16> {
        Ok(webui.ask(method, path, headers)?.status)
    };
    assert_eq!(status("GET", &webui.first, &["Host: evil.example"])?, 421);
    assert_eq!(status("GET", "/ui/?token=0", &[&host])?, 403);
    assert_eq!(status("GET", "/ui/", &[&host])?, 403);
    assert_eq!(status("GET", "/1.0/usage", &[&host])?, 403);

    let reply = webui.ask("GET", &webui.first, &[&host])?;
    assert_eq!((reply.status, reply.headers["location"].as_str()), (303, "/ui/"));
    let set = &reply.headers["set-cookie"];
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let cookie = format!("Cookie: {}", set.split(';').next().context("cookie")?);
    let mine = [host.as_str(), cookie.as_str()];
    assert_eq!(status("GET", &webui.first, &[&host])?, 403, "the token works once");

    let page = webui.ask("GET", "/ui/", &mine)?;
    assert_eq!(page.status, 200);
    assert!(page.headers["content-security-policy"].contains("script-src 'self'"));
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let tag = format!("If-None-Match: {}", page.headers["etag"]);
    assert_eq!(status("GET", "/ui/", &[&host, &cookie, &tag])?, 304);
    let usage = webui.ask("GET", "/1.0/usage?recent=true", &mine)?;
    assert_eq!(usage.json()?["status_code"], 200, "{}", usage.text());
    assert_eq!(usage.headers["x-content-type-options"], "nosniff");
    for path in ["/1.0", "/1.0/instances", "/1.0/warnings?recursion=1", "/1.0/cluster", "/1.0/projects"] {
        assert_eq!(status("GET", path, &mine)?, 200, "{path}");
    }
    for path in ["/internal/ready", "/1.0/certificates", "/1.0/operations", "/"] {
        assert_eq!(status("GET", path, &mine)?, 404, "{path}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(status(method, "/1.0", &mine)?, 405, "{method}");
    }
    assert_eq!(status("GET", "/ui/", &["Host: localhost:1", &cookie])?, 421);
    assert_eq!(status("GET", "/1.0/usage", &[&host, &cookie, "Sec-Fetch-Site: same-site"])?, 403);

    // The daemon goes, and comes again: the page is told, and reads on.
    let dir = daemon.dir.clone();
    daemon.stop()?;
    let away = webui.ask("GET", "/1.0/usage", &mine)?;
    assert_eq!(away.status, 503);
    assert!(away.json()?["error"].as_str().context("error")?.contains("miharud is not running"));
    let _daemon = Miharud::in_dir(&dir, &[])?;
    assert_eq!(status("GET", "/1.0/usage", &mine)?, 200);
    Ok(())
}

#[test]
fn it_ends_when_it_is_interrupted() -> Result<()> {
    let daemon = Miharud::start()?;
    let mut webui = Webui::start(&daemon)?;
    shell::run("kill", ["-INT", &webui.child.id().to_string()])?;
    let child = &mut webui.child;
    let status = shell::wait_for("its end", Duration::from_secs(10), || child.try_wait().ok()?)?;
    assert!(status.success(), "{status}");
    Ok(())
}

//! A `miharud` of one's own: its process, its folder, its socket, and the command line that talks to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use crate::ports::free_port;
use crate::scratch::{self, Entry, Note};
use crate::{Exposition, shell};

/// A running daemon, killed on drop.
#[derive(Debug)]
pub struct Miharud {
    /// `MIHARU_DIR`.
    pub dir: PathBuf,
    child: Child,
    _note: Note,
}

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Takes status line, headers and body apart.
    ///
    /// # Errors
    /// When it is no HTTP answer.
    pub fn parse(raw: &[u8]) -> Result<Self> {
        let end = raw
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .context("an answer without the end of its headers")?;
        let (head, body) = raw.split_at(end);
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
        let headers = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Ok(Self { status, headers: headers.collect(), body: body.get(4..).unwrap_or_default().to_vec() })
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| self.text())
    }
}

impl Miharud {
    /// Starts one that keeps no collection for longer than it takes, so that every scrape shows the state of its moment.
    ///
    /// # Errors
    /// When it does not get ready; the error carries its log.
    pub fn start() -> Result<Self> {
        Self::fresh(&[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    /// As [`Miharud::start`].
    pub fn fresh(args: &[&str]) -> Result<Self> {
        let daemon = Self::with(args)?;
        daemon.miharu(&["config", "set", "metrics.cache_seconds", "0"])?;
        // It collects once at its start. A scrape that shares that one would not show what the test starts meanwhile.
        daemon.get("/1.0/metrics")?;
        Ok(daemon)
    }

    /// Starts one with further arguments and with every key at its default.
    ///
    /// # Errors
    /// As [`Miharud::start`].
    pub fn with(args: &[&str]) -> Result<Self> {
        Self::in_dir(&scratch::dir("miharu")?, args)
    }

    /// Starts one on a folder that may be an earlier one's.
    ///
    /// # Errors
    /// As [`Miharud::start`].
    pub fn in_dir(dir: &Path, args: &[&str]) -> Result<Self> {
        Self::launch(Command::new(program("miharud")?), dir, args)
    }

    /// As [`Miharud::start`], with these variables in its environment.
    ///
    /// # Errors
    /// As [`Miharud::start`].
    pub fn with_environment(environment: &[(&str, &Path)]) -> Result<Self> {
        let mut command = Command::new(program("miharud")?);
        command.envs(environment.iter().copied());
        let daemon = Self::launch(command, &scratch::dir("miharu")?, &[])?;
        daemon.miharu(&["config", "set", "metrics.cache_seconds", "0"])?;
        daemon.get("/1.0/metrics")?;
        Ok(daemon)
    }

    /// As [`Miharud::in_dir`], by a command that becomes the daemon once it has got the daemon's arguments.
    ///
    /// # Errors
    /// As [`Miharud::start`].
    pub fn launch(mut command: Command, dir: &Path, args: &[&str]) -> Result<Self> {
        let log = fs::File::options().create(true).append(true).open(dir.join("log"))?;
        command.arg("--dir").arg(dir).args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of its own, so that Ctrl-C at a terminal reaches only the demo, which then stops it in good order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().context("miharud")?;
        let note = Entry::Process(child.id()).note()?;
        let mut daemon = Self { dir: dir.to_owned(), child, _note: note };
        let child = &mut daemon.child;
        let ready = shell::wait_for("miharud's socket", Duration::from_secs(15), || {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(Err(anyhow::anyhow!("miharud ended: {status}")));
            }
            UnixStream::connect(dir.join("unix.socket")).ok().map(|_| Ok(()))
        });
        ready.and_then(|ended| ended).with_context(|| daemon.log())?;
        daemon.miharu(&["admin", "waitready", "--timeout", "30"])?;
        Ok(daemon)
    }

    /// What it wrote to its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The command line, with this daemon as its server.
    ///
    /// # Errors
    /// When the program is not built.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(program("miharu")?);
        command.env("MIHARU_DIR", &self.dir).current_dir(&self.dir);
        Ok(command)
    }

    /// Runs `miharu` and gives what it wrote.
    ///
    /// # Errors
    /// When it fails.
    pub fn miharu(&self, args: &[&str]) -> Result<String> {
        shell::output(self.command()?.args(args))
    }

    /// Asks over the unix socket.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Result<Reply> {
        ask(&self.dir.join("unix.socket"), method, path, headers, body)
    }

    /// Asks with GET over the unix socket.
    ///
    /// # Errors
    /// As [`Miharud::ask`].
    pub fn get(&self, path: &str) -> Result<Reply> {
        self.ask("GET", path, &[], "")
    }

    /// Scrapes over the unix socket and reads the answer strictly.
    ///
    /// # Errors
    /// When the answer is no exposition; the error carries it.
    pub fn scrape(&self) -> Result<Exposition> {
        let reply = self.get("/1.0/metrics")?;
        ensure!(reply.status == 200, "{}: {}", reply.status, reply.text());
        let text = String::from_utf8(reply.body).context("an exposition that is no UTF-8")?;
        Exposition::parse(&text).with_context(|| text.clone())
    }

    /// Scrapes until the exposition is as wanted.
    ///
    /// # Errors
    /// When it does not get so within `limit`.
    pub fn scrape_until(
        &self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Exposition) -> bool,
    ) -> Result<Exposition> {
        let mut last = None;
        shell::wait_for(what, limit, || match self.scrape() {
            Ok(exposition) if wanted(&exposition) => Some(exposition),
            Ok(_) => None,
            Err(error) => {
                last = Some(error);
                None
            }
        })
        .map_err(|error| last.unwrap_or(error))
    }

    /// Opens the metrics listener on a free port of loopback and gives the address.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn listen(&self, key: &str) -> Result<String> {
        let mut last = None;
        // Another program may take the port between the look and the use.
        for _ in 0..5 {
            let address = format!("127.0.0.1:{}", free_port()?);
            match self.miharu(&["config", "set", key, &address]) {
                Ok(_) => return Ok(address),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no port")))
    }

    /// Stops it with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not end, or not with status 0.
    pub fn stop(mut self) -> Result<()> {
        shell::run("kill", ["-TERM", &self.pid().to_string()])?;
        let child = &mut self.child;
        let status = shell::wait_for("miharud's end", Duration::from_secs(10), || child.try_wait().ok()?)?;
        ensure!(status.success(), "miharud ended with {status}: {}", self.log());
        Ok(())
    }
}

impl Drop for Miharud {
    #[allow(clippy::print_stderr, reason = "a failed test shows what its daemon had to say")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of miharud in {}\n{}", self.dir.display(), self.log());
        }
    }
}

/// Scrapes between two readings of the same thing: what the exposition says must lie between them.
///
/// # Errors
/// When it does not.
pub fn between(
    daemon: &Miharud,
    family: &str,
    labels: &[(&str, &str)],
    read: impl Fn() -> Result<f64>,
) -> Result<f64> {
    let mut last = None;
    // A gauge may rise and fall between the two readings, a few times in a row at most.
    for _ in 0..5 {
        let before = read()?;
        let figure = daemon.scrape()?.sum(family, labels)?;
        let after = read()?;
        let slack = 1e-6 * before.abs().max(after.abs()).max(1.0);
        if (before.min(after) - slack..=before.max(after) + slack).contains(&figure) {
            return Ok(figure);
        }
        last = Some((before, figure, after));
    }
    bail!("{family} {labels:?}: before, figure, after: {last:?}")
}

/// Asks over a unix socket, one connection a request.
///
/// # Errors
/// When there is no answer.
pub fn ask(socket: &Path, method: &str, path: &str, headers: &[&str], body: &str) -> Result<Reply> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.set_read_timeout(Some(shell::patient(Duration::from_secs(20))))?;
    let mut request =
        format!("{method} {path} HTTP/1.0\r\nHost: miharu\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        request += header;
        request += "\r\n";
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes())?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).with_context(|| format!("{method} {path}"))?;
    Reply::parse(&raw)
}

/// A program of this workspace: beside the test's own (`target/debug`), or in `MIHARU_BIN_DIR`.
///
/// # Errors
/// When it is not built.
pub fn program(name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("MIHARU_BIN_DIR") {
        return Ok(PathBuf::from(dir).join(name));
    }
    let me = std::env::current_exe()?;
    for dir in me.ancestors().skip(1).take(2) {
        let path = dir.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{name} is not built: run `cargo build --bins` first, or `make test`")
}

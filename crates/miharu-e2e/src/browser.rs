//! A real Chromium without a window, driven over its DevTools protocol: a page is opened, keys are pressed, pictures are taken, and
//! whatever the page or the browser complains of (exceptions, errors on the console, breaches of the content security policy) is kept.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::scratch::{self, Entry, Note};
use crate::shell;

/// How long the browser may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one page, ended on drop.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocket<TcpStream>,
    next: u64,
    complaints: Vec<String>,
    child: Child,
    _note: Note,
}

/// How a browser is to be.
#[derive(Debug, Default)]
pub struct Plan {
    /// Further arguments.
    pub args: Vec<String>,
    /// Another program that becomes the browser once it has got the browser's arguments.
    pub command: Option<Command>,
    /// Its home, with its certificates; a new folder unless told otherwise.
    pub home: Option<PathBuf>,
}

impl Browser {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start() -> Result<Self> {
        Self::with(Plan::default())
    }

    /// Starts one as planned.
    ///
    /// # Errors
    /// As [`Browser::start`].
    pub fn with(plan: Plan) -> Result<Self> {
        let home = plan.home.map_or_else(|| scratch::dir("browser"), Ok)?;
        let profile = home.join("profile");
        let log = fs::File::create(home.join("log"))?;
        let mut command = plan.command.unwrap_or_else(|| Command::new("chromium"));
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            // As root it refuses to start with its own sandbox; what it opens here is ours.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--no-default-browser-check", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--password-store=basic", "--lang=en-US"])
            .args(["--remote-debugging-port=0", "--force-color-profile=srgb"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(plan.args)
            .arg("about:blank")
            .env("HOME", &home)
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("chromium")?;
        let note = Entry::Process(child.id()).note()?;
        let said = || fs::read_to_string(home.join("log")).unwrap_or_default();
        let socket = connect(&profile);
        let mut browser = match socket {
            Ok(socket) => Self { socket, next: 0, complaints: Vec::new(), child, _note: note },
            Err(error) => {
                end(child);
                return Err(error.context(said()));
            }
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        browser.size(1440, 900)?;
        Ok(browser)
    }

    /// Asks the browser something of its protocol.
    ///
    /// # Errors
    /// When it refuses, or does not answer.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.next += 1;
        let id = self.next;
        let text = json!({ "id": id, "method": method, "params": params }).to_string();
        self.socket.send(Message::text(text)).with_context(|| method.to_owned())?;
        let started = Instant::now();
        while started.elapsed() < shell::patient(PATIENCE) {
            let Some(mut answer) = self.hear()? else { continue };
            if answer.get("id").and_then(Value::as_u64) != Some(id) {
                continue;
            }
            if let Some(error) = answer.get("error") {
                bail!("{method}: {error}");
            }
            return Ok(answer.get_mut("result").map(Value::take).unwrap_or_default());
        }
        bail!("{method}: no answer from the browser")
    }

    /// One message, if one comes soon; complaints among them are kept.
    fn hear(&mut self) -> Result<Option<Value>> {
        let message = match self.socket.read() {
            Ok(message) => message,
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let Message::Text(text) = message else { return Ok(None) };
        let value: Value = serde_json::from_str(&text)?;
        let params = value.get("params").cloned().unwrap_or_default();
        let is = |pointer: &str, known: &[&str]| {
            params.pointer(pointer).and_then(Value::as_str).is_some_and(|word| known.contains(&word))
        };
        let complains = match value.get("method").and_then(Value::as_str) {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => is("/type", &["error", "warning", "assert"]),
            Some("Log.entryAdded") => is("/entry/level", &["error", "warning"]),
            _ => false,
        };
        if complains {
            self.complaints.push(params.to_string());
        }
        Ok(Some(value))
    }

    /// What the page and the browser have complained of since this was asked last.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        // All that it has said until now comes before this answer.
        self.eval("0")?;
        Ok(std::mem::take(&mut self.complaints))
    }

    /// Opens a page.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn go(&mut self, url: &str) -> Result<()> {
        let answer = self.call("Page.navigate", json!({ "url": url }))?;
        if let Some(error) = answer.get("errorText") {
            bail!("{url}: {error}");
        }
        self.wait("the page", "document.readyState === 'complete'")?;
        Ok(())
    }

    /// The value of an expression in the page; a promise is waited for.
    ///
    /// # Errors
    /// When it throws.
    pub fn eval(&mut self, expression: &str) -> Result<Value> {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", params)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(answer.pointer_mut("/result/value").map(Value::take).unwrap_or_default())
    }

    /// The same, as text.
    ///
    /// # Errors
    /// As [`Browser::eval`], and when it is none.
    pub fn text(&mut self, expression: &str) -> Result<String> {
        let value = self.eval(expression)?;
        value.as_str().map(ToOwned::to_owned).with_context(|| format!("{expression}: {value}"))
    }

    /// Asks again and again until an expression is true, and gives its value.
    ///
    /// # Errors
    /// When it does not get so within half a minute; the error says what the page shows.
    pub fn wait(&mut self, what: &str, expression: &str) -> Result<Value> {
        let started = Instant::now();
        while started.elapsed() < shell::patient(PATIENCE) {
            // A page that is just being left has no answer.
            match self.eval(expression) {
                Ok(Value::Bool(true)) => return Ok(Value::Bool(true)),
                Ok(Value::Null | Value::Bool(false)) | Err(_) => {}
                Ok(other) => return Ok(other),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let shown = self.eval("document.body?.innerText.slice(0, 2000)").unwrap_or_default();
        bail!(
            "waited in vain for {what} ({expression}); the page shows: {shown}; complaints: {:?}",
            self.complaints
        )
    }

    /// Runs this in every page from now on, before the page's own code.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn before_each_page(&mut self, script: &str) -> Result<()> {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).map(drop)
    }

    /// Gives the window this size in pixels; one of at most 500 is a phone's.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn size(&mut self, width: u32, height: u32) -> Result<()> {
        let params =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width <= 500 });
        self.call("Emulation.setDeviceMetricsOverride", params).map(drop)
    }

    /// What the page is told that its visitor prefers: `prefers-color-scheme` and the like.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn prefer(&mut self, feature: &str, value: &str) -> Result<()> {
        let params = json!({ "features": [{ "name": feature, "value": value }] });
        self.call("Emulation.setEmulatedMedia", params).map(drop)
    }

    /// Presses a key: a character, or a name as `Enter`, `Tab`, `ArrowDown`, `Escape`.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let number = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let text = match key {
            "Enter" => "\r",
            _ if key.chars().count() == 1 => key,
            _ => "",
        };
        let params = json!({ "type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": number });
        self.call("Input.dispatchKeyEvent", params)?;
        let params = json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": number });
        self.call("Input.dispatchKeyEvent", params).map(drop)
    }

    /// Types a text, as from a keyboard.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({ "text": text })).map(drop)
    }

    /// Takes a picture of the window, as `NAME.png` below `MIHARU_SCREENSHOTS` or `target/screenshots`.
    ///
    /// # Errors
    /// When there is none to take, or it cannot be written.
    pub fn picture(&mut self, name: &str) -> Result<PathBuf> {
        let dir = std::env::var_os("MIHARU_SCREENSHOTS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots"),
            PathBuf::from,
        );
        fs::create_dir_all(&dir)?;
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        let data = answer.get("data").and_then(Value::as_str).context("no picture")?;
        let file = dir.join(format!("{name}.png"));
        fs::write(&file, STANDARD.decode(data)?)?;
        Ok(file)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to, it ends all its processes itself.
        let _ = self.socket.send(Message::text(r#"{"id":0,"method":"Browser.close"}"#));
        let child = &mut self.child;
        let ended =
            shell::wait_for("the browser's end", Duration::from_secs(5), || child.try_wait().ok().flatten());
        if ended.is_err() {
            let _ = shell::run("kill", ["-KILL", "--", &format!("-{}", child.id())]);
            let _ = child.wait();
        }
    }
}

fn end(mut child: Child) {
    let _ = shell::run("kill", ["-KILL", "--", &format!("-{}", child.id())]);
    let _ = child.wait();
}

/// The connection to the one page that a new browser has.
fn connect(profile: &Path) -> Result<WebSocket<TcpStream>> {
    let port = shell::wait_for("the browser", Duration::from_secs(30), || {
        let text = fs::read_to_string(profile.join("DevToolsActivePort")).ok()?;
        text.lines().next()?.parse::<u16>().ok()
    })?;
    let url = shell::wait_for("the browser's page", Duration::from_secs(10), || {
        let list = get(port, "/json/list").ok()?;
        let list: Value = serde_json::from_str(&list).ok()?;
        let page =
            list.as_array()?.iter().find(|target| target.get("type").is_some_and(|kind| kind == "page"))?;
        page.get("webSocketDebuggerUrl")?.as_str().map(ToOwned::to_owned)
    })?;
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    let (mut socket, answer) = tungstenite::client(url, stream).context("the browser's WebSocket")?;
    ensure!(answer.status() == 101, "{answer:?}");
    socket.get_mut().set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket)
}

fn get(port: u16, path: &str) -> Result<String> {
    shell::run("curl", ["--silent", "--fail", "--max-time", "5", &format!("http://127.0.0.1:{port}{path}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_runs_what_a_page_says_and_tells_of_complaints() -> Result<()> {
        crate::need!(Browser);
        let mut browser = Browser::start()?;
        let page = "data:text/html,<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\"><title>a</title>\
                    <script>document.title = 'b'</script>";
        browser.go(page)?;
        assert_eq!(browser.text("document.title")?, "a");
        let complaints = browser.complaints()?;
        assert!(complaints.iter().any(|text| text.contains("Content Security Policy")), "{complaints:?}");
        assert!(browser.complaints()?.is_empty());
        assert!(browser.eval("nothing.at.all").is_err());
        Ok(())
    }
}

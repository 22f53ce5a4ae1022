//! A daemon on a made-up host whose figures move, `miharu webui` before it, and what the tests ask of the page.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::scratch::{self, Entry, Note};
use miharu_e2e::{Browser, Miharud, host_tree};

/// A running `miharu webui`, ended on drop.
#[derive(Debug)]
pub(crate) struct Webui {
    child: Child,
    /// The address that it printed, which is good for one visit.
    pub(crate) url: String,
    _note: Note,
}

impl Webui {
    pub(crate) fn start(daemon: &Miharud) -> Result<Self> {
        let mut child = daemon
            .command()?
            .args(["webui", "--no-browser"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let note = Entry::Process(child.id()).note()?;
        let said = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let mut url = None;
        for line in said.map_while(Result::ok) {
            if let Some(at) = line.find("http://") {
                url = line[at..].split_whitespace().next().map(ToOwned::to_owned);
                break;
            }
        }
        let mut webui = Self { child, url: String::new(), _note: note };
        match url {
            Some(url) => webui.url = url,
            None => anyhow::bail!("miharu webui named no address: {:?}", webui.child.wait()),
        }
        Ok(webui)
    }
}

impl Drop for Webui {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A made-up host of cgroup v2 whose containers each do something else, and another thing every second.
pub(crate) struct Host {
    pub(crate) tree: PathBuf,
    stop: Arc<AtomicBool>,
    mover: Option<JoinHandle<()>>,
}

impl Host {
    pub(crate) fn make(names: &[String]) -> Result<Self> {
        let tree = scratch::dir("tree")?;
        host_tree::make(&tree, names)?;
        let dirs: Vec<PathBuf> =
            names.iter().map(|name| tree.join("sys/fs/cgroup").join(format!("lxc.payload.{name}"))).collect();
        for dir in &dirs {
            // The files of all are one file each; those that move are to be each container's own.
            for file in ["cpu.stat", "memory.current", "pids.current", "io.stat"] {
                fs::remove_file(dir.join(file))?;
            }
        }
        move_all(&dirs, 0)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mover = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                for second in 1.. {
                    std::thread::sleep(Duration::from_secs(1));
                    if stop.load(Ordering::Relaxed) || move_all(&dirs, second).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { tree, stop, mover: Some(mover) })
    }

    pub(crate) fn serve(&self) -> Result<Miharud> {
        Miharud::with(&["--root", self.tree.to_str().context("path")?])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(mover) = self.mover.take() {
            let _ = mover.join();
        }
    }
}

fn move_all(dirs: &[PathBuf], second: u64) -> Result<()> {
    for (number, dir) in dirs.iter().enumerate() {
        let number = number as u64;
        // Each busier than the one before, in steps that a person tells apart.
        let cpu = second * (number % 10 + 1) * 90_000 + (second % 7) * (number % 5) * 8_000;
        let memory = (number % 12 + 1) * (24 << 20) + ((second * 7 + number * 3) % 11) * (3 << 20);
        let bytes = second * (number % 8) * 250_000;
        let (user, system) = (cpu * 7 / 10, cpu * 3 / 10);
        // The daemon has the files open, and may read at any moment: each is always as long, and written in one step.
        let write = |file: &str, text: String| -> Result<()> {
            let file = fs::File::options().create(true).truncate(false).write(true).open(dir.join(file))?;
            Ok(file.write_all_at(text.as_bytes(), 0)?)
        };
        write(
            "cpu.stat",
            format!(
                "usage_usec {cpu:016}\nuser_usec {user:016}\nsystem_usec {system:016}\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"
            ),
        )?;
        write("memory.current", format!("{memory:016}\n"))?;
        write("pids.current", format!("{:016}\n", 3 + number % 40 + second % 3))?;
        write(
            "io.stat",
            format!(
                "254:32 rbytes={bytes:016} wbytes={:016} rios={:016} wios={:016} dbytes=0 dios=0\n",
                bytes / 3,
                bytes / 4096,
                bytes / 9000
            ),
        )?;
    }
    Ok(())
}

/// The page of a daemon in a new browser, once it shows something.
pub(crate) fn open(daemon: &Miharud) -> Result<(Browser, Webui)> {
    let webui = Webui::start(daemon)?;
    let mut browser = Browser::start()?;
    prepare(&mut browser)?;
    browser.go(&webui.url)?;
    browser.wait("instances", "!!document.querySelector('.instances tbody tr')")?;
    Ok((browser, webui))
}

/// Makes a page that nobody has chosen anything on ask every two seconds, and remember what breaches its policy.
pub(crate) fn prepare(browser: &mut Browser) -> Result<()> {
    browser.before_each_page(
        "try { if (!localStorage.getItem('miharu.ui')) localStorage.setItem('miharu.ui', '{\"interval\":2}'); } catch {}
         window.breaches = [];
         addEventListener('securitypolicyviolation', (event) => window.breaches.push(`${event.violatedDirective} ${event.blockedURI}`));
         addEventListener('unhandledrejection', (event) => console.error(String(event.reason)));",
    )
}

/// That neither the page nor the browser has anything to complain of.
pub(crate) fn content(browser: &mut Browser, where_: &str) -> Result<()> {
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "{where_}: {complaints:#?}");
    let breaches = browser.eval("window.breaches")?;
    ensure!(breaches == serde_json::json!([]), "{where_}: {breaches}");
    Ok(())
}

/// That the page is not wider than the window.
pub(crate) fn fits(browser: &mut Browser, where_: &str) -> Result<()> {
    let wide = browser.text(
        "document.documentElement.scrollWidth > innerWidth
           ? [...document.querySelectorAll('body *')].filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
             .slice(0, 5).map((node) => `${node.tagName}.${node.className}`).join() || 'something'
           : ''",
    )?;
    ensure!(wide.is_empty(), "{where_}: wider than the window: {wide}");
    Ok(())
}

/// Chooses in one of the head's lists.
pub(crate) fn choose(browser: &mut Browser, id: &str, value: &str) -> Result<()> {
    browser.eval(&format!(
        "{{ const list = document.getElementById('{id}'); list.value = '{value}';
            list.dispatchEvent(new Event('change', {{ bubbles: true }})); }}"
    ))?;
    Ok(())
}

/// Goes to a place of the page, as a link does.
pub(crate) fn visit(browser: &mut Browser, place: &str, sign: &str) -> Result<()> {
    browser.eval(&format!("location.hash = '{place}'"))?;
    browser.wait(place, &format!("!!document.querySelector('{sign}')"))?;
    Ok(())
}

/// The names in the order of the table.
pub(crate) fn names(browser: &mut Browser) -> Result<Vec<String>> {
    let names = browser
        .eval("[...document.querySelectorAll('.instances a.name')].map((node) => node.textContent)")?;
    Ok(serde_json::from_value(names)?)
}

/// A few names that a person may have given.
pub(crate) fn usual_names() -> Vec<String> {
    ["web", "db", "cache", "mail", "git", "build-1", "build-2", "proxy"].map(ToOwned::to_owned).to_vec()
}

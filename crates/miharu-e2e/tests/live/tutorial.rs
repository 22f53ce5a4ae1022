//! The tutorial and the steps for Prometheus are walked line by line, in both languages, as a reader would type them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use miharu_e2e::miharud::{free_port, program};
use miharu_e2e::{Lxc, Miharud, need, scratch};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

/// Beginnings of lines that are not run, as the harness has done what they do: it built the programs, made the container and
/// started the daemon. No Prometheus runs as a service here.
const DONE: [&str; 9] = [
    "apt-get ",
    "cargo ",
    "install ",
    "lxc-create ",
    "lxc-start ",
    "make ",
    "promtool ",
    "sed -i -e '/^lxc",
    "systemctl ",
];

/// The lines of a page's code blocks that are commands.
fn commands(page: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page))
        .with_context(|| page.to_owned())?;
    let mut lines = Vec::new();
    let mut in_shell = false;
    for event in Parser::new(&text) {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                in_shell = match kind {
                    CodeBlockKind::Indented => true,
                    CodeBlockKind::Fenced(language) => ["", "sh"].contains(&&*language),
                };
            }
            Event::End(TagEnd::CodeBlock) => in_shell = false,
            Event::Text(text) if in_shell => lines.extend(text.lines().map(str::to_owned)),
            _ => {}
        }
    }
    lines.retain(|line| {
        !DONE.iter().any(|start| line.trim_start_matches("sudo ").starts_with(start))
            && line.trim_start_matches("sudo ") != "miharud"
    });
    Ok(lines)
}

/// A reader at a terminal: a container, a daemon, and a folder to work in.
struct Reader {
    lxc: Lxc,
    daemon: Miharud,
    home: std::path::PathBuf,
    address: String,
    /// Where the whole API is served.
    api: String,
}

impl Reader {
    fn sit_down() -> Result<Self> {
        let home = scratch::dir("tutorial")?;
        let daemon = Miharud::start()?;
        fs::copy(daemon.dir.join("server.crt"), home.join("server.crt"))?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let api = format!("127.0.0.1:{}", free_port()?);
        Ok(Self { lxc: Lxc::start(&[])?, daemon, home, address, api })
    }

    /// Types a line with the page's names made those of this test, and tells what it printed.
    fn types(&self, line: &str) -> Result<String> {
        let path = self.lxc.path.display().to_string();
        // Put in first, as a path may have the same letters in it, and made the real name last.
        let name = "\u{1}";
        let line = line
            .replace("u1", name)
            .replace("/var/lib/miharu", &self.daemon.dir.display().to_string())
            .replace("/etc/prometheus", &self.home.join("prometheus").display().to_string())
            .replace("prometheus:prometheus", "root:root")
            .replace("127.0.0.1:8444", &self.address)
            .replace("foo.example.com:8444", &self.address)
            .replace("192.0.2.101:8444", &self.address)
            .replace("\":8444\"", &self.address)
            .replace("\":8443\"", &self.api)
            .replace("--projects lxc", &format!("--projects lxc:{path}"))
            .replace("lxc-attach -n", &format!("lxc-attach -P {path} -n"))
            .replace(name, &self.lxc.name)
            // A container that counts for minutes teaches no more.
            .replace("1000000", "10000")
            .replace("FINGERPRINT", &self.fingerprint()?);
        let programs = program("miharu")?;
        let programs = programs.parent().context("a program without a folder")?.display().to_string();
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-c", &line])
            .current_dir(&self.home)
            .env("MIHARU_DIR", &self.daemon.dir)
            .env("PATH", format!("{programs}:{}", std::env::var("PATH")?))
            .output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{line}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        Ok(printed)
    }

    /// That of some certificate that is trusted, for who has seen the list.
    fn fingerprint(&self) -> Result<String> {
        let list = self.daemon.miharu(&["config", "trust", "list", "--format", "json"])?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        Ok(list[0]["fingerprint"].as_str().unwrap_or("none").to_owned())
    }
}

fn walk(page: &str, least: usize) -> Result<()> {
    need!(Lxc, Tls);
    let reader = Reader::sit_down()?;
    let lines = commands(page)?;
    ensure!(lines.len() >= least, "{page} has but {} commands: {lines:#?}", lines.len());
    for line in lines {
        let printed = reader.types(&line).with_context(|| page.to_owned())?;
        let name = &reader.lxc.name;
        match line.as_str() {
            "miharu list" => assert!(printed.contains(name), "{printed}"),
            line if line.ends_with("| grep cpu_seconds_total") => {
                assert!(printed.contains(&format!("name=\"{name}\"")), "{page}: {line}: {printed}");
            }
            line if line.starts_with("curl ") && !line.contains("--cert ") => {
                assert!(printed.contains("not authorized"), "{printed}");
            }
            line if line.starts_with("curl ") => assert!(printed.contains(name), "{printed}"),
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn the_tutorial_works_as_it_is_written() -> Result<()> {
    walk("docs/tutorial/getting-started.md", 15)
}

#[test]
fn the_tutorial_works_in_japanese() -> Result<()> {
    walk("docs/tutorial/getting-started.ja.md", 15)
}

#[test]
fn the_steps_for_prometheus_work_as_they_are_written() -> Result<()> {
    for page in ["docs/how-to/prometheus.md", "docs/how-to/prometheus.ja.md", "README.md", "README.ja.md"] {
        walk(page, 6)?;
    }
    Ok(())
}

#[test]
fn what_tunes_a_server_is_taken() -> Result<()> {
    for page in ["docs/how-to/tune.md", "docs/how-to/tune.ja.md"] {
        walk(page, 12)?;
    }
    Ok(())
}

#[test]
fn the_pages_of_incus_and_lxd_are_walked() -> Result<()> {
    for page in ["docs/how-to/walk.md", "docs/how-to/walk.ja.md"] {
        walk(page, 12)?;
    }
    Ok(())
}

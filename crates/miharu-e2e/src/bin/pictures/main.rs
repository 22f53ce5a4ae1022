//! `make pictures`: the pictures of the book, from a live run of the programs and from what was measured. None of them is kept in the
//! repository. usage: `pictures FOLDER`. Where no container can be started the charts are drawn all the same, and it says so.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person at a terminal")]

mod chart;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::lxc::Config;
use miharu_e2e::miharud::program;
use miharu_e2e::terminal::Terminal;
use miharu_e2e::{Lxc, Miharud, Need, scratch};

/// What the containers are called, and what each does until it ends.
const CONTAINERS: [(&str, &str); 4] = [
    ("db", "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.4; done"),
    (
        "mail",
        "while :; do dd if=/dev/zero of=/var/data bs=64k count=32 conv=fsync 2>/dev/null; sleep 1; done",
    ),
    ("web1", "while :; do ping -q -c 20 -i 0.05 -s 1400 127.0.0.1 >/dev/null; done"),
    ("web2", "sleep 600"),
];

/// Graphs need a past: for so long the containers work before they are drawn.
const BEFORE: Duration = Duration::from_secs(200);

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: pictures FOLDER");
        return ExitCode::FAILURE;
    };
    let drawn = fs::create_dir_all(&folder)
        .with_context(|| folder.display().to_string())
        .and_then(|()| chart::draw(&folder))
        .and_then(|()| screens(&folder));
    scratch::finish();
    if let Err(error) = drawn {
        eprintln!("pictures: {error:#}");
        return ExitCode::FAILURE;
    }
    println!("pictures: {}", folder.display());
    ExitCode::SUCCESS
}

/// What a terminal shows of containers that work.
fn screens(folder: &Path) -> Result<()> {
    if let Some(why) = Need::Lxc.lacking() {
        println!("pictures: none of the terminal, as {why}");
        return Ok(());
    }
    let mut containers = Vec::new();
    for (name, work) in CONTAINERS {
        let lxc = Lxc::with(&Config { name: name.to_owned(), ..Config::default() })?;
        lxc.exec(&format!("({work}) </dev/null >/dev/null 2>&1 &"))?;
        containers.push(lxc);
    }
    let daemon = Miharud::start()?;
    // Whatever else runs here is nobody's business.
    let names: Vec<&str> = CONTAINERS.iter().map(|(name, _)| *name).collect();
    daemon.miharu(&["config", "set", &format!("instances.include={}", names.join(","))])?;
    // It collects by itself for the history that `top` draws.
    std::thread::sleep(BEFORE);
    let all = |text: &str| names.iter().all(|name| text.contains(name));
    let mut top = open(&daemon, 24, &["top", "--columns", "nrcCmGawN"])?;
    top.wait("the containers", all)?;
    // Its rates want a second look.
    std::thread::sleep(Duration::from_secs(12));
    save(&top, &folder.join("top.svg"))?;
    top.press("\r")?;
    std::thread::sleep(Duration::from_secs(2));
    save(&top, &folder.join("top-instance.svg"))?;
    top.press("qq")
}

fn open(daemon: &Miharud, rows: u16, args: &[&str]) -> Result<Terminal> {
    let miharu = program("miharu")?;
    Terminal::start(rows, 100, |command| {
        command.arg(miharu).args(args).env("MIHARU_DIR", &daemon.dir);
    })
}

fn save(terminal: &Terminal, path: &Path) -> Result<()> {
    fs::write(path, terminal.svg()).with_context(|| path.display().to_string())
}

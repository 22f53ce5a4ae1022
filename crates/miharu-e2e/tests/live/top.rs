//! `miharu top` in a real terminal, against a real daemon and a container that burns CPU; its tables beside `/1.0/metrics`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use miharu_e2e::clients::Client;
use miharu_e2e::lxc::Config;
use miharu_e2e::lxd::Kind;
use miharu_e2e::miharud::program;
use miharu_e2e::terminal::Terminal;
use miharu_e2e::{Lxc, Miharud, need, shell};
use serde_json::Value;

/// A container that burns a CPU, one that sleeps, and a daemon that has read them twice.
struct Scene {
    busy: Lxc,
    idle: Lxc,
    daemon: Miharud,
}

impl Scene {
    fn start() -> Result<Self> {
        // Short enough for the narrowest column, and nobody else's: other tests run beside this one.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let lxc = |start: &str| {
            let name = format!("{start}-{}-{number}", std::process::id() % 10_000);
            Lxc::with(&Config { name, ..Config::default() })
        };
        let scene = Self { busy: lxc("burn")?, idle: lxc("idle")?, daemon: Miharud::start()? };
        scene.busy.exec("(while :; do :; done) </dev/null >/dev/null 2>&1 &")?;
        // Rates need two readings, and the loop needs to have run between them.
        shell::wait_for("the rates", Duration::from_secs(20), || {
            let cpu = scene.usage(&scene.busy.name).ok()?["figures"]["cpu"].as_f64()?;
            std::thread::sleep(Duration::from_secs(1));
            (cpu > 0.1).then_some(())
        })?;
        Ok(scene)
    }

    /// What the API says that an instance uses.
    fn usage(&self, name: &str) -> Result<Value> {
        let usage = self.daemon.get("/1.0/usage?max_age=1")?.json()?;
        let all = usage["metadata"]["instances"].as_array().context("no instances")?;
        Ok(all.iter().find(|instance| instance["name"] == name).context("not there")?.clone())
    }

    /// `miharu top` in a terminal.
    fn top(&self, rows: u16, columns: u16, arguments: &[&str]) -> Result<Terminal> {
        let program = program("miharu")?;
        Terminal::start(rows, columns, |command| {
            command
                .arg(program)
                .env("MIHARU_DIR", &self.daemon.dir)
                .args(["top", &self.both()])
                .args(arguments);
        })
    }

    /// The filter that leaves both, and none of what other tests run.
    fn both(&self) -> String {
        format!("name={},{}", self.busy.name, self.idle.name)
    }

    /// A shell in a terminal, with `miharu` in its path.
    fn shell(&self, script: &[&str]) -> Result<Terminal> {
        let program = program("miharu")?;
        let folder = program.parent().context("no folder")?.to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        Terminal::start(24, 80, |command: &mut Command| {
            command.arg("bash").args(["--norc", "--noprofile"]).args(script);
            command.env("MIHARU_DIR", &self.daemon.dir).env("PS1", "ready> ");
            command.env("PATH", format!("{}:{path}", folder.display()));
        })
    }
}

/// The rows of the screen that are about these two, in their order.
fn order<'a>(scene: &'a Scene, text: &str) -> Vec<&'a str> {
    let name = |line: &str| {
        [&scene.busy.name, &scene.idle.name].into_iter().find(|name| line.starts_with(name.as_str()))
    };
    text.lines().filter_map(|line| name(line).map(String::as_str)).collect()
}

#[test]
fn the_screen_is_sorted_filtered_resized_and_left_by_keys() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let (busy, idle) = (scene.busy.name.as_str(), scene.idle.name.as_str());
    let mut top = scene.top(24, 80, &["--refresh", "1"])?;
    let text = top.wait("the list", |text| order(&scene, text) == [busy, idle])?;
    ensure!(top.screen(vt100::Screen::alternate_screen) && top.screen(vt100::Screen::hide_cursor));
    ensure!(text.lines().next().is_some_and(|line| line.starts_with("miharu top  ")), "{text}");
    ensure!(text.contains("CPU%") && text.contains("q quit"), "{text}");
    // A CPU is a hundred percent; the machine has others who want it too.
    let row = text.lines().find(|line| line.starts_with(busy)).unwrap_or_default();
    let cpu: f64 = row.split_whitespace().nth(2).context("no CPU%")?.parse()?;
    ensure!((10.0..150.0).contains(&cpu), "{row}");
    picture("top", &top)?;

    top.press("n")?;
    top.wait("the list by name", |text| order(&scene, text) == [busy, idle] && text.contains("by name"))?;
    top.press("n")?;
    top.wait("the other way around", |text| order(&scene, text) == [idle, busy])?;
    top.press("/burn")?;
    top.wait("what is typed", |text| order(&scene, text) == [busy] && text.contains("/burn"))?;
    top.press("\r")?;
    top.wait("the filter kept", |text| text.contains("Esc drops it"))?;
    top.press("\u{1b}")?;
    top.wait("all", |text| order(&scene, text).len() == 2)?;

    top.press("c")?;
    top.wait("the list by CPU", |text| order(&scene, text) == [busy, idle])?;
    top.press("\r")?;
    let text = top.wait("an instance", |text| text.contains("in project ") && text.contains("peak"))?;
    ensure!(text.contains(busy) && text.contains("Processes") && text.contains("Memory"), "{text}");
    picture("top-instance", &top)?;
    top.press("?")?;
    top.wait("the help", |text| text.contains("read less often"))?;
    top.press("q")?;
    top.wait("the list again", |text| order(&scene, text).len() == 2)?;

    top.resize(10, 40)?;
    let text = top.wait("a small screen", |text| text.contains("MEM") && !text.contains("WRIT/s"))?;
    ensure!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    top.resize(40, 160)?;
    top.wait("a large screen", |text| text.contains("UPTIME") && text.contains("SENT/s"))?;
    top.press("p")?;
    let paused = top.wait("the pause", |text| text.contains("PAUSED"))?;
    let written = top.bytes().len();
    std::thread::sleep(Duration::from_millis(2500));
    ensure!((top.text() == paused) && top.bytes().len() == written, "something is written in a pause");
    top.press("q")?;
    ensure!(top.end()?.success());
    left(&top)
}

#[test]
fn the_terminal_is_given_back_whatever_ends_it() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 0), ("QUIT", 131)] {
        let mut top = scene.top(24, 80, &[])?;
        top.wait("the list", |text| text.contains("q quit"))?;
        shell::run("kill", [&format!("-{signal}"), &top.pid().to_string()])?;
        let status = top.end()?;
        ensure!(status.code() == Some(code), "SIG{signal}: {status}");
        left(&top)?;
    }
    // Modes of the terminal, before and after, by keys and by Ctrl-C.
    for keys in ["q", "\u{3}", "\u{1b}"] {
        let mut shell = scene.shell(&["-c", "stty -g; miharu top; echo code $?; stty -g; read"])?;
        shell.wait("the list", |text| text.contains("q quit"))?;
        shell.press(keys)?;
        let text = shell.wait("the end", |text| {
            text.contains("code 0") && text.lines().filter(|line| line.contains(':')).count() == 2
        })?;
        let modes: Vec<_> = text.lines().filter(|line| line.contains(':')).collect();
        ensure!(modes.first() == modes.last(), "{text}");
        left(&shell)?;
        shell.press("\n")?;
        shell.end()?;
    }
    Ok(())
}

#[test]
fn it_stops_and_goes_on_with_the_shell() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let mut shell = scene.shell(&["-i"])?;
    shell.wait("a shell", |text| text.contains("ready>"))?;
    shell.press(&format!("miharu top {}\r", scene.both()))?;
    shell.wait("the list", |text| text.contains("q quit"))?;
    shell.press("\u{1a}")?;
    shell.wait("the shell again", |text| text.contains("Stopped") && !text.contains("q quit"))?;
    left(&shell)?;
    shell.press("echo here; fg\r")?;
    shell.wait("the list again", |text| text.contains("q quit") && order(&scene, text).len() == 2)?;
    shell.press("n")?;
    shell.wait("keys after a stop", |text| text.contains("by name"))?;
    shell.press("q")?;
    shell.wait("the shell at last", |text| text.contains("here") && text.trim_end().ends_with("ready>"))?;
    left(&shell)?;
    shell.press("exit\r")?;
    shell.end()?;
    Ok(())
}

#[test]
fn a_server_that_goes_away_leaves_the_last_figures_and_comes_back() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let mut top = scene.top(24, 100, &["-r", "1"])?;
    top.wait("the list", |text| order(&scene, text).len() == 2)?;
    let Scene { busy, idle, daemon } = scene;
    let dir = daemon.dir.clone();
    daemon.stop()?;
    let text =
        top.wait("that it is away", |text| text.contains("figures of") && text.contains("not running"))?;
    ensure!(text.contains(&busy.name) && text.contains(&idle.name), "{text}");
    let daemon = Miharud::in_dir(&dir, &[])?;
    top.wait("that it is back", |text| text.contains(&busy.name) && text.contains("q quit"))?;
    top.press("q")?;
    ensure!(top.end()?.success());
    drop(daemon);
    // From the start it is said as every command says it, on the screen that was there.
    let program = program("miharu")?;
    let mut top = Terminal::start(24, 80, |command| {
        command.arg(program).env("MIHARU_DIR", &dir).arg("top");
    })?;
    ensure!(top.end()?.code() == Some(1));
    let text = top.wait("the reason", |text| text.contains("miharud is not running"))?;
    ensure!(text.contains("Error:"), "{text}");
    Ok(())
}

#[test]
fn the_flags_of_incus_top_are_taken() -> Result<()> {
    need!(Incus);
    let daemon = Miharud::start()?;
    let incus = Client::local(Kind::Incus, &daemon.dir)?;
    let help = incus.ok("top --help")?;
    // Lines such as `  -c, --columns        Columns (default "numD")`, of the command's own flags and the global ones.
    let flags: Vec<_> = help
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
        .filter(|flag| !["--sub-commands", "--help", "--version"].contains(flag))
        .collect();
    ensure!(flags.len() >= 7 && flags.contains(&"--refresh") && flags.contains(&"--columns"), "{help}");
    for flag in &flags {
        let value = match *flag {
            "--columns" => Some("e,numD"),
            "--format" => Some("compact"),
            "--refresh" => Some("10"),
            "--project" => Some("default"),
            _ => None,
        };
        let mut arguments = vec!["top", "local:", "--count", "1", *flag];
        arguments.extend(value);
        daemon.miharu(&arguments)?;
    }
    daemon.miharu(&["top", "-c", "n", "-f", "table", "-q", "-v"])?;
    Ok(())
}

#[test]
fn what_takes_long_is_said_at_a_terminal_and_nowhere_else() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let program = program("miharu")?;
    let pid = daemon.pid().to_string();
    let ask = |arguments: &[&str]| {
        Terminal::start(24, 80, |command| {
            command.arg(&program).env("MIHARU_DIR", &daemon.dir).args(arguments);
        })
    };
    shell::run("kill", ["-STOP", &pid])?;
    let mut list = ask(&["list", "-f", "csv"])?;
    let mut quiet = ask(&["--quiet", "list", "-f", "csv"])?;
    let waited = list.wait("the words", |text| text.contains("Waiting for miharud ("));
    shell::run("kill", ["-CONT", &pid])?;
    waited?;
    ensure!(list.end()?.success() && quiet.end()?.success());
    // The line goes when the answer comes.
    list.wait("an empty line", |text| !text.contains("Waiting"))?;
    ensure!(!String::from_utf8_lossy(&quiet.bytes()).contains("Waiting"));
    Ok(())
}

#[test]
fn tables_say_what_the_metrics_say() -> Result<()> {
    need!(Lxc);
    let scene = Scene::start()?;
    let name = scene.busy.name.as_str();
    let row = |columns: &str| -> Result<Vec<f64>> {
        let text = scene.daemon.miharu(&["top", "-f", "csv", "-c", columns, &format!("name={name}")])?;
        let figures = text.trim().split(',').map(|cell| cell.parse().with_context(|| text.clone()));
        figures.collect()
    };
    let cpu_seconds = || -> Result<f64> {
        let exposition = scene.daemon.scrape()?;
        Ok(exposition.sum("incus_cpu_seconds_total", &[("name", name)])?
            - exposition.sum("incus_cpu_seconds_total", &[("name", name), ("mode", "idle")]).unwrap_or(0.0)
            - exposition.sum("incus_cpu_seconds_total", &[("name", name), ("mode", "iowait")]).unwrap_or(0.0)
            - exposition.sum("incus_cpu_seconds_total", &[("name", name), ("mode", "steal")]).unwrap_or(0.0))
    };
    let before = cpu_seconds()?;
    std::thread::sleep(Duration::from_secs(2));
    let figures = row("ucN")?;
    std::thread::sleep(Duration::from_secs(2));
    let after = cpu_seconds()?;
    let [seconds, cores, processes] = figures[..] else { anyhow::bail!("{figures:?}") };
    ensure!(before <= seconds && seconds <= after, "{before} <= {seconds} <= {after}");
    // What was burnt in these four seconds and more, and what the two seconds between two readings of it tell.
    ensure!(cores > 0.05 && cores < 1.2, "{cores} CPUs, where {} s went by in four", after - before);
    ensure!(processes >= 2.0, "{processes}");

    let json: Value = serde_json::from_str(&scene.daemon.miharu(&["top", "--format", "json", name])?)?;
    ensure!(json.as_array().is_some_and(|all| all.len() == 1) && json[0]["name"] == name, "{json}");
    let table = scene.daemon.miharu(&["top"])?;
    ensure!(table.contains("| CPU TIME(S) |") && !table.contains('\u{1b}'), "{table}");
    let sorted = scene.daemon.miharu(&["top", "-f", "csv", "-c", "n", "--sort", "-cpu", &scene.both()])?;
    ensure!(sorted.trim().ends_with(name), "{sorted}");
    Ok(())
}

/// The screen that was there before, a cursor that is seen, and order by the terminal's own rules.
fn left(terminal: &Terminal) -> Result<()> {
    let bytes = terminal.bytes();
    ensure!(!terminal.screen(vt100::Screen::alternate_screen), "still on the other screen");
    ensure!(!terminal.screen(vt100::Screen::hide_cursor), "the cursor is hidden");
    let last = |sequence: &[u8]| bytes.windows(sequence.len()).rposition(|window| window == sequence);
    ensure!(last(b"\x1b[8h") > last(b"\x1b[8l"), "the order of text was not given back");
    Ok(())
}

/// Where pictures are asked for, one of what is seen.
fn picture(name: &str, terminal: &Terminal) -> Result<()> {
    let Some(folder) = std::env::var_os("MIHARU_SCREENSHOTS").map(PathBuf::from) else { return Ok(()) };
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(format!("{name}.svg")), terminal.svg())?)
}

//! A writer that is killed before each single call that writes, and one for which each such call fails: by strace, which
//! reaches the moments that a clock does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use miharu_e2e::{need, scratch, shell};
use miharu_store::{Change, DeclaredProject, State, Store};

use crate::is_chaos;

/// The variable that makes this program the writer, with the path of its database.
const ROLE: &str = "MIHARU_TEST_WRITER";
/// How many changes it makes.
const CHANGES: u32 = 3;

/// Not a test of its own but what the others kill.
#[test]
fn writer() {
    let Ok(path) = std::env::var(ROLE) else { return };
    let store = match Store::open(Path::new(&path)) {
        Ok(store) => store,
        Err(error) => return println!("\nrefused {error}\nnothing"),
    };
    for number in 1..=CHANGES {
        match store.commit(&change(&store.load(), number), None) {
            Ok(_) => println!("\nmade {number}"),
            Err(error) => println!("\nfailed {number} {error}"),
        }
    }
    println!("\nshows {}", told(&store.load()));
}

/// Three keys at once, and every second time a project.
fn change(state: &State, number: u32) -> Change {
    if number.is_multiple_of(2) {
        return Change::AddProject(format!("p{number}"), DeclaredProject { description: "x".repeat(3000) });
    }
    let values = ["user.a", "user.b", "user.c"].map(|key| (key.to_owned(), number.to_string().repeat(700)));
    Change::Config(state.config.merge(&BTreeMap::from(values)).unwrap())
}

/// Which of the changes are there, as far as later ones do not hide them; each has to be whole.
fn told(state: &State) -> String {
    let value = |key: &str| state.config.get(key).chars().next().unwrap_or('0');
    assert!(value("user.a") == value("user.b") && value("user.b") == value("user.c"), "half of a change");
    let projects: Vec<&str> = state.projects.keys().map(String::as_str).collect();
    format!(
        "config {} projects {} certificates {}",
        value("user.a"),
        projects.join(","),
        state.certificates.len()
    )
}

/// A run of the writer with strace doing that.
struct Run {
    said: Vec<String>,
    /// Whether it came to its end, and whether anything was done to it.
    is_finished: bool,
    is_touched: bool,
}

impl Run {
    fn under(path: &Path, inject: &str) -> Result<Self> {
        let (calls, trace) = (inject.split(':').next().unwrap_or_default(), path.with_extension("trace"));
        let out = Command::new("strace")
            .args(["-f", "-qq", "-e", &format!("trace={calls}"), "-e", &format!("inject={inject}"), "-o"])
            .args([trace.as_path(), &std::env::current_exe()?])
            .args(["--exact", "calls::writer", "--nocapture", "--test-threads=1"])
            .env(ROLE, path)
            .stdin(Stdio::null())
            .output()
            .context("strace")?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(!text.contains("panicked"), "{text}{}", String::from_utf8_lossy(&out.stderr));
        let is_finished = out.status.success();
        let is_touched = !is_finished || std::fs::read_to_string(&trace)?.contains("(INJECTED)");
        Ok(Self { said: text.lines().map(str::to_owned).collect(), is_finished, is_touched })
    }

    fn has(&self, line: &str) -> bool {
        self.said.iter().any(|said| said == line)
    }
}

/// What writes, as reads, opens and locks leave nothing half done; and of how many of each one is taken where there is little
/// time. strace counts each kind by itself.
const WRITES: [(&str, usize); 5] =
    [("pwrite64", 61), ("write", 7), ("fsync", 11), ("unlink", 5), ("rename", 2)];

fn fresh() -> Result<PathBuf> {
    Ok(scratch::dir("calls")?.join("miharu.db"))
}

/// A database as the version before the copies left it.
fn older() -> Result<PathBuf> {
    let path = fresh()?;
    let sql = include_str!("../../../miharu-store/src/database/schemas/3.sql");
    // The comment in the first line begins as options do.
    let sql = sql.split_once('\n').context("a first line")?.1;
    shell::run("sqlite3", [path.as_os_str(), sql.as_ref()])?;
    Ok(path)
}

/// Looks at what was left: everything that was said to be made, and nothing half made.
fn check(path: &Path, run: &Run) -> Result<State> {
    let store = Store::open(path)?;
    let state = store.load();
    let found = told(&state);
    for number in (1..=CHANGES).filter(|number| run.has(&format!("made {number}"))) {
        let there = if number.is_multiple_of(2) {
            state.projects.contains_key(&format!("p{number}"))
        } else {
            state.config.get("user.a").starts_with(|digit: char| digit.to_digit(10) >= Some(number))
        };
        ensure!(there, "change {number} was made and is not there: {found}");
    }
    // What it went on with after a failure is what is stored.
    ensure!(!run.is_finished || run.has(&format!("shows {found}")) || run.has("nothing"), "stored: {found}");
    // And it goes on from there.
    let values = BTreeMap::from([("user.after".to_owned(), "1".to_owned())]);
    store.commit(&Change::Config(state.config.merge(&values)?), None)?;
    drop(store);
    ensure!(Store::open(path)?.load().config.get("user.after") == "1");
    Ok(State::clone(&state))
}

/// Does something at one call in turn, or at one of so many, until the writer does no further one. How often that was.
fn at_every(
    step: usize,
    make: impl Fn() -> Result<PathBuf>,
    inject: impl Fn(usize) -> String,
    also: impl Fn(&State, &Run) -> Result<()>,
) -> Result<usize> {
    let mut times = 0;
    for call in (1..).step_by(if is_chaos() { 1 } else { step }) {
        let (path, inject) = (make()?, inject(call));
        let run = Run::under(&path, &inject)?;
        check(&path, &run)
            .and_then(|state| also(&state, &run))
            .with_context(|| format!("{inject}: {:#?}", run.said))?;
        std::fs::remove_dir_all(path.parent().context("its folder")?)?;
        if !run.is_touched {
            break;
        }
        times += 1;
    }
    Ok(times)
}

/// Kills it before each of these calls in turn.
fn killed(make: impl Fn() -> Result<PathBuf>, also: impl Fn(&State, &Run) -> Result<()>) -> Result<()> {
    let mut all = 0;
    for (call, step) in WRITES {
        let times = at_every(step, &make, |number| format!("{call}:signal=SIGKILL:when={number}"), &also)?;
        println!("killed before {times} {call}");
        all += times;
    }
    ensure!(all > 9, "{all}");
    Ok(())
}

/// After a power cut the name of a journal could be back that was removed and not synced, and the next start would roll back a
/// change that was acknowledged.
#[test]
fn a_journal_is_gone_from_the_disk_before_a_change_is_acknowledged() -> Result<()> {
    need!(Strace);
    let path = fresh()?;
    let (dir, trace) = (path.parent().context("its folder")?, path.with_extension("trace"));
    let out = Command::new("strace")
        .args(["-f", "-y", "-qq", "-e", "trace=unlink,fsync,fdatasync", "-o"])
        .args([trace.as_path(), &std::env::current_exe()?])
        .args(["--exact", "calls::writer", "--nocapture", "--test-threads=1"])
        .env(ROLE, &path)
        .stdin(Stdio::null())
        .output()
        .context("strace")?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let calls = std::fs::read_to_string(&trace)?;
    let calls: Vec<&str> = calls.lines().collect();
    let is_gone = |call: &&str| call.contains("unlink(") && call.contains("miharu.db-journal\"");
    // strace names what a descriptor leads to.
    let synced = format!("<{}>)", dir.canonicalize()?.display());
    let removed: Vec<usize> = (0..calls.len()).filter(|at| calls.get(*at).is_some_and(is_gone)).collect();
    ensure!(removed.len() > usize::try_from(CHANGES)?, "{calls:#?}");
    for at in removed {
        let next = calls.get(at + 1).copied().unwrap_or_default();
        ensure!(next.contains("sync(") && next.contains(&synced), "{} and then {next}", calls[at]);
    }
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

#[test]
fn a_writer_is_killed_before_any_call_that_writes() -> Result<()> {
    need!(Strace);
    killed(fresh, |_, _| Ok(()))
}

#[test]
fn an_upgrade_is_killed_before_any_call_that_writes() -> Result<()> {
    need!(Strace);
    killed(older, |state, _| {
        ensure!(state.config.get("metrics.prefix") == "lxd" && state.certificates.len() == 1);
        ensure!(state.projects.contains_key("docker/shop") && state.join_tokens.len() == 1);
        Ok(())
    })
}

#[test]
fn a_disk_that_fails_at_any_call_leaves_the_state_before_or_after() -> Result<()> {
    need!(Strace);
    let advised = |_: &State, run: &Run| -> Result<()> {
        for line in run.said.iter().filter(|line| line.starts_with("failed") || line.starts_with("refused")) {
            ensure!(line.contains("miharu.db: ") && line.contains(". "), "{line}");
        }
        Ok(())
    };
    let mut all = 0;
    for (call, step) in WRITES.into_iter().filter(|(call, _)| *call != "write") {
        let failures: &[&str] = if call == "pwrite64" { &["EIO", "ENOSPC"] } else { &["EIO"] };
        // Once, and from then on.
        for (error, ever) in failures.iter().flat_map(|error| [(error, ""), (error, "+")]) {
            let inject = |number| format!("{call}:error={error}:when={number}{ever}");
            let times = at_every(step, fresh, inject, advised)?;
            println!("{error} at {times} {call}{ever}");
            all += times;
        }
    }
    ensure!(all > 16, "{all}");
    Ok(())
}

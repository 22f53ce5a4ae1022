//! Three thousand containers made and removed, fifty a second, under the eyes of a Prometheus that scrapes all the time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use miharu_e2e::measure::{self, Samples};
use miharu_e2e::scratch::{self, Entry, unique};
use miharu_e2e::{Docker, Exposition, Lxc, Miharud, Podman, need, rootfs, shell};

/// How many are made, and how many a second: LXC starts one in some 40 ms, no other runtime keeps up.
const ALL: u32 = 3000;
const A_SECOND: u32 = 50;

/// After so many the daemon has met everything that it keeps something of.
const WARM: u32 = 500;

/// How long one lives.
const LIFE: &str = "0.3";

#[test]
fn containers_that_come_and_go_leave_nothing_behind_and_scrapes_stay_on_time() -> Result<()> {
    need!(Lxc, Docker, Podman);
    let _alone = scratch::alone()?;
    let (podman, docker) = (Podman::start()?, Docker::start()?);
    let daemon = Miharud::start()?;
    let stays = Lxc::start(&[])?;
    let complete = samples_of(&daemon.scrape()?, &stays.name);

    let dir = scratch::dir("churn")?;
    let _note = Entry::LxcPath(&dir).note()?;
    prepare(&dir)?;
    let (made, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
    // By id: these are named by runtimes that have to be asked for the names.
    let asked = Mutex::new(BTreeMap::new());
    let started = Instant::now();
    let seen = thread::scope(|scope| -> Result<Seen> {
        let makers: Vec<_> = (0..4).map(|_| scope.spawn(|| make(&dir, &made, started))).collect();
        let of_docker =
            scope.spawn(|| beside(&is_over, &asked, |name| docker.docker(&short_lived(name, "bb:1"))));
        let of_podman = scope
            .spawn(|| beside(&is_over, &asked, |name| podman.podman(&short_lived(name, "localhost/bb:1"))));
        let seen = watch(&daemon, &stays.name, complete, &dir, &made, &asked);
        // The makers go on to their end by themselves.
        let ended: Vec<_> = makers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        for ended in ended.into_iter().chain([of_docker.join(), of_podman.join()]) {
            ended.map_err(|_| anyhow!("a maker panicked"))??;
        }
        seen
    })?;
    let took = started.elapsed();
    // What a daemon has open that has seen nothing of it: other containers may run on this machine.
    let other = Miharud::start()?;
    let open = |daemon: &Miharud| -> Result<usize> {
        (0..3).try_for_each(|_| daemon.scrape().map(drop))?;
        measure::open_files(daemon.pid())
    };
    let (files, files_of_other) = (open(&daemon)?, open(&other)?);
    println!(
        "{ALL} containers of LXC and {} of podman and Docker in {took:.1?}; {} scrapes of {:.0} ms in the middle and \
         {:.0} ms at most saw {} of them; {files} descriptors and {files_of_other} of another daemon, {} to {} kB",
        asked.lock().unwrap().len(),
        seen.times.0.len(),
        seen.times.median().unwrap_or_default(),
        seen.times.max().unwrap_or_default(),
        seen.names,
        seen.warm / 1024,
        seen.end / 1024,
    );
    ensure!(seen.names > ALL as usize / 20, "only {} of {ALL} were ever seen", seen.names);
    ensure!(seen.asked > 0, "nothing of podman and Docker was ever seen");
    let middle = seen.times.median().context("no scrape")?;
    ensure!(middle < 1000.0, "a scrape in the middle took {middle} ms");
    ensure!(seen.times.max().context("no scrape")? < 4000.0, "one scrape took {:?} ms", seen.times.max());
    ensure!(files <= files_of_other + 10, "descriptors: {files}, of another daemon {files_of_other}");
    ensure!(seen.end <= seen.warm + (4 << 20), "memory: {} and later {}", seen.warm, seen.end);
    let log = daemon.log();
    ensure!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    let warnings = daemon.miharu(&["warning", "list", "--all", "--format", "csv"])?;
    // Both the folder and the names of the others are called so.
    ensure!(!warnings.contains("churn"), "who vanishes is nothing to warn of:\n{warnings}");
    Ok(())
}

/// What the scrapes saw.
struct Seen {
    /// How long each took, milliseconds.
    times: Samples,
    /// How many different ones of the short-lived containers of LXC were in them.
    names: usize,
    /// How often one of podman or Docker was.
    asked: usize,
    /// The daemon's anonymous memory, bytes, once it had met everything that it keeps something of, and when all was over.
    warm: u64,
    end: u64,
}

/// Scrapes until all are made, and some times more when they are gone.
fn watch(
    daemon: &Miharud,
    stays: &str,
    complete: usize,
    dir: &Path,
    made: &AtomicU32,
    asked: &Mutex<BTreeMap<String, String>>,
) -> Result<Seen> {
    let project = format!("lxc:{}", dir.display());
    let mut names = std::collections::BTreeSet::new();
    let (mut times, mut warm, mut met) = (Vec::new(), None, 0);
    let memory = || measure::memory(daemon.pid(), "RssAnon");
    while made.load(Ordering::Relaxed) < ALL {
        let begun = Instant::now();
        let scrape = daemon.scrape()?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        ensure!(samples_of(&scrape, stays) == complete, "the one that stays lost samples");
        for sample in scrape.select("incus_instance_scrape_success", &[("project", &project)]) {
            ensure!(sample.value == 1.0, "who vanishes is left out without noise: {sample:?}");
            names.insert(sample.label("name").to_owned());
        }
        for info in scrape.select("incus_instance_info", &[]) {
            if let Some(name) = asked.lock().unwrap().get(info.label("id")) {
                ensure!(info.label("name") == name, "{name} is served as {info:?}");
                met += 1;
            }
        }
        if warm.is_none() && made.load(Ordering::Relaxed) >= WARM {
            warm = Some(memory()?);
        }
        thread::sleep(Duration::from_millis(100));
    }
    daemon.scrape_until("the end of them all", Duration::from_secs(20), |scrape| {
        scrape.select("incus_instance_info", &[("project", &project)]).is_empty()
    })?;
    Ok(Seen {
        times: times.into_iter().collect(),
        names: names.len(),
        asked: met,
        warm: warm.context("no warm moment")?,
        end: memory()?,
    })
}

fn samples_of(scrape: &Exposition, name: &str) -> usize {
    scrape.samples().filter(|sample| sample.label("name") == name).count()
}

/// One root and one configuration for all.
fn prepare(dir: &Path) -> Result<()> {
    rootfs::make(&dir.join("rootfs"))?;
    let lines = [
        format!("lxc.rootfs.path = dir:{}", dir.join("rootfs").display()),
        "lxc.tty.max = 0".into(),
        "lxc.pty.max = 16".into(),
        format!("lxc.init.cmd = /bin/sleep {LIFE}"),
        "lxc.net.0.type = empty".into(),
    ];
    Ok(fs::write(dir.join("config"), lines.join("\n") + "\n")?)
}

/// Makes containers in their turn, none before its time, until there were enough. They end by themselves.
fn make(dir: &Path, made: &AtomicU32, started: Instant) -> Result<()> {
    loop {
        let number = made.fetch_add(1, Ordering::Relaxed);
        if number >= ALL {
            return Ok(());
        }
        let turn = Duration::from_secs(1) * number / A_SECOND;
        thread::sleep(turn.saturating_sub(started.elapsed()));
        ensure!(
            started.elapsed() < Duration::from_secs(240),
            "only {number} of {ALL} in {:?}",
            started.elapsed()
        );
        let name = format!("c{number}");
        // Whose it is, miharu sees by the owner of its folder.
        fs::create_dir(dir.join(&name))?;
        let mut command = Command::new("lxc-start");
        command.arg("-P").arg(dir).args(["-n", &name]).arg("-f").arg(dir.join("config"));
        shell::output(&mut command)?;
    }
}

/// Makes containers one after the other, about one a second, and notes their ids.
fn beside(
    is_over: &AtomicBool,
    asked: &Mutex<BTreeMap<String, String>>,
    run: impl Fn(&str) -> Result<String>,
) -> Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        let name = unique("churn");
        let id = run(&name)?.trim().to_owned();
        asked.lock().unwrap().insert(id, name);
        thread::sleep(Duration::from_millis(700));
    }
    Ok(())
}

fn short_lived<'a>(name: &'a str, image: &'a str) -> [&'a str; 9] {
    ["run", "-d", "--rm", "--network=none", "--name", name, image, "/bin/sleep", LIFE]
}

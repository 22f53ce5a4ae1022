//! Netdata on the same containers: its collector of cgroups alone, once a second, everything else that can be turned off off.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use miharu_e2e::keepalive::Scraper;
use miharu_e2e::measure::{self, Samples};
use miharu_e2e::miharud::free_port;
use miharu_e2e::scratch::{self, Entry};
use miharu_e2e::{interrupt, shell};

use crate::book::Book;
use crate::miharud::{Subject, count};

/// The plugins that are no collector of cgroups.
const OTHERS: [&str; 24] = [
    "timex",
    "checks",
    "idlejitter",
    "tc",
    "diskspace",
    "proc",
    "statsd",
    "slabinfo",
    "apps",
    "charts.d",
    "python.d",
    "node.d",
    "go.d",
    "fping",
    "ioping",
    "perf",
    "ebpf",
    "freeipmi",
    "nfacct",
    "xenstat",
    "cups",
    "enable running new plugins",
    "netdata monitoring",
    "netdata monitoring extended",
];

/// How many rounds one sample is over.
const ROUNDS: u32 = 3;

/// What a round costs; nothing but a remark where Netdata is not there.
///
/// # Errors
/// When it is there and does not start.
pub(crate) fn run(book: &mut Book, containers: u32, samples: u32) -> Result<()> {
    if !shell::exists("netdata") {
        book.missing("netdata", "it is not installed");
        return Ok(());
    }
    let dir = scratch::dir("netdata")?;
    let port = free_port()?;
    for sub in ["conf", "cache", "lib", "log"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    fs::write(dir.join("netdata.conf"), config(&dir.display().to_string(), port))?;
    let log = fs::File::create(dir.join("out"))?;
    let mut command = Command::new("netdata");
    command.arg("-D").arg("-c").arg(dir.join("netdata.conf")).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().context("netdata")?;
    let note = Entry::Process(child.id()).note()?;
    let measured = measure(book, child.id(), port, containers, samples);
    let _ = shell::run("kill", ["-TERM", &child.id().to_string()]);
    let _ = shell::wait_for("Netdata's end", Duration::from_secs(10), || child.try_wait().ok()?);
    let _ = child.kill();
    let _ = child.wait();
    drop(note);
    if let Ok(version) = shell::run("netdata", ["-v"]) {
        book.version("netdata", &format!("{}, cgroups plugin only, every second", version.trim()));
    }
    measured
}

fn measure(book: &mut Book, pid: u32, port: u16, containers: u32, samples: u32) -> Result<()> {
    let address = format!("127.0.0.1:{port}");
    // It looks for new cgroups every 10 s, and at each of them for long the first time.
    let mut charts = String::new();
    let found = shell::wait_for("Netdata's charts", Duration::from_secs(90), || {
        std::thread::sleep(Duration::from_millis(500));
        charts = Scraper::tcp(&address).ok()?.get("/api/v1/charts", &[]).ok()?.text();
        (charts.matches(".cpu_per_core\",").count() >= containers as usize * 2).then_some(())
    });
    if found.is_err() {
        let seen = charts.matches(".cpu_per_core\",").count() / 2;
        book.missing("netdata", &format!("it shows {seen} of {containers} containers after 90 s"));
        return Ok(());
    }
    // What it does once for a new container, it has done by then.
    interrupt::sleep(Duration::from_secs(12))?;
    let (mut all, mut plugin, mut ours) = (Samples::default(), Samples::default(), Samples::default());
    let mut miharud = Subject::start()?;
    miharud.set("metrics.cache_seconds", "0")?;
    miharud.sample(3)?;
    for _ in 0..samples {
        let before = threads(pid)?;
        // miharud is scraped as often as Netdata reads: either finds as little of the kernel's in the caches.
        let scrape = || {
            interrupt::sleep(Duration::from_secs(1))?;
            ours.0.push(miharud.sample(1)?.cpu_us);
            Ok(())
        };
        let cost = measure::cost(ROUNDS, || measure::cpu_of_tree(pid), scrape)?;
        // It goes on reading while miharud is asked: as many rounds as there were seconds.
        let seconds = cost.wall_us / 1e6;
        plugin.0.push((threads(pid)? - before) / f64::from(ROUNDS) / seconds);
        all.0.push(cost.cpu_us / seconds);
    }
    book.note("miharud", "beside Netdata, fresh every second: CPU", containers, "us", ours);
    book.note("netdata", "a round: CPU", containers, "us", all);
    book.note("netdata", "a round, the plugin's threads alone: CPU", containers, "us", plugin);
    let series = Scraper::tcp(&address)?.get("/api/v1/allmetrics?format=prometheus&source=raw", &[])?.text();
    let series = series.lines().filter(|line| line.contains("cgroup_")).count();
    book.number("netdata", "series", containers, "", count(series));
    #[allow(clippy::cast_precision_loss, reason = "bytes, far below 2^53")]
    book.number("netdata", "VmRSS", containers, "bytes", measure::memory(pid, "VmRSS")? as f64);
    Ok(())
}

/// CPU time of the threads of the plugin, which live as long as it does, in microseconds.
fn threads(pid: u32) -> Result<f64> {
    let mut total = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("netdata has ended")?.flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        if name.trim() == "PLUGIN[cgroups]" {
            let times = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let nanoseconds: f64 = times.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0.0);
            total += nanoseconds / 1e3;
        }
    }
    Ok(total)
}

fn config(dir: &str, port: u16) -> String {
    let others: String = OTHERS.iter().map(|name| format!("    {name} = no\n")).collect();
    format!(
        "[global]\n    hostname = bench\n    run as user = root\n\
         [directories]\n    config = {dir}/conf\n    cache = {dir}/cache\n    lib = {dir}/lib\n    log = {dir}/log\n\
         [logs]\n    error = {dir}/log/error.log\n    debug = none\n    access = none\n\
         [db]\n    update every = 1\n    mode = ram\n    retention = 120\n\
         [ml]\n    enabled = no\n[health]\n    enabled = no\n[registry]\n    enabled = no\n\
         [web]\n    bind to = 127.0.0.1:{port}\n    web files owner = root\n    web files group = root\n\
         [plugins]\n{others}    cgroups = yes\n\
         [plugin:cgroups]\n    use unified cgroups = {}\n    enable by default cgroups matching = *lxc.payload.*\n    \
         cgroups to match as systemd services = !*\n    run script to rename cgroups matching = !*\n    \
         script to get cgroup network interfaces = /bin/true\n",
        if miharu_e2e::cgroup::is_v2() { "yes" } else { "no" },
    )
}

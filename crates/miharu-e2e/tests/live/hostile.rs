//! A container whose root wants to forge or break the exposition, or to cost others theirs.

mod devices;
mod filesystems;
mod gone;
mod many;
mod names;
mod stacked;
mod unread;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use miharu_e2e::loopdev::LoopDevice;
use miharu_e2e::{Exposition, Lxc, Miharud, measure, need, shell};

/// The collection's deadline is 4 s; a busy machine needs some time besides.
const LIMIT: Duration = Duration::from_secs(6);

/// What a daemon may grow by on account of one hostile container, bytes.
const GROWTH: u64 = 64 << 20;

/// A daemon, and a container that does nothing, of which nothing may be lost.
struct Scene {
    daemon: Miharud,
    witness: Lxc,
    /// What was told of the witness before anything was done, and last.
    first: Told,
    last: RefCell<Told>,
    /// What a look found to be wrong, even if who looked then looks again.
    fault: RefCell<Option<String>>,
    resident: u64,
}

/// An instance's series, each with its family's kind and its value.
type Told = BTreeMap<String, (String, f64)>;

/// Gauges that nothing changes while an instance does nothing, by the ends of their names.
const STEADY: [&str; 5] = [
    "_boot_time_seconds",
    "_cpu_effective_total",
    "_filesystem_size_bytes",
    "_instance_info",
    "_memory_MemTotal_bytes",
];

impl Scene {
    fn start() -> Result<Self> {
        let (daemon, witness) = (Miharud::start()?, Lxc::start(&[])?);
        // The first reading opens the files that are kept.
        daemon.scrape()?;
        let first = told(&daemon.scrape()?, &witness.name);
        ensure!(first.len() > 20, "{first:?}");
        let resident = measure::memory(daemon.pid(), "VmRSS")?;
        Ok(Self {
            daemon,
            witness,
            last: RefCell::new(first.clone()),
            first,
            fault: RefCell::default(),
            resident,
        })
    }

    /// Scrapes: in time, with all of the witness' series and no further ones, as they have to be, and within the memory that there is for one
    /// hostile container.
    fn look(&self) -> Result<Exposition> {
        if let Some(fault) = &*self.fault.borrow() {
            bail!("an earlier scrape: {fault}");
        }
        let seen = self.check();
        if let Err(error) = &seen {
            println!("{error:#}");
            self.fault.replace(Some(format!("{error:#}")));
        }
        seen
    }

    fn check(&self) -> Result<Exposition> {
        let started = Instant::now();
        let scrape = self.daemon.scrape()?;
        let took = started.elapsed();
        ensure!(took < shell::patient(LIMIT), "a scrape took {took:?}");
        self.compare(told(&scrape, &self.witness.name))?;
        let success = [("name", self.witness.name.as_str())];
        ensure!(scrape.value("incus_instance_scrape_success", &success)? == 1.0, "the witness has failed");
        let grown = measure::memory(self.daemon.pid(), "VmRSS")?.saturating_sub(self.resident);
        println!("a scrape in {took:?}, {} KiB more resident memory", grown >> 10);
        ensure!(grown < GROWTH, "miharud grew by {grown} bytes");
        Ok(scrape)
    }

    /// Whether what is told of the witness now is what may follow on what was told.
    fn compare(&self, now: Told) -> Result<()> {
        let missing: Vec<_> = self.first.keys().filter(|series| !now.contains_key(*series)).collect();
        ensure!(missing.is_empty(), "the witness lost {missing:?}");
        let last = self.last.replace(now.clone());
        for (series, (kind, value)) in &now {
            let Some((_, before)) = last.get(series).or_else(|| self.first.get(series)) else {
                // The kernel counts each disk of the machine from the first time on that anything is read from it.
                ensure!(series.contains("_disk_") && is_of_a_disk(series), "the witness got {series}");
                continue;
            };
            let is_steady =
                STEADY.iter().any(|end| series.split(' ').next().is_some_and(|name| name.ends_with(end)));
            ensure!(!is_steady || value == before, "{series} was {before} and is {value}");
            ensure!(kind != "counter" || value >= before, "{series} fell from {before} to {value}");
        }
        Ok(())
    }

    /// Some scrapes, the last of which is given.
    fn watch(&self) -> Result<Exposition> {
        self.look()?;
        self.look()?;
        self.look()
    }

    /// Whether a warning has all of these words.
    fn is_warned(&self, words: &[&str]) -> Result<bool> {
        let all = self.daemon.get("/1.0/warnings?recursion=1")?.json()?;
        let all = all["metadata"].as_array().context("a list")?.clone();
        Ok(all.iter().any(|warning| {
            let text = warning["last_message"].as_str().unwrap_or_default();
            words.iter().all(|word| text.contains(word))
        }))
    }

    fn expect_warning(&self, words: &[&str]) -> Result<()> {
        let all = || self.daemon.get("/1.0/warnings?recursion=1").map(|reply| reply.text());
        ensure!(self.is_warned(words)?, "no warning of {words:?} in {}", all()?);
        Ok(())
    }
}

/// All series of an instance.
fn told(scrape: &Exposition, name: &str) -> Told {
    let mut all = Told::new();
    for family in &scrape.families {
        for sample in family.samples.iter().filter(|sample| sample.label("name") == name) {
            let series = format!("{} {:?}", sample.name, sample.labels);
            all.insert(series, (family.kind.clone(), sample.value));
        }
    }
    all
}

/// All series of an instance, without their values.
fn series(scrape: &Exposition, name: &str) -> BTreeSet<String> {
    told(scrape, name).into_keys().collect()
}

/// Whether a series is of a disk that the machine has.
fn is_of_a_disk(series: &str) -> bool {
    let device = series.split_once("\"device\": \"").and_then(|(_, rest)| rest.split_once('"'));
    device.is_some_and(|(name, _)| Path::new("/sys/class/block").join(name).exists())
}

/// The name that broke LXD's whole scrape.
const INTERFACE: &str = "x\",name=\"other";
/// Inside: a quote, a backslash, a newline with something that looks like a series behind it, a blank.
const MOUNT: &str = "/mnt/a\"b\\c\nincus_procs_total{name=\"forged\"} 1 d";

#[test]
fn names_with_quotes_backslashes_and_newlines_forge_nothing() -> Result<()> {
    need!(Lxc);
    let daemon = Miharud::start()?;
    let neighbour = Lxc::start(&[])?;
    let lxc = Lxc::start(&[])?;
    let disk = LoopDevice::create(16 << 20, None)?;
    shell::run(
        "nsenter",
        ["-t", &lxc.pid.to_string(), "-n", "ip", "link", "add", INTERFACE, "type", "bridge"],
    )?;
    let quoted = MOUNT.replace('\'', "'\\''");
    lxc.exec(&format!(
        "mknod /dev/own b 7 {}; mkdir -p '{quoted}'; mount -t ext4 /dev/own '{quoted}'",
        disk.minor()
    ))?;

    // The strict parser refuses forged and broken lines; here is what it must have read.
    let scrape = daemon.scrape()?;
    let name = ("name", lxc.name.as_str());
    scrape.value("incus_network_receive_bytes_total", &[name, ("device", INTERFACE)])?;
    scrape.value("incus_filesystem_size_bytes", &[name, ("mountpoint", MOUNT)])?;
    let instances = scrape.instances();
    assert!(!instances.contains("other") && !instances.contains("forged"), "{instances:?}");
    assert!(instances.contains(&neighbour.name));
    assert_eq!(scrape.value("incus_instance_scrape_success", &[("name", &neighbour.name)])?, 1.0);
    Ok(())
}
